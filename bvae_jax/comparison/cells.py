"""Scores by setting, and how their numbers read: what all formats of a table share."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from bvae_jax.comparison.intervals import FEWEST, Average, Interval
from bvae_jax.comparison.statistics import ALPHA

AVERAGE_NAMES = {"mean": "Mean", "iqm": "Interquartile mean"}
NOTHING = "–"
ALONE = "all others are told apart from it"
EQUAL = "[all equal]"


class Cell(NamedTuple):
    """A score of a setting: the best one, or tied with the best, or neither.

    Attributes:
        seeds: the numbers that the interval is of.
    """

    interval: Interval
    best: bool = False
    tied: bool = False
    seeds: tuple[float, ...] = ()


class Table(NamedTuple):
    """Scores by setting.

    Attributes:
        columns: scores.
        rows: setting -> score -> cell.
        baselines: baseline -> score -> cell, without marks.
        seeds: setting -> its seeds; a cell has fewer where a score is missing.
        failed: member -> why it is left out.
        remarks: what must be known before the numbers are read, a sentence each.
    """

    average: Average
    columns: tuple[str, ...]
    rows: dict[str, dict[str, Cell]]
    baselines: dict[str, dict[str, Cell]]
    seeds: dict[str, int]
    failed: Mapping[str, str]
    remarks: Sequence[str] = ()


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
    """The average, and in brackets the interval, or the seeds themselves if these are few.

    All numbers of a score have as many decimals: 3 where its averages are in [-1, 1], as those of
    most metrics, else 2.
    """
    if math.isnan(cell.interval.center):
        return NOTHING, ""
    decimals = 2 if any(abs(row.cells[score].interval.center) > 1 for row in rows(table)) else 3
    center, low, high, *seeds = (f"{x:z.{decimals}f}" for x in (*cell.interval[:3], *cell.seeds))
    if is_few(cell):
        return center, f"({', '.join(seeds)})"
    if math.isnan(cell.interval.low):
        return center, EQUAL if cell.interval.n > 1 else ""
    return center, f"[{low}, {high}]"


def is_few(cell: Cell) -> bool:
    """Whether a cell shows its seeds, which are too few for an interval."""
    return 1 < cell.interval.n < FEWEST and bool(cell.seeds)


def remark(cell: Cell, n: int) -> str:
    """Of how many seeds a cell is, where that is not the `n` of its row."""
    return f"(n = {cell.interval.n})" if 0 < cell.interval.n != n else ""


def caption(table: Table, *, tied: str = "") -> list[str]:
    """What a reader must know of the numbers, a sentence each.

    Args:
        tied: what that mark looks like; empty where a legend explains the marks.
    """
    cells = [cell for row in rows(table) for cell in row.cells.values()]
    interval = "its 95 % interval (Student's t with bootstrap standard errors)"
    of_few = any(map(is_few, cells))
    few = f", of fewer than {FEWEST} the seeds themselves" if of_few else ""
    said = [f"{AVERAGE_NAMES[table.average]} over n seeds and {interval}{few}."]
    if any(cell.best for cell in cells):
        of_what = "" if table.average == "mean" else " of means"
        tests = f"paired t tests{of_what}, Holm-corrected for all pairs, α = {ALPHA}"
        mark = f"{tied}: not told apart from it" if any(cell.tied for cell in cells) else ALONE
        said.append(
            f"Bold: the best setting; {mark} ({tests})." if tied else f"Told apart by {tests}."
        )
    if sum("total_correlation" in score for score in table.columns) > 1:
        said.append(
            "Two total correlations: of samples of z, a part of the KL; Gaussian, of the posterior "
            "means. They may go opposite ways as β grows."
        )
    return said
