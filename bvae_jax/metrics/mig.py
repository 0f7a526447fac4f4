"""Mutual information gap, by counting."""

from bvae_jax.metrics.base import (
    BINS,
    Metric,
    checked,
    discretize,
    entropies,
    mean,
    mutual_information,
    ratio,
    top_two,
)
from bvae_jax.types import CodeMatrix, Factors, Score


def mig(codes: CodeMatrix, factors: Factors, *, bins: int = BINS) -> Score:
    """MIG: mean over factors of (I1 - I2) / H(v), I1 and I2 the two largest I(z_j; v) of latents.

    As in Locatello et al. (2019): posterior means, cut into bins of equal width over each latent's
    range. It falls below 1 even for perfect codes whose factor has more values than there are
    bins, and is biased upwards by few points. `mig_chen` is the density form of the paper.

    Where it differs: the paper takes sampled codes by their density, over the logarithm of the
    factor's size (`mig_chen`); here, as in disentanglement_lib, means are counted in bins, over
    the factor's entropy.

    Args:
        codes: [n, latent].
        factors: [n, factor] class indices.
        bins: for each latent.

    Returns:
        `score` in [0, 1]; `per_factor` [factor]; `mutual_information` [latent, factor] and
        `entropy` [factor] in nats.

    Raises:
        ValueError: arrays that do not fit or are not finite.

    Chen, Li, Grosse & Duvenaud, 2018, equation 6.
    """
    codes, factors = checked(codes, factors)
    matrix = mutual_information(discretize(codes, bins), factors)
    entropy = entropies(factors)
    first, second = top_two(matrix)
    per_factor = ratio(first - second, entropy)
    return {
        "score": mean(per_factor),
        "per_factor": per_factor,
        "mutual_information": matrix,
        "entropy": entropy,
    }


MIG = Metric(
    mig,
    "gap between the two latents that know most of a factor, over the factor's entropy",
    "Chen et al. 2018; Locatello et al. 2019",
    fast=True,
    pixels=True,
    null=True,
)
