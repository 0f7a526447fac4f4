"""`bvae data`: what is listed, what is drawn, what is prepared, and what a mistake looks like."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import bvae_jax.data as data_sets
from bvae_jax.cli import main
from bvae_jax.config import Config
from bvae_jax.data import DATASETS
from bvae_jax.data.base import Dataset, Stored
from bvae_jax.data.catalogue import COLUMNS, MOST_ROWS, preview
from bvae_jax.data.sources import Source
from bvae_jax.data.store import (
    data_dir,
)
from bvae_jax.data.variants import only
from bvae_jax.plots.style import COLUMN_INCHES, STYLE


@pytest.fixture(autouse=True)
def own_place(tmp_path, monkeypatch):
    """An empty place for data sets."""
    monkeypatch.setenv("BVAE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pictures(tmp_path):
    """Two classes of four pictures."""
    for number in range(8):
        path = tmp_path / "pictures" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 30), (30 * number, 0, 0)).save(path)
    return tmp_path / "pictures"


def npz(tmp_path, **arrays):
    np.savez(tmp_path / "my.npz", **arrays)
    return f"npz:{tmp_path / 'my.npz'}"


def numbered(**options):
    """A data set whose images are their indices, and a source that gives them."""
    size = options.pop("size", 24)
    pixels = Stored(np.zeros((size, 1), np.uint8), (1, 1, 1))
    dataset = Dataset("numbered", 1, (1, 1, 1), pixels, **options)
    return dataset, Source((), lambda _, indices, key: jnp.float32(indices)[:, None, None, None])


def drawn(dataset, source, augment=None):
    """The rows of pixels of a preview, by label."""
    found = preview(dataset, source, augment)
    assert found.images.shape[1:] == (COLUMNS, 1, 1, 1)
    return list(zip(found.labels, found.images[..., 0, 0, 0].tolist(), strict=True))


def test_a_grid_has_a_row_for_each_factor_from_its_first_value_to_its_last():
    sizes = (2, 1, 12)
    dataset, source = numbered(factor_names=("a", "b", "c"), factor_sizes=sizes)
    rows = drawn(dataset, source)
    assert [label for label, _ in rows] == ["random", "random", "a (2)", "c (12)"]
    first, second = rows[2][1][:2], rows[3][1]
    assert second[0] == 0 or second[0] == 12
    assert second == [second[0] + v for v in (0, 1, 2, 4, 5, 6, 7, 9, 10, 11)]
    assert second[-1] - second[0] == 11
    assert first[1] - first[0] == 12
    assert first[0] < 12
    assert rows[2][1][2:] == [1.0] * 8  # white
    random = rows[0][1] + rows[1][1]
    assert len(set(random)) == 20  # none twice
    assert drawn(dataset, source) == rows


def test_labels_have_a_row_of_images_for_each_value():
    labels = np.array([[0, k % 2] for k in range(24)], np.int32)
    dataset, source = numbered(factor_names=("a", "b"), factor_sizes=(1, 3), labels=labels)
    rows = drawn(dataset, source)
    assert [label for label, _ in rows] == ["random", "random", "b = 0", "b = 1"]  # none of b = 2
    assert {value % 2 for value in rows[2][1]} == {0}
    assert {value % 2 for value in rows[3][1]} == {1}


def test_classes_are_called_by_their_names():
    labels = np.arange(24, dtype=np.int32)[:, None] % 3
    known = {"factor_names": ("class",), "factor_sizes": (3,), "classes": ("cat", "dog", "emu")}
    dataset, source = numbered(labels=labels, **known)
    fewer = only(dataset, "class!=1")
    for shown, wanted in ((dataset, ["cat", "dog", "emu"]), (fewer, ["cat", "emu"])):
        names = [label for label, _ in drawn(shown, source) if label != "random"]
        assert names == [f"class = {name}" for name in wanted]


def test_there_is_room_for_so_many_rows():
    labels = np.arange(100, dtype=np.int32)[:, None]
    dataset, source = numbered(size=100, factor_names=("a",), factor_sizes=(101,), labels=labels)
    assert preview(dataset, source).more == 100 - MOST_ROWS
    assert len(drawn(dataset, source)) == 2 + MOST_ROWS


def test_without_factors_images_at_random_and_augmented():
    dataset, source = numbered(size=23)
    rows = drawn(dataset, source, lambda images, key: -images)
    assert [label for label, _ in rows] == ["random"] * 3 + ["augmented"] * 3
    shown = [value for _, row in rows[:3] for value in row][:23]
    assert sorted(shown) == list(range(23))
    assert rows[3][1] == [-value for value in rows[0][1]]


def test_list(pictures, tmp_path, capsys):
    assert main(["data", "prepare", f"folder:{pictures}", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["data", "list"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 100
    for name in (*DATASETS, "mpi3d_toy", "tfds:mnist", "folder:DIRECTORY", "npz:FILE"):
        assert any(line.split()[:1] == [name] for line in lines), name
    place = lines.index(f"folder:{pictures}")
    assert lines[place + 1].split() == ["8", "20x20x3", "0.1", "MB", "yes"]
    assert lines[place + 2].split() == ["factors:", "class", "2"]
    assert lines[-1] == f"Prepared sets lie in {tmp_path / 'data'}"
    row = next(line for line in lines if line.startswith("mpi3d_toy")).split()
    assert row == ["mpi3d_toy", "1,036,800", "64x64x3", "12.7", "GB", "no"]


def test_another_data_dir(pictures, tmp_path, capsys):
    other = tmp_path / "other"
    assert main(["data", "prepare", f"folder:{pictures}", "--quiet", "--data-dir", str(other)]) == 0
    assert len(list(other.glob("*/images.npy"))) == 1
    assert not (tmp_path / "data").exists()
    capsys.readouterr()
    main(["data", "list", "--data-dir", str(other)])
    assert f"folder:{pictures}" in capsys.readouterr().out


def test_prepare_says_what_it_is(pictures, tmp_path, capsys):
    assert main(["data", "prepare", "folder:pictures", "--image-size", "16", "--grey"]) == 0
    captured = capsys.readouterr()
    assert captured.out.split()[:3] == ["folder:pictures", "8", "16x16x1"]
    assert "8/8" in captured.err
    assert main(["data", "prepare", "folder:pictures", "--image-size", "16", "--grey"]) == 0
    assert capsys.readouterr().err == ""  # already there
    assert len(list((tmp_path / "data").iterdir())) == 1


def test_only_prepare_downloads(monkeypatch, capsys):
    calls = []

    def opener(*args, **options):
        calls.append((*args, options))
        return numbered()[0]

    monkeypatch.setattr(data_sets, "open_tfds", opener)
    where = data_dir("there")
    config = Config(dataset="tfds:mnist", data_dir="there", image_key="a", factor_keys="b,c")
    assert data_sets.open_dataset(config, progress=False)
    options = {"image_size": 0, "progress": False, "fetch": False}
    assert calls.pop() == ("tfds:mnist", where, "a", "b,c", options)
    assert main(["data", "prepare", "tfds:mnist", "--quiet", "--data-dir", "there"]) == 0
    assert calls == [("tfds:mnist", where, "", "", options | {"fetch": True})]


def test_prepare_renders_what_is_cached(monkeypatch, tmp_path, capsys):
    sprites = DATASETS["dsprites"]
    small = dataclasses.replace(
        sprites, pixels=sprites.pixels._replace(cache="small", sizes=(1, 1, 2, 2, 2)),
        factor_sizes=(1, 1, 2, 2, 2),
    )  # fmt: skip
    monkeypatch.setitem(DATASETS, "small", small)
    monkeypatch.setenv("BVAE_CACHE_DIR", str(tmp_path / "cache"))
    assert main(["data", "prepare", "small", "--quiet"]) == 0
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["small.npz"]


def test_show_draws_a_figure_of_one_column(pictures, tmp_path, capsys):
    assert main(["data", "show", f"folder:{pictures}", "--quiet", "--augment", "flip"]) == 0
    (path,) = tmp_path.glob("*.png")
    assert capsys.readouterr().out == f"{path.name}\n"
    with Image.open(path) as figure:
        assert figure.width == COLUMN_INCHES * STYLE["savefig.dpi"]
        assert (np.asarray(figure.convert("RGB")) == [150, 0, 0]).all(axis=2).any()


def test_show_reads_only_what_it_shows(tmp_path, monkeypatch):
    """Of a set that is cached, drawing some images costs less than rendering all."""
    monkeypatch.setenv("BVAE_CACHE_DIR", str(tmp_path / "cache"))
    out = tmp_path / "figures" / "a.png"
    assert main(["data", "show", "dsprites", "--only", "shape=0", "--out", str(out)]) == 0
    assert out.exists()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("channels", [2, 5])
def test_show_of_channels_that_are_no_colours(tmp_path, channels):
    images = np.random.default_rng(0).random((5, 8, 8, channels))
    assert main(["data", "show", npz(tmp_path, images=images), "--out", "a.png", "--quiet"]) == 0


def test_show_of_a_factor_whose_name_looks_like_mathematics(tmp_path):
    images = np.random.default_rng(0).random((6, 8, 8))
    name = npz(tmp_path, images=images, factors=np.arange(6) % 2, factor_names=np.array(["$a_{$"]))
    assert main(["data", "show", name, "--out", "a.png", "--quiet"]) == 0


GREY = np.zeros((5, 8, 8), np.uint8)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["show", "folder:nowhere"], "nowhere: got nothing there, wanted a folder of pictures"),
        (["show", "folder:"], "got 'folder:', wanted something after the colon"),
        (["show", "nowhere/"], "--dataset nowhere/: got nothing there, wanted a folder of pic"),
        (["show", "closed"], "--dataset: got 'closed', a folder: wanted closed/, or folder:closed"),
        (["show", "notes.txt"], "notes.txt: got a file that is no .npz, wanted a folder of pictu"),
        (["show", "npz:nowhere.npz"], "nowhere.npz: no such file"),
        (["prepare", "npz:text.npz"], "text.npz: is no .npz file"),
        (["prepare", "folder:text.npz"], "got a file, wanted a folder"),
        (["show", "nothing"], "Unknown dataset 'nothing'"),
        (["show", "dsprites", "--only", "shape=9"], "--only: got 'shape=9'"),
        (["show", "dsprites", "--augment", "spin"], "--augment: got 'spin'"),
        (["show", "dsprites", "--image-size", "7"], "--image-size: got 7"),
        (["show", "dsprites", "--out", "a.txt"], "--out: got a.txt, wanted a file that ends in"),
        (["show", "dsprites", "--out", "."], "--out: got ."),
        (["show", "dsprites", "--beta", "4"], "bvae data show"),
        (["show"], "bvae data show"),
        (["draw"], "Unknown command 'data draw'. Known: data list, data prepare, data show."),
        (["show", "npz:ok.npz", "--only", "a=1", "--quiet"], "npz:ok.npz has no factors"),
        (["prepare", "folder:closed", "--data-dir", "text.npz"], "cannot be written"),
    ],
)
def test_a_mistake_is_one_line(arguments, told, tmp_path, capsys, pictures):
    for name in ("text.npz", "notes.txt"):
        (tmp_path / name).write_text("hello")
    np.savez(tmp_path / "ok.npz", images=GREY)
    pictures.rename(tmp_path / "closed")
    assert main(["data", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("bvae: ")
    assert told in captured.err
    assert captured.out == ""


def test_help(capsys):
    assert main(["data"]) == 0
    assert "bvae data prepare NAME" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["data", "show", "--help"])
    assert "--factor-keys" in capsys.readouterr().out
