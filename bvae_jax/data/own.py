"""Sets made from a user's own files: prepared once, and again when the files change."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bvae_jax.data.base import Dataset
from bvae_jax.data.prepared import open_prepared

VERSION = 1
"""To be raised when the same files would be prepared otherwise."""
KINDS = ("folder", "npz")
"""What such sets are called before the colon."""
MADE_FROM = "made_from"
"""In a prepared set's meta: the state of the files that it was made from."""

Prepare = Callable[[Path, dict[str, Any]], None]
"""(directory, what its meta must hold) -> None: write the prepared set."""


def open_own(
    name: str, path: Path, prepare: Prepare, *, data_dir: Path, options: Any, state: Any
) -> Dataset:
    """The set that was prepared from `path`, which is prepared first where that is necessary.

    Args:
        name: what `--dataset` calls it.
        path: of the user's files.
        prepare: what makes it.
        data_dir: where prepared sets lie.
        options: how it is prepared: those of each way lie side by side.
        state: of the files; another state replaces what was prepared. Both are of JSON's types.

    Raises:
        UserError: it cannot be prepared, or is damaged.
    """
    kind = name.partition(":")[0]
    slug = re.sub(r"[^\w-]+", "-", path.stem)[:40]
    # One place for each path, so that a folder that changes does not fill the disk.
    place = _digest([kind, str(path.resolve()), options])[:16]
    directory = data_dir / f"{kind}-{slug}-{place}"
    made_from = _digest([VERSION, state])
    if _made_from(directory) != made_from:
        prepare(directory, {MADE_FROM: made_from, "source": text(str(path.resolve()))})
    return open_prepared(directory, name=name)


def text(name: str) -> str:
    """A file's name as JSON can hold it: names need not be UTF-8."""
    return name.encode("utf-8", "replace").decode()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _made_from(directory: Path) -> str | None:
    try:
        return json.loads((directory / "meta.json").read_bytes()).get(MADE_FROM)
    except (OSError, ValueError, AttributeError):
        return None  # not there, or damaged: its files are at hand
