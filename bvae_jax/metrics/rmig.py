"""Robust MIG: the gap under the posterior itself, not under its mean."""

import numpy as np
from scipy.special import ndtr

from bvae_jax.metrics.base import (
    BINS,
    InvalidArrays,
    Metric,
    checked,
    checked_codes,
    discretize,
    entropies,
    information,
    mean,
    ratio,
    relabel,
    top_two,
)
from bvae_jax.types import Codes, Factors, Score


def rmig(
    codes: Codes, factors: Factors, logvars: Codes | None = None, *, bins: int = BINS
) -> Score:
    """RMIG: the gap of I(z_j; v) where each point spreads over the bins as its posterior does.

    Bins have equal width over the range of the posterior means, the outer ones are open. A point
    gives each bin the mass of N(mean, exp(logvar)) there. Without log-variances the posterior is a
    point, and the score is that of `mig`.

    Args:
        codes: [n, latent] posterior means.
        factors: [n, factor] class indices.
        logvars: [n, latent] posterior log-variances.
        bins: for each latent.

    Returns:
        `score`, over the factors' entropies, in [0, 1]; `rmig`, the paper's, in nats;
        `per_factor` [factor]; `mutual_information` [latent, factor].

    Raises:
        ValueError: arrays that do not fit or are not finite.

    Do & Tran, 2020, "Theory and evaluation metrics for learning disentangled representations",
    section 3.
    """
    codes, factors = checked(codes, factors)
    if logvars is None:
        binned = discretize(codes, bins)
        masses = (np.eye(bins)[column] for column in binned.T)
    else:
        logvars = checked_codes(logvars, "logvars")
        if logvars.shape != codes.shape:
            raise InvalidArrays(
                f"logvars: got shape {logvars.shape}, wanted that of codes {codes.shape}."
            )
        stds = np.exp(0.5 * logvars)
        masses = (_masses(m, s, bins) for m, s in zip(codes.T, stds.T, strict=True))
    classes = [np.eye(size)[labels] for labels, size in map(relabel, factors.T)]
    matrix = np.array([[information(one_hot.T @ mass) for one_hot in classes] for mass in masses])
    first, second = top_two(matrix)
    entropy = entropies(factors)
    per_factor = ratio(first - second, entropy)
    return {
        "score": mean(per_factor),
        "rmig": float(np.mean(first - second)),
        "per_factor": per_factor,
        "mutual_information": matrix,
    }


def _masses(mean: np.ndarray, std: np.ndarray, bins: int) -> np.ndarray:
    """[n, bins]: how much of N(mean, std^2) lies in each bin."""
    edges = np.linspace(mean.min(), mean.max(), bins + 1)[1:-1]
    below = ndtr((edges - mean[:, None]) / np.maximum(std, 1e-30)[:, None])
    return np.diff(below, axis=1, prepend=0.0, append=1.0)


METRIC = Metric(
    rmig,
    "MIG with each point spread over the bins by its posterior",
    "Do & Tran 2020",
    others=("rmig",),
    fast=True,
    null=True,
)
