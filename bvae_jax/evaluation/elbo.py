"""The ELBO of a run, taken apart and kept in its directory, and log p(x)."""

from numbers import Integral
from pathlib import Path
from typing import Any

from bvae_jax.errors import UserError, say
from bvae_jax.evaluation.answers import Answers, Entry, identity, stored_identity
from bvae_jax.evaluation.decomposition import decompose
from bvae_jax.evaluation.generalisation import IMAGES, SPLITS, generalisation
from bvae_jax.evaluation.log_likelihood import FEW, held_out_log_likelihood
from bvae_jax.files import read_json
from bvae_jax.metrics.scoring import jsonable
from bvae_jax.runs import rundir
from bvae_jax.runs.encode import encode_run, of_split, point_count
from bvae_jax.runs.run import Run, loaded
from bvae_jax.runs.trainer import NO_POSTERIOR, eval_split
from bvae_jax.types import key_for

ELBO = "elbo.json"
"""Of all images; see `of_split`."""


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
    run = loaded(run, step, dataset, progress)
    count = point_count(run.trainer.dataset, run.config, split, num_points)
    answers, found = Answers(run.run_dir / of_split(ELBO, split)), {}
    if split in SPLITS:
        request = _generalisation_request(identity(run), split)
        found["generalisation"] = answers.kept(
            "generalisation", request, lambda: jsonable(generalisation(run, split))
        )
    if not run.variational:
        asked = {"decomposition": decomposition, "log_likelihood": log_likelihood}
        return found | {name: {"skipped": NO_POSTERIOR} for name, draws in asked.items() if draws}
    if decomposition:
        found["decomposition"] = answers.kept(
            "decomposition",
            identity(run) | {"samples": decomposition, "num_points": count, "split": split},
            lambda: _decompose(run, count, decomposition, split, progress),
        )
    if log_likelihood:
        asked = {"samples": log_likelihood, "images": images, "split": eval_split(run.config)}
        found["log_likelihood"] = answers.kept(
            "log_likelihood",
            identity(run) | asked | {"few": FEW},
            lambda: _log_likelihood(run, log_likelihood, images, progress),
        )
    return found


def _generalisation_request(identity: dict[str, Any], split: str) -> dict[str, Any]:
    return identity | {"split": split, "most_images": IMAGES}


def stored_generalisation(run_dir: Path, split: str) -> Entry | None:
    """What `evaluate_elbo` found of a split, if it is there."""
    request = _generalisation_request(stored_identity(run_dir), split)
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
    return answers.get("decomposition", stored_identity(run_dir) | asked)


def check_settings(decomposition: int, log_likelihood: int, images: int) -> None:
    """Raise at once what `evaluate_elbo` would raise.

    Raises:
        UserError: a number is out of its range.
    """
    counts = {"decomposition": decomposition, "log-likelihood": log_likelihood}
    for name, count in (counts | {"log-likelihood-images": images}).items():
        if not isinstance(count, Integral):
            raise UserError(f"--{name}: got {count!r}, wanted a whole number.")
    if decomposition < 0 or decomposition in (1, 2):
        raise UserError(f"--decomposition: got {decomposition}, wanted 0 (none), or 3 or more.")
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
