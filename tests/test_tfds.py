"""Sets of TensorFlow Datasets, without TensorFlow: its own builders on files made here."""

import functools
import http.server
import importlib.util
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import threading
import time
from typing import Any

import numpy as np
import published_files as files
import pytest
import requests
import scipy.io
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums

from bvae_jax.data import dsprites
from bvae_jax.data.catalogue import KNOWN
from bvae_jax.data.records import masked_crc32c, read_records
from bvae_jax.data.tfds import open_tfds, prepare_tfds, tfds_place
from bvae_jax.data.tfds_offline import without_tensorflow
from bvae_jax.errors import UserError


@pytest.fixture(autouse=True)
def network(monkeypatch):
    """No network; what is given takes that back."""

    def refuse(*_, **__):
        raise requests.exceptions.ConnectionError("no network in tests")

    with monkeypatch.context() as network:
        network.setattr(requests, "head", refuse)
        network.setattr(requests.Session, "get", refuse)
        yield network


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """No set of this machine is found."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)


def opened(name, data, *keys) -> Any:
    return open_tfds(name, data, *keys, progress=False)


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data"
    path.mkdir()
    return path


def prepared(name, data, *keys, **options) -> Any:
    return prepare_tfds(name, data, *keys, progress=False, **options)


def fetched(monkeypatch, data, builder, contents):
    """Let files, {end of a URL: content}, be what a builder's URLs give, fetched by hand."""
    infos: Any = tfds.builder_cls(builder).url_infos
    place = data / "downloads" / "manual" / builder
    place.mkdir(parents=True, exist_ok=True)
    for end, content in contents.items():
        (url,) = [url for url in infos if url.endswith(end)]
        path = place / infos[url].filename
        path.write_bytes(content)
        monkeypatch.setitem(infos, url, checksums.compute_url_info(path))
    return place


def test_there_is_no_tensorflow():
    assert importlib.util.find_spec("tensorflow") is None
    assert "tensorflow" not in sys.modules


def test_tfds_is_imported_only_where_it_is_needed():
    """It takes a second."""
    code = "import sys, bvae_jax.data.catalogue as c; c.KNOWN; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"tensorflow_datasets", "h5py", "scipy.io"} & set(done.stdout.split())


def test_the_stand_in_goes_away_again():
    """TFDS 4.9.10 is what this was tested with: other versions must have the lazy module too."""
    from tensorflow_datasets.core.download import extractor

    with without_tensorflow():
        assert extractor.tf.io.gfile.exists(os.sep)
        assert extractor.tf.compat.as_text(b"x") == "x"
    with pytest.raises(ModuleNotFoundError):
        assert extractor.tf.io


def test_dsprites_is_read_in_its_published_order(data, monkeypatch):
    sizes = files.SMALL_SPRITES
    images = files.noise((144, 64, 64), 2)
    files.dsprites_hdf5(data / "x", images, sizes, chunks=(10, 64, 64), compression="gzip")
    fetched(monkeypatch, data, "dsprites", {"hdf5?raw=true": (data / "x").read_bytes()})
    files.use_small(monkeypatch, "dsprites_hdf5", data / "x", sizes)
    dataset = prepared("tfds:dsprites", data)
    bits = np.unpackbits(dataset.pixels.images, axis=1)
    np.testing.assert_array_equal(bits.reshape(144, 64, 64), images)
    assert dataset.grid
    assert (dataset.factor_names, dataset.factor_sizes) == (dsprites.FACTOR_NAMES, sizes)
    assert dataset.canonical is dsprites.canonical
    assert os.listdir(data / "downloads") == ["manual"]  # what was unpacked is gone
    # The builder's own generator gives the same, if it is asked for.
    keys = "label_shape,label_scale,label_orientation,label_x_position,label_y_position"
    own = prepared("dsprites", data, "image", keys)
    np.testing.assert_array_equal(own.pixels.images, dataset.pixels.images)
    np.testing.assert_array_equal(own.labels, files.grid(sizes))
    assert own.factor_sizes == dsprites.FACTOR_SIZES


def test_shapes3d_is_read_in_its_published_order(data, monkeypatch):
    images = files.noise((144, 64, 64, 3))
    files.shapes3d_h5(data / "x", images, files.SMALL_SHAPES)
    fetched(monkeypatch, data, "shapes3d", {"3dshapes.h5": (data / "x").read_bytes()})
    files.use_small(monkeypatch, "shapes3d_h5", data / "x", files.SMALL_SHAPES)
    dataset = prepared("shapes3d", data)
    np.testing.assert_array_equal(dataset.pixels.images, images)
    assert dataset.grid
    assert dataset.factor_names[0] == "floor_hue"


def mnist_files():
    """Digits as the test set; the training set is made of them, moved."""
    images, labels = files.digits()
    train = np.concatenate([np.roll(images, shift, axis=2) for shift in range(6)])
    return train, np.tile(labels, 6), images, labels


@pytest.fixture(scope="module")
def mnist():
    train, train_labels, test, test_labels = mnist_files()
    return {
        "train-images-idx3-ubyte.gz": files.idx(train),
        "train-labels-idx1-ubyte.gz": files.idx(train_labels),
        "t10k-images-idx3-ubyte.gz": files.idx(test),
        "t10k-labels-idx1-ubyte.gz": files.idx(test_labels),
    }


def test_mnist(data, monkeypatch, mnist):
    fetched(monkeypatch, data, "mnist", mnist)
    dataset = prepared("tfds:mnist", data)
    train, train_labels, test, test_labels = mnist_files()
    np.testing.assert_array_equal(dataset.pixels.images[:60_000, ..., 0], train)
    np.testing.assert_array_equal(dataset.pixels.images[60_000:, ..., 0], test)
    wanted = np.concatenate([train_labels, test_labels])[:, None]
    np.testing.assert_array_equal(dataset.labels, wanted)
    np.testing.assert_array_equal(dataset.published_test, np.arange(60_000, 70_000))
    assert (dataset.factor_names, dataset.factor_sizes) == (("label",), (10,))
    assert "lecun" in dataset.citation.lower()
    # Now it is there, and no file is needed.
    for path in (data / "downloads").rglob("*.gz"):
        path.unlink()
    assert opened("mnist", data).version == dataset.version


def test_mnist_that_is_cut_or_not_what_was_published(data, monkeypatch, mnist):
    name = "train-images-idx3-ubyte.gz"
    place = fetched(monkeypatch, data, "mnist", mnist | {name: mnist[name][:-100]})
    refused("its builder failed .*EOFError", "mnist", data)
    (place / name).write_bytes(mnist["train-labels-idx1-ubyte.gz"])
    message = refused("wrong checksum.*: delete the file, and fetch it again", "mnist", data)
    assert str(place / name) in message
    fetched(monkeypatch, data, "mnist", {name: files.idx(files.noise((5, 28, 28)))})
    refused("its builder failed .*reshape", "mnist", data)


def test_smallnorb(data, monkeypatch):
    rng = np.random.default_rng(0)
    contents, pairs, known = {}, [], []
    for split, count in (
        ("5x46789x9x18x6x2x96x96-training", 7),
        ("5x01235x9x18x6x2x96x96-testing", 5),
    ):
        pairs.append(files.noise((count, 2, 96, 96), seed=count))
        category = rng.integers(0, 5, count, np.int32)
        info = rng.integers(0, [10, 9, 18, 6], (count, 4), np.int32)
        known.append(np.hstack([category[:, None], info]))
        degrees = info * np.array([1, 1, 2, 1], np.int32)  # azimuths are 0, 2, ..., 34
        for end, values in (("dat", pairs[-1]), ("cat", category), ("info", degrees)):
            contents[f"{split}-{end}.mat.gz"] = files.norb(values)
    fetched(monkeypatch, data, "smallnorb", contents)
    dataset = prepared("smallnorb", data)
    pairs = np.concatenate(pairs)
    np.testing.assert_array_equal(dataset.pixels.images[..., 0], pairs[:, 0])
    np.testing.assert_array_equal(dataset.labels, np.concatenate(known))
    names = ("category", "instance", "elevation", "azimuth", "lighting")
    assert (dataset.factor_names, dataset.factor_sizes) == (names, (5, 10, 9, 18, 6))
    assert dataset.published_test.tolist() == [7, 8, 9, 10, 11]
    other = prepared("smallnorb", data, "image2", "label_azimuth")
    np.testing.assert_array_equal(other.pixels.images[..., 0], pairs[:, 1])
    np.testing.assert_array_equal(other.labels, np.concatenate(known)[:, 3:4])
    assert prepared("smallnorb", data, "", "none").labels is None
    assert prepared("smallnorb", data, image_size=32).image_shape == (32, 32, 1)
    refused("--image-key: got 'picture', wanted .*: image, image2", "smallnorb", data, "picture")
    refused("--factor-keys: got 'size', wanted some of: label_c", "smallnorb", data, "", "size")


def test_cifar10(data, monkeypatch):
    images, labels = files.noise((24, 32, 32, 3)), np.arange(24) % 10
    buffer, folder = io.BytesIO(), "cifar-10-batches-bin"
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        files.add(
            archive,
            f"{folder}/batches.meta.txt",
            b"\n".join(b"abcdefghij"[i : i + 1] for i in range(10)),
        )
        for number in range(6):
            part = slice(4 * number, 4 * number + 4)
            name = f"data_batch_{number + 1}.bin" if number < 5 else "test_batch.bin"
            files.add(archive, f"{folder}/{name}", files.cifar(images[part], labels[part]))
    fetched(monkeypatch, data, "cifar10", {"cifar-10-binary.tar.gz": buffer.getvalue()})
    dataset = prepared("cifar10", data)
    np.testing.assert_array_equal(dataset.pixels.images, images)
    np.testing.assert_array_equal(dataset.labels[:, 0], labels)
    assert dataset.published_test.tolist() == [20, 21, 22, 23]


def test_svhn(data, monkeypatch):
    """The digit 0 has the class 10 in the files; the split "extra" is left out."""
    contents, kept = {}, []
    for seed, split in enumerate(("train", "test", "extra")):
        images = files.noise((6, 32, 32, 3), seed=seed)
        buffer = io.BytesIO()
        digit = np.arange(5, 11, dtype=np.uint8)[:, None]
        scipy.io.savemat(buffer, {"X": np.moveaxis(images, 0, -1), "y": digit})
        contents[f"{split}_32x32.mat"] = buffer.getvalue()
        kept.append(images)
    fetched(monkeypatch, data, "svhn_cropped", contents)
    dataset = prepared("svhn_cropped", data)
    np.testing.assert_array_equal(dataset.pixels.images, np.concatenate(kept[:2]))
    assert dataset.labels[:6, 0].tolist() == [5, 6, 7, 8, 9, 0]
    assert dataset.published_test.tolist() == [6, 7, 8, 9, 10, 11]


def test_celeb_a(data, monkeypatch):
    """Pictures in an archive that the builder reads long after it was listed."""
    from tensorflow_datasets.datasets.celeb_a import celeb_a_dataset_builder as celeb_a

    pixels = np.repeat(np.arange(90, 95, dtype=np.uint8), 218 * 178 * 3).reshape(5, 218, 178, 3)
    names = [f"{number:06}.jpg" for number in range(5)]
    pictures = {
        f"img_align_celeba/{name}": files.picture(image, "JPEG", quality=95)
        for name, image in zip(names, pixels, strict=True)
    }
    files.zipped(data / "x", pictures)
    known = np.random.default_rng(0).choice([-1, 1], (5, 40))

    def table(headings, rows):
        lines = [f"{name} {' '.join(map(str, row))}" for name, row in zip(names, rows, strict=True)]
        return "\n".join([*headings, *lines, ""]).encode()

    contents = {
        celeb_a.IMG_ALIGNED_DATA: (data / "x").read_bytes(),
        celeb_a.EVAL_LIST: table([], [[0], [0], [1], [2], [2]]),
        celeb_a.ATTR_DATA: table(["5", " ".join(celeb_a.ATTR_HEADINGS)], known),
        celeb_a.LANDMARKS_DATA: table(
            ["5", " ".join(celeb_a.LANDMARK_HEADINGS)], np.arange(50).reshape(5, 10)
        ),
        celeb_a.IDENTITY_DATA: table([], [[7], [7], [3], [9], [7]]),
    }
    fetched(monkeypatch, data, "celeb_a", contents)
    dataset = prepared("celeb_a", data)
    assert dataset.image_shape == (218, 178, 3)
    np.testing.assert_allclose(dataset.pixels.images[:, 100, 100, 0], [90, 91, 93, 94, 92], atol=1)
    order = [0, 1, 3, 4, 2]  # train, test, validation
    assert dataset.published_test.tolist() == [2, 3]
    male = dataset.factor_names.index("Male")
    np.testing.assert_array_equal(
        dataset.labels[:, male], known[order, celeb_a.ATTR_HEADINGS.index("Male")] > 0
    )
    identity = dataset.factor_names.index("Identity_No")
    assert dataset.labels[:, identity].tolist() == [1, 1, 2, 1, 0]
    assert len(dataset.factor_names) == 51
    small = prepared("celeb_a", data, "", "attributes/Male,attributes/Smiling", image_size=64)
    assert small.image_shape == (64, 64, 3)
    assert small.factor_names == ("Male", "Smiling")


def test_omniglot(data, monkeypatch):
    """Pictures of one bit, and classes that have names; the small splits are left out."""
    contents = {}
    pixels = files.noise((6, 105, 105), 2).astype(bool)
    for k, split in enumerate(("background", "evaluation")):
        letters = [(f"Greek{k}", 1), (f"Greek{k}", 2), (f"Latin{k}", 1)]
        pictures = {
            f"images_{split}/{alphabet}/character{character:02}/{number:04}_01.png": files.picture(
                pixels[number - 1]
            )
            for number, (alphabet, character) in enumerate(letters, 3 * k + 1)
        }
        files.zipped(data / "x", pictures)
        contents[f"images_{split}.zip"] = (data / "x").read_bytes()
    for number in "12":
        split = f"background_small{number}"
        kept = f"images_{split}/Greek0/character01/0001_01.png"
        files.zipped(data / "x", {kept: files.picture(pixels[0])})
        contents[f"images_{split}.zip"] = (data / "x").read_bytes()
    cls = tfds.builder_cls("omniglot")
    monkeypatch.setattr(sys.modules[cls.__module__], "_NUM_CLASSES", 6)
    monkeypatch.setattr(sys.modules[cls.__module__], "_NUM_ALPHABETS", 4)
    fetched(monkeypatch, data, "omniglot", contents)
    dataset = prepared("omniglot", data)
    assert dataset.size == 6
    np.testing.assert_array_equal(dataset.pixels.images[..., 0] > 0, pixels)
    np.testing.assert_array_equal(dataset.labels[:, dataset.factor_names.index("label")], range(6))
    alphabets = dataset.labels[:, dataset.factor_names.index("alphabet")]
    assert alphabets.tolist() == [0, 0, 2, 1, 1, 3]  # Greek0, Greek1, Latin0, Latin1


def refused(match, name, data, *keys, function=prepare_tfds):
    with pytest.raises(UserError, match=match) as info:
        function(name, data, *keys, progress=False)
    assert "\n" not in str(info.value)
    assert not tfds_place(name, data, *keys).exists()
    left = [path.name for path in [*data.glob("*"), *data.glob("downloads/*")]]
    assert not [name for name in left if ".part" in name or "extracted-" in name]
    return str(info.value)


def test_what_cannot_be_downloaded_is_named(data):
    begin = time.monotonic()
    message = refused("fetch by hand", "tfds:smallnorb", data)
    assert time.monotonic() - begin < 60  # TFDS itself tries for minutes
    infos: Any = tfds.builder_cls("smallnorb").url_infos
    for url, info in infos.items():
        assert f"{url} ({int(info.size)} bytes, sha256 {info.checksum})" in message
    assert str(data / "downloads" / "manual" / "smallnorb") in message
    assert "bvae data prepare tfds:smallnorb" in message


def test_a_download_that_fails_later_is_told_the_same(data, network):
    network.setattr(requests, "head", lambda *_, **__: io.BytesIO())
    refused("fetch by hand https://storage.googleapis.com/3d-shapes", "shapes3d", data)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.fixture
def server(tmp_path, network, monkeypatch):
    """(directory, URL) of a server on this machine, which is all of the network."""
    network.undo()
    monkeypatch.setenv("NO_PROXY", "*")
    directory = tmp_path / "served"
    directory.mkdir()
    handler = functools.partial(Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield directory, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_what_can_be_downloaded_is_kept(data, monkeypatch, server):
    directory, url = server
    path, url = directory / "3dshapes.h5", f"{url}/3dshapes.h5"
    images = files.noise((144, 64, 64, 3))
    files.shapes3d_h5(path, images, files.SMALL_SHAPES)
    files.use_small(monkeypatch, "shapes3d_h5", path, files.SMALL_SHAPES)
    cls: Any = tfds.builder_cls("shapes3d")
    monkeypatch.setattr(sys.modules[cls.__module__], "_URL", url)
    monkeypatch.setitem(cls.url_infos, url, checksums.compute_url_info(path))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    refused("wrong checksum", "shapes3d", data)
    path.unlink()
    refused(f"fetch by hand .*{url}", "shapes3d", data)  # 404
    path.write_bytes(content)
    np.testing.assert_array_equal(prepared("shapes3d", data).pixels.images, images)
    path.unlink()
    shutil.rmtree(tfds_place("shapes3d", data))
    np.testing.assert_array_equal(prepared("shapes3d", data).pixels.images, images)


def test_what_is_not_prepared_is_not_opened(data):
    refused("bvae data prepare tfds:mnist", "mnist", data, function=open_tfds)


WRONG_NAMES = {
    "": "wanted tfds:BUILDER",
    "../mnist": "wanted tfds:BUILDER",
    "no_such_set": "catalog",
    "emnist/greek": "wanted one of emnist/byclass, emnist/bymerge",
    "mnist:9.9.9": "of version 3.0.1",
    "imdb_reviews": "it has none",
    "lsun": "fetch by hand .* and 28 others",
}


@pytest.mark.parametrize("name", WRONG_NAMES)
def test_wrong_names(data, name):
    refused(WRONG_NAMES[name], name, data)


IMAGES, LABELS = files.noise((20, 8, 6, 3)), np.arange(20) % 4


class Pictures(tfds.core.GeneratorBasedBuilder):
    """A builder that TFDS can run without TensorFlow: its images are bytes."""

    VERSION = tfds.core.Version("1.2.0")

    def _info(self):
        features = {
            "nested": {"picture": tfds.features.Image(shape=(8, 6, 3)), "height": np.float32},
            "label": tfds.features.ClassLabel(num_classes=4),
            "age": np.int64,
        }
        features = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {"test": self._generate_examples(0, 5), "train": self._generate_examples(5, 20)}

    def _generate_examples(self, start, stop):
        for k in range(start, stop):
            nested = {"picture": files.picture(IMAGES[k]), "height": 0.5}
            yield k, {"nested": nested, "label": int(LABELS[k]), "age": 10 * (k % 3)}


def array_records(data):
    """What TFDS prepares as array_record."""
    builder = Pictures(data_dir=data, file_format="array_record")
    builder.download_and_prepare()
    return data / "pictures" / "1.2.0"


def tf_records(data):
    """The same records as TFRECORD, and what says so."""
    directory = array_records(data)
    builder: Any = tfds.builder_from_directory(directory)
    for split, info in builder.info.splits.items():
        source = builder.as_data_source(
            split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        (path,) = info.filepaths
        records = [bytes(record) for record in source.__getitems__(range(len(source)))]
        os.unlink(path)
        with open(str(path).replace("array_record", "tfrecord"), "wb") as file:
            for record in records:
                head = struct.pack("<Q", len(record))
                file.write(head + struct.pack("<I", masked_crc32c(head)))
                file.write(record + struct.pack("<I", masked_crc32c(record)))
    path = directory / "dataset_info.json"
    path.write_text(path.read_text().replace("array_record", "tfrecord"))
    return directory


def check_pictures(dataset):
    np.testing.assert_array_equal(dataset.pixels.images, np.roll(IMAGES, -5, axis=0))
    column = dataset.factor_names.index("label")
    np.testing.assert_array_equal(dataset.labels[:, column], np.roll(LABELS, -5))
    ages = np.roll(np.arange(20) % 3, -5)  # 0, 10 and 20 are numbered
    np.testing.assert_array_equal(dataset.labels[:, dataset.factor_names.index("age")], ages)
    assert sorted(dataset.factor_names) == ["age", "label"]
    np.testing.assert_array_equal(dataset.published_test, np.arange(15, 20))


@pytest.mark.parametrize("make", [array_records, tf_records])
def test_what_tfds_prepared_is_read(data, make):
    make(data)
    check_pictures(opened("tfds:pictures", data))
    assert prepared("pictures:1.2.0", data).size == 20
    refused("it is not in", "pictures:1.0.0", data, function=open_tfds)


@pytest.mark.parametrize("where", ["home", "environment"])
def test_where_tfds_prepares(data, tmp_path, monkeypatch, where):
    place = tmp_path / "home" / "tensorflow_datasets"
    if where == "environment":
        place = tmp_path / "elsewhere"
        monkeypatch.setenv("TFDS_DATA_DIR", str(place))
    place.mkdir(parents=True)
    array_records(place)
    check_pictures(opened("pictures", data))


def test_the_grid_of_a_shuffled_directory_is_put_in_order(data, monkeypatch):
    order = np.random.default_rng(0).permutation(12)
    labels = files.grid((4, 3))

    def generate(self, start, stop):
        for place, k in enumerate(order):
            nested = {"picture": files.picture(IMAGES[k]), "height": 0.5}
            yield place, {"nested": nested, "label": int(labels[k, 0]), "age": 5 + labels[k, 1]}

    monkeypatch.setattr(Pictures, "_generate_examples", generate)
    monkeypatch.setattr(
        Pictures, "_split_generators", lambda self, _: {"train": self._generate_examples(0, 0)}
    )
    array_records(data)
    dataset = opened("pictures", data, "", "label,age")
    assert dataset.grid
    np.testing.assert_array_equal(dataset.pixels.images, IMAGES[:12])


def first(directory, pattern):
    return next(iter(sorted(directory.glob(pattern))))


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def fewer(directory):
    """The file of the training split becomes that of the test split, which has fewer examples."""
    path = first(directory, "*train*")
    path.write_bytes(first(directory, "*test*").read_bytes())


def without_features(directory):
    (directory / "features.json").write_text("{}")


def other_format(directory):
    path = directory / "dataset_info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fileFormat": "riegeli"}))


BROKEN = {
    "cut": (lambda d: os.truncate(first(d, "*train*"), 700), "ends early"),
    "length": (lambda d: flip(first(d, "*train*"), 1), "is damaged"),
    "checksum of the length": (lambda d: flip(first(d, "*train*"), 9), "is damaged"),
    "half a length": (lambda d: first(d, "*train*").write_bytes(b"12345"), "is damaged"),
    "no record": (
        lambda d: first(d, "*test*").write_bytes(b""),
        "got 0 examples in test, wanted 5",
    ),
    "fewer records": (fewer, "got 5 examples in train, wanted 15"),
    "file gone": (lambda d: first(d, "*train*").unlink(), "No such file"),
    "info cut": (lambda d: os.truncate(d / "dataset_info.json", 40), "cannot be read"),
    "no features": (without_features, "."),
    "other format": (other_format, "riegeli"),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_a_directory_that_is_damaged(data, damage):
    directory = tf_records(data)
    breaks, match = BROKEN[damage]
    breaks(directory)
    refused(match, "pictures", data, function=open_tfds)


def test_builders_that_need_beam(data, monkeypatch):
    monkeypatch.setattr(Pictures, "_split_generators", lambda self, dl_manager, pipeline: None)
    refused("its builder needs Apache Beam", "pictures", data)


def test_builders_that_need_more_of_tensorflow(data, monkeypatch):
    from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow as tf

    def generate(self, *_):
        yield 0, {"nested": tf.image.decode_jpeg(b"")}

    monkeypatch.setattr(Pictures, "_generate_examples", generate)
    refused("builder failed .*no attribute 'image'.*: tfds.load prepares it", "pictures", data)


def test_pictures_that_are_none(data, monkeypatch):
    monkeypatch.setattr(files, "picture", lambda pixels: b"GIF89a")
    refused("builder failed .*cannot identify image file", "pictures", data)


def test_several_configurations(data):
    for config in ("a", "b"):
        directory = array_records(data / config)
        place = data / "things" / config / "1.0.0"
        place.parent.mkdir(parents=True)
        directory.rename(place)
    refused("wanted one of tfds:things/a, tfds:things/b", "things", data, function=open_tfds)


def test_class_labels_that_are_secret(data, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "LABELS", np.where(LABELS, LABELS, -1))
    array_records(data)
    refused("got a label of -1, wanted 0 to 3: .*--factor-keys", "pictures", data)
    assert prepared("pictures", data, "", "age").factor_sizes == (3,)


def test_images_of_several_sizes(data, monkeypatch):
    monkeypatch.setattr(
        Pictures,
        "_info",
        lambda self: tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"image": tfds.features.Image()}),
        ),
    )
    monkeypatch.setattr(
        Pictures,
        "_generate_examples",
        lambda self, start, stop: (
            (k, {"image": files.picture(files.noise((20 + k % 2, 30, 3)))})
            for k in range(start, stop)
        ),
    )
    array_records(data)
    refused("got images of .*, wanted one size: choose --image-size", "pictures", data)
    assert prepared("pictures", data, image_size=16).image_shape == (16, 16, 3)


def test_records_have_the_checksum_that_is_published(tmp_path):
    """CRC-32C of "123456789" is 0xE3069283: RFC 3720 and others."""
    masked = masked_crc32c(b"123456789")
    crc = (masked - 0xA282EAD8) & 0xFFFFFFFF
    assert (crc >> 17 | crc << 15) & 0xFFFFFFFF == 0xE3069283
    # The first record of a file that TensorFlow wrote: three bytes.
    head = struct.pack("<Q", 3)
    path = tmp_path / "one"
    path.write_bytes(head + struct.pack("<I", masked_crc32c(head)) + b"abc" + b"\0\0\0\0")
    assert list(read_records(path)) == [b"abc"]


@pytest.mark.parametrize("entry", [k for k in KNOWN if k.name.startswith("tfds:")], ids=str)
def test_the_catalogue_is_what_builders_say(tmp_path, entry):
    from bvae_jax.data.tfds_builders import make_builder
    from bvae_jax.data.tfds_features import Wish, choose

    builder = make_builder(entry.name, tmp_path)
    chosen = choose(builder.info.features, Wish(entry.name), builder.name)
    assert builder.info.features[chosen.image].shape == entry.image_shape
    if entry.name != "tfds:celeb_a":
        assert tuple(chosen.names) == entry.factors
