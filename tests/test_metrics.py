"""Laws that every registered metric obeys; exceptions are in tables, with the reason."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import metric_points
import numpy as np
import pytest
from metric_points import (
    FACTORS,
    MIXED,
    RANDOM,
    ROTATED,
    TEST,
    TRAIN,
    TRUE,
    arrays,
    headline,
    score,
)

from bvae_jax import metrics
from bvae_jax.metrics import METRICS
from bvae_jax.metrics.base import InvalidArrays, checked, checked_codes, checked_split, relabel

NAMES = sorted(METRICS)
_RNG = np.random.default_rng(1)
ORDER = np.concatenate([_RNG.permutation(TRAIN), TRAIN + _RNG.permutation(TEST)])
SCALE = np.array([0.01, 1.0, 20.0, 0.5, 3.0])
SIGN = np.array([-1.0, 1.0, -1.0, -1.0, 1.0])
CHANGED = {
    "permute": MIXED.latents(order=np.array([3, 0, 4, 1, 2])),
    "sign": MIXED.latents(scale=SIGN),
    "scale": MIXED.latents(scale=SCALE),
    "order": MIXED.rows(ORDER),
}
"""The same points under what may or may not change a score."""

TOLERANCE = {
    # Every latent draws its own noise, so that another order draws other samples.
    ("mig_chen", "permute"): 0.02,
    ("mig_chen", "sign"): 0.02,
    ("mig_chen", "scale"): 1e-7,  # single precision
    # Thresholds halfway between two values go to the other side, and equal gains to another latent.
    ("dci", "permute"): 0.005,
    ("dci", "sign"): 0.005,
    ("downstream", "permute"): 0.02,
    ("downstream", "sign"): 0.02,
}
"""How far an invariant headline may move, where it is not by rounding only."""

DRAWS = 0.05
"""How far a headline moves where only the draws are others, with this few points and votes."""

MOVES = {
    # The penalty and the pruning of these know the scale.
    ("beta_vae_score", "scale"): 0.05,
    ("factor_vae_score", "scale"): 0.05,
    ("sap", "scale"): 0.005,
    ("infomec", "scale"): 0.05,
    ("active_units", "scale"): 1,
    # Weighted by the latents' ranges.
    ("irs", "scale"): 0.05,
    # Active is what varies enough.
    ("mig_sup", "scale"): 0.04,
    ("modularity", "scale"): 0.03,
    ("udr", "scale"): 0.05,
}
"""How far a headline that is not invariant moves at least; others move by the draws alone."""


@pytest.mark.parametrize("change", CHANGED)
@pytest.mark.parametrize("name", NAMES)
def test_invariant_to_what_it_says_and_to_nothing_else(name, change):
    moved = abs(headline(name, CHANGED[change]) - headline(name, MIXED))
    if change in METRICS[name].invariant:
        assert moved <= TOLERANCE.get((name, change), 1e-9)
    elif (name, change) in MOVES:
        assert moved >= MOVES[name, change]
    else:
        assert 0 < moved <= DRAWS


def test_the_tables_of_exceptions_name_what_there_is():
    assert {name for name, _ in (TOLERANCE | MOVES)} <= set(NAMES)
    assert {word for m in METRICS.values() for word in m.invariant} <= set(CHANGED)
    assert not [(n, c) for n, c in MOVES if c in METRICS[n].invariant]
    assert [(n, c) for n, c in TOLERANCE if c in METRICS[n].invariant] == list(TOLERANCE)


BEST = {
    "sap": 0.36,  # the accuracy of the most common class is subtracted, and C = 0.01 is strict
    "jemmig": 0.82,  # posteriors of std 0.1 reach into the next bins
    "udr": 0.7875,  # the lasso takes 0.1 of every coefficient; one latent in four has no partner
    "unsupervised": 0.0,
    "active_units": 3,
}
"""The headline where latents are the factors; 1 elsewhere."""

AT_RANDOM = {
    "beta_vae_score": (0.28, 0.38),  # one of three factors
    "factor_vae_score": (0.28, 0.38),
    "downstream": (0.20, 0.30),  # mean of 1/3, 1/4 and 1/6
    "explicitness": (0.47, 0.53),
    "dci_es": (-1, -1),
    "jemmig": (0, 0.15),  # no latent fills all bins alike
    "irs": (0.1, 0.3),
    "modularity": (0.5, 0.9),  # of the tiny informations by chance one is largest
    "infomec": (0.1, 0.7),
    "matched_information": (0, 0.08),
    "active_units": (3, 3),
}
"""Between what the headline lies where latents know nothing; about 0 elsewhere."""

BLIND_TO_AXES = {"explicitness", "downstream", "dci_es", "unsupervised", "active_units"}
"""What reads all latents together, linearly, does not mind a rotation of them."""

RANDOM_BEATS_ROTATED = {"modularity", "infomec"}
"""Noise has a best factor by chance; a latent that mixes all factors alike has none."""


@pytest.mark.parametrize("name", NAMES)
def test_true_factors_beat_a_rotation_and_a_rotation_beats_noise(name):
    true, rotated, random = (headline(name, points) for points in (TRUE, ROTATED, RANDOM))
    assert true == pytest.approx(BEST.get(name, 1.0), abs=0.07)
    low, high = AT_RANDOM.get(name, (-0.01, 0.05))
    assert low <= random <= high
    if METRICS[name].best == "low":
        true, rotated, random = -true, -rotated, -random
    if name in BLIND_TO_AXES:
        assert rotated == pytest.approx(true, abs=0.02)
    else:
        assert true > rotated + 0.1
    if name not in RANDOM_BEATS_ROTATED:
        assert rotated >= random - 0.02


@pytest.mark.parametrize("name", NAMES)
def test_headlines_lie_in_their_range(name):
    low, high = METRICS[name].range
    for points in (TRUE, MIXED, ROTATED, RANDOM):
        assert low - 1e-9 <= headline(name, points) <= high + 1e-9


def test_low_total_correlation_is_best():
    assert {name for name in NAMES if METRICS[name].best == "low"} == {"unsupervised"}
    assert headline("unsupervised", MIXED) > headline("unsupervised", TRUE) + 0.05


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_latent_changes_nothing(name):
    tolerance = 0.02 if name == "mig_chen" else 1e-9  # one latent more, other draws
    more = headline(name, MIXED.with_latent(0.1))
    assert more == pytest.approx(headline(name, MIXED), abs=tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_factor_changes_nothing(name):
    for points in (MIXED, RANDOM) if METRICS[name].fast else (MIXED,):
        more = points._replace(factors=np.insert(points.factors, [0, 2], [0, 7], axis=1))
        assert headline(name, more) == pytest.approx(headline(name, points), abs=1e-9)


def test_what_compat_changes_is_said():
    for name in NAMES:
        assert not METRICS[name].compat or "Where it differs: " in str(
            METRICS[name].function.__doc__
        )


COUNTING = [name for name in NAMES if METRICS[name].null]


@pytest.mark.parametrize("name", COUNTING)
def test_rounding_is_no_information_among_many_points(name):
    """15,000 points; the sum of as many shares is not 1."""
    rng = np.random.default_rng(0)
    factors = rng.integers((3, 6, 40), size=(15_000, 3))
    codes = 0.05 * factors @ rng.standard_normal((3, 3)) + rng.standard_normal((15_000, 3))
    padded = np.column_stack([np.full((15_000, 2), 0.1), codes, np.ones(15_000)])
    more = np.insert(factors, [0, 2], [7, 0], axis=1)

    def of(codes, factors, **settings):
        return score(
            name, {"codes": codes, "factors": factors, "logvars": None, "kl": None}, **settings
        )

    plain = of(codes, factors)["score"]
    assert of(padded, factors)["score"] == pytest.approx(plain, abs=1e-9)
    assert of(codes, more)["score"] == pytest.approx(plain, abs=1e-9)
    if name == "modularity":
        theirs = of(padded, factors, **METRICS[name].compat)["score"]
        assert theirs == pytest.approx(plain * 3 / 6, abs=1e-9), "constant latents count as 0"


@pytest.mark.parametrize("name", NAMES)
def test_a_copied_latent_and_a_noisy_one_have_a_score(name):
    noise = np.random.default_rng(5).standard_normal(TRAIN + TEST)
    assert np.isfinite(headline(name, MIXED.with_latent(noise)))
    copied = headline(name, MIXED.with_latent(MIXED.codes[:, 0]))
    # Of Gaussians that determine each other.
    assert copied == np.inf if name == "unsupervised" else np.isfinite(copied)


def _with_factor(k, column):
    factors = FACTORS.copy()
    factors[:, k] = column
    return MIXED._replace(factors=factors)


_TWELVE = np.stack([np.repeat(range(6), 2), np.tile(range(3), 4), np.repeat(range(2), 6)], axis=1)
ODD = {
    "constant latents": MIXED._replace(codes=np.full_like(MIXED.codes, 0.1)),
    "latents constant in training": MIXED._replace(
        codes=np.where(np.arange(TRAIN + TEST)[:, None] < TRAIN, 0.1, MIXED.codes)
    ),
    "one latent": MIXED.latents(order=[0]),
    "one factor": MIXED._replace(factors=FACTORS[:, :1]),
    "one value": _with_factor(1, 2),
    "two points of each value": MIXED.rows(np.arange(24))._replace(
        factors=np.tile(_TWELVE, (2, 1)), train=12
    ),
    "a value in one row": _with_factor(0, np.append(99, FACTORS[1:, 0])),
    "a value in the test only": _with_factor(0, np.append(FACTORS[:-1, 0], 99)),
    "a value missing in the test": _with_factor(
        0, np.append(FACTORS[:TRAIN, 0], np.minimum(FACTORS[TRAIN:, 0], 1))
    ),
    "far from zero": MIXED.latents(shift=1e6),
    "large": MIXED.latents(scale=1e12),
    "small": MIXED.latents(scale=1e-12),
    "smaller than their squares": MIXED.latents(scale=1e-200),
    "different by rounding": MIXED._replace(
        codes=1 + np.finfo(float).eps * np.round(MIXED.codes > 0)
    ),
}
"""Points that a metric must have a score for."""


NOT_COMPUTED = {
    "one latent": {"factor_vae_score", "med", "dci", "unsupervised"},
    "one factor": {"beta_vae_score", "factor_vae_score", "modularity", "med", "dci", "infomec"},
    "constant latents": {"unsupervised"},
    "latents constant in training": {"unsupervised"},
    "smaller than their squares": {"unsupervised"},
}
"""What has no score there: any codes would have the same."""


def _found(name, points):
    """The headline; nan where it is not computed, which is said."""
    try:
        found = score(name, points)
    except InvalidArrays as error:
        said, value = [str(error)], np.nan
    else:
        said, value = found.get("notes", []), found[METRICS[name].headline]
    assert np.isfinite(value) or any("it needs two" in note for note in said)
    return value


@pytest.mark.parametrize("case", ODD)
@pytest.mark.parametrize("name", NAMES)
def test_odd_points_have_a_score_or_say_why_not(name, case):
    assert np.isfinite(_found(name, ODD[case])) == (name not in NOT_COMPUTED.get(case, ()))


@pytest.mark.parametrize("case", ["one latent", "one factor"])
@pytest.mark.parametrize("name", [name for name in NAMES if "factors" in METRICS[name].takes])
def test_no_score_is_the_same_for_codes_that_know_nothing(name, case):
    codes = np.random.default_rng(2).permutation(ODD[case].codes)
    true, noise = (_found(name, points) for points in (ODD[case], ODD[case]._replace(codes=codes)))
    assert true != noise or np.isnan(true)


def test_parts_of_a_score_are_left_out_alone():
    found = score("dci", ODD["one factor"])
    assert np.isnan(found["disentanglement"])
    assert np.isfinite([found["completeness"], found["informativeness"]]).all()
    assert found["notes"] == [
        "disentanglement is not computed: it needs two varying factors, got 1 of 1"
    ]
    assert np.isnan(score("dci", ODD["one latent"])["completeness"])
    assert np.isnan(score("infomec", ODD["one latent"])["infoc"])
    assert "infom" in score("infomec", ODD["one factor"])["notes"][0]


VOTES = {"beta_vae_score", "factor_vae_score"}
"""Votes need points that share a value."""


@pytest.mark.parametrize("name", NAMES)
def test_points_without_two_of_a_value_score_or_say_so(name):
    points = MIXED.rows(np.arange(20))._replace(factors=np.stack([range(20)] * 2, axis=1), train=10)
    if name in VOTES:
        with pytest.raises(ValueError, match=r"^[^\n]*two rows[^\n]*$"):
            headline(name, points)
    elif name == "explicitness":  # no class of the test was fitted
        assert np.isnan(headline(name, points))
    else:
        assert np.isfinite(headline(name, points))


TAKES_NUMBERS = {"sap_r2", "irs", "dci_es", "mcc"}
"""These read class indices as numbers: 1000 is far from 7."""


@pytest.mark.parametrize("name", NAMES)
def test_class_indices_are_names(name):
    renamed = MIXED._replace(factors=np.array([0, 7, 1000, 1001, 5000, 2**40])[FACTORS])
    value, moved = headline(name, renamed), headline(name, MIXED) - headline(name, renamed)
    assert np.isfinite(value)
    assert abs(moved) > 0.01 if name in TAKES_NUMBERS else moved == 0


@pytest.mark.parametrize("name", [name for name in NAMES if "factors" in METRICS[name].takes])
def test_class_indices_may_be_as_far_apart_as_their_type_allows(name):
    """As hashes are; their difference is no number of the type."""
    limits = np.iinfo(np.int64)
    names = np.array([limits.min, 0, 1000, limits.max - 2, limits.max - 1, limits.max])
    far = MIXED._replace(factors=names[np.where(FACTORS.max(axis=0) == FACTORS, 5, FACTORS)])
    low, high = METRICS[name].range
    assert low - 1e-9 <= headline(name, far) <= high + 1e-9
    if name not in TAKES_NUMBERS:
        assert headline(name, far) == headline(name, MIXED)


def _headlines_with(processors):
    """`all_headlines` of another process that sees this many processors."""
    script = f"import os; os.cpu_count = lambda: {processors}; import json, metric_points as m; "
    folders = [str(Path(metric_points.__file__).parent), str(Path(__file__).parents[1])]
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    threads = dict.fromkeys(names, str(processors))
    done = subprocess.run(
        [sys.executable, "-c", script + "print(json.dumps(m.all_headlines()))"],
        env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_the_same_bits_again_and_from_any_number_of_processors():
    """In processes of their own: what is drawn without a seed differs too."""
    assert _headlines_with(1) == _headlines_with(4)


# What metrics are given: bad arrays are named in one line, good ones are left as they are.

LATENTS, SIZE, RUNS = MIXED.codes.shape[1], FACTORS.shape[1], 3


def _put(value):
    """A number in row 3 of an array."""

    def change(array):
        array = np.array(array)
        array[3, 1] = value
        return array

    return change


def _in_second_run(change):
    return lambda runs: [runs[0], change(runs[1]), *runs[2:]]


BROKEN: list[tuple[str, Any, str]] = [
    *[(key, _put(x), key) for key in ("codes", "codes_test", "logvars") for x in (np.nan, np.inf)],
    *[(key, lambda a: a[:-1], "rows") for key in ("codes", "factors", "codes_test")],
    ("factors_test", lambda a: a[:-1], "rows"),
    ("logvars", lambda a: a[:, 1:], "logvars"),
    ("codes", lambda a: a[:, 0], "codes"),
    ("codes", lambda a: a[:, :0], "codes"),
    ("codes", lambda a: a[:0], "codes"),
    ("codes_test", lambda a: a[:, 1:], "columns"),
    ("factors_test", lambda a: a[:, 1:], "columns"),
    *[(key, lambda a: a.astype(float), key) for key in ("factors", "factors_test")],
    *[(key, lambda a: a[:, 0], key) for key in ("factors", "factors_test")],
    ("factors", lambda a: a[:, :0], "factors"),
    ("factors", np.zeros_like, "nothing to score"),
    ("factor_sizes", lambda a: a[1:], "factor_sizes"),
    ("kl", lambda a: a[1:], "kl"),
    ("codes_of_runs", _in_second_run(_put(np.nan)), "codes of run 1"),
    ("codes_of_runs", _in_second_run(lambda a: a[1:]), "points"),
    ("codes_of_runs", lambda runs: runs[:1], "two runs"),
    ("kl_of_runs", lambda runs: runs[:1], "kl"),
    ("kl_of_runs", _in_second_run(lambda a: a[1:]), "kl"),
]
"""Which array is spoilt, how, and a word of the message."""


def _plain(name, values):
    """The metric of arrays as it is without checks of shapes and types from outside."""
    metric = METRICS[name]
    return inspect.unwrap(metric.function)(*(values[key] for key in metric.takes))


@pytest.mark.parametrize(("case", "name"), [(i, n) for i in range(len(BROKEN)) for n in NAMES])
def test_bad_arrays_are_named_in_one_line(case, name):
    key, change, word = BROKEN[case]
    takes = METRICS[name].takes
    if key not in takes or (word == "rows" and "factors" not in takes):
        return
    values = arrays(MIXED)
    values[key] = change(values[key])
    with pytest.raises(ValueError, match=word) as error:
        _plain(name, values)
    assert "\n" not in str(error.value)


def test_codes_that_solvers_cannot_take_are_refused():
    with pytest.raises(InvalidArrays, match=r"codes: got numbers up to 1e\+100 in size, wanted at"):
        checked_codes(np.array([[1.0, -1e100]]))


COUNTS = ("bins", "pairs", "points", "train_votes", "test_votes", "samples")


@pytest.mark.parametrize("name", NAMES)
def test_counts_are_whole_and_positive(name):
    """None gives a score: -1 bins found no information anywhere."""
    function = inspect.unwrap(METRICS[name].function)
    for setting in set(COUNTS) & set(inspect.signature(function).parameters):
        for count in (-1, 0):
            given = [arrays(MIXED)[key] for key in METRICS[name].takes]
            with pytest.raises(InvalidArrays, match=f"^{setting}: got {count}, wanted a whole"):
                function(*given, **{setting: count})


@pytest.mark.parametrize(
    "codes", [np.ones((3, 2), complex), [[1.0], [2.0, 3.0]], np.ones((3, 2), "M8[s]"), [["1"]], {}]
)
def test_codes_that_are_no_real_numbers_are_refused(codes):
    with pytest.raises(InvalidArrays, match=r"^codes: .*: wanted real numbers, \[n, latent\]\.$"):
        inspect.unwrap(checked_codes)(codes)


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.int64])
def test_classes_are_counted_as_numpy_sorts_them(kind):
    limits = np.iinfo(kind)
    for values in ([limits.min, limits.max], [limits.max, limits.max - 3, limits.max - 1], [5]):
        column = np.array(values * 200, kind)
        wanted = np.unique(column, return_inverse=True)
        found, size = relabel(column)
        np.testing.assert_array_equal(found, wanted[1])
        assert (size, found.dtype) == (len(wanted[0]), np.int64)


def test_bad_arrays_are_counted():
    with pytest.raises(ValueError, match=r"2 of 8 numbers are not finite .* first in row 1"):
        checked_codes([[0.0, 1], [2, np.nan], [3, 4], [np.inf, 5]])
    with pytest.raises(ValueError, match="codes has 3 rows and factors 2"):
        checked(np.zeros((3, 1)), np.zeros((2, 1), int))
    with pytest.raises(ValueError, match="got float64, wanted whole numbers"):
        checked(np.zeros((3, 1)), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="factors has 1 columns and factors_test 2"):
        checked_split(
            np.ones((2, 1)), np.array([[0], [1]]), np.ones((3, 1)), np.zeros((3, 2), np.uint8)
        )


@pytest.mark.parametrize("name", NAMES)
def test_arrays_are_only_read(name):
    values = arrays(MIXED)
    lists = [values[key] for key in ("codes_of_runs", "kl_of_runs")]
    read = [v for v in [*values.values(), *lists[0], *lists[1]] if isinstance(v, np.ndarray)]
    before = [array.copy() for array in read]
    for array in read:
        array.flags.writeable = False
    score(name, values)
    for array, copy in zip(read, before, strict=True):
        np.testing.assert_array_equal(array, copy)


FLOATS = {"float32": 5e-3, "float16": 0.05, "bfloat16": 0.1}
"""Types of a framework's arrays, and how far their rounding may move a headline."""


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", [n for n in NAMES if METRICS[n].fast])
def test_jax_arrays_of_any_float_type_score_alike(name, dtype):
    """Called by its own name, as a user does."""
    metric, values = METRICS[name], arrays(MIXED)
    for key in set(metric.takes) - {"key", "numbers"}:
        values[key] = jnp.asarray(values[key], None if "factors" in key else dtype)
    function = getattr(metrics, name)
    found = function(*(values[key] for key in metric.takes), **metric_points.CHEAP.get(name, {}))
    wanted = headline(name, MIXED)
    assert found[metric.headline] == pytest.approx(wanted, abs=FLOATS[dtype])


@pytest.mark.parametrize("name", [n for n in NAMES if not METRICS[n].fast])
def test_jax_arrays_of_single_precision_score_alike(name):
    values = arrays(MIXED)
    for key in set(METRICS[name].takes) - {"key", "kl_of_runs", "numbers"}:
        of = values[key]
        values[key] = [*map(jnp.asarray, of)] if key == "codes_of_runs" else jnp.asarray(of)
    assert headline(name, values) == pytest.approx(headline(name, MIXED), abs=5e-3)


AXES = {
    "active": "l",
    "latent_weight": "l",
    "factor": "l",
    "latent": "f",
    "entropy": "f",
    "importance": "lf",
    "correlations": "lf",
    "mutual_information": "lf",
    "normalised_information": "lf",
    "matrix": "lf",
    "accuracy": "lf",
    "r2": "lf",
    "votes": "lf",
    "mutual_information_matrix": "ll",
    "loss": "pf",
    "features": "p",
    "labels": "c",
    "logistic": "c",
    "trees": "c",
    "logistic_per_factor": "cf",
    "trees_per_factor": "cf",
    "per_run": "r",
    "pairs": "rr",
    "active_latents": "r",
}
"""Of arrays in scores: latent, factor, probe, count of labels, run. Others end in what they are."""

LENGTH = {"l": LATENTS, "f": SIZE, "p": 8, "c": 2, "r": RUNS}


@pytest.mark.parametrize("name", NAMES)
def test_scores_hold_numbers_and_arrays_of_known_shapes(name):
    metric, found = METRICS[name], score(name, MIXED)
    assert {metric.headline, *metric.others} <= set(found)
    for key, value in found.items():
        if key == "notes":
            assert value == []
        elif np.ndim(value) == 0:
            assert isinstance(value, float | int)
            assert np.isfinite(value)
        else:
            suffix = {"per_factor": "f", "per_latent": "l"}.get("_".join(key.split("_")[-2:]))
            assert value.shape == tuple(LENGTH[axis] for axis in AXES.get(key, suffix or "?"))
    entries = [e for e in (metric.headline, *metric.others) if np.ndim(found[e])]
    assert not entries


@pytest.mark.parametrize("name", NAMES)
def test_entries_follow_their_latents_and_factors(name):
    """Another order of latents and factors gives the same arrays in that order."""
    if "permute" not in METRICS[name].invariant or name == "mig_chen":
        return  # its draws depend on the order
    latents, factors = np.array([3, 0, 4, 1, 2]), np.array([2, 0, 1])
    points = MIXED.latents(order=latents)._replace(factors=FACTORS[:, factors])
    one, other = score(name, MIXED), score(name, points)
    sampled = "key" in METRICS[name].takes
    for key, value in one.items():
        suffix = {"per_factor": "f", "per_latent": "l"}.get("_".join(key.split("_")[-2:]))
        axes = AXES.get(key, suffix or "")
        if np.ndim(value) == 0 or key in ("notes", "latent", "factor"):
            continue
        for place, axis in enumerate(axes):
            order = {"l": latents, "f": factors}.get(axis)
            value = value if order is None else np.take(value, order, axis=place)
        atol = 0.1 * np.abs(value).max() if sampled or name == "dci" else 1e-9
        np.testing.assert_allclose(other[key], value, atol=atol, err_msg=key)


def test_settings_are_keyword_only_and_arrays_are_known():
    known = set(arrays(MIXED))
    for metric in METRICS.values():
        assert set(metric.takes) <= known
        assert set(metric.needs) <= set(metric.takes)
        assert set(metric.compat) <= set(metric.settings)
        assert not set(metric.settings) & known
    assert len(arrays(MIXED)["codes"]) == TRAIN
