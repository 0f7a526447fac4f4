"""Files that are written whole or not at all, and JSON.

What is written lies beside its place, held by its writer, before it is moved there. A process that
is killed leaves its part behind; the next writer removes it.
"""

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from bvae_jax.errors import UserError

# A minus after a letter or a digit is a hyphen: img-2, 2024-05-01.
NUMBER = re.compile(r"((?:(?<![^\W_])-)?\d+(?:\.\d+)?)")


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


CHECKSUM = "checksum"
"""The key of an object under which the digest of the rest stands."""
_PLAIN = {float: int | float, int: int, str: str, bool: bool, type(None): type(None)}
_NAMES = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}
_NAMES |= {list: "a list", dict: "an object", type(None): "null"}


def write_json(path: Path, value: Any, *, checksum: bool = False) -> None:
    """Write `value` as `write_text` does.

    Args:
        checksum: an object gets one more key, by which `read_json` knows that it is what was
            written.

    Raises:
        UserError: a number is not finite, for which JSON has no word.
    """
    try:
        value = json.loads(json.dumps(value, allow_nan=False))
    except ValueError:
        raise UserError(f"{path} is not written: a number in it is not finite.") from None
    if checksum:
        value[CHECKSUM] = digest(value)
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, sees the old one or the new one."""
    # Names of files may hold bytes that are no UTF-8.
    with replacing(path, "x", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)


@contextlib.contextmanager
def replacing(path: Path, mode: str = "xb", **options: Any) -> Iterator[IO[Any]]:
    """A file beside its place, which is moved there at the end, or removed after an exception.

    Args:
        mode: "x" for text, with the options of `open`, or "xb".
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with blaming(path):
        remove_abandoned(path.parent, f".{glob.escape(path.name)}.*.part")
        part.unlink(missing_ok=True)  # never through a link
        try:
            with part.open(mode, **options) as file, held(part):
                yield file
                file.flush()
                os.fsync(file.fileno())
                part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A directory to fill, which is moved to its place at the end, or removed after an exception.

    Raises:
        OSError: in its place is something by then that is no empty directory.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = {"prefix": f".{path.name}-", "dir": path.parent}
    with blaming(path), tempfile.TemporaryDirectory(**beside, ignore_cleanup_errors=True) as place:
        part = Path(place, "new")
        part.mkdir()  # with the permissions of any new directory, which `place` has not
        yield part
        part.rename(path)


@contextlib.contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Let the system's errors name `path`, where they name nothing, as when a disk is full, or a
    hidden part of it that is written beside it."""
    try:
        yield
    except OSError as error:
        hidden = str(path.with_name(f".{path.name}"))
        named = [str(name) for name in (error.filename, error.filename2) if name]
        if error.errno and (not named or any(name.startswith(hidden) for name in named)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def read_json(
    path: Path, shape: Any = dict, *, mend: str = "Put back a copy, or start anew."
) -> Any:
    """The value in a JSON file, without its checksum, of which files need have none.

    Args:
        shape: what the reader relies on: a plain type, `list[...]`, `dict[str, ...]`, a union of
            them, or a TypedDict, beside whose keys there may be more.
        mend: what is done about a damaged one, for the error.

    Raises:
        UserError: it is not JSON, not of this shape, or not what was written.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        expected = value.pop(CHECKSUM, None) if isinstance(value, dict) else None
        if expected is not None and expected != digest(value):
            raise ValueError("its contents are not those of its checksum")
        if found := misfit(value, shape):
            raise ValueError(found)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}. {mend}") from None
    return value


def digest(value: Any) -> str:
    """SHA-256 of a value of JSON's types, however it is laid out in a file."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def misfit(value: Any, shape: Any, where: str = "") -> str:
    """In words where a value is not of a shape (see `read_json`); empty if it is."""
    kind: Any = typing.get_origin(shape) or shape
    if kind is Any:
        return ""
    if kind in (typing.Union, types.UnionType):
        found = [misfit(value, one, where) for one in typing.get_args(shape)]
        return "" if "" in found else found[0]
    if kind in _PLAIN:
        fits = isinstance(value, _PLAIN[kind]) and isinstance(value, bool) == (kind is bool)
        return "" if fits else _wanted(value, kind, where)
    container = list if kind is list else dict
    if not isinstance(value, container):
        return _wanted(value, container, where)
    parts: dict[Any, Any] = dict(enumerate(value)) if isinstance(value, list) else value
    if typing.is_typeddict(kind):
        kinds = typing.get_type_hints(kind)
        if lacking := sorted(vars(kind)["__required_keys__"] - parts.keys()):
            return f"{where or 'it'} has no {lacking[0]}"
    else:
        *_, inner = typing.get_args(shape) or (Any,)
        kinds = dict.fromkeys(parts, inner)
    found = (
        misfit(parts[n], k, f"{where}.{n}".lstrip(".")) for n, k in kinds.items() if n in parts
    )
    return next(filter(None, found), "")


def _wanted(value: Any, kind: type, where: str) -> str:
    return f"{where or 'it'} is {_NAMES[type(value)]}, wanted {_NAMES[kind]}"


def natural(name: str) -> tuple[list[str | float], str]:
    """What names are sorted by so that their numbers are in order: -5, 0.5, 2, 10; x2, x10."""
    parts = NUMBER.split(name)
    return [float(part) if i % 2 else part for i, part in enumerate(parts)], name


def ranks(names: Sequence[str]) -> np.ndarray:
    """The place of each name in `natural` order."""
    return np.argsort(sorted(range(len(names)), key=lambda i: natural(names[i])))
