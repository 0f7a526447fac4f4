"""Sets that are published as one file: fetched by hand, checked, converted once.

Each becomes one image for each combination of its factors, in the published order.
"""

import contextlib
import dataclasses
import hashlib
import math
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from bvae_jax.data.base import Dataset
from bvae_jax.data.dsprites import FACTOR_NAMES, FACTOR_SIZES, SIDE, canonical
from bvae_jax.data.store import (
    Writer,
    open_prepared,
    place,
)
from bvae_jax.errors import UserError, needs, unknown
from bvae_jax.progress import bar
from bvae_jax.types import ImageShape

DAMAGES = (
    *(OSError, ValueError, KeyError, TypeError, IndexError, EOFError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, tarfile.TarError, SyntaxError),
)
"""What reading a damaged file raises, of whatever format."""
BLOCK = 2**20
MOST = 12
"""Files that are described in one message."""


class PublishedFile(NamedTuple):
    """A file on somebody's server.

    Attributes:
        name: its own name.
        url: where it is.
        size: in bytes; 0 where it is not known for certain.
        digest: "sha256:..." or "md5:..."; empty where it is not known for certain.
    """

    name: str
    url: str
    size: int = 0
    digest: str = ""

    def described(self) -> str:
        """URL, size and checksum."""
        known = [f"{self.size} bytes" if self.size else "size unknown"]
        known.append(self.digest.replace(":", " ") or "checksum unknown")
        return f"{self.url} ({', '.join(known)})"


def manual_dir(data_dir: Path) -> Path:
    """Where files lie that were fetched by hand."""
    return data_dir / "downloads" / "manual"


def find(file: PublishedFile, data_dir: Path) -> Path | None:
    """A file that was fetched by hand: in the data directory, or in downloads/manual there."""
    places = [data_dir / file.name, manual_dir(data_dir) / file.name]
    return next((path for path in places if path.exists()), None)


def missing(name: str, files: Sequence[PublishedFile], place: Path) -> UserError:
    """The error for files that are not there and cannot be fetched."""
    wanted = "; ".join(file.described() for file in files[:MOST])
    others = f" and {len(files) - MOST} others" if len(files) > MOST else ""
    names = ", ".join(file.name for file in files[:MOST])
    return UserError(
        f"{name}: fetch by hand {wanted}{others}. Put {names}{others} into {place}, then: "
        f"bvae data prepare {name}."
    )


def check(path: Path, file: PublishedFile, *, progress: bool = True) -> None:
    """See whether a file is what was published, as far as that is known.

    Raises:
        UserError: it is no file, cannot be read, or has another size or checksum.
    """
    again = f"fetch it again from {file.url}"
    if not path.is_file():
        raise UserError(f"{path}: got a directory, wanted the file {file.name}: {again}.")
    size = path.stat().st_size
    if not size or (file.size and size != file.size):
        raise UserError(f"{path}: got {size} bytes, wanted {file.size or 'more'}: {again}.")
    if not file.digest:
        return
    method, _, wanted = file.digest.partition(":")
    with reading(path, again):
        got = _digest(path, method, progress)
    if got != wanted:
        raise UserError(f"{path}: got {method} {got}, wanted {wanted}: {again}.")


def _digest(path: Path, method: str, progress: bool) -> str:
    digest = hashlib.new(method, usedforsecurity=False)
    total, name = path.stat().st_size, f"checking {path.name}"
    shown = bar(total=total, desc=name, unit="B", unit_scale=True, disable=not progress)
    with path.open("rb") as file, shown:
        while block := file.read(BLOCK):
            digest.update(block)
            shown.update(len(block))
    return digest.hexdigest()


@contextlib.contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Turn what a damaged file raises into one line.

    Args:
        path: the file.
        remedy: what to do about it.

    Raises:
        UserError: the file is damaged.
    """
    try:
        yield
    except DAMAGES as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be read ({reason}): {remedy}.") from error


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


def cars3d(path: Path, layout: Layout) -> Iterator[np.ndarray]:
    """Images [image, height, width, channel] in the order of the factors.

    Raises:
        ValueError: the archive holds something else.
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


class Published(NamedTuple):
    """A set that is one file.

    Attributes:
        file: where it is, and its checksum.
        layout: what it is to hold.
        read: its reader.
        licence: of the images; empty where none is stated.
        citation: of the set.
        packed: whether all pixels are 0 or 1.
        canonical: see `Dataset`.
    """

    file: PublishedFile
    layout: Layout
    read: Read
    licence: str
    citation: str
    packed: bool = False
    canonical: Callable[[np.ndarray], np.ndarray] | None = None


DSPRITES = Layout(FACTOR_NAMES, FACTOR_SIZES, (SIDE, SIDE, 1))
SHAPES3D = Layout(
    ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation"),
    (10, 10, 10, 8, 4, 15),
    (64, 64, 3),
)
MPI3D = Layout(
    (
        *("object_color", "object_shape", "object_size", "camera_height", "background_color"),
        *("horizontal_axis", "vertical_axis"),
    ),
    (6, 6, 2, 3, 3, 40, 40),
    (64, 64, 3),
)
COMPLEX = MPI3D._replace(sizes=(4, 4, 2, 3, 3, 40, 40))
CARS3D = Layout(("elevation", "azimuth", "object"), (4, 24, 183), (64, 64, 3))

OF_DSPRITES = ("Apache-2.0", "Matthey, Higgins, Hassabis, Lerchner: dSprites, 2017")
OF_SHAPES3D = ("Apache-2.0", "Burgess, Kim: 3D Shapes Dataset, 2018")
OF_MPI3D = (
    "CC BY 4.0",
    "Gondal et al.: On the Transfer of Inductive Bias from Simulation to the Real World: a New "
    "Disentanglement Dataset, 2019",
)
OF_CARS3D = ("", "Reed, Zhang, Zhang, Lee: Deep Visual Analogy-Making, 2015")

GITHUB = "https://github.com/google-deepmind/dsprites-dataset/raw/master"
SPRITES = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64"
STORAGE = "https://storage.googleapis.com/disentanglement_dataset/Final_Dataset"

PUBLISHED: dict[str, Published] = {
    "dsprites_npz": Published(
        PublishedFile(
            f"{SPRITES}.npz",
            f"{GITHUB}/{SPRITES}.npz",
            digest="md5:7da33b31b13a06f4b04a70402ce90c2e",
        ),
        DSPRITES,
        dsprites_npz,
        *OF_DSPRITES,
        packed=True,
        canonical=canonical,
    ),
    "dsprites_hdf5": Published(
        PublishedFile(
            f"{SPRITES}.hdf5",
            f"{GITHUB}/{SPRITES}.hdf5",
            28_024_106,
            "sha256:729fa22e884c9c500e1f17415d580746b4c5894fbbb780a1319bbcfa39a745bb",
        ),
        DSPRITES,
        dsprites_hdf5,
        *OF_DSPRITES,
        packed=True,
        canonical=canonical,
    ),
    "shapes3d_h5": Published(
        PublishedFile(
            "3dshapes.h5",
            "https://storage.googleapis.com/3d-shapes/3dshapes.h5",
            267_573_662,
            "sha256:0a0f6ed98baff276a50f3a081a7434d788da63cb135a98189b2a5b5769be1785",
        ),
        SHAPES3D,
        shapes3d_hdf5,
        *OF_SHAPES3D,
    ),
    "mpi3d_toy": Published(
        PublishedFile(
            "mpi3d_toy.npz",
            f"{STORAGE}/mpi3d_toy.npz",
            digest="md5:55889cb7c7dfc655d6e0277beee88868",
        ),
        MPI3D,
        npz_images,
        *OF_MPI3D,
    ),
    "mpi3d_realistic": Published(
        PublishedFile("mpi3d_realistic.npz", f"{STORAGE}/mpi3d_realistic.npz"),
        MPI3D,
        npz_images,
        *OF_MPI3D,
    ),
    "mpi3d_real": Published(
        PublishedFile("mpi3d_real.npz", f"{STORAGE}/mpi3d_real.npz"),
        MPI3D,
        npz_images,
        *OF_MPI3D,
    ),
    "mpi3d_real_complex": Published(
        PublishedFile(
            "real3d_complicated_shapes_ordered.npz",
            "https://drive.google.com/file/d/1Tp8eTdHxgUMtsZv5uAoYAbJR1BOa_OQm",
        ),
        COMPLEX,
        npz_images,
        *OF_MPI3D,
    ),
    "cars3d": Published(
        PublishedFile(
            "nips2015-analogy-data.tar.gz",
            "http://www.scottreed.info/files/nips2015-analogy-data.tar.gz",
            digest="md5:4e866a7919c1beedf53964e6f7a23686",
        ),
        CARS3D,
        cars3d,
        *OF_CARS3D,
    ),
}


def open_published(name: str, data_dir: Path, *, progress: bool = True) -> Dataset:
    """A published set, converted from its file when it is opened for the first time.

    Args:
        name: one of `PUBLISHED`.
        data_dir: what `prepared.data_dir` gives; the file lies there, or in downloads/manual.
        progress: show bars while the file is checked and converted.

    Raises:
        UserError: the name is not known; the file is not there, or not what was published; or its
            prepared form is damaged.
    """
    if name not in PUBLISHED:
        raise unknown("published set", name, PUBLISHED)
    published = PUBLISHED[name]
    directory = published_place(name, data_dir)
    if not directory.exists():
        path = find(published.file, data_dir)
        if path is None:
            raise missing(name, [published.file], manual_dir(data_dir))
        check(path, published.file, progress=progress)
        convert(path, published, directory, name, progress=progress)
    opened = open_prepared(directory, name=name, progress=progress)
    return dataclasses.replace(opened, canonical=published.canonical)


def published_place(name: str, data_dir: Path) -> Path:
    """Where a published set is kept."""
    published = PUBLISHED[name]
    return place(data_dir, name, published.file.name, published.file.digest, published.layout)


def convert(
    path: Path, published: Published, directory: Path, name: str, *, progress: bool = True
) -> None:
    """Write the prepared form of a file that was published.

    Args:
        path: the file; what it holds is checked against `published`, its checksum is not.
        directory: where the prepared form is to lie.
        name: what `--dataset` calls it.

    Raises:
        UserError: the file is damaged or holds something else, or the directory cannot be written.
    """
    layout, source = published.layout, published.file.url
    shown = bar(
        total=layout.images, desc=f"converting {path.name} (once)", unit=" images", unit_scale=True,
        disable=not progress,
    )  # fmt: skip
    writer = Writer(directory, layout.shape, images=layout.images, packed=published.packed)
    remedy = f"fetch it again from {source}"
    chunks = published.read(path, layout)
    with writer, shown, reading(path, remedy), contextlib.closing(chunks):  # pyright: ignore
        for images in chunks:
            writer.add(images)
            shown.update(len(images))
        writer.finish(
            {
                "name": name,
                "factor_names": layout.names,
                "factor_sizes": layout.sizes,
                "source": source,
                "licence": published.licence,
                "citation": published.citation,
                "made_from": path.name,
            }
        )
