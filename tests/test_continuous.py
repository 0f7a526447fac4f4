"""Factors that are numbers: what is declared, what each metric makes of them, and what it costs."""

import math
from typing import Any

import jax
import numpy as np
import pytest
from metric_points import CHEAP
from scipy.stats import vonmises
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.feature_selection import mutual_info_regression
from sklearn.linear_model import LinearRegression
from threadpoolctl import threadpool_limits

from bvae_jax.config import ScoreConfig
from bvae_jax.continuous import Numbers, binned, in_words, periods, targets
from bvae_jax.data.base import from_arrays
from bvae_jax.data.catalogue import describe
from bvae_jax.data.npz import open_npz
from bvae_jax.data.variants import only
from bvae_jax.errors import UserError
from bvae_jax.metrics import METRICS
from bvae_jax.metrics.codes import Codes, draw, read_codes
from bvae_jax.metrics.mcc import mcc
from bvae_jax.metrics.regression import (
    explained,
    explained_variance,
    nearest_information,
    upright,
)
from bvae_jax.metrics.scoring import score, score_all
from bvae_jax.metrics.trees import regression_trees
from bvae_jax.runs.codes import WRITERS
from bvae_jax.runs.encode import with_factors

N, TRAIN, TURN = 900, 600, 360.0
NAMES = ("shape", "x", "angle")
DECLARED = "x,angle=360"
RNG = np.random.default_rng(0)
VALUES = np.stack([RNG.integers(0, 3, N), RNG.uniform(2, 5, N), RNG.uniform(0, TURN, N)], axis=1)
ANGLE = np.deg2rad(VALUES[:, 2])
TRUE = np.stack([VALUES[:, 0] - 1, VALUES[:, 1] - 3.5, np.cos(ANGLE)], axis=1)
NOISE = RNG.standard_normal((N, 3))
MIXED = TRUE @ np.array([[1, 0.3, 0], [0, 1, 0.4], [0.2, 0, 1]]) + 0.2 * NOISE
FORMS = sorted(name for name, metric in METRICS.items() if "numbers" in metric.takes)
BINNED = sorted(n for n, m in METRICS.items() if "factors" in m.takes and n not in FORMS)
CLASSES = np.array([math.nan] * 3)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with threadpool_limits(1):
        yield


def given(codes, values: Any = VALUES, declared=DECLARED):
    """Everything that a metric takes of codes whose factors have these values."""
    points = Codes(codes, values, factor_names=NAMES).declared(declared)
    numbers = None
    if points.values is not None:
        numbers = Numbers(points.periods(), points.values[:TRAIN], points.values[TRAIN:])
    return {
        "codes": codes[:TRAIN],
        "factors": points.factors[:TRAIN],
        "codes_test": codes[TRAIN:],
        "factors_test": points.factors[TRAIN:],
        "logvars": np.full((TRAIN, codes.shape[1]), -5.0),
        "factor_sizes": None,
        "kl": None,
        "key": jax.random.key(0),
        "numbers": numbers,
    }


def found(name, arrays, **settings):
    metric = METRICS[name]
    return metric.function(*(arrays[k] for k in metric.takes), **(CHEAP.get(name, {}) | settings))


def headline(name, arrays, **settings):
    return found(name, arrays, **settings)[METRICS[name].headline]


# Declarations.


def test_a_declaration_says_which_factors_and_their_periods():
    of = periods(" x , angle=360", NAMES)
    np.testing.assert_array_equal(of, [math.nan, 0, 360])
    np.testing.assert_array_equal(periods("1,2=0.5", NAMES), [math.nan, 0, 0.5])
    np.testing.assert_array_equal(periods("a=b=3,a", ("a=b", "a")), [3, 0])
    np.testing.assert_array_equal(periods("a=b", ("a=b", "a")), [0, math.nan])
    for nothing in ("", "none", " none "):
        assert np.isnan(periods(nothing, NAMES)).all()
    assert in_words(of, NAMES) == DECLARED
    assert in_words(periods("1,0=0.1", ("a=b", "c,d")), ("a=b", "c,d")) == "0=0.10000000000000001,1"
    for names in ((" x", "y "), ("none", "x"), ("a,b", "c=d"), ("1", "0")):
        for text in ("0", "1=2", "0,1=2"):
            of = periods(text, names)
            np.testing.assert_array_equal(periods(in_words(of, names), names), of)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("y", "got 'y', wanted names of factors: shape, x, angle"),
        ("3", "got '3', wanted names"),
        ("x,x", "got 'x' twice"),
        ("x=0", "the period '0' of 'x', wanted a number above 0"),
        ("angle=-360", "the period '-360' of 'angle', wanted a number above 0"),
        ("angle=", "the period '' of 'angle'"),
        ("angle=nan", "the period 'nan'"),
        ("angle=inf", "the period 'inf'"),
        ("angle=round", "the period 'round'"),
    ],
)
def test_a_wrong_declaration_is_one_line(declared, message):
    with pytest.raises(UserError, match=message) as error:
        Codes(NOISE, VALUES, factor_names=NAMES).declared(declared)
    assert "\n" not in str(error.value)


def test_numbers_become_bins_by_the_rule():
    few = np.array([7.0, -1, 0.5, 7])
    np.testing.assert_array_equal(binned(few), [2, 0, 1, 2])
    value = np.append(RNG.uniform(-3, 3, 99), [-3, 3])
    np.testing.assert_array_equal(binned(value), np.minimum((value + 3) / 6 * 20, 19).astype(int))
    np.testing.assert_array_equal(binned(np.arange(20.0) ** 2), np.arange(20))
    grid = np.arange(41.0)  # half of its values lie on edges
    for unit, low in ((1 / 3, 0.3), (0.1, 0.3), (7.7, 0.3), (7 / 9, 100)):
        np.testing.assert_array_equal(binned(grid * unit + low), binned(grid))
    angle = RNG.uniform(0, TURN, 500)
    classes = binned(angle, TURN)
    np.testing.assert_array_equal(classes, angle // 18)
    np.testing.assert_array_equal(binned(angle - 5 * TURN, TURN), classes)
    np.testing.assert_array_equal(binned(angle + 36, TURN), (classes + 2) % 20)
    ends = np.array([-1e-15, 0, TURN, TURN - 1e-12])  # the same angle, but for its last digits
    np.testing.assert_array_equal(binned(np.append(angle, ends), TURN)[-4:], 0)
    np.testing.assert_array_equal(binned(np.append(ends, 18), TURN), [0, 0, 0, 0, 1])


FLAT = np.full(N, 3.0)
OUTLIER = np.where(np.arange(N) == 7, 1e4, VALUES[:, 1])


@pytest.mark.parametrize(
    ("declared", "column", "remark"),
    [
        ("2=360", np.deg2rad(VALUES[:, 2]), "in one of 20 bins (they span 6."),
        ("2=90", VALUES[:, 2], "times the period 90: see whether"),
        ("2=360", np.arange(N) % 40, "values of angle span 39 of the period 360: see"),
        ("2", OUTLIER, "899 of 900 values of angle fall in one of 20 bins of its range from 2"),
        ("2", FLAT, "angle has one value, and is left out"),
        ("2=40", np.arange(N) % 40, ""),
        ("2=2", np.arange(N) % 2, ""),
        ("2=360", VALUES[:, 2] - 180, ""),
        ("2=360", np.linspace(0, 360, N), ""),
        ("2=360", np.linspace(0, 367, N), ""),
        ("2", VALUES[:, 1], ""),
    ],
)
def test_an_odd_period_or_an_outlier_is_said(declared, column, remark):
    values = np.column_stack([VALUES[:, 0], VALUES[:, 0], column])
    points = Codes(TRUE, values, factor_names=NAMES).declared(declared)
    said = [
        line for line in points.remarks() if line.split(" ")[0] != "numbers:" and "few" not in line
    ]
    assert len(said) == bool(remark)
    assert all(remark in line for line in said)


@pytest.mark.parametrize(
    ("scale", "declared", "message"),
    [
        (1e300, "x", "x has values up to 5e.300 in size, wanted 1e-150 to 1e.150: choose another"),
        (-1e300, "x", "x has values up to 5e.300 in size"),
        (1e-300, "x", "x has values up to .*e-300 in size"),
        (1, "x=1e-320", "the period '1e-320' of 'x', wanted a number"),
        (1, ["x"], r"got \['x'\], wanted a text"),
        (1, "7", "got '7', wanted names of factors: .*; or their numbers, 0 to 2"),
    ],
)
def test_what_cannot_be_scored_is_one_line(scale, declared, message):
    values = VALUES.copy()
    values[:, 1] = np.linspace(2, 5, N) * scale
    points = Codes(TRUE, values, factor_names=NAMES)
    with pytest.raises(UserError, match=message):
        points.declared(ScoreConfig(continuous=declared).continuous)


def test_codes_with_numbers_keep_values_and_count_in_bins():
    points = Codes(NOISE, VALUES, factor_names=NAMES, factor_sizes=np.array([3, 9, 9]))
    assert "x has 900 values" in " / ".join(points.remarks())
    assert "--continuous x" in " / ".join(points.remarks())
    declared = points.declared(DECLARED)
    assert declared.factors.dtype == np.int32
    np.testing.assert_array_equal(declared.factors[:, 0], VALUES[:, 0])
    np.testing.assert_array_equal(declared.factors[:, 2], VALUES[:, 2] // 18)
    np.testing.assert_array_equal(declared.factor_sizes, [3, 20, 20])
    np.testing.assert_array_equal(declared.known(), VALUES)
    np.testing.assert_array_equal(declared.frame()["angle"], VALUES[:, 2])
    assert declared.frame()["shape"].dtype.kind == "i"
    assert any("x,angle=360: metrics that have no form" in r for r in declared.remarks())
    again = declared.declared("x,angle=180")
    np.testing.assert_array_equal(again.factors[:, 2], VALUES[:, 2] % 180 // 9)
    classes = declared.declared("none")
    assert (classes.values, classes.continuous) == (None, "")
    drawn = draw(declared, 100, 50, jax.random.key(0)).fitted
    rows = np.array([np.flatnonzero((row == NOISE).all(axis=1))[0] for row in drawn["codes"]])
    np.testing.assert_array_equal(drawn["numbers"].values, VALUES[rows])
    rows = np.array([np.flatnonzero((row == NOISE).all(axis=1))[0] for row in drawn["codes_test"]])
    np.testing.assert_array_equal(drawn["numbers"].values_test, VALUES[rows])


def test_points_to_test_on_are_measured_from_those_to_fit_on():
    numbers = Numbers(np.array([math.nan, 0, TURN]), VALUES, VALUES + 1)
    fit, test = targets(numbers), targets(numbers, test=True)
    assert list(fit) == list(test) == [1, 2]
    np.testing.assert_allclose(test[1] - fit[1], 1 / VALUES[:, 1].std())
    turned = np.deg2rad(VALUES[:, 2] + 1)
    np.testing.assert_allclose(test[2], np.stack([np.cos(turned), np.sin(turned)], axis=1))


# Laws of the metrics.

TOLERANCE = {"dci": 2e-3, "downstream": 2e-3}
"""Of trees, in single precision."""


@pytest.mark.parametrize("name", FORMS)
def test_neither_a_unit_nor_an_origin_matters(name):
    plain = headline(name, given(MIXED))
    other = VALUES * [1, -250.0, 1] + [0, 1e4, 0]
    assert headline(name, given(MIXED, other)) == pytest.approx(plain, abs=2e-3)
    turned = VALUES + np.array([0, 0, 77.7])
    abs_ = TOLERANCE.get(name, 1e-6)
    assert headline(name, given(MIXED, turned)) == pytest.approx(plain, abs=abs_)
    radians = VALUES * [1, 1, 2 * np.pi / TURN]
    declared = f"x,angle={2 * np.pi!r}"
    assert headline(name, given(MIXED, radians, declared)) == pytest.approx(plain, abs=1e-6)


@pytest.mark.parametrize("name", BINNED)
def test_what_reads_bins_minds_no_unit_and_no_turn_by_a_bin(name):
    plain = headline(name, given(MIXED))
    other = VALUES * [1, 250.0, 1] + [0, -3, 18.0]
    tolerance = 0.05 if name == "irs" else 1e-9  # it cuts class indices anew, where they begin
    assert headline(name, given(MIXED, other)) == pytest.approx(plain, abs=tolerance)


BEST = {"sap": 0.88, "dci": 0.88, "downstream": 0.82, "infomec": 0.94}
"""Of one latent for each factor, of an angle its cosine, of which trees and lines know half; a
linear SVM tells two of three classes apart."""
FLOOR = {"dci_es": (-1.0, -1.0), "downstream": (0.0, 0.2), "dci": (0, 0.1)}


@pytest.mark.parametrize("name", FORMS)
def test_perfect_codes_are_best_and_noise_is_at_the_floor(name):
    assert headline(name, given(TRUE)) == pytest.approx(BEST.get(name, 1.0), abs=0.05)
    low, high = FLOOR.get(name, (-0.01, 0.08))
    noise = found(name, given(NOISE))  # of which InfoM has a best factor by chance
    assert low <= noise["infoe" if name == "infomec" else METRICS[name].headline] <= high


@pytest.mark.parametrize("name", FORMS)
def test_no_declaration_changes_nothing_and_odd_numbers_score(name):
    arrays = given(MIXED, VALUES.astype(int) // [1, 1, 90], "")
    none = Numbers(CLASSES, VALUES[:TRAIN], VALUES[TRAIN:])
    plain = found(name, arrays)
    for key, value in found(name, arrays | {"numbers": none}).items():
        np.testing.assert_array_equal(value, plain[key])
    constant = VALUES * [1, 0, 1]
    for codes in (MIXED[:, :1], np.zeros_like(MIXED), 1e-200 * MIXED):
        scored = found(name, given(codes, constant))
        for key in (METRICS[name].headline, *METRICS[name].others):
            assert np.isfinite(scored[key]) or any(key in note for note in scored["notes"])


@pytest.mark.parametrize("name", FORMS)
def test_a_number_that_few_points_vary_in_and_an_angle_of_two_values_score(name):
    """Among few labels a number may have one value; two angles lie on a line."""
    rare, angle = np.arange(N) % 400 == 0, np.where(TRUE[:, 1] > 0, 180.0, 0.0)
    values = np.column_stack([rare, VALUES[:, 1], angle])
    assert np.isfinite(headline(name, given(TRUE, values, "shape,x,angle=360")))


def test_of_a_number_with_one_value_nothing_is_explained():
    """The mean of equal numbers may be another number by rounding."""
    for n in range(1, 50):
        assert math.isnan(explained_variance(np.full((n, 2), 0.1), np.full((n, 2), 0.1)))


# Against independent computations.


def test_r2_is_that_of_a_regression():
    for k, target in targets(given(MIXED)["numbers"]).items():
        wanted = [LinearRegression().fit(target, z).score(target, z) for z in MIXED[:TRAIN].T]
        np.testing.assert_allclose(explained(MIXED[:TRAIN], target), wanted)
        for name, key in (("sap_r2", "r2"), ("sap", "accuracy")):
            np.testing.assert_allclose(found(name, given(MIXED))[key][:, k], wanted)
    assert explained_variance(np.full((5, 1), 2.0), np.arange(5.0)[:, None]) == 0
    # Of two directions, north and south, an angle has but one number.
    turned, z = np.repeat([0, np.pi], [4, 3]), MIXED[:7]
    line = np.stack([np.cos(turned), np.sin(turned)], axis=1)
    wanted = [correlation(line[:, 0], code) ** 2 for code in z.T]
    np.testing.assert_allclose(explained(z, line), wanted)


def test_a_circle_is_turned_to_where_latents_lie_and_constant_ones_do_not_matter():
    circle = np.stack([np.cos(ANGLE), np.sin(ANGLE)], axis=1)
    for turn in (0.0, 0.7):
        z = np.cos(ANGLE - turn)[:, None] + 0.1 * NOISE[:, :1]
        fit, test = upright(np.column_stack([z, np.ones(N)]), circle, circle[:5])
        assert abs(correlation(fit[:, 0], np.cos(ANGLE - turn))) > 0.999
        np.testing.assert_allclose(np.linalg.norm(fit, axis=1), 1)
        np.testing.assert_allclose(test, fit[:5])
    of_constant, _ = upright(np.ones((N, 1)), circle, circle)
    np.testing.assert_allclose(np.linalg.norm(of_constant, axis=1), 1)
    numbers = Numbers(np.array([TURN]), VALUES[:80, 2:], VALUES[80:200, 2:])
    bins, scores = (VALUES[:, 2:] // 18).astype(int), []
    for z in (MIXED, np.column_stack([MIXED, np.ones(N)])):
        arrays = z[:80], bins[:80], z[80:200], bins[80:200], jax.random.key(0), numbers
        scored = METRICS["downstream"].function(*arrays, labels=(80,), as_published=True)
        scores.append(scored["score"])
    assert scores[1] == pytest.approx(scores[0])


def correlation(a, b):
    return np.corrcoef(a, b)[0, 1]


def test_mcc_of_an_angle_is_the_multiple_correlation_of_held_out_points():
    arrays = given(MIXED)
    scored = found("mcc", arrays)
    circle = np.stack([np.cos(ANGLE), np.sin(ANGLE)], axis=1)
    j = scored["latent"][2]
    line = LinearRegression().fit(circle[:TRAIN], MIXED[:TRAIN, j]).predict(circle[TRAIN:])
    assert scored["per_factor"][2] == pytest.approx(abs(correlation(line, MIXED[TRAIN:, j])))
    wanted = abs(correlation(VALUES[TRAIN:, 1], MIXED[TRAIN:, scored["latent"][1]]))
    assert scored["per_factor"][1] == pytest.approx(wanted)
    # An angle cut open has √6 / π; a curve without noise has a rank correlation of 1.
    even = np.arange(0, TURN, 0.4)[:, None]
    for period, code, wanted in ((TURN, even, np.sqrt(6) / np.pi), (0, np.exp(even / 50), 0.77)):
        of = Numbers(np.array([period]), even, even)
        bins = binned(even[:, 0])[:, None]
        scored = mcc(code, bins, code, bins, of)
        assert scored["score"] == pytest.approx(wanted, abs=0.01)
        assert scored["spearman"] == pytest.approx(wanted if period else 1, abs=0.01)


@pytest.mark.parametrize("scale", [0.0, 1e-200])
def test_mcc_of_factors_that_no_latent_varies_with_is_nothing(scale):
    np.testing.assert_array_equal(found("mcc", given(scale * MIXED))["per_factor"], 0)


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.95])
def test_nearest_neighbours_find_the_information_of_gaussians(rho):
    rng = np.random.default_rng(3)
    z, noise = rng.standard_normal((2, 2000))
    v = rho * z + np.sqrt(1 - rho**2) * noise
    nats = nearest_information(z, ((v - v.mean()) / v.std())[:, None], 10, rng)
    assert nats == pytest.approx(-0.5 * np.log(1 - rho**2), abs=0.05)
    wanted = mutual_info_regression(z[:, None], v, n_neighbors=10, random_state=0)[0]
    assert nats == pytest.approx(wanted, abs=1e-6)
    few = [nearest_information(z[:6], v[:6, None], k, np.random.default_rng(0)) for k in (5, 10)]
    assert few[0] == few[1], "all others are neighbours"


def test_nearest_neighbours_go_round_the_circle():
    rng = np.random.default_rng(4)
    angle, turn = rng.uniform(0, 2 * np.pi, 2000), rng.vonmises(0, 5, 2000)
    circle = np.stack([np.cos(angle + turn), np.sin(angle + turn)], axis=1)
    nats = nearest_information(angle, circle, 5, rng)
    assert nats == pytest.approx(np.log(2 * np.pi) - vonmises(5).entropy(), abs=0.06)


def test_infomec_of_gaussians_is_their_squared_correlation():
    rng = np.random.default_rng(5)
    v = rng.standard_normal((2000, 2))
    z = v @ np.array([[0.8, 0.3], [0.0, 0.9]]) + 0.4 * rng.standard_normal((2000, 2))
    points = Codes(z, v).declared("0,1")
    scored = METRICS["infomec"].function(
        z, points.factors, jax.random.key(0), Numbers(np.zeros(2), v)
    )
    squared = np.corrcoef(z.T, v.T)[:2, 2:] ** 2
    np.testing.assert_allclose(scored["normalised_information"], squared, atol=0.05)
    wanted = [LinearRegression().fit(z, column).score(z, column) for column in v.T]
    np.testing.assert_allclose(scored["infoe_per_factor"], wanted)


def test_regression_trees_are_scikit_learn_s():
    x, y = MIXED, np.sin(2 * MIXED[:, 0]) + MIXED[:, 1]
    ours = regression_trees(x[:TRAIN], y[:TRAIN, None], x[TRAIN:], stages=20)
    theirs = GradientBoostingRegressor(n_estimators=20, random_state=0).fit(x[:TRAIN], y[:TRAIN])
    np.testing.assert_allclose(ours.fitted[:, 0], theirs.predict(x[:TRAIN]), atol=1e-4)
    assert np.mean(np.abs(ours.predictions[:, 0] - theirs.predict(x[TRAIN:]))) < 0.02
    gains = ours.gains.sum(axis=0) / ours.gains.sum()
    np.testing.assert_allclose(gains, theirs.feature_importances_, atol=1e-3)


@pytest.mark.parametrize("predictor", ["boosted_sklearn", "forest", "lasso"])
def test_dci_by_other_predictors_agrees_on_what_is_clear(predictor):
    codes = np.column_stack([TRUE, np.sin(ANGLE)])
    few = {k: v[:200] if np.ndim(v) else v for k, v in given(codes).items() if k != "numbers"}
    few["numbers"] = Numbers(periods(DECLARED, NAMES), VALUES[:200], VALUES[TRAIN : TRAIN + 200])
    scored = found("dci", few, predictor=predictor)
    of = scored["importance"] / scored["importance"].sum(axis=0)
    assert of[[0, 1], [0, 1]].min() > 0.85
    assert of[2:, 2].min() > 0.4, "cosine and sine share an angle"
    assert scored["informativeness_per_factor"].min() > 0.9


# Where declarations come from.


def test_scores_say_how_numbers_were_read():
    entries = score(TRUE, VALUES, metrics=ScoreConfig("mig,mcc", continuous="1,2=360"))
    assert entries["mig"]["numbers"] == "factor 1,factor 2=360: in 20 bins"
    assert entries["mcc"]["numbers"] == "factor 1,factor 2=360: as numbers"
    points = Codes(TRUE, VALUES, factor_names=NAMES, continuous=DECLARED)
    ((_, entry),) = score_all(points, ScoreConfig("mig", permutations=2))
    assert entry["numbers"].startswith(DECLARED)
    with pytest.raises(UserError, match=r"or declare which are numbers by score\(.*'0,2=360'"):
        score(TRUE, VALUES)
    assert "numbers" not in score(TRUE, VALUES.astype(int), metrics="mig")["mig"]


def test_a_file_of_codes_says_which_factors_are_numbers(tmp_path):
    path = tmp_path / "a.npz"
    arrays = {"codes": TRUE, "factors": VALUES, "factor_names": np.array(NAMES)}
    tests = {"codes_test": TRUE[:9], "factors_test": VALUES[:9]}
    np.savez(path, **arrays, **tests, continuous=DECLARED, factor_sizes=[3, 1, 1])
    points = read_codes(path)
    assert points.continuous == DECLARED
    np.testing.assert_array_equal(points.known(), VALUES)
    np.testing.assert_array_equal(points.known(test=True), VALUES[:9])
    np.testing.assert_array_equal(points.factors[:9], points.factors_test)
    assert read_codes(path, "angle=90").continuous == "angle=90"
    assert read_codes(path, "none").values is None
    np.savez(path, **arrays)
    assert read_codes(path, DECLARED).continuous == DECLARED
    for changes, declared, message in (
        ({}, "", "factors is float64, wanted whole.*say which are numbers by --continuous"),
        ({}, "x", "angle has fractions or negative numbers, wanted class indices"),
        ({"continuous": "size"}, "", "got 'size', wanted names of factors: shape, x, angle"),
        ({"continuous": 3}, "", "continuous is int64, wanted a text"),
        ({"factor_names": ["x", "y", "x"]}, "y", "factor_names has a name twice"),
        ({"factors": np.full((N, 3), "a")}, "x", "factors is text, .* return_inverse=True"),
        ({"factors": np.full((N, 3), np.nan)}, "x", "shape has 900 values that are NaN"),
    ):
        both: dict[str, Any] = arrays | changes
        np.savez(path, **both)
        with pytest.raises(UserError, match=message) as error:
            read_codes(path, declared)
        assert str(error.value).startswith(str(path))
        assert "\n" not in str(error.value)


def test_encoded_codes_keep_numbers(tmp_path):
    points = Codes(TRUE, VALUES, factor_names=NAMES, factor_sizes=np.array([3, 1, 1])).declared(
        DECLARED
    )
    path = tmp_path / "a.npz"
    with path.open("wb") as file:
        WRITERS[".npz"][0](file, iter([points]))
    read = read_codes(path)
    assert read.continuous == DECLARED
    np.testing.assert_array_equal(read.known(), VALUES)
    np.testing.assert_array_equal(read.factors, points.factors)


def test_an_npz_data_set_keeps_the_values(tmp_path, capsys):
    images = RNG.integers(0, 256, (N, 4, 4), np.uint8)
    path = tmp_path / "a.npz"

    def opened(values: Any = VALUES, **more):
        np.savez(path, images=images, factors=values, factor_names=np.array(NAMES), **more)
        return open_npz(path, data_dir=tmp_path / "data", progress=False)

    dataset = opened(continuous=DECLARED)
    assert (dataset.continuous, dataset.factor_sizes) == (DECLARED, (3, 20, 20))
    np.testing.assert_array_equal(dataset.values, VALUES)
    np.testing.assert_array_equal(np.asarray(dataset.labels)[:, 2], VALUES[:, 2] // 18)
    some = np.array([700, 3])
    part = with_factors(dataset, some, np.zeros((2, 1)), None)
    np.testing.assert_array_equal(part.known(), VALUES[some])
    np.testing.assert_array_equal(part.factors, np.asarray(dataset.labels)[some])
    assert not capsys.readouterr().err
    with pytest.raises(UserError, match=r"x: 0 to 19, bins of the range from 2.* to 4.99"):
        only(dataset, "x=20")
    with pytest.raises(UserError, match="angle: 0 to 19, bins of the range from 0 to 360"):
        only(dataset, "angle=20")
    few = only(dataset, "shape=1")
    np.testing.assert_array_equal(few.values, VALUES[VALUES[:, 0] == 1])
    moved = opened(VALUES + np.array([0, 0, 0.01]), continuous=DECLARED)
    assert moved.version != dataset.version
    coarse = VALUES // [1, 0.1, 9]  # of 30 and 40 values
    assert opened(coarse, continuous="x,angle=40").factor_sizes == (3, 20, 20)
    everything, images = images, images[:200]
    opened(VALUES[:200], continuous="angle=6.28")
    told = capsys.readouterr().err
    assert f"bvae: {path}: x has 200 values in 200 images: if it is a number, say so by" in told
    assert "times the period 6.28" in told
    images = everything
    mine = from_arrays("mine", images[..., None], VALUES, NAMES, DECLARED)
    np.testing.assert_array_equal(mine.labels, dataset.labels)
    np.testing.assert_array_equal(mine.values, VALUES)
    stored = [np.asarray(x).nbytes for x in (images, mine.labels, VALUES)]
    assert describe(mine).size == sum(stored)
    for values, declared, message in (
        (VALUES, "x", "angle has 900 different fractions.*name it in the key continuous"),
        (VALUES, "x=-1", "the period '-1' of 'x'"),
        (VALUES, 5, "continuous is int64, wanted a text"),
        (VALUES.astype(str), "x", "x is text, but continuous names it: wanted numbers"),
        (np.where(VALUES > 4, np.nan, VALUES), "x", "x has .* values that are NaN"),
    ):
        with pytest.raises(UserError, match=message) as error:
            opened(values, continuous=declared)
        assert "\n" not in str(error.value)
