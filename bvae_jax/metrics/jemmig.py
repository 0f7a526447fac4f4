"""JEMMIG: joint entropy minus mutual information gap."""

import numpy as np

from bvae_jax.metrics.base import (
    BINS,
    POINTS,
    Metric,
    bin_masses,
    checked,
    entropies,
    information_of_masses,
    mean,
    top_two,
    varying,
)
from bvae_jax.types import CodeMatrix, Factors, Score


def jemmig(
    codes: CodeMatrix, factors: Factors, logvars: CodeMatrix | None = None, *, bins: int = BINS
) -> Score:
    """1 - (H(z*, v) - I1 + I2) / (H(v) + log bins), mean over factors.

    z* is the latent that knows most of v, I1 and I2 are the two largest I(z_j; v), where each point
    spreads over the bins as its posterior does (see `rmig`); without log-variances it is a point.
    Unlike MIG it also asks that z* knows nothing else. The numerator, in nats and better when low,
    is JEMMIG as the paper defines it, of bins: the authors' code takes the entropy of a density,
    which is less by the logarithm of a bin's width where bins are narrow and reach as far as the
    posteriors. Over its largest value and from 1 it becomes better when high. Constant points have
    no entropy, and so no joint entropy to speak of: there collapse scores well. Factors with one
    value are left out.

    Where it differs: the paper's number is in nats and better when low (`jemmig`), and its
    entropies are those of densities; here it is normalised, better when high, and of bins.

    Args:
        codes: [n, latent] posterior means.
        factors: [n, factor] class indices.
        logvars: [n, latent] posterior log-variances.
        bins: for each latent.

    Returns:
        `score` in [0, 1]; `jemmig` in nats; `per_factor` (as score) and `nats_per_factor` [factor];
        `notes`.

    Raises:
        ValueError: arrays that do not fit or are not finite.

    Do & Tran, 2020, "Theory and evaluation metrics for learning disentangled representations",
    section 3.
    """
    codes, factors = checked(codes, factors)
    matrix, of_latent = information_of_masses(bin_masses(codes, logvars, bins), factors)
    of_factor = entropies(factors)
    first, second = top_two(matrix)
    joint = of_latent[matrix.argmax(axis=0)] + of_factor - first
    nats = np.where(varying(factors), joint - first + second, np.nan)
    per_factor = 1 - nats / (of_factor + np.log(bins))
    return {
        "score": mean(per_factor),
        "jemmig": mean(nats),
        "per_factor": per_factor,
        "nats_per_factor": nats,
        "notes": [POINTS] if logvars is None else [],
    }


JEMMIG = Metric(
    jemmig,
    "joint entropy of a factor and its best latent minus the gap, normalised",
    "Do & Tran 2020",
    others=("jemmig",),
    fast=True,
    null=True,
)
