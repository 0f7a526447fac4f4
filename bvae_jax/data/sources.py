"""How images come to the device: drawn there, gathered there, or brought there in time."""

import functools
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from bvae_jax.data.base import Dataset, Rendered, Stored
from bvae_jax.errors import UserError, say
from bvae_jax.files.archive import DamagedError, read_npz, write_npz
from bvae_jax.runtime import bar, user_cache
from bvae_jax.types import Images, ImageShape, Indices, PRNGKeys

MEMORY_SHARE = 0.5
"""`auto` keeps images on the device up to this share of its memory."""


class Source(NamedTuple):
    """How images come to the device.

    `arrays` is passed to the compiled program as an argument, never closed over (a constant of
    that size would be copied into the program); `take(arrays, indices, keys)`, with a key for each
    image, is pure and jittable.

    Attributes:
        read: indices -> arrays of NumPy that hold these images, where they do not all stay on the
            device; `arrays` is of no use then.
        image_bytes: of an image that is read.
    """

    arrays: Any
    take: Callable[[Any, Indices, PRNGKeys], Images]
    read: Callable[[np.ndarray], Any] | None = None
    image_bytes: int = 0

    def reach(self, indices: Any) -> Any:
        """Arrays from which at least these images can be taken."""
        return self.arrays if self.read is None else self.read(np.asarray(indices))

    def look(self, arrays: Any, indices: Indices) -> Images:
        """Images as evaluation sees them: each the same whenever it is looked at."""
        of_image = functools.partial(jax.random.fold_in, jax.random.key(0))
        return self.take(arrays, indices, jax.vmap(of_image)(indices))


def make_source(dataset: Dataset, kind: str, platform: str, *, progress: bool = True) -> Source:
    """How the images of `dataset` come to the device.

    Args:
        kind: "rendered" (drawn in the step), "resident" (gathered from an array on the device),
            "streamed" (brought from the host while the device computes) or "auto".
            What can be rendered, auto renders, unless that is slow on a CPU. Stored images are
            resident up to half of the device's memory, and streamed beyond.
        platform: `jax.default_backend()`.
        progress: show a bar while a rendered set is cached for the first time.

    Raises:
        UserError: the images cannot come so.
    """
    pixels = dataset.pixels
    if kind == "auto":
        kind = _automatic(pixels, platform)
    if kind == "rendered":
        if not isinstance(pixels, Rendered):
            raise _impossible(dataset, kind, "resident, streamed or auto: its images are stored")
        return rendered(dataset)
    if isinstance(pixels, Rendered):
        if not pixels.cache:
            raise _impossible(dataset, kind, "rendered or auto: its images are drawn in the step")
        pixels = Stored(load_packed(pixels, progress=progress), pixels.shape)
    return (resident if kind == "resident" else streamed)(dataset, pixels)


def _automatic(pixels: Rendered | Stored, platform: str) -> str:
    if isinstance(pixels, Rendered):
        return "resident" if pixels.cache and platform == "cpu" else "rendered"
    return "resident" if pixels.images.nbytes <= MEMORY_SHARE * device_memory() else "streamed"


def _impossible(dataset: Dataset, kind: str, wanted: str) -> UserError:
    return UserError(f"--image-source: got {kind} for {dataset.name}, wanted {wanted}.")


def device_memory() -> int:
    """Bytes of memory that a device has; of the host for a CPU."""
    known = jax.local_devices()[0].memory_stats() or {}
    return known.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def rendered(dataset: Dataset) -> Source:
    """Images drawn when they are needed: no memory, little arithmetic on an accelerator."""
    pixels = dataset.pixels
    assert isinstance(pixels, Rendered)

    def draw(arrays: Any, rows: Indices) -> Images:
        factors = jnp.stack(jnp.unravel_index(rows, pixels.sizes), axis=-1)
        return pixels.render(factors, *arrays)

    arrays = jax.tree.map(jnp.asarray, pixels.arrays())
    return Source(*_chosen(dataset, arrays, draw))


def resident(dataset: Dataset, pixels: Stored) -> Source:
    """Images gathered from an array that stays on the device."""

    def gather(images: Array, rows: Indices) -> Images:
        return unpacked(images[rows], pixels.shape)

    return Source(*_chosen(dataset, jnp.asarray(pixels.images), gather))


def streamed(dataset: Dataset, pixels: Stored) -> Source:
    """Images brought to the device as far as they are needed: a window, found by index."""

    def read(indices: np.ndarray) -> Any:
        ids = np.sort(indices, axis=None)  # in the file's order
        rows = ids if dataset.rows is None else dataset.rows[ids]
        return ids.astype(np.int32), pixels.images[rows]

    def gather(window: Any, indices: Indices) -> Images:
        ids, images = window
        return unpacked(images[jnp.searchsorted(ids, indices)], pixels.shape)

    image_bytes = pixels.images.nbytes // len(pixels.images)
    return Source((), _finished(dataset, gather), read, image_bytes)


def unpacked(rows: Array, shape: ImageShape) -> Images:
    """Stored rows as images in [0, 1], float32."""
    if rows.ndim == 2:
        bits = jnp.unpackbits(rows, axis=1, count=math.prod(shape))
        return bits.reshape(-1, *shape).astype(jnp.float32)
    return rows.astype(jnp.float32) / 255


def _chosen(dataset: Dataset, arrays: Any, take_rows: Callable) -> tuple[Any, Callable]:
    """(arrays, take) by index of the data set, where `take_rows` knows rows of its pixels."""
    if dataset.rows is None:
        return arrays, _finished(dataset, take_rows)

    def gather(arrays: Any, indices: Indices) -> Images:
        rows, inner = arrays
        return take_rows(inner, rows[indices])

    return (jnp.asarray(dataset.rows), arrays), _finished(dataset, gather)


def _finished(dataset: Dataset, gather: Callable) -> Callable[[Any, Indices, PRNGKeys], Images]:
    finish = dataset.finish

    def take(arrays: Any, indices: Indices, keys: PRNGKeys) -> Images:
        images = gather(arrays, indices)
        return images if finish is None else jax.vmap(finish)(images, keys)

    return take


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
    say(f"cache {path} is damaged ({reason}): rendering it anew.")
    return None
