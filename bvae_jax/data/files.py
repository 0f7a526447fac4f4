"""Files that others publish: where they are looked for, and whether they are whole."""

import contextlib
import hashlib
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bvae_jax.errors import UserError
from bvae_jax.progress import bar

DAMAGES = (
    *(OSError, ValueError, KeyError, TypeError, IndexError, EOFError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, tarfile.TarError, SyntaxError),
)
"""What reading a damaged file raises, of whatever format."""
BLOCK = 2**20
MOST = 12
"""Files that are described in one message."""


class PublishedFile(NamedTuple):
    """A file on somebody's server.

    Attributes:
        name: its own name.
        url: where it is.
        size: in bytes; 0 where it is not known for certain.
        digest: "sha256:..." or "md5:..."; empty where it is not known for certain.
    """

    name: str
    url: str
    size: int = 0
    digest: str = ""

    def described(self) -> str:
        """URL, size and checksum."""
        known = [f"{self.size} bytes" if self.size else "size unknown"]
        known.append(self.digest.replace(":", " ") or "checksum unknown")
        return f"{self.url} ({', '.join(known)})"


def manual_dir(data_dir: Path) -> Path:
    """Where files lie that were fetched by hand."""
    return data_dir / "downloads" / "manual"


def find(file: PublishedFile, data_dir: Path) -> Path | None:
    """A file that was fetched by hand: in the data directory, or in downloads/manual there."""
    places = [data_dir / file.name, manual_dir(data_dir) / file.name]
    return next((path for path in places if path.exists()), None)


def missing(name: str, files: Sequence[PublishedFile], place: Path) -> UserError:
    """The error for files that are not there and cannot be fetched."""
    wanted = "; ".join(file.described() for file in files[:MOST])
    others = f" and {len(files) - MOST} others" if len(files) > MOST else ""
    names = ", ".join(file.name for file in files[:MOST])
    return UserError(
        f"{name}: fetch by hand {wanted}{others}. Put {names}{others} into {place}, then: "
        f"bvae data prepare {name}."
    )


def check(path: Path, file: PublishedFile, *, progress: bool = True) -> None:
    """See whether a file is what was published, as far as that is known.

    Raises:
        UserError: it is no file, cannot be read, or has another size or checksum.
    """
    again = f"fetch it again from {file.url}"
    if not path.is_file():
        raise UserError(f"{path}: got a directory, wanted the file {file.name}: {again}.")
    size = path.stat().st_size
    if not size or (file.size and size != file.size):
        raise UserError(f"{path}: got {size} bytes, wanted {file.size or 'more'}: {again}.")
    if not file.digest:
        return
    method, _, wanted = file.digest.partition(":")
    with reading(path, again):
        got = _digest(path, method, progress)
    if got != wanted:
        raise UserError(f"{path}: got {method} {got}, wanted {wanted}: {again}.")


def _digest(path: Path, method: str, progress: bool) -> str:
    digest = hashlib.new(method, usedforsecurity=False)
    total, name = path.stat().st_size, f"checking {path.name}"
    shown = bar(total=total, desc=name, unit="B", unit_scale=True, disable=not progress)
    with path.open("rb") as file, shown:
        while block := file.read(BLOCK):
            digest.update(block)
            shown.update(len(block))
    return digest.hexdigest()


@contextlib.contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Turn what a damaged file raises into one line.

    Args:
        path: the file.
        remedy: what to do about it.

    Raises:
        UserError: the file is damaged.
    """
    try:
        yield
    except DAMAGES as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be read ({reason}): {remedy}.") from error
