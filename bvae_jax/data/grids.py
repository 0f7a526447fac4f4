"""Files that hold one image for each combination of factors, read in chunks.

A reader yields uint8 [image, height, width, channel] in the order of the combinations, the last
factor fastest, and raises ValueError, or what its library raises, where a file is otherwise.
"""

import contextlib
import math
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bvae_jax.errors import needs
from bvae_jax.types import ImageShape

CHUNK = 2**24
"""Bytes of images that are read at once, more or less."""


class Layout(NamedTuple):
    """What a file is to hold.

    Attributes:
        names: of the factors.
        sizes: number of values of each.
        shape: of an image: height, width, channels.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    shape: ImageShape

    @property
    def images(self) -> int:
        """Number of images."""
        return math.prod(self.sizes)


Read = Callable[[Path, Layout], Iterator[np.ndarray]]


def dsprites_hdf5(path: Path, layout: Layout) -> Iterator[np.ndarray]:
    """dSprites: `imgs` [image, 64, 64] and `latents/classes` [image, 1 + factor]."""
    needs("h5py", "data", path.name)
    import h5py

    with h5py.File(path, "r") as file:
        images, classes = _dataset(file, "imgs"), _dataset(file, "latents/classes")
        _check_images(images.shape, images.dtype, layout)
        _check_classes(classes[()], layout)
        yield from _chunks(images, layout)


def shapes3d_hdf5(path: Path, layout: Layout) -> Iterator[np.ndarray]:
    """3D Shapes: `images` [image, 64, 64, 3] and `labels` [image, factor], which are values."""
    needs("h5py", "data", path.name)
    import h5py

    with h5py.File(path, "r") as file:
        images, values = _dataset(file, "images"), _dataset(file, "labels")
        _check_images(images.shape, images.dtype, layout)
        columns = [np.unique(column, return_inverse=True)[1] for column in values[()].T]
        _check_grid(np.stack(columns, axis=1), layout)
        yield from _chunks(images, layout)


def dsprites_npz(path: Path, layout: Layout) -> Iterator[np.ndarray]:
    """dSprites: `imgs` and `latents_classes`; `metadata`, which is pickled, is never opened."""
    with zipfile.ZipFile(path) as archive:
        with _member(archive, "latents_classes") as (file, shape, dtype):
            rows = list(_rows(file, shape, dtype))
        _check_classes(np.concatenate(rows), layout)
        yield from _npz_images(archive, "imgs", layout)


def npz_images(path: Path, layout: Layout) -> Iterator[np.ndarray]:
    """MPI3D: `images` [image, 64, 64, 3], and nothing that says which factors they have."""
    with zipfile.ZipFile(path) as archive:
        yield from _npz_images(archive, "images", layout)


def _npz_images(archive: zipfile.ZipFile, name: str, layout: Layout) -> Iterator[np.ndarray]:
    with _member(archive, name) as (file, shape, dtype):
        _check_images(shape, dtype, layout)
        for rows in _rows(file, shape, dtype):
            yield rows.reshape(-1, *layout.shape)


@contextlib.contextmanager
def _member(archive: zipfile.ZipFile, name: str) -> Iterator[tuple[Any, tuple[int, ...], np.dtype]]:
    """An array in an archive: the file at its first number, its shape and type."""
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in readers:
            raise ValueError(f"{name}.npy is of version {version}, wanted 1.0 or 2.0")
        shape, fortran, dtype = readers[version](file)
        if dtype.hasobject:
            raise ValueError(f"{name}.npy is pickled, which is never loaded")
        if fortran or not shape:
            raise ValueError(f"{name}.npy is not stored image by image")
        yield file, shape, dtype


def _rows(file: Any, shape: tuple[int, ...], dtype: np.dtype) -> Iterator[np.ndarray]:
    """The rows of an array, in chunks; at the end zipfile compares its checksum."""
    width = math.prod(shape[1:]) * dtype.itemsize
    left = shape[0] * width
    step = max(1, CHUNK // max(1, width)) * width
    while left:
        data = file.read(min(left, step))
        if len(data) != min(left, step):
            raise ValueError("it ends early")
        left -= len(data)
        yield np.frombuffer(data, dtype).reshape(-1, *shape[1:])
    if file.read(1):
        raise ValueError("it is longer than its header says")


def _dataset(file: Any, name: str) -> Any:
    """An array in an HDF5 file."""
    found = file.get(name)
    if not hasattr(found, "dtype"):  # a group has none
        raise ValueError(f"it has no {name}")
    return found


def _chunks(images: Any, layout: Layout) -> Iterator[np.ndarray]:
    """Whole chunks of HDF5, each of which is unpacked once."""
    rows = images.chunks[0] if images.chunks else 1
    step = rows * max(1, CHUNK // (rows * math.prod(layout.shape)))
    for start in range(0, len(images), step):
        yield images[start : start + step].reshape(-1, *layout.shape)


def _check_images(shape: tuple[int, ...], dtype: Any, layout: Layout) -> None:
    wanted = (layout.images, *layout.shape)
    grey = wanted[:-1] if layout.shape[-1] == 1 else wanted
    if tuple(shape) not in (wanted, grey) or dtype != np.uint8:
        raise ValueError(f"got images {dtype}{list(shape)}, wanted uint8{list(wanted)}")


def _check_classes(classes: np.ndarray, layout: Layout) -> None:
    """Class indices of dSprites have the colour, of which there is one, before the factors."""
    if classes.ndim != 2 or classes.shape[1] != len(layout.sizes) + 1:
        wanted = [layout.images, len(layout.sizes) + 1]
        raise ValueError(f"got latent classes {list(classes.shape)}, wanted {wanted}")
    _check_grid(classes[:, 1:], layout)


def _check_grid(classes: np.ndarray, layout: Layout) -> None:
    wanted = np.indices(layout.sizes).reshape(len(layout.sizes), -1).T
    if classes.shape != wanted.shape or not np.array_equal(classes, wanted):
        raise ValueError(
            f"its labels are not every combination of {' x '.join(map(str, layout.sizes))} values "
            "in their order"
        )
