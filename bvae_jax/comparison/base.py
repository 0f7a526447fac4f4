"""What the comparison of a sweep's members is made from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from bvae_jax.comparison.intervals import Range
from bvae_jax.runs.loggers import Record

TRAINING = dict.fromkeys(("nll", "kl", "elbo", "active_latents"), "")
ELBO_PARTS = dict.fromkeys(("mutual_information", "total_correlation", "dimension_wise_kl"), "")
OPTIMISED = ("unsupervised/gaussian_total_correlation",)
"""What objectives weigh or optimise by construction, so that no setting wins by it: β = 1 is the
ELBO, the smallest β has the best likelihood, the largest the least KL and total correlation."""


def is_metric(score: str) -> bool:
    """Whether a score tells of disentanglement."""
    return score not in TRAINING | ELBO_PARTS


@dataclass(frozen=True)
class Comparison:
    """Members of one sweep or several, and what is known of each.

    A setting is what members share that differ in their seed only, as "β = 4".

    Attributes:
        varied: fields of `Config` that vary beside the seed, as ("beta",).
        settings: their labels, in the order of their values.
        members: a row for each finished member, by its name; columns `setting`, `seed`, those in
            `varied`, and numbers, among them `nll`, `kl`, `elbo` and all in `scores`.
        scores: columns that are compared, in the order of tables.
        better: score -> "high" or "low", or "" where neither is.
        ranges: score -> its smallest and largest possible value; not of all.
        baselines: columns `baseline` and those in `scores`, nan where a baseline has none; a
            baseline that depends on the seed has a row for each.
        kl_per_latent: member -> [latent], nats; without autoencoders, which have none.
        factor_scores: by member, a column for each factor: the share of its entropy that the best
            latent knows.
        records: member -> its metrics.jsonl.
        run_dirs: member -> its directory.
        failed: member -> why it is left out.
        missing: members that are not finished.
    """

    sweep_dirs: tuple[Path, ...]
    varied: tuple[str, ...]
    settings: tuple[str, ...]
    members: pd.DataFrame
    scores: tuple[str, ...]
    better: Mapping[str, str]
    baselines: pd.DataFrame
    kl_per_latent: Mapping[str, np.ndarray]
    factor_scores: pd.DataFrame
    records: Mapping[str, list[Record]] = field(repr=False)
    run_dirs: Mapping[str, Path]
    failed: Mapping[str, str]
    missing: tuple[str, ...]
    ranges: Mapping[str, Range] = field(default_factory=dict)
