"""Sets made from a user's own files: prepared once, and again when the files change."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bvae_jax.data.base import Dataset
from bvae_jax.data.prepared import open_prepared, place

VERSION = 2
"""To be raised when the same files would be prepared otherwise."""
STATE = "state"
"""In a prepared set's meta: of the files that it was made from."""
DARK = 16
"""Of 255: where no pixel is lighter, the numbers are of another scale."""
LONGEST = 40
"""Letters of a file's name that become part of its directory's."""

Prepare = Callable[[Path, dict[str, Any]], None]
"""(directory, what its meta must hold) -> None: write the prepared set."""


def open_own(
    name: str,
    path: Path,
    prepare: Prepare,
    *,
    data_dir: Path,
    options: Any,
    state: Any,
    progress: bool = False,
) -> Dataset:
    """The set that was prepared from `path`, which is prepared first where that is necessary.

    Args:
        name: what `--dataset` calls it.
        path: of the user's files.
        prepare: what makes it.
        data_dir: where prepared sets lie.
        options: how it is prepared: those of each way lie side by side.
        state: of the files, of JSON's types: another one replaces what was prepared.
        progress: show a bar while what was prepared is compared with its checksum.

    Raises:
        UserError: it cannot be prepared, or is damaged.
    """
    source = text(str(path.resolve()))
    kind = name.partition(":")[0]
    # One place for each path, so that a folder that changes does not fill the disk.
    directory = place(data_dir, f"{kind}-{path.stem[:LONGEST]}", source, options)
    digest = hashlib.sha256(json.dumps([VERSION, state]).encode()).hexdigest()
    if _state(directory) != digest:
        prepare(directory, {STATE: digest, "source": source})
    opened = open_prepared(directory, name=name, progress=progress)
    return dataclasses.replace(opened, kind=kind)


def all_but_black(lightest: int) -> str:
    """Why images whose lightest pixel is this, of 255, are refused; "" where they are not."""
    if lightest > DARK:
        return ""
    return (
        f"got images whose lightest pixel is {lightest} of 255, wanted black to white: scale them "
        "(12 bits that are kept in 16 by 16, masks of 0 and 1 by 255)."
    )


def text(name: str) -> str:
    """A file's name as JSON can hold it: names need not be UTF-8."""
    return name.encode("utf-8", "replace").decode()


def _state(directory: Path) -> str | None:
    try:
        return json.loads((directory / "meta.json").read_bytes()).get(STATE)
    except (OSError, ValueError, AttributeError):
        return None  # not there, or damaged: its files are at hand
