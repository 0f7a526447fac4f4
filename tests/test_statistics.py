"""Intervals cover what they should, and tests are those of SciPy and statsmodels."""

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests

from bvae_jax.comparison import seeds as seeds_tell
from bvae_jax.comparison import statistics
from bvae_jax.comparison.statistics import PairTest, half_width, interval

NAN = math.nan


def rng(seed=0):
    return np.random.default_rng(seed)


def settings_frame(means, seeds=6, noise=0.1, key=0) -> Any:
    """Settings s0, s1, ... with these means; each seed has an effect on all of them."""
    values = rng(key).normal(size=(seeds, 1)) * noise + rng(key + 1).normal(
        means, noise, size=(seeds, len(means))
    )
    return pd.DataFrame(values, columns=[f"s{i}" for i in range(len(means))])


def members_of(frame, score="mig"):
    long = frame.reset_index(names="seed").melt("seed", var_name="setting", value_name=score)
    return long.dropna()


# Intervals


def interquartile_mean(values):
    """By hand: a quarter of the values, rounded down, goes at each end."""
    values = np.sort(values)
    quarter = len(values) // 4
    return np.mean(values[quarter : len(values) - quarter])


FUNCTIONS = {"mean": np.mean, "iqm": interquartile_mean}


@pytest.mark.parametrize("average", FUNCTIONS)
@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_the_standard_error_is_that_of_all_resamples(average, n):
    """And the interval is Student's with it, as it says."""
    values = rng(n).exponential(size=n)
    resamples = itertools.product(values, repeat=n)
    error = np.std([FUNCTIONS[average](np.array(drawn)) for drawn in resamples])
    found = interval(values, average=average, level=0.9)
    half = stats.t.ppf(0.95, n - 1) * error * math.sqrt(n / (n - 1))
    assert found.center == pytest.approx(FUNCTIONS[average](values))
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.03)
    assert (found.high + found.low) / 2 == pytest.approx(found.center)
    assert found.n == n
    assert interval(values, average=average, level=0.9) == found


@pytest.mark.parametrize("average", FUNCTIONS)
@pytest.mark.parametrize("n", [8, 15, 30])
def test_the_standard_error_is_scipys(average, n):
    values = rng(n).exponential(size=n)
    found = interval(values, average=average)
    error = stats.bootstrap(
        (values,), lambda x: FUNCTIONS[average](x), vectorized=False, n_resamples=10_000
    ).standard_error
    half = stats.t.ppf(0.975, n - 1) * error * math.sqrt(n / (n - 1))
    assert found.high - found.center == pytest.approx(half, rel=0.04)


@pytest.mark.parametrize("n", [2, 3, 10, 50])
def test_intervals_of_means_are_students(n):
    values = rng(n).normal(size=n)
    wanted = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = interval(values)
    assert found.high - found.low == pytest.approx(wanted.high - wanted.low, rel=0.03)


def test_half_widths_grow_with_the_level_and_shrink_with_the_seeds():
    averages = rng().normal(size=1000)
    assert half_width(averages, 5, 0.99) > half_width(averages, 5, 0.9) > 0
    large = 10_000
    assert half_width(averages, large) == pytest.approx(1.96 * averages.std(), rel=1e-2)


@pytest.mark.parametrize(
    ("draw", "n", "average", "wanted"),
    [
        *[("normal", 2, "mean", 0.95), ("normal", 3, "mean", 0.95), ("normal", 5, "mean", 0.95)],
        *[("normal", 4, "iqm", 0.98), ("normal", 5, "iqm", 0.97), ("normal", 50, "iqm", 0.95)],
        *[("exponential", 3, "mean", 0.89), ("exponential", 5, "mean", 0.88)],
        *[("exponential", 5, "iqm", 0.96), ("exponential", 10, "mean", 0.90)],
    ],
)
def test_intervals_hold_the_truth_as_often_as_is_said(draw, n, average, wanted):
    source = rng(n)
    many = getattr(source, draw)(size=200_000)
    truth = FUNCTIONS["mean" if n <= 3 else average](many)
    runs = 600 if n < 50 else 150
    held = 0
    for run in range(runs):
        values = getattr(source, draw)(size=n)
        found = interval(values, average=average, resamples=1000, seed=run)
        held += found.low <= truth <= found.high
    error = math.sqrt(wanted * (1 - wanted) / runs)
    assert abs(held / runs - wanted) < 3.5 * error + 0.01


def test_intervals_of_hardly_any_values():
    one = interval(np.array([0.25, NAN, math.inf]))
    assert one[0::3] == (0.25, 1)
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    equal = interval(np.full(7, 0.1))
    assert (equal.center, equal.n) == (pytest.approx(0.1), 7)
    assert math.isnan(equal.low), "equal values do not show how far others would be"
    none = interval(np.full(3, NAN))
    assert math.isnan(none.center)
    assert none.n == 0
    values = rng().normal(size=5)
    assert interval(np.append(values, NAN)) == interval(values)


@pytest.mark.parametrize("average", FUNCTIONS)
def test_intervals_end_where_a_score_ends_and_hold_no_less_of_the_truth(average):
    """Shares between 0 and 1 that are mostly near 0, of 5 seeds."""
    source, held, cut = rng(), [], []
    truth = FUNCTIONS[average](source.beta(0.3, 2, 200_000)) if average == "mean" else 0.05
    for run in range(100):
        values = source.beta(0.3, 2, 5)
        free = interval(values, average=average, resamples=300, seed=run)
        found = interval(values, average=average, within=(0.0, 1.0), resamples=300, seed=run)
        assert 0 <= found.low <= found.center <= found.high <= 1
        held.append((free.low <= truth <= free.high, found.low <= truth <= found.high))
        cut.append(free.low < 0)
    assert all(a == b for a, b in held)
    assert np.mean(cut) > 0.2
    beyond = interval(
        np.array([-0.2, -0.1, -0.15]), within=(0.0, 1.0)
    )  # an estimate of what is not
    assert beyond.low <= beyond.center <= beyond.high


def test_differences_end_where_scores_end():
    frame = pd.DataFrame({"a": [0.9, 0.1], "b": [0.2, 0.6]})
    (free,), (test,) = statistics.pair_tests(frame), statistics.pair_tests(frame, (0.0, 1.0))
    assert free.low < -1 < 1 < free.high
    assert test == free._replace(low=-1, high=1)
    (signed,) = statistics.pair_tests(frame, (-1.0, 1.0))
    assert signed == free._replace(low=-2, high=2)


# Frames


def test_wide_takes_the_last_of_two_and_the_order_of_settings():
    members = pd.DataFrame(
        {
            "setting": ["b", "a", "b", "b", "a"],
            "seed": [1, 0, 0, 1, 1],
            "mig": [0.1, 0.2, 0.3, 0.4, math.inf],
        },
        index=list("vwxyz"),
    )
    frame = statistics.wide(members, "mig", ("a", "b", "c"))
    wanted = pd.DataFrame(
        {"a": [0.2, NAN], "b": [0.3, 0.4], "c": [NAN, NAN]}, index=pd.Index([0, 1], name="seed")
    )
    pd.testing.assert_frame_equal(frame, wanted, check_names=False)


# Paired tests


def test_pairs_are_scipys_and_statsmodels_tests():
    frame = settings_frame([0.0, 0.05, 0.3, 0.1], seeds=7)
    frame.iloc[2, 1] = frame.iloc[5, 3] = NAN
    tests = statistics.pair_tests(frame)
    assert [(t.a, t.b) for t in tests] == list(itertools.combinations(frame.columns, 2))
    for test in tests:
        both = frame[[test.a, test.b]].dropna()
        wanted = stats.ttest_rel(both[test.a], both[test.b])
        ends = wanted.confidence_interval(0.95)
        assert test.n == len(both)
        assert test.p == pytest.approx(wanted.pvalue)
        assert (test.low, test.high) == pytest.approx((ends.low, ends.high))
        signed: Any = stats.wilcoxon(both[test.a], both[test.b], method="exact")
        assert test.p_wilcoxon == pytest.approx(signed.pvalue)
    corrected: Any = multipletests([t.p for t in tests], method="holm")[1]
    assert [t.p_corrected for t in tests] == pytest.approx(corrected.tolist())


def test_the_effect_is_not_biased():
    """Hedges' correction makes the mean of d_z what it is of all seeds: 0.8 here, of any n."""
    for n in (3, 5, 20):
        draws = rng(n).normal(0.8, 1, (n, 4000))
        raw = draws.mean(axis=0) / draws.std(axis=0, ddof=1)
        found = raw * statistics.hedges(n - 1)
        assert found.mean() == pytest.approx(0.8, abs=4 * found.std() / math.sqrt(4000))
    differences = draws[:, 0]
    (test,) = statistics.pair_tests(pd.DataFrame({"a": differences, "b": 0 * differences}))
    assert test.effect == pytest.approx(found[0])
    assert statistics.hedges(30) == pytest.approx(1 - 3 / (4 * 30 - 1), rel=1e-3)


TIED = [[1, 1, 2, -1, 3], [-1, -1, 2, 4, 5], [0, 0, 2, -2, 2, 5], [0, 0], [1, 2], [3] * 8]


@pytest.mark.parametrize("values", TIED)
def test_signed_ranks_with_ties_are_exact(values):
    """Against all flips of the signs."""
    moved = np.array([v for v in values if v])
    ranks = stats.rankdata(np.abs(moved))
    flips = [np.dot(ranks, signs) for signs in itertools.product([0, 1], repeat=len(moved))]
    total = ranks[moved > 0].sum()
    below, above = (
        np.mean(test(np.array(flips), total)) for test in (np.less_equal, np.greater_equal)
    )
    found = statistics._signed_rank_p(np.array(values, float))
    assert found == pytest.approx(min(1, 2 * min(below, above)))


def test_equal_differences_say_nothing_of_their_spread():
    """3 signs alike have p = 2 / 2^3, 10 have 2 / 2^10; no interval of width 0, no p of 0."""
    frame = pd.DataFrame({"a": [0.1, 0.2, 0.7], "b": [0.1, 0.2, 0.7], "c": [0.2, 0.3, 0.8]})
    same, below, _ = statistics.pair_tests(frame)
    assert (same.difference, same.p, same.p_corrected) == (0, 1, 1)
    assert (below.difference, below.p, below.p_wilcoxon) == pytest.approx((-0.1, 0.25, 0.25))
    assert all(math.isnan(x) for t in (same, below) for x in (t.low, t.high, t.effect))
    assert statistics.best_of(frame, "high") == ("c", ("a", "b"), ())
    ten = settings_frame([0.0], seeds=10)
    (test,) = statistics.pair_tests(ten.assign(above=ten + 0.25))
    assert test.p == pytest.approx(2 / 2**10)


@pytest.mark.parametrize("by", [0.0, 1.0])
def test_rounding_is_no_spread_and_no_effect(by):
    """A setting that changes nothing but the rounding of float32, or adds the same to all."""
    values = rng().normal(6000, 30, size=12)
    rounded = (values + by * (1 + 1e-5 * rng(1).random(12))).astype(np.float32)
    frame = pd.DataFrame({"a": values, "b": rounded.astype(float)})
    (test,) = statistics.pair_tests(frame)
    assert test.p == pytest.approx(2 / 2**12 if by else 1)
    assert math.isnan(test.low)


def test_pairs_that_share_hardly_a_seed():
    frame: Any = pd.DataFrame(
        {"a": [1, 2, NAN], "b": [NAN, 1, 3], "c": [0.5, 0.7, NAN], "d": [NAN] * 3}
    )
    tests = {(t.a, t.b): t for t in statistics.pair_tests(frame)}
    assert tests["a", "b"][2:4] == (1, 1)
    assert all(math.isnan(value) for value in tests["a", "b"][4:])
    assert all(math.isnan(value) for value in tests["a", "d"][3:])
    two = tests["a", "c"]
    assert two.n == 2
    assert two.p_corrected == two.p == pytest.approx(stats.ttest_1samp([0.5, 1.3], 0)[1])
    assert math.isnan(two.effect)
    assert statistics.pair_tests(frame[["a"]]) == []


@pytest.mark.parametrize("p", [[], [NAN], [0.01], [0.04, 0.01, 0.03, 0.5], [0.2, 0.2, 0.9]])
def test_holm_is_statsmodels(p):
    values = np.array(p, float)
    wanted: Any = multipletests(p, method="holm")[1] if p and p[0] == p[0] else values
    np.testing.assert_allclose(statistics.holm(values), wanted)
    with_nan = statistics.holm(np.append(values, NAN))
    np.testing.assert_allclose(with_nan, np.append(wanted, NAN))


@pytest.mark.parametrize(("settings", "seeds"), [(4, 5), (6, 10)])
def test_where_no_setting_differs_at_most_1_in_20_tables_tells_any_apart(settings, seeds):
    """By marks or sentences, which never contradict each other."""
    found, runs = [], 150
    for k in range(runs):
        frame = settings_frame([0] * settings, seeds, key=2 * k)
        apart = [{t.a, t.b} for t in statistics.pair_tests(frame) if t.p_corrected <= 0.05]
        best, tied, _ = statistics.best_of(frame, "high")
        assert {best, *tied} == set(frame) - set().union(*(p - {best} for p in apart if best in p))
        found.append(bool(apart))
    assert np.mean(found) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


# The best


def test_best_and_those_that_are_tied_with_it():
    frame = settings_frame([0.1, 0.5, 0.5, 0.9], seeds=8, noise=0.02)
    frame["none"] = NAN
    assert statistics.best_of(frame, "high") == ("s3", (), ())
    assert statistics.best_of(frame, "low") == ("s0", (), ())
    best, tied, _ = statistics.best_of(frame[["s0", "s1", "s2"]], "high")
    assert {best, *tied} == {"s1", "s2"}
    frame["different"] = [0.2, *[NAN] * 7]
    assert statistics.best_of(frame, "high") == ("s3", (), ("different",))
    frame["alone"] = [5.0, *[NAN] * 7]
    assert statistics.best_of(frame, "high") == ("alone", (), ("s0", "s1", "s2", "s3", "different"))
    assert statistics.best_of(frame[["s2"]], "high") == ("s2", (), ())
    with pytest.raises(ValueError, match="no number"):
        statistics.best_of(frame[["none"]], "high")


def test_the_best_is_corrected_for_all_pairs():
    frame = settings_frame([0.2, 0.12, 0.11, 0.0, 0.1, 0.16], seeds=5, noise=0.04, key=5)
    best, tied, _ = statistics.best_of(frame, "high", alpha=0.3)
    pairs = list(itertools.combinations(frame, 2))
    p = [stats.ttest_rel(frame[a], frame[b]).pvalue for a, b in pairs]
    rejected = multipletests(p, alpha=0.3, method="holm")[0]
    apart = [{*pair} for pair, told in zip(pairs, rejected, strict=True) if told and best in pair]
    assert 0 < len(apart) < len(frame.columns) - 1
    assert set(tied) == set(frame) - set.union(*apart)


def test_what_has_the_better_mean_is_not_worse():
    """Best by a seed that the other lacks, and below it in all seeds that both have."""
    frame = settings_frame([0.1, 0.5], seeds=8, noise=0.01)
    frame.loc[8, "s0"] = 9.0
    assert statistics.pair_tests(frame)[0].p_corrected < 0.001
    assert statistics.best_of(frame, "high") == ("s0", ("s1",), ())


def test_the_best_by_interquartile_mean():
    frame = pd.DataFrame({"outlier": [0.1, 0.1, 0.1, 9.0], "solid": [0.2, 0.21, 0.19, 0.2]})
    assert statistics.best_of(frame, "high")[0] == "outlier"
    assert statistics.best_of(frame, "high", average="iqm") == ("solid", ("outlier",), ())


@pytest.mark.parametrize(
    ("values", "better", "wanted"),
    [
        ({"a": [1, NAN], "b": [NAN, 2]}, "high", True),
        ({"a": [1, 2], "b": [NAN, NAN]}, "low", False),
        ({"a": [1, 2], "b": [1, 2]}, "", False),
        ({"a": [1, 2]}, "high", False),
        ({"a": [1, 1], "b": [1, NAN]}, "high", False),
        ({}, "high", False),
    ],
)
def test_a_best_needs_an_end_that_is_better_and_a_rival(values, better, wanted):
    assert statistics.comparable(pd.DataFrame(values, dtype=float), better) is wanted


# Ranks


def test_ranks_are_those_of_all_resamples():
    frame = settings_frame([0.0, 0.05, 0.1], seeds=4)
    found = seeds_tell.rank_stability(frame, "low", resamples=40_000)
    shares, ranks, taus = [], [], []
    for drawn in itertools.product(range(4), repeat=4):
        means = frame.to_numpy()[list(drawn)].mean(axis=0)
        shares.append(means == means.min())
        ranks.append(stats.rankdata(means))
        taus.append(stats.kendalltau(means, frame.mean())[0])
    assert list(found.best_share.values()) == pytest.approx(np.mean(shares, axis=0), abs=0.015)
    assert list(found.mean_rank.values()) == pytest.approx(np.mean(ranks, axis=0), abs=0.02)
    assert found.kendall == pytest.approx(np.mean(taus), abs=0.015)


def test_ranks_of_settings_that_are_equal():
    frame = settings_frame([0.5, 0.1], noise=0.01)
    frame["twin"] = frame["s0"]
    found = seeds_tell.rank_stability(frame, "high")
    assert found.best_share == pytest.approx({"s0": 0.5, "s1": 0, "twin": 0.5})
    assert found.mean_rank == pytest.approx({"s0": 1.5, "s1": 3, "twin": 1.5})
    assert found.kendall == pytest.approx(1)
    equal = seeds_tell.rank_stability(frame[["s0", "twin"]], "high")
    assert equal.best_share == {"s0": 0.5, "twin": 0.5}
    assert math.isnan(equal.kendall)


def test_ranks_with_missing_seeds():
    frame = settings_frame([0.9, 0.5, 0.1], seeds=5, noise=0.01)
    frame.iloc[0, 0] = frame.iloc[1, 2] = NAN
    frame["none"] = NAN
    found = seeds_tell.rank_stability(frame, "high")
    assert found.best_share == {"s0": 1, "s1": 0, "s2": 0}
    assert found.kendall == 1
    apart = pd.DataFrame({"a": [1, NAN], "b": [NAN, 2]})
    assert seeds_tell.rank_stability(apart, "high", resamples=50).mean_rank["a"] == 2
    nothing = seeds_tell.rank_stability(apart.where(apart > 5), "high")
    assert nothing.best_share == {}
    assert math.isnan(nothing.kendall)


@pytest.mark.parametrize("seeds", [1, 2, 9])
def test_ranks_of_one_setting_and_of_many(seeds):
    one = seeds_tell.rank_stability(settings_frame([0.5], seeds=seeds), "high")
    assert (one.best_share, one.mean_rank) == ({"s0": 1}, {"s0": 1})
    assert math.isnan(one.kendall)
    many = seeds_tell.rank_stability(settings_frame([0.5] * 30, seeds=seeds), "high")
    assert sum(many.best_share.values()) == pytest.approx(1)
    assert np.mean(list(many.mean_rank.values())) == pytest.approx(15.5)


# Variances


@pytest.mark.parametrize("seeds", [2, 5])
def test_variances_are_statsmodels(seeds):
    frame = settings_frame([0.0, 0.1, 0.4], seeds=seeds)
    long = members_of(frame)
    table = anova_lm(ols("mig ~ C(setting) + C(seed)", long).fit())
    shares = (table["sum_sq"] / table["sum_sq"].sum()).to_dict()
    wanted = {
        "setting": shares["C(setting)"],
        "seed": shares["C(seed)"],
        "rest": shares["Residual"],
    }
    found = seeds_tell.variance_split(frame)
    assert found == pytest.approx(wanted)
    assert sum(found.values()) == pytest.approx(1)
    ragged = pd.concat([frame, pd.DataFrame({"s0": [5.0]}, index=[99])])
    ragged["none"] = NAN
    assert seeds_tell.variance_split(ragged) == pytest.approx(wanted)


def test_variances_by_chance_are_as_large_as_is_said():
    draws = [rng(k).normal(size=(5, 4)) for k in range(400)]
    found = [seeds_tell.variance_split(pd.DataFrame(d))["setting"] for d in draws]
    assert np.mean(found) == pytest.approx(3 / 19, abs=0.02)


def test_variances_of_nothing():
    constant = pd.DataFrame(0.1, index=range(4), columns=["a", "b"])
    one_seed, one_setting = settings_frame([1, 2], seeds=1), settings_frame([1])
    for frame in (constant, one_seed, one_setting, constant.where(constant > 1)):
        assert all(math.isnan(share) for share in seeds_tell.variance_split(frame).values())


def test_the_share_that_noise_gives_the_setting():
    drawn = [pd.DataFrame(rng(k).normal(size=(2, 3))) for k in range(300)]
    shares = [seeds_tell.variance_split(frame)["setting"] for frame in drawn]
    mean, limit = seeds_tell.setting_by_chance(drawn[0])
    assert (mean, np.mean(shares)) == (pytest.approx(0.4), pytest.approx(0.4, abs=0.05))
    assert np.mean(np.array(shares) > limit) == pytest.approx(0.05, abs=0.04)
    assert all(math.isnan(x) for x in seeds_tell.setting_by_chance(drawn[0].head(1)))


# More steps


@pytest.mark.parametrize(
    ("last", "wanted"), [(-100.0, 10.0), (-109.9, 0), (-120.0, 0), (NAN, 0)], ids=str
)
def test_the_rise_at_the_end(last, wanted):
    elbo = np.where(np.arange(1, 101) > 90, last, -110.0)
    elbo[:80] = np.linspace(-900, -120, 80)  # what came before is not the end
    records = [{"step": 5 * k, "split": "train", "elbo": e} for k, e in enumerate(elbo, 1)]
    records += [{"step": 5 * k, "split": "holdout", "elbo": 1e6 * k} for k in range(100)]
    assert statistics.rise_at_end(records) == (pytest.approx(wanted), False)


def test_the_rise_at_the_end_of_few_records():
    records = [{"step": k, "split": "train", "elbo": -1000.0 / k} for k in (50, 100, 150, 200, 250)]
    assert statistics.rise_at_end(records) == (pytest.approx(1.0), True)
    assert statistics.rise_at_end(records[:1]) == (pytest.approx(NAN, nan_ok=True), True)
    assert statistics.rise_at_end([]) == (0.0, True)
    # Of 300 steps the last record is of the last sixth: no tenth has a record of its own.
    records = [{"step": k, "split": "train", "elbo": -1000.0 / k} for k in range(50, 301, 50)]
    assert statistics.rise_at_end(records) == (pytest.approx(2 / 3), True)
    records[-1]["elbo"] = -1.0
    assert statistics.rise_at_end(records) == (pytest.approx(3.0), True)


# Agreement


@pytest.mark.parametrize("runs", [2, 3, 5, 7])
def test_correlations_that_noise_gives_are_those_of_all_orders(runs):
    orders = np.array(list(itertools.permutations(range(runs))))
    moved = np.square(orders - orders[0]).sum(axis=1)
    sizes = np.abs(1 - 6 * moved / (runs * (runs**2 - 1)))  # Spearman 1904
    limit = statistics.agreement_by_chance(runs)
    assert np.mean(sizes > limit + 1e-9) <= 0.05
    assert np.mean(sizes > limit - 1e-9) > 0.04


def test_agreement_is_scipys():
    members: Any = pd.DataFrame(rng().normal(size=(12, 3)).round(1), columns=["a", "b", "c"])
    members["constant"], members["setting"] = 1.0, "x"
    members.loc[3, "b"], members.loc[4, "c"] = NAN, math.inf
    found: Any = statistics.agreement(members, ("a", "b", "c", "constant"))
    assert list(found.index) == list(found.columns) == ["a", "b", "c", "constant"]
    for a, b in itertools.product("abc", repeat=2):
        both = members[np.isfinite(members[a]) & np.isfinite(members[b])]
        assert found.loc[a, b] == pytest.approx(stats.spearmanr(both[a], both[b])[0])
    assert found["constant"].isna().all()
    assert statistics.agreement(members[:1], ("a", "b")).isna().all(axis=None)


# Words


@pytest.mark.parametrize(
    ("test", "words"),
    [
        (
            PairTest("β = 4", "β = 6", 5, 0.012, -0.0101, 0.0342, 0.2, 0.312, 0.3, 0.4),
            "β = 4 and β = 6 cannot be told apart "
            "(difference 0.0120 [-0.0101, 0.0342], p = 0.31 corrected, effect 0.4, n = 5)",
        ),
        (
            PairTest("β = 4", "β = 1", 5, 0.12, 0.08, 0.163, 0.001, 0.003, 0.06, 2.13),
            "β = 4 is above β = 1 by 0.120 [0.080, 0.163] (p = 0.003 corrected, effect 2.1, n = 5)",
        ),
        (
            PairTest("a", "b", 2, -1234.5, -1300.2, -1200.0, 1e-9, 1e-8),
            "a is below b by 1234 [1200, 1300] (p < 0.001 corrected, n = 2)",
        ),
        (
            PairTest("a", "b", 3, 0.5, 0.5, 0.5, 0.0, 0.0, 0.25, math.inf),
            "a is above b by 0.500 [0.500, 0.500] (p < 0.001 corrected, effect inf, n = 3)",
        ),
        (
            PairTest("a", "b", 3, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0),
            "a and b cannot be told apart (difference 0 [0, 0], p = 1 corrected, effect 0, n = 3)",
        ),
        (
            PairTest("a", "b", 1, 0.5),
            "nothing can be said of a and b: 1 seed has it in both, not 2 or more",
        ),
        (
            PairTest("a", "b", 0, NAN),
            "nothing can be said of a and b: no seed has it in both, not 2 or more",
        ),
    ],
)
def test_sentences(test, words):
    assert statistics.sentence(test, "mig") == f"mig: {words}"
