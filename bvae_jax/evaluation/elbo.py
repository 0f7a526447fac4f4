"""The ELBO of a run, taken apart on the whole data set, and log p(x) of held-out images."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from bvae_jax.errors import UserError
from bvae_jax.evaluation.decomposition import decompose, to_json
from bvae_jax.evaluation.log_likelihood import FEW, held_out_log_likelihood
from bvae_jax.runs import rundir
from bvae_jax.runs.checkpoint import fingerprint
from bvae_jax.runs.encode import encode_run, point_count
from bvae_jax.runs.program import NO_POSTERIOR, eval_split
from bvae_jax.runs.run import RunResult, load
from bvae_jax.types import (
    key_for,
)

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
    run: RunResult,
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
        request = identity | _request(decomposition, count, split)
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
        **_request(decomposition, num_points, split),
    }
    entry = _entries(run_dir / ELBO).get("decomposition")
    return entry if entry and entry["request"] == request else None


def _request(decomposition: int, num_points: int, split: str) -> dict[str, Any]:
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
    directory: Path, run: RunResult, request: dict[str, Any], progress: bool
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


def _log_likelihood(run: RunResult, request: dict[str, Any], progress: bool) -> dict[str, Any]:
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


class Stored(TypedDict, total=False):
    """The contents of elbo.json."""

    decomposition: StoredDecomposition
    log_likelihood: StoredLogLikelihood


def _entries(path: Path) -> dict[str, Any]:
    """What the file holds; nothing if it is damaged, which is said."""
    try:
        mend = "It is computed anew."
        return rundir.read_json(path, Stored, mend=mend) if path.exists() else {}
    except UserError as error:
        print(f"bvae: {error}", file=sys.stderr)
        return {}
