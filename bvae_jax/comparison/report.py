"""The report of a comparison: one HTML file that needs no server and no network."""

import json
import math
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from bvae_jax.comparison.base import Comparison, is_metric
from bvae_jax.comparison.figures import Drawn
from bvae_jax.comparison.findings import ScoreStatistics, statistics_of
from bvae_jax.comparison.reading import in_order
from bvae_jax.comparison.statistics import sentence
from bvae_jax.comparison.tables import Table, explanation, texts
from bvae_jax.runs import rundir
from bvae_jax.runs.sweepdir import SweepConfig, read_sweep

TEMPLATE = Path(__file__).with_name("report.html")
MOST_PAIRS = 15
"""Of settings that are compared one by one in words; of more, each with the best only."""
LEADING = ("mig", "dci/disentanglement", "factor_vae_score")
"""Scores that the first paragraph speaks of."""
DIGITS = 5  # of the largest number in a column
LEGEND = {
    "best": "<strong>Bold</strong>: the best.",
    "tied": '<span class="tied"></span>: not distinguishable from the best.',
}


class HtmlCell(NamedTuple):
    """One cell of a table.

    Attributes:
        mark: "best", "tied" (not distinguishable from the best), "words" (text, set to the left)
            or "" (a number, set to the right).
        title: shown when the pointer rests on the cell.
    """

    text: str
    mark: str = ""
    title: str = ""


class HtmlTable(NamedTuple):
    """A table; `columns` are the names above the cells, without one above the rows' labels."""

    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[HtmlCell]]]
    note: str = ""


class Report(NamedTuple):
    """What a report says. All texts are plain: they are escaped here.

    Attributes:
        lead: what was compared and the main finding, in a paragraph.
        facts: (name, value).
        tables: (title, table).
        sentences: (score, its tests in words).
        left_out: member -> why.
        missing: members that are not finished.
        config: of all members, in JSON types, but for what is in `varied`.
        varied: field -> its values.
        versions: package -> version, None where it is not installed.
        commands: that made the report.
    """

    title: str
    lead: str
    facts: Sequence[tuple[str, str]] = ()
    tables: Sequence[tuple[str, HtmlTable]] = ()
    figures: Sequence[Drawn] = ()
    sentences: Sequence[tuple[str, Sequence[str]]] = ()
    left_out: Mapping[str, str] = {}
    missing: Sequence[str] = ()
    config: Mapping[str, Any] = {}
    varied: Mapping[str, Sequence[Any]] = {}
    versions: Mapping[str, str | None] = {}
    commands: Sequence[str] = ()
    members: HtmlTable | None = None


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
        figures=drawn,
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
            for name in dict.fromkeys(n for s in sweeps for n in (*s.base.to_dict(), *s.values))
            if any(name in sweep.values for sweep in sweeps)
            or len({sweep.base.value(name) for sweep in sweeps}) > 1
        },
        versions=provenance[-1]["versions"] if provenance else {},
        commands=[*dict.fromkeys(_command(s["command"]) for s in provenance), *commands],
        members=_table_of_members(comparison),
    )


def _values(sweep: SweepConfig, name: str) -> Sequence[Any]:
    """The values of a field in a sweep."""
    return sweep.values.get(name, [sweep.base.value(name)])


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
        found.append((title, HtmlTable(list(scores), rows, note=" ".join(explanation(table)))))
    return found


def _divided(scores: Sequence[str]) -> dict[str, list[str]]:
    parts = {
        "Training": [score for score in scores if not is_metric(score)],
        "Disentanglement": [score for score in scores if is_metric(score)],
    }
    return {title: chosen for title, chosen in parts.items() if chosen}


def _cell(table: Table, cells: Any, score: str) -> HtmlCell:
    cell = cells[score]
    centre, between = texts(table, score, cell)
    return HtmlCell(f"{centre} {between}".strip(), cell.mark, title=f"n = {cell.interval.n}")


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


def _table_of_members(comparison: Comparison) -> HtmlTable:
    rows, scores = comparison.members, comparison.scores
    columns = [[HtmlCell(str(setting), "words") for setting in rows["setting"]]]
    columns += [[HtmlCell(str(seed)) for seed in rows["seed"]]]
    columns += [number_cells(rows[score].astype(float).tolist()) for score in scores]
    columns += [[HtmlCell(str(comparison.run_dirs[name]), "words") for name in rows.index]]
    cells = zip(*columns, strict=True)
    return HtmlTable(
        ["setting", "seed", *scores, "directory"],
        list(zip(map(str, rows.index), cells, strict=True)),
    )


def write_report(path: Path, report: Report) -> None:
    """Write the report, pictures and all, into one HTML file.

    A reader, or a crash, sees the old file or the new one.

    Args:
        path: of the file; its folder is made.
        report: what is empty in it has no section.
    """
    page = _page(report)
    path.parent.mkdir(parents=True, exist_ok=True)
    rundir.write_text(path, page)


def _page(report: Report) -> str:
    versions = {name: version or "not installed" for name, version in report.versions.items()}
    sections = {
        "Results": _results(report.tables),
        "Figures": _figures(report.figures),
        "Statistics in words": joined(_sentences(*pair) for pair in report.sentences),
        "Left out and missing": _absent(report.left_out, report.missing),
        "Members": _members(report.members) if report.members else "",
        "Configuration": _configuration(report.config, report.varied),
        "Versions": pairs_to_html("Versions", "version", versions),
        "Commands": joined(f"<pre><code>{escape(line)}</code></pre>" for line in report.commands),
    }
    sections = {title: body for title, body in sections.items() if body}
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(report.title),
        lead=escape(report.lead),
        facts=_facts(report.facts),
        contents=joined(f'<li><a href="#{_slug(title)}">{title}</a></li>' for title in sections),
        sections=joined(
            f'<section id="{_slug(title)}">\n<h2>{title}</h2>\n{body}\n</section>'
            for title, body in sections.items()
        ),
    )


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    items = joined(f"<div><dt>{escape(n)}</dt><dd>{escape(value)}</dd></div>" for n, value in facts)
    return items and f"<dl>\n{items}\n</dl>"


def _results(tables: Sequence[tuple[str, HtmlTable]]) -> str:
    return joined(
        f"<h3>Table {number}. {escape(title)}</h3>\n{to_html(title, table)}"
        for number, (title, table) in enumerate(tables, 1)
    )


def _figures(figures: Sequence[Drawn]) -> str:
    shown = joined(_figure(number, figure) for number, figure in enumerate(figures, 1))
    return shown and f'<div class="figures">\n{shown}\n</div>'


def _figure(number: int, figure: Drawn) -> str:
    """A click on the picture ticks the box in its label, and the style sheet enlarges it."""
    png, pdf = figure.files
    return (
        f'<figure id="figure-{number}">\n'
        f'<label><input type="checkbox" aria-label="Enlarge figure {number}">'
        f'<img alt="{escape(figure.title)}" src="{_data("image/png", png)}"></label>\n'
        f"<figcaption><strong>Figure {number}. {escape(figure.title)}.</strong> "
        f"{escape(figure.caption)} "
        f'<a download="{escape(pdf.name)}" href="{_data("application/pdf", pdf)}" '
        f'aria-label="PDF of figure {number}">PDF</a></figcaption>\n</figure>'
    )


def _data(kind: str, path: Path) -> str:
    return f"data:{kind};base64,{b64encode(path.read_bytes()).decode()}"


def _sentences(score: str, sentences: Sequence[str]) -> str:
    items = joined(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return _details(score, f"<ul>\n{items}\n</ul>")


def _details(summary: str, body: str) -> str:
    return f"<details>\n<summary>{escape(summary)}</summary>\n{body}\n</details>"


def _absent(left_out: Mapping[str, str], missing: Sequence[str]) -> str:
    names = joined(f"<li>{escape(name)}</li>" for name in missing)
    listed = f'<h3>Missing: not finished</h3>\n<ul class="names">\n{names}\n</ul>'
    reasons = f"<h3>Left out</h3>\n{pairs_to_html('Left out', 'reason', left_out)}"
    return joined([reasons if left_out else "", listed if missing else ""])


def _members(table: HtmlTable) -> str:
    return _details(f"All members ({len(table.rows)})", to_html("Members", table))


def _configuration(config: Mapping[str, Any], varied: Mapping[str, Sequence[Any]]) -> str:
    values = {name: ", ".join(map(_value, some)) for name, some in varied.items()}
    rest = {name: _value(value) for name, value in config.items() if name not in varied}
    shared = pairs_to_html("Shared configuration", "value", rest)
    shared = shared and _details(f"Shared by all members ({len(rest)})", shared)
    return joined([pairs_to_html("Varied configuration", "values", values), shared])


def _value(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _slug(title: str) -> str:
    return title.lower().replace(" ", "-")


def to_html(name: str, table: HtmlTable) -> str:
    """A table that scrolls by itself where it is wider than the screen."""
    columns = zip(*(cells for _, cells in table.rows), strict=True)
    words = [all(cell.mark == "words" for cell in cells) for cells in columns]
    words = words if table.rows else [False] * len(table.columns)
    heads = joined(
        f'<th scope="col"{_class("words" if is_words else "")}>{_breakable(column)}</th>'
        for column, is_words in zip(table.columns, words, strict=True)
    )
    rows = joined(
        f'<tr><th scope="row"><span>{escape(label)}</span></th>{"".join(map(_td, cells))}</tr>'
        for label, cells in table.rows
    )
    marks = {cell.mark for _, cells in table.rows for cell in cells}
    note = " ".join([*(text for mark, text in LEGEND.items() if mark in marks), escape(table.note)])
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(name)}">\n<table>\n'
        f"<thead><tr><td></td>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</div>"
        + (f'\n<p class="note">{note.strip()}</p>' if note.strip() else "")
    )


def pairs_to_html(name: str, column: str, pairs: Mapping[str, str]) -> str:
    """A table of names and texts; nothing where there is none."""
    rows = [(key, [HtmlCell(value, "words")]) for key, value in pairs.items()]
    return to_html(name, HtmlTable([column], rows)) if rows else ""


def number_cells(values: Sequence[float]) -> list[HtmlCell]:
    """Cells with the same number of decimals."""
    finite = [abs(float(v)) for v in values if math.isfinite(v)]
    whole = all(value.is_integer() for value in finite)
    digits_before = len(str(int(max(finite, default=0))))
    decimals = 0 if whole else max(DIGITS - digits_before, 0)
    return [HtmlCell(f"{v:z.{decimals}f}", title=str(v)) for v in values]


def joined(parts: Iterable[str]) -> str:
    """Parts that are not empty, a line each."""
    return "\n".join(part for part in parts if part)


def _td(cell: HtmlCell) -> str:
    title = f' title="{escape(cell.title)}"' if cell.title else ""
    text = escape(cell.text)
    tag = {"best": "strong", "words": "span"}.get(cell.mark)
    text = f"<{tag}>{text}</{tag}>" if tag else text
    return f"<td{_class(cell.mark)}{title}>{text}</td>"


def _breakable(name: str) -> str:
    """A column's name, which may go on in the next line after each part of it."""
    return re.sub("(?<=[_/])", "<wbr>", escape(name))


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""
