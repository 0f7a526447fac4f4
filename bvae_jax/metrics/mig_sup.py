"""MIG-sup: the mutual information gap with the roles of latents and factors swapped."""

from bvae_jax.metrics.base import (
    ACTIVE_VARIANCE,
    BINS,
    Metric,
    checked,
    discretize,
    entropies,
    mean,
    mutual_information,
    ratio,
    sample_variance,
    top_two,
)
from bvae_jax.types import CodeMatrix, Factors, Score


def mig_sup(
    codes: CodeMatrix, factors: Factors, *, bins: int = BINS, variance: float = ACTIVE_VARIANCE
) -> Score:
    """Mean over active latents of the gap between the two largest I(z; v_k) / H(v_k) of factors.

    It falls when one latent mixes factors, which MIG does not see. Latents whose mean hardly varies
    are left out, as by the authors; without any other the score is 0.

    Where it differs: the authors estimate information from samples of the posterior; here means
    are counted in bins.

    Args:
        codes: [n, latent].
        factors: [n, factor] class indices.
        bins: for each latent.
        variance: a latent is active if the variance of its codes exceeds this. It supposes codes on
            the scale of a prior of variance 1.

    Returns:
        `score` in [0, 1]; `per_latent` [latent], nan for those left out;
        `normalised_information` [latent, factor].

    Raises:
        ValueError: arrays that do not fit or are not finite.

    Li, Murkute, Gyawali & Wang, 2020, "Progressive learning and disentanglement of hierarchical
    representations", equation 9, and their code.
    """
    codes, factors = checked(codes, factors)
    matrix = mutual_information(discretize(codes, bins), factors)
    matrix = ratio(matrix, entropies(factors))
    known = matrix[:, ~(matrix != matrix).any(axis=0)]
    first, second = top_two(known.T)
    per_latent = first - second
    per_latent[~(sample_variance(codes) > variance)] = float("nan")
    return {
        "score": mean(per_latent, empty=0.0),
        "per_latent": per_latent,
        "normalised_information": matrix,
    }


MIG_SUP = Metric(
    mig_sup,
    "gap between the two factors of which a latent knows most",
    "Li et al. 2020",
    fast=True,
    null=True,
    # One common scale changes the score, too: what is active is judged by the variance.
    invariant=("permute", "sign", "order"),
)
