"""The report of a comparison: one HTML file that needs no server and no network."""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any, NamedTuple, TypedDict

from bvae_jax.comparison.html_table import (
    Cell,
    HtmlTable,
    lines,
    number_cells,
    pairs_to_html,
    to_html,
)
from bvae_jax.runs import rundir

TEMPLATE = Path(__file__).with_name("report.html")


class Figure(NamedTuple):
    """A picture, and the PDF of it to download."""

    title: str
    caption: str
    png: Path
    pdf: Path | None = None


class Member(TypedDict):
    """A run; what is not in `numbers` stays an empty cell."""

    name: str
    setting: str
    seed: int
    run_dir: str
    numbers: Mapping[str, float | None]


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
    figures: Sequence[Figure] = ()
    sentences: Sequence[tuple[str, Sequence[str]]] = ()
    left_out: Mapping[str, str] = {}
    missing: Sequence[str] = ()
    config: Mapping[str, Any] = {}
    varied: Mapping[str, Sequence[Any]] = {}
    versions: Mapping[str, str | None] = {}
    commands: Sequence[str] = ()
    members: Sequence[Member] = ()


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
        "Statistics in words": lines(_sentences(*pair) for pair in report.sentences),
        "Left out and missing": _absent(report.left_out, report.missing),
        "Members": _members(report.members),
        "Configuration": _configuration(report.config, report.varied),
        "Versions": pairs_to_html("Versions", "version", versions),
        "Commands": lines(f"<pre><code>{escape(line)}</code></pre>" for line in report.commands),
    }
    sections = {title: body for title, body in sections.items() if body}
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(report.title),
        lead=escape(report.lead),
        facts=_facts(report.facts),
        contents=lines(f'<li><a href="#{_slug(title)}">{title}</a></li>' for title in sections),
        sections=lines(
            f'<section id="{_slug(title)}">\n<h2>{title}</h2>\n{body}\n</section>'
            for title, body in sections.items()
        ),
    )


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    items = lines(f"<div><dt>{escape(n)}</dt><dd>{escape(value)}</dd></div>" for n, value in facts)
    return items and f"<dl>\n{items}\n</dl>"


def _results(tables: Sequence[tuple[str, HtmlTable]]) -> str:
    return lines(
        f"<h3>Table {number}. {escape(title)}</h3>\n{to_html(title, table)}"
        for number, (title, table) in enumerate(tables, 1)
    )


def _figures(figures: Sequence[Figure]) -> str:
    shown = lines(_figure(number, figure) for number, figure in enumerate(figures, 1))
    return shown and f'<div class="figures">\n{shown}\n</div>'


def _figure(number: int, figure: Figure) -> str:
    """A click on the picture ticks the box in its label, and the style sheet enlarges it."""
    pdf = ""
    if figure.pdf is not None:
        name, data = escape(figure.pdf.name), _data("application/pdf", figure.pdf)
        pdf = f' <a download="{name}" href="{data}" aria-label="PDF of figure {number}">PDF</a>'
    return (
        f'<figure id="figure-{number}">\n'
        f'<label><input type="checkbox" aria-label="Enlarge figure {number}">'
        f'<img alt="{escape(figure.title)}" src="{_data("image/png", figure.png)}"></label>\n'
        f"<figcaption><strong>Figure {number}. {escape(figure.title)}.</strong> "
        f"{escape(figure.caption)}{pdf}</figcaption>\n</figure>"
    )


def _data(kind: str, path: Path) -> str:
    return f"data:{kind};base64,{b64encode(path.read_bytes()).decode()}"


def _sentences(score: str, sentences: Sequence[str]) -> str:
    items = lines(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return _details(score, f"<ul>\n{items}\n</ul>")


def _details(summary: str, body: str) -> str:
    return f"<details>\n<summary>{escape(summary)}</summary>\n{body}\n</details>"


def _absent(left_out: Mapping[str, str], missing: Sequence[str]) -> str:
    names = lines(f"<li>{escape(name)}</li>" for name in missing)
    listed = f'<h3>Missing: not finished</h3>\n<ul class="names">\n{names}\n</ul>'
    reasons = f"<h3>Left out</h3>\n{pairs_to_html('Left out', 'reason', left_out)}"
    return lines([reasons if left_out else "", listed if missing else ""])


def _members(members: Sequence[Member]) -> str:
    names = list(dict.fromkeys(name for member in members for name in member["numbers"]))
    columns = [number_cells([member["numbers"].get(name) for member in members]) for name in names]
    rows = []
    for row, member in enumerate(members):
        first = [Cell(member["setting"], "words"), Cell(str(member["seed"]))]
        last = Cell(member["run_dir"], "words")
        rows.append((member["name"], [*first, *(column[row] for column in columns), last]))
    table = to_html("Members", HtmlTable(["setting", "seed", *names, "directory"], rows))
    return _details(f"All members ({len(rows)})", table) if rows else ""


def _configuration(config: Mapping[str, Any], varied: Mapping[str, Sequence[Any]]) -> str:
    values = {name: ", ".join(map(_value, some)) for name, some in varied.items()}
    rest = {name: _value(value) for name, value in config.items() if name not in varied}
    shared = pairs_to_html("Shared configuration", "value", rest)
    shared = shared and _details(f"Shared by all members ({len(rest)})", shared)
    return lines([pairs_to_html("Varied configuration", "values", values), shared])


def _value(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _slug(title: str) -> str:
    return title.lower().replace(" ", "-")
