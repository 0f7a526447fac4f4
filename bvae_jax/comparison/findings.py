"""What the seeds tell of a comparison, in words and as JSON."""

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from bvae_jax.comparison.base import LEADING, Comparison, name_of
from bvae_jax.comparison.factors import in_words as kept_in_words
from bvae_jax.comparison.factors import kept
from bvae_jax.comparison.rates import differences, differences_text
from bvae_jax.comparison.seeds import SeedsNeeded, improvement, in_words, seeds_needed
from bvae_jax.comparison.stability import (
    RankStability,
    agreement,
    rank_stability,
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
    best_and_tied,
    comparable,
    pair_tests,
    sentence,
    wide,
    with_numbers,
)
from bvae_jax.comparison.tables import ALONE, markdown
from bvae_jax.metrics.scoring import jsonable


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
    ranks: RankStability | None
    variance: dict[str, float]
    by_chance: tuple[float, float]
    improvement: Mapping[str, Interval] = MappingProxyType({})
    seeds: SeedsNeeded | None = None


def statistics_of(comparison: Comparison, score: str, average: Average = "mean") -> ScoreStatistics:
    """Paired tests, the best setting, rank stability and variances of one score.

    Args:
        average: what the best is best in, as in the table.
    """
    frame = wide(comparison.members, score, comparison.settings)
    better = comparison.better.get(score, "")
    pairs = pair_tests(frame, comparison.ranges.get(score, ANY))
    found = ScoreStatistics(
        score, better, pairs, None, (), None, variance_split(frame), setting_by_chance(frame)
    )
    if not comparable(frame, better):
        return found
    best, tied = best_and_tied(frame, better, average=average)
    enough = with_numbers(frame).count().min() >= FEWEST
    ranks = rank_stability(frame, better) if enough else None
    runs = {str(s): frame[s].to_numpy() for s in with_numbers(frame)}
    above = {s: improvement(runs[best], of, better) for s, of in runs.items() if s != best}
    needed = seeds_needed(frame, better, average)
    return found._replace(best=best, tied=tied, ranks=ranks, improvement=above, seeds=needed)


def statistics_text(
    comparison: Comparison, scores: Sequence[str] | None = None, average: Average = "mean"
) -> str:
    """Paired tests, best settings, rank stability and variances in words, as Markdown.

    Args:
        scores: those to speak of; by default all.
        average: what the best is best in.
    """
    lines = [
        "# Statistics",
        "",
        "Settings are compared seed by seed, for runs of one seed see the same batches and, with "
        "the same network, begin with the same weights: paired t tests, p corrected for all pairs "
        f"of a score (Holm), told apart at p ≤ {ALPHA}; in brackets 95 % intervals of the mean "
        "difference (Student's t, each for itself); effect is Cohen's d of the differences with "
        "Hedges' correction. The marks of the table come from the same tests.",
    ]
    for score in comparison.scores if scores is None else scores:
        found = statistics_of(comparison, score, average)
        lines += ["", f"## {markdown(score)}", ""]
        lines += [f"- {markdown(fact)}." for fact in _facts(found)]
        lines += [f"- {markdown(sentence(test, score))}." for test in found.pairs]
    lost = kept_in_words(kept(comparison), "".join(comparison.varied[:1]))
    if lost and scores is None:
        lines += ["", "## Factors", "", markdown(lost)]
    return "\n".join([*lines, "", differences_text(differences(comparison))])


def statistics_json(comparison: Comparison, average: Average = "mean") -> dict[str, Any]:
    """All of `statistics_text` as JSON's types, and how scores agree over members.

    nan is None; infinities are "inf" and "-inf".
    """
    runs = len(comparison.members)
    found = {score: statistics_of(comparison, score, average) for score in comparison.scores}
    ranks = agreement(comparison.members, comparison.scores)
    return jsonable(
        {
            "alpha": ALPHA,
            "scores": found,
            "agreement": ranks.to_dict(),
            "agreement_runs": runs,
            "many_rates": differences(comparison),
            "factors": kept(comparison),
        },
        nan=None,
    )


def seeds_text(comparison: Comparison, average: Average = "mean") -> str:
    """How many seeds tell the best of each leading score from the next, as Markdown."""
    lines = []
    for score in [score for score in LEADING if score in comparison.scores]:
        frame = wide(comparison.members, score, comparison.settings)
        better = comparison.better.get(score, "")
        found = seeds_needed(frame, better, average) if comparable(frame, better) else None
        lines += [f"- {name_of(score)}: {markdown(in_words(found))}.\n"] if found else []
    return "".join(lines)


def _facts(found: ScoreStatistics) -> Iterator[str]:
    """Of a score as a whole, without the full stop."""
    if found.best:
        tied = f"not told apart from it: {', '.join(found.tied)}" if found.tied else ALONE
        yield f"Best on average ({found.better} is better): {found.best}; {tied}"
    if found.improvement:
        shares = [
            f"{name} {each.center:.0%} [{each.low:.0%}, {each.high:.0%}]"
            for name, each in found.improvement.items()
        ]
        yield f"A run of {found.best} is better than one of {', '.join(shares)}"
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
