"""A look at a data set: images at random, and what its factors do."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from bvae_jax.data.base import Dataset
from bvae_jax.data.sources import Source
from bvae_jax.types import key_for

COLUMNS = 10
RANDOM_ROWS, ALONE_ROWS = 2, 6
"""Rows of random images; and where there is nothing else to show."""
MOST_ROWS = 24
"""Rows that show factors."""
LONGEST = 24
"""Letters of a label."""

Images = Float[np.ndarray, "_ height width channels"]
Augment = Callable[[jax.Array, jax.Array], jax.Array]


class Preview(NamedTuple):
    """Rows of images, and what each shows.

    Attributes:
        images: in [0, 1]; rows are filled up with white.
        more: rows of factors that there was no room for.
    """

    images: Float[np.ndarray, "row column height width channels"]
    labels: list[str]
    more: int


class Row(NamedTuple):
    """Images beside each other, up to `COLUMNS`."""

    label: str
    indices: Int[np.ndarray, " column"]


def preview(dataset: Dataset, source: Source, augment: Augment | None = None) -> Preview:
    """Random images; with factors of a grid a row for each, from its first value to its last, the
    others fixed; with other factors a row of random images for each value.

    The same images each time.

    Args:
        augment: shown of the random images, below them.
    """
    random = np.random.RandomState(0)  # NumPy promises that its stream never changes
    below = factor_rows(dataset, random)
    count = RANDOM_ROWS if below else ALONE_ROWS
    chosen = random.permutation(dataset.size)[: count * COLUMNS]
    above = [
        Row("random", chosen[start : start + COLUMNS]) for start in range(0, len(chosen), COLUMNS)
    ]
    shown = [*above, *below[:MOST_ROWS]]
    images = _look(source, shown)
    labels = [row.label for row in shown]
    if augment is not None:
        changed = [
            np.asarray(augment(jnp.asarray(row), key_for("augmentation", number)))
            for number, row in enumerate(images[: len(above)])
        ]
        images[len(above) : len(above)] = changed
        labels[len(above) : len(above)] = ["augmented"] * len(above)
    return Preview(_filled(images), labels, max(0, len(below) - MOST_ROWS))


def factor_rows(dataset: Dataset, random: np.random.RandomState) -> list[Row]:
    """Traversals of a grid's factors, or images of each value of other factors.

    Factors with one value have no row.
    """
    sizes = dataset.factor_sizes
    varied = [k for k, size in enumerate(sizes) if size > 1]
    if not dataset.grid:
        return [row for k in varied for row in _value_rows(dataset, k, random)]
    start = np.array([random.randint(size) for size in sizes])
    return [_traversal(dataset, k, start) for k in varied]


def _traversal(dataset: Dataset, factor: int, start: Int[np.ndarray, " factor"]) -> Row:
    size = dataset.factor_sizes[factor]
    values = np.linspace(0, size - 1, min(size, COLUMNS)).round().astype(int)
    factors = np.tile(start, (len(values), 1))
    factors[:, factor] = values
    indices = np.asarray(np.ravel_multi_index(tuple(factors.T), dataset.factor_sizes))
    return Row(_label(f"{dataset.factor_names[factor]} ({size})"), indices)


def _value_rows(dataset: Dataset, factor: int, random: np.random.RandomState) -> list[Row]:
    assert dataset.labels is not None
    column, name = dataset.labels[:, factor], dataset.factor_names[factor]
    rows = []
    for value in range(dataset.factor_sizes[factor]):
        having = np.flatnonzero(column == value)
        if len(having):
            chosen = random.permutation(having)[:COLUMNS]
            called = dataset.classes[value] if dataset.classes else value
            rows.append(Row(_label(f"{name} = {called}"), chosen))
    return rows


def _label(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _look(source: Source, rows: Sequence[Row]) -> list[Images]:
    look, found = jax.jit(source.look), []
    for row in rows:
        # Filled up, so that all rows are of one shape and compiled once.
        indices = np.pad(row.indices, (0, COLUMNS - len(row.indices)), mode="edge")
        arrays = jax.device_put(source.reach(indices))
        found.append(np.asarray(look(arrays, jnp.asarray(indices)))[: len(row.indices)])
    return found


def _filled(rows: Sequence[Images]) -> Float[np.ndarray, "row column height width channels"]:
    """Rows of one length, with white."""
    filled = np.ones((len(rows), COLUMNS, *rows[0].shape[1:]), np.float32)
    for place, row in zip(filled, rows, strict=True):
        place[: len(row)] = row
    return filled
