"""Sets that the datasets library reads: parquet files and folders that are made here."""

import logging
from pathlib import Path
from typing import Any

import datasets
import datasets.exceptions
import huggingface_hub.constants
import numpy as np
import published_files as files
import pytest
from PIL import Image

from bvae_jax.cli import main
from bvae_jax.config import Config, has_files
from bvae_jax.data.hf import open_hf, parse
from bvae_jax.errors import UserError

GREY = files.noise((24, 12, 12))
KINDS = {
    "image": datasets.Image(),
    "label": datasets.ClassLabel(names=["cat", "dog", "owl"]),
    "size": datasets.Value("int32"),
    "row": datasets.Value("int64"),
    "height": datasets.Value("float32"),
    "word": datasets.Value("string"),
}


def columns(images=GREY, n=24):
    return {
        "image": [Image.fromarray(pixels) for pixels in images[:n]],
        "label": [k % 3 for k in range(n)],
        "size": [5 * (k // 3 % 2) for k in range(n)],
        "row": list(range(n)),
        "height": [k % 2 / 2 for k in range(n)],
        "word": ["a10", "a9"] * (n // 2),
    }


@pytest.fixture
def parquet(tmp_path):
    """Write a table, and say what --dataset calls it."""

    def write(drop=(), name="a.parquet", **changed):
        found = {k: v for k, v in (columns() | changed).items() if k not in drop}
        raw = isinstance(found.get("image", [0])[-1], bytes | dict)
        kinds = {k: v for k, v in KINDS.items() if k in found and not (raw and k == "image")}
        rest = datasets.Dataset.from_dict(found).features
        table = datasets.Dataset.from_dict(found, datasets.Features({**rest, **kinds}))
        table.to_parquet(str(tmp_path / name))
        return f"hf:{tmp_path / name}"

    return write


def opened(name, tmp_path, *keys, **options) -> Any:
    return open_hf(name, tmp_path / "data", *keys, progress=False, **options)


def refused(match, name, tmp_path, *keys, **options):
    with pytest.raises(UserError, match=match) as info:
        opened(name, tmp_path, *keys, **options)
    assert "\n" not in str(info.value)
    assert not list((tmp_path / "data").glob("*/images.npy"))
    assert not list((tmp_path / "data").glob(".*"))


def test_a_parquet_file(parquet, tmp_path, capsys, monkeypatch):
    name = parquet()
    found = opened(name, tmp_path)
    assert "bvae: " + name + ": row: another number in each image" in capsys.readouterr().err
    np.testing.assert_array_equal(found.pixels.images[..., 0], GREY)
    assert (found.factor_names, found.factor_sizes) == (("label", "size"), (3, 2))
    np.testing.assert_array_equal(found.labels[:, 0], np.arange(24) % 3)
    np.testing.assert_array_equal(found.labels[:, 1], np.arange(24) // 3 % 2)
    assert found.pictures == "12×12 grey"
    assert found.identity == f"hf-v{found.version}"
    with monkeypatch.context() as patch:
        patch.setattr(datasets, "load_dataset_builder", None)  # must not be called
        assert opened(name, tmp_path).version == found.version
    other = opened(name, tmp_path, "image", "word,height,label", image_size=8, grey=False)
    assert other.image_shape == (8, 8, 3)
    assert (other.factor_names, other.factor_sizes) == (("word", "height", "label"), (2, 2, 3))
    np.testing.assert_array_equal(other.labels[:, 0], 1 - np.arange(24) % 2)  # a9 is before a10
    only = opened(name, tmp_path, "", "label")
    assert (only.classes, only.factor_sizes) == (("cat", "dog", "owl"), (3,))
    assert opened(name, tmp_path, "", "none").factor_names == ()
    assert not list((tmp_path / "data").glob(".*"))
    parquet(image=columns(GREY[::-1])["image"])  # it changed
    np.testing.assert_array_equal(opened(name, tmp_path).pixels.images[..., 0], GREY[::-1])
    assert main(["data", "list", "--data-dir", str(tmp_path / "data")]) == 0
    assert name in capsys.readouterr().out
    assert logging.getLogger("datasets").level != logging.CRITICAL


def test_bytes_that_nobody_declared_to_be_pictures(parquet, tmp_path):
    contents = [files.picture(pixels) for pixels in GREY]
    found = opened(parquet(image=contents), tmp_path)
    np.testing.assert_array_equal(found.pixels.images[..., 0], GREY)
    stored = [{"bytes": content, "path": None} for content in contents]
    name = parquet(name="b.parquet", image=stored)
    assert opened(name, tmp_path).version == found.version


def test_one_image_of_each_combination_is_a_grid(parquet, tmp_path):
    order, labels = np.random.default_rng(0).permutation(6), files.grid((3, 2))
    images = [Image.fromarray(GREY[k]) for k in order]
    table = {"image": images, "label": labels[order, 0], "size": labels[order, 1]}
    found = opened(parquet(("row", "height", "word"), **table), tmp_path)
    assert found.grid
    np.testing.assert_array_equal(found.pixels.images[..., 0], GREY[:6])


def test_a_folder_with_splits_and_pictures_of_several_sizes(tmp_path, capsys):
    colour = files.noise((12, 30, 20, 3))
    for k, pixels in enumerate(colour):
        path = tmp_path / "f" / ("train", "test")[k % 3 == 2] / ("cat", "dog")[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[: 12 + k]).save(path)
    (tmp_path / "f/train/cat/0.png").write_bytes(b"no picture")
    name = f"hf:{tmp_path / 'f'}"
    found = opened(name, tmp_path)
    assert "1 of 12 pictures cannot be read and are left out: row 0" in capsys.readouterr().err
    assert (found.size, found.image_shape) == (11, (64, 64, 3))
    assert found.classes == ("cat", "dog")
    np.testing.assert_array_equal(found.published_test, np.arange(7, 11))
    assert opened(f"{name}:test", tmp_path, image_size=16).size == 4
    assert opened(f"{name}:test", tmp_path).published_test is None
    assert parse(f"{name}:test").split == "test"
    assert has_files(Config(dataset=f"{name}:test"), "dataset")
    assert not has_files(Config(dataset=f"{name}x"), "dataset")
    with pytest.raises(UserError, match="got the split val, wanted one of train, test"):
        opened(f"{name}:val", tmp_path)


def test_splits_without_images(parquet, tmp_path):
    full: Any = datasets.Dataset.from_dict(columns(), datasets.Features(KINDS))
    (tmp_path / "p").mkdir()
    full.to_parquet(str(tmp_path / "p/train.parquet"))
    full.select([]).to_parquet(str(tmp_path / "p/test.parquet"))
    refused("got no images", f"hf:{tmp_path / 'p/test.parquet'}", tmp_path)
    refused("got the split test, wanted one of train", f"hf:{tmp_path / 'p'}:test", tmp_path)
    found = opened(f"hf:{tmp_path / 'p'}", tmp_path)
    assert (found.size, found.published_test) == (24, None)


@pytest.mark.parametrize(
    ("match", "keys", "changed"),
    [
        ("it has none. Its columns: label .ClassLabel., size", (), {"drop": ("image",)}),
        ("--image-key: got 'img', wanted .*: image", ("img",), {}),
        ("--factor-keys: got 'colour', wanted some of: label, size", ("", "colour"), {}),
        ("--factor-keys: got 'label,image', wanted some of", ("", "label,image"), {}),
        ("a.parquet: height has 257 different fractions.*, or leave it out of --factor-keys",
         ("", "height"), {
            "image": [Image.fromarray(GREY[0])] * 257, "height": [k / 999 for k in range(257)],
            "drop": ("label", "size", "row", "word")}),
        ("got a label of -1, wanted 0 to 2: .*--factor-keys", (), {"label": [-1, 1] * 12}),
        ("size is missing in 12 of 24 images: leave it out", (), {"size": [None, 1] * 12}),
        ("wanted at least 3: row 0 .empty.", (), {"image": [None, *columns()["image"][:2]],
            "drop": ("label", "size", "row", "word", "height")}),
    ],
)  # fmt: skip
def test_refusals(parquet, tmp_path, match, keys, changed):
    refused(match, parquet(**changed), tmp_path, *keys)


def test_files_that_are_none(parquet, tmp_path, monkeypatch):
    name = parquet()
    path = Path(name[3:])
    path.write_bytes(path.read_bytes()[:900])
    refused("cannot be read .*Parquet magic bytes.*: mend that", name, tmp_path)
    refused("got nothing there, wanted a .parquet", f"{name}x", tmp_path)
    (tmp_path / "a.txt").touch()
    refused("got a file .txt, wanted a .parquet", f"hf:{tmp_path / 'a.txt'}", tmp_path)
    (tmp_path / "empty").mkdir()
    refused("cannot be read .*: mend that", f"hf:{tmp_path / 'empty'}", tmp_path)
    refused("a/b/c/d: wanted hf:USER/NAME", "hf:a/b/c/d", tmp_path)
    monkeypatch.chdir(tmp_path)
    refused("wanted hf:./empty, or another directory", "hf:empty", tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused("needs datasets: pip install 'bvae_jax.hub.'", parquet(), tmp_path)


def test_a_set_of_the_hub(parquet, tmp_path, monkeypatch):
    name, asked = "hf:me/pets/small:train@v2", []
    flags = "--image-key image --image-size 8 --no-grey"
    options: dict[str, Any] = {"image_size": 8, "grey": False}
    refused(
        f"it is not in .*: bvae data prepare {name} {flags}", name, tmp_path, "image", **options
    )
    refused("--factor-keys 'eye colour, age'[.]$", name, tmp_path, "", "eye colour, age")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    refused("not in the cache, and the Hub cannot be reached", name, tmp_path, fetch=True)
    monkeypatch.undo()
    builder = datasets.load_dataset_builder(
        "parquet", data_files=parquet()[3:], cache_dir=str(tmp_path)
    )

    def load_dataset_builder(path, **options):
        asked.append((path, options))
        if path == "me/none":
            raise datasets.exceptions.DatasetNotFoundError("Dataset 'me/none' doesn't exist")
        return builder

    monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset_builder)
    refused("the Hub has no such data set", "hf:me/none", tmp_path, fetch=True)
    found = opened(name, tmp_path, fetch=True)
    assert asked[1:] == [("me/pets", {"name": "small", "revision": "v2"})]
    assert (found.size, found.source) == (24, "https://huggingface.co/datasets/me/pets")
    assert opened(name, tmp_path).version == found.version  # nothing is fetched
    assert len(asked) == 2


def test_ctrl_c_leaves_nothing(parquet, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("bvae_jax.data.hf.add_pictures", interrupted)
    with pytest.raises(KeyboardInterrupt):
        opened(parquet(), tmp_path)
    assert list((tmp_path / "data").iterdir()) == []
