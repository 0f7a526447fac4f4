"""JEMMIG: joint entropy minus mutual information gap."""

import numpy as np

from bvae_jax.metrics.base import (
    BINS,
    Metric,
    checked,
    discretize,
    entropies,
    mean,
    mutual_information,
    top_two,
)
from bvae_jax.types import Codes, Factors, Score


def jemmig(codes: Codes, factors: Factors, *, bins: int = BINS) -> Score:
    """1 - (H(z*, v) - I1 + I2) / (H(v) + log bins), mean over factors.

    z* is the latent that knows most of v, I1 and I2 are the two largest I(z_j; v). Unlike MIG it
    also asks that z* knows nothing else. The numerator, in nats and better when low, is JEMMIG as
    the paper defines it; over its largest value and from 1 it becomes better when high. Constant
    codes have no entropy, and so no joint entropy to speak of: collapse scores well here.

    Args:
        codes: [n, latent].
        factors: [n, factor] class indices.
        bins: for each latent.

    Returns:
        `score` in [0, 1]; `jemmig` in nats; `per_factor` (as score) and `nats_per_factor` [factor].

    Raises:
        ValueError: arrays that do not fit or are not finite.

    Do & Tran, 2020, "Theory and evaluation metrics for learning disentangled representations",
    section 3.
    """
    codes, factors = checked(codes, factors)
    binned = discretize(codes, bins)
    matrix = mutual_information(binned, factors)
    of_factor = entropies(factors)
    of_best = entropies(binned)[matrix.argmax(axis=0)]
    first, second = top_two(matrix)
    nats = (of_best + of_factor - first) - first + second
    nats[of_factor == 0] = np.nan
    per_factor = 1 - nats / (of_factor + np.log(bins))
    return {
        "score": mean(per_factor),
        "jemmig": mean(nats),
        "per_factor": per_factor,
        "nats_per_factor": nats,
    }


METRIC = Metric(
    jemmig,
    "joint entropy of a factor and its best latent minus the gap, normalised",
    "Do & Tran 2020",
    others=("jemmig",),
    fast=True,
    null=True,
)
