"""The table of a comparison: scores by setting, as CSV, Markdown and LaTeX."""

import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from bvae_jax.comparison.base import Comparison
from bvae_jax.comparison.cells import Cell, Table, caption, remark, rows, texts
from bvae_jax.comparison.intervals import ANY, FEWEST, Average, interval
from bvae_jax.comparison.latex import latex, to_latex
from bvae_jax.comparison.stability import rise_at_end
from bvae_jax.comparison.statistics import SIGNS, best_and_tied, comparable, wide
from bvae_jax.runs import rundir

TRUE_FACTORS = "true factors"
"""The baseline that no representation can exceed, and none is expected to."""


def make_table(comparison: Comparison, average: Average = "mean") -> Table:
    """Averages over seeds with their intervals, and marks at the best of each score."""
    scores, members = comparison.scores, comparison.members
    columns = {score: _column(comparison, score, average) for score in scores}
    scored = comparison.baselines.dropna(how="all", subset=list(scores))
    baselines = {
        str(name): {s: _cell(comparison, s, group[s].to_numpy(float), average) for s in scores}
        for name, group in scored.groupby("baseline", sort=False)
    }
    table = Table(
        average=average,
        columns=scores,
        rows={s: {score: columns[score][s] for score in scores} for s in comparison.settings},
        baselines=baselines,
        seeds={s: members.seed[members.setting == s].nunique() for s in comparison.settings},
        failed={**comparison.failed, **dict.fromkeys(comparison.missing, "not finished")},
    )
    return table._replace(
        remarks=[*_few(table), *_unbeaten(table, comparison), *_rising(comparison)]
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
    """A table in GitHub's Markdown, with its remarks above and below the line that explains it."""
    head = ["setting", "n", *map(markdown, table.columns)]
    above = f"{' '.join(map(markdown, table.remarks))}\n\n" if table.remarks else ""
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
    body = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{above}{body}\n{' '.join(explained)}\n"


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
    cells = {s: _cell(comparison, score, frame[s].to_numpy(), average) for s in frame}
    return {s: cell._replace(best=s == best, tied=s in tied) for s, cell in cells.items()}


def _cell(
    comparison: Comparison, score: str, values: Float[np.ndarray, " seed"], average: Average
) -> Cell:
    """Without marks."""
    found = interval(values, average=average, within=comparison.ranges.get(score, ANY))
    return Cell(found, seeds=tuple(values[np.isfinite(values)].tolist()))


def _few(table: Table) -> Iterator[str]:
    """That seeds are too few for intervals."""
    few = sorted({n for n in table.seeds.values() if 0 < n < FEWEST})
    if few:
        count = " to ".join(map(str, few[:: len(few) - 1] if len(few) > 1 else few))
        yield (
            f"Few seeds (n = {count}): in brackets are the seeds themselves, which are too few for "
            "intervals; what they show may be chance."
        )


def _unbeaten(table: Table, comparison: Comparison) -> Iterator[str]:
    """Of each baseline the scores in which it is the best of all and no setting is above it."""
    first: dict[str, list[str]] = {}
    for score in table.columns:
        if better := comparison.better.get(score, ""):
            reached, theirs = (
                {name: SIGNS[better] * cells[score].interval.center for name, cells in of.items()}
                for of in (table.rows, table.baselines)
            )
            theirs = {n: v for n, v in theirs.items() if n != TRUE_FACTORS and not math.isnan(v)}
            best = max((v for v in reached.values() if not math.isnan(v)), default=math.nan)
            if theirs and max(theirs.values()) >= best:
                first.setdefault(max(theirs, key=lambda name: theirs[name]), []).append(score)
    for name, scores in first.items():
        yield f"No setting exceeds {name} in {', '.join(scores)}."


def _rising(comparison: Comparison) -> Iterator[str]:
    """Settings whose training was not at its end."""
    rises = {}
    for setting, names in comparison.members.groupby("setting", sort=False).groups.items():
        found = [rise_at_end(comparison.records.get(str(name), [])) for name in names]
        if (mean := float(np.mean(found))) > 0:
            rises[str(setting)] = mean
    if rises:
        listed = [f"{setting} by {rise:.2g} nats" for setting, rise in rises.items()]
        more = [f"{len(listed) - 8} others"] if len(listed) > 9 else listed[8:]
        yield (
            "Training was not at its end: in its last tenth the ELBO still rose for "
            f"{', '.join([*listed[:8], *more])}."
        )
