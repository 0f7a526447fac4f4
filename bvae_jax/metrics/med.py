"""MED: DCI's disentanglement on mutual information, so that nothing is fitted."""

from bvae_jax.metrics.base import (
    BINS,
    InvalidArrays,
    Metric,
    alone,
    checked,
    discretize,
    mutual_information,
    ratio,
    varying,
)
from bvae_jax.metrics.dci import disentanglement
from bvae_jax.types import CodeMatrix, Factors, Score


def med(codes: CodeMatrix, factors: Factors, *, bins: int = BINS) -> Score:
    """DCI's disentanglement of the matrix I(z_j; v_k) / sum over latents of I(z; v_k).

    Args:
        codes: [n, latent].
        factors: [n, factor] class indices; those with one value are left out.
        bins: for each latent.

    Returns:
        `score` in [0, 1]; `per_latent` and `latent_weight` [latent]; `importance`
        [latent, factor].

    Raises:
        ValueError: arrays that do not fit or are not finite, or fewer than two latents or factors
            that vary.

    Cao, Nai, Yang, Huang & Gao, 2022, "An empirical study on disentanglement of negative-free
    contrastive learning", section 3.2.
    """
    codes, factors = checked(codes, factors)
    if why := alone(varying_factors=varying(factors), varying_latents=varying(codes)):
        raise InvalidArrays(why)
    matrix = mutual_information(discretize(codes, bins), factors)
    importance = ratio(matrix, matrix.sum(axis=0))
    score, per_latent, weight = disentanglement(importance)
    return {
        "score": score,
        "per_latent": per_latent,
        "latent_weight": weight,
        "importance": importance,
    }


MED = Metric(
    med,
    "DCI's disentanglement on the matrix of mutual information",
    "Cao et al. 2022",
    fast=True,
    null=True,
)
