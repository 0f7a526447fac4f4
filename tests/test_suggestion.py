"""Which setting agrees most between seeds, what is said of it, and what is not."""

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bvae_jax.comparison import suggest
from bvae_jax.comparison.agreement import SettingEvidence, _median, _pairs, gather, udr_variance
from bvae_jax.comparison.suggest import choose
from bvae_jax.errors import UserError

MEASURES = ("lasso", "spearman")
DEAD = 0.001


def rotation(rng, k):
    return np.linalg.qr(rng.standard_normal((k, k)))[0]


def factors(n, k=4):
    """Neither Gaussian nor alike, so that they have axes."""
    return np.random.default_rng(0).random((n, k)) ** np.arange(1, k + 1)


def run_of(kind, seed, n, latents=6):
    """Codes [n, latent] and their KL, of a run that found the factors, a rotation, or nothing."""
    rng = np.random.default_rng([seed, len(kind)])
    true = stats.zscore(factors(n))
    alive = {
        "good": lambda: true,
        "bad": lambda: true @ rotation(rng, 4),
        "noise": lambda: rng.standard_normal((n, 4)),
        "collapsed": lambda: true[:, :1],
    }[kind]()
    count = alive.shape[1]
    alive = alive * rng.choice([-1, 1], count) * rng.uniform(0.2, 2, count)
    alive = alive + 0.2 * alive.std(axis=0) * rng.standard_normal(alive.shape)
    codes = DEAD * rng.standard_normal((n, latents))
    kl = np.full(latents, DEAD)
    where = rng.permutation(latents)[:count]
    codes[:, where], kl[where] = alive, 2.0
    return codes.astype(np.float32), kl


def sweep(kinds, seeds=range(5), n=300):
    """Codes, KL and table of members: a setting for each kind, with betas 1, 2, 4, ..."""
    codes, kl, rows = {}, {}, {}
    for number, kind in enumerate(kinds):
        for seed in seeds:
            name = f"{kind},seed={seed}"
            codes[name], kl[name] = run_of(kind, seed, n)
            numbers = {"kl": kl[name].sum() + seed, "nll": 20.0 + number, "elbo": -30.0 - number}
            rows[name] = {"setting": kind, "seed": seed, "beta": 2.0**number} | numbers
    return codes, kl, pd.DataFrame.from_dict(rows, orient="index")


def gathered(kinds, seeds=range(5), n=300):
    return gather(*sweep(kinds, seeds, n), settings=kinds, varied=("beta",))


def lasso(x, y, alpha=0.1):
    """argmin over w of |y - x w|^2 / 2n + alpha |w|, by proximal gradients."""
    n, w = len(x), np.zeros(x.shape[1])
    gram, target = x.T @ x / n, x.T @ y / n
    step = 1 / np.linalg.eigvalsh(gram)[-1]
    for _ in range(3000):
        w = w - step * (gram @ w - target)
        w = np.sign(w) * np.maximum(np.abs(w) - step * alpha, 0)
    return np.abs(w)


def udr_of_pair(first, second, measure):
    """Duan et al. (2020), section 4, step by step."""
    a, b = (
        [np.asarray(stats.zscore(z)) for z in run.T if z.var() > 0.01] for run in (first, second)
    )
    if measure == "lasso":
        similarity = np.stack([lasso(np.stack(a, axis=1), z) for z in b], axis=1)
    else:
        similarity = np.abs(np.array([[stats.spearmanr(x, y)[0] for y in b] for x in a]))
    columns = [max(column) ** 2 / sum(column) if sum(column) else 0 for column in similarity.T]
    rows = [max(row) ** 2 / sum(row) if sum(row) else 0 for row in similarity]
    return (np.mean(columns) + np.mean(rows)) / 2


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("kind", ["good", "bad"])
def test_udr_by_brute_force(kind, measure):
    codes, kl, members = sweep([kind], seeds=range(4))
    extra = f"{kind},seed=2"
    codes[extra] = stats.zscore(codes[extra])  # of this run all latents are active
    (evidence,) = gather(codes, kl, members, settings=[kind])
    runs = list(codes.values())
    wanted = [
        np.median([udr_of_pair(a, b, measure) for j, a in enumerate(runs) if j != i])
        for i, b in enumerate(runs)
    ]
    found = {"lasso": evidence.udr_lasso, "spearman": evidence.udr_spearman}[measure]
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert evidence.udr(measure) == pytest.approx(np.median(wanted), abs=1e-4)
    assert evidence.active.tolist() == [4, 4, 6, 4]
    assert evidence.latents == 6


def test_numbers_are_those_of_the_members_in_the_order_of_their_seeds():
    codes, kl, members = sweep(["good", "bad"])
    first, second = gather(
        codes,
        kl,
        members.sort_index(ascending=False),
        settings=["bad", "none", "good"],
        varied=("beta",),
    )
    assert (first.setting, second.setting) == ("bad", "good")
    assert second.seeds == (0, 1, 2, 3, 4)
    np.testing.assert_allclose(first.rate, 8 + 2 * DEAD + np.arange(5))
    assert (first.distortion.tolist(), first.elbo.tolist()) == ([21] * 5, [-31] * 5)
    assert (first.values, second.values) == ({"beta": 2.0}, {"beta": 1.0})
    assert first.n == 5


@pytest.mark.parametrize("measure", MEASURES)
def test_the_planted_order_is_found(measure):
    kinds = ["noise", "good", "bad", "collapsed"]
    found = choose(gathered(kinds), measure=measure)
    assert found.setting == "good"
    assert [row.setting for row in found.ranking] == ["good", "bad", "noise", "collapsed"]
    good, bad, noise, _ = found.ranking
    assert good.udr > 0.7 > 0.6 > bad.udr > noise.udr
    assert good.low > bad.high
    assert all(row.low <= row.udr <= row.high for row in found.ranking)
    assert "place 1 of 4" in found.reasons[0]
    assert found.reasons[1].startswith("The next, bad, is 0.")
    assert "The seeds tell good from all others." in found.reasons
    assert found.headline() == "Suggested: good (*)."
    assert any(s.startswith("Collapsed: collapsed (") for s in found.cautions)


def test_latents_and_runs_may_come_in_any_order():
    kinds = ["good", "bad"]
    codes, kl, members = sweep(kinds, seeds=range(4))
    rng = np.random.default_rng(3)
    for name in codes:
        order, scale = rng.permutation(6), rng.choice([-1, 1], 6) * rng.uniform(0.5, 5, 6)
        codes[name] = (codes[name][:, order] * scale + 3).astype(np.float32)
        kl[name] = kl[name][order]
    shuffled = members.reindex(rng.permutation(list(codes)))
    found = choose(gather(codes, kl, shuffled, settings=kinds, varied=("beta",)))
    wanted = choose(gathered(kinds, seeds=range(4)))
    assert (found.setting, len(found.reasons)) == (wanted.setting, len(wanted.reasons))
    for row, other in zip(found.ranking, wanted.ranking, strict=True):
        assert row.setting == other.setting
        np.testing.assert_allclose(row[1:], other[1:], atol=2e-3)


def test_many_runs_are_compared_with_ten_others():
    codes, kl, members = sweep(["good", "bad"], seeds=range(13), n=60)
    evidence = gather(codes, kl, members, settings=["good", "bad"])
    for e in evidence:
        for pairs in e.pairs.values():
            compared = ~np.isnan(pairs)
            np.testing.assert_array_equal(compared, compared.T)
            assert not compared.diagonal().any()
            assert compared.sum(axis=0).tolist() == [10] * 13
    found = choose(evidence)
    assert found.setting == "good"
    assert any("compared with 10" in reason for reason in found.reasons)
    again = gather(codes, kl, members.sort_index(ascending=False), settings=["good", "bad"])
    assert choose(again).ranking == found.ranking


@pytest.mark.parametrize(("runs", "count"), [(1, 0), (2, 1), (11, 55), (12, 60), (50, 250)])
def test_number_of_comparisons(runs, count):
    assert len(_pairs(runs)) == count


def made(setting, udr=0.5, *, n=5, spread=0.0, seeds=None, active=5.0, rate=10.0, **more):
    """Evidence with UDR given, by both measures unless `spearman` says otherwise."""
    pairs = {}
    for measure, value in (("lasso", udr), ("spearman", more.pop("spearman", udr))):
        rng = np.random.default_rng(len(setting))
        pairs[measure] = np.where(np.eye(n), np.nan, value + spread * rng.standard_normal((n, n)))
    full = {"values": {}, "elbo": np.full(n, -50.0), "distortion": np.full(n, 40.0)} | more
    return SettingEvidence(
        setting=setting, seeds=seeds or tuple(range(n)), pairs=pairs, latents=10,
        rate=np.full(n, float(rate)), active=np.full(n, active), **full,
    )  # fmt: skip


def said(found, part):
    """Whether a sentence contains this."""
    return any(part in sentence for sentence in [*found.reasons, *found.cautions])


def test_collapsed_settings_are_chosen_only_if_nothing_else_is_there():
    weak, dead, dying = made("weak", 0.1), made("dead", 0.9, active=0), made("x", 0.8, active=1.9)
    found = choose([dead, weak, dying])
    assert found.setting == "weak"
    assert [row.setting for row in found.ranking] == ["weak", "dead", "x"]
    assert said(found, "Collapsed: dead, x (fewer than 2 active latents")
    assert not said(found, "all others"), "there is none that it could be compared with"
    all_dead = choose([dead, dying])
    assert all_dead.setting == "dead"
    assert not made("alive", active=2).collapsed
    assert said(all_dead, "All settings are collapsed")
    alone = choose([made("alone", n=1), dead])
    assert alone.setting is None
    assert said(alone, "Nothing can be compared")


def test_collapsed_runs_are_compared_without_a_warning():
    codes, kl, members = sweep(["good"], seeds=range(3))
    codes = {name: DEAD * z for name, z in codes.items()}
    (evidence,) = gather(codes, kl, members, settings=["good"])
    assert evidence.udr("lasso") == evidence.udr("spearman") == 0
    assert evidence.collapsed
    (row,) = choose([evidence]).ranking
    assert row[:2] == ("good", 0)
    assert math.isnan(row.low), "runs that are all equal do not show how far seeds differ"


def test_one_seed_each_can_not_be_compared():
    evidence = gathered(["good", "bad"], seeds=range(7, 8))
    assert np.isnan([evidence[0].udr_lasso, evidence[1].udr_spearman]).all()
    found = choose(evidence)
    assert found.setting is None
    assert "Nothing can be compared" in found.reasons[0]
    assert said(found, "One run only, which nothing can be compared with: good, bad.")
    assert suggest.in_words(found).startswith("No suggestion")
    mixed = choose([made("alone", n=1), made("b", 0.2), made("lone", n=1), made("d", 0.4)])
    assert [row.setting for row in mixed.ranking] == ["d", "b", "alone", "lone"]
    assert said(mixed, "compared with: alone, lone.")
    by_rate = choose(evidence, rate=1.0)
    assert by_rate.setting == "good"
    assert said(by_rate, "good has one run and no UDR")


def test_one_setting_and_two_runs():
    found = choose(gathered(["good"], seeds=range(2)))
    assert found.setting == "good"
    ((_, udr, low, high),) = found.ranking
    assert udr > 0.8
    assert math.isnan(low)
    assert math.isnan(high)
    assert said(found, "Fewer than 5 runs, others may change the order: good.")
    pair = choose([made("a", 0.9, n=2), made("b", 0.1, n=2)])
    assert said(pair, "The next, b, is 0.800 lower.")
    assert said(pair, "The seeds cannot tell a from b.")
    assert pair.headline() == "Suggested: a (*), but the seeds cannot tell it from b."


def test_one_latent():
    codes, kl, members = sweep(["good"], seeds=range(3))
    one = {name: z[:, np.argmax(kl[name])][:, None] for name, z in codes.items()}
    kl = {name: np.ones(1) for name in one}
    (evidence,) = gather(one, kl, members, settings=["good"])
    assert (evidence.latents, evidence.active.tolist()) == (1, [1, 1, 1])
    assert evidence.collapsed


@pytest.mark.parametrize("shape", [(7, 7), (6, 6), (1, 1), (3, 6, 5)])
def test_the_median_leaves_nan_out(shape):
    rng = np.random.default_rng(0)
    values = np.where(rng.random(shape) < 0.3, np.nan, rng.standard_normal(shape))
    values[..., 0] = np.nan
    wanted = np.moveaxis(values, -2, -1).reshape(-1, shape[-2])
    wanted = [np.median(v[~np.isnan(v)]) if (~np.isnan(v)).any() else np.nan for v in wanted]
    found = _median(values, axis=-2)
    np.testing.assert_allclose(found.ravel(), wanted)


def by_quality(setting, quality, seeds, rng, noise=0.05):
    """A pair of runs scores the mean of their quality and noise: pairs depend on each other."""
    n = len(quality)
    pairs = (quality[:, None] + quality) / 2 + noise * rng.standard_normal((n, n))
    pairs = np.where(np.eye(n), np.nan, (pairs + pairs.T) / 2)
    return made(setting, n=n, seeds=seeds)._replace(pairs=dict.fromkeys(MEASURES, pairs))


def test_of_many_settings_that_are_alike_the_first_is_seldom_told_apart():
    """Chosen by the numbers that it is compared by: 28 pairs, any of which may look different."""
    rng, trials, settings = np.random.default_rng(0), 60, [f"s{k}" for k in range(8)]
    apart = 0
    for _ in range(trials):
        quality = 0.5 + 0.1 * rng.standard_normal((8, 10))
        given = zip(settings, quality, strict=True)
        found = choose([by_quality(name, own, tuple(range(10)), rng) for name, own in given])
        apart += not said(found, "4 others.")  # and 3 by name are not told from the first
    assert apart < 0.1 * trials


@pytest.mark.parametrize(("n", "shared"), [(5, True), (10, True), (10, False)])
def test_settings_that_are_alike_are_seldom_told_apart(n, shared):
    rng, trials = np.random.default_rng(0), 200
    apart = naive = covered = 0
    for _ in range(trials):
        quality = 0.5 + 0.1 * rng.standard_normal((2, n))
        seeds = [tuple(range(n)), tuple(range(n) if shared else range(n, 2 * n))]
        a, b = (
            by_quality("a", quality[0], seeds[0], rng),
            by_quality("b", quality[1], seeds[1], rng),
        )
        found = choose([a, b])
        apart += said(found, "from all others")
        naive += stats.mannwhitneyu(a.udr_lasso, b.udr_lasso).pvalue < 0.05
        covered += found.ranking[0].low <= 0.5 <= found.ranking[0].high
    assert apart < 0.1 * trials
    assert naive > 0.2 * trials, "so a rank test would not do"
    assert covered > 0.85 * trials


@pytest.mark.parametrize("n", [4, 5, 10, 14])
@pytest.mark.parametrize(("of_run", "of_pair"), [(0.0, 0.02), (0.02, 0.02), (0.02, 0.0)])
def test_intervals_of_udr_hold_it_and_are_not_much_wider_than_that(n, of_run, of_pair):
    rng, errors, halves = np.random.default_rng(0), [], []
    for _ in range(300):
        run, pair = of_run * rng.standard_normal(n), of_pair * rng.standard_normal((n, n))
        pairs = np.full((n, n), np.nan)
        for i, j in _pairs(n):
            pairs[i, j] = pairs[j, i] = 0.5 + run[i] + run[j] + pair[i, j]
        e = made("a", n=n)._replace(pairs=dict.fromkeys(MEASURES, pairs))
        errors.append(e.udr("lasso") - 0.5)
        halves.append(stats.t.ppf(0.975, n - 1) * math.sqrt(udr_variance(pairs)))
    assert np.mean(np.abs(errors) < halves) > 0.93
    assert np.mean(halves) < 2.6 * 1.96 * np.std(errors)


def test_too_few_runs_have_no_variance():
    two = np.array([[np.nan, 0.5], [0.5, np.nan]])
    assert math.isnan(udr_variance(two))
    assert math.isnan(udr_variance(np.full((4, 4), np.nan)))


def test_settings_that_differ_are_told_apart():
    rng, apart = np.random.default_rng(0), 0
    for _ in range(50):
        common = 0.2 * rng.standard_normal(8)  # a good seed is good in both settings
        own = 0.03 * rng.standard_normal((2, 8))
        a = by_quality("a", 0.55 + common + own[0], tuple(range(8)), rng, 0.02)
        b = by_quality("b", 0.45 + common + own[1], tuple(range(8)), rng, 0.02)
        apart += said(choose([a, b]), "The seeds tell a from all others.")
    assert apart > 35, "seeds are paired: their own spread is twice the difference"


def half_of_next(found):
    """What is said of the next setting: it is so much lower +- this."""
    return float(next(r for r in found.reasons if "±" in r).split("± ")[1].split(" ")[0])


def test_intervals_are_as_wide_as_all_pairs_ask_for():
    evidence = [made("a" * k, 0.9 - 0.2 * k, spread=0.1) for k in (1, 2, 3, 4)]
    one, six = half_of_next(choose(evidence[:2])), half_of_next(choose(evidence))
    wanted = stats.t.isf(0.025 / 6, 4) / stats.t.isf(0.025, 4)
    assert six / one == pytest.approx(wanted, rel=0.02)


def test_two_runs_of_either_setting_are_too_few_to_tell():
    many, two = made("a", 0.9, spread=0.01, n=6), made("bb", 0.1, spread=0.01, n=2)
    assert said(choose([many, two]), "The seeds cannot tell a from bb.")
    assert said(choose([many, made("bb", 0.1, spread=0.01, n=3)]), "The seeds tell a from all")


def test_intervals_of_udr_lie_between_0_and_1():
    high, low = choose([made("a", 0.9, spread=0.2), made("bb", 0.1, spread=0.2)]).ranking
    assert 0 < high.low < high.udr < high.high == 1
    assert 0 == low.low < low.udr < low.high < 1


def test_seeds_may_be_missing():
    a = made("a", 0.7, spread=0.02, n=4, seeds=(0, 2, 5, 9))
    b = made("bb", 0.3, spread=0.02, n=6, seeds=(1, 2, 3, 5, 8, 11))
    found = choose([a, b])
    assert found.setting == "a"
    assert said(found, "The seeds tell a from all others.")
    assert choose([b, a]).ranking == found.ranking


def test_the_setting_of_a_rate():
    evidence = [made("a", 0.2, rate=30), made("b", 0.9, rate=20), made("c", 0.5, rate=11)]
    found = choose(evidence, rate=13.0)
    assert found.setting == "c"
    assert found.reasons[0] == "c has the mean KL nearest to 13 nats: 11.0, 2.0 below."
    assert found.reasons[1].startswith("c has a median UDR (lasso) of 0.500")
    assert "place 2 of 3" in found.reasons[1]
    assert [row.setting for row in found.ranking] == ["b", "c", "a"]
    assert said(found, "The target lies between c (11.0) and b (20.0)")
    for reached in (11.0, 30.0):
        assert not said(choose(evidence, rate=reached), "The target ")
    assert not said(found, "beyond what is reached")
    assert said(choose(evidence, rate=50.0), "beyond what is reached: 11.0 to 30.0")
    up_and_down = [(1, 9.9), (2, 11.0), (4, 10.4), (8, 8.5)]
    given = [made(f"β = {b}", rate=of, values={"beta": b}) for b, of in up_and_down]
    between = "between β = 1 (9.9) and β = 2 (11.0), and between β = 4 (10.4) and β = 8 (8.5): what"
    assert said(choose(given, rate=10.0), f"The target lies {between}")
    alone = [made("a", n=1, rate=30), made("b", n=1, rate=11)]
    assert choose(alone, rate=13.0).reasons[1] == "b has one run and no UDR."
    unknown = made("n", rate=math.nan)
    assert choose([unknown, *evidence], rate=29.0).setting == "a"
    with pytest.raises(UserError, match="without a KL"):
        choose([unknown], rate=29.0)


@pytest.mark.parametrize("rate", [-1.0, math.nan, math.inf])
def test_impossible_rates(rate):
    with pytest.raises(UserError, match=f"--rate: got {rate}, wanted a KL in nats"):
        choose([made("a")], rate=rate)


def test_other_mistakes():
    with pytest.raises(UserError, match=r"got none with a finished run"):
        choose([])
    codes, kl, members = sweep(["good"], seeds=range(2))
    members["seed"] = 3
    with pytest.raises(UserError, match="got runs of seeds 3, 3, wanted one run for each seed"):
        gather(codes, kl, members, settings=["good"])
    codes["good,seed=1"][2, 0] = np.nan
    with pytest.raises(UserError, match=r"codes of good,seed=1: 1 of 1800 numbers are not finite"):
        gather(codes, kl, members.assign(seed=range(2)), settings=["good"])


def betas(*settings, **more):
    """(beta, udr) or (beta, udr, elbo)."""
    return [
        made(f"β = {beta}", udr, values={"beta": beta}, elbo=np.full(5, *elbo or [-50.0]), **more)
        for beta, udr, *elbo in settings
    ]


@pytest.mark.parametrize(
    ("settings", "caution"),
    [
        ([(1, 0.2), (4, 0.5), (16, 0.3)], None),
        ([(1, 0.2), (4, 0.5), (16, 0.8)], "β = 16 has the largest beta that was tried: try beyond"),
        ([(1, 0.7), (4, 0.5), (16, 0.1)], "β = 1 has the smallest beta that was tried"),
        ([(0, 0.7), (4, 0.5), (16, 0.1)], None),
        ([(4, 0.5)], None),
    ],
)
def test_the_end_of_the_range(settings, caution):
    found = choose(betas(*settings))
    assert said(found, caution or "was tried") == bool(caution)


def test_a_kl_between_those_that_were_reached_is_not_looked_for_beyond():
    values = ((1, 25.0), (16, 4.0))
    evidence = [made(f"β = {b}", rate=rate, values={"beta": b, "steps": b}) for b, rate in values]
    assert not said(choose(evidence, rate=10.0), "was tried")
    found = choose(evidence, rate=2.0)
    assert said(found, "β = 16 has the largest beta that was tried: try beyond it.")
    assert not said(found, "steps")


def test_only_numbers_have_a_range():
    evidence = [
        made("a", 0.9, values={"objective": "beta_vae", "capacity": None}),
        made("b", 0.1, values={"objective": "factor_vae", "capacity": 3.0}),
    ]
    assert not said(choose(evidence), "was tried")


def test_the_price_in_nats():
    found = choose(betas((1, 0.2, -100.0), (4, 0.5, -112.5), (16, 0.3, -150.0)))
    assert said(found, "The mean ELBO of β = 4 is 12.5 nats below that of β = 1.")
    better = choose(betas((1, 0.2, -100.0), (0.5, 0.5, -98.0)))
    assert said(better, "2.0 nats above that of β = 1")
    unpriced = (
        betas((1, 0.9), (4, 0.5)),
        betas((2, 0.3), (4, 0.5)),
        betas((1, 0, math.nan), (4, 1)),
    )
    for evidence in unpriced:
        assert not said(choose(evidence), "ELBO of")
    others = [
        made(f"{b} {c}", b / 10, values={"beta": b, "capacity": c}, elbo=np.full(5, -10.0 * b * c))
        for b, c in itertools.product((1, 2), (1, 5))
    ]
    found = choose(others)
    assert said(found, "The mean ELBO of 2 1 is 10.0 nats below that of 1 1.")
    assert not said(found, "that of 1 5"), "there something else differs too"


def test_measures_that_disagree():
    a, b = made("a", 0.6, spearman=0.4), made("b", 0.5, spearman=0.7)
    found = choose([a, b])
    assert said(found, "UDR (spearman) says otherwise: 0.700 for b, 0.400 for a.")
    assert said(choose([a, b], measure="spearman"), "UDR (lasso) says otherwise: 0.600 for a")
    collapsed = b._replace(active=np.ones(5))
    assert not said(choose([a, collapsed]), "says otherwise")
    weak = made("c", 0.1, active=0, rate=1.0)
    found = choose([a, weak], rate=1.0)
    assert found.setting == "c"
    assert not said(found, "says otherwise"), "a collapsed setting's own UDR means nothing"


def test_what_it_cannot_know_is_always_said():
    for evidence in ([made("a", n=1)], [made("a")], [made("a", active=0)]):
        for rate in (None, 3.0):
            assert choose(evidence, rate=rate).cautions[-2:] == list(suggest.LIMITS)


def test_few_seeds_and_long_lists():
    few = [made(f"s{i}", i / 10, n=4) for i in range(8)]
    assert said(
        choose(few), "Fewer than 5 runs, others may change the order: s0, s1, s2, 5 others."
    )
    assert not said(choose([made("a"), made("b")]), "Fewer than")


def test_json():
    evidence = [*betas((1, 0.2), (4, 0.5, math.nan)), made("β = 9", n=1, values={"beta": 9.0})]
    found = suggest.to_json(choose(evidence))
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text) == found
    assert (found["setting"], found["measure"]) == ("β = 4", "lasso")
    assert found["ranking"][0] == {"setting": "β = 4", "udr": 0.5, "low": None, "high": None}
    assert found["ranking"][2] == {"setting": "β = 9", "udr": None, "low": None, "high": None}
    entry = found["evidence"][1]
    assert entry["elbo"] == [None] * 5
    assert entry["udr_lasso"] == [0.5] * 5
    assert (entry["n"], entry["seeds"], entry["values"]) == (5, [0, 1, 2, 3, 4], {"beta": 4})
    assert "pairs" not in entry
    real = suggest.to_json(choose(gathered(["good", "bad"], seeds=range(2))))
    json.dumps(real, allow_nan=False)


@pytest.mark.parametrize("count", [1, 30])
@pytest.mark.parametrize("name", ["β = {}", "objective = beta_tcvae, capacity = {}, " + "x" * 60])
def test_words(count, name):
    evidence = [made(name.format(i), i / 40, rate=100.0 / (i + 1)) for i in range(count)]
    found = choose(evidence)
    lines = suggest.in_words(found).splitlines()
    table = lines[2 : 4 + count - 1]
    assert len({len(line.rstrip()) for line in table}) == 1, "aligned"
    assert lines[0] == found.headline()
    assert lines[0].startswith(f"Suggested: {found.setting} (*)")
    for line, row in zip(table[1:], found.ranking, strict=True):
        assert line.startswith(row.setting + " ")
        assert f" {row.udr:.3f} " in line
        assert ("*" in line) == (row.setting == found.setting)
    bullets = [line for line in lines if line.startswith("- ")]
    assert len(bullets) == len(found.reasons) + len(found.cautions)
    flowing = " ".join(line.strip() for line in lines)
    for sentence in [*found.reasons, *found.cautions]:
        assert sentence.split(":")[0] in flowing
    assert max(map(len, lines[4 + count :])) <= 100
