"""The files of a run's directory, and the promise that none is ever half written.

runs/NAME/  config.json  provenance.json  metrics.jsonl  summary.json  checkpoints/  figures/
"""

import contextlib
import dataclasses
import fcntl
import functools
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import jax

from bvae_jax.config import (
    FIELDS,
    OWN_FILES,
    OWN_HYPERPARAMETERS,
    PLACES,
    Config,
    differing_fields,
)
from bvae_jax.data.base import Dataset
from bvae_jax.errors import HOW_TO_REGISTER, UserError, say
from bvae_jax.files import new_directory, read_json, write_json
from bvae_jax.registry import PLUGINS, unknown_parts
from bvae_jax.runs.grid import text
from bvae_jax.runtime import git_commit, versions
from bvae_jax.types import ImageShape

CONFIG, PROVENANCE, SUMMARY = "config.json", "provenance.json", "summary.json"
FAILED = "failed.json"
"""Of a member of a sweep whose numbers were not finite any more."""
WEIGHTS = "model.safetensors"
"""Of a run that was exported, which has no checkpoints."""
EXPLORER = "explore.html"
"""Of a run or a sweep, where `bvae explore` leaves it."""
ALWAYS = ("dataset", "network", "latents", "objective", "steps", "seed")
"""Fields that no config.json of ours was ever without."""
PACKAGES = ("bvae_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def create(run_dir: Path, config: Config, *, overwrite: bool) -> None:
    """Make a run directory that holds `config`.

    It appears whole or not at all. A run that was there is `replaced(run_dir)` from now on, until
    `remove_replaced`.

    Raises:
        UserError: it exists and `overwrite` is false, or it may not be replaced.
    """
    check_free(run_dir, overwrite=overwrite)
    if run_dir.is_dir() and _is_free(run_dir):
        write_json(run_dir / CONFIG, config.to_dict())
        return
    run_dir = Path(os.path.realpath(run_dir))
    with new_directory(run_dir) as part:
        write_json(part / CONFIG, config.to_dict())
        if overwrite and run_dir.exists():
            _move_aside(run_dir)


def check_free(run_dir: Path, *, overwrite: bool) -> None:
    """Raise at once what `create` would raise.

    Raises:
        UserError: as `create`.
    """
    if _is_free(run_dir):
        aside = replaced(run_dir)
        if aside.exists() and not overwrite:
            raise UserError(
                f"{aside} was to be replaced by a run that is gone. Move it back or away, or give "
                "--overwrite."
            )
        return
    try:
        read_config(run_dir)
    except UserError as error:
        what = f"exists and is no run directory ({error})"
        if run_dir.is_file():
            what = "is a file"
        elif (run_dir / CONFIG).is_file():
            what = f"holds a run whose {CONFIG} cannot be read here ({error})"
        raise UserError(f"{run_dir} {what}: it is left alone. Choose another --run-dir.") from None
    if not overwrite:
        raise UserError(
            f"{run_dir} holds a run already. Go on with it (--resume), replace it "
            "(--overwrite), or choose another --run-dir."
        )
    if inner := next(run_dir.glob(f"*/**/{CONFIG}"), None):
        raise UserError(
            f"{run_dir} holds more than a run ({inner.parent}): it is left alone. Move that away, "
            "or choose another --run-dir."
        )
    if Path.cwd().is_relative_to(os.path.realpath(run_dir)):
        raise UserError(f"--overwrite: {run_dir} is where you are. Change the directory first.")


def _is_free(run_dir: Path) -> bool:
    """Whether nothing is there, or an empty directory."""
    try:
        run_dir.stat()
    except FileNotFoundError:
        return True
    return run_dir.is_dir() and not any(run_dir.iterdir())


def replaced(run_dir: Path) -> Path:
    """Where the run that this one replaced is, until there is a checkpoint of this one."""
    real = Path(os.path.realpath(run_dir))
    return real.with_name(f".{real.name}.replaced")


def remove_replaced(run_dir: Path) -> None:
    """Delete the run that this one replaced."""
    aside = replaced(run_dir)
    if aside.exists():
        read_config(aside)  # nothing but a run of ours is ever deleted
        shutil.rmtree(aside)


def _move_aside(run_dir: Path) -> None:
    """Make room for a new run; what was replaced before is kept if this one has no checkpoint."""
    aside = replaced(run_dir)
    with lock(run_dir):
        saved = [path for path in run_dir.glob("checkpoints/*") if path.name.isdigit()]
        if aside.exists() and not saved:
            shutil.rmtree(run_dir)
        else:
            remove_replaced(run_dir)
            run_dir.rename(aside)


def is_exported(path: Path) -> bool:
    """Whether this is a directory of weights that were exported, and no checkpoints; or a file."""
    return path.is_file() or ((path / WEIGHTS).is_file() and not (path / "checkpoints").exists())


def only_weights(path: Path) -> UserError:
    """The error where a file is given for the directory of a run."""
    mend = f" bvae export {path} makes one; bvae_jax.load(FILE, data=False) takes it as it is."
    exported = path.suffix in (".npz", ".safetensors")
    return UserError(f"{path} is a file, wanted the directory of a run.{mend if exported else ''}")


def check_resumable(run_dir: Path) -> None:
    """Refuse to go on with a run that was exported.

    Raises:
        UserError: it was.
    """
    if is_exported(run_dir):
        raise UserError(
            f"--resume: {run_dir} was exported: it has weights and no checkpoints, from which one "
            "goes on. Give the directory in which it was trained."
        )


class Failure(TypedDict):
    """The contents of failed.json."""

    reason: str


def read_failed(run_dir: Path) -> str:
    """Why a member failed."""
    try:
        return read_json(run_dir / FAILED, Failure)["reason"]
    except UserError as error:
        return str(error)


def read_config(run_dir: Path) -> Config:
    """The config of an existing run.

    Raises:
        UserError: there is no run there, or its config is damaged.
    """
    path = run_dir / CONFIG
    if not path.is_file():
        mend = f"it has no {CONFIG}. Give the directory of a run, or a file of weights"
        if not run_dir.exists():
            mend = "there is no such file or directory"
        raise UserError(f"No run in {run_dir}: {mend}.")
    values = read_json(path, dict)
    if {"config", "values"} == set(values):
        raise UserError(f"{run_dir} is a sweep, wanted a run: those in {run_dir}/members.")
    try:
        return parse_config(path, values)
    except UserError as error:
        raise lacks_plugin(run_dir) or error from None


def of_beta(path: Path) -> tuple[Path, float | None]:
    """RUN_DIR/beta=4 -> RUN_DIR and 4, where RUN_DIR is a run for many β; other paths and None."""
    whole, (name, _, value) = path.parent, path.name.partition("=")
    if name == "beta" and (whole / CONFIG).exists() and not (path / CONFIG).exists():
        with contextlib.suppress(ValueError):
            return whole, float(value)
    return path, None


def at_beta(run_dir: Path, beta: float) -> Path:
    """Where is kept what is found of a run for many β at one of them: its own directory, if that
    is the β of its config."""
    whole, _ = of_beta(run_dir)
    return whole if read_config(whole).beta == beta else whole / f"beta={text(beta)}"


def check_parts(run_dir: Path, config: Config) -> None:
    """Say which script registers what a run has of its user's own, where that is not known, and
    which is not any more what it was.

    Raises:
        UserError: a name is unknown, and the script is on record.
    """
    error = lacks_plugin(run_dir) if unknown_parts(config) else None
    if error:
        raise error
    for name, digest in _plugins(run_dir).items():
        if PLUGINS.get(name, digest) != digest:
            say(f"note: {name} is not what it was when {run_dir} was trained last.")


def _plugins(run_dir: Path) -> dict[str, str]:
    """What was loaded when the run was trained last, as `PLUGINS` has it."""
    return (_last_session(run_dir) or {}).get("plugins", {})


def lacks_plugin(run_dir: Path) -> UserError | None:
    """That something was loaded when the run was trained and is not now; None if not so."""
    absent = [name for name in _plugins(run_dir) if name not in PLUGINS]
    if not absent:
        return None
    name = absent[0]
    mend = f"give --plugin {name}, or import it" if name.endswith(".py") else f"install {name}"
    return UserError(f"{run_dir} has parts that {name} registers, which is not loaded: {mend}.")


def parse_config(path: Path, values: dict[str, Any]) -> Config:
    """The config that a file holds.

    Raises:
        UserError: it is not one, or not that of a run of ours.
    """
    known = {*FIELDS, *OWN_HYPERPARAMETERS}
    if strange := [name for name in values if name not in known]:
        raise UserError(
            f"{path}: its config has {str(strange)[:200]}, which is not known here. It is "
            "damaged, of another version of bvae_jax, or has an objective of your own: "
            f"{HOW_TO_REGISTER}."
        )
    try:
        config = Config.from_dict(values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    lacking = [name for name in ALWAYS if name not in values]
    if lacking:
        raise UserError(f"{path} is no config of a run: it has no {', '.join(lacking)}.")
    return config


def read_settings(path: Path) -> Config:
    """The config in a JSON file of some of its fields, such as another run's config.json.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise UserError(f"--config: there is no file {path}. Give a run's {CONFIG}.")
    try:
        return Config.from_dict(read_json(path, dict))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def check_same(stored: Config, wanted: Config, directory: Path) -> None:
    """Refuse another config than the run's own."""
    differing = differing_fields(stored, wanted)
    if differing:
        raise UserError(
            f"{directory} was begun with another config ({'; '.join(differing)}). Take the old "
            "values, or start another --run-dir."
        )


def make_config_check(directory: Path, config: Config) -> Callable[[dict[str, Any]], None]:
    """Refuses a checkpoint of another config than config.json: somebody has edited that file."""

    def check(meta: dict[str, Any]) -> None:
        differing = differing_fields(Config.from_dict(meta["config"]), config)
        if differing:
            raise UserError(
                f"{directory / CONFIG} was edited, or the checkpoint is another run's: that was "
                f"made with other values ({'; '.join(differing)}). Put back what was there."
            )

    return check


def move(run_dir: Path, config: Config) -> None:
    """Write down where a run's images are now, which `config` says, if that changed."""
    stored = read_config(run_dir)
    moved = dataclasses.replace(stored, **{name: getattr(config, name) for name in PLACES})
    if moved != stored and not differing_fields(stored, moved):
        write_json(run_dir / CONFIG, moved.to_dict())


class BusyError(UserError):
    """Another process is writing to a run."""


@contextlib.contextmanager
def lock(run_dir: Path) -> Iterator[None]:
    """Keep other processes from writing to this run at the same time.

    Raises:
        BusyError: another process is doing so.
        UserError: the file to lock is a link, which may lead anywhere.
    """
    path = run_dir / ".lock"
    if path.is_symlink():
        raise UserError(f"{path} is a link, wanted a file: remove it.")
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"Another process is writing to {run_dir}. Wait for it, or choose another "
                "--run-dir."
            ) from None
        yield


class Summary(TypedDict):
    """What the reader of a summary.json relies on; see `writer.summarise` for all.

    An autoencoder has no KL and no ELBO.
    """

    step: int
    nll: float
    kl: NotRequired[float]
    elbo: NotRequired[float]
    kl_per_latent: NotRequired[list[float]]
    variance_per_latent: NotRequired[list[float]]
    active_latents: NotRequired[int]
    warnings: NotRequired[dict[str, str]]
    params_sha256: str


def read_summary(run_dir: Path) -> Summary | None:
    """The summary of a run; None if it is not finished, or the file damaged, which is said."""
    path = run_dir / SUMMARY
    if not path.exists():
        return None
    try:
        mend = "It is left out." if is_exported(run_dir) else "--resume makes it anew."
        return read_json(path, Summary, mend=mend)
    except UserError as error:
        say_once(str(error))
        return None


class SweepRemarks(TypedDict):
    """How a member of a sweep was trained."""

    strategy: str
    members_at_once: int
    wandb: NotRequired[str]


class DataRemarks(TypedDict):
    """On what a run was trained; see `writer.describe` for all."""

    identity: NotRequired[str]
    source: NotRequired[str]
    image_shape: NotRequired[list[int]]


class SessionRecord(TypedDict):
    """What the reader of a session in provenance.json relies on; see `add_session` for all."""

    started: str
    start_step: int
    end_step: NotRequired[int]
    wall_seconds: NotRequired[float]
    command: list[str]
    git_commit: str | None
    python: str
    versions: dict[str, str | None]
    device: str
    devices: NotRequired[int]
    data: NotRequired[DataRemarks]
    places: NotRequired[dict[str, str]]
    plugins: NotRequired[dict[str, str]]
    sweep: NotRequired[SweepRemarks]


class Provenance(TypedDict):
    """The contents of provenance.json."""

    sessions: list[SessionRecord]


def read_sessions(run_dir: Path) -> list[SessionRecord]:
    """Those on record in provenance.json, the oldest first; none if it is damaged, which is said.

    Changes nothing on disk.
    """
    return _read_sessions(run_dir) or []


def _read_sessions(run_dir: Path) -> list[SessionRecord] | None:
    """None if the file is damaged."""
    path = run_dir / PROVENANCE
    if not path.exists():
        return []
    try:
        return read_json(path, Provenance, mend="Going on without it.")["sessions"]
    except UserError as error:
        say_once(str(error))
        return None


@functools.cache
def say_once(line: str) -> None:
    """A line on stderr, the first time that a process has it to say."""
    say(line)


def add_session(run_dir: Path, start_step: int, **remarks: Any) -> None:
    """Append to provenance.json who computes from `start_step` on: code, versions, device."""
    path, sessions = run_dir / PROVENANCE, _read_sessions(run_dir)
    if sessions is None:
        path.replace(path.with_suffix(".damaged"))
        say(f"{path} is kept as {path.stem}.damaged.")
    device = jax.local_devices()[0]
    kind = device.device_kind
    if kind != device.platform:  # a CPU is called "cpu" by both
        kind += f" ({device.platform})"
    session = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "start_step": start_step,
        "command": sys.argv,
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "versions": versions(PACKAGES),
        "device": f"{jax.device_count()} x {kind}",
        "machine": platform.platform(),
        "cpu_count": os.cpu_count(),
        **({"plugins": dict(PLUGINS)} if PLUGINS else {}),
        **remarks,
    }
    write_json(path, {"sessions": [*(sessions or []), session]})


def end_session(run_dir: Path, end_step: int, wall_seconds: float) -> None:
    """Add to the last session of provenance.json how far it came, and the run's time so far."""
    sessions = read_sessions(run_dir)
    if sessions:  # else it was damaged in the meantime
        sessions[-1].update(end_step=end_step, wall_seconds=wall_seconds)
        write_json(run_dir / PROVENANCE, {"sessions": sessions})


def earlier_devices(run_dir: Path) -> int:
    """Over how many devices the run's last session divided its batches."""
    sessions = read_sessions(run_dir)
    return sessions[-1].get("devices", 1) if sessions else 1


def check_data(run_dir: Path, dataset: Dataset, earlier: str = "") -> None:
    """Refuse images that are not those of the run's last session.

    Args:
        dataset: that is there now.
        earlier: the identity of those, where there is no session.

    Raises:
        UserError: its images are others.
    """
    earlier = read_data(run_dir).get("identity", earlier)
    if earlier and dataset.identity != earlier:
        raise UserError(
            f"{run_dir} was trained on {earlier}, but {dataset.name} is {dataset.identity} now: "
            "its images changed. Put the old ones back, or train a new run."
        )


def read_places(run_dir: Path) -> dict[str, str]:
    """Where the files of the run's data were when it was trained last: what `config.places` gave.

    Of a run of an earlier version of this package, only the user's own images.
    """
    session = _last_session(run_dir)
    if session and "places" in session:
        return session["places"]
    kind = read_config(run_dir).dataset.partition(":")[0]
    source = read_data(run_dir).get("source")
    return {"dataset": f"{kind}:{source}"} if kind in OWN_FILES and source else {}


def read_image_shape(run_dir: Path) -> ImageShape:
    """Height, width, channels of the images that the run was trained on.

    Raises:
        UserError: it was never trained.
    """
    shape = read_data(run_dir).get("image_shape")
    if shape is None:
        raise UserError(f"{run_dir / PROVENANCE} does not say what images the run was trained on.")
    height, width, channels = shape
    return height, width, channels


def _last_session(run_dir: Path) -> SessionRecord | None:
    sessions = read_sessions(run_dir)
    return sessions[-1] if sessions else None


def read_data(run_dir: Path) -> DataRemarks:
    """On which images the run was trained last; empty where that is not on record."""
    session = _last_session(run_dir)
    return session.get("data", {}) if session else {}
