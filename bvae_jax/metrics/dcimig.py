"""DCIMIG (3CharM): a gap for each factor, of the latent that is most its own."""

import numpy as np

from bvae_jax.metrics.base import (
    BINS,
    Metric,
    checked,
    discretize,
    entropies,
    mutual_information,
    ratio,
    top_two,
)
from bvae_jax.types import CodeMatrix, Factors, Score


def dcimig(codes: CodeMatrix, factors: Factors, *, bins: int = BINS) -> Score:
    """Sum over factors of the gap of their latent, over the sum of their entropies.

    A latent belongs to the factor of which it knows most; its gap is I(z; v) of that factor less
    that of the next. A factor takes the largest gap among its latents, and 0 if it has none.

    Args:
        codes: [n, latent].
        factors: [n, factor] class indices.
        bins: for each latent.

    Returns:
        `score` in [0, 1]; `per_factor` [factor], over each one's entropy (nan for a factor with
        one value); `latent` [factor], which latent it took, -1 for none.

    Raises:
        ValueError: arrays that do not fit or are not finite.

    Sepliarskaia, Kiseleva & de Rijke, 2019, "How to not measure disentanglement", section 4.
    """
    codes, factors = checked(codes, factors)
    matrix = mutual_information(discretize(codes, bins), factors)
    entropy = entropies(factors)
    first, second = top_two(matrix.T)
    gaps, owners = first - second, matrix.argmax(axis=1)
    best, latent = np.zeros(len(entropy)), np.full(len(entropy), -1)
    for j, (gap, k) in enumerate(zip(gaps, owners, strict=True)):
        if gap > best[k]:
            best[k], latent[k] = gap, j
    per_factor = ratio(best, entropy)
    return {
        "score": float(best.sum() / entropy.sum()),
        "per_factor": per_factor,
        "latent": latent,
    }


DCIMIG = Metric(
    dcimig,
    "sum of the gaps of each factor's own latent, over the sum of the factors' entropies",
    "Sepliarskaia et al. 2019",
    null=True,
)
