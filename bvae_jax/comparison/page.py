"""A comparison for readers: one HTML file without a network, of tables, figures and sections; and
the table as LaTeX."""

import math
import re
import textwrap
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import zip_longest
from pathlib import Path
from string import Template
from typing import NamedTuple

from bvae_jax.comparison.figures import Drawn
from bvae_jax.comparison.tables import (
    NOTHING,
    Row,
    Table,
    explanation,
    filled_rows,
    name_of_row,
    remark,
    texts,
)
from bvae_jax.runs import rundir

TEMPLATE = Path(__file__).with_name("report.html")
DIGITS = 5  # of the largest number in a column
LEGEND = {
    "best": "<strong>Bold</strong>: the best.",
    "tied": '<span class="tied"></span>: not distinguishable from the best.',
}


class HtmlCell(NamedTuple):
    """One cell of a table.

    Attributes:
        below: in small letters below the text.
        mark: "best", "tied" (not distinguishable from the best), "words" (text, set to the left)
            or "" (a number, set to the right).
        title: shown when the pointer rests on the cell.
    """

    text: str
    mark: str = ""
    title: str = ""
    below: str = ""


class HtmlTable(NamedTuple):
    """A table; `columns` are the names above the cells, without one above the rows' labels."""

    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[HtmlCell]]]
    note: str = ""


class Section(NamedTuple):
    """A part of a page.

    Attributes:
        body: HTML in which all texts are escaped; without one there is no section.
        folded: it is open, and printed, only when the reader wants it.
    """

    title: str
    body: str
    folded: bool = False


class Page(NamedTuple):
    """What a page says. Texts are plain: they are escaped here.

    Attributes:
        lead: the main finding, in a paragraph.
        facts: (name, value).
        cautions: what must be known before the rest is read.
    """

    title: str
    lead: str
    facts: Sequence[tuple[str, str]] = ()
    cautions: Sequence[str] = ()
    sections: Sequence[Section] = ()


def write_page(path: Path, page: Page) -> None:
    """Write a page into one HTML file.

    A reader, or a crash, sees the old file or the new one.

    Args:
        path: of the file; its folder is made.
    """
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(page.title),
        lead=escape(page.lead),
        facts=_facts(page.facts),
        cautions=bullets(page.cautions, "cautions"),
        sections=joined(_section(section) for section in page.sections if section.body),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    rundir.write_text(path, text)


def _section(section: Section) -> str:
    head = f"<h2>{escape(section.title)}</h2>"
    if not section.folded:
        return f"<section>\n{head}\n{section.body}\n</section>"
    return f"<details>\n<summary>{head}</summary>\n{section.body}\n</details>"


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    items = joined(f"<div><dt>{escape(n)}</dt><dd>{escape(value)}</dd></div>" for n, value in facts)
    return items and f"<dl>\n{items}\n</dl>"


def bullets(texts: Iterable[str], kind: str = "") -> str:
    """A list; nothing where there is no text."""
    items = joined(f"<li>{escape(text)}</li>" for text in texts)
    return items and f"<ul{_class(kind)}>\n{items}\n</ul>"


def paragraph(text: str) -> str:
    """Plain text."""
    return f"<p>{escape(text)}</p>"


def code(text: str) -> str:
    """Lines to type."""
    return f"<pre><code>{escape(text)}</code></pre>"


def titled(title: str, body: str) -> str:
    """Something with a heading of its own, if it is there."""
    return body and f"<h3>{escape(title)}</h3>\n{body}"


def figure(drawn: Drawn, *, titled: bool = True) -> str:
    """The picture, what it shows, and its PDF.

    Args:
        titled: the title is a part of the caption.
    """
    png, pdf = drawn.files
    title = escape(drawn.title)
    before = f"<strong>{title}.</strong> " if titled else ""
    return (
        f'<figure>\n<img alt="{title}" src="{_data("image/png", png)}">\n'
        f"<figcaption>{before}{escape(drawn.caption)} "
        f'<a download="{escape(pdf.name)}" href="{_data("application/pdf", pdf)}" '
        f'aria-label="PDF: {title}">PDF</a></figcaption>\n</figure>'
    )


def _data(kind: str, path: Path) -> str:
    return f"data:{kind};base64,{b64encode(path.read_bytes()).decode()}"


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
    text += f"<small>{escape(cell.below)}</small>" if cell.below else ""
    return f"<td{_class(cell.mark)}{title}>{text}</td>"


def _breakable(name: str) -> str:
    """A column's name, which may go on in the next line after each part of it, with its arrow."""
    return re.sub("(?<=[_/])", "<wbr>", re.sub(" (?=[↑↓])", "\xa0", escape(name)))


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


# The table of a comparison as LaTeX.

WIDTHS = {"column": 1, "page": 2}
"""How wide table.tex is, and how many numbers of an interval are beside each other."""
LONGEST_HEAD = 10  # characters in a line
LETTERS = "αβγδεζηθικλμνξπρστυφχψωςΓΔΘΛΞΠΣΥΦΨΩ"
NAMES = """alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau
    upsilon phi chi psi omega varsigma Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"""
ESCAPED = (
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {mark: f"\\{mark}" for mark in "_%&#${}"}
    | {mark: f"${mark}$" for mark in "<>|"}
    | {mark: f"{{{mark}}}" for mark in "[*"}  # after a line's end they would be its options
    | {letter: rf"$\{name}$" for letter, name in zip(LETTERS, NAMES.split(), strict=True)}
    | {"−": "$-$", "×": r"$\times$", "≤": r"$\leq$", "≥": r"$\geq$", "\n": " "}
    | {"↑": r"$\uparrow$", "↓": r"$\downarrow$", "²": "$^2$", "†": r"$\dagger$"}
)


def to_latex(table: Table, *, caption: str, label: str, width: str = "column") -> str:
    """A table for booktabs, as wide as a column or a page at most, intervals below their averages.

    What is wider is made smaller by LaTeX, which alone knows how wide a column is.

    Args:
        caption: LaTeX; what the numbers and the marks are is added to it.
        width: one of `WIDTHS`.
    """
    explained = [latex(text) for text in explanation(table, tied="*")]
    if table.failed:
        explained.append(f"Left out: {len(table.failed)} of the runs.")
    left_out = [f"Left out: {member}: {why}" for member, why in table.failed.items()]
    environment = "table*" if width == "page" else "table"
    lines = [
        r"% Needs \usepackage{booktabs,graphicx}.",
        *(f"% {' '.join(text.split())}" for text in (*table.remarks, *left_out)),
        rf"\begin{{{environment}}}",
        r"  \centering",
        rf"  \caption{{{' '.join([caption, *explained])}}}",
        rf"  \label{{{label}}}",
        r"  \footnotesize",
        rf"  \setlength{{\tabcolsep}}{{{1 + WIDTHS[width]}pt}}",
        r"  \smallskip",
        r"  \sbox0{%",
        *_tabular(table, WIDTHS[width]),
        r"  \ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi",
    ]
    return "\n".join([*lines, rf"\end{{{environment}}}", ""])


def latex(text: str) -> str:
    """Text with what LaTeX would read as commands escaped, and Greek letters as math."""
    return "".join(ESCAPED.get(character, character) for character in text)


def _tabular(table: Table, beside: int) -> list[str]:
    """Lines of the tabular and the brace that closes its box."""
    heads = []
    for name in table.headings:
        parts = textwrap.wrap(name, LONGEST_HEAD, break_long_words=False, break_on_hyphens=False)
        stacked = r"\\".join(map(latex, parts))
        heads.append(rf"\scriptsize\shortstack{{{stacked}}}")
    lines = [
        rf"  \begin{{tabular}}{{lr{'c' * len(table.columns)}}}",
        r"    \toprule",
        rf"    {' & '.join(['', '$n$', *heads])} \\",
    ]
    last = ""
    for row in filled_rows(table):
        lines += [r"    \midrule" if row.kind != last else r"    \addlinespace[2pt]"]
        lines += _lines(table, row, beside)
        last = row.kind
    return [*lines, r"    \bottomrule", r"  \end{tabular}}"]


def _lines(table: Table, row: Row, beside: int) -> list[str]:
    """A line of averages, and below it those of their intervals, if there are any.

    Args:
        beside: numbers of an interval in a line; a setting's name has lines of its own where 1.
    """
    label = latex(name_of_row(row))
    columns = [label.replace(", ", ",\n").split("\n") if beside == 1 else [label], [str(row.n)]]
    for score in table.columns:
        cell = row.cells[score]
        center, ends = (t.replace("-", "$-$") for t in texts(table, score, cell))
        center = center.replace(NOTHING, "--")
        center = rf"\textbf{{{center}}}" if cell.best else center + "$^{*}$" * cell.tied
        numbers = ends.split(", ") if ends else []
        below = [", ".join(numbers[i : i + beside]) for i in range(0, len(numbers), beside)]
        below = [part + "," for part in below[:-1]] + below[-1:]
        below += filter(None, [remark(cell, row.n)])
        columns.append([center, *(rf"{{\scriptsize {part}}}" for part in below)])
    lines = zip_longest(*columns, fillvalue="")
    return [rf"    {' & '.join(line)} \\" for line in lines]
