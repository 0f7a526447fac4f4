"""Robust MIG: the gap under the posterior itself, not under its mean."""

from bvae_jax.metrics.base import (
    BINS,
    POINTS,
    Metric,
    bin_masses,
    checked,
    entropies,
    information_of_masses,
    mean,
    ratio,
    top_two,
    varying,
)
from bvae_jax.types import CodeMatrix, Factors, Score


def rmig(
    codes: CodeMatrix, factors: Factors, logvars: CodeMatrix | None = None, *, bins: int = BINS
) -> Score:
    """RMIG: the gap of I(z_j; v) where each point spreads over the bins as its posterior does.

    Bins have equal width over the range of the posterior means, the outer ones are open. A point
    gives each bin the mass of N(mean, exp(logvar)) there. Without log-variances the posterior is a
    point, and the score is that of `mig`. Factors with one value are left out.

    Args:
        codes: [n, latent] posterior means.
        factors: [n, factor] class indices.
        logvars: [n, latent] posterior log-variances.
        bins: for each latent.

    Returns:
        `score`, over the factors' entropies, in [0, 1]; `rmig`, the paper's, in nats;
        `per_factor` [factor]; `mutual_information` [latent, factor]; `notes`.

    Raises:
        ValueError: arrays that do not fit or are not finite.

    Do & Tran, 2020, "Theory and evaluation metrics for learning disentangled representations",
    section 3.
    """
    codes, factors = checked(codes, factors)
    matrix, _ = information_of_masses(bin_masses(codes, logvars, bins), factors)
    first, second = top_two(matrix)
    per_factor = ratio(first - second, entropies(factors))
    return {
        "score": mean(per_factor),
        "rmig": mean((first - second)[varying(factors)]),
        "per_factor": per_factor,
        "mutual_information": matrix,
        "notes": [POINTS] if logvars is None else [],
    }


RMIG = Metric(
    rmig,
    "MIG with each point spread over the bins by its posterior",
    "Do & Tran 2020",
    others=("rmig",),
    fast=True,
    null=True,
)
