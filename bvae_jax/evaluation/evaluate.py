"""Scores and ELBO of a run, kept in its directory, and scores of a file."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bvae_jax.config import ScoreConfig
from bvae_jax.continuous import NONE
from bvae_jax.errors import UserError, say
from bvae_jax.evaluation.answers import Answers
from bvae_jax.evaluation.baselines import random_codes, run_baselines, true_factors
from bvae_jax.evaluation.decomposition import decompose
from bvae_jax.evaluation.figures import draw_score_figures
from bvae_jax.evaluation.generalisation import IMAGES, SPLITS, generalisation, mixing, pairs_of
from bvae_jax.evaluation.log_likelihood import FEW, held_out_log_likelihood
from bvae_jax.files import read_json
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
from bvae_jax.runs import rundir
from bvae_jax.runs.checkpoint import fingerprint
from bvae_jax.runs.encode import codes_to_score, encode_run, of_split, point_count, same_images
from bvae_jax.runs.run import Run, load
from bvae_jax.runs.trainer import NO_POSTERIOR, eval_split
from bvae_jax.runtime import bar, versions
from bvae_jax.types import key_for

EVALUATION, ELBO = "evaluation.json", "elbo.json"
"""Of all images; see `of_split`."""


# Scores


def evaluate(
    run: Run | str | Path,
    config: ScoreConfig | str | Sequence[str] = ScoreConfig(),
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
        config: which metrics, on how many points, how often; or names of metrics, in a list or with
            commas.
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
    config = ScoreConfig.of(config)
    _check_metrics(config, udr_with)
    run = _loaded(run, step, dataset, progress)
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
    others = [_loaded(other, None, None, progress) for other in udr_with]
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
    request = _identity(run) | {
        "num_points": count,
        **_settings(config, points.continuous),
        "baselines": baselines,
        "udr_with": [fingerprint(other.params) for other in others],
        "factor_names": list(data.factor_names),
    }
    answers = _scores_of(directory, config.split, request["params_sha256"])
    wanted = metric_names(config.metrics)
    missing = [n for n in wanted if answers.get(n, request | source_of(n)) is None]
    if missing:
        most = min(count, config.train_points + config.test_points)
        _say_what_is_replaced(answers, missing)
        made = {}
        if baselines:
            options = {"split": config.split, "progress": progress}
            made = run_baselines(run.trainer, run.config, most, **options)
        rest = dataclasses.replace(config, metrics=",".join(missing))
        for name, entry in _scored(points, rest, made, progress):
            mixed = name == "mig" and run.config.correlate and config.split == "all"
            if mixed and "mutual_information" in entry:
                matrix, pairs = entry["mutual_information"], pairs_of(run.config.correlate)
                used = active(points.codes, points.kl)
                found = mixing(np.array(matrix, float), data.factor_names, pairs, used)
                entry |= {"mixing": jsonable(found)}
            answers.put(name, entry, request | source_of(name))
    asked = {name: answers.entries[name] for name in wanted}
    if figures:
        draw_score_figures(directory / "figures", asked, points)
    return asked


def stored_scores(run_dir: Path, config: ScoreConfig, num_points: int) -> dict[str, Entry] | None:
    """What `evaluate` without baselines would return, if it is there; reads two small files.

    Args:
        config: with all factors in `continuous` that are numbers, as `continuous.in_words`.
        num_points: images that were encoded.
    """
    request = _stored_identity(run_dir) | {
        "num_points": num_points,
        **_settings(config, "" if config.continuous == NONE else config.continuous),
        "baselines": False,
    }
    answers = _scores_of(run_dir, config.split, request["params_sha256"])
    names = metric_names(config.metrics)
    found = {name: answers.get(name, request | source_of(name)) for name in names}
    entries = {name: entry for name, entry in found.items() if entry is not None}
    return entries if len(entries) == len(found) else None


def _loaded(run: Run | str | Path, step: int | None, dataset: str | None, progress: bool) -> Run:
    """A run, from its directory if it is not loaded yet."""
    if isinstance(run, str | Path):
        run = load(run, step=step, dataset=dataset, progress=progress)
    return run


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


def _identity(run: Run) -> dict[str, Any]:
    """What a run's results depend on, of the run."""
    scaled = {} if run.variational else {"codes": SCALE}
    return {"step": int(run.state.step), "params_sha256": fingerprint(run.params)} | scaled


def _stored_identity(run_dir: Path) -> dict[str, Any]:
    """The same of a finished run, which is not loaded."""
    summary: rundir.Summary = read_json(run_dir / rundir.SUMMARY, rundir.Summary)
    scaled = {} if "kl" in summary else {"codes": SCALE}
    return {"step": summary["step"], "params_sha256": summary["params_sha256"]} | scaled


def _scores_of(run_dir: Path, split: str, params_sha256: str) -> Answers:
    """The scores of these parameters that are on disk."""
    answers = Answers(run_dir / of_split(EVALUATION, split), fits=_fits, order=METRICS)
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


def _say_what_is_replaced(answers: Answers, names: list[str]) -> None:
    """Scores of the same parameters under other settings: they may have cost something."""
    had = answers.entries
    replaced = [name for name in names if name in had and "skipped" not in had[name]]
    if replaced:
        say(f"{answers.path}: scores under other settings are replaced: {', '.join(replaced)}.")


def score_file(
    path: str | Path,
    config: ScoreConfig | str | Sequence[str] = ScoreConfig(),
    *,
    baselines: bool = False,
    udr_with: Sequence[str | Path] = (),
    figures: str | Path | None = None,
    progress: bool = True,
) -> dict[str, Entry]:
    """Score codes from any framework: the arrays of an .npz file.

    Args:
        path: the file; see `codes_file.FIELDS` for its keys.
        config: which metrics, on how many points, how often; or names of metrics, in a list or with
            commas.
        baselines: score random codes and the true factors alike.
        udr_with: files of other runs, with the same points in the same order, for `udr`.
        figures: directory to draw them in; none if None.

    Returns:
        name of the metric -> scores, or {"skipped": why}.

    Raises:
        UserError: the file is damaged, or its arrays do not fit.
    """
    config = ScoreConfig.of(config)
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


# ELBO


def evaluate_elbo(
    run: Run | str | Path,
    decomposition: int = 1000,
    log_likelihood: int = 0,
    images: int = 64,
    *,
    num_points: int | None = None,
    split: str = "all",
    step: int | None = None,
    dataset: str | None = None,
    progress: bool = True,
) -> dict[str, Entry]:
    """Take a run's KL apart and estimate log p(x); leave elbo.json (or elbo-SPLIT.json) there.

    What is there already, of the same parameters and settings, is not computed again.

    Args:
        run: its directory, or what `load` returned.
        decomposition: draws of z to take the KL apart: mutual information, total correlation and
            dimension-wise KL against the aggregate posterior of all encoded images; 0 for none.
        log_likelihood: importance samples for each image to estimate log p(x), as 5000; 0 for none.
        images: held-out images for the log-likelihood.
        num_points: images to encode; the whole data set if None.
        split: of which images; of those that training does not draw, how much worse they are.
        step: of the checkpoint to take from a directory; the newest if None.
        dataset: where the images of a directory's run are now, as for `load`.

    Returns:
        `decomposition`: see `decomposition.Decomposition`; `log_likelihood`: see
        `log_likelihood.HeldOut`. Either only if it is wanted; {"skipped": why} of an autoencoder.
        `generalisation`, of images that training does not draw: see the function of that name.

    Raises:
        UserError: no run, no checkpoint, or settings that do not fit.
        KeyboardInterrupt: after Ctrl-C; what was computed is kept.
    """
    check_settings(decomposition, log_likelihood, images)
    run = _loaded(run, step, dataset, progress)
    count = point_count(run.trainer.dataset, run.config, split, num_points)
    answers, found = Answers(run.run_dir / of_split(ELBO, split)), {}
    if split in SPLITS:
        request = _generalisation_request(_identity(run), split)
        found["generalisation"] = answers.kept(
            "generalisation", request, lambda: jsonable(generalisation(run, split))
        )
    if not run.variational:
        asked = {"decomposition": decomposition, "log_likelihood": log_likelihood}
        return found | {name: {"skipped": NO_POSTERIOR} for name, draws in asked.items() if draws}
    if decomposition:
        found["decomposition"] = answers.kept(
            "decomposition",
            _identity(run) | {"samples": decomposition, "num_points": count, "split": split},
            lambda: _decompose(run, count, decomposition, split, progress),
        )
    if log_likelihood:
        asked = {"samples": log_likelihood, "images": images, "split": eval_split(run.config)}
        found["log_likelihood"] = answers.kept(
            "log_likelihood",
            _identity(run) | asked | {"few": FEW},
            lambda: _log_likelihood(run, log_likelihood, images, progress),
        )
    return found


def _generalisation_request(identity: dict[str, Any], split: str) -> dict[str, Any]:
    return identity | {"split": split, "most_images": IMAGES}


def stored_generalisation(run_dir: Path, split: str) -> Entry | None:
    """What `evaluate_elbo` found of a split, if it is there."""
    request = _generalisation_request(_stored_identity(run_dir), split)
    return Answers(run_dir / of_split(ELBO, split)).get("generalisation", request)


def stored_decomposition(
    run_dir: Path, decomposition: int, num_points: int, split: str
) -> Entry | None:
    """What `evaluate_elbo` would return of a run, if it is there; reads two small files.

    Of an autoencoder there is nothing to take apart.
    """
    summary: rundir.Summary = read_json(run_dir / rundir.SUMMARY, rundir.Summary)
    if "kl" not in summary:
        return {}
    asked = {"samples": decomposition, "num_points": num_points, "split": split}
    answers = Answers(run_dir / of_split(ELBO, split))
    return answers.get("decomposition", _stored_identity(run_dir) | asked)


def check_settings(decomposition: int, log_likelihood: int, images: int) -> None:
    """Raise at once what `evaluate_elbo` would raise.

    Raises:
        UserError: a number is out of its range.
    """
    if decomposition < 0 or decomposition == 1:
        raise UserError(f"--decomposition: got {decomposition}, wanted 0 (none), or 2 or more.")
    if log_likelihood < 0:
        raise UserError(f"--log-likelihood: got {log_likelihood}, wanted 0 (none), or more.")
    if images < 2:
        raise UserError(f"--log-likelihood-images: got {images}, wanted at least 2.")


def _decompose(run: Run, count: int, samples: int, split: str, progress: bool) -> Entry:
    options = {"split": split, "progress": progress}
    encoded = encode_run(run.run_dir, run.trainer, run.params, count, **options)
    assert encoded.logvars is not None
    key = key_for("decomposition", 0)
    return jsonable(
        decompose(encoded.means, encoded.logvars, samples=samples, key=key, progress=progress)
    )


def _log_likelihood(run: Run, samples: int, images: int, progress: bool) -> Entry:
    there = run.trainer.eval_indices.size
    if images > there:
        say(f"note: {images} images wanted for log p(x), the run is evaluated on {there}.")
    found = held_out_log_likelihood(
        run.trainer, run.params, samples=samples, images=images, progress=progress
    )
    return found._asdict()
