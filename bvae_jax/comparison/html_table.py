"""Tables of the report as HTML."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

DIGITS = 5  # of the largest number in a column
LEGEND = {
    "best": "<strong>Bold</strong>: the best.",
    "tied": '<span class="tied"></span>: not distinguishable from the best.',
}


class Cell(NamedTuple):
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
    rows: Sequence[tuple[str, Sequence[Cell]]]
    note: str = ""


def to_html(name: str, table: HtmlTable) -> str:
    """A table that scrolls by itself where it is wider than the screen."""
    columns = zip(*(cells for _, cells in table.rows), strict=True)
    words = [all(cell.mark == "words" for cell in cells) for cells in columns]
    words = words if table.rows else [False] * len(table.columns)
    heads = lines(
        f'<th scope="col"{_class("words" if is_words else "")}>{_breakable(column)}</th>'
        for column, is_words in zip(table.columns, words, strict=True)
    )
    rows = lines(
        f'<tr><th scope="row"><span>{escape(label)}</span></th>{"".join(map(_cell, cells))}</tr>'
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
    rows = [(key, [Cell(value, "words")]) for key, value in pairs.items()]
    return to_html(name, HtmlTable([column], rows)) if rows else ""


def number_cells(values: Sequence[float | int | None]) -> list[Cell]:
    """Cells with as many decimals as each other."""
    finite = [abs(float(v)) for v in values if v is not None and math.isfinite(v)]
    whole = all(value.is_integer() for value in finite)
    digits_before = len(str(int(max(finite, default=0))))
    decimals = 0 if whole else max(DIGITS - digits_before, 0)
    return [Cell("") if v is None else Cell(f"{v:z.{decimals}f}", title=str(v)) for v in values]


def lines(parts: Iterable[str]) -> str:
    """Those that are not empty, one below the other."""
    return "\n".join(part for part in parts if part)


def _cell(cell: Cell) -> str:
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
