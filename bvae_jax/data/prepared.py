"""The form in which stored sets are kept: plain arrays in a directory, opened in milliseconds.

- `images.npy`: uint8 [image, height, width, channel]; or [image, byte], eight pixels to a byte
  (`np.packbits`), where all pixels are 0 or 1.
- `labels.npy`: int32 [image, factor]; absent where there is one image for each combination of
  factors, in their order, or where no factors are known.
- `meta.json`: what is known of them.

A directory is written beside its place and moved there when it is whole.
"""

import hashlib
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from bvae_jax.compile_cache import user_cache
from bvae_jax.data.base import Dataset, Stored
from bvae_jax.data.writer import Writer
from bvae_jax.errors import UserError
from bvae_jax.types import ImageShape

__all__ = ["Writer", "data_dir", "open_prepared", "place"]

FORM = 1
"""Raise it whenever the same files become other arrays."""
DAMAGES = (OSError, ValueError, KeyError, TypeError, EOFError)
"""What reading a damaged directory raises."""


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


def open_prepared(directory: Path, *, name: str) -> Dataset:
    """A prepared set; its pixels stay on the disk until they are used.

    Args:
        name: what `--dataset` calls it.

    Raises:
        UserError: the directory is damaged.
    """
    try:
        return _open(directory, name)
    except DAMAGES as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{name}: {directory} is damaged ({reason}): delete it, and prepare {name} again."
        ) from error


def _open(directory: Path, name: str) -> Dataset:
    meta = json.loads((directory / "meta.json").read_text(encoding="utf-8"))
    shape: ImageShape = tuple(meta["image_shape"])
    names, sizes = tuple(meta["factor_names"]), tuple(meta["factor_sizes"])
    images = np.load(directory / "images.npy", mmap_mode="r", allow_pickle=False)
    row = shape if images.ndim == 4 else (-(-math.prod(shape) // 8),)
    _expect(images, np.uint8, (meta["images"], *row), "images.npy")
    labels = None
    if (directory / "labels.npy").exists():
        labels = np.load(directory / "labels.npy", mmap_mode="r", allow_pickle=False)
        _expect(labels, np.int32, (meta["images"], len(names)), "labels.npy")
    elif names and math.prod(sizes) != meta["images"]:
        raise ValueError("labels.npy is missing")
    return Dataset(
        name=name,
        version=meta["version"],
        image_shape=shape,
        pixels=Stored(images, shape),
        factor_names=names,
        factor_sizes=sizes,
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
