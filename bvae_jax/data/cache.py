"""A rendered data set as one bit-packed array, kept compressed in the user's cache directory."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from bvae_jax.compile_cache import user_cache
from bvae_jax.data.base import Dataset
from bvae_jax.npz import DamagedError, read_npz, write_npz
from bvae_jax.progress import bar
from bvae_jax.types import Indices

CHUNK = 4096
Packed = UInt8[np.ndarray, "image byte"]


def cache_path(dataset: Dataset) -> Path:
    """Where the cache of `dataset` lies: under `$BVAE_CACHE_DIR`, or the user's cache directory."""
    return user_cache() / f"{dataset.name}-v{dataset.version}.npz"


def load_packed(dataset: Dataset, *, progress: bool = True) -> Packed:
    """All images of a binary data set, eight pixels to a byte, [images, pixels / 8].

    Read from the cache if it is there and whole; rendered and cached otherwise. A cache that
    cannot be read or written is reported on stderr and done without.
    """
    path = cache_path(dataset)
    packed = _read(path, dataset) if path.exists() else None
    if packed is None:
        packed = render_packed(dataset, progress=progress)
        write_npz(path, compress=True, packed=packed)
    return packed


def render_packed(dataset: Dataset, *, progress: bool = True) -> Packed:
    """Render all images, eight pixels to a byte, [images, pixels / 8]."""

    @jax.jit
    def render(indices: Indices) -> jax.Array:
        images = dataset.render(dataset.factors(indices))
        return jnp.packbits(images.reshape(len(indices), -1) > 0.5, axis=1)

    packed = np.empty((dataset.size, _row_bytes(dataset)), np.uint8)
    name = f"rendering {dataset.name} (once)"
    shown = bar(
        total=dataset.size, desc=name, unit=" images", unit_scale=True, disable=not progress
    )
    with shown:
        for start in range(0, dataset.size, CHUNK):
            # The last chunk is filled up with copies of the last image: one shape, one compile.
            indices = np.minimum(np.arange(start, start + CHUNK), dataset.size - 1)
            rows = packed[start : start + CHUNK]
            rows[:] = np.asarray(render(jnp.asarray(indices)))[: len(rows)]
            shown.update(len(rows))
    return packed


def _row_bytes(dataset: Dataset) -> int:
    height, width, channels = dataset.image_shape
    return -(-height * width * channels // 8)


def _read(path: Path, dataset: Dataset) -> Packed | None:
    wanted = (dataset.size, _row_bytes(dataset))
    try:
        packed = read_npz(path).get("packed", np.empty(0))
        if packed.shape == wanted and packed.dtype == np.uint8:
            return packed
        reason = f"it holds {packed.dtype}{packed.shape}, wanted uint8{wanted}"
    except DamagedError as error:
        reason = str(error)
    print(f"bvae: cache {path} is damaged ({reason}): rendering it anew.", file=sys.stderr)
    return None
