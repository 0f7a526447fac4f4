"""Codes in an .npz file, read without trusting a byte of it.

All headers come first, and types, shapes and sizes are checked before any array is unpacked.
"""

import contextlib
import math
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bvae_jax.continuous import AS_NUMBERS, classes_together, periods
from bvae_jax.errors import UserError, say
from bvae_jax.files import ranks
from bvae_jax.files.archive import (
    Header,
    check_size,
    members,
    one_line,
    open_archive,
    read_array,
    read_header,
    reading,
    want,
)

# What an array holds and its axes. Axes of one name are equally long; the first array sets it.
FIELDS = {
    "codes": ("real", ("n", "latent")),
    "factors": ("labels", ("n", "factor")),
    "logvars": ("real", ("n", "latent")),
    "kl": ("real", ("latent",)),
    "factor_sizes": ("whole", ("factor",)),
    "factor_names": ("text", ("factor",)),
    "codes_test": ("real", ("m", "latent")),
    "factors_test": ("labels", ("m", "factor")),
    "continuous": ("declared", ("name",)),
}
# What `bvae encode` adds, which no score needs.
UNREAD = ("indices", "files")
# NumPy's letters for the types of each kind. Floats pass as whole: `_whole` says what to do.
KINDS = {"real": "fiu", "whole": "iuf", "labels": "iufbSU", "text": "U", "declared": "U"}
WANTED = {
    "real": "float16, float32, float64 or integers",
    "whole": "whole numbers (class indices) of an integer type",
    "labels": "whole numbers (class indices) of an integer type, or strings",
    "text": "unicode strings, as np.array(names, dtype=str)",
    "declared": "a text, the names of those factors that are numbers, as 'x,angle=360'",
}
WEIGHTS = "holds the weights of a run, wanted codes and factors: give the run."
# In bytes: a quarter of the memory.
LIMIT = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4


def check_codes(path: Path) -> None:
    """Raise at once what the headers of a file's arrays tell is wrong with them.

    Raises:
        UserError: as `read_arrays`.
    """
    with _opened(path) as archive:
        _headers(archive)


def read_arrays(path: Path, continuous: str = "") -> dict[str, Any]:
    """Read the arrays of `FIELDS` that the file holds; name its other keys on stderr.

    Args:
        path: an .npz file with at least `codes` and `factors`, as `np.savez` writes it.
        continuous: factors that are numbers, beside those that the file says are.

    Returns:
        Arrays in native byte order and C order: real ones as float32 (float64 stays), whole ones
        as int32, text as it is. Where some factors are numbers, also `values` [n, factor] and
        `values_test` as float64; `continuous`, what the file says, as one text.

    Raises:
        UserError: the file is missing, damaged, too large, or does not hold what is wanted.
    """
    with _opened(path) as archive:
        headers, unused = _headers(archive)
        arrays = _read_arrays(archive, headers, continuous)
    if unused:
        say(one_line(path, f"keys not used: {', '.join(unused)}"))
    return arrays


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The file; its name is put before what is wrong with it."""
    try:
        want(path.suffix != ".safetensors", WEIGHTS)
        with open_archive(path, "np.savez(FILE, codes=codes, factors=factors)") as archive:
            yield archive
    except UserError as error:
        raise UserError(one_line(path, str(error))) from error


def _headers(archive: zipfile.ZipFile) -> tuple[dict[str, Header], list[str]]:
    """Headers by key, checked, and the keys that are not used."""
    found, unused = _members(archive)
    headers = {
        key: read_header(archive, key, info, WANTED[FIELDS[key][0]]) for key, info in found.items()
    }
    _check_headers(headers)
    return headers, unused


def _members(archive: zipfile.ZipFile) -> tuple[dict[str, zipfile.ZipInfo], list[str]]:
    """Members of known keys in the order of `FIELDS`, and the other keys."""
    found = members(archive)
    want(not {"format", "params_sha256"} <= found.keys(), WEIGHTS)
    for key in ("codes", "factors"):
        keys = ", ".join(found) or "none"
        want(key in found, f"holds no {key}, wanted codes and factors. Its keys: {keys}.")
    both = ("codes_test" in found) == ("factors_test" in found)
    want(both, "holds only one of codes_test and factors_test, wanted both or neither.")
    unused = [k for k in found if k not in (*FIELDS, *UNREAD)]
    return {k: found[k] for k in FIELDS if k in found}, unused


def _check_headers(headers: dict[str, Header]) -> None:
    first: dict[str, tuple[str, int]] = {}  # By axis: the key that set its length.
    for key, header in headers.items():
        shape, dtype = header.shape, header.dtype
        kind, names = FIELDS[key]
        axes, wanted = f"[{', '.join(names)}]", WANTED[kind]
        # "g" is long double.
        fits = dtype.kind in KINDS[kind] and dtype.itemsize > 0 and dtype.char != "g"
        want(fits, f"{key} is {dtype.name}, wanted {wanted}.")
        # One column, or one text.
        one = (kind == "labels" and len(shape) == 1) or (kind == "declared" and not shape)
        shape = (*shape, 1) if one else shape
        want(len(shape) == len(names), f"{key} has shape {shape}, wanted {axes}.")
        want(0 not in shape, f"{key} has shape {shape}, wanted {axes}, none of them 0.")
        check_size(header)
        for name, length in zip(names, shape, strict=True):
            other, same = first.setdefault(name, (key, length))
            told = f"{key} {axes} has {name} = {length}, but {other} has {name} = {same}"
            want(length == same, f"{told}: wanted the same.")
    # As they are returned: small types are widened to four bytes.
    total = sum(math.prod(h.shape) * max(h.dtype.itemsize, 4) for h in headers.values())
    sizes = f"{total / 1e9:.3g} GB, wanted at most {LIMIT / 1e9:.3g} GB (a quarter of the memory)"
    want(total <= LIMIT, f"its arrays take {sizes}. Save fewer rows.")


def _read_arrays(
    archive: zipfile.ZipFile, headers: dict[str, Header], continuous: str
) -> dict[str, Any]:
    points: dict[str, Any] = {key: read_array(archive, of) for key, of in headers.items()}
    text = ",".join(points.pop("continuous", np.array("")).reshape(-1).tolist())
    numbers = _numbers(points, text, continuous) if text or continuous else {}
    _index_labels(points)
    read = {"real": _real, "whole": _whole, "labels": _whole, "text": _text}
    points = {key: read[FIELDS[key][0]](key, array) for key, array in points.items()}
    for key in ("factors", "factors_test"):
        if key in points and "factor_sizes" in points:
            sizes, largest = points["factor_sizes"], points[key].max(axis=0)
            small = sizes <= largest
            least = f"{key} has values up to {largest[small]} in columns {np.flatnonzero(small)}"
            want(not small.any(), f"factor_sizes is {sizes}, but {least}: wanted more.")
    return {**points, **numbers, **({"continuous": text} if text else {})}


def _numbers(points: dict[str, Any], *declared: str) -> dict[str, Any]:
    """Values of those factors that either declaration says are numbers; they become classes."""
    keys = [key for key in ("factors", "factors_test") if key in points]
    arrays = [points[key].reshape(len(points[key]), -1) for key in keys]
    names = [f"factor {k}" for k in range(arrays[0].shape[1])]
    if "factor_names" in points:
        names = _text("factor_names", points["factor_names"]).tolist()
    first, other = (periods(text, names) for text in declared)
    of = np.where(np.isnan(other), first, other)
    if np.isnan(of).all():
        return {}
    for key, array in zip(keys, arrays, strict=True):
        real = array.dtype.kind in "iuf"
        kind = "text" if array.dtype.kind in "SU" else array.dtype.name
        want(real, f"{key} is {kind}, but continuous names some numbers: {AS_NUMBERS}.")
    values = [np.ascontiguousarray(array, np.float64) for array in arrays]
    parts, sizes = classes_together(arrays, values, of, names, points.get("factor_sizes"))
    points |= dict(zip(keys, parts, strict=True)) | (
        {} if sizes is None else {"factor_sizes": sizes}
    )
    return {k.replace("factors", "values"): v for k, v in zip(keys, values, strict=True)}


def _index_labels(points: dict[str, np.ndarray]) -> None:
    """One column of labels as [n, 1]; texts as indices, in `natural` order: 2 before 10."""
    keys = [key for key in ("factors", "factors_test") if key in points]
    for key in keys:
        points[key] = points[key].reshape(len(points[key]), -1)
    if any(points[key].dtype.kind in "bSU" for key in keys):
        with reading("factors"):  # bytes that are no text
            texts = [points[key].astype(str) for key in keys]
        columns = []
        for column in np.concatenate(texts).T:
            known, places = np.unique(column, return_inverse=True)
            columns.append(ranks(known.tolist())[places])
        indices = np.split(np.stack(columns, axis=1), [len(texts[0])])
        points |= dict(zip(keys, indices, strict=False))


def _refuse(key: str, bad: np.ndarray, what: str) -> None:
    """Raise an error if any value is bad: how many there are, and where the first one is."""
    count, row = np.count_nonzero(bad), np.unravel_index(bad.argmax(), bad.shape)[0]
    want(not count, f"{key} has {count} {what}; the first in row {row} (counted from 0).")


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
        mend = (
            f"save {key}.astype(int)"
            if whole
            else "bin the values, e.g. by np.digitize, or say which are numbers by --continuous"
        )
        raise UserError(f"{key} is {array.dtype.name}, wanted {WANTED['whole']}: {mend}.")
    _refuse(key, array < 0, "negative values, wanted 0 or more")
    most = np.iinfo(np.int32).max
    _refuse(key, array > most, f"values above {most}, wanted less")
    return np.ascontiguousarray(array, np.int32)


def _text(key: str, array: np.ndarray) -> np.ndarray:
    with reading(key):  # only here does NumPy find numbers that are no characters
        bad = np.array([not name.isprintable() for name in array.tolist()])
    _refuse(key, bad, "names with unprintable characters, wanted none")
    want(len(set(array.tolist())) == len(array), f"{key} has a name twice, wanted different ones.")
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))
