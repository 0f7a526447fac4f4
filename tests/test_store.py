"""The form in which stored sets are kept."""

import hashlib
import json
import os
import re
from typing import Any

import numpy as np
import pytest
from published_files import noise

from bvae_jax.data import (
    store as prepared,
)
from bvae_jax.data.base import Stored
from bvae_jax.data.store import (
    Writer,
    check_content,
    data_dir,
    open_prepared,
    place,
)
from bvae_jax.errors import UserError
from bvae_jax.files.archive import (
    write_npz,
)
from bvae_jax.runtime import (
    user_cache,
)

META = {"factor_names": ["a", "b"], "factor_sizes": [3, 4]}


def labels(n):
    return np.stack([np.arange(n) % 3, np.arange(n) % 4], 1)


def write(directory, images, known=None, meta=META, chunk=3, **options) -> Any:
    with Writer(directory, images.shape[1:], images=len(images), **options) as writer:
        for start in range(0, len(images), chunk):
            writer.add(images[start : start + chunk])
        writer.finish(meta, known)
    return open_prepared(directory, name="set")


def test_what_is_written_is_read(tmp_path):
    images = noise((10, 5, 7, 3))
    meta = META | {"published_test": range(6, 10), "licence": "free", "source": "Rhône"}
    dataset = write(tmp_path / "x" / "set", images, labels(10), meta)
    assert isinstance(dataset.pixels, Stored)
    assert isinstance(dataset.pixels.images, np.memmap)
    np.testing.assert_array_equal(dataset.pixels.images, images)
    np.testing.assert_array_equal(dataset.labels, labels(10))
    np.testing.assert_array_equal(dataset.published_test, [6, 7, 8, 9])
    assert (dataset.name, dataset.size, dataset.image_shape) == ("set", 10, (5, 7, 3))
    assert (dataset.factor_names, dataset.factor_sizes) == (("a", "b"), (3, 4))
    assert (dataset.licence, dataset.source, dataset.citation) == ("free", "Rhône", "")
    assert not dataset.grid
    # Plain NumPy reads it, too, and nothing else lies about.
    plain = np.load(tmp_path / "x" / "set" / "images.npy")
    np.testing.assert_array_equal(plain, images)
    assert os.listdir(tmp_path / "x") == ["set"]


def test_binary_images_are_packed(tmp_path):
    images = noise((12, 5, 5, 1), 2)
    dataset = write(tmp_path / "set", images, packed=True)
    assert dataset.grid
    assert dataset.labels is None
    stored = dataset.pixels.images
    assert stored.shape == (12, 4)
    bits = np.unpackbits(stored, axis=1)[:, :25]
    np.testing.assert_array_equal(bits.reshape(12, 5, 5, 1), images)


def test_test_set_of_single_images(tmp_path):
    dataset = write(tmp_path / "set", noise((12, 2, 2, 1)), meta={"published_test": [3, 1]})
    np.testing.assert_array_equal(dataset.published_test, [3, 1])


def test_version_is_of_the_content_and_not_of_the_chunks(tmp_path):
    images = noise((12, 4, 4, 1))
    one = write(tmp_path / "one", images, labels(12), chunk=5)
    two = write(tmp_path / "two", images, labels(12), chunk=1)
    assert one.version == two.version
    other = images.copy()
    other[7, 3, 3, 0] ^= 1
    assert write(tmp_path / "other", other, labels(12)).version != one.version
    shifted = (labels(12) + 1) % 3
    assert write(tmp_path / "shifted", images, shifted).version != one.version
    reshaped = write(tmp_path / "wide", images.reshape(12, 2, 8, 1), labels(12))
    assert reshaped.version != one.version


def test_order_may_change(tmp_path):
    images = noise((12, 4, 4, 1))
    order = np.random.default_rng(1).permutation(12)
    with Writer(tmp_path / "late", (4, 4, 1), images=12) as writer:
        writer.add(images)
        writer.reorder(order)
        writer.finish(dict(META), labels(12))
    late: Any = open_prepared(tmp_path / "late", name="late")
    np.testing.assert_array_equal(late.pixels.images, images[order])
    assert late.version == write(tmp_path / "early", images[order], labels(12)).version


def test_nothing_is_left_of_what_was_not_finished(tmp_path):
    def interrupted():
        with Writer(tmp_path / "set", (2, 2, 1), images=9) as writer:
            writer.add(noise((4, 2, 2, 1)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []


def test_an_old_set_stays_until_the_new_one_is_whole(tmp_path):
    old = write(tmp_path / "set", noise((12, 2, 2, 1)))
    writer = Writer(tmp_path / "set", (2, 2, 1), images=12)
    with writer:
        writer.add(noise((12, 2, 2, 1), seed=1))
        assert open_prepared(tmp_path / "set", name="set").version == old.version
        writer.finish(dict(META))
    assert open_prepared(tmp_path / "set", name="set").version != old.version
    assert os.listdir(tmp_path) == ["set"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    """And nothing that another process is writing, or that is no part of ours."""
    left = [".folder-pictures-0123abcd.77.part", ".npz-mine-89abcdef.78.old"]
    others = [".mine.part", ".folder-pictures-0123abcd", "folder-pictures-0123abcd.77.part"]
    for name in (*left, *others):
        (tmp_path / name).mkdir()
        (tmp_path / name / "images.npy").write_text("x")
    with Writer(tmp_path / "other-76543210", (2, 2, 1), images=1) as writer:
        (part,) = tmp_path.glob(".other*")
        assert sorted(os.listdir(tmp_path)) == sorted([*others, part.name])
        write(tmp_path / "set-01234567", noise((12, 2, 2, 1)))
        assert part.exists()
        writer.add(noise((1, 2, 2, 1)))
        writer.finish({})
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "other-76543210", "set-01234567"])


def test_a_cache_that_a_killed_process_left_half_is_removed(tmp_path):
    (tmp_path / ".cache.npz.77.part").write_text("x")
    (tmp_path / ".other.npz.77.part").write_text("x")
    write_npz(tmp_path / "cache.npz", a=np.arange(3))
    assert sorted(os.listdir(tmp_path)) == [".other.npz.77.part", "cache.npz"]


WRONG = {
    "dtype": lambda w: w.add(np.zeros((1, 2, 2, 1))),
    "shape": lambda w: w.add(noise((1, 2, 3, 1))),
    "too many": lambda w: w.add(noise((13, 2, 2, 1))),
    "no images": lambda w: w.finish({}),
    "no grid": lambda w: (w.add(noise((5, 2, 2, 1))), w.finish(dict(META))),
    "names without sizes": lambda w: (w.add(noise((5, 2, 2, 1))), w.finish({"factor_names": "a"})),
    "labels out of range": lambda w: (w.add(noise((5, 2, 2, 1))), w.finish(META, labels(5) + 1)),
    "negative labels": lambda w: (w.add(noise((5, 2, 2, 1))), w.finish(META, labels(5) - 1)),
    "fewer labels": lambda w: (w.add(noise((5, 2, 2, 1))), w.finish(META, labels(4))),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_writer_refuses(tmp_path, wrong):
    with (
        Writer(tmp_path / "set", (2, 2, 1), images=12) as writer,
        pytest.raises(ValueError, match=r"."),
    ):
        wrong(writer)
    assert os.listdir(tmp_path) == []


def test_packed_pixels_are_0_or_1(tmp_path):
    writer = Writer(tmp_path / "set", (2, 2, 1), images=12, packed=True)
    with writer, pytest.raises(ValueError, match="wanted 0 or 1"):
        writer.add(np.full((1, 2, 2, 1), 255, np.uint8))


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written") as info:
        Writer(tmp_path / "file" / "set", (2, 2, 1), images=12)
    assert "\n" not in str(info.value)
    with pytest.raises(UserError, match="free space, wanted 4000000000"):
        Writer(tmp_path / "set", (10**6, 10**6, 4), images=10**6)


def cut(name, size):
    return lambda d: os.truncate(d / name, size)


def metadata(**changes):
    def change(d):
        meta = json.loads((d / "meta.json").read_text()) | changes
        (d / "meta.json").write_text(json.dumps(meta))

    return change


DAMAGES = {
    "images cut": (cut("images.npy", 150), "greater than file size|mmap"),
    "images empty": (cut("images.npy", 0), "."),
    "labels cut": (cut("labels.npy", 130), "greater than file size|mmap"),
    "labels gone": (lambda d: (d / "labels.npy").unlink(), "labels.npy is missing"),
    "images gone": (lambda d: (d / "images.npy").unlink(), "No such file"),
    "no meta": (lambda d: (d / "meta.json").unlink(), "No such file"),
    "meta cut": (cut("meta.json", 30), "."),
    "meta is a list": (lambda d: (d / "meta.json").write_text("[]"), "."),
    "meta is binary": (lambda d: (d / "meta.json").write_bytes(b"\xff\xfe\x00"), "."),
    "other shape": (metadata(image_shape=[2, 2, 1]), "wanted uint8"),
    "fewer images": (metadata(images=9), "wanted uint8"),
    "other factors": (metadata(factor_names=["a"], factor_sizes=[3]), "labels.npy is int32"),
    "not an image shape": (metadata(image_shape=None), "."),
    "pickled": (lambda d: np.save(d / "images.npy", np.array([{}], object)), "[Oo]bject"),
    "other dtype": (lambda d: np.save(d / "images.npy", np.zeros((10, 3, 2, 1))), "float64"),
    "a directory": (lambda d: ((d / "labels.npy").unlink(), (d / "labels.npy").mkdir()), "."),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_told_in_one_line(tmp_path, damage, reason):
    directory = tmp_path / "set"
    write(directory, noise((10, 3, 2, 1)), labels(10))
    damage(directory)
    with pytest.raises(UserError, match=reason) as info:
        open_prepared(directory, name="set")
    message = str(info.value)
    assert re.fullmatch(r"set: \S+ is damaged \(.*\): delete it, and prepare set again\.", message)


def flip(path, *, secretly=False):
    """Change one bit; secretly, with the time as it was."""
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-3, os.SEEK_END)
        file.write(bytes([byte ^ 4]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + (0 if secretly else 1)))


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
def test_a_flipped_bit_is_found(tmp_path, name):
    dataset = write(tmp_path / "set", noise((10, 3, 2, 1)), labels(10))
    check_content(dataset)
    flip(tmp_path / "set" / name, secretly=True)
    with pytest.raises(UserError, match=r"damaged \(its images.npy, labels.npy or values.npy"):
        check_content(dataset)
    open_prepared(tmp_path / "set", name="set")  # where nothing tells, nothing is read
    flip(tmp_path / "set" / name, secretly=True)
    check_content(dataset)
    flip(tmp_path / "set" / name)
    with pytest.raises(UserError, match="is not what was written"):
        open_prepared(tmp_path / "set", name="set")
    open_prepared(tmp_path / "set", name="set", check=False)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("change", ["touched", "of an earlier version"])
def test_content_is_compared_once(tmp_path, monkeypatch, packed, change):
    write(tmp_path / "set", noise((12, 5, 5, 1), 2), packed=packed)
    meta = json.loads((tmp_path / "set" / "meta.json").read_text())
    if change == "touched":
        os.utime(tmp_path / "set" / "images.npy")
    else:
        del meta["files"]
        (tmp_path / "set" / "meta.json").write_text(json.dumps(meta))
    compared = []
    monkeypatch.setattr(
        prepared, "_compare", lambda *args, inner=prepared._compare: compared.append(inner(*args))
    )
    for _ in range(2):
        open_prepared(tmp_path / "set", name="set")
    assert compared == [None]
    assert os.listdir(tmp_path) == ["set"]


def test_places(tmp_path, monkeypatch):
    monkeypatch.delenv("BVAE_DATA_DIR", raising=False)
    assert data_dir() == user_cache().absolute() / "data"
    monkeypatch.setenv("BVAE_DATA_DIR", str(tmp_path))
    assert data_dir() == tmp_path
    assert data_dir("~/elsewhere") != data_dir("/x") == data_dir("/x").absolute()
    a, b = place(tmp_path, "tfds:emnist/letters", "x"), place(tmp_path, "tfds:emnist/letters", "y")
    digest = hashlib.sha256(b"(1, 'x')").hexdigest()[:8]
    assert a == tmp_path / f"tfds-emnist-letters-{digest}"
    assert a != b
