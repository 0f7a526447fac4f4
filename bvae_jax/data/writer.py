"""Writing a prepared set, see `prepared.py`, chunk by chunk."""

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bvae_jax.data.column import Column
from bvae_jax.errors import UserError
from bvae_jax.files import (
    held,
    remove_abandoned,
)

HEX = "[0-9a-f]"
IMAGES, LABELS, META = "images.npy", "labels.npy", "meta.json"
FILES = "files"
"""In meta.json: what `file_state` gave when the arrays were last seen to be of the version."""


class Writer(contextlib.AbstractContextManager):
    """Writes a prepared set chunk by chunk: the whole of it or nothing.

        with Writer(directory, (64, 64, 1), images=1000, factors=2) as writer:
            writer.add(images, labels)
            writer.finish({"factor_names": ["x", "y"], "factor_sizes": [3, 7]})

    Args:
        directory: where it is to lie; one that is there already is replaced.
        image_shape: height, width, channels.
        images: how many there are at most; None where that is not known.
        packed: all pixels are 0 or 1, to be kept eight to a byte.
        factors: number of labels of an image.

    Attributes:
        lightest: the largest number in an image so far.

    Raises:
        UserError: the directory cannot be written, or has no room for so many images.
    """

    def __init__(
        self,
        directory: Path,
        image_shape: Sequence[int],
        *,
        images: int | None,
        packed: bool = False,
        factors: int = 0,
    ):
        self._directory = directory
        self._shape = tuple(int(side) for side in image_shape)
        self._most, self._packed = images, packed
        self.lightest = 0
        pixels = math.prod(self._shape)
        row = (-(-pixels // 8),) if packed else self._shape
        self._part = directory.with_name(f".{directory.name}.{os.getpid()}.part")
        self._holding = contextlib.ExitStack()
        with self._writing():
            directory.parent.mkdir(parents=True, exist_ok=True)
            for kind in ("part", "old"):
                remove_abandoned(directory.parent, f".*-{HEX * 8}.*.{kind}")
            _check_room(directory.parent, (images or 0) * (math.prod(row) + 4 * factors))
            shutil.rmtree(self._part, ignore_errors=True)
            self._part.mkdir()
            self._holding.enter_context(held(self._part))
            self._images = Column(self._part / IMAGES, np.dtype(np.uint8), row)
            self._labels = self._label_column(factors) if factors else None

    def __exit__(self, *exception) -> None:
        """Leave nothing behind where `finish` was not reached."""
        for column in self._columns():
            column.file.close()
        shutil.rmtree(self._part, ignore_errors=True)
        self._holding.close()

    def add(self, images: np.ndarray, labels: np.ndarray | None = None) -> None:
        """Append a chunk.

        Args:
            images: uint8 [image, height, width, channel], in 0..255; 0 or 1 where packed.
            labels: int [image, factor] class indices; None where the writer has no factors.

        Raises:
            ValueError: images or labels are not as the writer was told.
            UserError: the disk is full.
        """
        if images.dtype != np.uint8 or images.shape[1:] != self._shape:
            raise ValueError(f"got {images.dtype}{images.shape}, wanted uint8[n, *{self._shape}]")
        lightest = int(images.max(initial=0))
        if self._packed and lightest > 1:
            raise ValueError(f"got a pixel of {lightest}, wanted 0 or 1")
        if (labels is None) != (self._labels is None):
            raise ValueError("labels are wanted where the writer has factors, and only there")
        if self._most is not None and self._images.rows + len(images) > self._most:
            raise ValueError(f"more than {self._most} images")
        if self._packed:
            images = np.packbits(images.reshape(len(images), -1), axis=1)
        self.lightest = max(self.lightest, lightest)
        with self._writing():
            self._images.append(images)
            if self._labels is not None and labels is not None:
                self._labels.append(labels)

    def reorder(self, order: np.ndarray) -> None:
        """Put the images that were added, all of them, into another order.

        Args:
            order: [image] which image, as it was added, is to stand there.
        """
        with self._writing():
            for column in self._columns():
                column.reorder(order)

    def finish(self, meta: dict[str, Any], labels: np.ndarray | None = None) -> None:
        """Write what is known of the images, and move all to its place.

        Args:
            meta: some of factor_names, factor_sizes, published_test (a range, or indices), earlier,
                source, licence, citation, and whatever else is to be remembered; of JSON's types.
            labels: int [image, factor] class indices of all images, where none were added.

        Raises:
            ValueError: there are no images, or what is said of factors does not fit them.
            UserError: the directory cannot be written.
        """
        meta = {"factor_names": [], "factor_sizes": [], **meta}
        meta["published_test"] = _test_as_json(meta.get("published_test"))
        meta |= {"image_shape": list(self._shape), "images": self._images.rows}
        with self._writing():
            if labels is not None:
                self._labels = self._label_column(labels.shape[1])
                self._labels.append(labels)
        self._check(meta)
        meta["version"] = self.version()
        with self._writing():
            for column in self._columns():
                column.close()
            write_meta(self._part, meta | {FILES: file_state(self._part)})
            _move(self._part, self._directory)

    def version(self, labels: np.ndarray | None = None) -> str:
        """Of the images that were added, with their labels or with others.

        Args:
            labels: int [image, factor] class indices; without a column for none at all.
        """
        columns = [(c.dtype, c.rows, c.digest) for c in self._columns()]
        if labels is not None:
            data = np.ascontiguousarray(labels, np.int32)
            digest = hashlib.sha256(data.tobytes())
            columns[1:] = [(data.dtype, len(data), digest)] if labels.shape[1] else []
        return content_version(self._shape, columns)

    def _columns(self) -> "list[Column]":
        return [c for c in (self._images, self._labels) if c is not None]

    def _label_column(self, factors: int) -> Column:
        return Column(self._part / LABELS, np.dtype(np.int32), (factors,))

    def _check(self, meta: dict[str, Any]) -> None:
        names, sizes, rows = meta["factor_names"], meta["factor_sizes"], self._images.rows
        if not rows:
            raise ValueError("no images")
        if len(names) != len(sizes):
            raise ValueError(f"got {len(names)} factor names and {len(sizes)} sizes")
        if self._labels is None and names and math.prod(sizes) != rows:
            raise ValueError(f"got {rows} images, wanted one for each combination of {sizes}")
        if self._labels is None:
            return
        if self._labels.rows != rows or self._labels.smallest < 0:
            raise ValueError(f"got {self._labels.rows} labels for {rows} images, or negative ones")
        if not np.all(self._labels.largest < np.array(sizes)):
            raise ValueError(f"got labels up to {self._labels.largest}, wanted below {sizes}")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise UserError(
                f"{self._directory}: cannot be written ({reason}): mend that, or choose another "
                "--data-dir."
            ) from error


def content_version(
    image_shape: Sequence[int], columns: Iterable[tuple[np.dtype, int, Any]]
) -> str:
    """The version of images and their labels.

    Args:
        image_shape: height, width, channels.
        columns: of the images, and then of the labels if there are any: type, number of rows,
            SHA-256 of the data.
    """
    shape = tuple(image_shape)
    parts = [f"{shape} {dtype} {rows} {digest.hexdigest()}" for dtype, rows, digest in columns]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def file_state(directory: Path) -> dict[str, list[int]]:
    """Bytes and time, in nanoseconds, of the last change of each array in a directory."""
    found = {name: directory / name for name in (IMAGES, LABELS)}
    states = {name: path.stat() for name, path in found.items() if path.exists()}
    return {name: [state.st_size, state.st_mtime_ns] for name, state in states.items()}


def write_meta(directory: Path, meta: dict[str, Any]) -> None:
    """Write meta.json so that a reader sees the old one or the new one."""
    part = directory / f".{META}.{os.getpid()}"
    part.write_text(json.dumps(meta, indent=1, ensure_ascii=False), encoding="utf-8")
    part.replace(directory / META)


def _test_as_json(test: Any) -> Any:
    if isinstance(test, range):
        return {"start": test.start, "stop": test.stop}
    return None if test is None else [int(index) for index in test]


def _check_room(directory: Path, wanted: int) -> None:
    free = shutil.disk_usage(directory).free
    if wanted > free:
        raise UserError(
            f"{directory}: got {free / 1e9:.1f} GB of free space, wanted {wanted / 1e9:.1f} "
            "GB: make room, or choose another --data-dir."
        )


def _move(part: Path, place: Path) -> None:
    """Put a directory in its place, where there may be an older one."""
    old = place.with_name(f".{place.name}.{os.getpid()}.old")
    if place.exists():
        place.replace(old)
    part.replace(place)
    shutil.rmtree(old, ignore_errors=True)
