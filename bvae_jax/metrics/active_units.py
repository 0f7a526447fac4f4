"""Active units: how many latents are active."""

import numpy as np

from bvae_jax.metrics.base import (
    ACTIVE_VARIANCE,
    Metric,
    checked_codes,
    varying,
)
from bvae_jax.types import CodeMatrix, Score


def active_units(codes: CodeMatrix, *, variance: float = ACTIVE_VARIANCE) -> Score:
    """Number of latents whose posterior mean varies over images.

    Args:
        codes: [n, latent] posterior means.
        variance: a latent is active if the variance of its mean exceeds this; 0.01 in the paper,
            for a prior of variance 1.

    Returns:
        `score`, how many; `constant`, how many do not vary at all; `variance_per_latent`
        [latent]; `active` [latent] bool.

    Raises:
        ValueError: codes that are not finite.

    Burda, Grosse & Salakhutdinov, 2016, "Importance weighted autoencoders", section 5.2.
    """
    codes = checked_codes(codes)
    spread = codes.var(axis=0)
    found = spread > variance
    return {
        "score": int(found.sum()),
        "constant": int((~varying(codes)).sum()),
        "variance_per_latent": spread,
        "active": found,
    }


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
