"""Figures of scores show the numbers that they are given, and nothing is cut off."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from bvae_jax.plots import scores as score_plots
from bvae_jax.plots import style

UNUSED = Path("unused")
DSPRITES = ("shape", "scale", "orientation", "x", "y")
LONG = [f"a_rather_long_name_{number}" for number in range(12)]


@pytest.fixture
def shown(monkeypatch):
    """The figures that were saved, kept open for a look at their contents."""
    figures = []
    monkeypatch.setattr(style, "save", lambda figure, path: figures.append(figure))
    yield figures
    plt.close("all")


def texts(artists):
    return [artist.get_text() for artist in artists]


def boxes(artists):
    return [artist.get_window_extent() for artist in artists if artist.get_text()]


def assert_all_inside(figure):
    figure.draw_without_rendering()
    drawn = figure.get_tightbbox()
    assert drawn.x0 > -0.01
    assert drawn.y0 > -0.01
    assert drawn.x1 < figure.get_figwidth() + 0.01
    assert drawn.y1 < figure.get_figheight() + 0.01
    assert figure.get_figwidth() == style.COLUMN_INCHES


def assert_apart(artists):
    found = boxes(artists)
    for number, box in enumerate(found):
        assert not any(box.overlaps(other) for other in found[number + 1 :])


def draw_matrix(matrix, names, dead=(), **settings):
    marks = np.isin(np.arange(len(matrix)), dead)
    score_plots.save_matrix(UNUSED, matrix, names, dead=marks, label="I(z; v) (nats)", **settings)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[(0.0, ".00"), (0.441, ".44"), (0.999, "1.00"), (1.1, "1.10"), (-0.001, ".00")],
        *[(-0.3, "-.30"), (9.99, "9.99"), (10.04, "10"), (123.4, "123")],
    ],
)
def test_numbers_are_short(value, text):
    assert style.short_number(value) == text


def test_matrix_shows_every_number_in_its_cell(shown):
    matrix = np.array([[1.1, 0.0], [0.25, np.nan], [0.004, 0.5]])
    draw_matrix(matrix, ("shape", "scale"), dead=[1], title="seed 3")
    axes, bar = shown[0].axes
    cells = {text.get_position(): text for text in axes.texts}
    expected = {(0, 0): "1.10", (1, 0): ".00", (0, 1): ".25", (0, 2): ".00", (1, 2): ".50"}
    assert {place: text.get_text() for place, text in cells.items()} == expected
    assert (cells[0, 0].get_color(), cells[1, 0].get_color()) == ("white", "black")
    picture = axes.images[0]
    np.testing.assert_array_equal(picture.get_array().filled(np.nan), matrix)
    assert picture.get_clim() == (0, 1.1)
    assert to_hex(picture.cmap(np.ma.masked)) == "#cccccc"
    assert texts(axes.get_yticklabels()) == ["z0", "z1 (dead)", "z2"]
    assert [label.get_color() for label in axes.get_yticklabels()] == ["black", "0.5", "black"]
    (hatched,) = axes.patches
    assert (hatched.get_y(), hatched.get_height()) == (0.5, 1)
    assert hatched.get_hatch()
    assert texts(axes.get_xticklabels()) == ["shape", "scale"]
    assert (axes.get_title(), axes.get_ylabel()) == ("seed 3", "latent")
    assert bar.get_xlabel() == "I(z; v) (nats)"
    assert_all_inside(shown[0])


def test_matrix_of_many_latents_shows_the_largest(shown):
    matrix = np.random.default_rng(0).random((50, 5))
    matrix[7] = np.nan
    matrix[:, 2] = np.nan
    draw_matrix(matrix, DSPRITES, dead=range(0, 50, 3))
    axes = shown[0].axes[0]
    top = np.sort(np.argsort(-np.delete(matrix, 2, 1).max(axis=1))[:20])
    wanted = [f"z{j} (dead)" if j % 3 == 0 else f"z{j}" for j in top]
    assert texts(axes.get_yticklabels()) == wanted
    np.testing.assert_array_equal(axes.images[0].get_array().filled(np.nan), matrix[top])
    assert axes.get_ylabel() == "20 of 50 latents (largest maxima)"
    assert_all_inside(shown[0])
    assert_apart([*axes.get_yticklabels(), *axes.get_xticklabels()])
    assert_apart(axes.texts)


def test_matrix_in_another_order(shown):
    matrix = np.arange(8.0).reshape(4, 2)
    draw_matrix(matrix, ("x", "y"), dead=[2], order=[3, 2, 0])
    axes = shown[0].axes[0]
    assert texts(axes.get_yticklabels()) == ["z3", "z2 (dead)", "z0"]
    np.testing.assert_array_equal(axes.images[0].get_array(), matrix[[3, 2, 0]])
    assert axes.patches[0].get_y() == 0.5
    assert axes.get_ylabel() == "latent"


@pytest.mark.parametrize("latents", [1, 2, 10])
@pytest.mark.parametrize("names", [("shape",), DSPRITES, LONG])
def test_matrix_names_do_not_touch(shown, latents, names):
    draw_matrix(np.full((latents, len(names)), 2.75), names, dead=[0])
    axes = shown[0].axes[0]
    assert_all_inside(shown[0])
    rotated = {label.get_rotation() for label in axes.get_xticklabels()}
    assert rotated == {90 if names is LONG else 0}
    assert_apart(axes.get_xticklabels())
    assert_apart(axes.texts)
    assert len(axes.texts) == latents * len(names)
    height = axes.get_window_extent().height / shown[0].dpi
    assert height == pytest.approx(max(0.45, 0.15 * latents), abs=0.02)


@pytest.mark.parametrize("value", [np.nan, 0.0, -1.0])
def test_matrix_without_a_positive_number(shown, value):
    draw_matrix(np.full((2, 13), value), [*LONG, "y"])
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
    score_plots.save_best_latents(UNUSED, matrix, np.array([1.0, 2.0]), ("shape", "x"))
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
    assert_all_inside(shown[0])
    assert_apart([*axes.texts, *axes.get_yticklabels()])


def test_best_latents_where_there_is_little(shown):
    score_plots.save_best_latents(UNUSED, np.array([[0.5]]), np.array([2.0]), ("shape",))
    filled, outlined = bars(shown[0].axes[0])
    assert filled == outlined == [(1, 0, 0.25)]
    assert texts(shown[0].axes[0].texts) == ["shape", "gap .25"]

    matrix = np.array([[0.0, np.nan, 0.7], [0.0, np.nan, 1.0]])
    score_plots.save_best_latents(UNUSED, matrix, np.array([0.0, 1.0, 1.0]), ("a", "b", "c"))
    (axes,) = shown[1].axes
    assert texts(axes.texts) == ["a", "H(v) = 0", "b", "gap nan", "c", "gap .30"]
    filled, _ = bars(axes)
    assert [width for _, _, width in filled if np.isfinite(width)] == [1.0, 0.7]


def test_best_latents_of_many_factors(shown):
    matrix = np.random.default_rng(0).random((50, 12))
    score_plots.save_best_latents(UNUSED, matrix, np.ones(12), LONG)
    (axes,) = shown[0].axes
    assert len(axes.get_yticklabels()) == 36
    assert_all_inside(shown[0])
    assert_apart([*axes.texts, *axes.get_yticklabels()])


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
    score_plots.save_latent_against_factor(UNUSED, codes, factors, pairs, ("shape", LONG[0]))
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
    assert names == ["shape\n(class index)", *["a_rather…ng_name_0\n(class index)"] * 2]
    assert_all_inside(shown[0])


def test_latent_against_a_factor_of_one_value(shown):
    codes, factors = np.array([[1.0], [3.0]]), np.ones((2, 1), int)
    for n in (1, 2):
        score_plots.save_latent_against_factor(UNUSED, codes[:n], factors[:n], [(0, 0)], ("x",))
        (axes,) = shown[-1].axes
        (line,) = axes.get_lines()
        assert line.get_marker() == "o"
        np.testing.assert_array_equal(line.get_xydata(), [[1, n]])
        assert axes.get_xticks() == [1]
        segment = axes.collections[1].get_segments()[0]
        np.testing.assert_allclose(segment, [[1, 1 + 0.1 * (n - 1)], [1, 1 + 1.9 * (n - 1)]])
        assert_all_inside(shown[-1])


@pytest.mark.parametrize("pairs", [[], [(0, 0)] * 7])
def test_latent_against_factor_wants_few_pairs(pairs):
    with pytest.raises(ValueError, match=f"got {len(pairs)}, wanted 1 to 6"):
        score_plots.save_latent_against_factor(
            UNUSED, np.zeros((3, 1)), np.zeros((3, 1), int), pairs, ("x",)
        )


def test_score_curves_show_the_scores(shown):
    nan = np.nan
    curves = {
        "mig": [[10, 20, 30], [0.1, 0.2, nan]],
        "active_units": [[10, 20, 30], [3, 1, 5]],
        "irs (nan)": [[10, 20], [nan, nan]],
        "sap": [[20], [1.0 + 1e-9]],
    }
    given = {name.split()[0]: np.array(curve, float) for name, curve in curves.items()}
    score_plots.save_score_curves(UNUSED, given)
    inside, beyond = shown[0].axes
    mig, irs, sap = inside.get_lines()
    np.testing.assert_array_equal(mig.get_xydata(), [[10, 0.1], [20, 0.2]])
    np.testing.assert_array_equal(sap.get_xdata(), [20])
    assert sap.get_marker() == "o"
    assert len(irs.get_xdata()) == 0
    (units,) = beyond.get_lines()
    np.testing.assert_array_equal(units.get_xydata(), [[10, 3], [20, 1], [30, 5]])
    assert texts(shown[0].legends[0].get_texts()) == list(curves)
    assert (inside.get_ylabel(), beyond.get_xlabel()) == ("score", "training steps")
    assert "[0, 1]" in beyond.get_ylabel()


@pytest.mark.parametrize("count", [1, 3, 40])
def test_score_curves_of_many_scores(shown, count):
    names = [f"{name}/a_long_name" for name in (*DSPRITES, *LONG[:9])]
    columns = np.linspace(0, 1, count * 14).reshape(count, 14).T
    steps = 1000.0 * np.arange(count)
    curves = {n: np.stack([steps, values]) for n, values in zip(names, columns, strict=True)}
    score_plots.save_score_curves(UNUSED, curves)
    (axes,) = shown[0].axes
    lines = axes.get_lines()
    looks = {(line.get_color(), line.get_linestyle()) for line in lines}
    assert len(looks) == len(lines) == 14
    assert {line.get_marker() in ("", "None") for line in lines} == {count == 40}
    assert_all_inside(shown[0])
    (legend,) = shown[0].legends
    assert legend.get_window_extent().y1 < axes.get_tightbbox().y0
    assert_apart(legend.get_texts())
    assert_apart(axes.get_xticklabels())
    height = axes.get_window_extent().height / shown[0].dpi
    assert height == pytest.approx(1.7, abs=0.02)


def test_score_curves_with_no_panel_for_what_is_not_there(shown):
    score_plots.save_score_curves(UNUSED, {"active_units": np.array([[1.5e6], [4.0]])})
    (axes,) = shown[0].axes
    shown[0].draw_without_rendering()
    assert texts(axes.get_xticklabels()) == ["1.5M"]
    assert axes.get_ylim()[1] > 4
    with pytest.raises(ValueError, match="got none"):
        score_plots.save_score_curves(UNUSED, {})


def test_names_are_no_mathematics(tmp_path):
    names = ("$a_{$", "$x^2$", "\\frac")
    matrix, factors = np.eye(3), np.arange(9).reshape(3, 3)
    score_plots.save_matrix(tmp_path / "a.png", matrix, names, dead=np.zeros(3, bool), label="$_{$")
    score_plots.save_best_latents(tmp_path / "b.png", matrix, np.ones(3), names)
    score_plots.save_latent_against_factor(tmp_path / "c.png", matrix, factors, [(0, 0)], names)
    score_plots.save_score_curves(tmp_path / "d.png", {"$a_{$": np.array([[1.0], [0.5]])})
    assert len(list(tmp_path.iterdir())) == 4


def test_files_are_one_column_wide(tmp_path):
    matrix, names = np.eye(3), ("a", "b", "c")
    folder = tmp_path / "new"
    score_plots.save_matrix(
        folder / "matrix.png", matrix, names, dead=np.zeros(3, bool), label="importance"
    )
    score_plots.save_best_latents(folder / "best.png", matrix, np.ones(3), names)
    factors = np.arange(9).reshape(3, 3)
    score_plots.save_latent_against_factor(folder / "l.png", matrix, factors, [(0, 0)], names)
    score_plots.save_score_curves(folder / "scores.png", {"a": np.array([[1.0], [4.0]])})
    assert not plt.get_fignums()
    files = list(folder.iterdir())
    assert len(files) == 4
    for path in files:
        with Image.open(path) as picture:
            assert picture.width == pytest.approx(style.COLUMN_INCHES * 300, abs=2)
            assert picture.info["dpi"] == pytest.approx((300, 300), abs=1)
