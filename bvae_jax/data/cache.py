"""A rendered data set as one bit-packed array, kept compressed in the user's cache directory."""

import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from bvae_jax.data.base import Rendered
from bvae_jax.data.npz_cache import DamagedError, read_npz, write_npz
from bvae_jax.progress import bar
from bvae_jax.runtime import (
    user_cache,
)
from bvae_jax.types import Indices

CHUNK = 4096
Packed = UInt8[np.ndarray, "image byte"]


def cache_path(pixels: Rendered) -> Path:
    """Where the cache lies: under `$BVAE_CACHE_DIR`, or the user's cache directory."""
    return user_cache() / f"{pixels.cache}.npz"


def load_packed(pixels: Rendered, *, progress: bool = True) -> Packed:
    """All images of a binary rendered set, eight pixels to a byte, [images, pixels / 8].

    Read from the cache if it is there and whole; rendered and cached otherwise. A cache that
    cannot be read or written is reported on stderr and done without.
    """
    path = cache_path(pixels)
    packed = _read(path, pixels) if path.exists() else None
    if packed is None:
        packed = render_packed(pixels, progress=progress)
        write_npz(path, compress=True, packed=packed)
    return packed


def render_packed(pixels: Rendered, *, progress: bool = True) -> Packed:
    """Render all images, eight pixels to a byte, [images, pixels / 8]."""

    @jax.jit
    def render(indices: Indices) -> jax.Array:
        factors = jnp.stack(jnp.unravel_index(indices, pixels.sizes), axis=-1)
        images = pixels.render(factors)
        return jnp.packbits(images.reshape(len(indices), -1) > 0.5, axis=1)

    size, width = _shape(pixels)
    packed = np.empty((size, width), np.uint8)
    name = f"rendering {pixels.cache} (once)"
    shown = bar(total=size, desc=name, unit=" images", unit_scale=True, disable=not progress)
    with shown:
        for start in range(0, size, CHUNK):
            # The last chunk is filled up with copies of the last image: one shape, one compile.
            indices = np.minimum(np.arange(start, start + CHUNK), size - 1)
            rows = packed[start : start + CHUNK]
            rows[:] = np.asarray(render(jnp.asarray(indices)))[: len(rows)]
            shown.update(len(rows))
    return packed


def _shape(pixels: Rendered) -> tuple[int, int]:
    return math.prod(pixels.sizes), -(-math.prod(pixels.shape) // 8)


def _read(path: Path, pixels: Rendered) -> Packed | None:
    wanted = _shape(pixels)
    try:
        packed = read_npz(path).get("packed", np.empty(0))
        if packed.shape == wanted and packed.dtype == np.uint8:
            return packed
        reason = f"it holds {packed.dtype}{packed.shape}, wanted uint8{wanted}"
    except DamagedError as error:
        reason = str(error)
    print(f"bvae: cache {path} is damaged ({reason}): rendering it anew.", file=sys.stderr)
    return None
