"""Sets that are published as one file: found or fetched, checked, converted once.

Each becomes one image for each combination of its factors, in the published order.
"""

import contextlib
import dataclasses
import glob
import hashlib
import http.client
import os
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bvae_jax.data import shapes3d
from bvae_jax.data.base import Dataset
from bvae_jax.data.dsprites import FACTOR_NAMES, FACTOR_SIZES, SIDE, canonical
from bvae_jax.data.layouts import (
    Layout,
    Read,
    cars3d,
    dsprites_hdf5,
    dsprites_npz,
    mpi3d_npz,
    shapes3d_hdf5,
)
from bvae_jax.data.store import Writer, open_prepared, place
from bvae_jax.errors import UserError
from bvae_jax.files import held, remove_abandoned
from bvae_jax.files.archive import DamagedError
from bvae_jax.runtime import bar

DAMAGES = (
    *(OSError, ValueError, KeyError, TypeError, IndexError, EOFError, RuntimeError, MemoryError),
    *(DamagedError, tarfile.TarError, zlib.error, SyntaxError),
)
"""What reading a damaged file raises, of whatever format."""
BLOCK = 2**20
PATIENCE = 10.0
"""Seconds that a server has to answer."""


class PublishedFile(NamedTuple):
    """A file on somebody's server.

    Attributes:
        name: its own name.
        url: where it is.
        size: in bytes; 0 where it is not known for certain.
        digest: "sha256:..." or "md5:..."; empty where it is not known for certain.
        mirror: where it is, too; empty where nowhere is known.
    """

    name: str
    url: str
    size: int = 0
    digest: str = ""
    mirror: str = ""

    @property
    def urls(self) -> tuple[str, ...]:
        """All places, the first to be tried first."""
        return (self.url, self.mirror) if self.mirror else (self.url,)

    def described(self) -> str:
        """URLs, size and checksum."""
        known = [f"{self.size} bytes" if self.size else "size unknown"]
        known.append(self.digest.replace(":", " ") or "checksum unknown")
        return f"{' or '.join(self.urls)} ({', '.join(known)})"


class Published(NamedTuple):
    """A set that is one file.

    Attributes:
        file: where it is, and its checksum.
        layout: what it is to hold.
        read: its reader.
        licence: of the images, as their owner states it, or `NOT_STATED`.
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
SHAPES3D = Layout(shapes3d.FACTOR_NAMES, shapes3d.FACTOR_SIZES, (64, 64, 3))
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

NOT_STATED = "none stated by the owner"
OF_DSPRITES = ("Apache-2.0", "Matthey, Higgins, Hassabis, Lerchner: dSprites, 2017")
OF_SHAPES3D = ("Apache-2.0", "Burgess, Kim: 3D Shapes Dataset, 2018")
OF_MPI3D = (
    "CC BY 4.0",
    "Gondal et al.: On the Transfer of Inductive Bias from Simulation to the Real World: a New "
    "Disentanglement Dataset, 2019",
)
OF_CARS3D = (NOT_STATED, "Reed, Zhang, Zhang, Lee: Deep Visual Analogy-Making, 2015")

GITHUB = "https://github.com/google-deepmind/dsprites-dataset/raw/master"
SPRITES = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64"
SHAPES_URL = "https://storage.googleapis.com/3d-shapes/3dshapes.h5"
CARS_URL = "http://www.scottreed.info/files/nips2015-analogy-data.tar.gz"
COMPLEX_URL = "https://drive.google.com/file/d/1Tp8eTdHxgUMtsZv5uAoYAbJR1BOa_OQm"
STORAGE = "https://storage.googleapis.com/mpi3d_disentanglement_dataset/data"
MIRROR = "https://huggingface.co/datasets/waleedgondal/mpi3d/resolve/main"
"""Both of MPI3D are its owner's; the addresses in older code answer with a billing error."""

SPRITES_NPZ = PublishedFile(
    f"{SPRITES}.npz", f"{GITHUB}/{SPRITES}.npz", digest="md5:7da33b31b13a06f4b04a70402ce90c2e"
)
SPRITES_HDF5 = PublishedFile(
    f"{SPRITES}.hdf5",
    f"{GITHUB}/{SPRITES}.hdf5",
    28_024_106,
    "sha256:729fa22e884c9c500e1f17415d580746b4c5894fbbb780a1319bbcfa39a745bb",
)
SHAPES_H5 = PublishedFile(
    "3dshapes.h5",
    SHAPES_URL,
    267_573_662,
    "sha256:0a0f6ed98baff276a50f3a081a7434d788da63cb135a98189b2a5b5769be1785",
)
CARS = PublishedFile(
    "nips2015-analogy-data.tar.gz", CARS_URL, digest="md5:4e866a7919c1beedf53964e6f7a23686"
)


def _mpi3d(kind: str, digest: str, there: str = "") -> Published:
    name = f"mpi3d_{kind}.npz"
    file = PublishedFile(
        name, f"{STORAGE}/{there or name}", digest=digest, mirror=f"{MIRROR}/{name}"
    )
    return Published(file, MPI3D, mpi3d_npz, *OF_MPI3D)


PUBLISHED: dict[str, Published] = {
    "dsprites_npz": Published(SPRITES_NPZ, DSPRITES, dsprites_npz, *OF_DSPRITES, True, canonical),
    "dsprites_hdf5": Published(
        SPRITES_HDF5, DSPRITES, dsprites_hdf5, *OF_DSPRITES, True, canonical
    ),
    "shapes3d_h5": Published(SHAPES_H5, SHAPES3D, shapes3d_hdf5, *OF_SHAPES3D),
    "mpi3d_toy": _mpi3d("toy", "md5:55889cb7c7dfc655d6e0277beee88868"),
    "mpi3d_realistic": _mpi3d("realistic", "md5:59a6225b88b635365f70c91b3e52f70f"),
    "mpi3d_real": _mpi3d("real", "md5:0f33f609918fb5c97996692f91129802", "real.npz"),
    "mpi3d_real_complex": Published(
        PublishedFile("real3d_complicated_shapes_ordered.npz", COMPLEX_URL),
        COMPLEX,
        mpi3d_npz,
        *OF_MPI3D,
    ),
    "cars3d": Published(CARS, CARS3D, cars3d, *OF_CARS3D),
}


def open_published(
    name: str, data_dir: Path, *, progress: bool = True, fetch: bool = False
) -> Dataset:
    """A published set, converted from its file when it is opened for the first time.

    Args:
        name: one of `PUBLISHED`.
        data_dir: what `store.data_dir` gives; the file lies there, or in downloads/manual.
        progress: show bars while the file is fetched, checked and converted.
        fetch: download the file if it is not there and its checksum is known.

    Raises:
        UserError: the file is not there, or not what was published; or its prepared form is
            damaged.
    """
    published = PUBLISHED[name]
    directory = published_place(name, data_dir)
    if not directory.exists():
        path = find(published.file, data_dir, name, fetch=fetch, progress=progress)
        convert(path, published, directory, name, progress=progress)
    opened = open_prepared(directory, name=name, progress=progress)
    return dataclasses.replace(opened, canonical=published.canonical)


def published_place(name: str, data_dir: Path) -> Path:
    """Where a published set is kept."""
    published = PUBLISHED[name]
    return place(data_dir, name, published.file.name, published.file.digest, published.layout)


def manual_dir(data_dir: Path) -> Path:
    """Where files lie that were fetched, by hand or by `find`."""
    return data_dir / "downloads" / "manual"


def find(
    file: PublishedFile, data_dir: Path, name: str, *, fetch: bool, progress: bool = True
) -> Path:
    """The file: in the data directory, in downloads/manual there, or downloaded to that.

    Args:
        name: what `--dataset` calls the set.

    Raises:
        UserError: it is neither there nor can it be downloaded, and the message says what to fetch
            by hand; or it has another size or checksum.
    """
    folder = manual_dir(data_dir)
    for path in (data_dir / file.name, folder / file.name):
        if path.exists():
            check(path, file, progress=progress)
            return path
    by_hand = UserError(
        f"{name}: fetch by hand {file.described()}. Put it into {folder} as {file.name}, then: "
        f"bvae data prepare {name}."
    )
    if not (fetch and file.digest):
        raise by_hand
    part = folder / f".{file.name}.{os.getpid()}.part"
    folder.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder, f".{glob.escape(file.name)}.*.part")
    other: UserError | None = None
    try:
        for url in file.urls:
            try:
                with part.open("wb") as whole, held(part):
                    _download(url, whole, progress)
                    check(part, file, progress=progress, called=url)
                    return part.replace(folder / file.name)
            except UserError as error:
                other = error
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, urllib.error.HTTPError):
                    error.close()
                by_hand.__cause__ = error
        raise other or by_hand
    finally:
        part.unlink(missing_ok=True)


def _download(url: str, whole: Any, progress: bool) -> None:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        total, name = answer.length, f"fetching {url.rpartition('/')[2]}"
        shown = bar(total=total, desc=name, unit="B", unit_scale=True, disable=not progress)
        with shown:
            while block := answer.read(BLOCK):
                whole.write(block)
                shown.update(len(block))
    whole.flush()


def check(path: Path, file: PublishedFile, *, progress: bool = True, called: str = "") -> None:
    """See whether a file is what was published, as far as that is known.

    Args:
        called: what messages call it; not given: its path.

    Raises:
        UserError: it is no file, cannot be read, or has another size or checksum.
    """
    called, again = called or str(path), f"fetch it again from {' or '.join(file.urls)}"
    if not path.is_file():
        raise UserError(f"{called}: got a directory, wanted the file {file.name}: {again}.")
    size = path.stat().st_size
    if not size or (file.size and size != file.size):
        raise UserError(f"{called}: got {size} bytes, wanted {file.size or 'more'}: {again}.")
    if not file.digest:
        return
    method, _, wanted = file.digest.partition(":")
    with _reading(path, again):
        got = _digest(path, method, progress)
    if got != wanted:
        raise UserError(f"{called}: got {method} {got}, wanted {wanted}: {again}.")


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
def _reading(path: Path, remedy: str) -> Iterator[None]:
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
    with writer, shown, _reading(path, remedy), contextlib.closing(chunks):  # pyright: ignore
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
