"""A comparison for readers: one HTML file without a network, of tables, figures and sections."""

import math
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import NamedTuple

from bvae_jax.comparison.figures import Drawn
from bvae_jax.files import write_text

TEMPLATE = Path(__file__).with_name("report.html")
DIGITS = 5  # of the largest number in a column
LEGEND = {
    "best": "<strong>Bold</strong>: the best.",
    "tied": '<span class="tied"></span>: not distinguishable from the best.',
    "untested": '<span class="untested"></span>: not tested, for it shares fewer than two seeds '
    "with the best.",
}


class HtmlCell(NamedTuple):
    """One cell of a table.

    Attributes:
        below: in small letters below the text.
        mark: "best", "tied" (not distinguishable from the best), "untested" (against it), "words"
            (text, set to the left) or "" (a number, set to the right).
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
    write_text(path, text)


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
