"""Active units: how many latents the encoder uses."""

import numpy as np

from bvae_jax.metrics.base import (
    ACTIVE_NATS,
    ACTIVE_VARIANCE,
    LatentKL,
    Metric,
    checked_codes,
    checked_kl,
    varying,
)
from bvae_jax.types import CodeMatrix, Score


def active_units(
    codes: CodeMatrix,
    kl: LatentKL | None = None,
    *,
    variance: float = ACTIVE_VARIANCE,
    nats: float = ACTIVE_NATS,
) -> Score:
    """Number of latents whose posterior mean varies, and whose KL is above zero.

    Args:
        codes: [n, latent] posterior means.
        kl: [latent] mean KL from the prior, in nats.
        variance: a latent is active if the variance of its mean exceeds this; 0.01 in the paper,
            for a prior of variance 1.
        nats: a latent is active by its KL if that exceeds this.

    Returns:
        `score`, how many by variance; `by_kl`, how many by KL, if that is given; `constant`, how
        many do not vary at all; `variance_per_latent` [latent]; `active` [latent] bool.

    Raises:
        ValueError: codes that are not finite, or a KL for another number of latents.

    Burda, Grosse & Salakhutdinov, 2016, "Importance weighted autoencoders", section 5.2.
    """
    codes = checked_codes(codes)
    spread = codes.var(axis=0)
    active = spread > variance
    result = {
        "score": int(active.sum()),
        "constant": int((~varying(codes)).sum()),
        "variance_per_latent": spread,
        "active": active,
    }
    if kl is not None:
        result["by_kl"] = int((checked_kl(kl, len(spread)) > nats).sum())
    return result


ACTIVE_UNITS = Metric(
    active_units,
    "number of latents whose posterior mean varies",
    "Burda et al. 2016",
    others=("constant",),
    best="none",
    range=(0.0, np.inf),
    fast=True,
    invariant=("permute", "sign", "order"),
)
