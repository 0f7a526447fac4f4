"""Whole runs, small: what they leave, how they end, and that they resume bit for bit."""

import gc
import hashlib
import itertools
import json
import os
import shutil
import signal
import threading
import time
from inspect import unwrap
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import assert_close, assert_equal, float64
from PIL import Image

import bvae_jax
from bvae_jax.config import Config, ScoreConfig
from bvae_jax.elbo import gaussian_kl
from bvae_jax.errors import UserError
from bvae_jax.files import read_json, write_json
from bvae_jax.files.archive import read_npz
from bvae_jax.runs import figures, rundir, trainer, writer
from bvae_jax.runs import loop as training
from bvae_jax.runs import train as runner
from bvae_jax.runs.checkpoint import Checkpoints, fingerprint
from bvae_jax.runs.codes import draw_z, encode_to
from bvae_jax.runs.encode import point_count
from bvae_jax.runs.hyper import resolved
from bvae_jax.runs.loggers import JsonLines, read_records
from bvae_jax.runs.run import load, located
from bvae_jax.runs.sweep import sweep
from bvae_jax.runs.sweepdir import SweepConfig, open_sweep
from bvae_jax.runs.writer import Writer
from bvae_jax.runtime import (
    SIGNALS,
    Clock,
    Interrupt,
    fatal,
)
from bvae_jax.vae import decode, encode

pytestmark = pytest.mark.usefixtures("tiny_network", "shared_trainers")

SMALL = {
    "network": "tiny",
    "image_source": "rendered",
    "batch_size": 4,
    "latents": 3,
    "steps": 12,
    "log_every": 3,
    "eval_every": 6,
    "eval_images": 16,
    "checkpoint_every": 4,
}
FIGURES = {
    f"{name}.{kind}"
    for name in (
        *("loss_curves", "kl_per_latent", "reconstructions", "samples", "interpolation"),
        "traversal",
    )
    for kind in ("png", "pdf")
} | {"traversal.gif", "training.gif"}


def small(**changes):
    return Config(**(SMALL | changes))


def train(path, *, resume=False, overwrite=False, figures=False, **changes: Any):
    config = small(**changes)
    return runner.train(
        config, path, resume=resume, overwrite=overwrite, figures=figures, progress=False
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished run, for tests that only look at it."""
    return train(tmp_path_factory.mktemp("runs") / "run", figures=True)


def test_the_directory_holds_everything(finished):
    directory = finished.run_dir
    names = {path.name for path in directory.iterdir()} - {".lock"}
    wanted = {"config.json", "provenance.json", "metrics.jsonl", "summary.json"}
    assert names == wanted | {"checkpoints", "figures"}
    assert {path.name for path in (directory / "figures").iterdir()} == FIGURES | {"training"}
    assert {path.name for path in (directory / "figures" / "training").iterdir()} == {
        f"{step}.npz" for step in (4, 6, 8, 12)
    }
    with Image.open(directory / "figures" / "training.gif") as movie:
        assert getattr(movie, "n_frames", 1) == 4
    for path in (directory / "figures").glob("*.[pg][ni][gf]"):
        with Image.open(path) as picture:
            assert np.asarray(picture.convert("L"), float).std() > 5
    assert rundir.read_config(directory) == resolved(small())
    steps = sorted(int(p.name) for p in (directory / "checkpoints").iterdir() if p.name.isdigit())
    assert steps == [4, 8, 12]


def test_the_summary_is_complete_and_consistent(finished):
    summary = read_json(finished.run_dir / "summary.json")
    assert summary == finished.summary
    assert summary["step"] == 12
    assert summary["split"] == "holdout"
    assert summary["elbo"] == pytest.approx(-summary["nll"] - summary["kl"], rel=1e-5)
    assert summary["loss"] == pytest.approx(summary["nll"] + 4 * summary["kl"], rel=1e-5)
    assert summary["kl"] == pytest.approx(sum(summary["kl_per_latent"]), rel=1e-5)
    assert summary["beta"] == 4.0
    assert summary["beta_norm"] == pytest.approx(4 * 3 / 4096)
    variances = summary["variance_per_latent"]
    assert summary["active_latents"] == sum(variance > 0.01 for variance in variances)
    assert summary["images_per_second"] > 0
    assert summary["wall_seconds"] > 0
    assert summary["params_sha256"] == fingerprint(finished.params)


def test_errors_are_over_images(finished):
    indices = finished.trainer.eval_indices.ravel()
    posterior = encode(finished.model, finished.params, finished.trainer.images(indices))
    kl = np.asarray(gaussian_kl(posterior)).sum(axis=1)
    wanted = kl.std(ddof=1) / np.sqrt(len(kl))
    assert finished.summary["kl_error"] == pytest.approx(wanted, rel=1e-3)
    assert finished.summary["nll_error"] > 0
    variance = np.asarray(posterior.mean, np.float64).var(axis=0)
    assert finished.summary["variance_per_latent"] == pytest.approx(variance, rel=1e-3)
    assert 0 <= finished.summary["information"] <= np.log(len(finished.trainer.eval_indices[0]))

    images = np.random.default_rng(0).normal(size=(3, 5, 2)) * (1, 9) + np.arange(3)[:, None, None]
    means, variances = images.mean(axis=1), images.var(axis=1)
    metrics = {"nll": means[:, 0], "nll_variance": variances[:, 0], "kl": means[:, 1]}
    metrics |= {"kl_variance": variances[:, 1], "kl_per_latent": means}
    found = trainer.with_errors(metrics, 15)
    wanted = images.reshape(15, 2).std(axis=0, ddof=1) / np.sqrt(15)
    assert (found["nll_error"], found["kl_error"]) == pytest.approx(wanted)
    assert not {"nll_variance", "kl_variance"} & set(found)
    one = trainer.with_errors({name: value[:1] for name, value in metrics.items()}, 1)
    assert "nll_error" not in one


def test_a_run_is_held_in_the_hand(finished):
    """Images of any kind in, the numbers of the pure functions out."""
    images = np.array(finished.trainer.images(np.arange(7)))
    wanted = encode(finished.model, finished.params, jax.numpy.asarray(images))
    found = finished.encode(images)
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.logvar, wanted.logvar, rtol=1e-5, atol=1e-6)
    for same in (images.astype(np.float64), jax.numpy.asarray(images), images[..., 0]):
        np.testing.assert_array_equal(finished.encode(same).mean, found.mean)
    bytes_, grey = (images * 255).astype(np.uint8), (images * 255).astype(np.uint8) / 255
    np.testing.assert_allclose(
        finished.encode(bytes_).mean, finished.encode(grey).mean, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(finished.encode(images[:1]).mean.shape, (1, 3))
    pictures = decode(finished.model, finished.params, found.mean)
    np.testing.assert_allclose(finished.reconstruct(images), pictures, atol=1e-6)
    np.testing.assert_allclose(finished.decode(np.array(found.mean, float)), pictures, atol=1e-6)
    assert finished.sample(5).shape == (5, 64, 64, 1)
    assert not np.array_equal(finished.sample(1), finished.sample(1, seed=1))
    rows = finished.traverse(images[0], latents=(2, 0), values=(-1.0, 0.5))
    assert rows.shape == (2, 2, 64, 64, 1)
    moved = np.array(found.mean[:1])
    moved[0, 2] = 0.5
    np.testing.assert_allclose(rows[0, 1], finished.decode(moved)[0], atol=1e-6)
    order = np.argsort(-np.array(finished.summary["kl_per_latent"]))
    every = finished.traverse(images[0])
    assert every.shape == (3, 11, 64, 64, 1)
    np.testing.assert_array_equal(every, finished.traverse(images[0], latents=order))


def test_codes_of_a_run_are_scored_as_its_evaluation(finished):
    codes = finished.codes(100)
    assert codes.codes.shape == (100, 3)
    assert codes.factors.shape == (100, 5)
    score = bvae_jax.metrics.mig(codes.codes, codes.factors)["score"]
    entries = finished.evaluate(ScoreConfig("mig"), num_points=100, figures=False, progress=False)
    assert entries["mig"]["score"] == pytest.approx(score)
    frame = codes.frame()
    latents = [f"{name}{i}" for name in ("z", "logvar") for i in range(3)]
    dataset = finished.dataset
    assert [*frame] == ["index", *latents, *dataset.factor_names]
    image = finished.trainer.images(frame["index"].to_numpy()[7:8])
    np.testing.assert_allclose(frame["z1"][7], finished.encode(image).mean[0, 1], atol=1e-4)
    assert frame.iloc[7, 7:].tolist() == dataset.factors(frame["index"].to_numpy()[7:8])[0].tolist()
    held_out = finished.codes(50, split="holdout").frame()["index"]
    assert len(set(held_out)) == 50
    assert {*held_out} <= {*finished.trainer.split.holdout.tolist()}


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda r: r.encode(np.zeros((2, 32, 32, 1))), r"shape \(2, 32, 32, 1\), wanted \[n, 64"),
        (lambda r: r.encode(np.zeros((64, 64))), r"images of shape \(64, 64\)"),
        (lambda r: r.encode(np.zeros((0, 64, 64, 1))), "no images, wanted at least one"),
        (
            lambda r: r.encode(np.zeros((2, 64, 64, 1), int)),
            "images of int64, wanted uint8 or .*astype",
        ),
        (lambda r: r.encode(np.full((2, 64, 64, 1), 255.0)), "pixels from 255 to 255, wanted 0"),
        (
            lambda r: r.encode(np.full((2, 64, 64, 1), 1.000001)),
            "pixels from 1.000001 to 1.000001, ",
        ),
        (lambda r: r.encode(np.full((2, 64, 64, 1), np.nan)), "pixels from nan"),
        (lambda r: r.encode(["a"]), r"images of shape \(1,\)"),
        (lambda r: r.decode(np.zeros((2, 4))), r"z of shape \(2, 4\), wanted \[n, 3\]"),
        (lambda r: r.decode([["a", "b", "c"]]), "z of <U1, wanted real numbers"),
        (lambda r: r.decode(np.zeros((2, 3), complex)), "z of complex128, wanted real numbers"),
        (lambda r: r.decode([[0.0, np.nan, 0.0]]), "z that is not finite"),
        (lambda r: r.sample(0), "sample: got n = 0, wanted a whole number"),
        (
            lambda r: r.traverse(np.zeros((64, 64, 1)), latents=np.array([True, False, True])),
            r"Got latents \[True, False, True\], wanted numbers from 0 to 2",
        ),
        (
            lambda r: r.traverse(np.zeros((64, 64, 1)), latents=np.array([3])),
            r"latents \[3\], wanted",
        ),
        (lambda r: unwrap(draw_z)(r, 2.5), "sample: got n = 2.5, wanted a whole number"),
        (
            lambda r: unwrap(draw_z)(r, 2, temperature="hot"),
            "temperature: got 'hot', wanted a number",
        ),
        (lambda r: unwrap(draw_z)(r, 2, seed=1.5), "seed: got 1.5, wanted a whole number"),
        (
            lambda r: r.traverse(np.zeros((64, 64)), values=[[3.0]]),
            r"values: got \[\[3.0\]\], wanted a list",
        ),
        (lambda r: r.traverse(np.zeros((64, 64)), values=[np.nan]), r"values: got \[nan\], wanted"),
        (lambda r: r.evaluate("mig", udr_with="runs"), "udr-with: got 'runs', wanted a list"),
        (lambda r: r.traverse(np.zeros((1, 64, 64, 1))), r"an image of shape \(1, 64, 64, 1\)"),
        (lambda r: r.evaluate([]), r"metrics: got \[\], wanted names"),
        (lambda r: r.evaluate(["mig", "mgi"]), "Unknown metric 'mgi'"),
        (lambda r: unwrap(encode_to)(r, Path("q.npz"), np.zeros(2), False), "images: got ndarray"),
        (lambda r: unwrap(located)(None), "Got None, wanted the path of a run"),
        (lambda r: unwrap(point_count)(r.dataset, r.config, "all", "5"), "num-points: got '5'"),
        (lambda r: r.codes(2), "--num-points: got 2"),
        (lambda r: r.codes(split="half"), "split: got 'half', wanted"),
    ],
)
def test_what_a_run_does_not_take_is_said(finished, use, message):
    with pytest.raises(UserError, match=message):
        use(finished)


def test_a_number_of_points_may_be_one_of_numpy(finished):
    count = unwrap(point_count)(finished.dataset, finished.config, "all", np.int64(400))
    assert json.dumps(count) == "400"  # as evaluation.json records it


def test_a_run_without_its_data(finished):
    run = bvae_jax.load(finished.run_dir, data=False)
    assert repr(run).count("\n") == 2
    assert len(repr(run)) < 400
    assert all(part in repr(run) for part in (str(run.run_dir), "64×64×1", "of 3 latents active"))
    images = np.array(finished.trainer.images(np.arange(2)))
    np.testing.assert_array_equal(run.encode(images).mean, finished.encode(images).mean)
    with pytest.raises(UserError, match="loaded without its data"):
        run.codes(10)


def test_a_part_of_the_training_images_is_evaluated_at_the_same_parameters(finished):
    built = finished.trainer
    indices = {split: set(data[1].ravel().tolist()) for split, data in built.eval_data.items()}
    assert indices["train_eval"] <= set(built.split.train.tolist())
    assert indices["holdout"] <= set(built.split.holdout.tolist())
    last = {r["split"]: r for r in read_records(finished.run_dir / "metrics.jsonl")}
    again = built.evaluate(finished.state)
    assert {split: last[split]["nll"] for split in again} == {s: again[s]["nll"] for s in again}


def test_records_are_where_something_is_due(finished):
    records = read_records(finished.run_dir / "metrics.jsonl")
    for split, steps in {
        "train": [3, 4, 6, 8, 9, 12],
        "holdout": [6, 12],
        "train_eval": [6, 12],
    }.items():
        assert [r["step"] for r in records if r["split"] == split] == steps
    for record in records:
        assert {"loss", "nll", "kl", "elbo", "kl_per_latent"} <= set(record)
        of_images = {"information", "variance_per_latent", "active_latents"}
        assert of_images & set(record) == (set() if record["split"] == "train" else of_images)
    assert records[-1]["nll"] == finished.summary["nll"]


def test_provenance_names_what_ran(finished):
    (session,) = json.loads((finished.run_dir / "provenance.json").read_text())["sessions"]
    assert (session["start_step"], session["end_step"]) == (0, 12)
    assert session["wall_seconds"] > 0
    assert session["versions"]["jax"] == jax.__version__
    assert jax.default_backend() in session["device"]
    parts = b"".join(part.tobytes() for part in finished.trainer.split)
    assert session["data"]["split_sha256"] == hashlib.sha256(parts).hexdigest()


def test_load_gives_the_run_back(finished):
    loaded = bvae_jax.load(finished.run_dir, progress=False)
    assert_equal(loaded.state, finished.state)
    assert loaded.summary == finished.summary
    images = loaded.trainer.images(np.arange(2))
    posterior = encode(loaded.model, loaded.params, images)
    assert decode(loaded.model, loaded.params, posterior.mean).shape == images.shape
    assert int(bvae_jax.load(finished.run_dir, step=8, progress=False).state.step) == 8


def contents(directory):
    """What must not depend on interruptions."""
    summary = read_json(directory / "summary.json")
    timeless = {k: v for k, v in summary.items() if k not in ("wall_seconds", "images_per_second")}
    return timeless, (directory / "metrics.jsonl").read_bytes()


def test_a_signal_saves_and_the_resumed_run_is_bitwise_the_same(finished, tmp_path, monkeypatch):
    log = Writer._log

    def signal_at_six(self, step, split, means):
        log(self, step, split, means)
        if (step, split) == (6, "train"):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Writer, "_log", signal_at_six)
    result = train(tmp_path / "run")
    assert result.summary is None
    assert int(result.state.step) == 6
    assert not (tmp_path / "run" / "summary.json").exists()
    monkeypatch.undo()
    result = train(tmp_path / "run", resume=True)
    assert_equal(result.state, finished.state)
    assert contents(tmp_path / "run") == contents(finished.run_dir)
    sessions = json.loads((tmp_path / "run" / "provenance.json").read_text())["sessions"]
    assert [(s["start_step"], s["end_step"]) for s in sessions] == [(0, 6), (6, 12)]


OBJECTIVES = {
    "discriminator, average, schedules": {
        "objective": "factor_vae",
        "ema": 0.9,
        "learning_rate_schedule": "cosine:steps=12,start=1,end=0",
    },
    "controller": {"objective": "control_vae", "ki": 0.1, "capacity": 3.0, "clip_norm": 1.0},
    "many betas": {"multi_rate": "0.5:16", "samples": 2, "ema": 0.9},
    "codebook": {"objective": "qlae", "levels": 4, "optimizer": "adamw", "weight_decay": 0.1},
    "pairs, several samples": {
        "objective": "ada_gvae",
        "samples": 3,
        "likelihood": "sigma_vae",
        "precision": "bfloat16",
        "beta_schedule": "cyclical-linear:steps=12",
    },
}


@pytest.mark.parametrize("changes", OBJECTIVES.values(), ids=OBJECTIVES)
def test_all_that_a_state_may_hold_resumes_bit_for_bit(tmp_path, changes):
    whole = train(tmp_path / "whole", steps=8, eval_every=4, **changes)
    train(tmp_path / "parts", steps=4, eval_every=4, **changes)
    result = train(tmp_path / "parts", resume=True, steps=8, eval_every=4, **changes)
    assert_equal(result.state, whole.state)
    records = [read_records(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts")]
    assert records[0] == [r for r in records[1] if r["step"] != 4 or r in records[0]]
    assert result.summary
    assert result.summary["params_sha256"] == fingerprint(result.params)
    assert (fingerprint(result.state.params["vae"]) == fingerprint(result.params)) == (
        not {"ema", "multi_rate"} & set(changes)
    )


def test_the_summary_says_what_beta_means(tmp_path):
    result = train(tmp_path / "run", steps=1, likelihood="gaussian", sigma=0.5, beta=2.0)
    summary = result.summary
    assert summary
    assert summary["beta"] == 2.0
    assert summary["beta_norm"] == pytest.approx(2 * 3 / 4096)
    assert summary["beta_effective"] == pytest.approx(0.5)
    assert summary["bits_per_dim"] == pytest.approx(-summary["elbo"] / 4096 / np.log(2) + 8)
    annealed = train(tmp_path / "annealed", steps=1, objective="annealed_vae").summary
    assert annealed
    assert [annealed[n] for n in ("beta", "beta_norm", "beta_effective")] == [None] * 3


def test_a_damaged_checkpoint_costs_steps_but_no_bits(finished, tmp_path, capsys):
    directory = tmp_path / "run"
    train(directory, steps=8)
    for path in (directory / "checkpoints" / "8").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    result = train(directory, resume=True)
    assert f"checkpoint {directory / 'checkpoints' / '8'} is damaged" in capsys.readouterr().err
    assert_equal(result.state, finished.state)
    assert contents(directory) == contents(finished.run_dir)
    assert [p.name for p in (directory / "damaged").iterdir()] == ["8-0"]


def test_a_damaged_provenance_stops_nothing(tmp_path, capsys):
    train(tmp_path / "run", steps=4)
    (tmp_path / "run" / "provenance.json").write_text("[]")
    train(tmp_path / "run", steps=5, resume=True)
    assert "kept as provenance.damaged" in capsys.readouterr().err
    (session,) = json.loads((tmp_path / "run" / "provenance.json").read_text())["sessions"]
    assert session["start_step"] == 4


def test_what_counts_is_the_last_session(tmp_path):
    """Of the data, their places and the devices; and its end is written into it alone."""
    for step, name, devices in ((0, "old", 1), (4, "new", 2)):
        data, places = {"identity": name, "image_shape": [step, 8, 1]}, {"dataset": f"npz:{name}"}
        rundir.add_session(tmp_path, step, data=data, places=places, devices=devices)
        rundir.end_session(tmp_path, step + 4, 10.0)
    assert rundir.read_data(tmp_path).get("identity") == "new"
    assert rundir.read_image_shape(tmp_path) == (4, 8, 1)
    assert rundir.read_places(tmp_path) == {"dataset": "npz:new"}
    assert rundir.earlier_devices(tmp_path) == 2
    ends = [(one["start_step"], one.get("end_step")) for one in rundir.read_sessions(tmp_path)]
    assert ends == [(0, 4), (4, 8)]


def test_a_run_that_cannot_start_replaces_nothing(finished):
    before = sorted(finished.run_dir.rglob("*"))
    with pytest.raises(UserError, match="Not enough memory"):
        train(finished.run_dir, overwrite=True, batch_size=10**8)
    assert sorted(finished.run_dir.rglob("*")) == before


def test_lost_records_are_spoken_of(finished, tmp_path, capsys):
    train(tmp_path / "run", steps=8)
    (tmp_path / "run" / "metrics.jsonl").unlink()
    result = train(tmp_path / "run", resume=True)
    assert "ends at step 0 and the run goes on from step 8" in capsys.readouterr().err
    assert_equal(result.state, finished.state)


def test_where_the_records_were_lost_there_are_no_curves(finished, tmp_path, monkeypatch):
    class DrawnError(Exception):
        pass

    def other_figures(*args):
        raise DrawnError

    monkeypatch.setattr(figures, "_draw_reconstructions", other_figures)
    with pytest.raises(DrawnError):
        figures.draw_figures(tmp_path, finished.trainer, finished.params, [], 12)
    assert not list(tmp_path.iterdir())


def test_the_config_stands_in_the_checkpoint_too(finished):
    with Checkpoints(finished.run_dir / "checkpoints", read_only=True) as checkpoints:
        restored = checkpoints.restore(jax.eval_shape(finished.trainer.init))
    assert restored is not None
    assert Config.from_dict(restored.meta["config"]) == resolved(small())


def test_more_steps_later_equal_all_steps_at_once(finished, tmp_path, monkeypatch):
    """So do the frames of an animation of the training."""
    monkeypatch.setattr(writer, "draw_figures", lambda *args: None)
    with monkeypatch.context() as patched:  # as if it had taken long
        patched.setattr(writer, "Clock", lambda size: Clock(size, {"wall_seconds": 1000.0}))
        train(tmp_path / "run", steps=8, figures=True)
    result = train(tmp_path / "run", steps=12, resume=True, figures=True)
    assert_equal(result.state, finished.state)
    assert result.summary
    assert result.summary["wall_seconds"] > 1000  # of both sessions
    for wanted in (finished.run_dir / "figures" / "training").iterdir():
        frame = read_npz(tmp_path / "run" / "figures" / "training" / wanted.name)
        for name, values in read_npz(wanted).items():
            np.testing.assert_array_equal(frame[name], values)
    assert rundir.read_config(tmp_path / "run").steps == 12


def test_a_run_whose_checkpoints_are_gone_is_not_begun_anew(finished, tmp_path):
    path = Path(shutil.copytree(finished.run_dir, tmp_path / "run"))
    shutil.rmtree(path / "checkpoints")
    before = (path / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"was trained to step 12, and its checkpoints are gone"):
        train(path, resume=True, steps=24)
    with pytest.raises(UserError, match=r"was trained to step 12, and its checkpoints are gone"):
        load(path)
    assert (path / "metrics.jsonl").read_bytes() == before


def test_the_summary_of_another_run_is_told(finished, tmp_path):
    path = Path(shutil.copytree(finished.run_dir, tmp_path / "run"))
    write_json(
        path / "summary.json", {**finished.summary, "params_sha256": "of another"}, checksum=True
    )
    told = r"summary.json is of other parameters than the checkpoint of step 12: one of the two"
    with pytest.raises(UserError, match=told):
        load(path)
    with pytest.raises(UserError, match=told):
        train(path, resume=True)
    (path / "summary.json").unlink()
    again = train(path, resume=True).summary
    assert again
    assert again["nll"] == finished.summary["nll"]


@pytest.mark.parametrize(
    ("setting", "changed"),
    [
        ("jax_enable_x64=True", float64),
        ("jax_default_prng_impl=rbg", lambda: jax.default_prng_impl("rbg")),
        ("jax_threefry_partitionable=False", lambda: jax.threefry_partitionable(False)),
    ],
)
def test_settings_of_jax_that_draw_other_numbers_are_refused(finished, tmp_path, setting, changed):
    """They made another run of the same config, and whole checkpoints look damaged."""
    with changed():
        for call in (lambda: load(finished.run_dir), lambda: load(finished.run_dir, data=False),
                     lambda: train(tmp_path / "new")):  # fmt: skip
            with pytest.raises(UserError, match=f"^JAX has {setting}: by that other numbers"):
                call()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("given", [{"beta": 4}, None, "config.json"])
def test_what_is_no_config_is_one_line(given):
    with pytest.raises(UserError, match=r"^config: got \w+, wanted a Config, as bvae_jax.Config"):
        unwrap(resolved)(given)


def test_resuming_a_finished_run_changes_nothing(finished, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in finished.run_dir.rglob("*") if p.is_file()}
    result = train(finished.run_dir, resume=True)
    assert result.summary == finished.summary
    after = {p: p.stat().st_mtime_ns for p in finished.run_dir.rglob("*") if p.is_file()}
    assert {p.name for p in before if before[p] != after[p]} <= {".lock"}


def test_other_seeds_and_betas_give_other_runs(finished, tmp_path):
    others = [train(tmp_path / "seed", seed=1), train(tmp_path / "beta", beta=1.0)]
    prints = {fingerprint(r.params) for r in (finished, *others)}
    assert len(prints) == 3


def test_a_run_is_not_overwritten_unasked(finished, tmp_path):
    before = (finished.run_dir / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"holds a run already.*--resume.*--overwrite"):
        train(finished.run_dir)
    assert (finished.run_dir / "metrics.jsonl").read_bytes() == before

    train(tmp_path / "run", steps=1)
    result = train(tmp_path / "run", steps=2, overwrite=True)
    assert int(result.state.step) == 2


def test_a_directory_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is no run directory"):
        train(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def a_model_of_another_library(directory):
    (directory / "config.json").write_text('{"model_type": "llama"}')


def an_empty_config(directory):
    (directory / "config.json").write_text("{}")


def a_config_with_our_words(directory):
    (directory / "config.json").write_text('{"seed": 1, "batch_size": 64, "learning_rate": 0.1}')


def a_sweep(directory):
    open_sweep(directory, SweepConfig(resolved(small()), {"seed": (0, 1)}))


def a_run_with_another_inside(directory):
    rundir.create(directory, small(), overwrite=False)
    rundir.create(directory / "better" / "one", small(), overwrite=False)


@pytest.mark.parametrize(
    "make",
    [
        a_model_of_another_library,
        an_empty_config,
        a_config_with_our_words,
        a_sweep,
        a_run_with_another_inside,
    ],
)
def test_only_a_run_of_ours_is_replaced(tmp_path, make):
    directory = tmp_path / "there"
    directory.mkdir()
    make(directory)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="left alone"):
        rundir.create(directory, small(), overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_replaced_run_is_kept_until_the_new_one_has_a_checkpoint(tmp_path, monkeypatch, capsys):
    directory, aside = tmp_path / "run", tmp_path / ".run.replaced"
    rundir.create(directory, small(), overwrite=False)
    (directory / "checkpoints" / "4").mkdir(parents=True)
    (directory / "weeks").write_text("of training")
    averaged = trainer.averaged
    monkeypatch.setattr(trainer, "averaged", lambda m: averaged(m) | {"loss": float("nan")})
    with pytest.raises(UserError, match="Not finite"):
        train(directory, steps=1, overwrite=True)
    assert f"the previous run is kept in {aside}" in capsys.readouterr().err
    (directory / "checkpoints" / "0.orbax-checkpoint-tmp").mkdir(exist_ok=True)  # was killed
    rundir.create(directory, small(seed=1), overwrite=True)  # the one between is not worth it
    assert (aside / "weeks").read_text() == "of training"
    directory.rename(tmp_path / "gone")
    with pytest.raises(UserError, match="was to be replaced by a run that is gone"):
        rundir.create(directory, small(), overwrite=False)
    (tmp_path / "gone").rename(directory)
    monkeypatch.undo()
    train(directory, steps=1, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert not (directory / "weeks").exists()
    said = capsys.readouterr().err.splitlines()
    assert said, "it learned nothing"
    assert all(line.startswith("bvae: warning: ") for line in said)


def test_a_run_that_one_is_in_is_not_replaced(tmp_path, monkeypatch):
    rundir.create(tmp_path / "run", small(), overwrite=False)
    (tmp_path / "run" / "figures").mkdir()
    monkeypatch.chdir(tmp_path / "run" / "figures")
    with pytest.raises(UserError, match="is where you are"):
        rundir.create(Path(".."), small(), overwrite=True)


def test_links_lead_nowhere_unawares(tmp_path):
    """To an empty directory a link is as good as that; to a file that a run writes to it is not."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    rundir.create(tmp_path / "link", small(), overwrite=False)
    assert rundir.read_config(tmp_path / "disk") == small()
    (tmp_path / "thesis").write_text("years of work")
    (tmp_path / "disk" / ".lock").symlink_to(tmp_path / "thesis")
    with pytest.raises(UserError, match="is a link"), rundir.lock(tmp_path / "disk"):
        pass
    (tmp_path / "disk" / "metrics.jsonl").symlink_to(tmp_path / "thesis")
    with pytest.raises(OSError, match="metrics"):
        JsonLines(tmp_path / "disk" / "metrics.jsonl", 0)
    assert (tmp_path / "thesis").read_text() == "years of work"
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop"):
        rundir.check_free(tmp_path / "loop", overwrite=False)


@pytest.mark.parametrize("name", ["a\\b", "b[4]", "a*", "why?", "gs:", os.fsdecode(b"caf\xe9")])
def test_paths_that_checkpoints_cannot_carry_are_refused_first(tmp_path, name):
    with pytest.raises(UserError, match="in the path of a run"):
        train(tmp_path / name / "run")
    with pytest.raises(UserError, match="in the path of a run"):
        sweep(small(), tmp_path / name / "sweep", progress=False)
    assert not list(tmp_path.iterdir())


def test_an_unknown_name_is_found_before_anything_is_overwritten(finished):
    with pytest.raises(UserError, match="Unknown network"):
        train(finished.run_dir, network="vgg", overwrite=True)
    assert (finished.run_dir / "summary.json").exists()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good(tmp_path, monkeypatch):
    averaged, calls = trainer.averaged, itertools.count(1)

    def poisoned(metrics):
        of_training = "nll_variance" not in metrics
        bad = {"loss": float("nan")} if of_training and next(calls) == 4 else {}
        return averaged(metrics) | bad

    monkeypatch.setattr(trainer, "averaged", poisoned)
    with pytest.raises(UserError, match=r"between steps 6 and 8: loss .* step 4 is kept"):
        train(tmp_path / "run")
    assert max(r["step"] for r in read_records(tmp_path / "run" / "metrics.jsonl")) == 6


@pytest.mark.parametrize(("bad_at", "kept"), [(6, "step 4"), (12, "step 8")])
def test_an_evaluation_that_is_not_finite_stops_and_keeps_the_last_good(
    tmp_path, monkeypatch, bad_at, kept
):
    averaged, steps = trainer.averaged, iter((6, 6, 12, 12))  # training images, held-out ones

    def poisoned(metrics):
        bad = "nll_variance" in metrics and next(steps) >= bad_at
        return averaged(metrics) | ({"nll": float("nan")} if bad else {})

    monkeypatch.setattr(trainer, "averaged", poisoned)
    with pytest.raises(
        UserError, match=rf"evaluation \(train_eval\) at step {bad_at}: nll .* {kept} is kept"
    ):
        train(tmp_path / "run")
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert max(json.loads(line)["step"] for line in text.splitlines()) < bad_at
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_diverging_run_is_caught_for_real(tmp_path):
    with pytest.raises(UserError, match="Not finite between steps"):
        train(tmp_path / "run", learning_rate=1e30)


def test_a_summary_that_was_changed_is_made_anew_and_load_changes_nothing(
    finished, tmp_path, capsys
):
    directory = tmp_path / "run"
    shutil.copytree(finished.run_dir, directory)
    path = directory / "summary.json"
    path.write_text(path.read_text().replace('"step": 12', '"step": 12, "fid": 1'))
    (directory / "provenance.json").write_text("[]")
    before = {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}
    assert bvae_jax.load(directory, progress=False).summary is None
    assert {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()} == before
    said = capsys.readouterr().err
    assert f"{path} is damaged: its contents are not those of its checksum" in said
    train(directory, resume=True)
    assert contents(directory) == contents(finished.run_dir)


def test_two_processes_cannot_write_one_run(finished):
    with rundir.lock(finished.run_dir), pytest.raises(UserError, match="Another process"):
        train(finished.run_dir, resume=True)


def test_nothing_is_compiled_after_the_first_steps(tmp_path):
    """Compilations are counted while a run goes from its first chunk to its last."""
    compiled = []

    def listen(event: str, duration_secs: float, **_):
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    class Watched(runner.TrainingProgress):
        def update(self, steps, means, rate):
            super().update(steps, means, rate)
            counts.append(len(compiled))

    counts = []
    jax.monitoring.register_event_duration_secs_listener(listen)
    original, runner.TrainingProgress = runner.TrainingProgress, Watched
    try:
        train(tmp_path / "run", steps=40, log_every=10, eval_every=40, checkpoint_every=40)
    finally:
        runner.TrainingProgress = original
    assert len(counts) == 4
    assert counts[0] > 0
    assert counts[-1] == counts[0]


def test_next_stop_is_where_the_first_thing_is_due():
    config = small(log_every=50, eval_every=70, checkpoint_every=120, steps=200)
    stops, step = [], 0
    while step < 200:
        stops.append(step := training.next_stop(config, step))
    assert stops == [50, 70, 100, 120, 140, 150, 200]


def test_signals_are_wishes_only_while_deferred(capsys):
    with Interrupt() as interrupt:
        with interrupt.deferred():
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupt.requested
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert "finishing these steps and saving" in capsys.readouterr().err


def test_deferring_may_be_nested():
    with Interrupt() as interrupt, interrupt.deferred():
        with interrupt.deferred():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.requested


def test_a_signal_that_python_would_swallow_is_raised_at_the_next_safe_place():
    """JAX has a callback of the garbage collector: an exception in there is printed, no more."""
    signals = [signal.SIGINT]

    def callback(phase, info):
        if signals:
            os.kill(os.getpid(), signals.pop())

    gc.callbacks.append(callback)
    try:
        with Interrupt() as interrupt:
            interrupt.check()
            gc.collect()
            assert interrupt.requested
            with pytest.raises(KeyboardInterrupt):
                interrupt.check()
        signals.append(signal.SIGINT)
        with Interrupt():
            gc.collect()
            with pytest.raises(KeyboardInterrupt):
                time.sleep(5)  # it comes again
    finally:
        gc.callbacks.remove(callback)


def test_a_terminal_that_is_closed_is_like_sigterm_but_not_under_nohup(monkeypatch):
    with Interrupt() as interrupt, interrupt.deferred():
        assert signal.getsignal(signal.SIGHUP) not in (signal.SIG_DFL, signal.SIG_IGN)
        os.kill(os.getpid(), signal.SIGHUP)
        assert interrupt.requested
        os.kill(os.getpid(), signal.SIGHUP)  # by the shell that ran in it
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_is_fatal_inside_fatal_and_as_before_outside():
    with fatal():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with Interrupt():
        with fatal():
            assert {signal.getsignal(number) for number in SIGNALS} == {signal.SIG_DFL}
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_interrupt_is_harmless_in_other_threads():
    errors = []

    def enter():
        try:
            with Interrupt():
                pass
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert not errors


@pytest.mark.once
def test_a_run_of_an_earlier_version_goes_on(tmp_path):
    """Left at step 50 of 100 by the version before the trainer; its images were moved since.

    What it ended with there: the numbers below. Roundings are those of another processor.
    """
    shutil.copytree(Path(__file__).parent / "data" / "unfinished_run", tmp_path / "run")
    sizes = (2, 4, 4)
    factors = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), -1).reshape(-1, 3)
    images = np.zeros((len(factors), 4, 4), np.uint8)
    for image, (size, x, y) in zip(images, factors, strict=True):
        image[y : y + 1 + size, x : x + 1 + size] = 255
    names = np.array(["size", "x", "y"])
    arrays = {"images": images, "factors": factors.astype(np.uint8), "factor_names": names}
    np.savez_compressed(tmp_path / "images.npz", **arrays)
    images_now = {"dataset": f"npz:{tmp_path}/images.npz", "data_dir": str(tmp_path)}
    loaded = bvae_jax.load(tmp_path / "run", data=False)
    assert int(loaded.state.step) == 50
    config = loaded.config.replace(**images_now)
    found = bvae_jax.train(config, tmp_path / "run", resume=True, figures=False, progress=False)
    assert found.summary
    assert found.summary["nll"] == pytest.approx(7.227613, rel=1e-4)
    assert found.summary["kl"] == pytest.approx(0.015220, rel=1e-2)
    whole = bvae_jax.train(config, tmp_path / "whole", figures=False, progress=False)
    assert_close(found.state, whole.state, rtol=1e-4)
    assert len(read_records(tmp_path / "run" / "metrics.jsonl")) == 8
