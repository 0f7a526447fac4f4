"""The factors in a user's .npz file of images, as class indices."""

import math
import zipfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from bvae_jax.data.archive import check_size, read_blocks, read_header, reading, want
from bvae_jax.data.base import natural

WANTED = "whole numbers, [image] or [image, factor]"
KEYS = ("factors", "labels")
MOST_COLUMNS = 1024
MOST_FRACTIONS = 256
"""Values that a column of floats may have, which are not whole."""
BLOCK = 2**20


class Factors(NamedTuple):
    """What is known of the factors of images.

    Attributes:
        names: () where none are known.
        sizes: number of values of each.
        labels: class indices; None where there is one image for each combination, in their order.
        earlier: the labels of earlier versions of this package, which sorted texts as texts;
            without a column for None.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    labels: Int[np.ndarray, "image factor"] | None
    earlier: Int[np.ndarray, "image column"] | None = None


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
    key = next((key for key in KEYS if key in found), None)
    if key is None:
        return Factors((), (), None)
    values = _read(archive, key, found, WANTED)
    columns = values[:, None] if values.ndim == 1 else values
    want(columns.ndim == 2, f"{key} has shape {values.shape}, wanted {WANTED}.")
    want(len(columns) == images, f"{key} has {len(columns)} rows, but there are {images} images.")
    width = columns.shape[1]
    want(1 <= width <= MOST_COLUMNS, f"{key} has {width} columns, wanted 1 to {MOST_COLUMNS}.")
    names = _names(archive, found, width) or (
        [key.removesuffix("s")] if values.ndim == 1 else [f"factor{k}" for k in range(width)]
    )
    uniques = [_classes(columns[:, k], f"{key}: {name}") for k, name in enumerate(names)]
    sizes = tuple(len(known) for known, _ in uniques)
    earlier = np.stack([classes.reshape(-1) for _, classes in uniques], axis=1).astype(np.int32)
    ranks = [_ranks(known) for known, _ in uniques]
    labels = np.stack([rank[earlier[:, k]] for k, rank in enumerate(ranks)], axis=1)
    return Factors(
        tuple(names),
        sizes,
        None if in_grid_order(labels, sizes) else labels,
        earlier[:, :0] if in_grid_order(earlier, sizes) else earlier,
    )


def _ranks(known: Shaped[np.ndarray, " value"]) -> Int[np.ndarray, " value"]:
    """Where each of the sorted values of a factor is among its classes: texts by their numbers."""
    if known.dtype.kind not in "US":
        return np.arange(len(known), dtype=np.int32)
    texts = known.tolist()
    names = [text if isinstance(text, str) else text.decode("latin-1") for text in texts]
    order = sorted(range(len(names)), key=lambda index: natural(names[index]))
    return np.argsort(order).astype(np.int32)


def in_grid_order(labels: Int[np.ndarray, "image factor"], sizes: Sequence[int]) -> bool:
    """Whether there is one image for each combination, and the last factor changes fastest."""
    if math.prod(sizes) != len(labels):
        return False
    grid = np.unravel_index(np.arange(len(labels)), tuple(sizes))
    return all(np.array_equal(labels[:, k], column) for k, column in enumerate(grid))


def _classes(
    column: Shaped[np.ndarray, " image"], what: str
) -> tuple[Shaped[np.ndarray, " value"], Int[np.ndarray, " image"]]:
    if column.dtype.kind == "f":
        bad = np.count_nonzero(~np.isfinite(column))
        want(not bad, f"{what} has {bad} values that are NaN or infinite, wanted none.")
    known, classes = np.unique(column, return_inverse=True)
    if column.dtype.kind == "f" and len(known) > MOST_FRACTIONS:
        whole = np.array_equal(known, np.rint(known))
        want(whole, f"{what} has {len(known)} different fractions, wanted classes: bin them, e.g. "
                    "by np.digitize.")  # fmt: skip
    return known, classes


def _names(archive: zipfile.ZipFile, found: Mapping[str, zipfile.ZipInfo], width: int) -> list[str]:
    key = "factor_names"
    if key not in found:
        return []
    texts = _read(archive, key, found, "texts, as np.array(names, dtype=str)")
    want(texts.dtype.kind == "U", f"{key} is {texts.dtype}, wanted np.array(names, dtype=str).")
    names = texts.reshape(-1).tolist()
    want(len(names) == width, f"{key} has {len(names)} names, but factors has {width} columns.")
    want(len(set(names)) == width, f"{key} has a name twice, wanted different ones.")
    want(all(name.isprintable() and name for name in names),
         f"{key} has names that are empty or cannot be printed, wanted none.")  # fmt: skip
    return names


def _read(
    archive: zipfile.ZipFile, key: str, found: Mapping[str, zipfile.ZipInfo], wanted: str
) -> Shaped[np.ndarray, "..."]:
    header = read_header(archive, key, found[key], wanted)
    known = header.dtype.kind in "biufUS" and header.dtype.itemsize > 0
    want(known, f"{key} is {header.dtype}, wanted {wanted}.")
    check_size(header)
    data = bytearray().join(read_blocks(archive, header, BLOCK))
    with reading(key):
        array = np.frombuffer(data, header.dtype)
        return array.reshape(header.shape, order="F" if header.fortran else "C")
