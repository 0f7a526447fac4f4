"""Factors that are numbers, not classes: how they are declared, and cut into bins.

A declaration is one text, wherever it stands: "x,y,orientation=360". It names factors (or gives
their numbers, from 0), and the period of those that go round a circle, in units of their values.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from bvae_jax.errors import UserError

NONE = "none"
"""Declares that all factors are classes."""
BINS = 20
"""Of a number, where classes are wanted; as many as a latent has."""


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
        name, equals, period = part.rpartition("=") if "=" in part else (part, "", "0")
        name = name.strip()
        if name in names:
            k = list(names).index(name)
        elif name.isdecimal() and int(name) < len(names):
            k = int(name)
        else:
            known = ", ".join(names)
            raise UserError(f"continuous: got {name!r}, wanted names of factors: {known}.")
        if not math.isnan(found[k]):
            raise UserError(f"continuous: got {name!r} twice, wanted it once.")
        try:
            found[k] = float(period)
        except ValueError:
            found[k] = math.nan
        if not math.isfinite(found[k]) or (equals and found[k] <= 0):
            raise UserError(
                f"continuous: got the period {period!r} of {name!r}, wanted a number above 0, in "
                "the unit of its values."
            )
    return found


def in_words(of: Float[np.ndarray, " factor"], names: Sequence[str]) -> str:
    """The declaration that says this, always the same one; "" where there is no number."""
    parts = []
    for k in np.flatnonzero(~np.isnan(of)).tolist():
        name = str(k) if set(",=") & set(names[k]) else names[k]
        parts.append(f"{name}={of[k]:.17g}" if of[k] else name)
    return ",".join(parts)


def binned(values: Float[np.ndarray, " n"], period: float = 0.0) -> Int[np.ndarray, " n"]:
    """A number as classes: its values if they are 20 at most, else 20 bins of equal width.

    Bins divide its range; those of a period, which begins at 0, go round the circle.
    """
    values = values % period if period else values
    known, classes = np.unique(values, return_inverse=True)
    if len(known) <= BINS:
        return classes.reshape(-1)
    low, high = (0.0, period) if period else (known[0], known[-1])
    edges = np.linspace(low, high, BINS + 1)[1:-1]
    return np.searchsorted(edges, values, side="right")


def classes(
    factors: Any, values: Float[np.ndarray, "n factor"], of: Float[np.ndarray, " factor"]
) -> Int[np.ndarray, "n factor"]:
    """Class indices of all factors: a number's are those of `binned`.

    Args:
        factors: [n, factor] real numbers; of a class, indices.
        values: [n, factor], of which those of numbers are read.
        of: [factor] periods.

    Raises:
        UserError: a number is not finite, or an index no whole number from 0.
    """
    columns = []
    for k, period in enumerate(of):
        column = np.asarray(factors)[:, k]
        is_class = math.isnan(period)
        bad = ~np.isfinite(column if is_class else values[:, k])
        if bad.any():
            raise UserError(
                f"factor {k} has {int(bad.sum())} values that are NaN or infinite, wanted none."
            )
        if is_class and ((column < 0) | (column != np.rint(column))).any():
            raise UserError(
                f"factor {k} has fractions or negative numbers, wanted class indices, whole "
                "numbers from 0: or declare it as continuous."
            )
        columns.append(column if is_class else binned(values[:, k], period))
    return np.stack(columns, axis=1).astype(np.int32)
