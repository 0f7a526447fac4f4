"""Which settings the seeds can tell apart: paired tests over seeds.

A frame has a row for each seed and a column for each setting; nan is a run that is not there. The
same seed starts the runs of all settings alike, so settings are compared seed by seed.
"""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import special, stats

from bvae_jax.comparison.intervals import AVERAGES, Average

ALPHA = 0.05
SIGNS = {"high": 1, "low": -1}
DECIMALS = 10  # what is beyond is rounding, and would make ties look like effects


class PairTest(NamedTuple):
    """Setting a against setting b, over the seeds that both have.

    Attributes:
        n: seeds that both have. With fewer than 2 what follows `difference` is nan.
        difference: mean of a - b.
        low: lower end of its 95 % interval (Student's t).
        high: upper end.
        p: of the paired t test, two-sided.
        p_corrected: for all pairs of the same score (Holm 1979).
        p_wilcoxon: of the signed-rank test, two-sided and exact: zeros are dropped, ties share
            their ranks.
        effect: Cohen's d_z, the mean difference over its standard deviation, with Hedges' (1981)
            correction for few seeds; nan of 2 seeds, infinite where all differences are equal.
    """

    a: str
    b: str
    n: int
    difference: float
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    p_corrected: float = math.nan
    p_wilcoxon: float = math.nan
    effect: float = math.nan


def wide(members: pd.DataFrame, score: str, settings: Sequence[str]) -> pd.DataFrame:
    """Seeds as rows and settings as columns; nan where a number is missing or not finite.

    Args:
        members: columns `setting`, `seed` and `score`. Of rows with the same setting and seed the
            last one counts.
    """
    last = members.drop_duplicates(["setting", "seed"], keep="last")
    frame = last.pivot(index="seed", columns="setting", values=score)
    frame = frame.reindex(columns=list(settings)).astype(float)
    return frame.where(np.isfinite(frame))


def with_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame without settings and seeds that have no number."""
    return frame.dropna(axis=1, how="all").dropna(axis=0, how="all")


def pair_tests(frame: pd.DataFrame) -> list[PairTest]:
    """Every pair of settings, tested over the seeds that both have."""
    tests = [_paired(frame, a, b) for a, b in combinations(frame.columns, 2)]
    corrected = holm(np.array([test.p for test in tests]))
    return [t._replace(p_corrected=float(p)) for t, p in zip(tests, corrected, strict=True)]


def holm(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """p values corrected for their number (Holm 1979). nan stays nan and does not count."""
    order = np.argsort(p)  # nan last
    factors = np.count_nonzero(~np.isnan(p)) - np.arange(len(p))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1)
    return corrected


def comparable(frame: pd.DataFrame, better: str) -> bool:
    """Whether a setting can be the best: a score has a better end, and two settings have numbers.

    Args:
        better: "high", "low", or "" where neither is.
    """
    return bool(better) and bool(frame.notna().any().sum() > 1)


def best_and_tied(
    frame: pd.DataFrame, better: str, *, alpha: float = ALPHA, average: Average = "mean"
) -> tuple[str, tuple[str, ...]]:
    """The setting with the best average, and those that paired t tests do not tell from it.

    Args:
        better: "high" or "low".
        alpha: level of the tests, which are corrected for their number (Holm 1979).
        average: what the best is best in; tests are about means.

    Returns:
        The best; those that share fewer than 2 seeds with it or whose corrected p is above alpha.

    Raises:
        ValueError: there is no number.
    """
    frame = with_numbers(frame)
    if frame.empty:
        raise ValueError("frame: got no number, wanted one at least.")
    averages = [AVERAGES[average](frame[name].dropna().to_numpy()) for name in frame]
    best = frame.columns[int(np.argmax(np.multiply(averages, SIGNS[better])))]
    others = [name for name in frame if name != best]
    corrected = holm(np.array([_paired(frame, best, other).p for other in others]))
    alike = ~(corrected <= alpha)  # nan too
    return str(best), tuple(str(name) for name, tied in zip(others, alike, strict=True) if tied)


def sentence(test: PairTest, score: str, alpha: float = ALPHA) -> str:
    """What a test says, in words."""
    a, b, n = test.a, test.b, test.n
    if n < 2:
        shared = "1 seed" if n else "no seed"
        return f"{score}: nothing can be said of {a} and {b}: they share {shared}, not 2 or more"
    p = f"p = {test.p_corrected:.2g}" if test.p_corrected >= 0.001 else "p < 0.001"
    effect = "" if math.isnan(test.effect) else f"effect {abs(test.effect):.2g}, "
    if not test.p_corrected <= alpha:
        numbers = _with_interval(test.difference, test.low, test.high)
        return (
            f"{score}: {a} and {b} cannot be told apart "
            f"(difference {numbers}, {p} corrected, {effect}n = {n})"
        )
    side, sign = ("above", 1) if test.difference > 0 else ("below", -1)
    numbers = _with_interval(sign * test.difference, *sorted((sign * test.low, sign * test.high)))
    return f"{score}: {a} is {side} {b} by {numbers} ({p} corrected, {effect}n = {n})"


def _paired(frame: pd.DataFrame, a: str, b: str) -> PairTest:
    differences = (frame[a] - frame[b]).dropna().to_numpy().round(DECIMALS)
    n = len(differences)
    if n < 2:
        return PairTest(a, b, n, float(differences[0]) if n else math.nan)
    mean, spread = float(differences.mean()), float(differences.std(ddof=1))
    if np.ptp(differences) == 0:  # exactly, where the sums above are rounded
        mean, spread = float(differences[0]), 0.0
    size = mean / spread if spread else math.copysign(math.inf, mean) if mean else 0.0
    half = float(stats.t.ppf(0.975, n - 1)) * spread / math.sqrt(n)
    return PairTest(
        a, b, n, mean, mean - half, mean + half,
        p=float(2 * stats.t.sf(abs(size) * math.sqrt(n), n - 1)),
        p_wilcoxon=_signed_rank_p(differences),
        effect=size * _hedges(n - 1) if n > 2 else math.nan,
    )  # fmt: skip


def _hedges(degrees: int) -> float:
    """What corrects a standardised mean of few values, which is too large (Hedges 1981, eq. 6e)."""
    logs = special.gammaln(degrees / 2) - special.gammaln((degrees - 1) / 2)
    return float(np.exp(logs) / math.sqrt(degrees / 2))


def _signed_rank_p(differences: Float[np.ndarray, " seed"]) -> float:
    """Exact with ties too, which SciPy's is not: the distribution over all flips of signs."""
    moved = differences[differences != 0]
    ranks = (2 * stats.rankdata(np.abs(moved))).astype(int)  # whole numbers, shared ranks too
    shares = np.ones(1)  # of flips, by the sum of positive ranks
    for rank in ranks:
        shares = (np.pad(shares, (0, rank)) + np.pad(shares, (rank, 0))) / 2
    total = ranks[moved > 0].sum()
    return float(min(1, 2 * min(shares[: total + 1].sum(), shares[total:].sum())))


def _with_interval(center: float, low: float, high: float) -> str:
    """Three digits of the largest, and as many decimals of the others."""
    largest = max(abs(center), abs(low), abs(high))
    decimals = max(2 - math.floor(math.log10(largest)), 0) if largest else 0
    return f"{center:z.{decimals}f} [{low:z.{decimals}f}, {high:z.{decimals}f}]"
