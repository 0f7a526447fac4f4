"""What the files of published sets hold, and how they are read: one reader for each format."""

import math
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from bvae_jax.data.columns import in_grid_order
from bvae_jax.errors import needs
from bvae_jax.files.archive import (
    Header,
    check_size,
    members,
    open_archive,
    read_array,
    read_blocks,
    read_header,
    want,
)
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
"""Yields uint8 [image, height, width, channel] in the order of the combinations, the last factor
fastest, and raises ValueError, or what its library raises, where a file is otherwise."""


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
    with open_archive(path, "np.savez") as archive:
        _check_classes(read_array(archive, _header(archive, "latents_classes")), layout)
        yield from _npz_images(archive, "imgs", layout)


def mpi3d_npz(path: Path, layout: Layout) -> Iterator[np.ndarray]:
    """MPI3D: `images` [image, 64, 64, 3], and nothing that says which factors they have."""
    with open_archive(path, "np.savez") as archive:
        yield from _npz_images(archive, "images", layout)


def _header(archive: zipfile.ZipFile, key: str) -> Header:
    found = members(archive)
    want(key in found, f"it has no {key}")
    header = read_header(archive, key, found[key], "numbers")
    want(header.shape and not header.fortran, f"{key} is not stored image by image")
    return header


def _npz_images(archive: zipfile.ZipFile, key: str, layout: Layout) -> Iterator[np.ndarray]:
    header = _header(archive, key)
    _check_images(header.shape, header.dtype, layout)
    check_size(header)
    size = math.prod(layout.shape)
    for block in read_blocks(archive, header, size * max(1, CHUNK // size)):
        yield np.frombuffer(block, np.uint8).reshape(-1, *layout.shape)


def cars3d(path: Path, layout: Layout) -> Iterator[np.ndarray]:
    """Cars3D: an archive of MATLAB files, each with `im` [128, 128, 3, azimuth, elevation].

    Images are made smaller by Lanczos resampling, and factors ordered elevation, azimuth, object,
    as in Locatello et al., "Challenging Common Assumptions in the Unsupervised Learning of
    Disentangled Representations", 2019. Objects have the order of data/cars/list.txt, or of their
    names where that is absent.
    """
    elevations, azimuths, objects = layout.sizes
    order, cars = _read_cars(path, layout)
    if order is not None and set(order) != set(cars):
        raise ValueError("data/cars/list.txt does not name the files that are there")
    names = order or sorted(cars)
    if len(names) != objects:
        raise ValueError(f"got {len(names)} files data/cars/*.mat, wanted {objects}")
    for elevation in range(elevations):
        for azimuth in range(azimuths):
            yield np.stack([cars[name][azimuth, elevation] for name in names])


def _read_cars(path: Path, layout: Layout) -> tuple[list[str] | None, dict[str, np.ndarray]]:
    """The names in their order, and [azimuth, elevation, height, width, channel] of each."""
    order, cars = None, {}
    with tarfile.open(path) as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            if name.parts[-3:-1] != ("data", "cars") or not member.isfile():
                continue
            file = archive.extractfile(member)
            assert file is not None  # a plain file
            if name.name == "list.txt":
                order = [PurePosixPath(n).stem for n in file.read().decode().split()]
            elif name.suffix == ".mat":
                cars[name.stem] = _cars_images(file, layout)
    return order, cars


def _cars_images(file: Any, layout: Layout) -> np.ndarray:
    import scipy.io
    from PIL import Image

    views = scipy.io.loadmat(file, variable_names=["im"])["im"]
    elevations, azimuths, _ = layout.sizes
    if views.dtype != np.uint8 or views.ndim != 5 or views.shape[2:] != (3, azimuths, elevations):
        wanted = [128, 128, 3, azimuths, elevations]
        raise ValueError(f"got im {views.dtype}{list(views.shape)}, wanted uint8{wanted}")
    height, width, _ = layout.shape
    views = np.transpose(views, (3, 4, 0, 1, 2))
    small = [
        np.asarray(Image.fromarray(view).resize((width, height), Image.Resampling.LANCZOS))
        for view in views.reshape(-1, *views.shape[2:])
    ]
    return np.stack(small).reshape(azimuths, elevations, *layout.shape)


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
    if not in_grid_order(classes, layout.sizes):
        raise ValueError(
            f"its labels are not every combination of {' x '.join(map(str, layout.sizes))} values "
            "in their order"
        )
