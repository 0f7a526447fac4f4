"""The report of a comparison: what stands in it."""

from collections.abc import Sequence
from typing import Any

from bvae_jax.comparison.base import Comparison, is_metric
from bvae_jax.comparison.cells import Table, caption, texts
from bvae_jax.comparison.figures import Drawn
from bvae_jax.comparison.findings import ScoreStatistics, statistics_of
from bvae_jax.comparison.html_table import Cell, HtmlTable
from bvae_jax.comparison.reading import in_order
from bvae_jax.comparison.report import Figure, Member, Report
from bvae_jax.comparison.statistics import sentence
from bvae_jax.runs import rundir
from bvae_jax.runs.sweepdir import Sweep, read_sweep

MOST_PAIRS = 15
"""Of settings that are compared one by one in words; of more, each with the best only."""


LEADING = ("mig", "dci/disentanglement", "factor_vae_score")
"""Scores that the first paragraph speaks of."""


def make_report(
    comparison: Comparison, table: Table, drawn: Sequence[Drawn], commands: Sequence[str]
) -> Report:
    """Everything that is known of a comparison, for `write_report`.

    Args:
        commands: that made the comparison.
    """
    total = len(comparison.members) + len(comparison.failed) + len(comparison.missing)
    sweeps = [read_sweep(path) for path in comparison.sweep_dirs]
    seeds = sorted(set(comparison.members["seed"].tolist()))
    provenance = _provenance(comparison)
    return Report(
        title=" and ".join(path.resolve().name for path in comparison.sweep_dirs),
        lead=lead(comparison, table),
        facts=[
            ("members", f"{len(comparison.members)} of {total} finished"),
            ("settings", str(len(comparison.settings))),
            ("seeds", ", ".join(map(str, seeds))),
            ("data set", sweeps[0].base.dataset),
            ("steps", f"{max(map(int, comparison.members['step'])):,}"),
            ("trained on", ", ".join(sorted({s["device"] for s in provenance}))),
        ],
        tables=_tables(comparison, table),
        figures=[
            Figure(d.title, d.caption, d.path.with_suffix(".png"), d.path.with_suffix(".pdf"))
            for d in drawn
        ],
        sentences=[
            (score, list(_in_words(statistics_of(comparison, score, table.average))))
            for score in comparison.scores
        ]
        if len(comparison.settings) > 1
        else [],
        left_out=comparison.failed,
        missing=comparison.missing,
        config=sweeps[0].base.to_dict(),
        varied={
            name: in_order(v for sweep in sweeps for v in _values(sweep, name))
            for name in sweeps[0].base.to_dict()
            if any(name in sweep.values for sweep in sweeps)
            or len({sweep.base.to_dict()[name] for sweep in sweeps}) > 1
        },
        versions=provenance[-1]["versions"] if provenance else {},
        commands=[*dict.fromkeys(_command(s["command"]) for s in provenance), *commands],
        members=_members(comparison),
    )


def _values(sweep: Sweep, name: str) -> Sequence[Any]:
    """Those that a field takes in a sweep."""
    return sweep.values.get(name, [sweep.base.to_dict()[name]])


def lead(comparison: Comparison, table: Table) -> str:
    """What was compared and what came out, in a paragraph."""
    seeds = len(set(comparison.members["seed"]))
    said = [
        f"{len(comparison.members)} runs of {len(comparison.settings)} settings "
        f"({_listed(comparison.settings)}), {seeds} {'seed' if seeds == 1 else 'seeds'}."
    ]
    for score in [score for score in LEADING if score in comparison.scores]:
        best = [label for label, cells in table.rows.items() if cells[score].best]
        tied = [label for label, cells in table.rows.items() if cells[score].tied]
        if best:
            also = f", which its seeds do not tell from {_listed(tied)}" if tied else ""
            said.append(f"Best {score}: {_listed(best)}{also}.")
    return " ".join([*said, *table.remarks])


def _listed(labels: Sequence[str], most: int = 8) -> str:
    shown = [*labels[:most], *(["..."] if len(labels) > most else [])]
    return "; ".join(shown)


def _tables(comparison: Comparison, table: Table) -> list[tuple[str, HtmlTable]]:
    """Settings and baselines, scores of training apart from disentanglement metrics."""
    found = []
    for title, scores in _divided(table.columns).items():
        rows = [
            (f"{label} (n = {table.seeds[label]})", [_cell(table, cells, s) for s in scores])
            for label, cells in table.rows.items()
        ]
        rows += [
            (label, [_cell(table, cells, s) for s in scores])
            for label, cells in table.baselines.items()
            if any(cells[s].interval.n for s in scores)
        ]
        found.append((title, HtmlTable(list(scores), rows, note=" ".join(caption(table)))))
    return found


def _divided(scores: Sequence[str]) -> dict[str, list[str]]:
    parts = {
        "Training": [score for score in scores if not is_metric(score)],
        "Disentanglement": [score for score in scores if is_metric(score)],
    }
    return {title: chosen for title, chosen in parts.items() if chosen}


def _cell(table: Table, cells: Any, score: str) -> Cell:
    cell = cells[score]
    centre, between = texts(table, score, cell)
    mark = "best" if cell.best else "tied" if cell.tied else ""
    return Cell(f"{centre} {between}".strip(), mark, title=f"n = {cell.interval.n}")


def _in_words(found: ScoreStatistics) -> list[str]:
    tests = found.pairs
    if len(tests) > MOST_PAIRS and found.best:
        tests = [test for test in tests if found.best in (test.a, test.b)]
    return [sentence(test, found.score) for test in tests]


def _provenance(comparison: Comparison) -> list[dict[str, Any]]:
    """The sessions in which members were trained, the oldest first."""
    sessions = []
    for directory in comparison.run_dirs.values():
        sessions += rundir.read_sessions(directory)
    return sorted(sessions, key=lambda session: session["started"])


def _command(argv: Sequence[str]) -> str:
    return " ".join(["bvae" if argv[0].endswith(("bvae", "cli.py")) else argv[0], *argv[1:]])


def _members(comparison: Comparison) -> list[Member]:
    rows: Any = comparison.members
    return [
        Member(
            name=str(name),
            setting=str(row["setting"]),
            seed=int(row["seed"]),
            run_dir=str(comparison.run_dirs[str(name)]),
            numbers={score: float(row[score]) for score in comparison.scores},
        )
        for name, row in rows.iterrows()
    ]
