"""What latents that are matched one to one with the factors know of them."""

import numpy as np

from bvae_jax.metrics.base import (
    BINS,
    Metric,
    checked,
    discretize,
    entropies,
    mutual_information,
    varying,
)
from bvae_jax.metrics.mcc import matched
from bvae_jax.types import CodeMatrix, Factors, Score


def matched_information(codes: CodeMatrix, factors: Factors, *, bins: int = BINS) -> Score:
    """Sum of I(z_j; v_k) over pairs of a factor and a latent of its own, over the sum of H(v_k).

    Pairs are chosen so that the sum is largest. Unlike MIG it does not mind a second latent that
    knows the factor too, so that it tells how much is lost and not how it is shared out; a latent
    that knows all factors counts once.

    Where it differs: the paper's number is the sum in nats (`nats`); here it is divided by the
    entropy of all factors.

    Args:
        codes: [n, latent].
        factors: [n, factor] class indices.
        bins: for each latent, of equal width over its range.

    Returns:
        `score` in [0, 1]; `nats`, the sum; `per_factor` [factor], I / H; `latent` [factor], its
        number, -1 for none; `mutual_information` [latent, factor] in nats.

    Raises:
        ValueError: arrays that do not fit or are not finite.

    I_m of "Mutual information collapse explains disentanglement failure in beta-VAEs",
    arXiv 2602.09277, 2026.
    """
    codes, factors = checked(codes, factors)
    matrix, entropy = mutual_information(discretize(codes, bins), factors), entropies(factors)
    latent = matched(matrix)
    known = np.where(latent >= 0, matrix[latent, np.arange(len(latent))], 0.0)
    share = np.divide(known, entropy, out=np.full(len(known), np.nan), where=varying(factors))
    return {
        "score": float(known.sum() / entropy.sum()),
        "nats": float(known.sum()),
        "per_factor": share,
        "latent": latent,
        "mutual_information": matrix,
    }


MATCHED_INFORMATION = Metric(
    matched_information,
    "what a latent of its own knows of each factor, over the entropy of all",
    "arXiv 2602.09277, 2026",
    others=("nats",),
    pixels=True,
    null=True,
)
