"""What is written beside its place before it is moved there, and is held by its writer meanwhile.

A process that is killed leaves its part behind; the next writer removes it.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def held(part: Path) -> Iterator[None]:
    """Say that a file or directory is not abandoned; on a file system without locks nothing is."""
    descriptor = _locked(part)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def remove_abandoned(directory: Path, pattern: str) -> None:
    """Remove the parts that nobody holds.

    Args:
        pattern: of their names, as of `Path.glob`.
    """
    for part in directory.glob(pattern):
        with contextlib.suppress(OSError):
            # One that was made just now is empty, and not yet held.
            if any(part.iterdir()) if part.is_dir() else part.stat().st_size:
                _remove(part)


def _remove(part: Path) -> None:
    descriptor = _locked(part)
    if descriptor is None:
        return
    try:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink()
    finally:
        os.close(descriptor)


def _locked(part: Path) -> int | None:
    """A descriptor that locks a file or directory; None where it is locked or cannot be."""
    descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
