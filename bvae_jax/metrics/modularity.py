"""Modularity: does each latent know of one factor only?"""

import numpy as np

from bvae_jax.metrics.base import (
    BINS,
    InvalidArrays,
    LatentKL,
    Metric,
    active,
    alone,
    checked,
    discretize,
    mean,
    mutual_information,
    ratio,
    varying,
)
from bvae_jax.types import CodeMatrix, Factors, Score


def modularity(
    codes: CodeMatrix,
    factors: Factors,
    kl: LatentKL | None = None,
    *,
    bins: int = BINS,
    constant_as_zero: bool = False,
) -> Score:
    """Mean over latents of 1 - sum of I(z; v)^2 over the other factors / (max I^2 (K - 1)).

    K is the number of factors that vary. Latents that vary without knowing anything still have a
    best factor by chance: pure noise scores about .7. Left out, therefore, are latents that are
    not active (`metrics.base.active`) or know nothing at all; without any other the score is 0.

    Where it differs: disentanglement_lib counts latents that are constant as 0; here those that
    are not active are left out.

    Args:
        codes: [n, latent].
        factors: [n, factor] class indices.
        kl: [latent] mean KL from the prior, in nats.
        bins: for each latent.
        constant_as_zero: average over all latents, constant ones as 0, as disentanglement_lib does.

    Returns:
        `score` in [0, 1]; `per_latent` [latent], nan for those left out; `mutual_information`
        [latent, factor] in nats.

    Raises:
        ValueError: arrays that do not fit or are not finite, or fewer than two factors that vary.

    Ridgeway & Mozer, 2018, "Learning deep disentangled embeddings with the F-statistic loss",
    equation 2.
    """
    codes, factors = checked(codes, factors)
    counted = varying(factors)
    if why := alone(varying_factors=counted):
        raise InvalidArrays(why)
    matrix = mutual_information(discretize(codes, bins), factors)
    squared = matrix**2
    largest = squared.max(axis=1)
    per_latent = 1 - ratio(squared.sum(axis=1) - largest, largest * (counted.sum() - 1))
    if constant_as_zero:
        per_latent = np.nan_to_num(per_latent, nan=0.0)
    else:
        per_latent[~active(codes, kl)] = np.nan
    return {
        "score": mean(per_latent, empty=0.0),
        "per_latent": per_latent,
        "mutual_information": matrix,
    }


MODULARITY = Metric(
    modularity,
    "how little a latent knows of any factor but its best",
    "Ridgeway & Mozer 2018",
    fast=True,
    null=True,
    compat={"constant_as_zero": True},
    invariant=("permute", "sign", "order"),  # a latent of little variance is inactive
)
