"""How many seeds it takes: against simulated tests, statsmodels and SciPy."""

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.power import TTestIndPower, TTestPower
from statsmodels.stats.proportion import proportion_confint

from bvae_jax.comparison import seeds
from bvae_jax.comparison.statistics import best_of, hedges, pair_tests

NAN = math.nan
NOISY: Any = pd.DataFrame({"a": [0.9, 0.2, 1.4, 0.3], "b": [0.1, 0.6, 0.2, 0.8]})


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("effect", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("paired", [True, False])
def test_the_power_is_that_of_tests_that_are_made(effect, paired):
    """And with one seed fewer it is not enough."""
    needed: Any = seeds.seeds_for(effect, paired=paired)
    for n in (needed - 1, needed):
        a, b = rng(n).normal(effect, 1, (20_000, n)), rng(n + 1).normal(0, 1, (20_000, n))
        made = stats.ttest_1samp(a, 0, axis=1) if paired else stats.ttest_ind(a, b, axis=1)
        assert np.mean(made.pvalue <= 0.05) == pytest.approx(  # pyright: ignore
            seeds.power(effect, n, paired=paired), abs=0.012
        )
    assert seeds.power(effect, needed - 1, paired=paired) < 0.8
    assert seeds.power(effect, needed, paired=paired) >= 0.8


@pytest.mark.parametrize(("effect", "n"), [(0.05, 2), (0.3, 90), (1.2, 5), (-1.2, 5), (4.0, 3)])
def test_the_power_is_statsmodels(effect, n):
    assert seeds.power(effect, n) == pytest.approx(TTestPower().power(effect, n, 0.05), abs=1e-4)
    wanted = TTestIndPower().power(effect, n, 0.05)
    assert seeds.power(effect, n, paired=False) == pytest.approx(wanted, abs=1e-4)


def test_effects_that_are_none_or_huge():
    assert seeds.power(0.0, 10) == pytest.approx(0.05, abs=1e-4)
    assert seeds.seeds_for(0.0) is None
    assert seeds.seeds_for(0.05) is None
    assert seeds.seeds_for(0.088) is None  # 1,016
    assert seeds.seeds_for(0.09) == 971
    assert seeds.seeds_for(1e4) == 2
    low, high = seeds.effect_interval(1e4, 3)
    assert 0 < low < 1e4 < high


def test_intervals_of_effects_hold_the_truth():
    draws = rng().normal(0.8, 1, (400, 5))
    ends = [seeds.effect_interval(d.mean() / d.std(ddof=1), 5) for d in draws]
    assert np.mean([low <= 0.8 <= high for low, high in ends]) == pytest.approx(0.95, abs=0.04)


def test_the_pair_that_matters():
    """The best and the next; the same numbers whichever end is better."""
    frame: Any = pd.DataFrame(
        rng(2).normal([0.1, 0.5, 0.6, 0.2], 0.1, (6, 4)), columns=list("abcd")
    )
    frame["none"] = NAN
    found = seeds.seeds_needed(frame, "high")
    assert found
    assert {found.best, found.next} == {"b", "c"}
    assert (found.n, found.pairs) == (6, 6)
    [test] = pair_tests(frame[[found.best, found.next]])
    assert found.effect == test.effect
    a, b = frame[found.best], frame[found.next]
    pooled = math.sqrt((a.var() + b.var()) / 2)
    assert found.effect_unpaired == pytest.approx((a.mean() - b.mean()) / pooled * hedges(10))
    assert found.power == seeds.power(found.effect, 6)
    assert found.fewest <= found.paired <= found.corrected  # pyright: ignore
    turned = seeds.seeds_needed(-frame, "low")
    assert turned
    assert turned[:3] == found[:3]
    assert turned[6:] == found[6:]
    words = seeds.in_words(found)
    assert words.startswith(f"to tell {found.best} from {found.next} with a probability of 0.8")
    assert f"takes {found.paired} seeds ({found.corrected} with a correction for 6 pairs)" in words


def test_where_there_may_be_no_effect_no_number_of_seeds_is_enough():
    found: Any = seeds.seeds_needed(NOISY, "high")
    difference = NOISY["a"] - NOISY["b"]
    raw = difference.mean() / difference.std()
    assert found.effect_ends == pytest.approx(seeds.effect_interval(raw, 4))
    low, high = found.effect_ends
    assert low < -0.5 < 1 < high
    assert (found.fewest, found.most) == (seeds.seeds_for(high), None)
    assert "interval, 7 to more than 1000." in seeds.in_words(found)


def test_curves_of_power_go_on_until_both_tests_would_find_it():
    found: Any = seeds.seeds_needed(NOISY, "high")
    for effect, unpaired, last in ((1.0, 0.3, 500), (2.0, 2.0, 10)):
        curve = seeds.power_curve(found._replace(effect=effect, effect_unpaired=unpaired))
        assert curve.seeds[-1] == last
        assert min(curve.paired[-1], curve.unpaired[-1]) > 0.9
        np.testing.assert_array_equal(curve.low, 0.05)  # as of no effect, which may be


@pytest.mark.parametrize(
    "columns",
    [
        {"a": [0.1, 0.2, 0.3]},
        {"a": [0.1, 0.2], "b": [0.3, 0.5]},
        {"a": [0.1, 0.2, 0.3], "b": [0.2, 0.3, 0.4]},
        {"a": [0.1, 0.2, NAN], "b": [NAN, 0.3, 0.4]},
        {"a": [NAN, NAN, NAN], "b": [NAN, 0.3, 0.4]},
    ],
)
def test_pairs_of_which_nothing_can_be_said(columns):
    assert seeds.seeds_needed(pd.DataFrame(columns), "high") is None


def test_improvement_is_mann_and_whitneys():
    a, b = rng().integers(0, 6, 7).astype(float), rng(1).integers(2, 8, 5).astype(float)
    wins = [1.0 * (x > y) + 0.5 * (x == y) for x, y in itertools.product(a, b)]
    found = seeds.improvement(np.append(a, NAN), b, "high")
    assert found.center == pytest.approx(np.mean(wins))
    assert found.center == pytest.approx(stats.mannwhitneyu(a, b).statistic / 35)
    assert found.n == 5
    other = seeds.improvement(a, b, "low")
    ends = (1 - found.center, 1 - found.high, 1 - found.low)
    assert other[:3] == pytest.approx(ends, abs=1e-3)
    sure = seeds.improvement(np.arange(3) + 5.0, np.arange(3.0), "high")
    assert sure.center == sure.high == 1
    assert 0.4 < sure.low < 0.6  # three seeds do not make it certain
    assert math.isnan(seeds.improvement(np.array([NAN]), b, "high").center)


def test_intervals_of_improvement_are_newcombes():
    """Where the share is as far from the true one as 1.96 of its standard errors there."""
    a, b = np.array([0.3, 0.9, 0.7, 0.8]), np.array([0.1, 0.4, 0.75, 0.2, 0.6, 0.5])
    found = seeds.improvement(a, b, "high")
    assert found.center == (2 + 6 + 5 + 6) / 24
    for end in (found.low, found.high):
        inner = (4 + 6) / 2 - 1
        variance = end * (1 - end) / 24 * (1 + inner * ((1 - end) / (2 - end) + end / (1 + end)))
        assert abs(found.center - end) / math.sqrt(variance) == pytest.approx(1.96, abs=0.02)


@pytest.mark.parametrize(("n", "least"), [(2, 0.88), (3, 0.9), (10, 0.93)])
def test_intervals_of_improvement_hold_the_truth(n, least):
    a, b = rng(n).normal(1, 1, (300, n)), rng(n + 1).normal(0, 1, (300, n))
    truth = stats.norm.cdf(1 / math.sqrt(2))
    found = [seeds.improvement(x, y, "high") for x, y in zip(a, b, strict=True)]
    assert np.mean([each.low <= truth <= each.high for each in found]) > least - 0.04


def test_bands_of_shares_are_wilsons():
    values = np.array([0.3, 0.1, 0.7, 0.9, 0.2])
    x, low, high = seeds.share_band(values)
    assert list(x[1:]) == sorted(values)
    for number, (least, most) in enumerate(zip(low, high, strict=True)):
        wanted = proportion_confint(5 - number, 5, method="wilson")
        assert (least, most) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(("settings", "n"), [(4, 3), (4, 50), (6, 5), (12, 3)])
def test_equal_settings_are_rarely_marked_as_told_apart(settings, n):
    """Any of all marks of a score is wrong in 5 % of cases at most."""
    source, runs = rng(n + settings), 150
    names, wrong = [f"s{i}" for i in range(settings)], 0
    for _ in range(runs):
        values = source.normal(size=(n, settings)) + source.normal(size=(n, 1))
        tests = pair_tests(frame := pd.DataFrame(values, columns=names))
        apart = any(test.p_corrected <= 0.05 for test in tests)
        assert apart or len(best_of(frame, "high").tied) == settings - 1
        wrong += apart
    assert wrong / runs <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / runs)
