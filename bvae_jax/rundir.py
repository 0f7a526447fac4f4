"""The files of a run's directory, and the promise that none is ever half written.

runs/NAME/  config.json  provenance.json  metrics.jsonl  summary.json  checkpoints/  figures/
"""

import contextlib
import fcntl
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from bvae_jax.config import OWN_FILES, Config
from bvae_jax.data.base import Dataset
from bvae_jax.errors import UserError
from bvae_jax.types import ImageShape

CONFIG, PROVENANCE, SUMMARY = "config.json", "provenance.json", "summary.json"
PACKAGES = ("bvae_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def create(run_dir: Path, config: Config, *, overwrite: bool) -> None:
    """Make a run directory that holds `config`.

    It appears whole or not at all.

    Raises:
        UserError: it exists and `overwrite` is false, or it is no run directory.
    """
    check_free(run_dir, overwrite=overwrite)
    if run_dir.is_dir() and not any(run_dir.iterdir()):
        run_dir.rmdir()
    elif run_dir.exists():
        with lock(run_dir):
            shutil.rmtree(run_dir)
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{run_dir.name}-", dir=run_dir.parent))
    try:
        part.chmod(0o777 & ~umask())
        write_json(part / CONFIG, config.to_dict())
        part.rename(run_dir)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def check_free(run_dir: Path, *, overwrite: bool) -> None:
    """Raise at once what `create` would raise.

    Raises:
        UserError: as `create`.
    """
    if not run_dir.exists() or (run_dir.is_dir() and not any(run_dir.iterdir())):
        return
    if not (run_dir / CONFIG).is_file():
        raise UserError(
            f"{run_dir} exists and is no run directory (it has no {CONFIG}): it is left "
            "alone. Choose another --run-dir."
        )
    if not overwrite:
        raise UserError(
            f"{run_dir} holds a run already. Go on with it (--resume), replace it "
            "(--overwrite), or choose another --run-dir."
        )


def read_config(run_dir: Path) -> Config:
    """The config of an existing run.

    Raises:
        UserError: there is no run there, or its config is damaged.
    """
    path = run_dir / CONFIG
    if not path.is_file():
        raise UserError(f"No run in {run_dir}: it has no {CONFIG}. Give the directory of a run.")
    values = read_json(path)
    if not isinstance(values, dict):
        raise UserError(f"{path} holds {type(values).__name__}, wanted an object of fields.")
    try:
        return Config.from_dict(values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


class BusyError(UserError):
    """Another process is writing to a run."""


@contextlib.contextmanager
def lock(run_dir: Path) -> Iterator[None]:
    """Keep other processes from writing to this run at the same time.

    Raises:
        BusyError: another process is doing so.
    """
    with (run_dir / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"Another process is writing to {run_dir}. Wait for it, or choose another "
                "--run-dir."
            ) from None
        yield


def write_json(path: Path, value: Any) -> None:
    """Write `value` as `write_text` does."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, sees the old one or the new one."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        # Names of files may hold bytes that are no UTF-8.
        with part.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        UserError: it is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}. Put back a copy, or start anew.") from None


def add_session(run_dir: Path, start_step: int, **remarks: Any) -> None:
    """Append to provenance.json who computes from `start_step` on: code, versions, device."""
    path = run_dir / PROVENANCE
    sessions = _sessions(path)
    device = jax.local_devices()[0]
    session = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "start_step": start_step,
        "command": sys.argv,
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "versions": versions(PACKAGES),
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
        "machine": platform.platform(),
        "cpu_count": os.cpu_count(),
        **remarks,
    }
    write_json(path, {"sessions": [*sessions, session]})


def earlier_devices(run_dir: Path) -> int:
    """Over how many devices the run's last session divided its batches."""
    sessions = _sessions(run_dir / PROVENANCE)
    return sessions[-1].get("devices", 1) if sessions else 1


def check_data(run_dir: Path, dataset: Dataset) -> None:
    """Refuse images that are not those of the run's last session.

    Args:
        dataset: that is there now.

    Raises:
        UserError: its images are others.
    """
    earlier = _last_session(run_dir).get("data", {}).get("identity")
    if earlier is not None and not dataset.has_identity(earlier):
        raise UserError(
            f"{run_dir} was trained on {earlier}, but {dataset.name} is {dataset.identity} now: "
            "its images changed. Put the old ones back, or train a new run."
        )


def read_places(run_dir: Path) -> dict[str, str]:
    """Where the files of the run's data were when it was trained last: what `config.places` gave.

    Of a run of an earlier version of this package, only the user's own images.
    """
    session = _last_session(run_dir)
    kind = read_config(run_dir).dataset.partition(":")[0]
    source = session.get("data", {}).get("source")
    earlier = {"dataset": f"{kind}:{source}"} if kind in OWN_FILES and source else {}
    return session.get("places", earlier)


def read_image_shape(run_dir: Path) -> ImageShape:
    """Height, width, channels of the images that the run was trained on.

    Raises:
        UserError: it was never trained.
    """
    shape = _last_session(run_dir).get("data", {}).get("image_shape")
    if shape is None:
        raise UserError(f"{run_dir / PROVENANCE} does not say what images the run was trained on.")
    return tuple(shape)


def _last_session(run_dir: Path) -> dict[str, Any]:
    sessions = _sessions(run_dir / PROVENANCE)
    return sessions[-1] if sessions else {}


def _sessions(path: Path) -> list[dict[str, Any]]:
    """Those on record; a file that cannot be read is kept under another name."""
    if not path.exists():
        return []
    try:
        return list(read_json(path)["sessions"])
    except (UserError, TypeError, KeyError):
        path.replace(path.with_suffix(".damaged"))
        print(f"bvae: {path} is damaged; kept as {path.stem}.damaged.", file=sys.stderr)
        return []


def end_session(run_dir: Path, end_step: int, wall_seconds: float) -> None:
    """Add to the last session of provenance.json how far it came, and the run's time so far."""
    path = run_dir / PROVENANCE
    provenance = read_json(path)
    provenance["sessions"][-1] |= {"end_step": end_step, "wall_seconds": wall_seconds}
    write_json(path, provenance)


def versions(packages: Sequence[str]) -> dict[str, str | None]:
    """Of installed packages; None for one that is not installed."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def git_commit() -> str | None:
    """The commit of the package's own checkout, with `+changes` when it was edited since."""
    checkout = Path(__file__).parents[1]
    if not (checkout / ".git").exists():  # installed, perhaps inside somebody else's repository
        return None
    describe = ["describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"]
    try:
        described = subprocess.run(
            ["git", "-C", str(checkout), *describe],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()


def umask() -> int:
    """The permissions that new files of this process do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
