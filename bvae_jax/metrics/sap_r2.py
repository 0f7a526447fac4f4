"""SAP for continuous factors: squared correlations."""

import numpy as np

from bvae_jax.metrics.base import Metric, checked, mean, top_two
from bvae_jax.types import Codes, Factors, Score

SMALL = 1e-12
"""A variance up to this is none, as in the original."""


def sap_r2(codes: Codes, factors: Factors) -> Score:
    """Mean over factors of the gap between the two largest squared correlations with a latent.

    Class indices are taken as numbers, so that it makes sense for ordered factors. Latents that do
    not vary have correlation 0.

    Args:
        codes: [n, latent].
        factors: [n, factor] class indices.

    Returns:
        `score` in [0, 1]; `per_factor` [factor]; `r2` [latent, factor].

    Raises:
        ValueError: arrays that do not fit or are not finite.

    Kumar, Sattigeri & Balakrishnan, 2018, section 3.
    """
    codes, factors = checked(codes, factors)
    x, y = codes - codes.mean(axis=0), factors - factors.mean(axis=0)
    variance_x, variance_y = x.var(axis=0), y.var(axis=0)
    covariance = x.T @ y / len(x)
    scale = np.outer(np.where(variance_x > SMALL, variance_x, np.inf), variance_y)
    matrix = np.divide(covariance**2, scale, out=np.full_like(scale, np.nan), where=scale > 0)
    first, second = top_two(matrix)
    return {"score": mean(first - second), "per_factor": first - second, "r2": matrix}


METRIC = Metric(
    sap_r2,
    "gap between the two largest squared correlations of a factor with a latent",
    "Kumar et al. 2018",
    fast=True,
    pixels=True,
)
