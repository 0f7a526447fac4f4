"""Figures show the numbers that they are given, in order and apart; nothing is cut off."""

import errno
import itertools
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox
from PIL import Image

from bvae_jax.plots import comparison, run, style
from bvae_jax.plots.comparison import (
    Setting,
    around,
    is_numeric,
    places,
    save_factor_scores,
    save_kl_spectrum,
    save_learning_curves,
    save_rate_distortion,
    save_scores,
)
from bvae_jax.plots.matrices import (
    PowerCurve,
    save_agreement,
    save_matched_traversals,
    save_power,
    save_profiles,
    save_variance_split,
)
from bvae_jax.plots.run import (
    enlarged,
    gap,
    mosaic,
    save_image_grid,
    save_kl_per_latent,
    save_loss_curves,
    save_samples,
    save_training_gif,
    save_traversal_gif,
)
from bvae_jax.plots.scores import (
    save_best_latents,
    save_latent_against_factor,
    save_matrix,
    save_score_curves,
)
from bvae_jax.runs import loggers
from bvae_jax.runs.loggers import curves

UNUSED = Path("unused")
LAST = "(KL at the end)"
UNITS = ("class index", "one of 20 bins")
SCORES = (
    *("factor_vae_score", "mig", "mig_sup", "jemmig", "sap_r2", "dci", "modularity", "irs", "med"),
    *("unsupervised", "active_units", "nll", "kl", "elbo"),
)
FACTORS = ("shape", "scale", "orientation", "x", "y")
LONG_NAMES = [f"a_rather_long_name_{number}" for number in range(12)]
BETA = [Setting(f"β = {b}", float(b)) for b in (1, 2, 4, 6, 8, 16)]
LONG = [
    Setting(f"{name}, β = {b}", None)
    for name in ("beta_vae", "beta_tcvae", "factor_vae")
    for b in (1, 2, 4, 8)
]
MANY = [Setting(f"β = {b:.4g}", float(b)) for b in np.geomspace(0.1, 64, 30)]
KINDS = {
    "beta": (BETA, 5),
    "one": (BETA[2:3], 1),
    "long": (LONG, 3),
    "many": (MANY, 2),
}
every_kind = pytest.mark.parametrize(("settings", "seeds"), KINDS.values(), ids=KINDS)
few_kinds = pytest.mark.parametrize(("settings", "seeds"), list(KINDS.values())[:3])


@pytest.fixture
def shown(monkeypatch):
    """The figures that were saved, kept open for a look at their contents."""
    figures = []
    monkeypatch.setattr(style, "save", lambda figure, path: figures.append(figure))
    monkeypatch.setattr(Figure, "savefig", lambda *args, **options: None)
    with plt.rc_context(style.STYLE):  # of ticks that are made anew
        yield figures
    plt.close("all")


def texts(artists):
    return [artist.get_text() for artist in artists]


def legend_of(figure):
    """Names in a figure's legend as they are read: row by row."""
    figure.draw_without_rendering()
    shown = [(text.get_window_extent(), text.get_text()) for text in figure.legends[0].get_texts()]
    shown.sort(key=lambda each: -each[0].y0)
    steps = [
        above.y0 - box.y0 > box.height / 2 for (above, _), (box, _) in itertools.pairwise(shown)
    ]
    rows = itertools.accumulate(steps, initial=0)  # letters of one row may reach lower than others
    read = sorted(zip(rows, shown, strict=True), key=lambda each: (each[0], each[1][0].x0))
    return [text for _, (_, text) in read]


def all_texts(figure):
    """Every text that is drawn; tick labels only inside the view."""
    for axes in figure.axes:
        yield from (axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label, *axes.texts)
        for axis in (axes.xaxis, axes.yaxis):
            for tick in axis._update_ticks():
                yield from (label for label in (tick.label1, tick.label2) if label.get_visible())
    for legend in figure.legends:
        yield from legend.get_texts()


def box(text):
    return Bbox(text.get_window_extent().get_points() + np.array([[0.5], [-0.5]]))


def assert_tidy(figure):
    """One column wide; all texts inside and apart from one another."""
    figure.draw_without_rendering()
    assert figure.get_figwidth() == style.COLUMN_INCHES
    canvas = figure.bbox.padded(0.01 * figure.dpi)
    found = [(text.get_text(), box(text)) for text in all_texts(figure) if text.get_text()]
    assert found
    for name, place in found:
        assert canvas.contains(*place.min), name
        assert canvas.contains(*place.max), name
    for (name, place), (other, other_place) in itertools.combinations(found, 2):
        assert not place.overlaps(other_place), (name, other)


# Style


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[(0.0, ".00"), (0.441, ".44"), (0.999, "1.00"), (1.1, "1.10"), (-0.001, ".00")],
        *[(-0.3, "-.30"), (9.99, "9.99"), (10.04, "10"), (123.4, "123")],
    ],
)
def test_numbers_are_short(value, text):
    assert style.short_number(value) == text


# One run


def short_run():
    kl = [[0.001, 2.0, 0.5], [0.002, 3.0, 0.1]]
    train = [
        {"step": s, "split": "train", "nll": 9.0 / s, "kl": sum(k), "elbo": -1.0 - s}
        | {"kl_per_latent": k}
        for s, k in zip((1, 2), kl, strict=True)
    ]
    return [*train, train[-1] | {"split": "holdout", "nll": 7.0}]


def test_mosaic_puts_every_image_in_its_place():
    images = np.arange(6.0).reshape(2, 3, 1, 1, 1) / 10 * np.ones((1, 1, 4, 5, 1))
    images[1, 2] = np.nan
    picture = mosaic(images)
    assert picture.shape == (2 * 4 + 1, 3 * 5 + 2)
    for row in range(2):
        for column in range(3):
            top, left = row * (4 + 1), column * (5 + 1)
            cell = picture[top : top + 4, left : left + 5]
            np.testing.assert_array_equal(cell, np.nan_to_num(images[row, column, :, :, 0], nan=1))
    assert mosaic(np.zeros((1, 1, 4, 4, 3))).shape == (4, 4, 3)
    assert mosaic(np.full((1, 1, 4, 4, 1), 7.0)).max() == 1


@pytest.mark.parametrize(("side", "shown_side"), [(8, 64), (28, 84), (64, 64), (200, 200)])
def test_the_space_between_images_is_a_small_part_of_them(side, shown_side):
    images = np.random.default_rng(side).random((2, 2, side, side, 1))
    large = enlarged(images)
    assert large.shape[2:4] == (shown_side, shown_side)
    times = shown_side // side
    np.testing.assert_array_equal(large[:, :, ::times, times - 1 :: times], images)
    assert 1 / 40 < gap(*large.shape[2:4]) / shown_side < 1 / 25


def test_image_grid_labels(shown):
    save_image_grid(
        UNUSED,
        np.zeros((2, 3, 8, 8, 1)),
        row_labels=("a", "b"),
        column_labels=("1", "2", "3"),
        xlabel="x",
    )
    (axes,) = shown[0].axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "b"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "2", "3"]
    assert axes.get_xlabel() == "x"
    assert shown[0].get_size_inches()[0] == style.COLUMN_INCHES


def test_of_many_columns_some_are_labelled_each_below_its_own_image(shown):
    save_image_grid(UNUSED, np.zeros((1, 25, 64, 64, 1)), column_labels=[str(n) for n in range(25)])
    (axes,) = shown[0].axes
    labels = texts(axes.get_xticklabels())
    assert labels == ["0", "3", "6", "9", "12", "15", "18", "21", "24"]
    pitch = 64 + gap(64, 64)
    np.testing.assert_allclose(axes.get_xticks(), [int(n) * pitch + 32 for n in labels])
    assert_tidy(shown[0])


def test_loss_curves_show_the_records(shown):
    save_loss_curves(UNUSED, loggers.curves(short_run()))
    nll, kl, elbo = shown[0].axes
    train, holdout = nll.get_lines()
    np.testing.assert_array_equal(train.get_xydata(), [[0, 9.0], [1, 4.5]])
    np.testing.assert_array_equal(holdout.get_xydata(), [[2, 7.0]])
    for axes in (nll, kl, elbo):
        assert "nats per image" in axes.get_ylabel()
    assert elbo.get_xlabel() == "training steps"


def test_all_of_a_run_is_seen_and_beta_where_it_changes(shown):
    """The start, where it is many times larger than the rest, in an inset."""
    steps, flat = np.arange(50.0), np.full(50, 4.0)
    steep = 10 + 900 * np.exp(-steps) + np.sin(steps)
    given = {"nll": steep, "kl": np.sqrt(steps), "elbo": -steep, "beta": flat, "capacity": steps}
    save_loss_curves(UNUSED, {n: {"train": np.array([steps, v])} for n, v in given.items()})
    assert_tidy(shown[0])
    nll, kl, elbo, capacity = (axes for axes in shown[0].axes if axes.get_ylabel())
    for axes, values in ((nll, steep), (elbo, -steep)):
        (inset,) = axes.child_axes
        (line,) = inset.get_lines()
        np.testing.assert_array_equal(line.get_ydata(), values)
        low, high = inset.get_ylim()
        assert low <= values.min() <= values.max() <= high
        assert np.ptp(axes.get_ylim()) < 10
        place = inset.get_window_extent()
        drawn = axes.transData.transform(np.array([steps, values]).T)[5:]
        assert not any(place.contains(*point) for point in drawn)
    assert not kl.child_axes
    assert kl.get_ylim()[1] > 7
    assert "C" in capacity.get_ylabel()
    np.testing.assert_array_equal(capacity.get_lines()[0].get_ydata(), steps)


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
    kl = np.array([record["kl_per_latent"] for record in short_run()[:2]])
    final, active = np.array([0.002, 3.1, 0.1]), np.array([False, True, True])
    save_kl_per_latent(UNUSED, np.array([0.0, 1.0]), kl, final, active)
    (axes,) = shown[0].axes
    drawn = {line.get_ydata()[-1]: line.get_color() for line in axes.get_lines()}
    assert drawn == {0.002: "0.8", 0.1: style.COLOURS[1], 3.0: style.COLOURS[0]}
    assert legend_of(shown[0]) == ["z1 (3.10)", "z2 (0.10)", "1 not active", LAST]
    assert_tidy(shown[0])

    many = np.random.default_rng(0).random((1, 30))  # of a single record, too
    save_kl_per_latent(UNUSED, np.array([0.0]), many, many[0], many[0] > 0.2)
    (axes,) = shown[1].axes
    lines = axes.get_lines()
    assert {line.get_marker() for line in lines} == {"o"}
    looks = [(x.get_color(), x.get_linestyle()) for x in lines if x.get_label().startswith("z")]
    assert len(set(looks)) == len(looks) == 14
    assert_tidy(shown[1])


def test_gif_goes_there_and_back(tmp_path):
    images = np.linspace(0, 1, 5)[None, :, None, None, None] * np.ones((3, 1, 8, 8, 1))
    path = tmp_path / "t.gif"
    still = {"image": np.full((8, 8, 1), 0.5)}
    save_traversal_gif(path, images, ["a", "b", "c"], ["-2", "-1", "0", "1", "2"], still)
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


def test_gif_of_training_has_a_frame_for_each_step(tmp_path):
    path, images = tmp_path / "t.gif", np.zeros((3, 2, 2, 8, 8, 1))
    images[:, :, :] += np.array([0.2, 0.5, 0.8]).reshape(3, 1, 1, 1, 1, 1)
    rows = [["z1", "z0"]] * 3
    save_training_gif(path, images, ["1", "2", "3"], rows, ["a", "b"], "x")
    with Image.open(path) as gif:
        assert (getattr(gif, "n_frames", 1), gif.info["loop"]) == (3, 0)
        for frame, level in enumerate((51, 128, 204)):
            gif.seek(frame)
            pixels = np.asarray(gif.convert("L"), int)
            middle = pixels[:, pixels.shape[1] // 2 + 20 :][pixels.shape[0] // 3]
            assert (abs(middle - level) < 6).mean() > 0.7


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_channels_that_are_no_colours_are_seen_together(tmp_path, channels):
    """A fourth one is no transparency."""
    images = np.zeros((1, 2, 3, 3, channels))
    images[..., -1] = 1
    np.testing.assert_allclose(mosaic(images)[:, :3], 1 / channels)
    path = tmp_path / "grid.png"
    save_image_grid(path, images)
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("L"))
    level = round(255 / channels)
    assert (abs(pixels.astype(int) - level) <= 1).mean() > 0.5


# Scores


def draw_matrix(matrix, names, inactive=()):
    marks = np.isin(np.arange(len(matrix)), inactive)
    save_matrix(UNUSED, matrix, names, inactive=marks, label="I(z; v) (nats)")


def test_matrix_shows_every_number_in_its_cell(shown):
    matrix = np.array([[1.1, 0.0], [0.25, np.nan], [0.004, 0.5]])
    draw_matrix(matrix, ("shape", "scale"), inactive=[1])
    axes, bar = shown[0].axes
    cells = {text.get_position(): text for text in axes.texts}
    expected = {(0, 0): "1.10", (1, 0): ".00", (0, 1): ".25", (0, 2): ".00", (1, 2): ".50"}
    assert {place: text.get_text() for place, text in cells.items()} == expected
    assert (cells[0, 0].get_color(), cells[1, 0].get_color()) == ("white", "black")
    picture = axes.images[0]
    np.testing.assert_array_equal(picture.get_array().filled(np.nan), matrix)
    assert picture.get_clim() == (0, 1.1)
    assert to_hex(picture.cmap(np.ma.masked)) == "#cccccc"
    assert texts(axes.get_yticklabels()) == ["z0", "z1 (inactive)", "z2"]
    assert [label.get_color() for label in axes.get_yticklabels()] == ["black", "0.5", "black"]
    (hatched,) = axes.patches
    assert (hatched.get_y(), hatched.get_height()) == (0.5, 1)
    assert hatched.get_hatch()
    assert texts(axes.get_xticklabels()) == ["shape", "scale"]
    assert axes.get_ylabel() == "latent"
    assert bar.get_xlabel() == "I(z; v) (nats)"
    assert_tidy(shown[0])


def test_matrix_of_many_latents_shows_the_largest(shown):
    matrix = np.random.default_rng(0).random((50, 5))
    matrix[7] = np.nan
    matrix[:, 2] = np.nan
    draw_matrix(matrix, FACTORS, inactive=range(0, 50, 3))
    axes = shown[0].axes[0]
    top = np.sort(np.argsort(-np.delete(matrix, 2, 1).max(axis=1))[:20])
    wanted = [f"z{j} (inactive)" if j % 3 == 0 else f"z{j}" for j in top]
    assert texts(axes.get_yticklabels()) == wanted
    np.testing.assert_array_equal(axes.images[0].get_array().filled(np.nan), matrix[top])
    hatched = [patch.get_y() + patch.get_height() / 2 for patch in axes.patches]
    np.testing.assert_allclose(hatched, np.flatnonzero(top % 3 == 0))
    assert axes.get_ylabel() == "20 of 50 latents (largest maxima)"
    assert_tidy(shown[0])


@pytest.mark.parametrize("latents", [1, 10])
@pytest.mark.parametrize("names", [("shape",), FACTORS, LONG_NAMES])
def test_matrix_names_do_not_touch(shown, latents, names):
    draw_matrix(np.full((latents, len(names)), 2.75), names, inactive=[0])
    axes = shown[0].axes[0]
    assert_tidy(shown[0])
    rotated = {label.get_rotation() for label in axes.get_xticklabels()}
    assert rotated == {90 if names is LONG_NAMES else 0}
    assert len(axes.texts) == latents * len(names)
    height = axes.get_window_extent().height / shown[0].dpi
    assert height == pytest.approx(max(0.45, 0.15 * latents), abs=0.02)


@pytest.mark.parametrize("value", [np.nan, 0.0, -1.0])
def test_matrix_without_a_positive_number(shown, value):
    draw_matrix(np.full((2, 13), value), [*LONG_NAMES, "y"])
    axes = shown[0].axes[0]
    assert not axes.texts  # too narrow
    assert axes.images[0].get_clim() == (min(np.nan_to_num(value), 0), 1)


def bars(axes):
    """(row, left, width) of what is filled, and of the outlines."""
    found = {True: [], False: []}
    for p in axes.patches:
        place = (p.get_y() + p.get_height() / 2, p.get_x(), p.get_width())
        found[p.get_fill()].append(place)
    return found[True], found[False]


def test_best_latents_and_gap(shown):
    matrix = np.array([[0.9, 0.1], [0.3, 0.2], [0.6, 1.6], [0.0, 1.2]])
    save_best_latents(UNUSED, matrix, np.array([1.0, 2.0]), ("shape", "x"))
    (axes,) = shown[0].axes
    filled, outlined = bars(axes)
    pitch = 4.4
    wanted = [(1, 0, 0.9), (2, 0, 0.6), (3, 0, 0.3)]
    wanted += [(pitch + 1, 0, 0.8), (pitch + 2, 0, 0.6), (pitch + 3, 0, 0.1)]
    np.testing.assert_allclose(filled, wanted)
    np.testing.assert_allclose(outlined, [(2, 0.6, 0.3), (pitch + 2, 0.6, 0.2)])
    assert texts(axes.get_yticklabels()) == ["z0", "z2", "z1", "z2", "z3", "z1"]
    np.testing.assert_allclose(axes.get_yticks(), [row for row, _, _ in wanted])
    assert texts(axes.texts) == ["shape", "gap .30", "x", "gap .20"]
    assert axes.get_xlim() == (0, 1)
    assert "share of the factor's entropy" in axes.get_xlabel()
    assert_tidy(shown[0])


def test_best_latents_where_there_is_little(shown):
    save_best_latents(UNUSED, np.array([[0.5]]), np.array([2.0]), ("shape",))
    filled, outlined = bars(shown[0].axes[0])
    assert filled == outlined == [(1, 0, 0.25)]
    assert texts(shown[0].axes[0].texts) == ["shape", "gap .25"]

    matrix = np.array([[0.0, np.nan, 0.7], [0.0, np.nan, 1.0]])
    save_best_latents(UNUSED, matrix, np.array([0.0, 1.0, 1.0]), ("a", "b", "c"))
    (axes,) = shown[1].axes
    assert texts(axes.texts) == ["a", "H(v) = 0", "b", "gap nan", "c", "gap .30"]
    filled, _ = bars(axes)
    assert [width for _, _, width in filled if np.isfinite(width)] == [1.0, 0.7]


def test_best_latents_of_many_factors(shown):
    matrix = np.random.default_rng(0).random((50, 12))
    save_best_latents(UNUSED, matrix, np.ones(12), LONG_NAMES)
    (axes,) = shown[0].axes
    assert len(axes.get_yticklabels()) == 36
    assert_tidy(shown[0])


def band(axes):
    """{x: (low, high)} of the filled band."""
    points = axes.collections[0].get_paths()[0].vertices
    return {x: (points[points[:, 0] == x, 1].min(), points[points[:, 0] == x, 1].max())
            for x in np.unique(points[:, 0])}  # fmt: skip


@pytest.mark.parametrize("n", [2, 30, 20000])
def test_latent_against_factor_is_mean_and_percentiles(shown, n):
    rng = np.random.default_rng(n)
    codes = rng.normal(size=(n, 4)).astype(np.float32)
    factors = np.stack([rng.integers(0, 3, n), rng.integers(0, 40, n)], axis=1)
    factors[-1] = 50  # a value of one point, far from the others
    pairs = [(3, 0), (0, 1), (1, 1)]
    save_latent_against_factor(UNUSED, codes, factors, pairs, ("shape", LONG_NAMES[0]), UNITS)
    assert len(shown[0].axes) == len(pairs)
    for axes, (latent, factor) in zip(shown[0].axes, pairs, strict=True):
        values = np.unique(factors[:, factor])
        groups = [codes[factors[:, factor] == v, latent].astype(float) for v in values]
        (line,) = axes.get_lines()
        np.testing.assert_array_equal(line.get_xdata(), values)
        np.testing.assert_allclose(line.get_ydata(), [group.mean() for group in groups])
        wanted = [np.percentile(group, (5, 95)) for group in groups]
        found = band(axes)
        np.testing.assert_allclose([found[v] for v in values], wanted)
        assert axes.get_ylabel() == f"z{latent} (posterior mean)"
    names = [axes.get_xlabel() for axes in shown[0].axes]
    assert names == ["shape\n(class index)", *["a_rather…ng_name_0\n(one of 20 bins)"] * 2]
    assert_tidy(shown[0])


def test_latent_against_a_factor_of_one_value(shown):
    codes, factors = np.array([[1.0], [3.0]]), np.ones((2, 1), int)
    for n in (1, 2):
        save_latent_against_factor(UNUSED, codes[:n], factors[:n], [(0, 0)], ("x",), UNITS)
        (axes,) = shown[-1].axes
        (line,) = axes.get_lines()
        assert line.get_marker() == "o"
        np.testing.assert_array_equal(line.get_xydata(), [[1, n]])
        assert axes.get_xticks() == [1]
        segment = axes.collections[1].get_segments()[0]
        np.testing.assert_allclose(segment, [[1, 1 + 0.1 * (n - 1)], [1, 1 + 1.9 * (n - 1)]])
        assert_tidy(shown[-1])


@pytest.mark.parametrize("pairs", [[], [(0, 0)] * 7])
def test_latent_against_factor_wants_few_pairs(pairs):
    some = np.zeros((3, 1))
    with pytest.raises(ValueError, match=f"got {len(pairs)}, wanted 1 to 6"):
        save_latent_against_factor(UNUSED, some, some.astype(int), pairs, ("x",), UNITS)


def test_score_curves_show_the_scores(shown):
    nan = np.nan
    curves = {
        "mig": [[10, 20, 30], [0.1, 0.2, nan]],
        "active_units": [[10, 20, 30], [3, 1, 5]],
        "irs (nan)": [[10, 20], [nan, nan]],
        "sap": [[20], [1.0 + 1e-9]],
    }
    given = {name.split()[0]: np.array(curve, float) for name, curve in curves.items()}
    save_score_curves(UNUSED, given)
    inside, beyond = shown[0].axes
    mig, irs, sap = inside.get_lines()
    np.testing.assert_array_equal(mig.get_xydata(), [[10, 0.1], [20, 0.2]])
    np.testing.assert_array_equal(sap.get_xdata(), [20])
    assert sap.get_marker() == "o"
    assert len(irs.get_xdata()) == 0
    (units,) = beyond.get_lines()
    np.testing.assert_array_equal(units.get_xydata(), [[10, 3], [20, 1], [30, 5]])
    assert legend_of(shown[0]) == list(curves)
    assert (inside.get_ylabel(), beyond.get_xlabel()) == ("score", "training steps")
    assert "[0, 1]" in beyond.get_ylabel()


@pytest.mark.parametrize("count", [1, 3, 40])
def test_score_curves_of_many_scores(shown, count):
    names = [f"{name}/a_long_name" for name in (*FACTORS, *LONG_NAMES[:9])]
    columns = np.linspace(0, 1, count * 14).reshape(count, 14).T
    steps = 1000.0 * np.arange(count)
    curves = {n: np.stack([steps, values]) for n, values in zip(names, columns, strict=True)}
    save_score_curves(UNUSED, curves)
    (axes,) = shown[0].axes
    lines = axes.get_lines()
    looks = {(line.get_color(), line.get_linestyle()) for line in lines}
    assert len(looks) == len(lines) == 14
    assert {line.get_marker() in ("", "None") for line in lines} == {count == 40}
    assert_tidy(shown[0])
    (legend,) = shown[0].legends
    assert legend.get_window_extent().y1 < axes.get_tightbbox().y0
    height = axes.get_window_extent().height / shown[0].dpi
    assert height == pytest.approx(1.7, abs=0.02)


def test_score_curves_with_no_panel_for_what_is_not_there(shown):
    save_score_curves(UNUSED, {"active_units": np.array([[1.5e6], [4.0]])})
    (axes,) = shown[0].axes
    shown[0].draw_without_rendering()
    assert texts(axes.get_xticklabels()) == ["1.5M"]
    assert axes.get_ylim()[1] > 4
    with pytest.raises(ValueError, match="got none"):
        save_score_curves(UNUSED, {})


# A comparison


def members(settings, seeds, seed=0):
    rng = np.random.default_rng(seed)
    rows = [(s.label, number) for s in settings for number in range(seeds)]
    table = pd.DataFrame(rows, columns=["setting", "seed"])
    for name in SCORES:
        table[name] = rng.random(len(rows)) * (30 if name in ("nll", "kl") else 1)
    return table.sample(frac=1, random_state=1)  # rows in no order


def seeds_of(table, setting, name):
    return table[table.setting == setting.label].sort_values("seed")[name].to_numpy()


def numbers(values, log):
    return [Setting(str(v), v) for v in values], np.log10(values) if log else np.array(values)


@pytest.mark.parametrize(
    ("values", "log"),
    [
        *[((1.0, 2.0, 16.0), True), ((0.001, 0.1), True), ((1.0, 10.0), False)],
        *[((0.0, 1.0, 100.0), False), ((-1.0, 50.0), False), ((4.0,), False)],
    ],
)
def test_settings_stand_at_their_values(values, log):
    settings, wanted = numbers(values, log)
    np.testing.assert_allclose(places(settings), wanted)


@pytest.mark.parametrize("values", [(None, None), (1.0, None), (2.0, 1.0), (1.0, 1.0)])
def test_settings_that_are_no_increasing_numbers_stand_side_by_side(values):
    settings = [Setting(str(v), v) for v in (*values, np.nan)]
    np.testing.assert_array_equal(places(settings), [0, 1, 2])


def test_seeds_stand_around_their_setting():
    x = places(BETA)
    spread = [around(x, number, 50) for number in range(len(x))]
    for place, seeds in zip(x, spread, strict=True):
        assert seeds.mean() == pytest.approx(place)
        assert len(np.unique(seeds)) == 50
    for left, right in itertools.pairwise(spread):
        assert left.max() < right.min()
    np.testing.assert_array_equal(around(x, 2, 1), x[2])
    assert around(x, 2, 0).shape == (0,)


def test_colours_are_one_order_from_dark_to_light():
    lightness = comparison.colours(BETA)[:, :3] @ [0.299, 0.587, 0.114]
    assert (np.diff(lightness) > 0.02).all()
    assert lightness[-1] < 0.75  # on white


def test_mean_leaves_out_what_is_not_finite():
    values = np.array([[1.0, np.nan, np.inf], [2.0, 4.0, np.nan]])
    np.testing.assert_array_equal(comparison.mean(values), [1.5, 4.0, np.nan])
    assert np.isnan(comparison.mean(np.empty(0)))


@few_kinds
def test_rate_distortion(shown, tmp_path, settings, seeds):
    table = members(settings, seeds)
    if seeds > 1:
        table.loc[0, "nll"] = np.nan
    save_rate_distortion(tmp_path / "f", table, settings)
    (figure,) = shown
    (axes,) = figure.axes
    assert_tidy(figure)
    assert axes.get_xlabel().endswith("(nats per image)")
    assert "−log p(x|z)\n(nats per image)" in axes.get_ylabel()
    dots = [line for line in axes.lines if line.get_alpha() == 0.5]
    centres = [line for line in axes.lines if line.get_markersize() == 4.5]
    for setting, dot, centre in zip(settings, dots, centres, strict=True):
        points = np.stack([seeds_of(table, setting, name) for name in ("kl", "nll")], axis=1)
        np.testing.assert_array_equal(dot.get_xydata(), points)
        wanted = pd.DataFrame(points).mean().to_numpy()  # leaves nan out
        np.testing.assert_allclose(centre.get_xydata()[0], wanted)
    assert legend_of(figure)[:-1] == [s.label for s in settings]
    assert axes.texts
    for text in axes.texts:
        assert -float(text.get_text().replace("−", "-")) == pytest.approx(sum(text.get_position()))
    paths = [line for line in axes.lines if len(line.get_xdata()) == 20]
    assert len(paths) == (0 if settings is LONG else len(settings) - 1)


def test_rate_distortion_of_two_families(shown):
    """Each joins its own means, and has a marker of its own."""
    families = BETA[:3], [Setting(f"TC, β = {b}", float(b)) for b in (1, 4)]
    table = members([*families[0], *families[1]], 2)
    save_rate_distortion(UNUSED, table, *families)
    lines = shown[0].axes[0].lines
    mean = pd.DataFrame(table.groupby("setting")[["kl", "nll"]].mean())
    ends = [[line.get_xydata()[0], line.get_xydata()[-1]] for line in lines
            if len(line.get_xdata()) == 20]  # fmt: skip
    pairs = [pair for family in families for pair in itertools.pairwise(family)]
    np.testing.assert_allclose(ends, [mean.loc[[a.label, b.label]] for a, b in pairs])
    centres = [line for line in lines if line.get_markersize() == 4.5]
    assert [line.get_marker() for line in centres] == ["o"] * 3 + ["s"] * 2
    assert_tidy(shown[0])


def test_rate_distortion_without_a_number(shown, tmp_path):
    table = members(BETA, 1).assign(nll=np.nan)
    save_rate_distortion(tmp_path / "f", table, BETA)
    assert_tidy(shown[0])


def intervals(table, settings, names):
    found = {}
    for name in names:
        groups = [seeds_of(table, s, name) for s in settings]
        half = [1.5 * g.std(ddof=1) if len(g) > 1 else np.nan for g in groups]
        found[name] = [
            (g.mean(), g.mean() - h, g.mean() + h) for g, h in zip(groups, half, strict=True)
        ]
    return found


@every_kind
def test_scores(shown, tmp_path, settings, seeds):
    table = members(settings, seeds)
    chosen = SCORES if settings is BETA else SCORES[-4:]
    given = intervals(table, settings, chosen)
    known = {"raw pixels": {"mig": -0.5, "kl": np.nan}, "PCA": dict.fromkeys(SCORES, 0.3)}
    names = {"kl": "KL (nats per image)", "unsupervised": "Gaussian total correlation ↓ (nats)"}
    save_scores(tmp_path / "f", table, settings, given, known, "β", names)
    (figure,) = shown
    assert_tidy(figure)
    assert len(figure.axes) == len(chosen)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    wanted = [names.get(score, score) for score in chosen]
    assert [re.sub(r"\s", "", title) for title in titles] == [re.sub(r"\s", "", w) for w in wanted]
    for axes, name in zip(figure.axes, chosen, strict=True):
        dots = [line for line in axes.lines if line.get_alpha() == 0.5]
        for number, setting in enumerate(settings):
            wanted = seeds_of(table, setting, name)
            np.testing.assert_array_equal(dots[number].get_ydata(), wanted)
            assert dots[number].get_xdata().mean() == pytest.approx(places(settings)[number])
        bars = axes.collections[0].get_segments() if seeds > 1 else []
        for bar, x, (_, low, high) in zip(bars, places(settings), given[name], strict=seeds > 1):
            np.testing.assert_allclose(bar, [[x, low], [x, high]])
        (means,) = (line for line in axes.lines if line.get_markersize() == 2)
        np.testing.assert_allclose(means.get_ydata(), [centre for centre, *_ in given[name]])
        low, high = axes.get_ylim()
        shown_values = [table[name].min(), table[name].max(), 0.3, *[-0.5] * (name == "mig")]
        assert low < min(shown_values)
        assert high > max(shown_values)
        levels = [line.get_ydata()[0] for line in axes.lines if line.is_dashed()]
        np.testing.assert_array_equal(levels, [-0.5 if name == "mig" else np.nan, 0.3])
    assert legend_of(figure)[-2:] == ["raw pixels", "PCA"]
    assert ("a seed" in legend_of(figure)) == (seeds > 1)
    bottom = [axes for axes in figure.axes if axes.get_xlabel()]
    assert len({round(axes.get_position().x0, 6) for axes in bottom}) == len(bottom)
    if settings is BETA:
        np.testing.assert_allclose(bottom[0].get_xticks(), np.log10([1, 2, 4, 6, 8, 16]))
        for axes in bottom:
            assert texts(axes.get_xticklabels()) == ["1", "2", "4", "6", "8", "16"]
    if settings is LONG:
        for axes in bottom:
            assert texts(axes.get_xticklabels()) == [s.label for s in LONG]


def test_scores_of_a_wide_interval_keep_the_seeds_in_view(shown, tmp_path):
    settings = BETA[:2]
    table = pd.DataFrame({"setting": ["β = 1", "β = 1", "β = 2"], "seed": [0, 1, 0]})
    table["mig"], table["dci"], table["irs"] = [0.1, 0.2, 0.3], 0.5, np.nan
    nothing = (np.nan, np.nan, np.nan)
    given = {
        "mig": [(0.15, -9.0, 9.0), (0.3, np.nan, np.nan)],
        "dci": [(0.5, 0.5, 0.5), (0.5, np.nan, np.nan)],
        "irs": [nothing, nothing],
    }
    save_scores(tmp_path / "f", table, settings, given, {}, "β")
    mig, dci, _ = shown[0].axes
    low, high = mig.get_ylim()
    assert -0.1 < low < 0.1
    assert 0.3 < high < 0.5
    low, high = dci.get_ylim()
    assert low < 0.5 < high
    assert_tidy(shown[0])


def test_numbers_of_latents_have_whole_ticks(shown, tmp_path):
    table = members(BETA[:3], 1).assign(active=[8, 7, 6], mig=[0.1, 0.2, 0.3])
    save_scores(
        tmp_path / "f", table, BETA[:3], intervals(table, BETA[:3], ["active", "mig"]), {}, "β"
    )
    active, mig = shown[0].axes
    assert (active.get_yticks() % 1 == 0).all()
    assert (mig.get_yticks() % 1 != 0).any()


@pytest.mark.parametrize("count", [1, 10])
def test_scores_of_any_number(shown, tmp_path, count):
    names = [f"a_rather_long_name_of_{number}" for number in range(count)]
    table = members(BETA[:3], 2).assign(**dict.fromkeys(names, 0.5))
    baselines = {f"the baseline number {n}": {names[0]: n / 8} for n in range(8)}
    save_scores(tmp_path / "f", table, BETA[:3], intervals(table, BETA[:3], names), baselines, "β")
    assert len(shown[0].axes) == count
    assert len(shown[0].legends[0].get_texts()) == 2 + 8
    assert_tidy(shown[0])


@few_kinds
def test_kl_spectrum(shown, tmp_path, settings, seeds):
    rng = np.random.default_rng(0)
    kl = {s.label: 10 ** rng.uniform(-6, 1, (seeds, 10)) for s in settings}
    save_kl_spectrum(tmp_path / "f", kl, settings, "β")
    (figure,) = shown
    axes, bar = figure.axes
    assert_tidy(figure)
    assert (axes.get_yscale(), axes.get_ylabel()) == ("log", "KL of a latent (nats)")
    assert bar.get_xlim() == (0.5, 10.5)
    lines = [line for line in axes.lines if line.get_markersize() == 2.5]
    assert {line.get_linestyle() for line in lines} == {"-" if is_numeric(settings) else "None"}
    assert len(lines) == 10
    for rank, line in enumerate(lines):
        means = [np.mean([sorted(run)[::-1][rank] for run in kl[s.label]]) for s in settings]
        np.testing.assert_allclose(line.get_ydata(), np.maximum(means, 0.01 / 30))
        np.testing.assert_allclose(line.get_xdata(), places(settings))
    dots = [line.get_ydata() for line in axes.lines if line.get_alpha() == 0.5]
    wanted = np.maximum(np.concatenate([k.ravel() for k in kl.values()]), 0.01 / 30)
    np.testing.assert_allclose(np.sort(np.concatenate(dots)), np.sort(wanted))


def test_kl_spectrum_of_unlike_runs(shown, tmp_path):
    kl = {"β = 1": np.array([[0.5, np.nan, 2.0]]), "β = 2": np.array([[3.0], [1.0]])}
    save_kl_spectrum(tmp_path / "f", kl, BETA[:3], "β")
    lines = [line for line in shown[0].axes[0].lines if line.get_linestyle() == "-"]
    found = np.array([line.get_ydata() for line in lines])
    nan = np.nan
    np.testing.assert_array_equal(found, [[2, 2, nan], [0.5, nan, nan], [nan, nan, nan]])
    assert shown[0].axes[0].get_ylim()[0] == pytest.approx(0.1)  # and no empty decade below
    save_kl_spectrum(tmp_path / "f", {"β = 1": np.zeros((2, 1))}, BETA[:1], "β")
    save_kl_spectrum(tmp_path / "f", {"β = 1": np.ones((2, 64))}, BETA[:1], "β")
    for figure in shown:
        assert_tidy(figure)


@few_kinds
def test_factor_scores(shown, tmp_path, settings, seeds):
    table = members(settings, seeds)
    shares = pd.DataFrame(table[["setting", "seed", *SCORES[:5]]].to_numpy())
    shares.columns = ["setting", "seed", *FACTORS]
    shares[list(FACTORS)] = shares[list(FACTORS)].astype(float)
    shares.loc[0, "x"] = np.nan
    known = {"shape": [(0.5, 0.1 * i / 12, 0.6 + i / 30) for i in range(len(settings))]}
    save_factor_scores(tmp_path / "f", shares, settings, "β", "share of the entropy", known)
    (axes,) = shown[0].axes
    assert_tidy(shown[0])
    bars = [bar for drawn in axes.collections for bar in drawn.get_segments() if len(bar)]
    for bar, x, (_, *ends) in zip(bars, places(settings), known["shape"], strict=True):
        np.testing.assert_allclose(bar, [[x, end] for end in ends])
    lines = {line.get_label(): line for line in axes.lines if line.get_markersize() == 3}
    joined = {line.get_linestyle() != "None" for line in lines.values()}
    assert joined == {is_numeric(settings)}
    assert tuple(lines) == tuple(f for f in FACTORS if len(shares[f].dropna()))
    means = pd.DataFrame(shares.groupby("setting").mean()).loc[[s.label for s in settings]]
    for name, line in lines.items():
        np.testing.assert_allclose(line.get_ydata(), means[name])
    assert len({line.get_color() for line in lines.values()}) == len(lines) >= 4
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("β", "share of the entropy")
    assert axes.get_ylim()[0] <= 0


def test_factor_scores_of_many_factors(shown, tmp_path):
    names = [f"the_attribute_of_a_face_{number}" for number in range(20)]
    shares = members(BETA, 2)[["setting"]].assign(**{n: 0.1 * i for i, n in enumerate(names)})
    save_factor_scores(tmp_path / "f", shares, BETA, "β", "share")
    lines = [line for line in shown[0].axes[0].lines if line.get_alpha() != 0.5]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 20
    assert_tidy(shown[0])


def correlations(count, seed=0):
    names = [*SCORES, *(f"a_rather_long_name_of_{n}" for n in range(40))][:count]
    rng = np.random.default_rng(seed)
    return pd.DataFrame(rng.random((30, count)), columns=names).corr("spearman")


@pytest.mark.parametrize("count", [1, 14, 30])
def test_agreement(shown, tmp_path, count):
    table = correlations(count)
    table.iloc[0, -1] = -1.0 if count > 1 else 1.0
    if count > 2:
        table.iloc[1, 0] = np.nan
    save_agreement(tmp_path / "f", table, 6)
    axes, bar = shown[0].axes
    assert_tidy(shown[0])
    picture = axes.images[0]
    np.testing.assert_array_equal(picture.get_array().filled(np.nan), table.to_numpy())
    assert picture.get_clim() == (-1, 1)
    assert to_hex(picture.cmap(np.ma.masked)) == "#cccccc"
    assert bar.get_xlabel() == "Spearman correlation over n = 6 runs"
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [" ".join(text.split()) for text in texts(labels)] == list(table)
    assert len(axes.texts) == (0 if count == 30 else table.notna().to_numpy().sum())
    cell = axes.bbox.width / count
    for text in axes.texts:
        column, row = (int(place) for place in text.get_position())
        assert float(text.get_text()) == pytest.approx(table.iloc[row, column], abs=0.0051)
        assert text.get_window_extent().width <= cell
    if count > 10:
        assert axes.bbox.height == pytest.approx(axes.bbox.width, rel=0.02)  # square


def test_legends_are_read_row_by_row():
    figure = Figure(figsize=(3, 2))
    names = ["β = 1", "β = 4", "β = 16", "β = 64", "something that needs more room than the others"]
    style.legend_below(figure, [Line2D([], [], label=name) for name in names])
    assert legend_of(figure) == names
    assert len({text.get_window_extent().y0 for text in figure.legends[0].get_texts()}) > 1


@pytest.mark.parametrize("count", [1, 14])
def test_variance_split(shown, tmp_path, count):
    parts = np.random.default_rng(0).dirichlet([2, 1, 1], count)
    shares = pd.DataFrame(parts, index=list(SCORES[:count]), columns=["setting", "seed", "rest"])
    if count > 1:
        shares.iloc[3] = np.nan
    limits = np.linspace(0.2, 0.9, count).tolist()
    save_variance_split(tmp_path / "f", shares, limits)
    (axes,) = shown[0].axes
    assert_tidy(shown[0])
    for row, score in enumerate(shares.index):
        bars = [p for p in axes.patches if p.get_y() < row < p.get_y() + p.get_height()]
        np.testing.assert_allclose([p.get_width() for p in bars], shares.loc[score])
        lefts = [0, *shares.loc[score].cumsum()[:-1]]
        if row != 3:
            np.testing.assert_allclose([p.get_x() for p in bars], lefts)
    remarks = [
        text.get_position()[1] for text in axes.texts if text.get_text() == "nothing to divide"
    ]
    assert remarks == ([3] if count > 1 else [])
    assert texts(axes.get_yticklabels()) == list(SCORES[:count])
    marks = {round(y.mean()): x[0] for x, y in (p.T for p in axes.collections[0].get_segments())}
    assert marks == {row: x for row, x in enumerate(limits) if row != 3}
    numbers = [text.get_position() for text in axes.texts if text.get_text().startswith(".")]
    assert all(abs(x - limits[row]) > 0.02 for x, row in numbers)  # no line through them
    *sources, noise = legend_of(shown[0])
    assert sources == ["setting", "seed", "rest"]
    assert "noise alone" in noise
    assert "share of the variance" in axes.get_xlabel()


def test_profiles_are_the_share_of_runs_above_a_value(shown):
    groups = [np.array([0.5, 0.1, 0.4, 0.4]), np.empty(0), np.array([0.3])]
    band = np.array([[0.0, 0.3], [0.2, 0.1], [0.9, 0.8]])
    save_profiles(UNUSED, {"MIG": groups}, BETA[:3], {"MIG": [band, None, None]})
    (axes,) = shown[0].axes
    assert_tidy(shown[0])
    for line, group in zip(axes.lines, (groups[0], groups[2]), strict=True):
        assert line.get_drawstyle() == "steps-post"
        x, above = line.get_xydata().T
        for value in (0.09, 0.1, 0.2, 0.3, 0.4, 0.45, 0.5, 0.51):
            drawn = above[np.searchsorted(x, value, side="right") - 1]
            assert drawn == pytest.approx((group > value).mean())
    shade = axes.collections[0].get_paths()[0]
    assert shade.contains_points([(0.1, 0.8), (0.1, 0.95), (0.1, 0.15)]).tolist() == [1, 0, 0]
    assert legend_of(shown[0]) == [s.label for s in BETA[:3]]


def test_curves_of_power(shown):
    n = np.array([2.0, 4.0, 8.0])
    rows = np.array([[0.2, 0.5, 0.8], [0.1, 0.4, 0.6], [0.0, 0.1, 0.2], [0.6, 0.8, 0.9]])
    save_power(UNUSED, {"MIG": PowerCurve(n, *rows, now=6)}, 0.9)
    (axes,) = shown[0].axes
    assert_tidy(shown[0])
    paired, unpaired, wanted, now = axes.lines
    np.testing.assert_array_equal(paired.get_ydata(), rows[0])
    np.testing.assert_array_equal(unpaired.get_ydata(), rows[1])
    assert set(wanted.get_ydata()) == {0.9}
    np.testing.assert_allclose(now.get_xydata(), [[6, 0.65]])
    assert list(band(axes).values()) == [*zip(rows[2], rows[3], strict=True)]
    names = {line.get_linestyle(): line.get_label() for line in shown[0].legends[0].get_lines()}
    assert (names["--"], unpaired.get_linestyle()) == ("unpaired", "--")
    assert texts(axes.get_xticklabels()) == ["2", "3", "5"]


def records(steps, level, split="train"):
    rows = [(step, level + 500 * np.exp(-step / 200)) for step in steps]
    return [
        {"step": step, "split": split, "nll": nll, "kl": level / 2, "elbo": -nll - level / 2}
        for step, nll in rows
    ]


def learning_curves(folder, runs, settings):
    found = {label: [curves(records) for records in seeds] for label, seeds in runs.items()}
    save_learning_curves(folder / "f", found, settings)


@every_kind
def test_learning_curves(shown, tmp_path, settings, seeds):
    runs = {
        s.label: [
            records(range(100, 10_001, 100), 20.0 + i + r)
            + records([5000, 10_000], 20.5 + i + r, "train_eval")
            + records([5000, 10_000], 21.0 + i + r, "holdout")
            for r in range(seeds)
        ]
        for i, s in enumerate(settings)
    }
    learning_curves(tmp_path, runs, settings)
    (figure,) = shown
    assert_tidy(figure)
    assert len(figure.axes) == 3
    for axes, name in zip(figure.axes, ("nll", "kl", "elbo"), strict=True):
        assert "nats per image" in axes.get_ylabel()
        thick = [line for line in axes.lines if line.get_linewidth() == 1.2]
        dots = [line for line in axes.lines if line.get_linestyle() == "None"]
        for i, (setting, line) in enumerate(zip(settings, thick, strict=True)):
            trained, tested = dots[2 * i : 2 * i + 2]
            assert line.get_xdata()[0] == 49.5  # steps 1 to 100
            assert list(tested.get_xdata()) == list(trained.get_xdata()) == [5000, 10_000]
            for drawn, split in ((line, "train"), (trained, "train_eval"), (tested, "holdout")):
                chosen = [
                    [r[name] for r in run if r["split"] == split] for run in runs[setting.label]
                ]
                np.testing.assert_allclose(drawn.get_ydata(), np.mean(chosen, axis=0))
        assert len([line for line in axes.lines if line.get_linewidth() == 0.4]) == (
            seeds * len(settings)
        )
    low, high = figure.axes[0].get_ylim()
    assert high - low < 100  # of a start that is 300 above
    assert legend_of(figure) == [
        *(s.label for s in settings), "training images, evaluated alike", "held-out images"
    ]  # fmt: skip
    assert figure.axes[-1].get_xlabel() == "training steps"


def test_learning_curves_of_unlike_seeds(shown, tmp_path):
    line = [
        {"step": s, "split": "train", "nll": 2.0 * s, "kl": 1.0, "elbo": -s} for s in (0, 10, 40)
    ]
    other = [{"step": s, "split": "train", "nll": 100.0, "kl": 1.0, "elbo": 0.0} for s in (5, 30)]
    other.append({"step": 35, "split": "train", "nll": np.nan, "kl": 1.0, "elbo": 0.0})
    other.append({"step": 35, "split": "scores", "mig": 0.5})
    learning_curves(tmp_path, {"β = 1": [line, other, []]}, BETA[:2])
    thick = [line for line in shown[0].axes[0].lines if line.get_linewidth() == 1.2]
    # 2 s at 0, 4.5, 24.5 and 100 at 2, 17: where both are known
    wanted = [
        [2, (20 * 2 / 4.5 + 100) / 2],
        [4.5, (20 + 100) / 2],
        [17, (20 + 60 * 12.5 / 20 + 100) / 2],
    ]
    np.testing.assert_allclose(thick[0].get_xydata(), wanted)
    assert len(thick[1].get_xdata()) == 0
    assert legend_of(shown[0]) == ["β = 1", "β = 2"]
    learning_curves(tmp_path, {"β = 1": [line[:1]]}, BETA[:1])
    learning_curves(tmp_path, {}, BETA)
    for figure in shown:
        assert_tidy(figure)


@pytest.mark.parametrize("points", [1, 199, 200, 201, 1999])
def test_long_curves_keep_their_means(points):
    curve = np.random.default_rng(points).random((2, points))
    thin = comparison._thinned(curve)
    size = -(-points // comparison.MOST_POINTS)
    assert thin.shape[1] == -(-points // size) <= comparison.MOST_POINTS
    for start in range(thin.shape[1]):
        wanted = curve[:, start * size : (start + 1) * size].mean(axis=1)
        np.testing.assert_allclose(thin[:, start], wanted)


def traversals(shape, seed=0):
    images = np.random.default_rng(seed).random(shape)
    if shape[0] > 1:
        images[1, -1] = np.nan
    return images


@pytest.mark.parametrize(
    "shape",
    [(2, 3, 5, 8, 8, 1), (4, 6, 9, 16, 16, 1), (1, 1, 1, 8, 8, 3), (2, 12, 9, 8, 12, 3)],
)
def test_matched_traversals(shown, tmp_path, shape):
    images = traversals(shape)
    latents, count, columns, height, width, _ = shape
    rows = [f"latent {number} (position of the object)" for number in range(latents)]
    labels = [s.label for s in (LONG if count == 12 else BETA[:count])]
    values = np.linspace(-2, 2, columns).tolist()
    signs = ["", "−"] * count
    notes = [
        [f"r {signs[i + j]}.{i}{j}\nKL {i}.{j}0" for j in range(count)] for i in range(latents)
    ]
    weak = (np.random.default_rng(1).random((latents, count)) < 0.3) & ~np.isnan(
        images[:, :, 0, 0, 0, 0]
    )
    save_matched_traversals(tmp_path / "f", images, rows, labels, values, notes, weak)
    (figure,) = shown
    (axes,) = figure.axes
    assert_tidy(figure)
    picture = np.asarray(axes.images[0].get_array()).reshape(
        *axes.images[0].get_array().shape[:2], -1
    )
    images = enlarged(images)
    height, width = images.shape[3:5]
    space = gap(height, width)
    tops = axes.get_yticks() - height / 2
    assert len(tops) == latents * count
    for (latent, setting, column), top in zip(
        np.ndindex(latents, count, columns), np.repeat(tops, columns), strict=True
    ):
        left = column * (width + space)
        cell = picture[int(top) : int(top) + height, left : left + width]
        wanted = images[latent, setting, column]
        np.testing.assert_array_equal(cell, np.nan_to_num(wanted, nan=0.9))
    ticks = [text.replace(",\n", ", ") for text in texts(axes.get_yticklabels())]
    assert ticks == labels * latents
    assert texts(axes.get_xticklabels()) == [f"{v:.1f}" for v in values]
    headings = [text for text in axes.texts if text.get_weight() == "bold"]
    assert texts(headings) == rows
    for heading, top in zip(headings, tops[::count], strict=True):
        assert heading.get_position()[1] <= top
    remarks = [text for text in axes.texts if text.get_text() == "no such latent is active"]
    blank = tops[2 * count - 1 : 2 * count] + height / 2 if latents > 1 else []
    np.testing.assert_allclose([text.get_position()[1] for text in remarks], blank)
    assert len(axes.patches) == len(blank) + weak.sum()
    (right,) = axes.child_axes
    np.testing.assert_array_equal(right.get_yticks(), axes.get_yticks())
    there = ~np.isnan(images[:, :, 0, 0, 0, 0])
    wanted = [notes[i][j] if there[i, j] else "" for i, j in np.ndindex(there.shape)]
    assert texts(right.get_yticklabels()) == wanted
    for side in (axes, right):
        colours = [label.get_color() for label in side.get_yticklabels()]
        assert [colour == "0.6" for colour in colours] == weak.ravel().tolist()
    scale = axes.bbox.height / picture.shape[0], axes.bbox.width / picture.shape[1]
    assert scale[0] == pytest.approx(scale[1], rel=0.02)  # pixels are square


@pytest.mark.parametrize(
    ("lost", "told"), [({}, ""), ({1: 1, 2: 2}, " (n = 3, 2, 1, 3, 3, 3)"), ({0: 3}, " (n = 0, ")]
)
def test_profiles_say_how_many_runs_have_a_score(shown, lost, told):
    rng = np.random.default_rng(0)
    runs = {"MIG": [rng.random(3 - lost.get(i, 0)) for i in range(len(BETA))]}
    save_profiles(UNUSED, runs, BETA)
    assert texts([shown[0].axes[0]._left_title])[0].startswith(f"MIG{told}")
    assert_tidy(shown[0])


def test_profiles_of_many_settings_say_the_least_and_the_most(shown):
    runs = {"MIG": [np.linspace(0, 1, 3 + i % 2) for i in range(len(MANY))]}
    save_profiles(UNUSED, runs, MANY)
    assert texts([shown[0].axes[0]._left_title]) == ["MIG (n = 3 to 4)"]


# Files


def save_all(folder):
    """Every figure once, of names that look like mathematics."""
    a, b = "$a_{$", "\\frac"
    runs, matrix, points = [Setting(a, 1.0), Setting(b, 2.0)], np.eye(2), np.arange(6).reshape(3, 2)
    table = members(runs, 3)
    shares = pd.DataFrame([[0.5, 0.3, 0.2]], [a], ["setting", "seed", "rest"])
    line = curves(records([100, 200, 300], 5.0))
    pictures = np.random.default_rng(0).random((1, 2, 3, 8, 8, 1))
    save_image_grid(folder / "a.png", pictures[0], row_labels=[a, b])
    save_loss_curves(folder / "b.png", line)
    save_kl_per_latent(
        folder / "c.png", np.arange(3.0), np.ones((3, 2)), np.ones(2), np.ones(2, bool)
    )
    save_matrix(folder / "d.png", matrix, [a, b], inactive=np.zeros(2, bool), label=a)
    save_best_latents(folder / "e.png", matrix, np.ones(2), [a, b])
    save_latent_against_factor(
        folder / "f.png", matrix[points % 2].max(2), points, [(0, 0)], [a], UNITS
    )
    save_score_curves(folder / "g.png", {a: line["nll"]["train"]})
    save_rate_distortion(folder / "h", table, runs)
    save_scores(folder / "β=0.5", table, runs, intervals(table, runs, ["mig"]), {}, a)
    save_kl_spectrum(folder / "j", {s.label: np.ones((2, 3)) for s in runs}, runs, a)
    known = pd.DataFrame({"setting": table["setting"], a: table["mig"]})
    save_factor_scores(folder / "k", known, runs, a, b)
    save_agreement(folder / "l", correlations(3).set_axis([a, b, "c"], axis=1), 6)
    save_variance_split(folder / "m", shares, [0.9])
    save_learning_curves(folder / "n", {a: [line]}, runs)
    save_matched_traversals(
        folder / "o", traversals((1, 2, 3, 8, 8, 1)), [a], [a, b], [-1.0, 0.0, 1.0],
        [["reference", "r .2"]], np.array([[False, True]]),
    )  # fmt: skip


def test_files_are_one_column_wide_in_one_format_or_both(tmp_path):
    save_all(tmp_path / "new")
    assert not plt.get_fignums()
    files = {path.name: path for path in (tmp_path / "new").iterdir()}
    both = ("h", "β=0.5", *"jklmno")
    assert set(files) == {f"{name}.png" for name in (*"abcdefg", *both)} | {
        f"{name}.pdf" for name in both
    }
    for path in (path for path in files.values() if path.suffix == ".png"):
        with Image.open(path) as picture:
            assert picture.width == pytest.approx(style.COLUMN_INCHES * 300, abs=2)
            assert picture.info["dpi"] == pytest.approx((300, 300), abs=1)
            assert np.asarray(picture.convert("L")).std() > 10
            height = picture.height / 300
        if path.name.replace(".png", ".pdf") in files:
            pdf = path.with_suffix(".pdf").read_bytes()
            page = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", pdf)
            assert page
            assert float(page[1]) == pytest.approx(style.COLUMN_INCHES * 72)
            assert height == pytest.approx(float(page[2]) / 72, abs=0.01)
            assert b"FontFile2" in pdf  # TrueType
            assert b"/Type3" not in pdf
            assert b"CreationDate" not in pdf


def test_a_full_disk_is_told_by_the_figure_and_leaves_the_one_before(tmp_path, monkeypatch):
    def full(self, file, *_, **__):
        file.write(b"a part")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    monkeypatch.setattr(Image.Image, "save", full)
    images = np.zeros((2, 3, 4, 4, 1), np.float32)
    calls = {
        "a.png": lambda: style.save(plt.figure(), tmp_path / "a"),
        "samples.png": lambda: save_samples(tmp_path, images[0]),
        "b.gif": lambda: run._save_gif(tmp_path / "b.gif", [Image.new("L", (2, 2))], [9]),
    }
    for name, call in calls.items():
        (tmp_path / name).write_bytes(b"the figure before")
        with pytest.raises(OSError, match="No space left") as error:
            call()
        assert str(error.value).endswith(f"device: '{tmp_path / name}'")
        assert (tmp_path / name).read_bytes() == b"the figure before"
    assert {path.name for path in tmp_path.iterdir()} == set(calls)
    plt.close("all")
