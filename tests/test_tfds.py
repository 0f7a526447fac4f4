"""Sets of TensorFlow Datasets, without TensorFlow: directories that TFDS itself prepares here."""

import functools
import http.server
import importlib.util
import json
import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import published_files as files
import pytest
import tensorflow_datasets as tfds

from bvae_jax.data import dsprites
from bvae_jax.data.catalogue import KNOWN
from bvae_jax.data.columns import classes
from bvae_jax.data.published import PUBLISHED, manual_dir, open_published
from bvae_jax.data.tfds import choose, in_order, open_tfds, tfds_place
from bvae_jax.errors import UserError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """No set of this machine is found."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data"
    path.mkdir()
    return path


def opened(name, data, *keys, **options) -> Any:
    return open_tfds(name, data, *keys, progress=False, **options)


def refused(match, name, data, *keys, **options):
    with pytest.raises(UserError, match=match) as info:
        opened(name, data, *keys, **options)
    assert "\n" not in str(info.value)
    assert not tfds_place(name, data, *keys).exists()
    left = [path.name for path in data.rglob("*")]
    assert not [name for name in left if ".part" in name]
    return str(info.value)


def test_there_is_no_tensorflow():
    assert importlib.util.find_spec("tensorflow") is None


def test_tfds_is_imported_only_where_it_is_needed():
    """It takes a second."""
    code = "import sys, bvae_jax.data.catalogue as c; c.KNOWN; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"tensorflow_datasets", "h5py", "scipy.io"} & set(done.stdout.split())


IMAGES, LABELS = files.noise((20, 8, 6, 3)), np.arange(20) % 4


class Pictures(tfds.core.GeneratorBasedBuilder):
    """A builder that TFDS can run without TensorFlow: its images are bytes."""

    VERSION = tfds.core.Version("1.2.0")

    def _info(self):
        image = tfds.features.Image(shape=(8, 6, 3))
        features = {
            "nested": {"picture": image, "height": np.float32},
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


def prepare(data):
    """What TFDS prepares as array_record."""
    Pictures(data_dir=data, file_format="array_record").download_and_prepare()
    return data / "pictures" / "1.2.0"


def use(monkeypatch, features, splits):
    """Let `Pictures` have these features, and these examples by split."""
    monkeypatch.setattr(
        Pictures,
        "_info",
        lambda self: tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        ),
    )
    monkeypatch.setattr(
        Pictures,
        "_split_generators",
        lambda *_: {name: enumerate(examples) for name, examples in splits.items()},
    )


def check_pictures(dataset):
    np.testing.assert_array_equal(dataset.pixels.images, np.roll(IMAGES, -5, axis=0))
    column = dataset.factor_names.index("label")
    np.testing.assert_array_equal(dataset.labels[:, column], np.roll(LABELS, -5))
    ages = np.roll(np.arange(20) % 3, -5)  # 0, 10 and 20 are numbered
    np.testing.assert_array_equal(dataset.labels[:, dataset.factor_names.index("age")], ages)
    assert sorted(dataset.factor_names) == ["age", "label"]
    np.testing.assert_array_equal(dataset.published_test, np.arange(15, 20))


@pytest.mark.parametrize("where", ["data directory", "home", "environment"])
def test_what_tfds_prepared_is_found_and_read(data, tmp_path, monkeypatch, where):
    place = {
        "data directory": data,
        "home": tmp_path / "home" / "tensorflow_datasets",
        "environment": tmp_path / "elsewhere",
    }[where]
    if where == "environment":
        monkeypatch.setenv("TFDS_DATA_DIR", str(place))
    place.mkdir(parents=True, exist_ok=True)
    prepare(place)
    check_pictures(opened("tfds:pictures", data))
    assert opened("pictures:1.2.0", data).size == 20
    refused("it is not in", "pictures:1.0.0", data)


def test_digits_of_the_schema_of_mnist(data, monkeypatch):
    images, labels = files.digits()
    features = {
        "image": tfds.features.Image(shape=(28, 28, 1)),
        "label": tfds.features.ClassLabel(num_classes=10),
    }
    examples = [
        {"image": files.picture(image), "label": int(label)}
        for image, label in zip(images[:90], labels[:90], strict=True)
    ]
    use(monkeypatch, features, {"test": examples[60:], "train": examples[:60]})
    prepare(data)
    dataset = opened("pictures", data)
    np.testing.assert_array_equal(dataset.pixels.images[..., 0], images[:90])
    np.testing.assert_array_equal(dataset.labels[:, 0], labels[:90])
    assert (dataset.factor_names, dataset.factor_sizes) == (("label",), (10,))
    np.testing.assert_array_equal(dataset.published_test, np.arange(60, 90))
    assert opened("pictures", data, "", "none").labels is None
    assert opened("pictures", data, image_size=16).image_shape == (16, 16, 1)


def test_keys(data):
    prepare(data)
    one = opened("pictures", data, "nested/picture", "age")
    assert (one.factor_names, one.factor_sizes) == (("age",), (3,))
    refused("--image-key: got 'picture', wanted .*: nested/picture", "pictures", data, "picture")
    refused("--factor-keys: got 'size', wanted some of: age, label", "pictures", data, "", "size")


def test_the_grid_of_a_shuffled_directory_is_put_in_order(data, monkeypatch):
    order, labels = np.random.default_rng(0).permutation(12), files.grid((4, 3))

    def generate(self, *_):
        for place, k in enumerate(order):
            nested = {"picture": files.picture(IMAGES[k]), "height": 0.5}
            yield place, {"nested": nested, "label": int(labels[k, 0]), "age": 5 + labels[k, 1]}

    monkeypatch.setattr(Pictures, "_split_generators", lambda self, _: {"train": generate(self)})
    prepare(data)
    dataset = opened("pictures", data, "", "label,age")
    assert dataset.grid
    np.testing.assert_array_equal(dataset.pixels.images, IMAGES[:12])


def test_several_configurations(data):
    for config in ("a", "b"):
        directory = prepare(data / config)
        place = data / "things" / config / "1.0.0"
        place.parent.mkdir(parents=True)
        directory.rename(place)
    refused("wanted one of tfds:things/a, tfds:things/b", "things", data)


def test_only_sprites_in_their_order_turn_as_sprites_do(data, monkeypatch):
    """What says which images are equal counts on the published order of the factors."""
    monkeypatch.setattr(Pictures, "name", "dsprites_too")
    example = {"image": files.picture(IMAGES[0])}
    kinds = {
        "a": tfds.features.ClassLabel(num_classes=2),
        "b": tfds.features.ClassLabel(num_classes=2),
    }
    grid = [example | {"a": a, "b": b} for a in range(2) for b in range(2)]
    use(monkeypatch, {"image": tfds.features.Image()} | kinds, {"train": grid})
    prepare(data)
    found = opened("dsprites_too", data)
    assert found.grid
    assert found.canonical is None


def test_class_labels_that_are_secret(data, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "LABELS", np.where(LABELS, LABELS, -1))
    prepare(data)
    refused("got a label of -1, wanted 0 to 3: .*--factor-keys", "pictures", data)
    assert opened("pictures", data, "", "age").factor_sizes == (3,)


def test_images_of_several_sizes(data, monkeypatch):
    pictures = [{"image": files.picture(files.noise((20 + k % 2, 30, 3)))} for k in range(6)]
    use(monkeypatch, {"image": tfds.features.Image()}, {"train": pictures})
    prepare(data)
    refused("got images of 21x30x3 and 20x30x3, wanted one size: choose", "pictures", data)
    assert opened("pictures", data, image_size=16).image_shape == (16, 16, 3)


def test_pictures_that_are_none(data, monkeypatch):
    monkeypatch.setattr(files, "picture", lambda pixels: b"GIF89a")
    prepare(data)
    refused("cannot be read .*cannot identify image file", "pictures", data)


def changed(directory, **values):
    path = directory / "dataset_info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def train(directory):
    return next(iter(directory.glob("*train*")))


BROKEN = {
    "cut": (lambda d: os.truncate(train(d), 700), "cannot be read"),
    "empty": (lambda d: train(d).write_bytes(b""), "cannot be read"),
    "file gone": (lambda d: train(d).unlink(), "cannot be read"),
    "info cut": (lambda d: os.truncate(d / "dataset_info.json", 40), "cannot be read"),
    "no features": (lambda d: (d / "features.json").write_text("{}"), "."),
    "TFRECORD": (lambda d: changed(d, fileFormat="tfrecord"), "got tfrecord in .*, wanted array_r"),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_a_directory_that_is_damaged(data, damage):
    breaks, match = BROKEN[damage]
    breaks(prepare(data))
    refused(match, "pictures", data)


WRONG_NAMES = {"": "wanted tfds:BUILDER", "../mnist": "wanted tfds:BUILDER"} | {
    "mnist": "where TensorFlow is installed: .*'mnist', data_dir=.*array_record",
    "emnist/mnist:3.1.0": "where TensorFlow is installed: .*'emnist/mnist:3.1.0'",
    "dsprites": "bvae data prepare tfds:dsprites",
}


@pytest.mark.parametrize("name", WRONG_NAMES)
def test_what_is_not_prepared(data, name):
    refused(WRONG_NAMES[name], name, data)
    if name != "dsprites":
        refused(WRONG_NAMES[name], name, data, fetch=True)


def test_dsprites_is_the_published_file(data, monkeypatch):
    sizes, path = files.SMALL_SPRITES, data / "sprites.hdf5"
    images = files.noise((144, 64, 64), 2)
    files.dsprites_hdf5(path, images, sizes, chunks=(10, 64, 64), compression="gzip")
    files.use_small(monkeypatch, "dsprites_hdf5", path, sizes)
    assert opened("tfds:dsprites", data, fetch=True).canonical is None, "it is of the full grid"
    monkeypatch.setattr("bvae_jax.data.tfds.FACTOR_SIZES", sizes)
    dataset = opened("tfds:dsprites", data)
    bits = np.unpackbits(dataset.pixels.images, axis=1)
    np.testing.assert_array_equal(bits.reshape(144, 64, 64), images)
    assert dataset.grid
    assert (dataset.factor_names, dataset.factor_sizes) == (dsprites.FACTOR_NAMES, sizes)
    assert dataset.canonical is dsprites.canonical


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """(directory, URL) of a server on this machine."""
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
    path = directory / "3dshapes.h5"
    images = files.noise((144, 64, 64, 3))
    files.shapes3d_h5(path, images, files.SMALL_SHAPES)
    files.use_small(monkeypatch, "shapes3d_h5", path, files.SMALL_SHAPES)
    known = PUBLISHED["shapes3d_h5"]
    file = known.file._replace(url=f"{url}/{path.name}")
    monkeypatch.setitem(PUBLISHED, "shapes3d_h5", known._replace(file=file))
    content = path.read_bytes()
    other = directory / "other.h5"
    other.write_bytes(content[:-1] + b"x")
    path.unlink()
    places = file._replace(mirror=f"{url}/other.h5")  # the first answers 404
    monkeypatch.setitem(PUBLISHED, "shapes3d_h5", known._replace(file=places))
    refused(f"^{url}/other.h5: got sha256 .*, wanted .* or {url}", "shapes3d", data, fetch=True)
    monkeypatch.setitem(PUBLISHED, "shapes3d_h5", known._replace(file=file))
    message = refused(f"fetch by hand {file.url}", "shapes3d", data, fetch=True)  # 404
    assert f"({len(content)} bytes, sha256 {file.digest[7:]})" in message
    assert str(manual_dir(data)) in message
    path.write_bytes(content)
    places = file._replace(url=f"{url}/other.h5", mirror=file.url)  # the first has another file
    monkeypatch.setitem(PUBLISHED, "shapes3d_h5", known._replace(file=places))
    np.testing.assert_array_equal(opened("shapes3d", data, fetch=True).pixels.images, images)
    path.unlink()
    again: Any = open_published("shapes3d_h5", data, progress=False)  # the file is kept
    np.testing.assert_array_equal(again.pixels.images, images)
    assert again.factor_names[0] == "floor_hue"


def test_a_file_without_a_checksum_is_not_downloaded(data):
    with pytest.raises(UserError, match=r"by hand .*google.*checksum unknown"):
        open_published("mpi3d_real_complex", data, progress=False, fetch=True)


@pytest.mark.parametrize(
    "entry", [k for k in KNOWN if k.name.startswith("tfds:")], ids=lambda k: k.name
)
def test_the_catalogue_is_what_builders_say(tmp_path, entry):
    builder: Any = tfds.builder(entry.name.removeprefix("tfds:"), data_dir=tmp_path)
    chosen = choose(builder.info.features, builder.name, entry.name)
    assert builder.info.features[chosen.image].shape == entry.shape
    if entry.name != "tfds:celeb_a":
        assert chosen.names == [factor.split()[0] for factor in entry.factors]


def test_splits_and_classes():
    assert in_order(["small1", "test", "train", "small2"], "omniglot") == ["train", "test"]
    assert in_order(["extra", "test", "train"], "mnist") == ["train", "test", "extra"]
    found, sizes = classes(
        np.array([[3, -5], [0, 7]]), (tfds.features.ClassLabel(num_classes=4), None), "ab", "x"
    )
    np.testing.assert_array_equal(found, [[3, 0], [0, 1]])
    assert sizes == [4, 2]
