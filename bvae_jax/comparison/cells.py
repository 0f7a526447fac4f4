"""Scores by setting, and how their numbers read: what all formats of a table share."""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from bvae_jax.comparison.intervals import Average, Interval
from bvae_jax.comparison.statistics import ALPHA

AVERAGE_NAMES = {"mean": "Mean", "iqm": "Interquartile mean"}
NOTHING = "–"
ALONE = "all others are told apart from it"


class Cell(NamedTuple):
    """A score of a setting: the best one, or tied with the best, or neither."""

    interval: Interval
    best: bool = False
    tied: bool = False


class Table(NamedTuple):
    """Scores by setting.

    Attributes:
        columns: scores.
        rows: setting -> score -> cell.
        baselines: baseline -> score -> cell, without marks.
        seeds: setting -> its seeds; a cell has fewer where a score is missing.
        failed: member -> why it is left out.
    """

    average: Average
    columns: tuple[str, ...]
    rows: dict[str, dict[str, Cell]]
    baselines: dict[str, dict[str, Cell]]
    seeds: dict[str, int]
    failed: Mapping[str, str]


class Row(NamedTuple):
    """A setting or a baseline.

    Attributes:
        kind: "setting" or "baseline".
        n: its seeds.
    """

    label: str
    kind: str
    n: int
    cells: dict[str, Cell]


def rows(table: Table) -> Iterator[Row]:
    """Settings, then baselines."""
    for label, cells in table.rows.items():
        yield Row(label, "setting", table.seeds[label], cells)
    for label, cells in table.baselines.items():
        n = max((cell.interval.n for cell in cells.values()), default=0)
        yield Row(label, "baseline", n, cells)


def texts(table: Table, score: str, cell: Cell) -> tuple[str, str]:
    """The average, and the interval in brackets if there is one.

    All numbers of a score have as many decimals: 3 where its averages are in [-1, 1], as those of
    most metrics, else 2.
    """
    if math.isnan(cell.interval.center):
        return NOTHING, ""
    decimals = 2 if any(abs(row.cells[score].interval.center) > 1 for row in rows(table)) else 3
    center, low, high = (f"{x:z.{decimals}f}" for x in cell.interval[:3])
    return center, "" if math.isnan(cell.interval.low) else f"[{low}, {high}]"


def remark(cell: Cell, n: int) -> str:
    """Of how many seeds a cell is, where that is not the `n` of its row."""
    return f"(n = {cell.interval.n})" if 0 < cell.interval.n != n else ""


def caption(table: Table, *, tied: str = "") -> list[str]:
    """What a reader must know of the numbers, a sentence each.

    Args:
        tied: what that mark looks like; empty where a legend explains the marks.
    """
    cells = [cell for row in rows(table) for cell in row.cells.values()]
    said = [
        f"{AVERAGE_NAMES[table.average]} over n seeds and its 95 % interval "
        "(Student's t with bootstrap standard errors)."
    ]
    if any(cell.best for cell in cells):
        of_what = "" if table.average == "mean" else " of means"
        tests = f"paired t tests{of_what}, Holm-corrected for all pairs, α = {ALPHA}"
        mark = f"{tied}: not told apart from it" if any(cell.tied for cell in cells) else ALONE
        said.append(
            f"Bold: the best setting; {mark} ({tests})." if tied else f"Told apart by {tests}."
        )
    return said
