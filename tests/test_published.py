"""Sets that are published as one file."""

import io
import math
import os
import subprocess
import sys
import zipfile
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import published_files as files
import pytest
from PIL import Image

from bvae_jax.data import (
    dsprites,
)
from bvae_jax.data.catalogue import KNOWN, is_prepared
from bvae_jax.data.published import (
    PUBLISHED,
    convert,
    manual_dir,
    open_published,
    published_place,
)
from bvae_jax.errors import UserError

SPRITES = files.grid(files.SMALL_SPRITES)


def sprites():
    """Real sprites, uint8 [image, 64, 64] of 0 and 1, of a grid of few combinations."""
    drawn = jax.jit(dsprites.render)(SPRITES * [1, 5, 9, 15, 31])
    return np.asarray(drawn)[..., 0].astype(np.uint8)


def unpacked(dataset):
    bits = np.unpackbits(dataset.pixels.images, axis=1)
    return bits.reshape(-1, *dataset.image_shape)


def opened(name, data_dir) -> Any:
    return open_published(name, data_dir, progress=False)


class Bomb:
    """Leaves a trace where somebody unpickles it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def make_npz(path, bomb):
    files.dsprites_npz(path, sprites(), files.SMALL_SPRITES, np.array(Bomb(bomb), object))


def make_hdf5(path, bomb):
    files.dsprites_hdf5(path, sprites(), files.SMALL_SPRITES, chunks=(7, 16, 64))


@pytest.mark.parametrize(
    ("name", "make"), [("dsprites_npz", make_npz), ("dsprites_hdf5", make_hdf5)]
)
def test_dsprites(tmp_path, monkeypatch, name, make):
    path = tmp_path / PUBLISHED[name].file.name
    make(path, tmp_path / "bomb")
    files.use_small(monkeypatch, name, path, files.SMALL_SPRITES)
    dataset = opened(name, tmp_path)
    assert not (tmp_path / "bomb").exists()
    np.testing.assert_array_equal(unpacked(dataset)[..., 0], sprites())
    assert dataset.grid
    assert dataset.factor_names == ("shape", "scale", "orientation", "x", "y")
    np.testing.assert_array_equal(dataset.factors(jnp.arange(dataset.size)), SPRITES)
    assert dataset.canonical is dsprites.canonical
    assert "Apache" in dataset.licence
    path.unlink()  # it is not needed any more
    assert opened(name, tmp_path).version == dataset.version
    assert sorted(os.listdir(tmp_path)) == [published_place(name, tmp_path).name]


def test_shapes3d(tmp_path, monkeypatch):
    images = files.noise((144, 64, 64, 3))
    path = manual_dir(tmp_path) / "3dshapes.h5"
    path.parent.mkdir(parents=True)
    files.shapes3d_h5(path, images, files.SMALL_SHAPES)
    files.use_small(monkeypatch, "shapes3d_h5", path, files.SMALL_SHAPES)
    dataset = opened("shapes3d_h5", tmp_path)
    np.testing.assert_array_equal(dataset.pixels.images, images)
    assert dataset.grid
    assert dataset.factor_sizes == files.SMALL_SHAPES


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_mpi3d(tmp_path, monkeypatch, save):
    images = files.noise((2 * 3 * 5, 64, 64, 3))
    path = tmp_path / "mpi3d_real.npz"
    save(path, images=images)
    files.use_small(monkeypatch, "mpi3d_real", path, (2, 3, 1, 1, 1, 5, 1))
    np.testing.assert_array_equal(opened("mpi3d_real", tmp_path).pixels.images, images)


def cars():
    """Smooth pictures that tell elevation, azimuth and object apart."""
    views = np.zeros((5, 128, 128, 3, 24, 4), np.uint8)
    ramp = np.arange(128, dtype=np.uint8)
    views += ramp[:, None, None, None, None] // 2
    views[..., 0, :, :] += (np.arange(5, dtype=np.uint8) * 20)[:, None, None, None, None]
    views[..., 1, :, :] += np.arange(24, dtype=np.uint8)[:, None] * 5
    views[..., 2, :, :] += np.arange(4, dtype=np.uint8) * 30
    return views


@pytest.mark.parametrize("listed", [None, [3, 1, 0, 4, 2]])
def test_cars3d(tmp_path, monkeypatch, listed):
    path = tmp_path / PUBLISHED["cars3d"].file.name
    text = listed and "".join(f"car_{number:03}_mesh\n" for number in listed)
    files.cars_archive(path, cars(), text)
    files.use_small(monkeypatch, "cars3d", path, files.SMALL_CARS)
    dataset = opened("cars3d", tmp_path)
    for index in (0, 100, 311, 479):
        elevation, azimuth, number = files.grid(files.SMALL_CARS)[index]
        view = cars()[(listed or range(5))[number], ..., azimuth, elevation]
        wanted = Image.fromarray(view)
        wanted.thumbnail((64, 64), Image.Resampling.LANCZOS)  # as in the paper's code
        np.testing.assert_array_equal(dataset.pixels.images[index], np.asarray(wanted))


def refused(tmp_path, name, match):
    with pytest.raises(UserError, match=match) as info:
        opened(name, tmp_path)
    assert "\n" not in str(info.value)
    assert not published_place(name, tmp_path).exists()
    assert not [found for found in os.listdir(tmp_path) if found.endswith(".part")]


@pytest.mark.parametrize("name", PUBLISHED)
def test_absent_files_are_named_with_all_that_is_known(tmp_path, name):
    file = PUBLISHED[name].file
    wanted = [*file.urls, f"{manual_dir(tmp_path)} as {file.name},"]
    wanted.append(str(file.size or "size unknown"))
    wanted.append(file.digest.partition(":")[2] or "checksum unknown")
    with pytest.raises(UserError) as info:
        opened(name, tmp_path)
    assert not [part for part in wanted if part not in str(info.value)]
    assert "\n" not in str(info.value)


def test_files_that_are_not_what_was_published(tmp_path):
    path = tmp_path / PUBLISHED["shapes3d_h5"].file.name
    for content, match in ((b"", "got 0 bytes"), (b"no", "got 2 bytes, wanted 267573662")):
        path.write_bytes(content)
        refused(tmp_path, "shapes3d_h5", match)
    path.unlink()
    path.mkdir()
    refused(tmp_path, "shapes3d_h5", "got a directory")
    path = tmp_path / PUBLISHED["mpi3d_toy"].file.name
    path.write_bytes(b"something else")
    refused(tmp_path, "mpi3d_toy", "got md5 .*, wanted 55889cb7c7dfc655d6e0277beee88868")


def unknown_checksum(monkeypatch, name, path, sizes):
    files.use_small(monkeypatch, name, path, sizes)
    old = PUBLISHED[name]
    monkeypatch.setitem(PUBLISHED, name, old._replace(file=old.file._replace(size=0, digest="")))


def npy(array):
    """The bytes of an .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


IMAGES = files.noise((12, 64, 64, 3))
SIZES = (2, 3, 1, 1, 1, 2, 1)
BAD_NPZ = {
    "no archive": (lambda p: p.write_bytes(b"PK nonsense"), "not a zip file"),
    "empty archive": (lambda p: files.zipped(p, {}), "it has no images"),
    "pickled": (lambda p: np.savez(p, images=np.array([{}], object)), "never loaded"),
    "dtype": (lambda p: np.savez(p, images=IMAGES / 255), "got images float64"),
    "shape": (lambda p: np.savez(p, images=IMAGES[:, :32]), "wanted uint8"),
    "other number": (lambda p: np.savez(p, images=IMAGES[:11]), "wanted uint8"),
    "scalar": (lambda p: np.savez(p, images=np.uint8(3)), "not stored image by image"),
    "fortran": (lambda p: np.savez(p, images=np.asfortranarray(IMAGES)), "not stored image by"),
    "no array": (lambda p: files.zipped(p, {"images.npy": b"GIF89a"}), "magic string"),
    "header cut": (lambda p: files.zipped(p, {"images.npy": npy(IMAGES)[:50]}), "EOF"),
    "content cut": (lambda p: files.zipped(p, {"images.npy": npy(IMAGES)[:-9]}), "of data"),
    "more content": (
        lambda p: files.zipped(p, {"images.npy": npy(IMAGES) + b"x"}),
        "bytes of data",
    ),
    "version 9": (lambda p: files.zipped(p, {"images.npy": b"\x93NUMPY\x09\x00"}), "version"),
}


@pytest.mark.parametrize(("make", "match"), BAD_NPZ.values(), ids=BAD_NPZ)
def test_malformed_npz(tmp_path, monkeypatch, make, match):
    path = tmp_path / "mpi3d_real.npz"
    make(path)
    unknown_checksum(monkeypatch, "mpi3d_real", path, SIZES)
    refused(tmp_path, "mpi3d_real", match)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damaged_npz(tmp_path, monkeypatch, damage):
    """A bit that is flipped is found by the archive's own checksum."""
    path = tmp_path / "mpi3d_real.npz"
    np.savez(path, images=IMAGES)
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content[:-3000] if damage == "cut" else content)
    unknown_checksum(monkeypatch, "mpi3d_real", path, SIZES)
    refused(tmp_path, "mpi3d_real", "zip file" if damage == "cut" else "CRC-32")


def test_dsprites_npz_of_another_grid(tmp_path, monkeypatch):
    path = tmp_path / PUBLISHED["dsprites_npz"].file.name
    files.dsprites_npz(path, sprites(), (3, 4, 2, 3, 2))
    unknown_checksum(monkeypatch, "dsprites_npz", path, files.SMALL_SPRITES)
    refused(tmp_path, "dsprites_npz", "every combination of 3 x 2 x 4 x 3 x 2")


def without(name):
    def make(path):
        make_hdf5(path, None)
        with h5py.File(path, "a") as file:
            del file[name]

    return make


def replaced(name, array):
    def make(path):
        without(name)(path)
        with h5py.File(path, "a") as file:
            file[name] = array

    return make


def truncated(path):
    make_hdf5(path, None)
    os.truncate(path, path.stat().st_size // 2)


COLOUR = np.zeros((len(SPRITES), 1), np.int64)
BAD_HDF5 = {
    "no HDF5": (lambda p: p.write_bytes(b"\x89HDF nonsense"), "cannot be read"),
    "cut": (truncated, "cannot be read"),
    "no images": (without("imgs"), "it has no imgs"),
    "no classes": (without("latents/classes"), "it has no latents/classes"),
    "a group": (replaced("imgs", 0), "got images"),
    "shuffled": (replaced("latents/classes", np.hstack([COLOUR, SPRITES[::-1]])), "every comb"),
    "one column": (replaced("latents/classes", COLOUR), "got latent classes"),
    "0 to 255": (replaced("imgs", sprites() * 255), "wanted 0 or 1"),
    "dtype": (replaced("imgs", sprites().astype(bool)), "got images bool"),
    "transposed": (replaced("imgs", sprites().T), "got images uint8"),
}


@pytest.mark.parametrize(("make", "match"), BAD_HDF5.values(), ids=BAD_HDF5)
def test_malformed_hdf5(tmp_path, monkeypatch, make, match):
    path = tmp_path / PUBLISHED["dsprites_hdf5"].file.name
    make(path)
    unknown_checksum(monkeypatch, "dsprites_hdf5", path, files.SMALL_SPRITES)
    refused(tmp_path, "dsprites_hdf5", match)


def test_shapes3d_of_another_grid(tmp_path, monkeypatch):
    path = tmp_path / "3dshapes.h5"
    files.shapes3d_h5(path, files.noise((144, 64, 64, 3)), (3, 2, 2, 2, 2, 3))
    unknown_checksum(monkeypatch, "shapes3d_h5", path, files.SMALL_SHAPES)
    refused(tmp_path, "shapes3d_h5", "every combination of 2 x 3 x 2 x 2 x 2 x 3")


BAD_CARS = {
    "no archive": (lambda p: p.write_bytes(b"\x1f\x8b nonsense"), "."),
    "fewer objects": (lambda p: files.cars_archive(p, cars()[:4]), "got 4 files"),
    "no such object": (lambda p: files.cars_archive(p, cars(), "car_000_mesh\n"), "does not name"),
    "other shape": (lambda p: files.cars_archive(p, cars()[..., :3]), "got im uint8"),
    "other dtype": (lambda p: files.cars_archive(p, cars()[:1] / 255), "got im float64"),
    "not of MATLAB": (lambda p: files.cars_archive(p, [], ""), "got 0 files"),
}


@pytest.mark.parametrize(("make", "match"), BAD_CARS.values(), ids=BAD_CARS)
def test_malformed_cars(tmp_path, monkeypatch, make, match):
    path = tmp_path / PUBLISHED["cars3d"].file.name
    make(path)
    unknown_checksum(monkeypatch, "cars3d", path, files.SMALL_CARS)
    refused(tmp_path, "cars3d", match)


CONVERT = """
import re, sys
from pathlib import Path
from bvae_jax.data.published import PUBLISHED, convert
path, place, name, *sizes = sys.argv[1:]
published = PUBLISHED[name]
layout = published.layout._replace(sizes=tuple(map(int, sizes)))
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
before = peak()
convert(Path(path), published._replace(layout=layout), Path(place), name, progress=False)
print((peak() - before) // 1024)
"""


def megabytes(path, place, name, sizes):
    """By how much memory grows while a file is converted."""
    if not os.path.exists("/proc/self/status"):
        pytest.skip("only Linux tells the largest memory of one program")
    command = [sys.executable, "-c", CONVERT, path, place, name, *sizes]
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True)
    return int(done.stdout)


def large_npz(path, sizes, count):
    header = np.lib.format.header_data_from_array_1_0(np.zeros((1, 64, 64), np.uint8))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("imgs.npy", "w") as member:
            np.lib.format.write_array_header_1_0(member, header | {"shape": (count, 64, 64)})
            for _ in range(count // 64):
                member.write(b"\1" * 64**3)
        classes = np.hstack([np.zeros((count, 1), int), files.grid(sizes)])
        archive.writestr("latents_classes.npy", npy(classes))


def large_hdf5(path, sizes, count):
    files.dsprites_hdf5(path, np.zeros((0, 64, 64), np.uint8), sizes, files.grid(sizes))
    with h5py.File(path, "a") as file:
        del file["imgs"]
        images = file.create_dataset(
            "imgs", (count, 64, 64), "u1", chunks=(1024, 64, 64), compression="lzf"
        )
        for start in range(0, count, 1024):
            images[start : start + 1024] = 1


@pytest.mark.parametrize(
    ("name", "make"), [("dsprites_npz", large_npz), ("dsprites_hdf5", large_hdf5)]
)
def test_memory_is_bounded(tmp_path, name, make):
    """A 24th of dSprites: 126 MB of images."""
    sizes, path = (3, 2, 5, 32, 32), tmp_path / "sprites"
    count = math.prod(sizes)
    make(path, sizes, count)
    grown = megabytes(path, tmp_path / "set", name, sizes)
    print(f"\nmemory grew by {grown} MB")
    assert grown < 100
    written = np.load(tmp_path / "set" / "images.npy", mmap_mode="r")
    assert written.shape == (count, 512)
    assert (written == 255).all()


def test_interrupted_conversion_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "mpi3d_real.npz"
    np.savez(path, images=IMAGES)

    def read(*_):
        yield IMAGES[:6]
        raise KeyboardInterrupt

    published = PUBLISHED["mpi3d_real"]
    layout = published.layout._replace(sizes=SIZES)
    with pytest.raises(KeyboardInterrupt):
        convert(path, published._replace(read=read, layout=layout), tmp_path / "set", "x")
    assert os.listdir(tmp_path) == [path.name]


def test_the_catalogue_says_what_is_published(tmp_path):
    known = {entry.name: entry for entry in KNOWN}
    assert set(PUBLISHED) <= set(known)
    assert len(known) == len(KNOWN)
    assert known["dsprites_npz"].images == 737_280
    assert known["dsprites_npz"].size == 377_487_360
    assert known["shapes3d_h5"].images == 480_000
    assert known["mpi3d_real"].images == 1_036_800
    assert known["cars3d"].size == 17_568 * 64 * 64 * 3
    assert not [k.name for k in KNOWN if not (k.citation and k.licence)]
    assert not [k.name for k in KNOWN if is_prepared(k.name, tmp_path)]
    published_place("cars3d", tmp_path).mkdir()
    assert [entry.name for entry in KNOWN if is_prepared(entry.name, tmp_path)] == ["cars3d"]
