"""A user's .npz file of images as a data set: read without pickle, in bounded memory.

- `images`: [image, height, width] or [image, height, width, channel], uint8, bool, or floats in
  [0, 1], which are kept as the nearest of 256 levels. Those of two values, 0 and 1 or 0 and 255,
  are kept as bits.
- `factors`: [image, factor] or [image], whole numbers, texts, or floats of few values; each
  column's values, sorted (texts by the numbers in them), are its classes. `labels` is another name
  for it.
- `factor_names`: [factor], texts.
- `continuous`: which factors are numbers, as "x,angle=360" (see `continuous.py`). Their values are
  kept; of more than 20, 20 bins are its classes.

The last three may be absent.
"""

import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

from bvae_jax.continuous import (
    AS_NUMBERS,
    BINS,
    binned,
    check_values,
    in_words,
    periods,
    remarks,
)
from bvae_jax.data.base import Dataset
from bvae_jax.data.columns import in_grid_order
from bvae_jax.data.published import PUBLISHED, manual_dir
from bvae_jax.data.store import Writer, all_but_black, open_own, own_place
from bvae_jax.errors import UserError, say
from bvae_jax.files import ranks
from bvae_jax.files.archive import (
    Header,
    check_size,
    members,
    one_line,
    open_archive,
    read_array,
    read_blocks,
    read_header,
    reading,
    want,
)
from bvae_jax.runtime import bar
from bvae_jax.types import ImageShape

HINT = "np.savez(FILE, images=images)"
WANTED = "uint8, bool, or floats in [0, 1]"
AXES = "[image, height, width] or [image, height, width, channel]"
LARGEST_SIDE = 4096
MOST_CHANNELS = 64
FEWEST, MOST = 3, 50_000_000
"""Images; of more, a split alone takes minutes."""
BLOCK_BYTES = 2**22
SLACK = 1e-4
"""By which floats may leave [0, 1]: the rounding of an interpolation."""
WANTED_DECLARED = "a text, as 'x,angle=360'"
WANTED_FACTORS = "whole numbers, [image] or [image, factor]"
FACTOR_KEYS = ("factors", "labels")
MOST_COLUMNS = 1024
MOST_FRACTIONS = 256
"""Values that a column of floats may have, which are not whole."""

Levels = UInt8[np.ndarray, "image height width channels"]


def open_npz(path: Path, *, data_dir: Path, progress: bool) -> Dataset:
    """The images of a file, prepared when it is opened first, and again when it changes.

    Args:
        path: the file.
        data_dir: where prepared sets lie.
        progress: show a bar while it is prepared.

    Raises:
        UserError: the file is missing, damaged, or does not hold what is wanted.
    """
    name, file = f"npz:{path}", path.expanduser()
    directory, meta = own_place(name, file, data_dir=data_dir, options=[], state=_state(file))
    if meta:
        shown = f"reading {file.name} (once)" if progress else ""
        hint = _published_hint(file.name, data_dir)
        try:
            with open_archive(file, HINT) as archive:
                notes = _prepare(archive, directory, meta, shown)
        except UserError as error:
            raise UserError(one_line(file, f"{error} {hint}".strip())) from error
        if hint:
            say(f"{file}: {hint}")
        for note in notes:
            say(one_line(file, note))
    return open_own(directory, name, progress=progress)


def _published_hint(name: str, data_dir: Path) -> str:
    """What to do with a file that a published set is made from, by its name; "" for others."""
    known = next((known for known, one in PUBLISHED.items() if one.file.name == name), None)
    if known is None:
        return ""
    return (
        "It is a published file, whose factors are known: put it into "
        f"{manual_dir(data_dir)}, and choose --dataset {known}."
    )


def _state(file: Path) -> list[tuple[str, int, int]]:
    """What the archive's directory says of its members, their checksums among it: nothing of a file
    that is none, which `prepare` will say."""
    try:
        with open_archive(file, HINT) as archive:
            found = [(info.filename, info.file_size, info.CRC) for info in archive.infolist()]
            # Numbers were once prepared with up to 256 classes.
            return found + [("bins", BINS, 0)] * ("continuous" in members(archive))
    except UserError:
        return []


def _prepare(
    archive: zipfile.ZipFile, directory: Path, meta: dict[str, Any], shown: str
) -> tuple[str, ...]:
    """Write the prepared set; `shown` is what a bar is called, "" for none.

    Returns:
        What is odd about its factors, a line for each.
    """
    found = members(archive)
    want("images" in found, f"holds no images, wanted {WANTED}. Its keys: {', '.join(found)}.")
    header = read_header(archive, "images", found["images"], WANTED)
    shape = image_shape(header)
    count = header.shape[0]
    factors = read_factors(archive, found, count)
    white = _white(_read_levels(archive, header, shape), header.dtype)
    with (
        Writer(directory, shape, images=count, packed=white > 0) as writer,
        bar(total=count, desc=shown, unit=" images", disable=not shown) as progress,
    ):
        done = 0
        for levels in _read_levels(archive, header, shape):
            writer.add((levels == white).astype(np.uint8) if white else levels)
            done += len(levels)
            progress.update(len(levels))
        want(done == count, f"images ends after {done} of {count}: the file is not whole.")
        if told := not white and all_but_black(writer.lightest):
            raise UserError(told)
        names, sizes = list(factors.names), list(factors.sizes)
        meta |= {"factor_names": names, "factor_sizes": sizes, "continuous": factors.continuous}
        writer.finish(meta, factors.labels, factors.values)
    return factors.notes


def image_shape(header: Header) -> ImageShape:
    """Height, width, channels of the images.

    Raises:
        UserError: these are no images, or not as wanted.
    """
    dtype, shape = header.dtype, header.shape
    known = dtype.kind in "bf" or dtype == np.uint8
    want(known, f"images is {dtype}, wanted {WANTED}.")
    want(len(shape) in (3, 4), f"images has shape {shape}, wanted {AXES}.")
    want(0 not in shape, f"images has shape {shape}, wanted {AXES}, none of them 0.")
    count, height, width, channels = *shape, *(1,) * (4 - len(shape))
    few = f"images has {count} images, wanted at least {FEWEST}."
    want(count >= FEWEST, few)
    many = f"images has {count} images of {height} x {width} pixels, wanted at most {MOST}."
    want(count <= MOST, many)
    # No picture is that flat, and that deep.
    first = len(shape) == 4 and height < width and 4 < channels > height
    last = "wanted channels last: images.transpose(0, 2, 3, 1)"
    want(not first, f"images has shape {shape}, {last}.")
    limits = f"sides up to {LARGEST_SIDE}, up to {MOST_CHANNELS} channels"
    small = max(height, width) <= LARGEST_SIDE and channels <= MOST_CHANNELS
    want(small, f"images has shape {shape}, wanted {limits}.")
    order = "images is in Fortran's order, wanted C's: save np.ascontiguousarray(images)."
    want(not header.fortran, order)
    check_size(header)
    return height, width, channels


def _read_levels(archive: zipfile.ZipFile, header: Header, shape: ImageShape) -> Iterator[Levels]:
    """The images as uint8, several at a time."""
    row = math.prod(shape) * header.dtype.itemsize
    for block in read_blocks(archive, header, row * max(1, BLOCK_BYTES // row)):
        want(len(block) % row == 0, "images ends within an image: the file is not whole.")
        with reading("images"):
            values = np.frombuffer(block, header.dtype).reshape(-1, *shape)
        yield to_levels(values)


def to_levels(values: Shaped[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Numbers as bytes: floats in [0, 1] as the nearest of 256 levels, others as they are.

    Raises:
        UserError: a float is NaN, or outside [0, 1].
    """
    if values.dtype.kind != "f":
        return values.astype(np.uint8, copy=False)
    low, high = float(values.min()), float(values.max())
    want(not math.isnan(low), f"images holds NaN, wanted {WANTED}.")
    got = f"images has values from {low:g} to {high:g} as {values.dtype}"
    want(low >= -SLACK and high <= 1 + SLACK, f"{got}, wanted {WANTED}.")
    return np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)


def _white(blocks: Iterator[Levels], dtype: np.dtype) -> int:
    """1 or 255, where that and 0 are the only levels there are; 0 otherwise.

    Args:
        dtype: of the file's images: floats are white at 255 alone.
    """
    whites = {255} if dtype.kind == "f" else {1, 255}
    tops = set()
    for levels in blocks:
        top = int(levels.max())
        two = np.count_nonzero(levels) == np.count_nonzero(levels == top)
        tops |= {top} if two or not top else {2}
        if not any(tops <= {0, white} for white in whites):
            return 0
    return max(tops) or 1


class Factors(NamedTuple):
    """What is known of the factors of images.

    Attributes:
        names: () where none are known.
        sizes: number of values of each.
        labels: class indices; None where there is one image for each combination, in their order.
        values: of those that are numbers; None where none is.
        continuous: which are numbers.
        notes: what is odd about them, a line for each.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    labels: Int[np.ndarray, "image factor"] | None
    values: Float[np.ndarray, "image factor"] | None = None
    continuous: str = ""
    notes: tuple[str, ...] = ()


def read_factors(
    archive: zipfile.ZipFile, found: Mapping[str, zipfile.ZipInfo], images: int
) -> Factors:
    """Factors, or labels, or nothing.

    Args:
        found: members of the archive.
        images: how many there are.

    Raises:
        UserError: they are damaged, or not as wanted.
    """
    key = next((key for key in FACTOR_KEYS if key in found), None)
    if key is None:
        return Factors((), (), None)
    values = _read_whole(archive, key, found, WANTED_FACTORS)
    columns = values[:, None] if values.ndim == 1 else values
    want(columns.ndim == 2, f"{key} has shape {values.shape}, wanted {WANTED_FACTORS}.")
    want(len(columns) == images, f"{key} has {len(columns)} rows, but there are {images} images.")
    width = columns.shape[1]
    want(1 <= width <= MOST_COLUMNS, f"{key} has {width} columns, wanted 1 to {MOST_COLUMNS}.")
    names = _factor_names(archive, found, width) or (
        [key.removesuffix("s")] if values.ndim == 1 else [f"factor{k}" for k in range(width)]
    )
    of = np.full(width, np.nan)
    if "continuous" in found:
        text = _read_whole(archive, "continuous", found, WANTED_DECLARED)
        want(text.dtype.kind == "U", f"continuous is {text.dtype}, wanted {WANTED_DECLARED}.")
        of = periods(",".join(text.reshape(-1).tolist()), names)
    return factors_of(columns, names, of, key)


def factors_of(
    columns: Shaped[np.ndarray, "image factor"],
    names: Sequence[str],
    of: Float[np.ndarray, " factor"],
    key: str,
) -> Factors:
    """What is known of factors with these values.

    Args:
        of: their periods, see `continuous.Numbers`.
        key: what to call them.

    Raises:
        UserError: a column cannot be what it is to be.
    """
    known = [
        value_classes(column, f"{key}: {name}", "name it in the key continuous", period)
        for column, name, period in zip(columns.T, names, of, strict=True)
    ]
    sizes = tuple(size for size, _ in known)
    labels = np.stack([classes for _, classes in known], axis=1)
    values = None if np.isnan(of).all() else np.ascontiguousarray(columns, np.float64)
    grid = in_grid_order(labels, sizes)
    notes = [] if values is None else remarks(values, of, names)
    n = len(columns)
    for name, size, period in zip(names, sizes, of, strict=True):
        if columns.dtype.kind == "f" and np.isnan(period) and size > max(BINS, n / 2):
            notes.append(
                f"{name} has {size} values in {n} images: if it is a number, say so by "
                f"continuous={name!r} in the file"
            )
    labels = None if grid else labels
    return Factors(tuple(names), sizes, labels, values, in_words(of, names), tuple(notes))


def value_classes(
    column: Shaped[np.ndarray, " image"], what: str, mend: str, period: float = math.nan
) -> tuple[int, Int[np.ndarray, " image"]]:
    """The number of values of a factor, and which of them each image has: of a number that has
    more than 20, in bins.

    Args:
        what: to call it.
        mend: what else may be done about too many fractions.
        period: of the factor, nan where it is no number.

    Raises:
        UserError: it has values that are no classes, or too many fractions.
    """
    number = not math.isnan(period)
    if number:
        kind = "text" if column.dtype.kind in "SU" else column.dtype
        real = column.dtype.kind in "biuf"
        want(real, f"{what} is {kind}, but continuous names it: {AS_NUMBERS}.")
    if column.dtype.kind == "f":
        check_values(column, what)
    if number:
        classes = binned(column.astype(np.float64), period)
        return int(classes.max()) + 1, classes.astype(np.int32)
    known, classes = np.unique(column, return_inverse=True)
    if column.dtype.kind == "f" and len(known) > MOST_FRACTIONS:
        whole = np.array_equal(known, np.rint(known))
        want(whole, f"{what} has {len(known)} different fractions, wanted classes: bin them, e.g. "
                    f"by np.digitize, or {mend}.")  # fmt: skip
    if column.dtype.kind in "US":  # in the order of the numbers in them
        texts = [t if isinstance(t, str) else t.decode("latin-1") for t in known.tolist()]
        classes = ranks(texts)[classes]
    return len(known), classes.reshape(-1).astype(np.int32)


def _factor_names(
    archive: zipfile.ZipFile, found: Mapping[str, zipfile.ZipInfo], width: int
) -> list[str]:
    key = "factor_names"
    if key not in found:
        return []
    texts = _read_whole(archive, key, found, "texts, as np.array(names, dtype=str)")
    want(texts.dtype.kind == "U", f"{key} is {texts.dtype}, wanted np.array(names, dtype=str).")
    names = texts.reshape(-1).tolist()
    want(len(names) == width, f"{key} has {len(names)} names, but factors has {width} columns.")
    want(len(set(names)) == width, f"{key} has a name twice, wanted different ones.")
    want(all(name.isprintable() and name for name in names),
         f"{key} has names that are empty or cannot be printed, wanted none.")  # fmt: skip
    return names


def _read_whole(
    archive: zipfile.ZipFile, key: str, found: Mapping[str, zipfile.ZipInfo], wanted: str
) -> Shaped[np.ndarray, "..."]:
    header = read_header(archive, key, found[key], wanted)
    known = header.dtype.kind in "biufUS" and header.dtype.itemsize > 0
    want(known, f"{key} is {header.dtype}, wanted {wanted}.")
    return read_array(archive, header)
