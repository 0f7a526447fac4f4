"""What metrics are given: bad arrays are named in one line, good ones are left as they are."""

import inspect
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from metric_points import FACTORS, MIXED, TRAIN, arrays, headline, score

from bvae_jax.metrics import METRICS
from bvae_jax.metrics.base import checked, checked_codes, checked_split

NAMES = sorted(METRICS)
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


@pytest.mark.parametrize("name", NAMES)
def test_jax_arrays_of_single_precision_score_alike(name):
    values = arrays(MIXED)
    values |= {key: jnp.asarray(values[key]) for key in METRICS[name].takes if "factors" in key}
    for key in METRICS[name].takes:
        if key in ("codes", "codes_test", "logvars"):
            values[key] = jnp.asarray(values[key])
        elif key == "codes_of_runs":
            values[key] = [jnp.asarray(run) for run in values[key]]
    assert headline(name, values) == pytest.approx(headline(name, MIXED), abs=5e-3)


AXES = {
    "active": "l",
    "latent_weight": "l",
    "factor": "l",
    "latent": "f",
    "entropy": "f",
    "importance": "lf",
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
