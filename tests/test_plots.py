"""Figures have the pixels, labels and size that they should."""

import itertools
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from bvae_jax.plots import run as plots
from bvae_jax.plots import style
from bvae_jax.plots.run import GAP
from bvae_jax.runs import loggers


@pytest.fixture
def shown(monkeypatch):
    """The figures that were saved, kept open for a look at their contents."""
    figures = []
    monkeypatch.setattr(style, "save", lambda figure, path: figures.append(figure))
    yield figures
    plt.close("all")


def records():
    kl = [[0.001, 2.0, 0.5], [0.002, 3.0, 0.1]]
    train = [
        {"step": s, "split": "train", "nll": 9.0 / s, "kl": sum(k), "elbo": -1.0 - s}
        | {"kl_per_latent": k}
        for s, k in zip((1, 2), kl, strict=True)
    ]
    return [*train, train[-1] | {"split": "holdout", "nll": 7.0}]


def test_mosaic_puts_every_image_in_its_place():
    images = np.arange(6.0).reshape(2, 3, 1, 1, 1) / 10 * np.ones((1, 1, 4, 5, 1))
    picture = plots.mosaic(images)
    assert picture.shape == (2 * 4 + GAP, 3 * 5 + 2 * GAP)
    for row in range(2):
        for column in range(3):
            top, left = row * (4 + GAP), column * (5 + GAP)
            cell = picture[top : top + 4, left : left + 5]
            np.testing.assert_array_equal(cell, images[row, column, :, :, 0])
    assert plots.mosaic(np.zeros((1, 1, 4, 4, 3))).shape == (4, 4, 3)
    assert plots.mosaic(np.full((1, 1, 4, 4, 1), 7.0)).max() == 1


def test_image_grid_labels(shown):
    plots.save_image_grid(
        Path("unused"),
        np.zeros((2, 3, 8, 8, 1)),
        row_labels=("a", "b"),
        column_labels=("1", "2", "3"),
        xlabel="x",
        ylabel="y",
    )
    (axes,) = shown[0].axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "b"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "2", "3"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "y")
    assert shown[0].get_size_inches()[0] == style.COLUMN_INCHES


def test_loss_curves_show_the_records(shown):
    plots.save_loss_curves(Path("unused"), loggers.curves(records()))
    nll, kl, elbo = shown[0].axes
    train, holdout = nll.get_lines()
    np.testing.assert_array_equal(train.get_xydata(), [[0, 9.0], [1, 4.5]])
    np.testing.assert_array_equal(holdout.get_xydata(), [[2, 7.0]])
    for axes in (nll, kl, elbo):
        assert "nats per image" in axes.get_ylabel()
    assert elbo.get_xlabel() == "step"


def test_a_mean_over_steps_is_drawn_where_the_parameters_were():
    """Losses that are the number of updates before them lie on the diagonal, whatever the steps."""
    ends = [3, 4, 8, 20]
    train = [
        {"step": b, "split": "train", "nll": float(np.mean(np.arange(a, b)))}
        for a, b in itertools.pairwise([0, *ends])
    ]
    assert loggers.places(train) == [record["nll"] for record in train]
    assert loggers.places([{"step": 8, "split": "holdout"}]) == [8]
    assert loggers.places([]) == []


def test_kl_per_latent_greys_the_inactive(shown):
    kl = np.array([record["kl_per_latent"] for record in records()[:2]])
    plots.save_kl_per_latent(Path("unused"), np.array([0.0, 1.0]), kl, active_nats=0.01)
    (axes,) = shown[0].axes
    lines = axes.get_lines()
    assert [line.get_ydata()[-1] for line in lines] == [3.0, 0.1, 0.002]
    assert lines[0].get_label() == "latent 1: 3.00"
    assert lines[2].get_color() == "0.7"


def test_gif_goes_there_and_back(tmp_path):
    images = np.linspace(0, 1, 5)[None, :, None, None, None] * np.ones((3, 1, 8, 8, 1))
    path = tmp_path / "t.gif"
    plots.save_traversal_gif(path, images, ["a", "b", "c"], [-2.0, -1.0, 0.0, 1.0, 2.0])
    with Image.open(path) as gif:
        frames = getattr(gif, "n_frames", 1)
        assert frames == 8
        assert gif.info["loop"] == 0
        brightness = []
        for frame in range(frames):
            gif.seek(frame)
            pixels = np.asarray(gif.convert("L"), float)
            brightness.append(pixels.mean())
    assert brightness[:5] == sorted(brightness[:5])
    assert brightness[4:] == sorted(brightness[4:], reverse=True)
    assert len(set(brightness)) == 5


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_channels_that_are_no_colours_are_seen_together(tmp_path, channels):
    """A fourth one is no transparency."""
    images = np.zeros((1, 2, 3, 3, channels))
    images[..., -1] = 1
    np.testing.assert_allclose(plots.mosaic(images)[:, :3], 1 / channels)
    path = tmp_path / "grid.png"
    plots.save_image_grid(path, images)
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("L"))
    level = round(255 / channels)
    assert (abs(pixels.astype(int) - level) <= 1).mean() > 0.5


@pytest.mark.parametrize("channels", [1, 3])
def test_files_are_one_column_wide(tmp_path, channels):
    path = tmp_path / "new" / "grid.png"
    plots.save_image_grid(path, np.zeros((2, 2, 8, 8, channels)))
    with Image.open(path) as picture:
        assert picture.width == pytest.approx(style.COLUMN_INCHES * 300, abs=2)
