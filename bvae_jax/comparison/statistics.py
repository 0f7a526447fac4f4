"""What a few seeds tell: intervals of averages, which settings they can tell apart, and how far a
result reaches: to different scores, to more steps. To different seeds: `seeds`.

A frame has a row for each seed and a column for each setting; nan is a run that is not there. The
same seed starts the runs of all settings alike, so settings are compared seed by seed.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import special, stats

from bvae_jax.runs.loggers import Record

Average = Literal["mean", "iqm"]
AVERAGES: dict[Average, Callable[..., Any]] = {
    "mean": np.mean,
    "iqm": partial(stats.trim_mean, proportiontocut=0.25),
}
"""Functions of (array, axis=). Of 3 values or fewer the interquartile mean is the mean."""
Range = tuple[float, float]
ANY: Range = (-math.inf, math.inf)
FEWEST = 5
"""Of fewer seeds an interval says next to nothing: tables show the seeds themselves."""
ALPHA = 0.05
SIGNS = {"high": 1, "low": -1}
DECIMALS = 10  # what is beyond is rounding, and would make ties look like effects
ROUNDING = 1e-6  # the same of numbers that were computed in float32, as a part of their size


class Interval(NamedTuple):
    """An average over n seeds, and where the average over all seeds may lie."""

    center: float
    low: float
    high: float
    n: int


def interval(
    values: Float[np.ndarray, " seed"],
    *,
    average: Average = "mean",
    within: Range = ANY,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The average of runs with different seeds, and its bootstrap interval: center +- `half_width`.

    Percentiles of resampled averages, the usual ends, are far too narrow for a few seeds, since no
    resample is beyond the smallest and the largest value: of 3 normal values their 95 % intervals
    hold the mean in 75 % of cases at most. These intervals are symmetric instead, so they fit
    skewed values less well, and end where the range of a score ends, which loses no truth. Share of
    95 % intervals that hold the truth (up to 3 seeds both averages are the mean), from 4,000
    simulations of each kind:

        seeds                2     3     4     5    10    50
        normal, mean       .95   .95   .95   .95   .95   .95
        normal, iqm        .95   .95   .98   .97   .96   .95
        exponential, mean  .90   .89   .87   .88   .90   .93
        exponential, iqm   .90   .89   .95   .96   .96   .95

    Args:
        values: one for each seed; those that are not finite are left out.
        average: the mean, or the interquartile mean: that of the values without
            the lowest and the highest quarter, rounded down: of 5 the middle 3, of 3 all (Agarwal
            et al. 2021, Deep RL at the Edge of the Statistical Precipice).
        within: the range of what is averaged.
        level: the share of intervals that should hold the truth.
        seed: of the resampling.

    Returns:
        In the values' unit. Of one value, or of equal ones, which do not show how far seeds differ,
        `low` and `high` are nan; of none `center` is too.
    """
    finite = values[np.isfinite(values)]
    n, function = len(finite), AVERAGES[average]
    center = float(function(finite)) if n else math.nan
    if n < 2 or np.ptp(finite) == 0:
        return Interval(center, math.nan, math.nan, n)
    drawn = np.random.default_rng(seed).choice(finite, (resamples, n))
    half = half_width(function(drawn, axis=1), n, level)
    low, high = max(center - half, within[0]), min(center + half, within[1])
    return Interval(center, min(low, center), max(high, center), n)


def half_width(averages: Float[np.ndarray, " resample"], n: int, level: float = 0.95) -> float:
    """Half of an interval from averages over n values that were drawn from n with replacement.

    t_{n-1} s sqrt(n / (n - 1)): Student's quantile; the bootstrap standard error, which is the
    standard deviation s of the averages; and the factor by which resamples of n values spread less
    than samples (Hesterberg 2015, What Teachers Should Know About the Bootstrap). Of means this is
    Student's t interval, but for the error of resampling.

    Args:
        n: 2 or more.
    """
    error = float(np.std(averages, ddof=1)) * math.sqrt(n / (n - 1))
    return float(stats.t.ppf((1 + level) / 2, n - 1)) * error


class PairTest(NamedTuple):
    """Setting a against setting b, over the seeds that both have.

    Where all differences are equal their spread is not known: there is no interval and no effect,
    and p is that of the signed-rank test, which asks for signs only.

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
            correction for few seeds; nan of 2 seeds.
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


def pair_tests(frame: pd.DataFrame, within: Range = ANY) -> list[PairTest]:
    """Every pair of settings, tested over the seeds that both have.

    These are all tests of a score: tables mark by them, and sentences are made from them. Where no
    setting differs, they find any difference in 5 % of cases at most: share of 3,000 simulations
    in which at least one of all pairs of equal settings was told apart, by seeds,

        seeds                      3     5    10    50
        normal, 4 settings      .029  .035  .044  .039
        normal, 6 settings      .032  .034  .037  .035
        normal, 12 settings     .017  .020  .030  .031
        exponential, 4          .017  .012  .018  .030
        exponential, 6          .016  .008  .015  .032
        exponential, 12         .010  .008  .009  .021

    Args:
        within: the score's range, which limits the differences.
    """
    names, x = [str(name) for name in frame], frame.to_numpy(float)
    first, second = np.triu_indices(len(names), 1)
    differences = (x[:, first] - x[:, second]).round(DECIMALS)
    there = np.isfinite(differences)
    sizes = np.where(there, np.maximum(np.abs(x[:, first]), np.abs(x[:, second])), 0)
    rounding = ROUNDING * sizes.max(axis=0, initial=0)
    differences[there & (np.abs(differences) <= rounding)] = 0
    found = []
    for pair, (i, j) in enumerate(zip(first, second, strict=True)):
        both = differences[there[:, pair], pair]
        test = _tested(both, float(rounding[pair]), within[1] - within[0])
        found.append(test._replace(a=names[i], b=names[j]))
    corrected = holm(np.array([test.p for test in found]))
    return [t._replace(p_corrected=float(p)) for t, p in zip(found, corrected, strict=True)]


def holm(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """p values corrected for their number (Holm 1979). nan stays nan and does not count."""
    order = np.argsort(p)  # nan last
    factors = np.count_nonzero(~np.isnan(p)) - np.arange(len(p))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1)
    return corrected


def comparable(frame: pd.DataFrame, better: str) -> bool:
    """Whether a setting can be the best: a score has a better end, and two settings have numbers
    that are not all equal.

    Args:
        better: "high", "low", or "" where neither is.
    """
    numbers = frame.to_numpy(float)
    several = np.isfinite(numbers).any(axis=0).sum() > 1
    return bool(better) and bool(several) and bool(np.nanmax(numbers) > np.nanmin(numbers))


class Best(NamedTuple):
    """The setting with the best average, and how far it is the best.

    Attributes:
        tied: others whose corrected p is above alpha, or which have the better mean of the two.
        untested: those that share fewer than 2 seeds with it.
    """

    setting: str
    tied: tuple[str, ...]
    untested: tuple[str, ...]


def best_of(
    frame: pd.DataFrame, better: str, *, alpha: float = ALPHA, average: Average = "mean"
) -> Best:
    """The setting with the best average, and those that `pair_tests` do not find worse.

    All pairs are corrected for, not those with the best alone: the same numbers that are tested
    make it the best.

    Args:
        better: "high" or "low".
        alpha: level of the tests.
        average: what the best is best in; tests are about means.

    Raises:
        ValueError: there is no number.
    """
    frame, sign = with_numbers(frame), SIGNS[better]
    if frame.empty:
        raise ValueError("frame: got no number, wanted one at least.")
    averages = [AVERAGES[average](frame[name].dropna().to_numpy()) for name in frame]
    best = str(frame.columns[int(np.argmax(np.multiply(averages, sign)))])
    others = [str(name) for name in frame if name != best]
    tests = {frozenset((test.a, test.b)): test for test in pair_tests(frame)}

    def is_worse(name: str) -> bool:
        test = tests[frozenset((best, name))]
        ahead = sign * test.difference * (1 if test.a == best else -1) > 0
        return bool(test.p_corrected <= alpha and ahead)

    untested = tuple(name for name in others if tests[frozenset((best, name))].n < 2)
    tied = tuple(name for name in others if name not in untested and not is_worse(name))
    return Best(best, tied, untested)


def sentence(test: PairTest, score: str) -> str:
    """What a test says, in words."""
    a, b, n = test.a, test.b, test.n
    if n < 2:
        both = "1 seed has" if n else "no seed has"
        return f"{score}: nothing can be said of {a} and {b}: {both} it in both, not 2 or more"
    p = f"p = {test.p_corrected:.2g}" if test.p_corrected >= 0.001 else "p < 0.001"
    effect = "" if math.isnan(test.effect) else f"effect {abs(test.effect):.2g}, "
    if not test.p_corrected <= ALPHA:
        numbers = _with_interval(test.difference, test.low, test.high)
        return (
            f"{score}: {a} and {b} cannot be told apart "
            f"(difference {numbers}, {p} corrected, {effect}n = {n})"
        )
    side, sign = ("above", 1) if test.difference > 0 else ("below", -1)
    ends = (test.low, test.high) if sign > 0 else (-test.high, -test.low)
    numbers = _with_interval(sign * test.difference, *ends)
    return f"{score}: {a} is {side} {b} by {numbers} ({p} corrected, {effect}n = {n})"


def _tested(differences: Float[np.ndarray, " seed"], rounding: float, widest: float) -> PairTest:
    """One pair, without names.

    Args:
        rounding: up to which differences are equal.
        widest: difference that is possible.
    """
    n = len(differences)
    if n < 2:
        return PairTest("", "", n, float(differences[0]) if n else math.nan)
    p_signs = _signed_rank_p(differences)
    if np.ptp(differences) <= rounding:
        middle = float(np.median(differences))
        return PairTest("", "", n, middle, p=p_signs, p_wilcoxon=p_signs)
    mean, spread = float(differences.mean()), float(differences.std(ddof=1))
    half = float(special.stdtrit(n - 1, 0.975)) * spread / math.sqrt(n)
    return PairTest(
        "", "", n, mean, max(mean - half, -widest), min(mean + half, widest),
        p=float(2 * special.stdtr(n - 1, -abs(mean) / spread * math.sqrt(n))),
        p_wilcoxon=p_signs,
        effect=mean / spread * hedges(n - 1) if n > 2 else math.nan,
    )  # fmt: skip


def hedges(degrees: int) -> float:
    """What corrects a standardised mean of few values, which is too large (Hedges 1981, eq. 6e)."""
    logs = special.gammaln(degrees / 2) - special.gammaln((degrees - 1) / 2)
    return float(np.exp(logs) / math.sqrt(degrees / 2))


def _signed_rank_p(differences: Float[np.ndarray, " seed"]) -> float:
    """Exact with ties too, which SciPy's is not: the distribution over all flips of signs."""
    moved = differences[differences != 0]
    _, place, counts = np.unique(np.abs(moved), return_inverse=True, return_counts=True)
    ranks = 2 * np.cumsum(counts) - counts + 1  # twice of each size: whole numbers, shared ones too
    shares = _sums_of_flips(tuple(np.repeat(ranks, counts).tolist()))
    total = ranks[place[moved > 0]].sum()
    return float(min(1, 2 * min(shares[: total + 1].sum(), shares[total:].sum())))


@lru_cache(maxsize=128)
def _sums_of_flips(ranks: tuple[int, ...]) -> Float[np.ndarray, " sum"]:
    """Share of all choices of some of the ranks, by their sum."""
    shares = np.zeros(sum(ranks) + 1)
    shares[0] = 1
    for rank in ranks:
        shares[rank:] += shares[:-rank].copy()
        shares /= 2
    return shares


def _with_interval(center: float, low: float, high: float) -> str:
    """Three digits of the largest number; all have its number of decimals."""
    known = not math.isnan(low)
    largest = max(abs(center), abs(low), abs(high)) if known else abs(center)
    decimals = max(2 - math.floor(math.log10(largest)), 0) if largest else 0
    between = f"[{low:z.{decimals}f}, {high:z.{decimals}f}]" if known else "in every seed"
    return f"{center:z.{decimals}f} {between}"


# How far a result reaches: to different scores, to more steps.

RISE = 0.005
"""Share of the ELBO: training is not at its end if its last tenth still adds more than this."""


def agreement_by_chance(runs: int) -> float:
    """The size that Spearman's correlation of `runs` independent pairs exceeds in 5 % of cases.

    By permutations; 1 where there are too few to exceed anything.
    """
    drawn = np.random.default_rng(0).permuted(np.tile(np.arange(runs), (20_000, 1)), axis=1)
    ranks = np.arange(runs) - (runs - 1) / 2
    sizes = np.abs((drawn - drawn.mean(axis=1, keepdims=True)) @ ranks) / np.square(ranks).sum()
    return float(np.quantile(sizes, 0.95))


def rise_at_end(records: Sequence[Record]) -> tuple[float, bool]:
    """By how many nats the ELBO of training batches rose from the last tenth but one to the last.

    A record is a mean over the steps since the one before it: only one that lies in a tenth as a
    whole is of it.

    Returns:
        The rise, 0 where that is no more than `RISE` of the ELBO and nan where one record cannot
        say; and whether it is from the last record but one to the last, as a tenth has none.
    """
    found = [(r["step"], r["elbo"]) for r in records if r["split"] == "train" and "elbo" in r]
    steps, elbo = np.array(found, float).reshape(-1, 2).T
    end = steps / steps.max(initial=1)
    begin = np.concatenate([[0.0], end])[: len(end)]
    before, last = elbo[(begin >= 0.8) & (end <= 0.9)], elbo[begin >= 0.9]
    few = not (before.size and last.size)
    if few:
        before, last = elbo[-2:-1], elbo[-1:]
    if not np.isfinite([*before, *last]).all() or not last.size:
        return 0.0, few
    if not before.size:
        return math.nan, few
    rise = float(last.mean() - before.mean())
    return rise if rise > RISE * abs(last.mean()) else 0.0, few


def agreement(members: pd.DataFrame, scores: Sequence[str]) -> pd.DataFrame:
    """Spearman's rank correlations between scores, each over the members that have both.

    Returns:
        Scores by scores; nan where one of the two does not vary.
    """
    return members.reindex(columns=list(scores)).astype(float).corr(method="spearman")
