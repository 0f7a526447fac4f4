"""The table of a comparison as LaTeX."""

import textwrap
from itertools import zip_longest

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
