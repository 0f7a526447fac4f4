"""Rows that share the value of a factor: how sampling metrics intervene on an encoded data set."""

from collections.abc import Iterator

import numpy as np

from bvae_jax.metrics.base import FactorArray, InvalidArrays, relabel

FLOATS_AT_ONCE = 4_000_000


class Matching:
    """Draws rows by the value of a factor.

    A row is drawn uniformly and gives the value, its partners are drawn uniformly among the rows
    of the same value. On a full factor grid that is what the papers do: one factor held, all
    others uniform. Elsewhere the others are distributed as in the rows.

    Factors with one value are left out, as are values with a single row: nothing varies there.

    Args:
        factors: [n, factor] class indices.

    Attributes:
        factors: indices of those that can be held.
        held: [factor] bool, the same.
        notes: what was left out, in words.

    Raises:
        ValueError: no factor has two values with two rows or more.
    """

    def __init__(self, factors: FactorArray):
        self.factors: list[int] = []
        self.notes: list[str] = []
        self._groups = {}
        for k, column in enumerate(factors.T):
            labels, size = relabel(column)
            counts = np.bincount(labels)
            enough = counts >= 2
            if size > 1 and not enough.all():
                self.notes.append(
                    f"factor {k}: {int((~enough).sum())} of {size} values have a single row and "
                    "are left out"
                )
            if size == 1 or enough.sum() < 2:
                continue
            self.factors.append(k)
            order = np.argsort(labels, kind="stable")
            starts = np.cumsum(counts) - counts
            self._groups[k] = (np.flatnonzero(enough[labels]), labels, order, starts, counts)
        self.held = np.isin(np.arange(factors.shape[1]), self.factors)
        if not self.factors:
            raise InvalidArrays(
                f"factors: got {len(factors)} rows, wanted two values of a factor with two rows "
                "each at least: give more points."
            )

    def rows(self, rng: np.random.Generator, factor: int, count: int) -> np.ndarray:
        """[count] rows, drawn uniformly."""
        usable = self._groups[factor][0]
        return usable[rng.integers(len(usable), size=count)]

    def partners(self, rng: np.random.Generator, factor: int, rows: np.ndarray) -> np.ndarray:
        """For each row (any shape) one of the same value of the factor."""
        _, labels, order, starts, counts = self._groups[factor]
        values = labels[rows]
        return order[starts[values] + rng.integers(counts[values])]


def votes_in_parts(
    rng: np.random.Generator, matching: Matching, votes: int, size: int
) -> Iterator[tuple[int, int]]:
    """(factor, number of votes): which factor is held, uniformly, in parts that fit in memory.

    Args:
        size: of the numbers that one vote reads.
    """
    chosen = np.bincount(rng.integers(len(matching.factors), size=votes))
    most = max(1, FLOATS_AT_ONCE // size)
    for factor, count in zip(matching.factors, chosen, strict=False):
        for start in range(0, count, most):
            yield factor, int(min(most, count - start))
