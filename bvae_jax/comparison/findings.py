"""What the seeds tell of a comparison, in words and as JSON."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from bvae_jax.comparison.base import Comparison
from bvae_jax.comparison.rates import differences, differences_text
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
    return found._replace(best=best, tied=tied, ranks=ranks)


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
        },
        nan=None,
    )


def _facts(found: ScoreStatistics) -> Iterator[str]:
    """Of a score as a whole, without the full stop."""
    if found.best:
        tied = f"not told apart from it: {', '.join(found.tied)}" if found.tied else ALONE
        yield f"Best on average ({found.better} is better): {found.best}; {tied}"
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
