"""Which columns of a table of examples are its images and factors, and the factors' classes."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bvae_jax.errors import UserError

NO_FACTORS = "none"


@contextlib.contextmanager
def in_one_line(what: str, remedy: str) -> Iterator[None]:
    """Turn whatever a reader of tables raises on damaged files into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(f"{what} ({reason}): {remedy}.") from error


def pick_image(name: str, given: str, images: Sequence[str], others: str = "") -> str:
    """The column of the images: the one that is given, "image", or the only one.

    Args:
        name: what `--dataset` calls the set.
        given: --image-key.
        images: columns that hold images.
        others: a sentence on the other columns.

    Raises:
        UserError: there is none, or it is none of them.
    """
    found = given or ("image" if "image" in images else images[0] if len(images) == 1 else "")
    if found not in images:
        raise UserError(
            f"{name}: --image-key: got {found!r}, wanted a feature that is an image: "
            f"{', '.join(images) or 'it has none'}.{others}"
        )
    return found


def pick_factors(
    name: str, given: str, usual: Sequence[str], possible: Sequence[str]
) -> tuple[str, ...]:
    """The columns of the factors, in the order in which they are given.

    Args:
        name: what `--dataset` calls the set.
        given: --factor-keys, with commas; "none" for none, "" for the usual ones.
        usual: columns that are factors where none are given.
        possible: columns that can be factors.

    Raises:
        UserError: one of them can be none, or is given twice.
    """
    listed = [key.strip() for key in given.split(",")] if given else usual
    keys = [] if given == NO_FACTORS else listed
    if not set(keys) <= set(possible) or len(set(keys)) != len(keys):
        raise UserError(
            f"{name}: --factor-keys: got {given!r}, wanted some of: "
            f"{', '.join(possible) or 'it has none'}; or none."
        )
    return tuple(keys)


def classes(
    values: np.ndarray, features: Sequence[Any], keys: Sequence[str], name: str
) -> tuple[np.ndarray, list[int]]:
    """Class indices from the values of factors, and the number of classes of each.

    A class label is its index. Other whole numbers are numbered in their order.

    Args:
        values: [image, factor].
        features: of the factors.
        keys: of the factors.
        name: what `--dataset` calls the set.

    Raises:
        UserError: a class label is none, as -1 is where labels are secret.
    """
    columns, sizes = [], []
    for column, feature, key in zip(values.T, features, keys, strict=True):
        size = getattr(feature, "num_classes", None)
        if size is None:
            kept, column = np.unique(column, return_inverse=True)
            size = len(kept)
        elif column.min() < 0 or column.max() >= size:
            raise UserError(
                f"{name}: got a {key} of {column.min() if column.min() < 0 else column.max()}, "
                f"wanted 0 to {size - 1}: leave it out with --factor-keys."
            )
        columns.append(column)
        sizes.append(int(size))
    return np.stack(columns, axis=1).astype(np.int32), sizes


def in_grid_order(labels: np.ndarray, sizes: Sequence[int]) -> bool:
    """Whether there is one image for each combination, and the last factor changes fastest."""
    if labels.shape != (math.prod(sizes), len(sizes)):
        return False
    grid = np.unravel_index(np.arange(len(labels)), tuple(sizes))
    return all(np.array_equal(labels[:, k], column) for k, column in enumerate(grid))


def grid_order(labels: np.ndarray, sizes: Sequence[int]) -> np.ndarray | None:
    """Where the image of each combination of factors is, if there is exactly one of each.

    Args:
        labels: [image, factor] class indices.
        sizes: number of values of each factor.
    """
    if len(labels) != math.prod(sizes):
        return None
    flat = np.asarray(np.ravel_multi_index(tuple(labels.T), tuple(sizes)))
    order = np.argsort(flat, kind="stable")
    return order if np.array_equal(flat[order], np.arange(len(flat))) else None
