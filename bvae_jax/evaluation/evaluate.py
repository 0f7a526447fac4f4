"""Scores of a run, kept in its directory, and of a file."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bvae_jax.config import ScoreConfig
from bvae_jax.continuous import NONE
from bvae_jax.errors import UserError, say
from bvae_jax.evaluation.answers import Answers, identity, stored_identity
from bvae_jax.evaluation.baselines import random_codes, run_baselines, true_factors
from bvae_jax.evaluation.figures import draw_score_figures
from bvae_jax.evaluation.generalisation import mixing, pairs_of
from bvae_jax.metrics import METRICS
from bvae_jax.metrics.base import active
from bvae_jax.metrics.codes import SCALE, Codes, read_codes
from bvae_jax.metrics.scoring import (
    PACKAGES,
    Entry,
    jsonable,
    metric_names,
    remark,
    score_all,
    source_of,
)
from bvae_jax.runs.checkpoint import fingerprint
from bvae_jax.runs.encode import codes_to_score, encode_run, of_split, point_count, same_images
from bvae_jax.runs.run import Run, loaded
from bvae_jax.runs.trainer import NO_POSTERIOR
from bvae_jax.runtime import bar, versions

EVALUATION = "evaluation.json"
"""Of all images; see `of_split`."""


def evaluate(
    run: Run | str | Path,
    metrics: ScoreConfig | str | Sequence[str] = ScoreConfig(),
    *,
    num_points: int | None = None,
    baselines: bool = False,
    step: int | None = None,
    dataset: str | None = None,
    udr_with: Sequence[str | Path] = (),
    figures: bool = True,
    progress: bool = True,
) -> dict[str, Entry]:
    """Score a run; leave evaluation.json (or evaluation-SPLIT.json) and figures in its directory.

    Each metric's scores are on disk as soon as they are there, and those that are there already,
    of the same parameters, settings and versions, are not computed again.

    Args:
        run: its directory, or what `load` returned.
        metrics: their names, in a list or with commas, or all that a `ScoreConfig` says: on how
            many points, how often.
        num_points: images to encode; the whole data set if None.
        baselines: score other representations of the same points alike: random codes, the true
            factors, the untrained encoder, PCA, ICA and raw pixels.
        step: of the checkpoint to take from a directory; the newest if None.
        dataset: where the images of a directory's run are now, as for `load`.
        udr_with: other runs on the same data, with different seeds, for udr.
        figures: draw figures in run_dir/figures.

    Returns:
        name of the metric -> scores, or {"skipped": why}.

    Raises:
        UserError: no run, no checkpoint, no factors, or settings that do not fit.
        KeyboardInterrupt: after Ctrl-C; what was computed is kept.
    """
    asked = ask(
        run, metrics, num_points=num_points, baselines=baselines, step=step, dataset=dataset,
        udr_with=udr_with, progress=progress,
    )  # fmt: skip
    entries = asked.scored(progress=progress)
    if figures:
        draw_score_figures(asked.answers.path.parent / "figures", entries, asked.points)
    return entries


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a run is to be scored by, without the run, so that another process can do it.

    Attributes:
        points: its codes.
        baselines: other representations of the same points.
        config: how to score.
        wanted: names of metrics.
        missing: of these, which are not on disk.
        answers: those that are.
        request: what entries depend on.
        correlated: the run's `--correlate`, where codes are of all images.
    """

    points: Codes
    baselines: dict[str, Codes]
    config: ScoreConfig
    wanted: tuple[str, ...]
    missing: tuple[str, ...]
    answers: Answers
    request: Entry
    correlated: str

    def scored(self, *, progress: bool = False) -> dict[str, Entry]:
        """See `evaluate`. Each metric's scores are on disk as soon as they are there."""
        if self.missing:
            rest = dataclasses.replace(self.config, metrics=",".join(self.missing))
            for name, entry in _scored(self.points, rest, self.baselines, progress):
                if name == "mig" and self.correlated and "mutual_information" in entry:
                    entry |= {"mixing": self._mixing(entry["mutual_information"])}
                self.answers.put(name, entry, self.request | source_of(name))
        return {name: self.answers.entries[name] for name in self.wanted}

    def _mixing(self, matrix: list[list[float]]) -> Entry:
        used = active(self.points.codes, self.points.kl)
        pairs = pairs_of(self.correlated)
        return jsonable(mixing(np.array(matrix, float), self.points.names(), pairs, used))


def ask(
    run: Run | str | Path, metrics: ScoreConfig | str | Sequence[str], *,
    num_points: int | None, baselines: bool = False, step: int | None = None,
    dataset: str | None = None, udr_with: Sequence[str | Path] = (), progress: bool,
) -> Asked:  # fmt: skip
    """What `evaluate` does of the same arguments before it scores: codes, and what is on disk."""
    config = ScoreConfig.of(metrics)
    _check_metrics(config, udr_with)
    run = loaded(run, step, dataset, progress)
    directory, data = run.run_dir, run.trainer.dataset
    if not data.factor_names:
        raise UserError(
            f"{data.name} has no factors to score by: wanted --metrics none (in Python "
            "bvae_jax.evaluate_elbo), which takes the ELBO apart, or bvae suggest for the seeds "
            "of a sweep."
        )
    if (step := int(run.state.step)) < run.config.steps:
        say(f"note: {directory} is not finished: scores are of step {step} of {run.config.steps}.")
    count = point_count(data, run.config, config.split, num_points)
    others = [loaded(other, None, None, progress) for other in udr_with]
    for other in others:
        if not same_images(run.trainer, other.trainer, config.split):
            raise UserError(
                f"--udr-with {other.run_dir}: got a run whose images ({config.split}) are not "
                f"those of {directory}, wanted the same: compare --dataset, --only and the split "
                "of both."
            )
    points = _codes(run, count, config.split, progress)
    if config.split == "correlated" and points.indices is not None:
        say(
            f"note: --split correlated: {count:,} draws by --correlate {run.config.correlate} from "
            f"all images, {len(np.unique(points.indices)):,} different ones."
        )
    if others:
        fewer = min(count, config.train_points)
        points = _with_runs(
            points, [_codes(each, fewer, config.split, progress) for each in (run, *others)]
        )
    if not run.variational:
        say(f"note: {NO_POSTERIOR}. They are scored {SCALE}.")
    points = points.declared(config.continuous)
    remark(points, metric_names(config.metrics))
    request = identity(run) | {
        "num_points": count,
        **_settings(config, points.continuous),
        "baselines": baselines,
        "udr_with": [fingerprint(other.params) for other in others],
        "factor_names": list(data.factor_names),
    }
    answers = _scores_of(directory, config.split, request["params_sha256"])
    wanted = metric_names(config.metrics)
    missing = tuple(n for n in wanted if answers.get(n, request | source_of(n)) is None)
    made = {}
    if missing:
        _say_what_is_replaced(answers, missing)
        if baselines:
            most = min(count, config.train_points + config.test_points)
            options = {"split": config.split, "progress": progress}
            made = run_baselines(run.trainer, run.config, most, **options)
    correlated = run.config.correlate if config.split == "all" else ""
    return Asked(points, made, config, wanted, missing, answers, request, correlated)


def stored_scores(run_dir: Path, config: ScoreConfig, num_points: int) -> dict[str, Entry] | None:
    """What `evaluate` without baselines would return, if it is there; reads two small files.

    Args:
        config: with all factors in `continuous` that are numbers, as `continuous.in_words`.
        num_points: images that were encoded.
    """
    request = stored_identity(run_dir) | {
        "num_points": num_points,
        **_settings(config, "" if config.continuous == NONE else config.continuous),
        "baselines": False,
    }
    answers = _scores_of(run_dir, config.split, request["params_sha256"])
    names = metric_names(config.metrics)
    found = {name: answers.get(name, request | source_of(name)) for name in names}
    entries = {name: entry for name, entry in found.items() if entry is not None}
    return entries if len(entries) == len(found) else None


def _codes(run: Run, count: int, split: str, progress: bool) -> Codes:
    options = {"split": split, "progress": progress}
    encoded = encode_run(run.run_dir, run.trainer, run.params, count, **options)
    return codes_to_score(run.trainer, encoded, split)


def _settings(config: ScoreConfig, continuous: str) -> dict[str, Any]:
    """What a score depends on of what is asked for, whichever metric it is of.

    Args:
        continuous: the factors that are numbers, as `continuous.in_words`; "" for none.
    """
    return dataclasses.asdict(dataclasses.replace(config, metrics="", continuous=continuous))


def _scores_of(run_dir: Path, split: str, params_sha256: str) -> Answers:
    """The scores of these parameters that are on disk."""
    answers = Answers(run_dir / of_split(EVALUATION, split), fits=_fits, order=tuple(METRICS))
    answers.entries = answers.of_params(params_sha256)
    return answers


def _fits(entry: Entry, request: Entry) -> bool:
    """Whether scores are what is asked for.

    One repeat is the first of however many, and baselines that nobody asked for do no harm. What
    could not be scored cannot be now.
    """
    had, free = ScoreConfig().__dict__ | entry["request"], ("repeats", "baselines")
    return (
        entry.get("versions") == versions(PACKAGES)
        and all(had.get(name) == value for name, value in request.items() if name not in free)
        and request["repeats"] in (1, had.get("repeats"))
        and (had.get("baselines") or not request["baselines"])
    )


def _say_what_is_replaced(answers: Answers, names: Sequence[str]) -> None:
    """Scores of the same parameters under other settings: they may have cost something."""
    had = answers.entries
    replaced = [name for name in names if name in had and "skipped" not in had[name]]
    if replaced:
        say(f"{answers.path}: scores under other settings are replaced: {', '.join(replaced)}.")


def score_file(
    path: str | Path,
    metrics: ScoreConfig | str | Sequence[str] = ScoreConfig(),
    *,
    baselines: bool = False,
    udr_with: Sequence[str | Path] = (),
    figures: str | Path | None = None,
    progress: bool = True,
) -> dict[str, Entry]:
    """Score codes from any framework: the arrays of an .npz file.

    Args:
        path: the file; see `codes_file.FIELDS` for its keys.
        metrics: their names, in a list or with commas, or all that a `ScoreConfig` says: on how
            many points, how often.
        baselines: score random codes and the true factors alike.
        udr_with: files of other runs, with the same points in the same order, for `udr`.
        figures: directory to draw them in; none if None.

    Returns:
        name of the metric -> scores, or {"skipped": why}.

    Raises:
        UserError: the file is damaged, or its arrays do not fit.
    """
    config = ScoreConfig.of(metrics)
    if config.split != "all":
        raise UserError(f"--split: got {config.split}, but a file has no splits: leave it out.")
    _check_metrics(config, udr_with)
    file = Path(path).expanduser()
    points = read_codes(file, config.continuous)
    if udr_with:
        others = [read_codes(Path(other).expanduser(), config.continuous) for other in udr_with]
        for other, theirs in zip(udr_with, others, strict=True):
            if not np.array_equal(theirs.factors, points.factors):
                raise UserError(
                    f"--udr-with {other}: its factors are not those of {path}, wanted codes of the "
                    "same points in the same order."
                )
        points = _with_runs(points, [points, *others])
    made = {}
    if baselines:  # those that need no images
        made = {"random_codes": random_codes(points), "true_factors": true_factors(points)}
    remark(points, metric_names(config.metrics))
    request = {
        "file": str(path),
        "file_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        **_settings(config, points.continuous),
        "baselines": baselines,
        "udr_with": [str(other) for other in udr_with],
        "factor_names": points.names(),
    }
    scored = _scored(points, config, made, progress)
    entries = {name: entry | {"request": request} for name, entry in scored}
    if figures is not None:
        draw_score_figures(Path(figures).expanduser(), entries, points)
    return entries


def _check_metrics(config: ScoreConfig, udr_with: Sequence[Any]) -> None:
    """Find now what would go wrong after minutes of scoring."""
    if isinstance(udr_with, str | Path):
        raise UserError(f"--udr-with: got {str(udr_with)!r}, wanted a list of others.")
    if metric_names(config.metrics) == ("udr",) and not udr_with:
        raise UserError("--metrics udr: it compares runs, give the others by --udr-with.")


def _with_runs(points: Codes, runs: Sequence[Codes]) -> Codes:
    """With the codes of several runs for the same images, and their KLs where they are known."""
    return dataclasses.replace(
        points,
        codes_of_runs=[run.codes for run in runs],
        kl_of_runs=[run.kl for run in runs],
    )


def _scored(
    points: Codes,
    config: ScoreConfig,
    baselines: dict[str, Codes],
    progress: bool,
) -> Iterator[tuple[str, Entry]]:
    """`score_all` under a progress bar."""
    names = metric_names(config.metrics)
    each = config.repeats + len(baselines)
    total = len(names) * each
    with bar(total=total, desc="score", unit=" scores", disable=not progress) as shown:
        shown.set_postfix_str(names[0])
        scores = score_all(points, config, baselines=baselines, on_done=lambda: shown.update(1))
        for position, (name, entry) in enumerate(scores, 1):
            shown.update(position * each - shown.n)  # what was skipped is done, too
            shown.set_postfix_str(" ".join(names[position : position + 1]))
            yield name, entry
