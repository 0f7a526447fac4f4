"""The form in which stored sets are kept: plain arrays in a directory, opened in milliseconds.

- `images.npy`: uint8 [image, height, width, channel]; or [image, byte], eight pixels to a byte
  (`np.packbits`), where all pixels are 0 or 1.
- `labels.npy`: int32 [image, factor]; absent where there is one image for each combination of
  factors, in their order, or where no factors are known.
- `meta.json`: what is known of them.

A directory is written beside its place and moved there when it is whole.
"""

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bvae_jax.data.base import Dataset, Stored
from bvae_jax.data.writer import (
    FILES,
    IMAGES,
    LABELS,
    META,
    Writer,
    content_version,
    file_state,
    write_meta,
)
from bvae_jax.errors import UserError
from bvae_jax.progress import bar
from bvae_jax.runtime import (
    user_cache,
)
from bvae_jax.types import ImageShape

__all__ = ["Writer", "check_content", "data_dir", "open_prepared", "place"]

FORM = 1
"""Raise it whenever the same files become other arrays."""
DAMAGES = (OSError, ValueError, KeyError, TypeError, EOFError)
"""What reading a damaged directory raises."""
BLOCK = 2**24
"""Bytes that are compared at once."""


def data_dir(config_data_dir: str = "") -> Path:
    """Where data sets lie: what is given, `$BVAE_DATA_DIR`, or `data` in the user's cache."""
    given = config_data_dir or os.environ.get("BVAE_DATA_DIR")
    return Path(given).expanduser().absolute() if given else user_cache().absolute() / "data"


def place(data_dir: Path, name: str, *made_from: object) -> Path:
    """Where a set is kept: another directory for whatever else it may be made from.

    Args:
        data_dir: what the function of that name gives.
        name: what `--dataset` calls it.
        made_from: all that its images and labels depend on.
    """
    digest = hashlib.sha256(repr((FORM, *made_from)).encode()).hexdigest()[:8]
    plain = re.sub(r"[^\w.]+", "-", name)
    return data_dir / f"{plain}-{digest}"


def open_prepared(
    directory: Path, *, name: str, check: bool = True, progress: bool = False
) -> Dataset:
    """A prepared set; its pixels stay on the disk until they are used.

    Args:
        name: what `--dataset` calls it.
        check: if its files were touched since it was written, see whether they are what was.
        progress: show a bar meanwhile.

    Raises:
        UserError: the directory is damaged.
    """
    with _reading(directory, name):
        dataset = _open(directory, name)
        meta, files = _meta(directory), file_state(directory)
        if check and meta.get(FILES) != files:
            _compare(dataset, progress)
            with contextlib.suppress(OSError):  # perhaps nothing can be written there
                write_meta(directory, meta | {FILES: files})
    return dataset


def check_content(dataset: Dataset, *, progress: bool = False) -> None:
    """See whether the images and labels of a prepared set are what was written, byte by byte.

    Others are drawn, and cannot be damaged.

    Raises:
        UserError: they are not.
    """
    pixels = dataset.pixels
    if isinstance(pixels, Stored) and isinstance(pixels.images, np.memmap):
        directory = Path(str(pixels.images.filename)).parent
        with _reading(directory, dataset.name):
            _compare(_open(directory, dataset.name), progress)


@contextlib.contextmanager
def _reading(directory: Path, name: str) -> Iterator[None]:
    try:
        yield
    except DAMAGES as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{name}: {directory} is damaged ({reason}): delete it, and prepare {name} again."
        ) from error


def _compare(dataset: Dataset, progress: bool) -> None:
    """Raise ValueError unless the arrays of a set that is open are those of its version."""
    arrays = [dataset.pixels.images] if isinstance(dataset.pixels, Stored) else []
    arrays += [] if dataset.labels is None else [dataset.labels]
    columns = []
    total, name = sum(array.nbytes for array in arrays), f"checking {dataset.name}"
    with bar(total=total, desc=name, unit="B", unit_scale=True, delay=1, disable=not progress) as b:
        for array in arrays:
            digest = hashlib.sha256()
            step = max(1, BLOCK // array[0].nbytes)
            for start in range(0, len(array), step):
                block = array[start : start + step]
                digest.update(block.data.cast("B"))
                b.update(block.nbytes)
            columns.append((array.dtype, len(array), digest))
    if content_version(dataset.image_shape, columns) != dataset.version:
        raise ValueError(f"its {IMAGES} or {LABELS} is not what was written")


def _meta(directory: Path) -> dict[str, Any]:
    return json.loads((directory / META).read_text(encoding="utf-8"))


def _open(directory: Path, name: str) -> Dataset:
    meta = _meta(directory)
    shape: ImageShape = tuple(meta["image_shape"])
    names, sizes = tuple(meta["factor_names"]), tuple(meta["factor_sizes"])
    images = np.load(directory / IMAGES, mmap_mode="r", allow_pickle=False)
    row = shape if images.ndim == 4 else (-(-math.prod(shape) // 8),)
    _expect(images, np.uint8, (meta["images"], *row), IMAGES)
    labels = None
    if (directory / LABELS).exists():
        labels = np.load(directory / LABELS, mmap_mode="r", allow_pickle=False)
        _expect(labels, np.int32, (meta["images"], len(names)), LABELS)
    elif names and math.prod(sizes) != meta["images"]:
        raise ValueError(f"{LABELS} is missing")
    return Dataset(
        name=name,
        version=meta["version"],
        image_shape=shape,
        pixels=Stored(images, shape),
        factor_names=names,
        factor_sizes=sizes,
        classes=tuple(meta.get("classes", ())),
        labels=labels,
        published_test=_test_from_json(meta["published_test"]),
        earlier=tuple(meta.get("earlier", ())),
        **{key: meta.get(key, "") for key in ("source", "licence", "citation")},
    )


def _expect(array: np.ndarray, dtype: Any, shape: tuple[int, ...], file: str) -> None:
    if array.dtype != dtype or array.shape != shape:
        wanted = f"{np.dtype(dtype)}{list(shape)}"
        raise ValueError(f"{file} is {array.dtype}{list(array.shape)}, wanted {wanted}")


def _test_from_json(test: Any) -> np.ndarray | None:
    if test is None:
        return None
    return np.arange(test["start"], test["stop"]) if isinstance(test, dict) else np.array(test, int)
