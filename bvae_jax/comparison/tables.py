"""The table of a comparison: scores by setting, as CSV, Markdown and LaTeX."""

import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from bvae_jax.comparison.base import OPTIMISED, TRAINING, Comparison, heading, name_of
from bvae_jax.comparison.statistics import (
    ALPHA,
    ANY,
    FEWEST,
    ROUNDING,
    SIGNS,
    Average,
    Interval,
    best_of,
    comparable,
    interval,
    rise_at_end,
    wide,
)

AVERAGE_NAMES = {"mean": "Mean", "iqm": "Interquartile mean"}
NOTHING = "–"
WARNED, DOUBT = " †", "‡"
ALONE = "all others are told apart from it"
TESTED = "all others that are tested are told apart from it"
EQUAL = "[all equal]"
WEIGHED = (*TRAINING, *OPTIMISED)
TRUE_FACTORS = "true factors"
"""The baseline that no representation can exceed, and none is expected to."""


class Cell(NamedTuple):
    """A score of a setting: the best one, tied with the best, not tested against it, or worse.

    Attributes:
        seeds: the numbers that the interval is of.
    """

    interval: Interval
    best: bool = False
    tied: bool = False
    untested: bool = False
    seeds: tuple[float, ...] = ()

    @property
    def mark(self) -> str:
        """ "best", "tied", "untested" or empty."""
        marks = {"best": self.best, "tied": self.tied, "untested": self.untested}
        return next((mark for mark, there in marks.items() if there), "")


class Table(NamedTuple):
    """Scores by setting.

    Attributes:
        columns: scores.
        rows: setting -> score -> cell.
        baselines: baseline -> score -> cell, without marks.
        seeds: setting -> its seeds; a cell has fewer where a score is missing.
        failed: member -> why it is left out.
        remarks: what must be known before the numbers are read, a sentence each.
        warned: setting -> what is wrong with how many of its runs.
        better: score -> "high", "low" or "".
        images: of which ones the numbers are, a sentence; "" where that is not known.
    """

    average: Average
    columns: tuple[str, ...]
    rows: dict[str, dict[str, Cell]]
    baselines: dict[str, dict[str, Cell]]
    seeds: dict[str, int]
    failed: Mapping[str, str]
    remarks: Sequence[str] = ()
    warned: Mapping[str, str] = {}
    better: Mapping[str, str] = {}
    images: str = ""

    @property
    def headings(self) -> list[str]:
        """The names of the columns, with arrows."""
        return [heading(score, self.better.get(score, "")) for score in self.columns]


class Row(NamedTuple):
    """A setting or a baseline.

    Attributes:
        kind: "setting" or "baseline".
        n: its seeds.
        warned: whether it has the mark of a setting with whose runs something is wrong.
    """

    label: str
    kind: str
    n: int
    cells: dict[str, Cell]
    warned: bool = False

    @property
    def empty(self) -> bool:
        """Whether there is no number in it: for people it is no row."""
        return not any(cell.interval.n for cell in self.cells.values())


def rows(table: Table) -> Iterator[Row]:
    """Settings, then baselines."""
    for label, cells in table.rows.items():
        yield Row(label, "setting", table.seeds[label], cells, label in table.warned)
    for label, cells in table.baselines.items():
        n = max((cell.interval.n for cell in cells.values()), default=0)
        yield Row(label, "baseline", n, cells)


def filled_rows(table: Table) -> list[Row]:
    """Those of `rows` that have a number."""
    return [row for row in rows(table) if not row.empty]


def name_of_row(row: Row) -> str:
    """A setting's label, or what a baseline is called."""
    return f"{row.label}{WARNED * row.warned}" if row.kind == "setting" else name_of(row.label)


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
        failed={
            **comparison.failed,
            **dict.fromkeys(comparison.missing, "missing or not finished"),
        },
        better=comparison.better,
        images=comparison.images,
        warned=_warned(comparison),
    )
    return table._replace(
        remarks=[*_few(table), *_unbeaten(table, comparison), *_rising(comparison)]
    )


def _column(comparison: Comparison, score: str, average: Average) -> dict[str, Cell]:
    """Cells of one score, by setting."""
    frame = wide(comparison.members, score, comparison.settings)
    better = comparison.better.get(score, "")
    cells = {s: _cell(comparison, score, frame[s].to_numpy(), average) for s in frame}
    if not comparable(frame, better):
        return cells
    best, tied, untested = best_of(frame, better, average=average)
    return {
        s: cell._replace(best=s == best, tied=s in tied, untested=s in untested)
        for s, cell in cells.items()
    }


def _cell(
    comparison: Comparison, score: str, values: Float[np.ndarray, " seed"], average: Average
) -> Cell:
    """Without marks."""
    found = interval(values, average=average, within=comparison.ranges.get(score, ANY))
    return Cell(found, seeds=tuple(values[np.isfinite(values)].tolist()))


def _warned(comparison: Comparison) -> dict[str, str]:
    """Setting -> what is wrong with how many of its runs."""
    found: dict[str, dict[str, int]] = {}
    settings = comparison.members["setting"]
    for member, warnings in comparison.warnings.items():
        of = found.setdefault(str(settings[member]), {})
        of |= {name: of.get(name, 0) + 1 for name in warnings}
    runs = settings.value_counts()
    return {
        setting: ", ".join(f"{name} ({n} of {runs[setting]} runs)" for name, n in of.items())
        for setting in comparison.settings
        if (of := found.get(setting))
    }


def _few(table: Table) -> Iterator[str]:
    """That seeds are too few for intervals."""
    few = sorted({n for n in table.seeds.values() if 0 < n < FEWEST})
    if few == [1]:
        yield "One seed of each setting: that they differ may be chance."
    elif few:
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
        yield f"No setting exceeds {name_of(name)} in {', '.join(map(name_of, scores))}."


def _rising(comparison: Comparison) -> Iterator[str]:
    """Settings whose training was not at its end, or of which one record cannot say."""
    rises: dict[str, list[str]] = {}
    for setting, names in comparison.members.groupby("setting", sort=False).groups.items():
        found = [rise_at_end(comparison.records.get(str(name), [])) for name in names]
        mean = float(np.mean([rise for rise, _ in found]))
        if math.isnan(mean):
            rises.setdefault("", []).append(str(setting))
        elif mean > 0:
            where = "between its last two records" if found[0][1] else "in its last tenth"
            size = f"{mean:.2g}" if mean < 100 else f"{mean:.0f}"
            rises.setdefault(where, []).append(f"{setting} by {size} nats")
    for where, listed in rises.items():
        more = [f"{len(listed) - 8} others"] if len(listed) > 9 else listed[8:]
        settings = ", ".join([*listed[:8], *more])
        if where:
            yield f"Training was not at its end: {where} the ELBO still rose for {settings}."
        else:
            yield f"Whether training was at its end, one record cannot say: {settings}."


def texts(table: Table, score: str, cell: Cell) -> tuple[str, str]:
    """The average, and in brackets the interval, or the seeds themselves if these are few.

    All numbers of a score have the same number of decimals: 3 where its averages are in [-1, 1], as
    those of most metrics, else 2.
    """
    if math.isnan(cell.interval.center):
        return NOTHING, ""
    centers = [abs(row.cells[score].interval.center) for row in rows(table)]
    decimals = 2 if any(center > 1 + ROUNDING for center in centers) else 3
    center, low, high, *seeds = (f"{x:z.{decimals}f}" for x in (*cell.interval[:3], *cell.seeds))
    if is_few(cell):
        return center, f"({', '.join(seeds)})"
    if math.isnan(cell.interval.low):
        return center, EQUAL if cell.interval.n > 1 else ""
    return center, f"[{low}, {high}]"


def is_few(cell: Cell) -> bool:
    """Whether a cell shows its seeds, which are too few for an interval."""
    return 1 < cell.interval.n < FEWEST and bool(cell.seeds)


def remark(cell: Cell, n: int) -> str:
    """Of how many seeds a cell is, where that is not the `n` of its row."""
    return f"(n = {cell.interval.n})" if 0 < cell.interval.n != n else ""


def explanation(table: Table, *, tied: str = "") -> list[str]:
    """What a reader must know of the numbers, a sentence each.

    Args:
        tied: what that mark looks like; empty where a legend explains the marks.
    """
    cells = [cell for row in table.rows.values() for cell in row.values()]
    interval = "its 95 % interval (Student's t with bootstrap standard errors)"
    average = AVERAGE_NAMES[table.average]
    few = f", of fewer than {FEWEST} the seeds themselves" if any(map(is_few, cells)) else ""
    said = [f"{average} over n seeds and {interval}{few}."]
    if max(table.seeds.values()) < FEWEST:
        said = [f"{average} over n seeds{'; in brackets the seeds' * bool(few)}."]
    if table.images:
        said.append(table.images)
    if any(cell.best for cell in cells):
        said += _marks_explained(table, tied)
        weighed = [name_of(s) for s in table.columns if s in WEIGHED and not table.better.get(s)]
        if weighed:
            said.append(f"No best in {', '.join(weighed)}: objectives weigh them.")
    if sum("total_correlation" in score for score in table.columns) > 1:
        said.append(
            "Two total correlations: of samples of z, a part of the KL; Gaussian, of the posterior "
            "means. They may go opposite ways as β grows."
        )
    if table.warned:
        listed = "; ".join(f"{setting}: {what}" for setting, what in table.warned.items())
        said.append(f"{WARNED.strip()}: {listed}.")
    return said


def _marks_explained(table: Table, tied: str) -> list[str]:
    """What the marks of the settings are; see `explanation`."""
    columns = zip(*(row.values() for row in table.rows.values()), strict=True)
    marked = [cell for column in columns if any(cell.best for cell in column) for cell in column]
    there = {cell.mark for cell in marked if cell.interval.n}  # "" is worse than the best
    of_what = "" if table.average == "mean" else " of means"
    tests = f"paired t tests{of_what}, Holm-corrected for all pairs, α = {ALPHA}"
    if not tied:
        return [f"Told apart by {tests}."] if there & {"tied", ""} else []
    marks = ["Bold: the best setting"]
    if "tied" in there:
        marks.append(f"{tied}: not told apart from it ({tests})")
    elif "" in there:
        marks.append(f"{TESTED if 'untested' in there else ALONE} ({tests})")
    if "untested" in there:
        marks.append(f"{DOUBT}: not tested, for it shares fewer than two seeds with the best")
    return [f"{'; '.join(marks)}."]


def to_frame(table: Table) -> pd.DataFrame:
    """A row for each setting and baseline.

    Columns `setting`, `kind` (setting or baseline), `n` (its seeds), and of each score its average
    `NAME`, `NAME_low`, `NAME_high`, `NAME_n`, `NAME_mark` (best, tied, untested or empty).
    """
    ends = ("", "_low", "_high", "_n", "_mark")
    names = {score: [score + end for end in ends] for score in table.columns}
    lines = []
    for row in rows(table):
        line: dict[str, Any] = {"setting": row.label, "kind": row.kind, "n": row.n}
        for score, cell in row.cells.items():
            line |= dict(zip(names[score], (*cell.interval, cell.mark), strict=True))
        lines.append(line)
    return pd.DataFrame(lines, columns=["setting", "kind", "n", *chain(*names.values())])


def to_markdown(table: Table) -> str:
    """A table in GitHub's Markdown, with its remarks above and below the line that explains it."""
    head = ["setting", "n", *map(markdown, table.headings)]
    above = f"{' '.join(map(markdown, table.remarks))}\n\n" if table.remarks else ""
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in filled_rows(table):
        shown = []
        for score, cell in row.cells.items():
            text = " ".join(filter(None, texts(table, score, cell)))
            text = f"**{text}**" if cell.best else text + r"\*" * cell.tied + DOUBT * cell.untested
            shown.append(f"{text} {remark(cell, row.n)}".strip())
        name = markdown(name_of_row(row)) + " (baseline)" * (row.kind == "baseline")
        lines.append([name, str(row.n), *shown])
    explained = explanation(table, tied=r"\*")
    reasons: dict[str, list[str]] = {}
    for member, why in table.failed.items():
        reasons.setdefault(why, []).append(f"`{member}`")
    if reasons:
        left_out = [f"{', '.join(names)} ({markdown(why)})" for why, names in reasons.items()]
        explained.append(f"Left out: {'; '.join(left_out)}.")
    body = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{above}{body}\n{' '.join(explained)}\n"


def markdown(text: str) -> str:
    """Text in one line with what Markdown would read as markup escaped."""
    # An underscore inside a word is none, and a bracket only where it makes a link.
    marks = r"([\\|*`$~&]|\](?=[(\[])|<(?=\S)|(?<!\w)_|_(?!\w))"
    return re.sub(marks, r"\\\1", " ".join(text.split()))


# LaTeX

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
    | {"↑": r"$\uparrow$", "↓": r"$\downarrow$", "²": "$^2$", "†": r"$\dagger$", "‡": r"$\ddagger$"}
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
        marked = "$^{*}$" * cell.tied + r"$^{\ddagger}$" * cell.untested
        center = rf"\textbf{{{center}}}" if cell.best else center + marked
        numbers = ends.split(", ") if ends else []
        below = [", ".join(numbers[i : i + beside]) for i in range(0, len(numbers), beside)]
        below = [part + "," for part in below[:-1]] + below[-1:]
        below += filter(None, [remark(cell, row.n)])
        columns.append([center, *(rf"{{\scriptsize {part}}}" for part in below)])
    lines = zip_longest(*columns, fillvalue="")
    return [rf"    {' & '.join(line)} \\" for line in lines]
