"""Figures of a comparison show the numbers that they are given, in order and apart."""

import re
from itertools import combinations, pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

from bvae_jax.plots import comparison, style
from bvae_jax.plots.comparison import (
    Setting,
    around,
    places,
    save_factor_scores,
    save_kl_spectrum,
    save_learning_curves,
    save_rate_distortion,
    save_scores,
)
from bvae_jax.plots.matrices import save_agreement, save_matched_traversals, save_variance_split
from bvae_jax.plots.run import GAP
from bvae_jax.runs.loggers import curves

SCORES = (
    *("factor_vae_score", "mig", "mig_sup", "jemmig", "sap_r2", "dci", "modularity", "irs", "med"),
    *("unsupervised", "active_units", "nll", "kl", "elbo"),
)
FACTORS = ("shape", "scale", "orientation", "x", "y")
BETA = [Setting(f"β = {b}", float(b)) for b in (1, 2, 4, 6, 8, 16)]
LONG = [
    Setting(f"objective = {name}, β = {b}", None)
    for name in ("beta_vae", "beta_tcvae", "factor_vae")
    for b in (1, 2, 4, 8)
]
MANY = [Setting(f"β = {b:.4g}", float(b)) for b in np.geomspace(0.1, 64, 30)]
KINDS = {
    "beta": (BETA, 5),
    "two": (BETA[:2], 3),
    "one": (BETA[2:3], 1),
    "long": (LONG, 3),
    "many": (MANY, 2),
}
every_kind = pytest.mark.parametrize(("settings", "seeds"), KINDS.values(), ids=KINDS)


@pytest.fixture
def shown(monkeypatch):
    """The figures that were saved, kept open for a look at their contents."""
    figures = []
    monkeypatch.setattr(style, "save", lambda figure, path: figures.append(figure))
    monkeypatch.setattr(Figure, "savefig", lambda *args, **options: None)
    with plt.rc_context(style.STYLE):  # of ticks that are made anew
        yield figures
    plt.close("all")


def members(settings, seeds, seed=0):
    rng = np.random.default_rng(seed)
    rows = [(s.label, number) for s in settings for number in range(seeds)]
    table = pd.DataFrame(rows, columns=["setting", "seed"])
    for name in SCORES:
        table[name] = rng.random(len(rows)) * (30 if name in ("nll", "kl") else 1)
    return table.sample(frac=1, random_state=1)  # rows in no order


def texts(artists):
    return [artist.get_text() for artist in artists]


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
    for (name, place), (other, other_place) in combinations(found, 2):
        assert not place.overlaps(other_place), (name, other)


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
    for left, right in pairwise(spread):
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


@every_kind
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
    assert texts(figure.legends[0].get_texts())[:-1] == [s.label for s in settings]
    assert axes.texts
    for text in axes.texts:
        assert -float(text.get_text().replace("−", "-")) == pytest.approx(sum(text.get_position()))
    paths = [line for line in axes.lines if len(line.get_xdata()) == 20]
    assert len(paths) == (0 if settings is LONG else len(settings) - 1)


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
    save_scores(tmp_path / "f", table, settings, given, known, "β")
    (figure,) = shown
    assert_tidy(figure)
    assert len(figure.axes) == len(chosen)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    words = [title.replace("\n", " ").split(" (")[0] for title in titles]
    assert words == [score.replace("_", " ").replace("/", " ") for score in chosen]
    assert {"kl (nats per image)", "active units (latents)"} <= {
        title.replace("\n", " ") for title in titles
    }
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
    assert texts(figure.legends[0].get_texts())[-2:] == ["raw pixels", "PCA"]
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


@pytest.mark.parametrize("count", [1, 20])
def test_scores_of_any_number(shown, tmp_path, count):
    names = [f"a_rather_long_name_of_{number}" for number in range(count)]
    table = members(BETA[:3], 2).assign(**dict.fromkeys(names, 0.5))
    baselines = {f"the baseline number {n}": {names[0]: n / 8} for n in range(8)}
    save_scores(tmp_path / "f", table, BETA[:3], intervals(table, BETA[:3], names), baselines, "β")
    assert len(shown[0].axes) == count
    assert len(shown[0].legends[0].get_texts()) == 2 + 8
    assert_tidy(shown[0])


@every_kind
def test_kl_spectrum(shown, tmp_path, settings, seeds):
    rng = np.random.default_rng(0)
    kl = {s.label: 10 ** rng.uniform(-6, 1, (seeds, 10)) for s in settings}
    save_kl_spectrum(tmp_path / "f", kl, settings, "β", 0.01)
    (figure,) = shown
    axes, bar = figure.axes
    assert_tidy(figure)
    assert (axes.get_yscale(), axes.get_ylabel()) == ("log", "KL of a latent (nats)")
    assert bar.get_xlim() == (0.5, 10.5)
    lines = [line for line in axes.lines if line.get_linestyle() == "-"]
    assert len(lines) == 10
    for rank, line in enumerate(lines):
        means = [np.mean([sorted(run)[::-1][rank] for run in kl[s.label]]) for s in settings]
        np.testing.assert_allclose(line.get_ydata(), np.maximum(means, 0.01 / 30))
        np.testing.assert_allclose(line.get_xdata(), places(settings))
    dots = [line.get_ydata() for line in axes.lines if line.get_alpha() == 0.5]
    wanted = np.maximum(np.concatenate([k.ravel() for k in kl.values()]), 0.01 / 30)
    np.testing.assert_allclose(np.sort(np.concatenate(dots)), np.sort(wanted))
    (threshold,) = (line for line in axes.lines if line.is_dashed())
    assert set(threshold.get_ydata()) == {0.01}
    assert texts(figure.legends[0].get_texts()) == ["inactive: KL ≤ 0.01 nats"]


def test_kl_spectrum_of_unlike_runs(shown, tmp_path):
    kl = {"β = 1": np.array([[0.5, np.nan, 2.0]]), "β = 2": np.array([[3.0], [1.0]])}
    save_kl_spectrum(tmp_path / "f", kl, BETA[:3], "β", 0.01)
    lines = [line for line in shown[0].axes[0].lines if line.get_linestyle() == "-"]
    found = np.array([line.get_ydata() for line in lines])
    nan = np.nan
    np.testing.assert_array_equal(found, [[2, 2, nan], [0.5, nan, nan], [nan, nan, nan]])
    save_kl_spectrum(tmp_path / "f", {"β = 1": np.zeros((2, 1))}, BETA[:1], "β", 0.01)
    save_kl_spectrum(tmp_path / "f", {"β = 1": np.ones((2, 64))}, BETA[:1], "β", 0.01)
    for figure in shown:
        assert_tidy(figure)


@every_kind
def test_factor_scores(shown, tmp_path, settings, seeds):
    table = members(settings, seeds)
    shares = pd.DataFrame(table[["setting", "seed", *SCORES[:5]]].to_numpy())
    shares.columns = ["setting", "seed", *FACTORS]
    shares[list(FACTORS)] = shares[list(FACTORS)].astype(float)
    shares.loc[0, "x"] = np.nan
    save_factor_scores(tmp_path / "f", shares, settings, "β", "share of the entropy")
    (axes,) = shown[0].axes
    assert_tidy(shown[0])
    lines = {line.get_label(): line for line in axes.lines if line.get_linestyle() == "-"}
    assert tuple(lines) == FACTORS
    means = pd.DataFrame(shares.groupby("setting").mean()).loc[[s.label for s in settings]]
    for name, line in lines.items():
        np.testing.assert_allclose(line.get_ydata(), means[name])
    assert len({line.get_color() for line in lines.values()}) == 5
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("β", "share of the entropy")
    assert axes.get_ylim()[0] <= 0


def test_names_are_no_mathematics(tmp_path):
    settings = [Setting("only = $a_{$", None), Setting("only = $b^{$", None)]
    shares = members(settings, 2)[["setting"]].assign(**{"$a_{$": 0.5, "$x^2$": 0.1})
    save_factor_scores(tmp_path / "f", shares, settings, "$\\only_{$", "share of $y_{$")
    assert len(list(tmp_path.iterdir())) == 2


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
        assert [text.replace("…", "") for text in texts(labels)] == list(table)
    assert len(axes.texts) == (0 if count == 30 else table.notna().to_numpy().sum())
    cell = axes.bbox.width / count
    for text in axes.texts:
        column, row = (int(place) for place in text.get_position())
        assert float(text.get_text()) == pytest.approx(table.iloc[row, column], abs=0.0051)
        assert text.get_window_extent().width <= cell
    if count > 10:
        assert axes.bbox.height == pytest.approx(axes.bbox.width, rel=0.02)  # square


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
    remarks = [text.get_position()[1] for text in axes.texts if text.get_text() == "does not vary"]
    assert remarks == ([3] if count > 1 else [])
    assert texts(axes.get_yticklabels()) == list(SCORES[:count])
    marks = {round(y.mean()): x[0] for x, y in (p.T for p in axes.collections[0].get_segments())}
    assert marks == {row: x for row, x in enumerate(limits) if row != 3}
    *sources, noise = texts(shown[0].legends[0].get_texts())
    assert sources == ["setting", "seed", "rest"]
    assert "noise alone" in noise
    assert "share of the variance" in axes.get_xlabel()


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
    assert texts(figure.legends[0].get_texts()) == [
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
    assert texts(shown[0].legends[0].get_texts()) == ["β = 1", "β = 2"]
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
    notes = [[f"r .{i}{j}\nKL {i}.{j}0" for j in range(count)] for i in range(latents)]
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
    gap = GAP
    tops = axes.get_yticks() - height / 2
    assert len(tops) == latents * count
    for (latent, setting, column), top in zip(
        np.ndindex(latents, count, columns), np.repeat(tops, columns), strict=True
    ):
        left = column * (width + gap)
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
    remarks = [text for text in axes.texts if text.get_text() == "no such latent in use"]
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


def save_all(folder):
    table = members(BETA, 3)
    save_rate_distortion(folder / "a", table, BETA)
    save_scores(folder / "β=0.5", table, BETA, intervals(table, BETA, ["mig"]), {}, "β")
    save_kl_spectrum(folder / "c", {s.label: np.ones((2, 3)) for s in BETA}, BETA, "β", 0.01)
    save_factor_scores(folder / "d", pd.DataFrame(table[["setting", "mig"]]), BETA, "β", "share")
    save_agreement(folder / "e", correlations(3), 6)
    shares = pd.DataFrame([[0.5, 0.3, 0.2]], ["mig"], ["setting", "seed", "rest"])
    save_variance_split(folder / "f", shares, [0.9])
    runs = {s.label: [curves(records([100, 200, 300], 5.0))] for s in BETA}
    save_learning_curves(folder / "g", runs, BETA)
    save_matched_traversals(
        folder / "h", traversals((1, 2, 3, 8, 8, 1)), ["x"], ["a", "b"], [-1.0, 0.0, 1.0],
        [["reference", "r .2"]], np.array([[False, True]]),
    )  # fmt: skip


def test_files_are_one_column_wide_in_both_formats(tmp_path):
    save_all(tmp_path / "new")
    assert not plt.get_fignums()
    files = {path.name: path for path in (tmp_path / "new").iterdir()}
    names = ("a", "β=0.5", "c", "d", "e", "f", "g", "h")
    assert set(files) == {f"{name}.{kind}" for name in names for kind in ("png", "pdf")}
    for name in names:
        with Image.open(files[f"{name}.png"]) as picture:
            assert picture.width == pytest.approx(style.COLUMN_INCHES * 300, abs=2)
            assert np.asarray(picture.convert("L")).std() > 10
        pdf = files[f"{name}.pdf"].read_bytes()
        box_of_page = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", pdf)
        assert box_of_page
        assert float(box_of_page[1]) == pytest.approx(style.COLUMN_INCHES * 72)
        assert picture.height / 300 == pytest.approx(float(box_of_page[2]) / 72, abs=0.01)
        assert b"FontFile2" in pdf  # TrueType
        assert b"/Type3" not in pdf
        assert b"CreationDate" not in pdf
