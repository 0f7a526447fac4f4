"""A user's .npz file of representation codes, read without trusting a byte of it.

All headers come first: types, shapes and sizes are checked before any array is unpacked.
"""

import contextlib
import io
import math
import os
import sys
import textwrap
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib import format as npy

from bvae_jax.errors import UserError

# What an array holds and its axes. Axes of one name are equally long; the first array sets it.
FIELDS = {
    "codes": ("real", ("n", "latent")),
    "factors": ("whole", ("n", "factor")),
    "logvars": ("real", ("n", "latent")),
    "kl": ("real", ("latent",)),
    "factor_sizes": ("whole", ("factor",)),
    "factor_names": ("text", ("factor",)),
    "codes_test": ("real", ("m", "latent")),
    "factors_test": ("whole", ("m", "factor")),
}
# NumPy's letters for the types of each kind. Floats pass as whole: `_whole` says what to do.
KINDS = {"real": "fiu", "whole": "iuf", "text": "U"}
WANTED = {
    "real": "float16, float32, float64 or integers",
    "whole": "whole numbers (class indices) of an integer type",
    "text": "unicode strings, as np.array(names, dtype=str)",
}
# In bytes: a quarter of the memory.
LIMIT = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
# NumPy's own limit: Python's parser is not safe with more. A true header has some 100 bytes.
HEADER_LIMIT = 10_000


class _Header(NamedTuple):
    info: zipfile.ZipInfo
    start: int  # The first byte of the data.
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype


def read_points(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of `FIELDS` that the file holds; name its other keys on stderr.

    Args:
        path: An .npz file with at least `codes` and `factors`, as `np.savez` writes it.

    Returns:
        Arrays by key, in native byte order and C order: real ones as float32 (float64 stays),
        whole ones as int32, text as it is.

    Raises:
        UserError: The file is missing, damaged, too large, or does not hold what is wanted.
    """
    try:
        points, unused = _read_file(path)
    except UserError as error:
        raise UserError(_one_line(path, str(error))) from error
    if unused:
        print(_one_line(f"bvae: {path}", f"keys not used: {', '.join(unused)}"), file=sys.stderr)
    return points


def _one_line(start: Path | str, text: str) -> str:
    """Names and values from the file can be long, and hold line breaks or terminal codes."""
    line = f"{start}: {textwrap.shorten(text[:2000], 500)}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def _want(condition: object, otherwise: str) -> None:
    if not condition:
        raise UserError(otherwise)


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    """For calls of zipfile and NumPy alone: on damaged bytes they raise a dozen types."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = textwrap.shorten(str(error)[:2000], 150) or type(error).__name__
        raise UserError(f"{what} cannot be read ({reason}). Is the file whole?") from error


def _read_file(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    with contextlib.ExitStack() as stack:
        with _reading("the file"):
            _want(path.exists(), "no such file, wanted an .npz file.")
            # A pipe would have us wait for ever, and so is not opened.
            _want(path.is_file(), "is a directory or a device, wanted an .npz file.")
            file = stack.enter_context(path.open("rb"))
            start = file.read(len(npy.MAGIC_PREFIX))
        got = "a single array (.npy)" if start == npy.MAGIC_PREFIX else "no .npz file"
        wanted = "wanted what np.savez(FILE, codes=codes, factors=factors) writes"
        _want(start.startswith(b"PK"), f"is {got}, {wanted}.")
        with _reading("the archive"):
            archive = stack.enter_context(zipfile.ZipFile(file))
        members, unused = _members(archive)
        headers = {key: _read_header(archive, key, info) for key, info in members.items()}
        _check_headers(headers)
        return _read_arrays(archive, headers), unused


def _members(archive: zipfile.ZipFile) -> tuple[dict[str, zipfile.ZipInfo], list[str]]:
    """Members of known keys in the order of `FIELDS`, and the other keys."""
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        key = info.filename.removesuffix(".npy")
        _want(key not in found, f"holds {key} twice, wanted every key once.")
        found[key] = info
    for key in ("codes", "factors"):
        keys = ", ".join(found) or "none"
        _want(key in found, f"holds no {key}, wanted codes and factors. Its keys: {keys}.")
    both = ("codes_test" in found) == ("factors_test" in found)
    _want(both, "holds only one of codes_test and factors_test, wanted both or neither.")
    return {k: found[k] for k in FIELDS if k in found}, [k for k in found if k not in FIELDS]


def _read_header(archive: zipfile.ZipFile, key: str, info: zipfile.ZipInfo) -> _Header:
    _want(not info.flag_bits & 1, f"{key} is encrypted, wanted an archive without a password.")
    # Other methods unpack at one go, and a few bytes may become gigabytes.
    known = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    _want(known, f"{key} has a foreign compression, wanted that of np.savez_compressed.")
    with _reading(key), archive.open(info) as member, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 2 wrote headers that NumPy warns of.
        version = npy.read_magic(member)
        _want(version in ((1, 0), (2, 0)), f"{key} has .npy version {version}, wanted 1.0 or 2.0.")
        is_old = version == (1, 0)
        prefix = member.read(2 if is_old else 4)
        length = int.from_bytes(prefix, "little")
        small = length <= HEADER_LIMIT
        _want(small, f"{key} has a header of {length} bytes, wanted at most {HEADER_LIMIT}.")
        parse = npy.read_array_header_1_0 if is_old else npy.read_array_header_2_0
        shape, fortran, dtype = parse(io.BytesIO(prefix + member.read(length)))
    start = npy.MAGIC_LEN + len(prefix) + length
    return _Header(info, start, tuple(map(int, shape)), fortran, dtype)


def _check_headers(headers: dict[str, _Header]) -> None:
    first: dict[str, tuple[str, int]] = {}  # By axis: the key that set its length.
    for key, (info, start, shape, _, dtype) in headers.items():
        kind, names = FIELDS[key]
        axes, wanted = f"[{', '.join(names)}]", WANTED[kind]
        # Such numbers are not shown: Python may refuse to.
        valid = all(0 <= length < 2**63 for length in shape)
        _want(valid, f"{key} has a shape with negative or impossible numbers, wanted {axes}.")
        _want(not dtype.hasobject, f"{key} holds objects, which are never loaded; wanted {wanted}.")
        # "g" is long double.
        fits = dtype.kind in KINDS[kind] and dtype.itemsize > 0 and dtype.char != "g"
        _want(fits, f"{key} is {dtype.name}, wanted {wanted}.")
        _want(len(shape) == len(names), f"{key} has shape {shape}, wanted {axes}.")
        _want(0 not in shape, f"{key} has shape {shape}, wanted {axes}, none of them 0.")
        got, claimed = info.file_size - start, math.prod(shape) * dtype.itemsize
        _want(got == claimed, f"{key} has {got} bytes of data, but shape {shape} needs {claimed}.")
        for name, length in zip(names, shape, strict=True):
            other, same = first.setdefault(name, (key, length))
            told = f"{key} {axes} has {name} = {length}, but {other} has {name} = {same}"
            _want(length == same, f"{told}: wanted the same.")
    # As they are returned: small types are widened to four bytes.
    total = sum(math.prod(h.shape) * max(h.dtype.itemsize, 4) for h in headers.values())
    sizes = f"{total / 1e9:.3g} GB, wanted at most {LIMIT / 1e9:.3g} GB (a quarter of the memory)"
    _want(total <= LIMIT, f"its arrays take {sizes}. Save fewer rows.")


def _read_arrays(archive: zipfile.ZipFile, headers: dict[str, _Header]) -> dict[str, np.ndarray]:
    points: dict[str, np.ndarray] = {}
    for key, header in headers.items():
        data = bytearray()  # Grows with what is really there, whatever was claimed.
        with _reading(key), archive.open(header.info) as member:
            member.read(header.start)
            while chunk := member.read(1 << 20):
                data += chunk
            array = np.frombuffer(data, header.dtype)
            array = array.reshape(header.shape, order="F" if header.fortran else "C")
        points[key] = {"real": _real, "whole": _whole, "text": _text}[FIELDS[key][0]](key, array)
    for key in ("factors", "factors_test"):
        if key in points and "factor_sizes" in points:
            sizes, largest = points["factor_sizes"], points[key].max(axis=0)
            small = sizes <= largest
            least = f"{key} has values up to {largest[small]} in columns {np.flatnonzero(small)}"
            _want(not small.any(), f"factor_sizes is {sizes}, but {least}: wanted more.")
    return points


def _refuse(key: str, bad: np.ndarray, what: str) -> None:
    """Raise an error if any value is bad: how many there are, and where the first one is."""
    count, row = np.count_nonzero(bad), np.unravel_index(bad.argmax(), bad.shape)[0]
    _want(not count, f"{key} has {count} {what}; the first in row {row} (counted from 0).")


def _real(key: str, array: np.ndarray) -> np.ndarray:
    _refuse(key, ~np.isfinite(array), "NaN or inf values, wanted finite ones")
    if key == "kl":
        _refuse(key, array < 0, "negative values, wanted none")
    double = array.dtype.kind == "f" and array.dtype.itemsize == 8
    return np.ascontiguousarray(array, np.float64 if double else np.float32)


def _whole(key: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f":
        _refuse(key, ~np.isfinite(array), f"NaN or inf values, wanted {WANTED['whole']}")
        whole = (array == np.rint(array)).all()
        mend = f"save {key}.astype(int)" if whole else "bin the values, e.g. by np.digitize"
        raise UserError(f"{key} is {array.dtype.name}, wanted {WANTED['whole']}: {mend}.")
    _refuse(key, array < 0, "negative values, wanted 0 or more")
    most = np.iinfo(np.int32).max
    _refuse(key, array > most, f"values above {most}, wanted less")
    return np.ascontiguousarray(array, np.int32)


def _text(key: str, array: np.ndarray) -> np.ndarray:
    with _reading(key):  # Only here does NumPy find numbers that stand for no character.
        bad = np.array([not name.isprintable() for name in array.tolist()])
    _refuse(key, bad, "names with unprintable characters, wanted none")
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))
