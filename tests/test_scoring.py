"""Which points metrics see, how often, and what becomes of their numbers."""

import dataclasses
import inspect
import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from bvae_jax.config import ScoreConfig
from bvae_jax.errors import UserError, naming_flags
from bvae_jax.metrics import METRICS, Metric, scoring
from bvae_jax.metrics.codes import Codes, draw, read_codes
from bvae_jax.metrics.scoring import metric_names, score, score_all

FAST_NAMES = "beta_vae_score factor_vae_score mig mig_sup jemmig rmig mcc sap_r2 modularity irs med"
FAST = {*FAST_NAMES.split(), "unsupervised", "active_units"}


def points(n=300, **more):
    rng = np.random.default_rng(0)
    factors = np.stack([rng.integers(size, size=n) for size in (3, 4)], axis=1)
    codes = np.concatenate([factors, rng.standard_normal((n, 1))], axis=1).astype(np.float32)
    return Codes(codes=codes, factors=factors, **more)


def scored(representation, metrics, **options):
    baselines = options.pop("baselines", {})
    config = ScoreConfig(metrics, **options)
    return dict(score_all(representation, config, baselines=baselines))


def test_names():
    assert metric_names("all") == tuple(METRICS)
    assert set(metric_names("fast")) == FAST
    assert metric_names("mig, dci") == ("mig", "dci")
    assert metric_names("dci,mig") == ("mig", "dci"), "the registry's order"
    assert set(metric_names("fast,dci")) == FAST | {"dci"}


@pytest.mark.parametrize("wanted", ["", ",", "migs", "mig,migs", "mig dci"])
def test_unknown_names(wanted):
    with pytest.raises(UserError, match=r"nknown metric|wanted all, fast, or names"):
        metric_names(wanted)


def test_the_registry_is_what_was_published():
    names = (
        "beta_vae_score factor_vae_score mig mig_chen mig_sup jemmig rmig dcimig "
        "matched_information mcc sap sap_r2 dci dci_es modularity explicitness irs infomec med "
        "unsupervised downstream udr active_units"
    )
    assert set(METRICS) == set(names.split())


def rows_of(arrays, codes, name="codes"):
    """Which rows of `codes` were drawn; the last column is different in each."""
    found = {float(row[-1]): i for i, row in enumerate(codes)}
    return [found[float(row[-1])] for row in arrays[name]]


def test_points_are_drawn_without_replacement_and_tests_are_others():
    representation = points(300, logvars=np.zeros((300, 3), np.float32))
    drawn = draw(representation, 100, 50, jax.random.key(0))
    plain = rows_of(drawn.plain, representation.codes)
    fitted = rows_of(drawn.fitted, representation.codes)
    test = rows_of(drawn.fitted, representation.codes, "codes_test")
    assert (len(set(plain)), len(set(test))) == (100, 50)
    assert plain == fitted == sorted(plain)
    assert not set(plain) & set(test)
    assert len(drawn.pool["codes"]) == 300
    np.testing.assert_array_equal(drawn.plain["factors"], representation.factors[plain])
    np.testing.assert_array_equal(drawn.fitted["factors_test"], representation.factors[test])
    assert drawn.plain["logvars"].shape == (100, 3)
    again = draw(representation, 100, 50, jax.random.key(0))
    other = draw(representation, 100, 50, jax.random.key(1))
    assert rows_of(again.plain, representation.codes) == plain
    assert rows_of(other.plain, representation.codes) != plain


def test_few_points_give_a_third_to_the_test():
    representation = points(30)
    drawn = draw(representation, 10_000, 5_000, jax.random.key(0))
    assert len(drawn.plain["codes"]) == 30
    assert len(drawn.fitted["codes"]) == 20
    test = rows_of(drawn.fitted, representation.codes, "codes_test")
    assert len(test) == 10
    assert not set(test) & set(rows_of(drawn.fitted, representation.codes))


def test_given_test_points_stay_and_all_others_are_fitted():
    whole, test = points(200), points(40)
    representation = points(200, codes_test=test.codes, factors_test=test.factors)
    drawn = draw(representation, 10_000, 5_000, jax.random.key(0))
    np.testing.assert_array_equal(drawn.fitted["codes"], whole.codes)
    np.testing.assert_array_equal(drawn.fitted["codes_test"], test.codes)


def test_an_entry_says_everything():
    entry = scored(points(), "mig")["mig"]
    expected = METRICS["mig"].function(points().codes, points().factors)
    assert entry["score"] == expected["score"]
    assert entry["mutual_information"] == expected["mutual_information"].tolist()
    assert entry["settings"] == {"bins": 20}
    assert (entry["n"], entry["n_test"]) == (300, 0)
    assert entry["seconds"] > 0
    assert entry["versions"]["numpy"] == np.__version__
    assert entry["null"]["mean"] < 0.05 < entry["score"]
    assert entry["null"]["p"] == pytest.approx(1 / 21)
    json.dumps(entry, allow_nan=False)


def test_arrays_are_scored_as_codes_are():
    whole, test = points(logvars=np.zeros((300, 3))), points(60)
    found = score(
        jnp.asarray(whole.codes),
        jnp.asarray(whole.factors),
        logvars=whole.logvars,
        codes_test=test.codes,
        factors_test=test.factors,
        metrics=ScoreConfig("rmig,sap", permutations=3),
    )
    whole = dataclasses.replace(whole, codes_test=test.codes, factors_test=test.factors)
    wanted = scored(whole, "rmig,sap", permutations=3)
    assert list(found) == ["rmig", "sap"]
    for name, entry in found.items():
        assert entry | {"seconds": 0} == wanted[name] | {"seconds": 0}
    assert set(score(whole.codes, whole.factors)) == FAST


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"factors": points(200).factors}, "codes has 300 rows and factors 200"),
        ({"factors": np.arange(300) % 3}, r"factors: got shape \(300,\), wanted \[n, factor\]"),
        ({"logvars": np.zeros((300, 2))}, r"logvars: got shape \(300, 2\), wanted \(300, 3\)"),
        ({"kl": np.ones(2)}, r"kl: got shape \(2,\), wanted \[latent\], \(3,\)"),
        ({"codes_test": np.ones((9, 3))}, "only one of codes_test and factors_test"),
        ({"codes": np.full((300, 3), np.nan)}, "codes: 900 of 900 numbers are not finite"),
        ({"metrics": "migs"}, "Unknown metric 'migs'"),
    ],
)
def test_arrays_that_do_not_fit_are_one_line(changes, message):
    given = {"codes": points().codes, "factors": points().factors} | changes
    with pytest.raises(UserError, match=message) as error:
        inspect.unwrap(score)(**given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"factor_sizes": [3, 4, 5]},
            r"factor_sizes: got \[3, 4, 5\], wanted a whole number for each",
        ),
        ({"factors_test": np.zeros((300, 3))}, "factors has 2 columns and factors_test 3"),
        ({"factors_test": np.zeros((200, 2))}, "codes_test has 300 rows and factors_test 200"),
    ],
)
def test_arrays_that_do_not_fit_numbers_are_one_line(changes, message):
    given = {
        "factors": points().factors,
        "codes_test": points().codes,
        "factors_test": points().factors,
    }
    with pytest.raises(UserError, match=message) as error:
        inspect.unwrap(score)(
            points().codes, **given | changes, metrics=ScoreConfig("mig", continuous="0")
        )
    assert "\n" not in str(error.value)


def test_log_variances_say_that_codes_are_posterior_means(tmp_path):
    """Of which those that hardly vary are not active."""
    whole, names = points(logvars=np.zeros((300, 3), np.float32)), "modularity,unsupervised"
    given = {"codes": whole.codes * np.array([1, 1, 0.01], np.float32), "factors": whole.factors}
    plain = score(**given, metrics=names)
    found = score(**given, logvars=whole.logvars, metrics=names)
    assert np.isfinite(plain["modularity"]["per_latent"][2])
    assert found["modularity"]["per_latent"][2] == "nan"
    np.savez(tmp_path / "a.npz", **given, logvars=np.zeros((300, 3)))
    kl = read_codes(tmp_path / "a.npz").kl
    wanted = score(**given, kl=kl, metrics=names)
    for name, entry in found.items():
        assert (
            entry | {"seconds": 0} == wanted[name] | {"seconds": 0} != plain[name] | {"seconds": 0}
        )


def test_a_metric_from_outside_is_scored(monkeypatch):
    def correlation(codes, factors, *, power: int = 1):
        """[latent, factor] correlations, of which the largest is the score."""
        found = np.abs(np.corrcoef(codes.T, factors.T)[: codes.shape[1], codes.shape[1] :])
        return {"score": float(found.max() ** power)}

    ours = Metric(correlation, "largest correlation", "this test", fast=True, null=True)
    monkeypatch.setitem(METRICS, "correlation", ours)
    assert metric_names("fast")[-1] == "correlation"
    entry = score(points().codes, points().factors, metrics=["correlation", "mig"])["correlation"]
    assert entry["score"] == pytest.approx(1)
    assert (entry["settings"], entry["n"]) == ({"power": 1}, 300)
    assert entry["null"]["mean"] < 0.2
    assert scoring.numbers({"correlation": entry}) == {"correlation": entry["score"]}


def test_arrays_are_remarked_on_and_factors_may_have_names(capsys):
    rng = np.random.default_rng(0)
    factors = np.stack([rng.integers(0, 4, 300), rng.integers(0, 7, 300)], axis=1)
    names = ["kind", "angle"]
    config = ScoreConfig("mig", continuous="angle=360", permutations=0)
    score(1.0 * factors, factors, factor_names=names, metrics=config)
    said = capsys.readouterr().err
    assert "note: values of angle span 6 of the period 360" in said or "in one of 20 bins" in said
    assert "note: 300 points are few" in said
    with pytest.raises(UserError, match="factor_names: got 1, wanted 2"):
        score(1.0 * factors, factors, factor_names=["kind"], metrics="mig")


def test_a_metric_from_outside_may_read_no_codes(monkeypatch):
    def width(logvars):
        return {"score": float(np.exp(logvars).mean())}

    monkeypatch.setitem(METRICS, "width", Metric(width, "mean variance of posteriors", "this test"))
    entry = scored(points(logvars=np.zeros((300, 3))), "width")["width"]
    assert (entry["score"], entry["n"]) == (1, 300)


def test_the_null_is_what_shuffled_factors_score():
    noise = points()
    noise = Codes(np.random.default_rng(1).standard_normal((300, 3)), noise.factors)
    entry = scored(noise, "mig", permutations=50)["mig"]
    assert abs(entry["score"] - entry["null"]["mean"]) < 4 * entry["null"]["std"]
    assert entry["null"]["p"] > 0.02
    assert "null" not in scored(noise, "mig", permutations=0)["mig"]
    one, both = (scored(noise, "mig", permutations=n)["mig"]["null"] for n in (1, 2))
    first, second = one["mean"], 2 * both["mean"] - one["mean"]
    assert (one["std"], both["std"]) == (0, pytest.approx(abs(first - second) / math.sqrt(2)))


def test_a_score_that_is_not_known_is_above_no_null(monkeypatch):
    def unknown(codes, factors):
        return {"score": np.nan}

    monkeypatch.setitem(METRICS, "unknown", Metric(unknown, "", "this test", null=True))
    assert scored(points(), "unknown")["unknown"]["null"]["p"] == "nan"


def test_why_a_metric_is_skipped_is_said_in_python_s_words():
    with naming_flags(False):
        entry = scored(points(), "udr")["udr"]
    assert entry["skipped"] == "it needs other runs to compare with (udr_with)"


def test_codes_that_know_nothing_are_no_better_than_shuffled_factors():
    entry = scored(Codes(np.zeros((300, 2)), points().factors), "mig")["mig"]
    assert entry["score"] == 0
    assert entry["null"] == {"mean": 0, "std": 0, "p": 1, "permutations": 20}


def test_repeats_have_other_seeds_and_a_t_interval():
    found = scored(points(), "mig", repeats=4, train_points=100)["mig"]["repeats"]["score"]
    assert len(set(found["values"])) == 4
    singles = [
        scored(points(), "mig", seed=seed, train_points=100)["mig"]["score"] for seed in range(4)
    ]
    assert found["values"] == singles
    low, high = stats.t.interval(0.95, 3, np.mean(singles), stats.sem(singles))
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    assert found["std"] == pytest.approx(np.std(singles, ddof=1))


@pytest.mark.parametrize("sizes", [[2], [2, 1], np.array([2.0, 2.0])])
def test_sizes_that_are_none_of_the_factors_are_refused(sizes):
    factors = np.indices((2, 2)).reshape(2, -1).T
    with pytest.raises(UserError, match=r"factor_sizes: got .*, no less than occur: \[2, 2\]"):
        score(factors.astype(float), factors, factor_sizes=sizes, metrics="mig")


def test_baselines_are_scored_alike():
    other = Codes(np.random.default_rng(1).standard_normal((300, 3)), points().factors)
    pixels = {scoring.PIXELS: other, "other": other}
    entries = scored(points(), "mig,mig_sup,rmig", baselines=pixels)
    direct = METRICS["mig"].function(other.codes, other.factors)["score"]
    assert entries["mig"]["baselines"]["other"] == {"score": direct, "n": 300}
    assert set(entries["mig"]["baselines"]) == {scoring.PIXELS, "other"}
    assert set(entries["mig_sup"]["baselines"]) == {"other"}, "not made for thousands of latents"


def test_of_a_baseline_only_what_is_not_true_of_the_codes_is_noted():
    one, many = points().codes[:, :1], points()
    for codes, noted in ((many.codes, ["infoc"]), (one, [])):
        alone = {"alone": dataclasses.replace(many, codes=one)}
        entry = scored(dataclasses.replace(many, codes=codes), "infomec", baselines=alone)
        notes = entry["infomec"]["baselines"]["alone"].get("notes", [])
        assert [note.split(" ")[0] for note in notes] == noted


def test_a_baseline_that_cannot_be_scored_costs_nothing_else():
    few = Codes(np.random.default_rng(0).standard_normal((6, 2)), np.eye(6, dtype=int))
    entry = scored(points(), "beta_vae_score", baselines={"few": few})["beta_vae_score"]
    assert entry["score"] > 0.9
    assert entry["baselines"] == {}


def test_what_cannot_be_scored_is_skipped_with_a_reason():
    singles = Codes(np.random.default_rng(0).standard_normal((6, 2)), np.eye(6, dtype=int))
    assert "it needs logvars" in scored(points(), "mig_chen")["mig_chen"]["skipped"]
    assert "--udr-with" in scored(points(), "udr")["udr"]["skipped"]
    entries = scored(singles, "beta_vae_score,mig")
    assert "two rows" in entries["beta_vae_score"]["skipped"]
    assert "score" in entries["mig"]


def test_compat_gives_the_originals_settings():
    constant = points()
    codes = np.concatenate([constant.codes, np.zeros((300, 1))], axis=1)
    constant = Codes(codes, constant.factors)
    right, theirs = (
        scored(constant, "modularity", compat=compat)["modularity"] for compat in (False, True)
    )
    assert theirs["score"] == pytest.approx(right["score"] * 3 / 4)
    assert theirs["settings"]["constant_as_zero"]


def test_numbers_of_all_metrics_by_name():
    entries = scored(points(), "mig,unsupervised,udr")
    entries["unsupervised"]["gaussian_total_correlation"] = "inf"
    found = scoring.numbers(entries)
    assert found["mig"] == entries["mig"]["score"]
    assert "unsupervised/gaussian_total_correlation" not in found
    assert "unsupervised/mutual_information" in found
    assert scoring.headlines(["mig", "dci/completeness", "dci/disentanglement"]) == [
        "mig",
        "dci/disentanglement",
    ]


def test_json_types():
    value = {"a": np.array([1.0, math.nan]), "b": (np.float32(2), np.int64(3)), "c": math.inf}
    assert scoring.jsonable(value) == {"a": [1.0, "nan"], "b": [2.0, 3], "c": "inf"}


def test_what_the_reader_should_know():
    odd = points(50)
    odd = Codes(
        codes=np.concatenate([odd.codes, np.ones((50, 2))], axis=1),
        factors=np.concatenate([odd.factors, np.full((50, 1), 3)], axis=1),
    )
    remarks = " / ".join(odd.remarks())
    assert "2 of 5 latents are constant" in remarks
    assert "factor 2 has one value" in remarks
    assert "50 points are few" in remarks
    assert points(2000).remarks() == []


def test_what_makes_scores_low_for_no_fault_of_the_codes():
    whole = points(2000)

    def said(codes=whole.codes, factors=whole.factors):
        return " / ".join(Codes(codes, factors).remarks())

    assert "standard deviations up to 0.011 only: factor_vae_score" in said(0.01 * whole.codes)
    assert "3 of 3 latents are constant" in said(0 * whole.codes)
    outlier = whole.codes.copy()
    outlier[0] = 1e4
    assert "3 of 3 latents have more than 95% of their codes in one of 20 bins" in said(outlier)
    for shift in (10, -10):
        assert "3 of 3 latents are not centred" in said(whole.codes + shift)
    assert Codes(whole.codes + 10, whole.factors).remarks(["mig"]) == []  # which does not mind
    many = np.column_stack([whole.factors, np.arange(2000) // 2, np.arange(2000) // 1.9]).astype(
        int
    )
    assert "factor 2" not in said(factors=many)
    assert "factor 3 has 1,053 values in 2,000 points" in said(factors=many)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_few_points_score_or_say_why_not(n):
    factors = np.stack([np.arange(n) % 2, np.arange(n) // 2], axis=1)
    few = Codes(np.random.default_rng(n).standard_normal((n, 3)), factors)
    entries = scored(few, "all", permutations=2)
    assert all("skipped" in e or METRICS[name].headline in e for name, e in entries.items())
    assert "score" in entries["mig"]
    assert ("too few points: got 2 to fit" in entries["dci"].get("skipped", "")) == (n == 3)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (0.5, "^own returned <class 'float'>, wanted a dict with 'score'"),
        ({"x": 0.5}, "^own returned x, wanted a dict with 'score'"),
        ({"score": np.ones(2)}, r"^own returned score = array\(.*wanted a number"),
        ({"score": "high"}, "^own returned score = 'high', wanted a number"),
    ],
)
def test_what_is_no_score_is_said(monkeypatch, returned, message):
    monkeypatch.setitem(METRICS, "own", Metric(lambda codes: returned, "", ""))
    with pytest.raises(UserError, match=message):
        scored(points(), "own")


def test_a_metric_that_was_typed_is_known_by_its_constants(monkeypatch):
    digests = []
    for number in (0.5, 0.25, 0.5):
        typed: dict[str, Any] = {"__name__": "__main__"}
        exec(f"def own(codes):\n    return {{'score': {number}}}", typed)
        monkeypatch.setitem(METRICS, "own", Metric(typed["own"], "", ""))
        monkeypatch.setattr(scoring.inspect, "getsource", lambda _: (_ for _ in ()).throw(OSError))
        digests.append(scoring.source_of("own"))
    assert digests[0] == digests[2] != digests[1]
    assert scoring.source_of("mig") == {}


def test_scores_may_be_numbers_and_arrays_of_jax(monkeypatch):
    found = {"score": jnp.float32(0.5), "per_latent": jnp.ones(3)}
    monkeypatch.setitem(METRICS, "own", Metric(lambda codes: found, "", ""))
    entry = json.loads(json.dumps(scored(points(), "own")["own"]))
    assert (entry["score"], entry["per_latent"]) == (0.5, [1.0, 1.0, 1.0])


@pytest.mark.parametrize("n", [30, 60])
def test_factors_of_many_values_and_few_points_are_no_warning(n):
    """Which scikit-learn gives where more than half of the points have a value of their own."""
    factors = np.random.default_rng(n).integers(0, 40, (n, 2))
    entries = scored(Codes(factors + 0.1, factors), "sap,explicitness,infomec,downstream")
    assert [name for name, entry in entries.items() if "skipped" in entry] == []
