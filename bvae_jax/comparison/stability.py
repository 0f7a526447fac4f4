"""How far a result reaches: to different seeds, to different scores, to more steps.

Frames are as in statistics.py.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped
from scipy import special, stats

from bvae_jax.comparison.statistics import DECIMALS, SIGNS, with_numbers
from bvae_jax.runs.loggers import Record

SOURCES = ("setting", "seed", "rest")
RISE = 0.005
"""Share of the ELBO: training is not at its end if its last tenth still adds more than this."""


class RankStability(NamedTuple):
    """How the ranking of settings changes when seeds are resampled.

    Attributes:
        best_share: setting -> share of resamples in which it is best; ties share it.
        mean_rank: setting -> its mean rank; 1 is best.
        kendall: mean Kendall's tau-b between the ranking of a resample and that of all seeds.
    """

    best_share: dict[str, float]
    mean_rank: dict[str, float]
    kendall: float


def rank_stability(
    frame: pd.DataFrame, better: str, *, resamples: int = 2000, seed: int = 0
) -> RankStability:
    """Rank settings by their means over seeds drawn with replacement, the same for all settings.

    Settings without a number are left out, and so are resamples in which a setting has none; where
    that leaves nothing, all is nan.

    Args:
        better: "high" or "low".
        seed: of the resampling.
    """
    frame = with_numbers(frame)
    values, names = frame.to_numpy() * SIGNS[better], [str(name) for name in frame]
    seeds, unknown = len(values), dict.fromkeys(names, math.nan)
    if not seeds:
        return RankStability(unknown, unknown, math.nan)
    times = np.random.default_rng(seed).multinomial(seeds, [1 / seeds] * seeds, resamples)
    averages = _averages(times, values)
    averages = averages[~np.isnan(averages).any(axis=1)]
    if not len(averages):
        return RankStability(unknown, unknown, math.nan)
    best = averages == averages.max(axis=1, keepdims=True)
    shares = (best / best.sum(axis=1, keepdims=True)).mean(axis=0).tolist()
    ranks = stats.rankdata(-averages, axis=1).mean(axis=0).tolist()
    tau = _kendall(averages, _averages(np.ones((1, seeds)), values)[0])
    return RankStability(
        best_share=dict(zip(names, shares, strict=True)),
        mean_rank=dict(zip(names, ranks, strict=True)),
        kendall=float(tau.mean()) if len(tau) else math.nan,
    )


def variance_split(frame: pd.DataFrame) -> dict[str, float]:
    """Shares of the sum of squares: of the setting, of the seed, and the rest.

    Two-way analysis of variance without replication, on the seeds that all settings have; settings
    without a number are left out. Where settings differ by chance alone, the share of k settings is
    (k - 1) / (k n - 1) on average, so it is not 0 with a few seeds n.

    Returns:
        `setting`, `seed` and `rest`, with sum 1; nan with one setting, one seed or one value.
    """
    x = with_numbers(frame).dropna().to_numpy()
    if min(x.shape) < 2 or np.ptp(x) == 0:
        return dict.fromkeys(SOURCES, math.nan)
    x = x - x.mean()
    setting, seed = x.mean(axis=0, keepdims=True), x.mean(axis=1, keepdims=True)
    parts = np.broadcast_arrays(setting, seed, x - setting - seed)
    squares = [float(np.square(part).sum()) for part in parts]
    return {name: square / sum(squares) for name, square in zip(SOURCES, squares, strict=True)}


def setting_by_chance(frame: pd.DataFrame) -> tuple[float, float]:
    """The share of the setting in `variance_split` where neither settings nor seeds differ.

    Beta((k - 1) / 2, k (n - 1) / 2) of k settings and n seeds, if numbers are normal.

    Returns:
        Its mean, and what it exceeds in 5 % of cases; nan where there is no split.
    """
    n, k = with_numbers(frame).dropna().shape
    if min(n, k) < 2:
        return math.nan, math.nan
    a, b = (k - 1) / 2, k * (n - 1) / 2
    return a / (a + b), float(special.betaincinv(a, b, 0.95))


def agreement_by_chance(runs: int) -> float:
    """The size that Spearman's correlation of `runs` independent pairs exceeds in 5 % of cases.

    By permutations; 1 where there are too few to exceed anything.
    """
    drawn = np.random.default_rng(0).permuted(np.tile(np.arange(runs), (20_000, 1)), axis=1)
    ranks = np.arange(runs) - (runs - 1) / 2
    sizes = np.abs((drawn - drawn.mean(axis=1, keepdims=True)) @ ranks) / np.square(ranks).sum()
    return float(np.quantile(sizes, 0.95, method="higher"))


def rise_at_end(records: Sequence[Record]) -> float:
    """By how many nats the ELBO of training batches rose from the last tenth but one to the last.

    Returns:
        0 where that is no more than `RISE` of the ELBO, or where records are too few to say.
    """
    found = [(r["step"], r["elbo"]) for r in records if r["split"] == "train" and "elbo" in r]
    steps, elbo = np.array(found, float).reshape(-1, 2).T
    share = steps / steps.max(initial=1)
    before, last = elbo[(share > 0.8) & (share <= 0.9)], elbo[share > 0.9]
    if not (before.size and last.size and np.isfinite([*before, *last]).all()):
        return 0.0
    rise = float(last.mean() - before.mean())
    return rise if rise > RISE * abs(last.mean()) else 0.0


def agreement(members: pd.DataFrame, scores: Sequence[str]) -> pd.DataFrame:
    """Spearman's rank correlations between scores, each over the members that have both.

    Returns:
        Scores by scores; nan where one of the two does not vary.
    """
    numbers = members.reindex(columns=list(scores)).astype(float)
    return numbers.where(np.isfinite(numbers)).corr(method="spearman")


def _averages(
    times: Shaped[np.ndarray, "resample seed"], values: Float[np.ndarray, "seed setting"]
) -> Float[np.ndarray, "resample setting"]:
    """Means of what is there, each seed counted `times`; nan where nothing is."""
    counts = times @ np.isfinite(values).astype(float)
    sums = times @ np.nan_to_num(values)
    means = np.divide(sums, counts, out=np.full_like(sums, math.nan), where=counts > 0)
    return means.round(DECIMALS)


def _kendall(
    rankings: Float[np.ndarray, "resample setting"], reference: Float[np.ndarray, " setting"]
) -> Float[np.ndarray, " some"]:
    """Tau-b of each ranking with the reference; those that are all ties have none."""
    first, second = np.triu_indices(len(reference), 1)
    found = np.sign(rankings[:, first] - rankings[:, second])
    wanted = np.sign(reference[first] - reference[second])
    norms = np.sqrt(np.square(found).sum(axis=1) * np.square(wanted).sum())
    return (found @ wanted)[norms > 0] / norms[norms > 0]
