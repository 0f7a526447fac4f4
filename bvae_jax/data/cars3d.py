"""Cars3D: renderings of 183 cars, an archive of MATLAB files.

Reed et al., "Deep Visual Analogy-Making", 2015. Each file of data/cars holds `im`
[128, 128, 3, azimuth, elevation]. Images are made smaller by Lanczos resampling, and factors
ordered elevation, azimuth, object, as in Locatello et al., "Challenging Common Assumptions in the
Unsupervised Learning of Disentangled Representations", 2019. Objects have the order of
data/cars/list.txt, or of their names where that is absent.
"""

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from bvae_jax.data.grids import Layout


def cars3d(path: Path, layout: Layout) -> Iterator[np.ndarray]:
    """Images [image, height, width, channel] in the order of the factors.

    Raises:
        ValueError: the archive holds something else.
    """
    elevations, azimuths, objects = layout.sizes
    order, cars = _read(path, layout)
    if order is not None and set(order) != set(cars):
        raise ValueError("data/cars/list.txt does not name the files that are there")
    names = order or sorted(cars)
    if len(names) != objects:
        raise ValueError(f"got {len(names)} files data/cars/*.mat, wanted {objects}")
    for elevation in range(elevations):
        for azimuth in range(azimuths):
            yield np.stack([cars[name][azimuth, elevation] for name in names])


def _read(path: Path, layout: Layout) -> tuple[list[str] | None, dict[str, np.ndarray]]:
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
                cars[name.stem] = _images(file, layout)
    return order, cars


def _images(file: Any, layout: Layout) -> np.ndarray:
    import scipy.io

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
