"""Arrays in .npz files: read without pickle, in bounded memory, and written whole or not at all.

A foreign file may be damaged, lie about its sizes, or unpack to far more than it should. So no byte
of it is trusted: headers come first, then the data, block by block.
"""

import contextlib
import io
import math
import textwrap
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib import format as npy

from bvae_jax.errors import UserError, printable, say
from bvae_jax.files import replacing

# NumPy's own limit: Python's parser is not safe with more. A true header has some 100 bytes.
HEADER_LIMIT = 10_000
BLOCK = 2**20


class DamagedError(UserError):
    """A file that is not what was written, or not what is wanted, and why."""


class Header(NamedTuple):
    """What an archive says of one of its arrays.

    Attributes:
        start: the first byte of the data.
        fortran: the first axis changes fastest.
    """

    key: str
    info: zipfile.ZipInfo
    start: int
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype


def want(condition: object, otherwise: str) -> None:
    """Raise DamagedError(otherwise) unless the condition holds."""
    if not condition:
        raise DamagedError(otherwise)


def one_line(start: Path | str, text: str) -> str:
    """Names and values from the file can be long, and hold line breaks or terminal codes."""
    return printable(f"{start}: {textwrap.shorten(text[:2000], 500)}")


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """For calls of zipfile and NumPy alone: on damaged bytes they raise a dozen types."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = textwrap.shorten(str(error)[:2000], 150) or type(error).__name__
        raise DamagedError(f"{what} cannot be read ({reason}). Is the file whole?") from error


@contextlib.contextmanager
def open_archive(path: Path, hint: str) -> Iterator[zipfile.ZipFile]:
    """An .npz file, for as long as it is open.

    Args:
        hint: the call of NumPy that writes such a file.

    Raises:
        UserError: the file is missing, or no archive.
    """
    with reading("the file"):
        want(path.exists(), "no such file, wanted an .npz file.")
        # A pipe would have us wait for ever, and so is not opened.
        want(path.is_file(), "is a directory or a device, wanted an .npz file.")
        file = path.open("rb")
    with file:
        with reading("the file"):
            start = file.read(len(npy.MAGIC_PREFIX))
        got = "a single array (.npy)" if start == npy.MAGIC_PREFIX else "no .npz file"
        want(start.startswith(b"PK"), f"is {got}, wanted what {hint} writes.")
        with reading("the archive"):
            archive = zipfile.ZipFile(file)
        with archive:
            yield archive


def members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Members by key.

    Raises:
        UserError: a key is there twice.
    """
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        key = info.filename.removesuffix(".npy")
        want(key not in found, f"holds {key} twice, wanted every key once.")
        found[key] = info
    return found


def read_header(archive: zipfile.ZipFile, key: str, info: zipfile.ZipInfo, wanted: str) -> Header:
    """Type and shape of an array.

    Args:
        wanted: which types are, for the error where it holds objects.

    Raises:
        UserError: they cannot be read, or the array is of a kind that is never unpacked.
    """
    want(not info.flag_bits & 1, f"{key} is encrypted, wanted an archive without a password.")
    # Other methods unpack at one go, and a few bytes may become gigabytes.
    known = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    want(known, f"{key} has a foreign compression, wanted that of np.savez_compressed.")
    with reading(key), archive.open(info) as member, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 2 wrote headers that NumPy warns of.
        version = npy.read_magic(member)
        want(version in ((1, 0), (2, 0)), f"{key} has .npy version {version}, wanted 1.0 or 2.0.")
        is_old = version == (1, 0)
        prefix = member.read(2 if is_old else 4)
        length = int.from_bytes(prefix, "little")
        small = length <= HEADER_LIMIT
        want(small, f"{key} has a header of {length} bytes, wanted at most {HEADER_LIMIT}.")
        parse = npy.read_array_header_1_0 if is_old else npy.read_array_header_2_0
        shape, fortran, dtype = parse(io.BytesIO(prefix + member.read(length)))
    start = npy.MAGIC_LEN + len(prefix) + length
    # Such numbers are not shown: Python may refuse to.
    valid = all(0 <= length < 2**63 for length in shape)
    want(valid, f"{key} has a shape with negative or impossible numbers, wanted an array.")
    want(not dtype.hasobject, f"{key} holds objects, which are never loaded; wanted {wanted}.")
    return Header(key, info, start, tuple(map(int, shape)), fortran, dtype)


def check_size(header: Header) -> None:
    """The archive's directory and the array's own header must agree on its size.

    Raises:
        UserError: they do not.
    """
    key, info, start, shape, _, dtype = header
    got, claimed = info.file_size - start, math.prod(shape) * dtype.itemsize
    want(got == claimed, f"{key} has {got} bytes of data, but shape {shape} needs {claimed}.")


def read_blocks(archive: zipfile.ZipFile, header: Header, size: int) -> Iterator[bytes]:
    """The data of an array, in blocks of `size` bytes; the last may be shorter.

    Raises:
        UserError: it is damaged.
    """
    with reading(header.key):
        member = archive.open(header.info)
    with member:
        with reading(header.key):
            member.read(header.start)
        while True:
            with reading(header.key):  # not while the caller works with the block
                block = member.read(size)
            if not block:
                return
            yield block


def read_array(archive: zipfile.ZipFile, header: Header) -> np.ndarray:
    """A whole array.

    Raises:
        DamagedError: it is damaged, or not as large as its header says.
    """
    check_size(header)
    data = bytearray()  # grows with what is really there, whatever was claimed
    for block in read_blocks(archive, header, BLOCK):
        data += block
    with reading(header.key):
        array = np.frombuffer(data, header.dtype)
        return array.reshape(header.shape, order="F" if header.fortran else "C")


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file; nothing in it is executed.

    Raises:
        DamagedError: it cannot be read.
    """
    with open_archive(path, "np.savez") as archive:
        headers = [
            read_header(archive, key, info, "numbers or texts")
            for key, info in members(archive).items()
        ]
        return {header.key: read_array(archive, header) for header in headers}


def write_npz(path: Path, *, compress: bool = False, **arrays: np.ndarray | str) -> None:
    """Write a file so that a reader sees the old one or the new one.

    Where that cannot be done, one line on stderr says so.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            (np.savez_compressed if compress else np.savez)(file, **arrays)  # pyright: ignore
    except OSError as error:
        say(f"cannot write {path} ({error}): going on without.")
