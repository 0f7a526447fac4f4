"""What the seeds tell of a comparison, in words and as JSON."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from types import MappingProxyType
from typing import Any, NamedTuple

import pandas as pd

from bvae_jax.comparison.base import LEADING, Comparison, name_of
from bvae_jax.comparison.rates import differences
from bvae_jax.comparison.seeds import (
    RankStability,
    SeedsNeeded,
    improvement,
    in_words,
    rank_stability,
    seeds_needed,
    setting_by_chance,
    variance_split,
)
from bvae_jax.comparison.statistics import (
    ALPHA,
    ANY,
    FEWEST,
    Average,
    Interval,
    PairTest,
    agreement,
    best_of,
    comparable,
    interval,
    pair_tests,
    sentence,
    wide,
    with_numbers,
)
from bvae_jax.comparison.tables import ALONE, markdown
from bvae_jax.metrics.scoring import jsonable
from bvae_jax.runs.grid import symbol

PART = 0.5
"""Of the most that a latent knows of a factor in any setting: below it the factor is lost."""
UNKNOWN = 0.05
"""Share of a factor's entropy: where no setting has more, there is nothing to lose."""
SHARES = (0.0, 1.0)


class ScoreStatistics(NamedTuple):
    """All tests of one score.

    Attributes:
        best: None where no setting can be better.
        improvement: setting -> the probability that a run of the best is better than one of it.
        seeds: how many tell the best from the next; None where that cannot be said.
        ranks: None there, and of fewer than `FEWEST` seeds, whose resamples are too few.
        variance: shares of the sum of squares.
        by_chance: of `variance["setting"]` the mean by noise alone, and the upper 5 % point.
    """

    score: str
    better: str
    pairs: list[PairTest]
    best: str | None
    tied: tuple[str, ...]
    untested: tuple[str, ...]
    ranks: RankStability | None
    variance: dict[str, float]
    by_chance: tuple[float, float]
    improvement: Mapping[str, Interval] = MappingProxyType({})
    seeds: SeedsNeeded | None = None


def statistics_of(comparison: Comparison, average: Average = "mean") -> dict[str, ScoreStatistics]:
    """Paired tests, the best setting, rank stability and variances of each score.

    Args:
        average: what the best is best in, as in the table.
    """
    return {score: _of_score(comparison, score, average) for score in comparison.scores}


def _of_score(comparison: Comparison, score: str, average: Average) -> ScoreStatistics:
    frame = wide(comparison.members, score, comparison.settings)
    better = comparison.better.get(score, "")
    pairs = pair_tests(frame, comparison.ranges.get(score, ANY))
    found = ScoreStatistics(
        score, better, pairs, None, (), (), None, variance_split(frame), setting_by_chance(frame)
    )
    if not comparable(frame, better):
        return found
    best, tied, untested = best_of(frame, better, average=average)
    enough = with_numbers(frame).count().min() >= FEWEST
    ranks = rank_stability(frame, better) if enough else None
    runs = {str(s): frame[s].to_numpy() for s in with_numbers(frame)}
    above = {s: improvement(runs[best], of, better) for s, of in runs.items() if s != best}
    needed = seeds_needed(frame, better, average)
    return found._replace(
        best=best, tied=tied, untested=untested, ranks=ranks, improvement=above, seeds=needed
    )


def statistics_text(statistics: Iterable[ScoreStatistics]) -> str:
    """Paired tests, best settings, rank stability and variances in words, as Markdown."""
    lines = [
        "# Statistics",
        "",
        "Settings are compared seed by seed, for runs of one seed see the same batches and, with "
        "the same network, begin with the same weights: paired t tests, p corrected for all pairs "
        f"of a score (Holm), told apart at p ≤ {ALPHA}; in brackets 95 % intervals of the mean "
        "difference (Student's t, each for itself); effect is Cohen's d of the differences with "
        "Hedges' correction. The marks of the table come from the same tests.",
    ]
    for found in statistics:
        lines += ["", f"## {markdown(found.score)}", ""]
        lines += [f"- {markdown(fact)}." for fact in _facts(found)]
        lines += [f"- {markdown(sentence(test, found.score))}." for test in found.pairs]
    return "\n".join([*lines, "", ""])


def statistics_json(
    comparison: Comparison, statistics: Mapping[str, ScoreStatistics]
) -> dict[str, Any]:
    """Statistics, how scores agree over members, and what becomes of factors, as JSON's types.

    nan is None; infinities are "inf" and "-inf".
    """
    ranks = agreement(comparison.members, comparison.scores)
    return jsonable(
        {
            "alpha": ALPHA,
            "scores": statistics,
            "agreement": ranks.to_dict(),
            "agreement_runs": len(comparison.members),
            "many_rates": differences(comparison),
            "factors": kept(comparison),
        },
        nan=None,
    )


def seeds_text(statistics: Mapping[str, ScoreStatistics]) -> str:
    """How many seeds tell the best of each leading score from the next, as Markdown."""
    return "".join(
        f"- {name_of(score)}: {markdown(in_words(needed))}.\n"
        for score in LEADING
        if score in statistics and (needed := statistics[score].seeds)
    )


def _facts(found: ScoreStatistics) -> Iterator[str]:
    """Of a score as a whole, without the full stop."""
    if found.best:
        known = [f"not told apart from it: {', '.join(found.tied)}"] if found.tied else []
        if found.untested:
            known.append(
                f"not tested, with fewer than two seeds in common: {', '.join(found.untested)}"
            )
        known = "; ".join(known) or ALONE
        yield f"Best on average ({found.better} is better): {found.best}; {known}"
    if found.improvement:
        shares = [
            f"one of {name} in {each.center:.0%} of pairs [{each.low:.0%}, {each.high:.0%}]"
            for name, each in found.improvement.items()
        ]
        yield f"A run of {found.best} is better than {', than '.join(shares)}"
    if found.seeds:
        yield f"Seeds: {in_words(found.seeds)}"
    if found.ranks and not math.isnan(max(found.ranks.mean_rank.values())):
        shares = sorted(found.ranks.best_share.items(), key=lambda item: -item[1])
        first = ", ".join(f"{name} in {share:.0%}" for name, share in shares if share >= 0.005)
        tau = found.ranks.kendall
        like = "" if math.isnan(tau) else f"; Kendall's tau with the ranking of all seeds {tau:.2f}"
        yield f"In resamples of the seeds, which are no test, best is {first}{like}"
    if not math.isnan(found.variance["setting"]):
        parts = ", ".join(f"{name} {share:.0%}" for name, share in found.variance.items())
        mean, limit = found.by_chance
        yield (
            f"Sum of squares: {parts}; noise alone gives the setting {mean:.0%} on average, and in "
            f"1 of 20 cases {limit:.0%} or more"
        )


class Kept(NamedTuple):
    """How much of a factor one latent knows, in settings that are in the order of their numbers.

    Attributes:
        best: the setting in which the best latent knows most on average.
        most: the share of the factor's entropy that it knows there.
        lost: the first setting after it from which on all have less than `PART` of that on average;
            "" where there is none.
        share: there.
        sure: whether the 95 % interval of share - PART most, seed by seed, is below 0.
    """

    factor: str
    best: str
    most: Interval
    lost: str
    share: Interval
    sure: bool


def numbered(comparison: Comparison) -> bool:
    """Whether settings are numbers of one field."""
    if len(comparison.varied) != 1:
        return False
    return all(isinstance(value, Real) for value in comparison.members[comparison.varied[0]])


def kept(comparison: Comparison) -> list[Kept]:
    """What becomes of each factor; empty where there are no factors, or settings have no order."""
    if not (len(comparison.factor_scores) and numbered(comparison)):
        return []
    if len(comparison.settings) < 2:  # nothing can be lost on the way
        return []
    rows: Any = comparison.members[["setting", "seed"]].join(comparison.factor_scores)
    found = []
    for factor in comparison.factor_scores.columns:
        frame = wide(rows, factor, comparison.settings).dropna(axis=1, how="all")
        if len(frame.columns):
            found.append(_kept(str(factor), frame))
    return found


def _kept(factor: str, frame: pd.DataFrame) -> Kept:
    means: dict[str, float] = frame.mean().to_dict()  # pyright: ignore
    best, settings = max(means, key=lambda setting: means[setting]), list(means)
    after = settings[settings.index(best) + 1 :]
    most, lost = interval(frame[best].to_numpy(), within=SHARES), ""
    for setting in after[::-1]:
        if means[setting] >= PART * means[best]:
            break
        lost = setting
    if means[best] < UNKNOWN or not lost:
        return Kept(factor, best, most, "", most, False)
    [test] = pair_tests(pd.DataFrame({"there": frame[lost], "part": PART * frame[best]}))
    share = interval(frame[lost].to_numpy(), within=SHARES)
    return Kept(factor, best, most, lost, share, test.high < 0)


def kept_in_words(found: Sequence[Kept], varied: str) -> str:
    """What is lost where, and what is not, in sentences; "" of nothing.

    Args:
        varied: the field that varies.
    """
    known = [each for each in found if each.most.center >= UNKNOWN]
    unknown = [each.factor for each in found if each not in known]
    gone = [each for each in known if each.lost]
    growing = f"As {symbol(varied)} grows"
    said = []
    if gone:
        parts = [
            f"{each.factor} at {each.lost} ({_number(each.share)} of its entropy, "
            f"{_number(each.most)} at {each.best}{'' if each.sure else '; not sure by its seeds'})"
            for each in gone
        ]
        said.append(
            f"{growing}, what one latent knows of a factor falls below half of its most: "
            f"{'; '.join(parts)}."
        )
    rest = ", ".join(each.factor for each in known if not each.lost)
    if rest:
        said.append(f"Not lost: {rest}." if gone else f"{growing} no factor is lost.")
    if unknown:
        said.append(f"No latent of any setting knows {', '.join(unknown)}.")
    return " ".join(said)


def _number(share: Interval) -> str:
    if share.n < FEWEST or math.isnan(share.low):
        return f"{share.center:.2f}"
    return f"{share.center:.2f} [{share.low:.2f}, {share.high:.2f}]"
