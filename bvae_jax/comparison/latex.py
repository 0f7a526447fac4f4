"""The table of a comparison for an article."""

from collections.abc import Sequence

import numpy as np

from bvae_jax.comparison.cells import NOTHING, Row, Table, remark, rows, texts
from bvae_jax.comparison.cells import caption as explanation

MOST_SCORES = 5  # beside each other: what an article's 345 pt hold
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
)


def to_latex(table: Table, *, caption: str, label: str) -> str:
    """A table for booktabs: intervals below their averages, `MOST_SCORES` scores beside each other.

    Args:
        caption: LaTeX; what the numbers and the marks are is added to it.
    """
    explained = [latex(text) for text in (*explanation(table, tied="*"), *table.remarks)]
    if table.failed:
        explained.append(f"Left out: {len(table.failed)} of the runs.")
    lines = [
        r"% Needs \usepackage{booktabs}.",
        *(f"% Left out: {' '.join(f'{m}: {why}'.split())}" for m, why in table.failed.items()),
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{' '.join([caption, *explained])}}}",
        rf"  \label{{{label}}}",
        r"  \footnotesize",
        r"  \setlength{\tabcolsep}{3pt}",
    ]
    count = max(-(-len(table.columns) // MOST_SCORES), 1)
    for scores in np.array_split(np.array(table.columns, object), count):
        lines += [r"  \par\medskip", *_tabular(table, scores.tolist())]
    return "\n".join([*lines, r"\end{table}", ""])


def latex(text: str) -> str:
    """Text with what LaTeX would read as commands escaped, and Greek letters as math."""
    return "".join(ESCAPED.get(character, character) for character in text)


def _tabular(table: Table, scores: Sequence[str]) -> list[str]:
    heads = [latex(score).replace("/", r"/\\") for score in scores]
    heads = [rf"\scriptsize\shortstack{{{head}}}" for head in heads]
    lines = [
        rf"  \begin{{tabular}}{{lr{'c' * len(scores)}}}",
        r"    \toprule",
        rf"    {' & '.join(['', '$n$', *heads])} \\",
    ]
    last = ""
    for row in rows(table):
        lines += [r"    \midrule" if row.kind != last else r"    \addlinespace[2pt]"]
        lines += _lines(table, row, scores)
        last = row.kind
    return [*lines, r"    \bottomrule", r"  \end{tabular}"]


def _lines(table: Table, row: Row, scores: Sequence[str]) -> list[str]:
    """A line of averages, and one of intervals below it if there are any."""
    centers, below = [], []
    for score in scores:
        cell = row.cells[score]
        center, ends = (t.replace("-", "$-$") for t in texts(table, score, cell))
        center = center.replace(NOTHING, "--")
        centers.append(rf"\textbf{{{center}}}" if cell.best else center + "$^{*}$" * cell.tied)
        small = f"{_two_in_a_line(ends)} {remark(cell, row.n)}".strip()
        below.append(rf"{{\scriptsize {small}}}" if small else "")
    lines = [[latex(row.label), str(row.n), *centers], *[["", "", *below]] * any(below)]
    return [rf"    {' & '.join(line)} \\" for line in lines]


def _two_in_a_line(numbers: str) -> str:
    """An interval as it is; of seeds the third goes below the first."""
    parts = numbers.split(", ")
    pairs = [", ".join(parts[i : i + 2]) for i in range(0, len(parts), 2)]
    stacked = r",\\".join(pairs)
    return rf"\shortstack{{{stacked}}}" if len(pairs) > 1 else numbers
