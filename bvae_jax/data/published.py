"""Sets that are published as one file: fetched by hand, checked, converted once.

Each becomes one image for each combination of its factors, in the published order.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bvae_jax.data.base import Dataset
from bvae_jax.data.cars3d import cars3d
from bvae_jax.data.dsprites import FACTOR_NAMES, FACTOR_SIZES, SIDE, canonical
from bvae_jax.data.files import PublishedFile, check, find, manual_dir, missing, reading
from bvae_jax.data.grids import Layout, Read, dsprites_hdf5, dsprites_npz, npz_images, shapes3d_hdf5
from bvae_jax.data.prepared import Writer, open_prepared, place
from bvae_jax.errors import unknown
from bvae_jax.progress import bar


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
