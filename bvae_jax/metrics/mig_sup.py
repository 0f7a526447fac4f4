"""MIG-sup: the mutual information gap with the roles of latents and factors swapped."""

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
    varying,
)
from bvae_jax.types import Codes, Factors, Score


def mig_sup(codes: Codes, factors: Factors, *, bins: int = BINS) -> Score:
    """Mean over latents of the gap between the two largest I(z; v_k) / H(v_k) of factors.

    It falls when one latent mixes factors, which MIG does not see. Constant latents are left out;
    without any other the score is 0.

    Args:
        codes: [n, latent].
        factors: [n, factor] class indices.
        bins: for each latent.

    Returns:
        `score` in [0, 1]; `per_latent` [latent], nan for constant ones;
        `normalised_information` [latent, factor].

    Raises:
        ValueError: arrays that do not fit or are not finite.

    Li, Murkute, Gyawali & Wang, 2020, "Progressive learning and disentanglement of hierarchical
    representations", equation 9.
    """
    codes, factors = checked(codes, factors)
    matrix = mutual_information(discretize(codes, bins), factors)
    matrix = ratio(matrix, entropies(factors))
    known = matrix[:, ~(matrix != matrix).any(axis=0)]
    first, second = top_two(known.T)
    per_latent = first - second
    per_latent[~varying(codes)] = float("nan")
    return {
        "score": mean(per_latent) if varying(codes).any() else 0.0,
        "per_latent": per_latent,
        "normalised_information": matrix,
    }


METRIC = Metric(
    mig_sup,
    "gap between the two factors of which a latent knows most",
    "Li et al. 2020",
    fast=True,
    null=True,
)
