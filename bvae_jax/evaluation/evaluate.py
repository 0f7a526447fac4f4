"""`bvae evaluate` and `bvae score`: scores on disk, with figures."""

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from bvae_jax.config import ScoreConfig
from bvae_jax.errors import UserError
from bvae_jax.evaluation.baselines import file_baselines, run_baselines
from bvae_jax.evaluation.decomposition import decompose, to_json
from bvae_jax.evaluation.figures import draw_score_figures
from bvae_jax.evaluation.log_likelihood import FEW, held_out_log_likelihood
from bvae_jax.metrics import METRICS
from bvae_jax.metrics.codes import Codes, read_points
from bvae_jax.metrics.scoring import PACKAGES, Entry, metric_names, score_all
from bvae_jax.progress import bar
from bvae_jax.runs import rundir
from bvae_jax.runs.checkpoint import fingerprint
from bvae_jax.runs.encode import codes_of, encode_run, point_count, same_images
from bvae_jax.runs.program import NO_POSTERIOR, eval_split
from bvae_jax.runs.run import Run, load
from bvae_jax.runtime import versions
from bvae_jax.types import key_for

EVALUATION = "evaluation.json"


class Request(TypedDict):
    """What the reader of a request in evaluation.json relies on."""

    params_sha256: str
    repeats: int
    baselines: bool
    udr_with: list[str]
    factor_names: list[str]


class Stored(TypedDict):
    """What the reader of an entry in evaluation.json relies on."""

    request: Request


def evaluate(
    run_dir: str | Path,
    config: ScoreConfig = ScoreConfig(),
    *,
    num_points: int | None = None,
    baselines: bool = False,
    step: int | None = None,
    dataset: str | None = None,
    udr_with: Sequence[str | Path] = (),
    figures: bool = True,
    progress: bool = True,
) -> dict[str, Entry]:
    """Score a run; leave evaluation.json and figures in its directory.

    Each metric's scores are on disk as soon as they are there, and those that are there already,
    of the same parameters, settings and versions, are not computed again.

    Args:
        config: which metrics, on how many points, how often.
        num_points: images to encode; the whole data set if None.
        baselines: score other representations of the same data alike.
        step: of the checkpoint to take; the newest if None.
        dataset: where the run's images are now, as for `load`.
        udr_with: other runs on the same data, with different seeds, for `udr`.

    Returns:
        name of the metric -> scores, or {"skipped": why}.

    Raises:
        UserError: no run, no checkpoint, no factors, or settings that do not fit.
        KeyboardInterrupt: after Ctrl-C; what was computed is kept.
    """
    run = load(run_dir, step=step, dataset=dataset, progress=progress)
    return evaluate_run(
        run,
        config,
        num_points=num_points,
        baselines=baselines,
        udr_with=udr_with,
        figures=figures,
        progress=progress,
    )


def evaluate_run(
    run: Run,
    config: ScoreConfig,
    *,
    num_points: int | None = None,
    baselines: bool = False,
    udr_with: Sequence[str | Path] = (),
    figures: bool = False,
    progress: bool = False,
) -> dict[str, Entry]:
    """`evaluate`, of a run that is loaded."""
    directory, dataset = run.run_dir, run.program.dataset
    if not dataset.factor_names:
        raise UserError(
            f"{dataset.name} has no factors to score by: wanted --metrics none, which takes the "
            "ELBO apart, or bvae suggest for the seeds of a sweep."
        )
    run = on_split(run, config.split)
    count = point_count(dataset, run.config, config.split, num_points)
    others = [on_split(load(other, progress=progress), config.split) for other in udr_with]
    for other, path in zip(others, udr_with, strict=True):
        if not same_images(run.program, other.program):
            raise UserError(
                f"--udr-with {path}: got a run whose images ({config.split}) are not those of "
                f"{directory}, wanted the same: compare --dataset, --only and the split of both."
            )
    encoded = encode_run(directory, run.program, run.params, count, progress=progress)
    points = codes_of(run.program, encoded)
    if others:
        runs = dict(zip([directory, *map(Path, udr_with)], [run, *others], strict=True))
        fewer = min(count, config.train_points)
        encodes = [
            codes_of(
                each.program, encode_run(path, each.program, each.params, fewer, progress=progress)
            )
            for path, each in runs.items()
        ]
        points = _with_runs(points, [(each.codes, each.kl) for each in encodes])
    request = {
        **_request(int(run.state.step), fingerprint(run.params), count, config),
        "baselines": baselines,
        "udr_with": [fingerprint(other.params) for other in others],
        "factor_names": list(dataset.factor_names),
    }
    if not run.program.variational:
        print(f"bvae: note: {NO_POSTERIOR}.", file=sys.stderr)
    _remark(points)
    path = directory / EVALUATION
    entries = _of_these_parameters(path, request)
    wanted = metric_names(config.metrics)
    missing = [name for name in wanted if not _is_there(entries.get(name), request)]
    if missing:
        most = min(count, config.train_points + config.test_points)
        rest = dataclasses.replace(config, metrics=",".join(missing))
        _say_what_is_replaced(path, entries, missing)
        made = run_baselines(run.program, most, progress=progress) if baselines else {}
        for name, entry in _scored(points, rest, made, progress):
            entries[name] = entry | {"request": request}
            kept = {name: entries[name] for name in METRICS if name in entries}
            rundir.write_json(path, kept, checksum=True)
    asked = {name: entries[name] for name in wanted}
    if figures:
        draw_score_figures(directory / "figures", asked, points, dataset.factor_names)
    return asked


def on_split(run: Run, split: str) -> Run:
    """The same run, of which images of this split are encoded to be scored."""
    return run._replace(program=run.program._replace(points=split))


def stored_scores(run_dir: Path, config: ScoreConfig, num_points: int) -> dict[str, Entry] | None:
    """What `evaluate` without baselines would return, if it is there; reads two small files.

    Args:
        num_points: images that were encoded.
    """
    summary: rundir.Summary = rundir.read_json(run_dir / rundir.SUMMARY, rundir.Summary)
    request = _request(summary["step"], summary["params_sha256"], num_points, config)
    path = run_dir / EVALUATION
    entries = _of_these_parameters(path, request)
    found = {name: entries.get(name) for name in metric_names(config.metrics)}
    for entry in found.values():
        if entry is None:
            return None
        own = {name: entry["request"][name] for name in ("baselines", "udr_with", "factor_names")}
        if not _is_there(entry, {**request, **own, "baselines": False}):
            return None
    return {name: entry for name, entry in found.items() if entry}


def _request(step: int, sha256: str, count: int, config: ScoreConfig) -> dict[str, Any]:
    """What a run's scores depend on, but for baselines and other runs."""
    return {
        "step": step,
        "params_sha256": sha256,
        "num_points": count,
        **dataclasses.asdict(dataclasses.replace(config, metrics="")),
    }


def score_file(
    path: str | Path,
    config: ScoreConfig = ScoreConfig(),
    *,
    baselines: bool = False,
    udr_with: Sequence[str | Path] = (),
    figures: str | Path | None = None,
    progress: bool = True,
) -> dict[str, Entry]:
    """Score anybody's codes: the arrays of an .npz file.

    Args:
        path: the file; see `points_file.read_points` for its keys.
        config: which metrics, on how many points, how often.
        baselines: score random codes and the true factors alike.
        udr_with: files of other runs, with the same points in the same order, for `udr`.
        figures: directory to draw them in; none if None.

    Returns:
        name of the metric -> scores, or {"skipped": why}.

    Raises:
        UserError: the file is damaged, or its arrays do not fit.
    """
    if config.split != "all":
        raise UserError(f"--split: got {config.split}, but a file has no splits: leave it out.")
    arrays = read_points(Path(path).expanduser())
    names = [str(name) for name in arrays.pop("factor_names", _numbered(arrays["factors"]))]
    points = Codes(**arrays)  # pyright: ignore[reportArgumentType]
    if udr_with:
        others = [read_points(Path(other).expanduser()) for other in udr_with]
        for other, theirs in zip(udr_with, others, strict=True):
            if not np.array_equal(theirs["factors"], arrays["factors"]):
                raise UserError(
                    f"--udr-with {other}: its factors are not those of {path}, wanted codes of the "
                    "same points in the same order."
                )
        runs = [arrays, *others]
        points = _with_runs(points, [(run["codes"], run.get("kl")) for run in runs])
    made = file_baselines(points) if baselines else {}
    _remark(points)
    request = {
        "file": str(path),
        "file_sha256": hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest(),
        **dataclasses.asdict(dataclasses.replace(config, metrics="")),
        "baselines": baselines,
        "udr_with": [str(other) for other in udr_with],
        "factor_names": names,
    }
    scored = _scored(points, config, made, progress)
    entries = {name: entry | {"request": request} for name, entry in scored}
    if figures is not None:
        draw_score_figures(Path(figures).expanduser(), entries, points, names)
    return entries


def _with_runs(points: Codes, runs: Sequence[tuple[np.ndarray, np.ndarray | None]]) -> Codes:
    """With the codes of several runs for the same images, and their KLs where they are known."""
    return dataclasses.replace(
        points, codes_of_runs=[codes for codes, _ in runs], kl_of_runs=[kl for _, kl in runs]
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


def _of_these_parameters(path: Path, request: dict[str, Any]) -> dict[str, Entry]:
    """What evaluation.json holds of the same parameters; a damaged file is as none."""
    if not path.exists():
        return {}
    try:
        entries: dict[str, Stored] = rundir.read_json(path, dict[str, Stored], mend="Scoring anew.")
    except UserError as error:
        print(f"bvae: {error}", file=sys.stderr)
        return {}
    return {
        name: dict(entry)
        for name, entry in entries.items()
        if entry["request"]["params_sha256"] == request["params_sha256"]
    }


def _is_there(entry: Entry | None, request: dict[str, Any]) -> bool:
    """Whether an entry holds what is asked for: the same, with as many repeats or more.

    One repeat is the first of many, and baselines that nobody asked for do no harm. What could not
    be scored cannot be now.
    """
    if entry is None or entry.get("versions") != versions(PACKAGES):
        return False
    had = entry["request"]
    return (
        {**had, "repeats": 0, "baselines": 0} == {**request, "repeats": 0, "baselines": 0}
        and request["repeats"] in (1, had["repeats"])
        and (had["baselines"] or not request["baselines"])
    )


def _say_what_is_replaced(path: Path, entries: dict[str, Entry], names: list[str]) -> None:
    """Scores of the same parameters under other settings: they may have cost something."""
    replaced = [name for name in names if "skipped" not in entries.get(name, {"skipped": ""})]
    if replaced:
        print(
            f"bvae: {path}: scores under other settings are replaced: {', '.join(replaced)}.",
            file=sys.stderr,
        )


def _remark(points: Codes) -> None:
    points.check()
    for remark in points.remarks():
        print(f"bvae: note: {remark}.", file=sys.stderr)


def _numbered(factors: np.ndarray) -> list[str]:
    return [f"factor {k}" for k in range(factors.shape[1])]


ELBO = "elbo.json"


def evaluate_elbo(
    run_dir: str | Path,
    decomposition: int = 1000,
    log_likelihood: int = 0,
    images: int = 64,
    *,
    num_points: int | None = None,
    split: str = "all",
    step: int | None = None,
    dataset: str | None = None,
    progress: bool = True,
) -> dict[str, dict[str, Any]]:
    """Take a run's KL apart and estimate log p(x); leave elbo.json in its directory.

    What is there already, of the same parameters and settings, is not computed again.

    Args:
        decomposition: draws of z for mutual information, total correlation and dimension-wise KL
            against the aggregate posterior of the data set; 0 for none.
        log_likelihood: importance samples for each image; 0 for none.
        images: held-out images for the log-likelihood.
        num_points: images to encode; the whole data set if None.
        step: of the checkpoint to take; the newest if None.
        dataset: where the run's images are now, as for `load`.

    Returns:
        `decomposition`: see `decomposition.Decomposition`; `log_likelihood`: see
        `held_out.HeldOut`. Either only if it is wanted; {"skipped": why} of an autoencoder.

    Raises:
        UserError: no run, no checkpoint, or settings that do not fit.
        KeyboardInterrupt: after Ctrl-C; what was computed is kept.
    """
    check_settings(decomposition, log_likelihood, images)
    run = load(run_dir, step=step, dataset=dataset, progress=progress)
    return evaluate_elbo_of_run(
        run, decomposition, log_likelihood, images,
        num_points=num_points, split=split, progress=progress,
    )  # fmt: skip


def evaluate_elbo_of_run(
    run: Run,
    decomposition: int,
    log_likelihood: int = 0,
    images: int = 64,
    *,
    num_points: int | None = None,
    split: str = "all",
    progress: bool = False,
) -> dict[str, dict[str, Any]]:
    """`evaluate_elbo`, of a run that is loaded."""
    if not run.program.variational:
        asked = {"decomposition": decomposition, "log_likelihood": log_likelihood}
        return {name: {"skipped": NO_POSTERIOR} for name, draws in asked.items() if draws}
    run = run._replace(program=run.program._replace(points=split))
    directory = run.run_dir
    identity = {"step": int(run.state.step), "params_sha256": fingerprint(run.params)}
    count = point_count(run.program.dataset, run.config, split, num_points)
    path, found = directory / ELBO, {}
    if decomposition:
        request = identity | _decomposition_request(decomposition, count, split)
        found["decomposition"] = _kept(
            path, "decomposition", request, lambda: _decompose(directory, run, request, progress)
        )
    if log_likelihood:
        held_out = eval_split(run.config)
        asked = {"samples": log_likelihood, "images": images, "split": held_out, "few": FEW}
        request = identity | asked
        found["log_likelihood"] = _kept(
            path, "log_likelihood", request, lambda: _log_likelihood(run, request, progress)
        )
    return found


def stored_decomposition(
    run_dir: Path, decomposition: int, num_points: int, split: str
) -> dict[str, Any] | None:
    """What `evaluate_elbo` would return of a run, if it is there; reads two small files.

    Of an autoencoder there is nothing to take apart.
    """
    summary: rundir.Summary = rundir.read_json(run_dir / rundir.SUMMARY, rundir.Summary)
    if "kl" not in summary:
        return {}
    request = {
        "step": summary["step"],
        "params_sha256": summary["params_sha256"],
        **_decomposition_request(decomposition, num_points, split),
    }
    entry = _entries(run_dir / ELBO).get("decomposition")
    return entry if entry and entry["request"] == request else None


def _decomposition_request(decomposition: int, num_points: int, split: str) -> dict[str, Any]:
    """What a decomposition depends on, but for the parameters."""
    return {"samples": decomposition, "num_points": num_points, "split": split}


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


def _decompose(
    directory: Path, run: Run, request: dict[str, Any], progress: bool
) -> dict[str, Any]:
    encoded = encode_run(
        directory, run.program, run.params, request["num_points"], progress=progress
    )
    assert encoded.logvars is not None
    found = decompose(
        encoded.means,
        encoded.logvars,
        samples=request["samples"],
        key=key_for("decomposition", 0),
        progress=progress,
    )
    return to_json(found)


def _log_likelihood(run: Run, request: dict[str, Any], progress: bool) -> dict[str, Any]:
    there = run.program.eval_indices.size
    if request["images"] > there:
        wanted = f"{request['images']} images wanted for --log-likelihood"
        print(f"bvae: note: {wanted}, the run's --eval-images has {there}.", file=sys.stderr)
    found = held_out_log_likelihood(
        run.program, run.params,
        samples=request["samples"], images=request["images"], progress=progress,
    )  # fmt: skip
    return found._asdict()


def _kept(
    path: Path, name: str, request: dict[str, Any], compute: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """What the file holds for this request, or else what is computed now and written there."""
    entries = _entries(path)
    if name not in entries or entries[name]["request"] != request:
        entries[name] = compute() | {"request": request}
        rundir.write_json(path, entries, checksum=True)
    return entries[name]


class StoredDecomposition(TypedDict):
    """What the reader of a `Decomposition` in elbo.json relies on."""

    request: dict[str, Any]
    samples: int
    points: int
    kl: float
    kl_sampled: float
    kl_sampled_error: float
    mutual_information: float
    mutual_information_error: float
    total_correlation: float
    total_correlation_error: float
    dimension_wise_kl: float
    dimension_wise_kl_error: float
    sentence: str


class StoredLogLikelihood(TypedDict):
    """What the reader of a `HeldOut` in elbo.json relies on; earlier ones did not count `few`."""

    request: dict[str, Any]
    log_likelihood: float
    standard_error: float
    elbo: float
    bits_per_dim: float
    effective_samples: float
    least_effective: NotRequired[float]
    few: NotRequired[int]
    images: int
    samples: int


class StoredElbo(TypedDict, total=False):
    """The contents of elbo.json."""

    decomposition: StoredDecomposition
    log_likelihood: StoredLogLikelihood


def _entries(path: Path) -> dict[str, Any]:
    """What the file holds; nothing if it is damaged, which is said."""
    try:
        mend = "It is computed anew."
        return rundir.read_json(path, StoredElbo, mend=mend) if path.exists() else {}
    except UserError as error:
        print(f"bvae: {error}", file=sys.stderr)
        return {}
