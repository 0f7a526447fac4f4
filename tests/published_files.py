"""Files of the layouts that are published, small or as large as they are, for tests."""

import gzip
import hashlib
import io
import struct
import tarfile
import zipfile
from typing import Any

import h5py
import numpy as np
import scipy.io
from conftest import REAL_DATA
from PIL import Image
from sklearn.datasets import load_digits

from bvae_jax.data.published import PUBLISHED

SMALL_SPRITES = (3, 2, 4, 3, 2)
SMALL_SHAPES = (2, 3, 2, 2, 2, 3)
SMALL_CARS = (4, 24, 5)


def grid(sizes):
    """[image, factor] class indices of every combination, the last factor fastest."""
    return np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), -1).reshape(-1, len(sizes))


def noise(shape, top=256, seed=0):
    return np.random.default_rng(seed).integers(0, top, shape, np.uint8)


def use_small(monkeypatch, name, path, sizes):
    """Let a file, which is smaller, be what was published under a name."""
    content = path.read_bytes()
    old = PUBLISHED[name]
    file = old.file._replace(
        name=path.name, size=len(content), digest=f"sha256:{hashlib.sha256(content).hexdigest()}"
    )
    layout = old.layout._replace(sizes=sizes)
    monkeypatch.setitem(PUBLISHED, name, old._replace(file=file, layout=layout))


def dsprites_hdf5(path, images, sizes, classes=None, **options):
    """[n, 64, 64] images with the labels of dSprites; whole images may come in parts."""
    classes = grid(sizes) if classes is None else classes
    colour = np.zeros((len(classes), 1), np.int64)
    with h5py.File(path, "w") as file:
        file.create_dataset("imgs", data=images, **options)
        latents = file.create_group("latents")
        latents["classes"] = np.hstack([colour, classes])
        latents["values"] = np.hstack([colour + 1.0, classes / 7])


def dsprites_npz(path, images, sizes, metadata=None):
    classes = np.hstack([np.zeros((len(images), 1), np.int64), grid(sizes)])
    if metadata is None:
        metadata = np.array({"author": "somebody"}, object)
    np.savez_compressed(
        path, imgs=images, latents_classes=classes, latents_values=classes / 7, metadata=metadata
    )


def shapes3d_h5(path, images, sizes):
    values = grid(sizes) * [0.1, 0.1, 0.1, 0.07, 1.0, 4.3] + [0, 0, 0, 0.75, 0, -30]
    with h5py.File(path, "w") as file:
        file["images"] = images
        file["labels"] = values


def cars_archive(path, views, listed=None):
    """[object, 128, 128, 3, azimuth, elevation] views; `listed` is the content of list.txt."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for number, view in enumerate(views):
            buffer = io.BytesIO()
            mask = np.zeros((2, 2))
            scipy.io.savemat(buffer, {"im": view, "mask": mask})
            add(archive, f"data/cars/car_{number:03}_mesh.mat", buffer.getvalue())
        if listed is not None:
            add(archive, "data/cars/list.txt", listed.encode())
        add(archive, "data/shapes48.mat", b"another set")


def add(archive, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def digits():
    """[10000, 28, 28] handwritten digits and their classes: MNIST's, or scikit-learn's."""
    path = REAL_DATA / "mnist_t10k.npz"
    if path.exists():
        with np.load(path) as archive:
            return archive["images"], archive["labels"].astype(np.uint8)
    found: Any = load_digits()
    images = np.pad(found.images * 15, ((0, 0), (10, 10), (10, 10))).astype(np.uint8)
    return np.resize(images, (10_000, 28, 28)), np.resize(found.target.astype(np.uint8), 10_000)


def idx(values):
    """A gzipped file of MNIST's format."""
    head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    return gzip.compress(head + values.tobytes(), compresslevel=1)


def norb(values):
    """A gzipped file of NORB's binary matrix format."""
    magic = {"uint8": 507333717, "int32": 507333716}[values.dtype.name]
    shape = [*values.shape, 1, 1][: max(3, values.ndim)]
    head = struct.pack(f"<II{len(shape)}I", magic, values.ndim, *shape)
    return gzip.compress(head + values.tobytes(), compresslevel=1)


def cifar(images, labels):
    """The records of a batch of CIFAR-10: label, then red, green and blue planes."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.hstack([labels[:, None].astype(np.uint8), planes]).tobytes()


def picture(pixels, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
