"""From the examples of a builder to a prepared set."""

import array
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bvae_jax.data.store import (
    Writer,
)
from bvae_jax.data.tfds_features import Chosen, Wish, classes, image, labels
from bvae_jax.errors import UserError
from bvae_jax.progress import bar

CHUNK = 256
BINARY = ("dsprites", "binarized_mnist")
"""Builders whose pixels are 0 and 1, and not 0 and 255."""
LEFT_OUT = {"omniglot": ("small1", "small2"), "svhn_cropped": ("extra",)}
"""Splits that repeat images of others, or that nobody means by the name of the set."""

Example = Mapping[str, Any]


class SplitExamples(NamedTuple):
    """A part of a set.

    Attributes:
        name: train, test or another.
        examples: in their order.
        total: how many there are; None where that is not known.
    """

    name: str
    examples: Iterable[Example]
    total: int | None = None


def in_order(names: Iterable[str], builder: str) -> list[str]:
    """Which splits are read, and in which order: train, test, others."""
    kept = [name for name in names if name not in LEFT_OUT.get(builder, ())]
    first = [name for name in ("train", "test") if name in kept]
    return first + [name for name in kept if name not in first]


def write(
    directory: Path,
    chosen: Chosen,
    splits: list[SplitExamples],
    meta: dict[str, Any],
    wish: Wish,
    *,
    progress: bool = True,
) -> None:
    """Write a prepared set from examples.

    Where there is exactly one image for each combination of factors and no test set, images are
    put in the order of the combinations.

    Args:
        directory: where it is to lie.
        chosen: what to read of an example.
        splits: in the order in which they are written; that of the name "test" is the published
            test set.
        meta: `name`, `builder`, and what else is to be remembered.
        wish: what is to be prepared.

    Raises:
        UserError: images have different sizes, labels are no classes, or there are no images.
    """
    name, size = meta["name"], wish.image_size
    known = [split.total for split in splits if split.total is not None]
    total = sum(known) if len(known) == len(splits) else None
    shown = bar(
        total=total, desc=f"preparing {name} (once)", unit=" images", unit_scale=True,
        disable=not progress,
    )  # fmt: skip
    rows = _Rows()
    with shown:
        chunks = rows.chunks(splits, chosen, size, name)
        first = next(chunks, None)
        if first is None:
            raise UserError(f"{name}: got no images: prepare it anew.")
        packed = meta["builder"] in BINARY and not size
        with Writer(directory, first.shape[1:], images=total, packed=packed) as writer:
            for images in itertools.chain([first], chunks):
                writer.add(images)
                shown.update(len(images))
            _finish(writer, chosen, rows, meta)


def _finish(writer: Writer, chosen: Chosen, rows: "_Rows", meta: dict[str, Any]) -> None:
    meta = meta | {"published_test": rows.splits.get("test")}
    if not chosen.factors:
        writer.finish(meta)
        return
    values = np.array(rows.labels).reshape(-1, len(chosen.factors))
    found, sizes = classes(values, chosen.features, chosen.factors, meta["name"])
    meta |= {"factor_names": chosen.names, "factor_sizes": sizes}
    order = None if meta["published_test"] else grid_order(found, sizes)
    if order is None:
        writer.finish(meta, found)
    else:
        writer.reorder(order)
        writer.finish(meta)


def grid_order(labels: np.ndarray, sizes: list[int]) -> np.ndarray | None:
    """Where the image of each combination of factors is, if there is exactly one of each.

    Args:
        labels: [image, factor] class indices.
        sizes: number of values of each factor.
    """
    if len(labels) != np.prod(sizes, dtype=float):
        return None
    flat = np.asarray(np.ravel_multi_index(tuple(labels.T), tuple(sizes)))
    order = np.argsort(flat, kind="stable")
    return order if np.array_equal(flat[order], np.arange(len(flat))) else None


class _Rows:
    """What is remembered of examples while their images are written.

    Attributes:
        labels: values of the factors, image by image.
        splits: which images each split has.
    """

    def __init__(self):
        self.labels = array.array("q")
        self.splits: dict[str, range] = {}

    def chunks(
        self, splits: list[SplitExamples], chosen: Chosen, size: int, name: str
    ) -> Iterator[np.ndarray]:
        """The images of all splits, [image, height, width, channel]."""
        count, held, shape = 0, [], None
        for split in splits:
            start = count
            for example in split.examples:
                self.labels.extend(labels(example, chosen))
                held.append(image(example, chosen, size))
                shape = shape or held[-1].shape
                _check_shape(held[-1], shape, name)
                count += 1
                if len(held) == CHUNK:
                    yield np.stack(held)
                    held = []
            self.splits[split.name] = range(start, count)
            if split.total not in (None, count - start):
                got = f"{count - start} examples in {split.name}"
                raise UserError(f"{name}: got {got}, wanted {split.total}: prepare it anew.")
        if held:
            yield np.stack(held)


def _check_shape(pixels: np.ndarray, shape: tuple[int, ...], name: str) -> None:
    if pixels.shape != shape or pixels.dtype != np.uint8:
        got, wanted = ("x".join(map(str, s)) for s in (pixels.shape, shape))
        raise UserError(
            f"{name}: got images of {got} and {wanted}, wanted one size: choose --image-size."
        )
