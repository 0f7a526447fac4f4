"""`bvae compare` from Python: sweeps in, the paper's table and figures out."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import pandas as pd

from bvae_jax.comparison.base import Comparison, default_scores, find_scores, known_scores
from bvae_jax.comparison.figures import draw_comparison
from bvae_jax.comparison.findings import (
    ScoreStatistics,
    kept,
    kept_in_words,
    statistics_json,
    statistics_of,
    statistics_text,
)
from bvae_jax.comparison.matching import (
    Crossed,
    cross_traversals,
    representatives,
    typical_seed,
)
from bvae_jax.comparison.page import write_page
from bvae_jax.comparison.rates import differences, differences_text, more_varied
from bvae_jax.comparison.reading import EvaluationSettings, read_comparison
from bvae_jax.comparison.report import make_report
from bvae_jax.comparison.statistics import AVERAGES, Average
from bvae_jax.comparison.suggest import Suggestion, of_comparison
from bvae_jax.comparison.tables import (
    WIDTHS,
    Table,
    latex,
    make_table,
    markdown,
    to_frame,
    to_latex,
    to_markdown,
)
from bvae_jax.config import ScoreConfig
from bvae_jax.errors import UserError, say
from bvae_jax.evaluation.elbo import check_settings
from bvae_jax.files import write_json, write_text
from bvae_jax.metrics.scoring import metric_names
from bvae_jax.runs import rundir
from bvae_jax.runs.encode import same_images
from bvae_jax.runs.grid import symbol
from bvae_jax.runs.loggers import send_comparison
from bvae_jax.runs.run import Run, load_shared
from bvae_jax.runs.trainer import Trainers
from bvae_jax.runtime import bar

REPORT = "report.html"
PICTURES = 8
"""Images that are reconstructed."""
IN_REPORT = 4_000_000
"""Characters of an explorer that becomes a part of the report."""


class Compared(NamedTuple):
    """A comparison, and the files that it left.

    Attributes:
        comparison: `comparison.members` is a pandas.DataFrame, a row for each member.
        scores: averages of the settings and of baselines, with their intervals and marks.
        shown: the columns of it that table.md, table.tex and the report have.
        files: tables, statistics, figures (PNG and PDF) and the report.
        statistics: score -> what its seeds tell.
    """

    comparison: Comparison
    scores: Table
    shown: Table
    files: list[Path]
    statistics: Mapping[str, ScoreStatistics]

    @property
    def table(self) -> pd.DataFrame:
        """A row for each setting, by its label; columns as of `to_frame`, without `kind`."""
        frame = to_frame(self.scores)
        return frame[frame["kind"] == "setting"].drop(columns="kind").set_index("setting")


def compare(
    *sweep_dirs: str | Path,
    metrics: ScoreConfig | str | Sequence[str] = ScoreConfig(metrics="fast"),
    num_points: int = 50_000,
    decomposition: int = 1000,
    baselines: bool = True,
    average: str = "mean",
    columns: str = "",
    width: str = "column",
    out: str | Path | None = None,
    figures: bool = True,
    commands: Sequence[str] = (),
    progress: bool = True,
) -> Compared:
    """Compare the members of sweeps: evaluate those that are not, write tables, figures, a report.

    Args:
        sweep_dirs: of one sweep or more, on the same data set.
        metrics: their names, in a list or with commas, or all that a `ScoreConfig` says; `udr`
            is left to `suggest`.
        num_points: images to encode of each member, at most all.
        decomposition: draws of z to take each member's KL apart; 0: do not.
        baselines: score other representations alike.
        average: over seeds, "mean" or "iqm".
        columns: scores in table.md, table.tex, the scores figure and the report's first table, with
            commas, as nll,kl,mig,dci; six at most if empty. Everything is in table.csv.
        width: of table.tex, "column" or "page" (table*).
        out: directory for all that is written; the first sweep's if None.
        figures: draw figures and write the report.
        commands: that made the comparison, for the report.

    Raises:
        UserError: a directory holds no sweep, no member is done, or settings do not fit.
        KeyboardInterrupt: after Ctrl-C; what was evaluated is kept.
    """
    if average not in AVERAGES:
        raise UserError(f"--average: got {average!r}, wanted {' or '.join(AVERAGES)}.")
    averaged = cast(Average, average)
    score = ScoreConfig.of(metrics)
    names = [name for name in metric_names(score.metrics) if name != "udr"]
    if not names:
        raise UserError("--metrics udr: bvae suggest does that. Wanted other metrics here.")
    if width not in WIDTHS:
        raise UserError(f"--width: got {width!r}, wanted {' or '.join(WIDTHS)}.")
    typed = [name.strip() for name in columns.split(",") if name.strip()]
    chosen = find_scores(typed, known_scores(names), "--columns") if columns else ()
    if not sweep_dirs:
        raise UserError("Wanted the directory of a sweep, or of several.")
    check_settings(decomposition, 0, 2)
    directories = [Path(path).expanduser() for path in sweep_dirs]
    settings = EvaluationSettings(
        dataclasses.replace(score, metrics=",".join(names)), num_points, decomposition, baselines
    )
    trainers = Trainers()
    comparison = read_comparison(directories, settings, trainers, progress=progress)
    if others := ", ".join(more_varied(comparison)):
        say(f"note: no differences in nats from runs for many β: {others} differ, too.")
    absent = len(comparison.missing) + len(comparison.failed)
    if absent:
        total = absent + len(comparison.members)
        say(f"note: {absent} of {total} members are left out: table.md says why.")
    directory = Path(out).expanduser() if out else directories[0]
    directory.mkdir(parents=True, exist_ok=True)
    table = make_table(comparison, averaged)
    shown = make_table(dataclasses.replace(comparison, scores=_shown(comparison, chosen)), averaged)
    files = write_tables(table, shown, directory, comparison.varied, width)
    statistics = statistics_of(comparison, averaged)
    files += _write_statistics(comparison, statistics, directory)
    if figures:
        suggestion = _suggestion(comparison, trainers, progress)
        with bar(total=3, desc="figures", disable=not progress) as done:
            runs = one_run_each(comparison, trainers)
            pictures = cross(comparison, runs), reconstructions(runs)
            done.update(1)
            drawn = draw_comparison(
                comparison, statistics, directory / "figures", averaged, shown.columns, *pictures
            )
            done.update(1)
            page = make_report(
                comparison, statistics, table, shown, drawn, suggestion, commands,
                explorer_section(comparison, trainers, directory),
            )  # fmt: skip
            write_page(directory / REPORT, page)
            done.update(1)
        files += [*(path for each in drawn for path in each.files), directory / REPORT]
    if project := _wandb_project(comparison):
        texts = [path for path in files if path.parent == directory]
        send_comparison(project, directories[0], texts)
    return Compared(comparison, table, shown, files, statistics)


def _wandb_project(comparison: Comparison) -> str | None:
    """Where members were logged when they were trained last."""
    trained = (rundir.of_beta(path)[0] for path in comparison.run_dirs.values())
    sessions = (rundir.read_sessions(path)[-1:] for path in trained)
    found = (one.get("sweep", {}).get("wandb") for last in sessions for one in last)
    return next(filter(None, found), None)


def _shown(comparison: Comparison, chosen: Sequence[str]) -> tuple[str, ...]:
    """The chosen columns that are there, or those of a paper's table."""
    for name in chosen:
        if name not in comparison.scores:
            say(f"note: --columns: no member has {name}.")
    there = tuple(name for name in chosen if name in comparison.scores)
    return there or default_scores(comparison.scores)


def _suggestion(comparison: Comparison, trainers: Trainers, progress: bool) -> Suggestion | None:
    try:
        return of_comparison(comparison, trainers, progress=progress)
    except UserError as error:
        say(f"note: no setting is suggested: {error}")
        return None


def explorer_section(comparison: Comparison, trainers: Trainers, directory: Path) -> str:
    """The explorer as a part of the report, or a link to its own file; "" where there is none."""
    from bvae_jax.explore.export import FILE, of_comparison

    (directory / FILE).unlink(missing_ok=True)
    try:
        found = of_comparison(comparison, trainers)
    except UserError as error:
        say(f"note: there is no explorer: {error}")
        return ""
    if len(found.html) <= IN_REPORT:
        return found.frame()
    found.write(directory / FILE)
    return f'<p><a href="{FILE}">Open the explorer</a>: move the latents of each setting.</p>'


def one_run_each(comparison: Comparison, trainers: Trainers) -> dict[str, Run]:
    """A run of each setting, by its member: of the seed nearest to their means, if all have one.

    Empty where one of them cannot be loaded, or where settings have different images.
    """
    chosen = representatives(comparison, typical_seed(comparison))
    try:
        runs = {m: load_shared(comparison.run_dirs[m], trainers) for m in chosen.values()}
    except UserError as error:
        say(f"there are no matched traversals: {error}")
        return {}
    first, *_ = runs.values()
    return runs if all(same_images(first.trainer, run.trainer) for run in runs.values()) else {}


def cross(comparison: Comparison, runs: Mapping[str, Run]) -> Crossed | None:
    """Matched traversals of `one_run_each`; None of no run."""
    if not runs:
        return None
    kl = [comparison.kl_per_latent.get(member) for member in runs]
    return cross_traversals(list(runs.values()), kl)


def reconstructions(runs: Mapping[str, Run]) -> np.ndarray | None:
    """Held-out images, then what each run makes of them: [1 + run, image, h, w, c]."""
    if not runs:
        return None
    trainer = next(iter(runs.values())).trainer
    indices = list(dict.fromkeys(trainer.eval_indices.ravel().tolist()))[:PICTURES]
    images = np.asarray(trainer.images(np.array(indices)))
    return np.stack([images, *(np.asarray(run.reconstruct(images)) for run in runs.values())])


def _write_statistics(
    comparison: Comparison, statistics: Mapping[str, ScoreStatistics], directory: Path
) -> list[Path]:
    """statistics.md in words, statistics.json in numbers."""
    words, numbers = directory / "statistics.md", directory / "statistics.json"
    lost = kept_in_words(kept(comparison), "".join(comparison.varied[:1]))
    factors = f"## Factors\n\n{markdown(lost)}\n\n" if lost else ""
    many_rates = differences_text(differences(comparison))
    write_text(words, statistics_text(statistics.values()) + factors + many_rates)
    write_json(numbers, statistics_json(comparison, statistics))
    return [words, numbers]


def write_tables(
    table: Table, shown: Table, directory: Path, varied: Sequence[str], width: str = "column"
) -> list[Path]:
    """Write table.csv, table.md and table.tex.

    Args:
        table: of all scores, for the CSV.
        shown: of those that people read.
        varied: fields in which settings differ, for the caption.
        width: of the LaTeX, one of `WIDTHS`.
    """
    paths = [directory / f"table.{suffix}" for suffix in ("csv", "md", "tex")]
    directory.mkdir(parents=True, exist_ok=True)
    names = latex(", ".join(map(symbol, varied)))
    title = f"Scores by {names}." if names else "Scores."
    tex = to_latex(shown, caption=title, label="tab:scores", width=width)
    write_text(paths[0], to_frame(table).to_csv(index=False))
    write_text(paths[1], to_markdown(shown))
    write_text(paths[2], tex)
    return paths
