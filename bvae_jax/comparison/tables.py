"""The table of a comparison: scores by setting, as CSV, Markdown and LaTeX."""

import itertools
import re
from pathlib import Path
from typing import Any

import pandas as pd

from bvae_jax import rundir
from bvae_jax.comparison.base import Comparison
from bvae_jax.comparison.cells import Cell, Table, caption, remark, rows, texts
from bvae_jax.comparison.intervals import Average, interval
from bvae_jax.comparison.latex import latex, to_latex
from bvae_jax.comparison.statistics import best_and_tied, comparable, wide


def make_table(comparison: Comparison, average: Average = "mean") -> Table:
    """Averages over seeds with their intervals, and marks at the best of each score."""
    scores, members = comparison.scores, comparison.members
    columns = {score: _column(comparison, score, average) for score in scores}
    baselines = {
        str(name): {
            score: Cell(interval(group[score].to_numpy(float), average=average)) for score in scores
        }
        for name, group in comparison.baselines.groupby("baseline", sort=False)
    }
    return Table(
        average=average,
        columns=scores,
        rows={s: {score: columns[score][s] for score in scores} for s in comparison.settings},
        baselines=baselines,
        seeds={s: members.seed[members.setting == s].nunique() for s in comparison.settings},
        failed={**comparison.failed, **dict.fromkeys(comparison.missing, "not finished")},
    )


def write_tables(comparison: Comparison, directory: Path, average: Average = "mean") -> list[Path]:
    """Write table.csv, table.md and table.tex."""
    table = make_table(comparison, average)
    paths = [directory / f"table.{suffix}" for suffix in ("csv", "md", "tex")]
    directory.mkdir(parents=True, exist_ok=True)
    write_csv(table, paths[0])
    rundir.write_text(paths[1], to_markdown(table))
    varied = latex(", ".join(comparison.varied))
    title = f"Scores by {varied}." if varied else "Scores."
    rundir.write_text(paths[2], to_latex(table, caption=title, label="tab:scores"))
    return paths


def write_csv(table: Table, path: Path) -> None:
    """A row for each setting and baseline.

    Columns `setting`, `kind` (setting or baseline), `n` (its seeds), and of each score its average
    `NAME`, `NAME_low`, `NAME_high`, `NAME_n`, `NAME_mark` (best, tied or empty).
    """
    ends = ("low", "high", "n", "mark")
    names = {score: [score, *(f"{score}_{end}" for end in ends)] for score in table.columns}
    lines = []
    for row in rows(table):
        line: dict[str, Any] = {"setting": row.label, "kind": row.kind, "n": row.n}
        for score, cell in row.cells.items():
            mark = "best" if cell.best else "tied" if cell.tied else ""
            line |= dict(zip(names[score], (*cell.interval, mark), strict=True))
        lines.append(line)
    columns = ["setting", "kind", "n", *itertools.chain(*names.values())]
    rundir.write_text(path, pd.DataFrame(lines, columns=columns).to_csv(index=False))


def to_markdown(table: Table) -> str:
    """A table in GitHub's Markdown and the line that explains it."""
    head = ["setting", "n", *map(markdown, table.columns)]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in rows(table):
        shown = []
        for score, cell in row.cells.items():
            text = " ".join(filter(None, texts(table, score, cell)))
            text = f"**{text}**" if cell.best else text + r"\*" * cell.tied
            shown.append(f"{text} {remark(cell, row.n)}".strip())
        name = markdown(row.label) + " (baseline)" * (row.kind == "baseline")
        lines.append([name, str(row.n), *shown])
    explained = caption(table, tied=r"\*")
    if table.failed:
        left_out = [f"`{member}` ({markdown(why)})" for member, why in table.failed.items()]
        explained.append(f"Left out: {'; '.join(left_out)}.")
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + f"\n{' '.join(explained)}\n"


def markdown(text: str) -> str:
    """Text in one line with what Markdown would read as markup escaped."""
    # An underscore inside a word is none, and a bracket only where it makes a link.
    marks = r"([\\|*`$~&]|\](?=[(\[])|<(?=\S)|(?<!\w)_|_(?!\w))"
    return re.sub(marks, r"\\\1", " ".join(text.split()))


def _column(comparison: Comparison, score: str, average: Average) -> dict[str, Cell]:
    """Cells of one score, by setting."""
    frame = wide(comparison.members, score, comparison.settings)
    better = comparison.better.get(score, "")
    best, tied = "", ()
    if comparable(frame, better):
        best, tied = best_and_tied(frame, better, average=average)
    return {
        s: Cell(interval(frame[s].to_numpy(), average=average), s == best, s in tied)
        for s in comparison.settings
    }
