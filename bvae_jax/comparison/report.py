"""The report of a comparison: what one sends to somebody who was not there."""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

from bvae_jax.comparison.base import LEADING, Comparison, heading, is_metric, name_of
from bvae_jax.comparison.figures import Drawn
from bvae_jax.comparison.findings import ScoreStatistics
from bvae_jax.comparison.page import (
    HtmlCell,
    HtmlTable,
    Page,
    Section,
    bullets,
    code,
    figure,
    joined,
    number_cells,
    pairs_to_html,
    paragraph,
    titled,
    to_html,
)
from bvae_jax.comparison.rates import COLUMNS, NOTE, TITLE, cells, differences
from bvae_jax.comparison.reading import in_order
from bvae_jax.comparison.statistics import sentence
from bvae_jax.comparison.suggest import Suggestion, ranking_table
from bvae_jax.comparison.tables import Table, explanation, filled_rows, name_of_row, texts
from bvae_jax.config import Config
from bvae_jax.objectives import get_objective
from bvae_jax.runs import rundir
from bvae_jax.runs.grid import symbol, text
from bvae_jax.runs.sweepdir import SweepConfig

MOST_PAIRS = 15
"""Of settings that are compared one by one in words; of more, each with the best only."""
MOST_VALUES = 8
"""That a title lists."""
FIRST = {
    "matched_traversals": "The same latents in every setting",
    "rate_distortion": "Rate and distortion",
    "scores": "Scores",
    "factors": "Which factors are lost",
    "reconstructions": "Reconstructions",
}
"""Figures that are not folded away, and their sections."""
SHORT = 10  # characters of a commit


def make_report(
    comparison: Comparison,
    statistics: Mapping[str, ScoreStatistics],
    table: Table,
    shown: Table,
    drawn: Sequence[Drawn],
    suggestion: Suggestion | None,
    commands: Sequence[str],
    explorer: str = "",
) -> Page:
    """Everything that is known of a comparison, for `write_page`: what matters most comes first.

    Args:
        statistics: of the comparison's scores.
        table: of all scores.
        shown: of those that most readers want.
        suggestion: without labels; None where there is none.
        commands: that made the comparison.
        explorer: HTML of it.
    """
    sweeps, sessions = comparison.sweeps, _sessions(comparison)
    figures = {each.path.name: each for each in drawn}
    first = {name: figure(figures[name], titled=False) for name in FIRST if name in figures}
    folded = joined(figure(each) for name, each in figures.items() if name not in FIRST)
    versions = sessions[-1]["versions"] if sessions else {}
    versions = {name: version or "not installed" for name, version in versions.items()}
    typed = [*dict.fromkeys(_command(session["command"]) for session in sessions), *commands]
    sections = [
        *(Section(FIRST[name], first.get(name, "")) for name in list(FIRST)[:2]),
        Section(FIRST["scores"], joined([_scores("Scores", shown), first.get("scores", "")])),
        Section(FIRST["factors"], first.get("factors", "")),
        Section(FIRST["reconstructions"], first.get("reconstructions", "")),
        Section("Move the latents", explorer),
        Section(TITLE, _many_rates(comparison)),
        Section("Which setting to choose without labels", _suggested(suggestion)),
        Section("Left out and missing", _absent(comparison)),
        Section("All scores", _all_scores(table), folded=True),
        Section("More figures", folded, folded=True),
        Section("Statistics in words", _in_words(comparison, statistics), folded=True),
        Section("Members", to_html("Members", _table_of_members(comparison)), folded=True),
        Section("Configuration", _configuration(sweeps), folded=True),
        Section("Versions", pairs_to_html("Versions", "version", versions), folded=True),
        Section("Commands", joined(map(code, typed)), folded=True),
    ]
    return Page(
        title=title(sweeps),
        lead=lead(comparison, table),
        facts=_facts(comparison, sweeps, sessions),
        cautions=shown.remarks,
        sections=sections,
    )


def title(sweeps: Sequence[SweepConfig]) -> str:
    """What was trained on what, and what varies: "β-VAE on dSprites: β = 1, 4, 16"."""
    varied = varied_values(sweeps)
    objectives = varied.pop("objective", [sweeps[0].base.objective])
    varied.pop("seed", None)
    parts = [f"{symbol(name)} = {_few(list(map(text, values)))}" for name, values in varied.items()]
    what = f"{', '.join(map(name_of, objectives))} on {_dataset(sweeps[0].base.dataset)}"
    return ": ".join([what, *filter(None, ["; ".join(parts)])])


def _few(values: Sequence[str]) -> str:
    if len(values) <= MOST_VALUES:
        return ", ".join(values)
    return f"{values[0]} to {values[-1]} ({len(values)} values)"


def _dataset(name: str) -> str:
    """What a data set is called: one's own files by the name of their file or folder."""
    kind, _, place = name.partition(":")
    return place.rstrip("/").split("/")[-1] if place else name_of(kind)


def varied_values(sweeps: Sequence[SweepConfig]) -> dict[str, list[Any]]:
    """Field -> its values, of fields that a sweep varies and those in which sweeps differ."""
    names = dict.fromkeys(n for s in sweeps for n in (*s.base.to_dict(), *s.values))
    return {
        name: in_order(v for s in sweeps for v in s.values.get(name, [s.base.value(name)]))
        for name in names
        if any(name in s.values for s in sweeps) or len({s.base.value(name) for s in sweeps}) > 1
    }


def lead(comparison: Comparison, table: Table) -> str:
    """What was compared and what came out, in a paragraph."""
    seeds = len(set(comparison.members["seed"]))
    said = [
        f"{len(comparison.members)} runs of {len(comparison.settings)} settings, "
        f"{seeds} {'seed' if seeds == 1 else 'seeds'}."
    ]
    for score in [score for score in LEADING if score in comparison.scores]:
        best = [label for label, cells in table.rows.items() if cells[score].best]
        tied = [label for label, cells in table.rows.items() if cells[score].tied]
        if best:
            rest = len(table.rows) - 1
            others = "any other" if len(tied) == rest > 1 else "; ".join(tied)
            also = f"; these seeds cannot tell it from {others}" if tied else ""
            if untested := [name for name, cells in table.rows.items() if cells[score].untested]:
                also += f"; not tested against {'; '.join(untested)}"
            said.append(f"Best {name_of(score)}: {best[0]}{also}.")
    return " ".join(said)


def _facts(
    comparison: Comparison, sweeps: Sequence[SweepConfig], sessions: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """Date, code, data, training and the meaning of β, for a reader who was not there."""
    base, varied = sweeps[0].base, varied_values(sweeps)
    days = sorted({session["started"][:10] for session in sessions})
    commits = sorted({session["git_commit"] or "" for session in sessions})
    commits = [commit and commit[:SHORT] + "+changes" * ("+" in commit) for commit in commits]
    releases = sorted({str(s["versions"].get("bvae_jax")) for s in sessions})
    done, total = len(comparison.members), len(comparison.failed) + len(comparison.missing)
    fixed = [
        f"{name.replace('_', ' ')} {text(base.value(name))}"
        for name in ("network", "latents", "likelihood", "batch_size")
        if name not in varied
    ]
    seeds = sorted(set(comparison.members["seed"].tolist()))
    ends = dict.fromkeys(f"{of(comparison.members['step']):,.0f}" for of in (min, max))
    steps = f"{' to '.join(ends)} steps"
    trained = [
        ("Trained", f"{' to '.join(map(_day, [*days[:1], *days[1:][-1:]]))}, "
         f"on {', '.join(sorted({s['device'] for s in sessions}))}"),
        ("Code", f"bvae_jax {', '.join(releases)}, "
         f"commit {', '.join(commit or 'not recorded' for commit in commits)}"),
    ]  # fmt: skip
    return [
        *(trained if sessions else []),
        ("Data", _data_in_words(comparison, base, sessions)),
        ("Runs", f"{done} of {done + total} finished; seeds {_few(list(map(str, seeds)))}; "
         f"{', '.join([steps, *fixed])}"),
        *_losses(comparison, varied.get("objective", [base.objective])),
    ]  # fmt: skip


def _day(date: str) -> str:
    day = datetime.date.fromisoformat(date)
    return f"{day.day} {day:%B %Y}"


def _data_in_words(
    comparison: Comparison, base: Config, sessions: Sequence[Mapping[str, Any]]
) -> str:
    data = next((session["data"] for session in sessions[::-1] if "data" in session), {})
    said = [f"{name_of(base.dataset)}"]
    if {"images", "image_shape"} <= set(data):
        shape = "×".join(map(str, data["image_shape"]))
        said.append(f"{data['images']:,} images of {shape}, {data.get('holdout', 0):,} held out")
    if factors := ", ".join(map(str, comparison.factor_scores.columns)):
        said.append(f"factors {factors}")
    return "; ".join(said)


def _losses(comparison: Comparison, objectives: Sequence[str]) -> list[tuple[str, str]]:
    """What was minimised, and what β is."""
    losses = [f"{name_of(each)}: {get_objective(each).formula}" for each in objectives]
    found = [("Loss", f"{'; '.join(losses)}; nats per image, summed over its pixels")]
    rows = comparison.members
    if not any("beta" in get_objective(each).hyper for each in objectives):
        return found
    said = "the weight of the KL against −log p(x|z). At 1 the β-VAE's loss is the negative ELBO"
    if {"beta", "beta_norm"} <= set(rows):
        pairs = rows[["beta", "beta_norm"]].astype(float).dropna()  # no β weighs the KL of some
        norms = dict(zip(pairs["beta"], pairs["beta_norm"], strict=True))
        known = sorted(norms)
        ours, theirs = ([f"{x:{digits}}" for x in of] for digits, of in
                        (("g", known), (".2g", [norms[beta] for beta in known])))  # fmt: skip
        if known:
            said += (
                f". β = {_few(ours)} {'is' if len(ours) == 1 else 'are'} {_few(theirs)} in units "
                "of latents over pixels (β_norm, Higgins et al. 2017)"
            )
    return [*found, ("β", f"{said}.")]


def _scores(name: str, table: Table) -> str:
    """A table of settings and baselines."""
    filled = filled_rows(table)
    differ = len({row.n for row in filled if row.kind == "setting"}) > 1
    rows = [
        (
            name_of_row(row) + f" (n = {row.n})" * (differ and row.kind == "setting"),
            [_cell(table, row.cells, score) for score in table.columns],
        )
        for row in filled
    ]
    return to_html(name, HtmlTable(table.headings, rows, note=" ".join(explanation(table))))


def _all_scores(table: Table) -> str:
    """Scores of training apart from disentanglement metrics."""
    parts = {
        "Training": [score for score in table.columns if not is_metric(score)],
        "Disentanglement": [score for score in table.columns if is_metric(score)],
    }
    return joined(
        titled(name, _scores(name, _only(table, tuple(scores))))
        for name, scores in parts.items()
        if scores
    )


def _only(table: Table, columns: tuple[str, ...]) -> Table:
    rows, baselines = (
        {label: {score: cells[score] for score in columns} for label, cells in of.items()}
        for of in (table.rows, table.baselines)
    )
    return table._replace(columns=columns, rows=rows, baselines=baselines)


def _cell(table: Table, cells: Any, score: str) -> HtmlCell:
    cell = cells[score]
    centre, between = texts(table, score, cell)
    return HtmlCell(centre, cell.mark, title=f"n = {cell.interval.n}", below=between)


def _suggested(suggestion: Suggestion | None) -> str:
    """What `bvae suggest` says."""
    if suggestion is None:
        return ""
    rows = ranking_table(suggestion)
    columns = list(next(iter(rows.values()), {}))
    cells = [(name, [HtmlCell(text) for text in row.values()]) for name, row in rows.items()]
    return joined([
        paragraph(suggestion.headline()),
        bullets(suggestion.reasons),
        to_html("Settings by UDR", HtmlTable(columns, cells)),
        titled("Cautions", bullets(suggestion.cautions)),
    ])  # fmt: skip


def _many_rates(comparison: Comparison) -> str:
    """At each β that runs for many share with the sweep, how far they are from it."""
    rows = [
        (f"β = {of[0]}", [HtmlCell(cell) for cell in of[1:]])
        for of in cells(differences(comparison))
    ]
    note = f"Nats per image; {NOTE}."
    return to_html(TITLE, HtmlTable([*COLUMNS[1:]], rows, note=note)) if rows else ""


def _in_words(comparison: Comparison, statistics: Mapping[str, ScoreStatistics]) -> str:
    """Paired tests of every score."""
    if len(comparison.settings) < 2:
        return ""
    return joined(
        titled(name_of(score), bullets(_sentences(found))) for score, found in statistics.items()
    )


def _sentences(found: ScoreStatistics) -> list[str]:
    tests = found.pairs
    if len(tests) > MOST_PAIRS and found.best:
        tests = [test for test in tests if found.best in (test.a, test.b)]
    return [sentence(test, name_of(found.score)) for test in tests]


def _sessions(comparison: Comparison) -> list[dict[str, Any]]:
    """In which members were trained, the oldest first."""
    sessions = []
    for directory in {rundir.of_beta(path)[0] for path in comparison.run_dirs.values()}:
        sessions += rundir.read_sessions(directory)
    return sorted(sessions, key=lambda session: session["started"])


def _command(argv: Sequence[str]) -> str:
    return " ".join(["bvae" if argv[0].endswith(("bvae", "cli.py")) else argv[0], *argv[1:]])


def _absent(comparison: Comparison) -> str:
    reasons = pairs_to_html("Left out", "reason", comparison.failed)
    return joined([reasons, titled("Not finished", bullets(comparison.missing, "names"))])


def _table_of_members(comparison: Comparison) -> HtmlTable:
    rows, scores = comparison.members, comparison.scores
    fields = [*comparison.varied, "seed"]
    columns = [_values(rows[field].tolist()) for field in fields]
    columns += [number_cells(rows[score].astype(float).tolist()) for score in scores]
    columns += [[HtmlCell(str(comparison.run_dirs[name]), "words") for name in rows.index]]
    names = [symbol(field) for field in fields]
    names += [heading(score, comparison.better.get(score, "")) for score in scores]
    cells = zip(*columns, strict=True)
    return HtmlTable([*names, "directory"], list(zip(map(str, rows.index), cells, strict=True)))


def _values(values: Sequence[Any]) -> list[HtmlCell]:
    """Of a field: numbers, so that they are sorted as such, or words."""
    numbers = all(isinstance(value, int | float) for value in values)
    return [HtmlCell(text(value), "" if numbers else "words") for value in values]


def _configuration(sweeps: Sequence[SweepConfig]) -> str:
    varied, config = varied_values(sweeps), sweeps[0].base.to_dict()
    values = {name: ", ".join(map(_value, some)) for name, some in varied.items()}
    rest = {name: _value(value) for name, value in config.items() if name not in varied}
    return joined([
        titled("Varied", pairs_to_html("Varied", "values", values)),
        titled("Shared by all members", pairs_to_html("Shared by all members", "value", rest)),
    ])  # fmt: skip


def _value(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
