"""Factors that are numbers, not classes: how they are declared, and cut into bins.

A declaration is one text, wherever it stands: "x,y,orientation=360". It names factors (or gives
their numbers, from 0), and the period of those that go round a circle, in units of their values.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from bvae_jax.errors import UserError

NONE = "none"
"""Declares that all factors are classes."""
BINS = 20
"""Of a number, where classes are wanted; as many as a latent has."""
ROUNDING = 1e-6
"""Of a range: how far below an edge a value still counts as on it."""
SMALLEST, LARGEST = 1e-150, 1e150
"""In size: squares of what is smaller or larger are lost."""
AS_NUMBERS = "wanted numbers: save classes as np.unique(names, return_inverse=True)[1]"
MOST_CLASSES = int(np.iinfo(np.int32).max)
MOST_IN_A_BIN = 0.95
"""Share of a number's values above which it is said."""
PART, TURNS = 0.5, 1.05
"""Of a period that values span, below and above which it is said."""


class Numbers(NamedTuple):
    """The values of points' factors, for a metric that reads numbers.

    Attributes:
        periods: [factor] nan of a class, 0 of a number, above 0 of a number with that period.
        values: [n, factor]; those of a class mean nothing.
        values_test: [m, factor] of the points to test on, where there are any.
    """

    periods: Float[np.ndarray, " factor"]
    values: Float[np.ndarray, "n factor"]
    values_test: Float[np.ndarray, "m factor"] | None = None


Targets = Float[np.ndarray, "n target"]
"""What a regression of a factor predicts: one column of a number, and of one with a period two, the
cosine and the sine of its angle."""


def targets(numbers: Numbers | None, *, test: bool = False) -> dict[int, Targets]:
    """By factor, of those that are numbers; of training points, or of those to test on.

    A number without a period has mean 0 and standard deviation 1 among the training points.
    """
    if numbers is None:
        return {}
    wanted = numbers.values_test if test else numbers.values
    found = {}
    for k in np.flatnonzero(~np.isnan(numbers.periods)).tolist():
        assert wanted is not None
        value, known = wanted[:, k], numbers.values[:, k]
        if period := numbers.periods[k]:
            angle = 2 * np.pi * value / period
            found[k] = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        else:
            std = known.std()
            found[k] = (value[:, None] - known.mean()) / (std if std > 0 else 1.0)
    return found


def periods(declared: str, names: Sequence[str]) -> Float[np.ndarray, " factor"]:
    """What a declaration says of each factor: see `Numbers`.

    Raises:
        UserError: it names no factor, or one twice, or a period is not a positive number.
    """
    found = np.full(len(names), math.nan)
    if declared.strip() == NONE:
        return found
    for part in filter(None, (part.strip() for part in declared.split(","))):
        alone = "=" not in part or part in names
        name, equals, period = (part, "", "0") if alone else part.rpartition("=")
        name = name.strip()
        if name in names:
            k = list(names).index(name)
        elif name.isdecimal() and int(name) < len(names):
            k = int(name)
        else:
            known = ", ".join(names)
            raise UserError(
                f"continuous: got {name!r}, wanted names of factors: {known}; or their numbers, 0 "
                f"to {len(names) - 1}."
            )
        if not math.isnan(found[k]):
            raise UserError(f"continuous: got {name!r} twice, wanted it once.")
        try:
            found[k] = float(period)
        except ValueError:
            found[k] = math.nan
        if not math.isfinite(found[k]) or (equals and not SMALLEST <= found[k] <= LARGEST):
            raise UserError(
                f"continuous: got the period {period!r} of {name!r}, wanted a number above 0, in "
                "the unit of its values."
            )
    return found


def in_words(of: Float[np.ndarray, " factor"], names: Sequence[str]) -> str:
    """The declaration that says this, always the same one; "" where there is no number."""
    parts = []
    for k in np.flatnonzero(~np.isnan(of)).tolist():
        clear = names[k] == names[k].strip() != NONE and not set(",=") & set(names[k])
        name = names[k] if clear else str(k)
        parts.append(f"{name}={of[k]:.17g}" if of[k] else name)
    return ",".join(parts)


def binned(values: Float[np.ndarray, " n"], period: float = 0.0) -> Int[np.ndarray, " n"]:
    """A number as classes: its values if they are 20 at most, else 20 bins of equal width.

    Bins divide its range; those of a period, which begins at 0, go round the circle. A value on an
    edge belongs to the upper bin, whatever its unit makes of its last digits, and one at the end of
    a period to the first.
    """
    if period:
        values = values % period
        values = np.where(values < (1 - ROUNDING) * period, values, 0.0)
    known, classes = np.unique(values, return_inverse=True)
    if len(known) <= BINS:
        return classes.reshape(-1)
    low, high = (0.0, period) if period else (known[0], known[-1])
    edges = np.linspace(low, high, BINS + 1)[1:-1] - ROUNDING * (high - low)
    return np.searchsorted(edges, values, side="right")


def check_values(values: Shaped[np.ndarray, " n"], what: str) -> None:
    """Raise what is wrong with a factor's values.

    Raises:
        UserError: some are not finite, or the largest is too large or too small to be squared.
    """
    if bad := np.count_nonzero(~np.isfinite(values)):
        one = "value that is" if bad == 1 else "values that are"
        raise UserError(f"{what} has {bad} {one} NaN or infinite, wanted none: leave out the rows.")
    largest = max(abs(float(values.max(initial=0))), abs(float(values.min(initial=0))))
    if largest and not SMALLEST <= largest <= LARGEST:
        raise UserError(
            f"{what} has values up to {largest:g} in size, wanted {SMALLEST:g} to {LARGEST:g}: "
            "choose another unit."
        )


def remarks(
    values: Float[np.ndarray, "n factor"], of: Float[np.ndarray, " factor"], names: Sequence[str]
) -> list[str]:
    """What is odd about the values of numbers, in words, a line for each.

    Args:
        of: [factor] periods.
    """
    found = []
    unit = "see whether the period is in units of the values"
    for k in np.flatnonzero(~np.isnan(of)).tolist():
        value, period, name = values[:, k], float(of[k]), names[k]
        low, high = float(value.min()), float(value.max())
        span = high - low
        if not span:
            continue
        most, n = int(np.bincount(binned(value, period)).max()), len(value)
        if period and most == n:
            found.append(
                f"all values of {name} fall in one of {BINS} bins (they span {span:.3g} of the "
                f"period {period:g}): most metrics leave it out; {unit}"
            )
        elif period and span < PART * period:
            found.append(f"values of {name} span {span:.3g} of the period {period:g}: {unit}")
        elif period and span > TURNS * period:
            found.append(
                f"values of {name} span {span:.3g}, {span / period:.3g} times the period "
                f"{period:g}: {unit}"
            )
        elif most > MOST_IN_A_BIN * n:
            found.append(
                f"{most:,} of {n:,} values of {name} fall in one of {BINS} bins of its range from "
                f"{low:.4g} to {high:.4g}: metrics that read bins learn little of it; look "
                "for outliers"
            )
    return found


def classes(
    factors: Any,
    values: Float[np.ndarray, "n factor"],
    of: Float[np.ndarray, " factor"],
    names: Sequence[str],
) -> Int[np.ndarray, "n factor"]:
    """Class indices of all factors: a number's are those of `binned`.

    Args:
        factors: [n, factor] real numbers; of a class, indices.
        values: [n, factor], of which those of numbers are read.
        of: [factor] periods.
        names: [factor].

    Raises:
        UserError: a number is not as `check_values` wants it, or an index no whole number from 0,
            or too large for int32.
    """
    columns = []
    for k, (name, period) in enumerate(zip(names, of, strict=True)):
        column = np.asarray(factors)[:, k]
        is_class = math.isnan(period)
        check_values(column if is_class else values[:, k], name)
        if is_class and ((column < 0) | (column != np.rint(column))).any():
            raise UserError(
                f"{name} has fractions or negative numbers, wanted class indices, whole "
                "numbers from 0: or declare it as continuous."
            )
        if is_class and (column > MOST_CLASSES).any():
            raise UserError(f"{name} has class indices above {MOST_CLASSES}, wanted less.")
        columns.append(column if is_class else binned(values[:, k], period))
    return np.stack(columns, axis=1).astype(np.int32)


def classes_together(
    factors: Sequence[np.ndarray],
    values: Sequence[Float[np.ndarray, "_ factor"]],
    of: Float[np.ndarray, " factor"],
    names: Sequence[str],
    sizes: Any = None,
) -> tuple[list[np.ndarray], np.ndarray | None]:
    """`classes` of points to fit on and, if there are any, to test on, by the same bins.

    Args:
        sizes: [factor] number of values of each, where it is known; returned with those of bins,
            or as they are where they are not of this shape.
    """
    together = classes(np.concatenate(factors), np.concatenate(values), of, names)
    if np.shape(sizes) == of.shape:
        sizes = np.where(np.isnan(of), sizes, together.max(axis=0) + 1)
    return np.split(together, [len(factors[0])])[: len(factors)], sizes
