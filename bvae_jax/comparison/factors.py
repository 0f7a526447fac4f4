"""Which factor is lost where: at which β, say."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

import pandas as pd

from bvae_jax.comparison.base import Comparison
from bvae_jax.comparison.statistics import FEWEST, Interval, interval, pair_tests, wide
from bvae_jax.runs.grid import SYMBOLS

PART = 0.5
"""Of the most that a latent knows of a factor in any setting: below it the factor is lost."""
UNKNOWN = 0.05
"""Share of a factor's entropy: where no setting has more, there is nothing to lose."""
SHARES = (0.0, 1.0)


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


def in_order(comparison: Comparison) -> bool:
    """Whether settings are numbers of one field, so that something can be lost on the way."""
    if len(comparison.varied) != 1 or len(comparison.settings) < 2:
        return False
    return all(isinstance(value, Real) for value in comparison.members[comparison.varied[0]])


def kept(comparison: Comparison) -> list[Kept]:
    """What becomes of each factor; empty where there are no factors, or settings have no order."""
    if not (len(comparison.factor_scores) and in_order(comparison)):
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


def in_words(found: Sequence[Kept], varied: str) -> str:
    """What is lost where, and what is not, in sentences; "" of nothing.

    Args:
        varied: the field that varies.
    """
    known = [each for each in found if each.most.center >= UNKNOWN]
    unknown = [each.factor for each in found if each not in known]
    gone = [each for each in known if each.lost]
    symbol = SYMBOLS.get(varied, varied.replace("_", " "))
    said = []
    if gone:
        parts = [
            f"{each.factor} at {each.lost} ({_number(each.share)} of its entropy, "
            f"{_number(each.most)} at {each.best}{'' if each.sure else '; not sure by its seeds'})"
            for each in gone
        ]
        said.append(
            f"As {symbol} grows, what one latent knows of a factor falls below half of its most: "
            f"{'; '.join(parts)}."
        )
    rest = ", ".join(each.factor for each in known if not each.lost)
    if rest:
        said.append(f"Not lost: {rest}." if gone else f"As {symbol} grows no factor is lost.")
    if unknown:
        said.append(f"No latent of any setting knows {', '.join(unknown)}.")
    return " ".join(said)


def _number(share: Interval) -> str:
    if share.n < FEWEST or math.isnan(share.low):
        return f"{share.center:.2f}"
    return f"{share.center:.2f} [{share.low:.2f}, {share.high:.2f}]"
