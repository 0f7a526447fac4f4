"""A run's encode, scores, baselines and ELBO, computed once and kept on disk."""

import dataclasses
import functools
import itertools
import json
import os
import re
import signal
import time
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, assert_equal, changed
from scipy.stats import chisquare, multivariate_normal

from bvae_jax.cli.run import in_one_line
from bvae_jax.cli.score import print_elbo, print_scores
from bvae_jax.config import Config, ScoreConfig
from bvae_jax.data.variants import batches_of
from bvae_jax.elbo import gaussian_kl
from bvae_jax.errors import UserError
from bvae_jax.evaluation import elbo, generalisation
from bvae_jax.evaluation import evaluate as evaluation
from bvae_jax.evaluation import log_likelihood as held_out
from bvae_jax.evaluation.baselines import run_baselines, true_factors
from bvae_jax.evaluation.elbo import evaluate_elbo
from bvae_jax.evaluation.evaluate import evaluate, score_file
from bvae_jax.evaluation.figures import draw_score_figures
from bvae_jax.evaluation.generalisation import mixing, pairs_of
from bvae_jax.evaluation.log_likelihood import Sums, held_out_log_likelihood
from bvae_jax.files import read_json, write_json
from bvae_jax.likelihoods import LIKELIHOODS, Likelihood
from bvae_jax.metrics import scoring
from bvae_jax.metrics.codes import Codes
from bvae_jax.metrics.mig import mig
from bvae_jax.metrics.scoring import jsonable
from bvae_jax.plots import scores as score_plots
from bvae_jax.runs import encode as encoding
from bvae_jax.runs import train as runner
from bvae_jax.runs.checkpoint import fingerprint
from bvae_jax.runs.encode import (
    codes_of,
    encode_points,
    encode_run,
    encoding_order,
    point_count,
    same_images,
)
from bvae_jax.runs.loggers import read_records
from bvae_jax.runs.trainer import NO_POSTERIOR, Trainer, calibrated
from bvae_jax.types import Posterior, key_for
from bvae_jax.vae import VAE, decode, encode, forward, init_params

pytestmark = pytest.mark.usefixtures("shared_trainers")

SMALL = {"network": "tiny", "image_source": "rendered", "batch_size": 4, "latents": 3}
SMALL |= {"eval_images": 16, "log_every": 2, "eval_every": 2}
QUIET: dict[str, Any] = {"progress": False}
POINTS = 200


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_network):
    """A run of two steps; tests work in copies of its directory's name, or only look."""
    path = tmp_path_factory.mktemp("evaluation") / "run"
    config = Config(**SMALL, steps=2, correlate="shape,scale=0.2")
    return runner.train(config, path, figures=False, progress=False)


@pytest.fixture(autouse=True)
def clean(run):
    for path in run.run_dir.glob("e*.*"):
        path.unlink()


def test_scores_of_each_split_are_kept(run):
    all_images = evaluate(run, ScoreConfig("mig"), num_points=POINTS, figures=False, **QUIET)
    evaluate(run, ScoreConfig("mig", split="correlated"), num_points=90, figures=False, **QUIET)
    evaluate_elbo(run, 4, num_points=POINTS, split="correlated", **QUIET)
    assert read_json(run.run_dir / "evaluation.json") == all_images
    assert all_images["mig"]["mixing"]["pairs"]
    correlated = read_json(run.run_dir / "evaluation-correlated.json")["mig"]
    assert correlated["n"] == 90
    assert "mixing" not in correlated, "their factors are not independent"
    assert "generalisation" in read_json(run.run_dir / "elbo-correlated.json")
    assert not (run.run_dir / "elbo.json").exists()


def count_batches(monkeypatch, run):
    """How often the device is asked to encode from now on."""
    calls = []
    inner = run.trainer.encode
    program = changed(run.trainer, encode=lambda *args: calls.append(1) or inner(*args))
    return program, calls


def test_every_image_is_encoded_once_in_a_fixed_order(run):
    order = encoding_order(run.trainer)
    assert len(set(order.tolist())) == run.trainer.dataset.size
    encoded = encode_points(run.trainer, run.params, 30)
    posterior = encode(run.model, run.params, run.trainer.images(order[:30]))
    assert encoded.logvars is not None
    np.testing.assert_allclose(encoded.means, posterior.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(encoded.logvars, posterior.logvar, rtol=1e-5, atol=1e-6)
    points = codes_of(run.trainer, encoded)
    factors = run.trainer.dataset.factors(jnp.asarray(order[:30]))
    np.testing.assert_array_equal(points.factors, factors)
    kl = 0.5 * (encoded.means**2 + np.exp(encoded.logvars) - 1 - encoded.logvars)
    found = points.kl
    assert found is not None
    np.testing.assert_allclose(found, kl.mean(axis=0), rtol=1e-4)


def test_correlated_points_have_the_frequencies_of_the_formula(run):
    drawn = encoding_order(run.trainer, "correlated")
    assert len(drawn) == run.trainer.dataset.size
    factors = np.asarray(run.trainer.dataset.factors(jnp.asarray(drawn)))
    shape, scale = np.indices((3, 6))
    weights = np.exp(-((shape / 2 - scale / 5) ** 2) / 0.08)
    counts = np.bincount(6 * factors[:, 0] + factors[:, 1], minlength=18)
    assert chisquare(counts, len(drawn) * (weights / weights.sum()).ravel()).pvalue > 1e-3
    for k in (2, 3, 4):  # the others are uniform
        assert chisquare(np.bincount(factors[:, k])).pvalue > 1e-3
    with pytest.raises(UserError, match="trained without --correlate, wanted one with it"):
        point_count(run.trainer.dataset, Config(), "correlated", None)


def test_the_cache_is_cut_and_gone_on_with(run, monkeypatch):
    monkeypatch.setitem(encoding.BATCHES, "cpu", 32)
    program, calls = count_batches(monkeypatch, run)
    first = encode_run(run.run_dir, program, run.params, 64, **QUIET)
    assert len(calls) == 2
    fewer = encode_run(run.run_dir, program, run.params, 10, **QUIET)
    assert len(calls) == 2
    np.testing.assert_array_equal(fewer.means, first.means[:10])
    more = encode_run(run.run_dir, program, run.params, 100, **QUIET)
    assert len(calls) == 4, "two batches for 36 more"
    np.testing.assert_array_equal(more.means[:64], first.means)
    whole = encode_points(run.trainer, run.params, 100)
    np.testing.assert_allclose(more.means, whole.means, rtol=1e-5, atol=1e-6)


def test_other_parameters_and_other_images_are_encoded_anew(run, monkeypatch):
    program, calls = count_batches(monkeypatch, run)
    encode_run(run.run_dir, program, run.params, 10, **QUIET)
    other = run.trainer.init().params["vae"]
    found = encode_run(run.run_dir, program, other, 10, **QUIET)
    assert len(calls) == 2
    np.testing.assert_array_equal(found.means, encode_points(program, other, 10).means)
    counted = len(calls)
    images = dataclasses.replace(program.dataset, version=program.dataset.version + 1)
    encode_run(run.run_dir, changed(program, dataset=images), other, 10, **QUIET)
    assert len(calls) == counted + 1


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 nonsense", None])
def test_a_damaged_cache_is_encoded_anew(run, capsys, damage):
    whole = encode_run(run.run_dir, run.trainer, run.params, 10, **QUIET)
    path = run.run_dir / encoding.CACHE
    path.write_bytes(path.read_bytes()[:-200] if damage is None else damage)
    again = encode_run(run.run_dir, run.trainer, run.params, 10, **QUIET)
    np.testing.assert_array_equal(again.means, whole.means)
    assert "is damaged" in capsys.readouterr().err


def test_ctrl_c_keeps_what_is_encoded(run, monkeypatch):
    monkeypatch.setitem(encoding.BATCHES, "cpu", 8)

    def interrupting(*args):
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return counted(*args)

    program, calls = count_batches(monkeypatch, run)
    counted = program.encode
    with pytest.raises(KeyboardInterrupt):
        encode_run(run.run_dir, changed(program, encode=interrupting), run.params, 80, **QUIET)
    assert 3 <= len(calls) < 10
    found = encode_run(run.run_dir, program, run.params, 80, **QUIET)
    assert len(calls) == 10, "what was encoded was kept"
    assert_equal(found, encode_points(run.trainer, run.params, 80))


def test_batches_that_end_out_of_order_stay_in_order(run, monkeypatch):
    monkeypatch.setitem(encoding.BATCHES, "cpu", 8)
    monkeypatch.setattr(encoding, "_at_once", lambda: 3)
    started, ended = itertools.count(), []

    def one_that_waits_for_the_next(params, indices):
        number = next(started)
        if number == 2:
            assert wait_until(lambda: 3 in ended)
        found = run.trainer.encode(params, indices)
        ended.append(number)
        return found

    program = changed(run.trainer, encode=one_that_waits_for_the_next)
    found = encode_points(program, run.params, 45)
    assert ended.index(3) < ended.index(2)
    monkeypatch.setattr(encoding, "_at_once", lambda: 1)
    np.testing.assert_array_equal(found.means, encode_points(run.trainer, run.params, 45).means)


def test_udr_wants_the_same_images_in_the_same_order(run, tmp_path):
    """The data set's name is not enough; splits by different seeds have other images."""
    config = dataclasses.replace(run.config, seed=1)
    assert same_images(run.trainer, Trainer(config), "holdout")
    assert not same_images(run.trainer, Trainer(dataclasses.replace(config, only="orientation=0")))
    kinds = ("folder[class=cat]", "folder[class=dog]")  # of one version, and perhaps one size
    cats, dogs = (dataclasses.replace(run.trainer.dataset, kind=kind) for kind in kinds)
    one, another = (changed(run.trainer, dataset=chosen) for chosen in (cats, dogs))
    assert same_images(one, one)
    assert not same_images(one, another)
    config = dataclasses.replace(config, split_seed=1, steps=1)
    other = runner.train(config, tmp_path / "other", figures=False, progress=False)
    assert same_images(run.trainer, other.trainer)
    with pytest.raises(UserError, match=r"--udr-with .* whose images"):
        evaluate(run, ScoreConfig("udr", split="holdout"), udr_with=[other.run_dir])


def test_files_whose_factors_contradict_are_not_compared(tmp_path):
    rng = np.random.default_rng(0)
    codes, factors = rng.standard_normal((50, 2)), rng.integers(3, size=(50, 2))
    for name, rows in (("a", factors), ("b", factors[::-1])):
        np.savez(tmp_path / f"{name}.npz", codes=codes, factors=rows)
    with pytest.raises(UserError, match=r"b\.npz: its factors are not those of"):
        score_file(tmp_path / "a.npz", ScoreConfig("udr"), udr_with=[tmp_path / "b.npz"], **QUIET)


@pytest.mark.parametrize("rank", [0, 2])
def test_baselines_of_images_of_low_rank(run, rank):
    """What is beyond their dimensions is 0, not blown-up rounding."""
    rng = np.random.default_rng(0)
    parts = rng.random((run.trainer.dataset.size, rank)).astype(np.float32)
    basis = rng.random((rank, 64 * 64)).astype(np.float32) / 4

    def images(indices):
        return jnp.asarray((0.5 + parts[indices] @ basis).reshape(-1, 64, 64, 1))

    found = run_baselines(changed(run.trainer, images=images), run.config, 100)
    for name in ("pca", "ica"):
        assert (found[name].codes.std(axis=0) > 0.01).sum() == rank
        assert (found[name].codes[:, rank:] == 0).all()
    if rank:  # independent components span what the principal ones do
        both = [np.linalg.qr(found[name].codes[:, :rank])[0] for name in ("pca", "ica")]
        np.testing.assert_allclose(np.linalg.svd(both[0].T @ both[1])[1], 1, atol=1e-3)


def test_figures_show_no_chance_and_no_inactive_latent(tmp_path, monkeypatch):
    """The first latent is the factor, the second is noise, the third knows it but is too quiet."""
    rng = np.random.default_rng(0)
    factors = rng.integers(5, size=(300, 1))
    noise = rng.standard_normal(300)
    one = factors[:, 0]
    codes = np.stack([one + 0.4 * noise, rng.standard_normal(300), 0.01 * one], axis=1)
    drawn = {}
    for name in ("save_matrix", "save_best_latents", "save_latent_against_factor"):
        monkeypatch.setattr(score_plots, name, lambda *a, name=name, **k: drawn.update({name: a}))

    def draw(codes):
        points = Codes(codes, factors, factor_names=["odd"], kl=np.ones(3))
        entries = dict(scoring.score_all(points, ScoreConfig("mig", permutations=0)))
        assert entries["mig"]["mutual_information"][1][0] > 0.09, "what counting finds in noise"
        draw_score_figures(tmp_path, entries, points)

    draw(codes)
    matrix = drawn["save_matrix"][1]
    assert matrix[1, 0] < 0.04
    assert matrix[2, 0] == pytest.approx(np.log(5), abs=0.06)
    *_, pairs, _, units = drawn.pop("save_latent_against_factor")
    assert (pairs, units) == ([(0, 0)], ["class index"])
    draw(0.01 * codes)
    assert "save_latent_against_factor" not in drawn


def test_what_a_baseline_s_score_and_an_interval_mean_is_said(capsys):
    """Small codes are pruned by the FactorVAE score: its 0 is no measurement."""
    rng = np.random.default_rng(0)
    factors = rng.integers(4, size=(300, 2))
    points = Codes(factors + 0.1 * rng.standard_normal((300, 2)), factors)
    config = ScoreConfig("sap_r2,factor_vae_score", repeats=2, permutations=0)
    small = {"untrained": dataclasses.replace(points, codes=0.01 * points.codes)}
    entries = dict(scoring.score_all(points, config, baselines=small))
    assert entries["factor_vae_score"]["baselines"]["untrained"]["score"] == 0
    print_scores(entries)
    out = capsys.readouterr().out
    assert "factor_vae_score of untrained: no latent has a standard deviation of 0.05" in out
    assert out.count("all are pruned") == 1
    assert "Runs with different training seeds may differ by more" in out


def test_all_repeats_saw_the_same_points_is_said_where_they_did():
    """Fitted predictors draw other test points each time, however few there are."""
    rng = np.random.default_rng(0)
    points = Codes(rng.standard_normal((300, 2)), rng.integers(3, size=(300, 2)))
    config = ScoreConfig("mig,sap", repeats=2, permutations=0)
    entries = dict(scoring.score_all(points, config))
    same = {n: any("saw the same" in x for x in e.get("notes", ())) for n, e in entries.items()}
    assert same == {"mig": True, "sap": False}
    assert len(set(entries["sap"]["repeats"]["score"]["values"])) == 2


def test_an_autoencoder_has_no_posterior(tmp_path, capsys):
    """Nothing that rests on one is reported, kept, drawn or scored: its variances are untrained."""
    config = Config(**SMALL, steps=2, objective="qlae", levels=4)
    run = runner.train(config, tmp_path / "run", progress=False)
    assert run.summary is not None
    assert not {"kl", "elbo", "bits_per_dim", "kl_per_latent", "active_latents"} & set(run.summary)
    assert "no KL" in in_one_line(run.summary)
    figures = {path.name for path in (run.run_dir / "figures").iterdir()}
    assert not {"kl_per_latent.png", "samples.png"} & figures
    assert {"loss_curves.png", "traversal.png"} <= figures
    config = ScoreConfig("mig,rmig,mig_chen,active_units", permutations=0)
    for _ in range(2):  # the second time from the cache
        entries = evaluate(run, config, num_points=POINTS, figures=False)
        (run.run_dir / evaluation.EVALUATION).unlink()
        assert "logvars" in entries["mig_chen"]["skipped"]
        assert entries["rmig"]["score"] == pytest.approx(entries["mig"]["score"], abs=1e-12)
        said = capsys.readouterr().err
        assert "codes are points" in said
        assert "largest standard deviation" in said
        variance = run.codes(POINTS).codes.var(axis=0)
        wanted = (variance / variance.max() > 0.01).sum()
        assert (variance > 0.01).sum() < entries["active_units"]["score"] == wanted
    with np.load(run.run_dir / encoding.CACHE) as arrays:
        assert sorted(arrays) == ["identity", "means"]
    with pytest.raises(UserError, match=r"no prior to draw z from\. Its codes can be drawn"):
        run.sample(4)
    train = run.trainer.split.train
    values = np.sort(run.params["codebook"])
    codes = np.asarray(run.codes(POINTS).codes)
    for column, book in zip(codes.T, values, strict=True):
        assert np.isin(column, book).all()
    image = run.trainer.images(train[:1])[0]
    rows = run.traverse(image, latents=[1])
    assert_close(rows, run.traverse(image, latents=[1], values=values[1].tolist()))
    drawn = run.sample(4, source="aggregate", temperature=9.0)
    key, _ = jax.random.split(key_for("samples", 0))
    chosen = train[np.asarray(jax.random.randint(key, (4,), 0, len(train)))]
    assert_close(drawn, run.reconstruct(run.trainer.images(chosen)))
    found = evaluate_elbo(run, 50, 40, 5, num_points=POINTS)
    assert [of["skipped"] for of in found.values()] == [NO_POSTERIOR] * 2
    print_elbo(found)
    assert capsys.readouterr().out.count("skipped: an autoencoder's codes are points") == 2


def wait_until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return true()


def test_a_cache_that_cannot_be_written_is_done_without(run, capsys, monkeypatch):
    monkeypatch.setattr(np, "savez", lambda *a, **k: (_ for _ in ()).throw(OSError(28, "full")))
    encoded = encode_run(run.run_dir, run.trainer, run.params, 10, **QUIET)
    assert len(encoded.means) == 10
    assert "going on without" in capsys.readouterr().err
    assert not [p for p in run.run_dir.iterdir() if "encoded" in p.name]


def test_a_latent_that_mixes_two_factors_is_found():
    """z0 adds a and b up, z1 is a and z2 is c: I(z0; a) = I(z0; b) = 1.5 - 1 bits, I(z1; a) = 1."""
    factors = np.indices((2, 2, 2)).reshape(3, -1).T
    a, b, c = factors.T
    codes = np.stack([a + b, a, c], axis=1).astype(float)
    matrix = mig(codes, factors)["mutual_information"]
    found = mixing(matrix, "abc", pairs_of("b, a=0.2"), np.ones(3, bool))
    (pair,) = found["pairs"]
    bit = np.log(2)
    assert (pair["factors"], pair["latent"]) == (["a", "b"], 0)
    np.testing.assert_allclose(pair["nats"], [bit / 2, bit / 2])
    np.testing.assert_allclose(pair["shares"], [1 / 3, 1])
    assert pair["entanglement"] == found["entanglement"] == pytest.approx(1 / 3)
    assert found["entanglement_others"] == pytest.approx(0, abs=1e-9)
    assert "z0 mixes a and b most: 0.35 nats of a (33% of" in found["sentence"]
    for used, wanted in ((np.array([True, False, True]), 1), (np.array([False, True, True]), 0)):
        found = mixing(matrix, "abc", [("a", "b")], used)
        assert found["entanglement"] == pytest.approx(wanted, abs=1e-9)
    assert found["sentence"] == "No active latent knows of a and b both."
    chain = np.array([[1, 0.5, 0, 0], [0, 0.5, 0.2, 0], [0, 0, 0.8, 0], [0, 0, 0, 1]])
    found = mixing(chain, "abcd", [("a", "b")], np.ones(4, bool))
    assert found["entanglement_others"] == 0  # the median of 0.2, 0.2, 0, 0 and 0
    # a and c lie in one group by way of b; d has one value and is in no pair.
    chain = np.array([[0.8, 0.5, 0, 0], [0.2, 0.5, 0.4, 0], [0, 0, 0.6, 0]])
    found = mixing(chain, "abcd", pairs_of("a,c=0.1;a,b=1"), np.ones(3, bool))
    assert [each["entanglement"] for each in found["pairs"]] == [0.4, 0.5]
    assert (found["entanglement"], found["entanglement_others"]) == (0.5, 0.4)


def test_scores_are_on_disk_with_what_made_them(run, capsys):
    settings = ScoreConfig("mig,irs,mig_chen,unsupervised", train_points=100, test_points=50)
    entries = evaluate(run.run_dir, settings, num_points=POINTS, **QUIET)
    stored = read_json(run.run_dir / evaluation.EVALUATION)
    assert stored == json.loads(json.dumps(entries))
    assert list(stored) == ["mig", "mig_chen", "irs", "unsupervised"]
    assert [name for name, entry in stored.items() if "mixing" in entry] == ["mig"]
    assert stored["mig"]["request"]["params_sha256"] == fingerprint(run.params)
    assert (stored["mig"]["n"], stored["mig"]["request"]["num_points"]) == (100, POINTS)
    matrix, names = np.array(stored["mig"]["mutual_information"]), run.dataset.factor_names
    mixed = jsonable(mixing(matrix, names, [("shape", "scale")], np.zeros(3, bool)))
    assert stored["mig"]["mixing"] == mixed
    print_scores(entries)
    assert mixed["sentence"] in capsys.readouterr().out
    names = {path.stem for path in (run.run_dir / "figures").iterdir()}
    assert names == {"mutual_information", "best_latents"}, "after two steps none is active"


def test_scores_that_are_there_are_not_computed_again(run, monkeypatch):
    asked = []
    real = scoring.score_all

    def spy(points, settings, **options):
        asked.append(settings.metrics)
        return real(points, settings, **options)

    monkeypatch.setattr(evaluation, "score_all", spy)
    options: dict[str, Any] = {"num_points": POINTS, "figures": False, **QUIET}
    first = evaluate(run.run_dir, ScoreConfig("mig"), **options)
    second = evaluate(run.run_dir, ScoreConfig("mig,irs"), **options)
    assert asked == ["mig", "irs"]
    assert second["mig"] == first["mig"]
    evaluate(run.run_dir, ScoreConfig("mig", seed=1), **options)
    assert asked[-1] == "mig"
    stored = read_json(run.run_dir / evaluation.EVALUATION)
    assert set(stored) == {"mig", "irs"}, "others of the same parameters stay"
    # Numbers are other scores than classes; what was scored before there were any is of classes.
    for entry in stored.values():
        del entry["request"]["continuous"]
    write_json(run.run_dir / evaluation.EVALUATION, stored, checksum=True)
    evaluate(run.run_dir, ScoreConfig("irs", continuous="none"), **options)
    assert len(asked) == 3
    numbers = ScoreConfig("irs", continuous="4,orientation=40")
    _, found = [evaluate(run.run_dir, numbers, **options) for _ in range(2)]
    assert asked[3:] == ["irs"]
    assert found["irs"]["request"]["continuous"] == "orientation=40,y"
    evaluate(run.run_dir, ScoreConfig("irs"), **options)
    assert asked[4:] == ["irs"]


def test_what_could_not_be_scored_is_not_tried_again(run, monkeypatch):
    options: dict[str, Any] = {"num_points": POINTS, "figures": False, **QUIET}
    settings = ScoreConfig("mig,udr")
    first = evaluate(run.run_dir, settings, **options)
    assert "--udr-with" in first["udr"]["skipped"]
    assert evaluation.stored_scores(run.run_dir, settings, POINTS) == first
    monkeypatch.setattr(evaluation, "score_all", None)
    assert evaluate(run.run_dir, settings, **options) == first


def test_a_smaller_request_keeps_the_larger_result(run, capsys):
    options: dict[str, Any] = {"num_points": POINTS, "figures": False, **QUIET}
    large = evaluate(run.run_dir, ScoreConfig("irs", repeats=3), baselines=True, **options)
    assert evaluate(run.run_dir, ScoreConfig("irs"), **options) == large
    capsys.readouterr()
    evaluate(run.run_dir, ScoreConfig("irs", repeats=2), **options)
    assert "scores under other settings are replaced: irs" in capsys.readouterr().err


def test_a_damaged_evaluation_is_made_anew(run, capsys):
    path = run.run_dir / evaluation.EVALUATION
    path.write_text('{"mig": 3}')
    entries = evaluate(run.run_dir, ScoreConfig("mig"), num_points=POINTS, figures=False, **QUIET)
    assert "mig is a whole number, wanted an object. It is comp" in capsys.readouterr().err
    text = path.read_text()
    path.write_text(text.replace(f'"score": {entries["mig"]["score"]}', '"score": 0.75', 1))
    assert path.read_text() != text
    again = evaluate(run.run_dir, ScoreConfig("mig"), num_points=POINTS, figures=False, **QUIET)
    assert again["mig"]["score"] == entries["mig"]["score"]
    assert "not those of its checksum. It is computed anew." in capsys.readouterr().err


@pytest.mark.once
@pytest.mark.parametrize("split", ["holdout", "correlated"])
def test_the_gap_to_other_images_is_that_of_their_losses(run, split, monkeypatch, capsys):
    """Batch for batch by the model itself, with the same noise; kept, and not computed again."""
    monkeypatch.setattr(generalisation, "IMAGES", 8)
    monkeypatch.setattr(generalisation, "POINTS", 100)
    monkeypatch.setattr(generalisation, "BATCH", 4)
    found = evaluate_elbo(run, 0, split=split, **QUIET)["generalisation"]
    errors, parts = {}, run.trainer.split
    both_of = parts.holdout, parts.train
    if split == "correlated":
        both_of = np.sort(np.concatenate(parts)), encoding_order(run.trainer, split)
    for chosen, suffix in zip(both_of, ("", "_train"), strict=True):
        of_image: dict[str, Any] = {"nll": [], "kl": [], "mse": []}
        batches = batches_of(chosen, 8, 4)
        assert set(batches.ravel()) <= set(chosen.tolist())
        for number, batch in enumerate(batches):
            key = jax.random.fold_in(key_for("evaluation", 0), number)
            images = run.trainer.images(batch)
            out = forward(run.model, run.params, images, jax.random.split(key)[0])
            of_image["nll"] += (-out.log_likelihood[0]).tolist()
            of_image["kl"] += gaussian_kl(out.posterior).sum(axis=1).tolist()
            squares = np.square(np.asarray(images) - np.asarray(out.reconstruction[0]))
            of_image["mse"] += squares.mean(axis=(1, 2, 3)).tolist()
        for number, values in of_image.items():
            assert found[number + suffix] == pytest.approx(np.mean(values), rel=1e-4)
            errors[number + suffix] = np.std(values, ddof=1) / np.sqrt(8)
            assert found[f"{number}{suffix}_error"] == pytest.approx(
                errors[number + suffix], rel=1e-3
            )
    for number in ("nll", "kl", "mse"):
        assert found[f"{number}_gap"] == found[number] - found[f"{number}_train"]
        both = np.hypot(errors[number], errors[f"{number}_train"])
        assert found[f"{number}_gap_error"] == pytest.approx(both, rel=1e-3)
    assert elbo.stored_generalisation(run.run_dir, split) == found
    assert elbo.stored_generalisation(run.run_dir, "test") is None
    print_elbo({"generalisation": found})
    said = capsys.readouterr().out
    here, there = {
        "holdout": ("holdout", "training images"),
        "correlated": ("all images alike", "as --correlate draws them"),
    }[split]
    assert re.match(rf"{here}: NLL [\d.]+ ± .*, {there} .* gap .* \(nats; 8 and 8 images", said)
    for name, key in (("all", "mig"), ("correlated", "mig_train")):
        if split == "correlated":
            codes = run.codes(100, split=name)
            assert found[key] == mig(codes.codes, codes.factors)["score"]
            assert f"{found[key]:.4f}" in said
    with pytest.raises(UserError, match="excluded"):
        evaluate_elbo(run, 0, split="excluded", **QUIET)


def test_udr_compares_runs(run, tmp_path):
    other = runner.train(
        Config(**SMALL, steps=2, seed=1), tmp_path / "other", figures=False, progress=False
    )
    options: dict[str, Any] = {"num_points": POINTS, "figures": False, **QUIET}
    with pytest.raises(UserError, match="give the others by --udr-with"):
        evaluate(run.run_dir, ScoreConfig("udr"), **options)
    config = ScoreConfig("udr", train_points=100)
    entry = evaluate(run.run_dir, config, udr_with=[other.run_dir], **options)["udr"]
    assert len(entry["per_run"]) == 2
    assert 0 <= entry["score"] <= 1
    assert entry["n"] == 100


def test_baselines_of_a_run(run):
    made = run_baselines(run.trainer, run.config, 60)
    assert set(made) == {
        "random_codes", "untrained", "pca", "ica", scoring.PIXELS, "true_factors"
    }  # fmt: skip
    images = np.asarray(run.trainer.images(encoding_order(run.trainer)[:60]))
    pixels = images.reshape(60, -1)
    np.testing.assert_array_equal(made[scoring.PIXELS].codes, pixels)
    # PCA: the same subspace as the singular vectors of the centred pixels.
    centred = pixels - pixels.mean(axis=0)
    projected = centred @ np.linalg.svd(centred, full_matrices=False)[2][:3].T
    np.testing.assert_allclose(np.abs(made["pca"].codes), np.abs(projected), rtol=1e-2, atol=1e-2)
    ica = made["ica"].codes
    np.testing.assert_allclose(np.cov(ica.T, ddof=0), np.eye(3), atol=0.05)
    untrained = encode_points(run.trainer, run.trainer.init().params["vae"], 60)
    np.testing.assert_array_equal(made["untrained"].codes, untrained.means)
    for representation in made.values():
        np.testing.assert_array_equal(representation.factors, made["pca"].factors)
    truth = made["true_factors"]
    assert np.corrcoef(truth.codes[:, 3], truth.factors[:, 3])[0, 1] == pytest.approx(1)


def test_true_factors_to_test_on_are_scaled_as_those_to_fit_on():
    factors, test = np.array([[0, 1], [2, 1], [4, 1]]), np.array([[4, 1], [8, 1]])
    points = Codes(np.zeros((3, 2)), factors, codes_test=np.zeros((2, 2)), factors_test=test)
    truth, std = true_factors(points), np.sqrt(8 / 3)
    np.testing.assert_allclose(truth.codes, np.array([[-2, 0], [0, 0], [2, 0]]) / std)
    assert truth.codes_test is not None
    np.testing.assert_allclose(truth.codes_test, np.array([[2, 0], [6, 0]]) / std)


@pytest.mark.once
def test_the_scores_of_baselines_are_in_order(run):
    settings = ScoreConfig("mig", train_points=300, test_points=1, permutations=0)
    entry = evaluate(run.run_dir, settings, num_points=301, baselines=True, figures=False, **QUIET)[
        "mig"
    ]
    scores = {name: found["score"] for name, found in entry["baselines"].items()}
    assert scores["random_codes"] < 0.05 < 0.6 < scores["true_factors"]
    assert entry["score"] < scores["true_factors"]


@pytest.mark.parametrize("count", [0, 2, 737_281])
def test_a_number_of_points_that_there_is_not(run, count):
    with pytest.raises(UserError, match=f"--num-points: got {count}, wanted a whole number from 3"):
        evaluate(run.run_dir, ScoreConfig("mig"), num_points=count, **QUIET)


def test_a_file_from_anywhere(tmp_path):
    rng = np.random.default_rng(0)
    factors = rng.integers(4, size=(200, 2))
    codes = factors + 0.01 * rng.standard_normal((200, 2))
    np.savez(tmp_path / "a.npz", codes=codes, factors=factors, factor_names=["tilt", "hue"])
    np.savez(tmp_path / "b.npz", codes=-codes[:, ::-1], factors=factors)
    entries = score_file(
        tmp_path / "a.npz", ["mig", "dci", "udr"], baselines=True,
        udr_with=[tmp_path / "b.npz"], figures=tmp_path / "figures", progress=False,
    )  # fmt: skip
    assert entries["mig"]["score"] > 0.9
    assert entries["dci"]["disentanglement"] > 0.9
    assert entries["udr"]["score"] > 0.8
    assert set(entries["mig"]["baselines"]) == {"random_codes", "true_factors"}
    assert (entries["dci"]["n"], entries["dci"]["n_test"]) == (134, 66)
    drawn = ("mutual_information", "best_latents", "latent_against_factor", "dci_importance")
    names = {f"{name}.{kind}" for name in drawn for kind in ("png", "pdf")}
    assert {p.name for p in (tmp_path / "figures").iterdir()} == names


@pytest.mark.once
def test_scores_while_training(tmp_path, monkeypatch):
    """They are logged where an evaluation is due, on the parameters of that step."""
    seen = []

    def instead(trainer, params, metrics):
        assert metrics == "mig,dci"
        seen.append(fingerprint(params))
        return {"mig": 0.25, "dci/disentanglement": 0.5}

    monkeypatch.setattr(encoding, "training_scores", instead)
    config = Config(**SMALL, steps=4, eval_metrics="mig,dci")
    result = runner.train(config, tmp_path / "run", progress=False)
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    scores = [record for record in records if record["split"] == "scores"]
    assert scores == [
        {"step": step, "split": "scores", "dci/disentanglement": 0.5, "mig": 0.25}
        for step in (2, 4)
    ]
    assert result.summary
    assert result.summary["scores"] == {"dci/disentanglement": 0.5, "mig": 0.25}
    assert seen[-1] == result.summary["params_sha256"]
    assert (tmp_path / "run" / "figures" / "score_curves.png").exists()


@pytest.mark.once
def test_the_scores_of_training_are_those_of_evaluate(run, monkeypatch, capsys):
    fewer = functools.partial(ScoreConfig, train_points=200, test_points=100)
    monkeypatch.setattr(encoding, "ScoreConfig", fewer)
    found = encoding.training_scores(run.trainer, run.params, "mig,irs,udr")
    entries = evaluate(run.run_dir, fewer("mig,irs"), num_points=300, figures=False, **QUIET)
    assert found == {"mig": entries["mig"]["score"], "irs": entries["irs"]["score"]}
    assert "is not finished" not in capsys.readouterr().err
    step = int(run.state.step)
    longer = dataclasses.replace(run, config=run.config.replace(steps=step + 1))
    evaluate(longer, fewer("mig"), num_points=300, figures=False, **QUIET)
    assert f"is not finished: scores are of step {step} of {step + 1}." in capsys.readouterr().err


def test_an_unknown_metric_is_found_before_training(tmp_path):
    with pytest.raises(UserError, match="Unknown metric 'migs'"):
        runner.train(Config(**SMALL, eval_metrics="migs"), tmp_path / "run", progress=False)
    with pytest.raises(UserError, match="--eval-metrics udr: it compares runs"):
        runner.train(Config(**SMALL, eval_metrics="udr"), tmp_path / "run", progress=False)
    np.savez(tmp_path / "a.npz", images=np.eye(16, dtype=np.uint8).reshape(16, 4, 4))
    config = Config(**SMALL, eval_metrics="mig", dataset=f"npz:{tmp_path}/a.npz")
    with pytest.raises(UserError, match=r"--eval-metrics: npz:.* has no factors to score by"):
        runner.train(config.replace(image_source="auto"), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.once
def test_metrics_that_cannot_be_scored_do_not_stop_a_run(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(encoding, "training_scores", lambda *args: seen.append(args[1]) or {})
    config = Config(**SMALL, steps=2, eval_metrics="dci", ema=0.9)
    result = runner.train(config, tmp_path / "run", figures=False, progress=False)
    assert result.summary
    assert result.summary["scores"] == {}
    assert fingerprint(seen[-1]) == result.summary["params_sha256"], "of the moving average"


# ELBO


def evaluated(run, *args, **kwargs):
    return evaluate_elbo(run.run_dir, *args, **{"num_points": 300, "progress": False} | kwargs)


def test_both_results_are_written_printed_and_not_computed_again(run, monkeypatch, capsys):
    found = evaluated(run, 50, 40, 5)
    on_disk = read_json(run.run_dir / "elbo.json")
    assert on_disk == found
    kl = found["decomposition"]["kl"]
    terms = ("mutual_information", "total_correlation", "dimension_wise_kl")
    assert sum(found["decomposition"][n] for n in terms) == pytest.approx(kl, abs=1e-6)
    assert found["decomposition"]["points"] == 300
    assert found["log_likelihood"]["log_likelihood"] >= found["log_likelihood"]["elbo"]
    assert found["log_likelihood"]["request"]["split"] == "holdout"
    print_elbo(found)
    out = capsys.readouterr().out
    assert "± standard error over 50 draws" in out
    assert "exactly, over 300 images" in out
    assert "-0.00" not in out
    assert "5 images; 40 importance samples" in out
    of = found["log_likelihood"]
    assert 1 <= of["least_effective"] <= of["effective_samples"] <= 40
    warned = f"Warning: {of['few']} of 5 images have fewer than 10 effective samples" in out
    assert warned == (of["few"] > 0) == (of["least_effective"] < 10)

    def fail(*args, **kwargs):
        raise AssertionError("computed again")

    monkeypatch.setattr(elbo, "decompose", fail)
    monkeypatch.setattr(elbo, "held_out_log_likelihood", fail)
    assert evaluated(run, 50, 40, 5) == found
    with pytest.raises(AssertionError, match="again"):
        evaluated(run, 60)
    without_holdout = dataclasses.replace(run, config=run.config.replace(holdout=0))
    with pytest.raises(AssertionError, match="again"):  # of training images
        evaluate_elbo(without_holdout, 0, 40, 5, **QUIET)
    monkeypatch.undo()
    earlier = read_json(run.run_dir / "elbo.json")
    for added in ("least_effective", "few"):
        del earlier["log_likelihood"][added]
    del earlier["log_likelihood"]["request"]["few"]
    write_json(run.run_dir / "elbo.json", earlier)
    assert evaluated(run, 50, 40, 5) == found
    assert "damaged" not in capsys.readouterr().err
    (run.run_dir / "elbo.json").write_text("{")
    assert evaluated(run, 50) == {"decomposition": found["decomposition"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((1,), "--decomposition: got 1"), ((0, -1), "--log-like"), ((0, 5, 0), "-images: got 0")],
)
def test_bad_settings_are_one_line(run, arguments, message):
    with pytest.raises(UserError, match=message):
        evaluated(run, *arguments)


class LinearEncoder(nn.Module):
    """A posterior that is near the true one of `linear_program`, but not equal."""

    @nn.compact
    def __call__(self, images):
        h = nn.Dense(2, name="mean")(images.reshape(len(images), -1))
        return Posterior(0.3 * h, jnp.full_like(h, -0.7))


class LinearDecoder(nn.Module):
    @nn.compact
    def __call__(self, z):
        return nn.Dense(4, name="out")(z).reshape(-1, 2, 2, 1)


def unit_gaussian(decoded, images, own):
    error = jnp.square(images - decoded) + jnp.log(2 * jnp.pi)
    return -0.5 * error.sum(axis=(1, 2, 3))


def linear_program(program):
    """x = W z + b + noise of variance 1, z in two dimensions: p(x) = N(b, W W' + I)."""
    likelihood = Likelihood(log_prob=unit_gaussian, mean=lambda decoded: decoded)
    model = VAE(LinearEncoder(), LinearDecoder(), likelihood)
    images = jax.random.uniform(jax.random.key(3), (40, 2, 2, 1))
    program = changed(
        program,
        model=model,
        images=lambda indices: images[indices],
        dataset=dataclasses.replace(program.dataset, image_shape=(2, 2, 1)),
        eval_indices=np.arange(40, dtype=np.int32).reshape(2, 20),
    )
    return program, init_params(model, (2, 2, 1), jax.random.key(0)), images


def test_log_likelihood_of_a_linear_model(run):
    program, params, images = linear_program(run.trainer)
    found = held_out_log_likelihood(program, params, samples=3000, images=21)
    weight, bias = (np.asarray(params["decoder"]["out"][n], float) for n in ("kernel", "bias"))
    x, covariance = np.asarray(images[:21], float).reshape(21, 4), weight.T @ weight + np.eye(4)
    each = multivariate_normal.logpdf(x, bias, covariance)  # pyright: ignore
    assert found.log_likelihood == pytest.approx(each.mean(), abs=0.01)
    assert found.standard_error == pytest.approx(each.std(ddof=1) / np.sqrt(21), rel=0.05)
    assert found.elbo < each.mean() - 0.01
    assert 1 < found.least_effective < found.effective_samples < 3000
    few = held_out_log_likelihood(program, params, samples=held_out.FEW - 1, images=21)
    assert (found.few, few.few) == (0, 21)
    assert (found.images, found.samples) == (21, 3000)
    bits = -found.log_likelihood / 4 / np.log(2) + 8
    assert found.bits_per_dim == pytest.approx(bits, rel=1e-6)


def test_every_batch_of_images_has_its_own_noise(run, monkeypatch):
    def noise(model, params, images, samples, key):
        return Sums(*3 * [jax.random.normal(key, (len(images),))])

    monkeypatch.setattr(held_out, "weight_sums", noise)
    program, params, _ = linear_program(run.trainer)
    one, two = (held_out_log_likelihood(program, params, samples=2, images=n) for n in (16, 32))
    assert abs(one.log_likelihood - two.log_likelihood) > 1e-3


def test_effective_samples_are_those_of_the_median_image(run, monkeypatch):
    """Where e of K weights are equal and all others 0, e samples count."""
    count = np.array([30.0, 1, 2])

    def planted(model, params, images, samples, key):
        log_sum = jnp.log(jnp.resize(count, (len(images),)))
        return Sums(log_sum, log_sum, log_sum)

    monkeypatch.setattr(held_out, "weight_sums", planted)
    program, params, _ = linear_program(run.trainer)
    found = held_out_log_likelihood(program, params, samples=32, images=3)
    assert (found.effective_samples, found.least_effective) == pytest.approx((2, 1))
    assert found.few == 2
    assert found.log_likelihood == pytest.approx(np.log(count / 32).mean())


def test_one_image_is_refused_and_many_are_all(run):
    program, params, _ = linear_program(run.trainer)
    with pytest.raises(UserError, match="--log-likelihood: got 1 image, wanted at least 2"):
        held_out_log_likelihood(program, params, samples=5, images=1)
    assert held_out_log_likelihood(program, params, samples=5, images=999).images == 40


def test_a_sigma_of_the_batch_is_one_sigma_for_all_samples(run):
    program, params, images = linear_program(run.trainer)

    def found(likelihood):
        chosen = changed(program, model=program.model.clone(likelihood=likelihood))
        return chosen, held_out_log_likelihood(chosen, params, samples=40, images=3)

    optimal, with_optimal = found(LIKELIHOODS["optimal_sigma_vae"](1.0))
    _, with_fixed = found(calibrated(optimal, params))
    assert with_optimal == with_fixed
    mean = encode(optimal.model, params, images[:20]).mean
    error = jnp.square(decode(optimal.model, params, mean) - images[:20]).mean()
    sigma = float(jnp.sqrt(calibrated(optimal, params).scale({})))
    assert sigma == pytest.approx(float(jnp.sqrt(error)), rel=0.02)
