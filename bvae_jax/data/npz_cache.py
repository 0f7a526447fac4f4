"""Caches in .npz files: whole or not there, and never worth failing for."""

import contextlib
import glob
import os
import sys
from pathlib import Path

import numpy as np

from bvae_jax.files import (
    held,
    remove_abandoned,
)


class DamagedError(Exception):
    """A file that is not what was written, and why."""


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file; nothing in it is executed.

    Raises:
        DamagedError: it cannot be read.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return dict(archive)
    except Exception as error:  # on damaged bytes zipfile and NumPy raise a dozen types
        raise DamagedError(str(error) or type(error).__name__) from error


def write_npz(path: Path, *, compress: bool = False, **arrays: np.ndarray | str) -> None:
    """Write a file so that a reader sees the old one or the new one.

    Where that cannot be done, one line on stderr says so.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent, f".{glob.escape(path.name)}.*.part")
        with part.open("wb") as file, held(part):
            (np.savez_compressed if compress else np.savez)(file, **arrays)  # pyright: ignore
            file.flush()
            part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        print(f"bvae: cannot write {path} ({error}): going on without.", file=sys.stderr)
