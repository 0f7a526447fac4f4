"""IRS: interventional robustness score."""

import numpy as np

from bvae_jax.metrics.base import BINS, Metric, checked, discretize, varying
from bvae_jax.types import CodeMatrix, Factors, Score


def irs(codes: CodeMatrix, factors: Factors, *, bins: int = BINS, quantile: float = 0.99) -> Score:
    """How little a latent moves, at worst, while its own factor is held and all others change.

    For latent j and factor k: 1 - E_v[quantile of |z_j - E(z_j | v_k = v)| given v_k = v] over the
    largest |z_j - E z_j|. Each latent takes its best factor, and is weighted by that largest
    deviation. Factors are cut into `bins` first, as in disentanglement_lib, so that factors of more
    values do not score 1. Latents and factors that are constant are left out.

    Args:
        codes: [n, latent].
        factors: [n, factor] class indices.
        bins: for each factor.
        quantile: of the deviations.

    Returns:
        `score` in [0, 1]; `per_latent` [latent], nan for constant ones; `factor` [latent], which
        was best, -1 for constant ones; `matrix` [latent, factor], nan where either is constant.

    Raises:
        ValueError: arrays that do not fit or are not finite.

    Suter, Miladinović, Schölkopf & Bauer, 2019, "Robustly disentangled causal mechanisms",
    section 4.
    """
    codes, factors = checked(codes, factors)
    keep = varying(codes)
    matrix = np.full((codes.shape[1], factors.shape[1]), np.nan)
    if not keep.any():
        nothing = np.full(codes.shape[1], -1)
        return {
            "score": 0.0,
            "per_latent": matrix[:, 0],
            "factor": nothing,
            "matrix": matrix,
        }
    z = codes[:, keep]
    largest = np.abs(z - z.mean(axis=0)).max(axis=0)
    binned = discretize(factors.astype(np.float64), bins)
    held = np.flatnonzero(varying(factors))
    for k in held:
        column = binned[:, k]
        groups = [z[column == value] for value in np.unique(column)]
        deviations = [
            np.quantile(np.abs(group - group.mean(axis=0)), quantile, axis=0) for group in groups
        ]
        matrix[keep, k] = 1 - np.mean(deviations, axis=0) / largest
    best = matrix[:, held].argmax(axis=1)
    per_latent = matrix[np.arange(len(matrix)), held[best]]
    return {
        "score": float(np.average(per_latent[keep], weights=largest)),
        "per_latent": per_latent,
        "factor": np.where(keep, held[best], -1),
        "matrix": matrix,
    }


IRS = Metric(
    irs,
    "how little a latent moves while its factor is held and the others change",
    "Suter et al. 2019",
    fast=True,
    # Weighted by the latents' ranges: one common scale changes nothing, several do.
    invariant=("permute", "sign", "order"),
)
