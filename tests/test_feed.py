"""Streaming: the same images as resident ones, to the bit, whoever reads them."""

import dataclasses
import os
import signal
import threading
from typing import Any

import jax
import numpy as np
import pytest
from conftest import assert_equal

from bvae_jax import data
from bvae_jax.config import Config
from bvae_jax.data import sampling
from bvae_jax.data.base import Dataset, Stored
from bvae_jax.runs import encode
from bvae_jax.runs import train as runner
from bvae_jax.runs.run import load
from bvae_jax.runs.sweep import sweep
from bvae_jax.runs.trainer import Trainer
from bvae_jax.runs.writer import Writer

pytestmark = pytest.mark.usefixtures("tiny_network")

SMALL: dict[str, Any] = {
    "dataset": "stored",
    "network": "tiny",
    "batch_size": 4,
    "latents": 2,
    "steps": 13,
    "log_every": 5,
    "eval_every": 6,
    "eval_images": 16,
    "checkpoint_every": 4,
    "holdout": 0.3,
}


@pytest.fixture(autouse=True)
def stored(monkeypatch):
    """A stored set of coloured noise, with two factors, and windows of three steps."""
    images = np.random.default_rng(0).integers(0, 256, (90, 16, 16, 3)).astype(np.uint8)
    dataset = Dataset(
        name="stored", version=1, image_shape=(16, 16, 3), pixels=Stored(images, (16, 16, 3)),
        factor_names=("a", "b"), factor_sizes=(9, 10),
        finish=lambda image, key: image * jax.random.uniform(key),
    )  # fmt: skip
    monkeypatch.setitem(data.DATASETS, "stored", dataset)
    monkeypatch.setattr(sampling, "MOST_STEPS", 3)


def train(path, kind, *, resume=False, **changes: Any):
    config = Config(**{**SMALL, "image_source": kind, **changes})
    return runner.train(config, path, resume=resume, figures=False, progress=False)


def records(path):
    return (path / "metrics.jsonl").read_bytes()


CHANGES = (
    {"batch_seed": 5, "correlate": "a,b=0.3", "exclude": "a=2"},
    {"only": "b<7", "augment": "flip,shift=2"},
    {"objective": "ada_gvae"},
)


@pytest.mark.parametrize(
    "changes",
    [{}, *(pytest.param(changes, marks=pytest.mark.once) for changes in CHANGES)],
    ids=lambda changes: ",".join(changes) or "plain",
)
def test_a_streamed_run_is_the_resident_one(tmp_path, monkeypatch, changes):
    resident = train(tmp_path / "a", "resident", **changes)
    streamed = train(tmp_path / "b", "streamed", **changes)
    assert_equal(streamed.state, resident.state)
    assert records(tmp_path / "a") == records(tmp_path / "b")
    indices = np.array([3, 1, 50, 3])
    np.testing.assert_array_equal(
        streamed.trainer.images(indices), resident.trainer.images(indices)
    )
    assert_equal(
        streamed.trainer.encode(streamed.params, indices),
        resident.trainer.encode(resident.params, indices),
    )
    monkeypatch.setitem(encode.BATCHES, "cpu", 8)  # read by several threads
    assert_equal(
        encode.encode_points(streamed.trainer, streamed.params, 60),
        encode.encode_points(resident.trainer, resident.params, 60),
    )


def test_a_streamed_run_resumes_bit_for_bit(tmp_path, monkeypatch):
    whole = train(tmp_path / "whole", "streamed")
    log = Writer._log

    def signal_at_five(self, step, split, means):
        log(self, step, split, means)
        if (step, split) == (5, "train"):
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(Writer, "_log", signal_at_five)
        assert train(tmp_path / "part", "streamed").summary is None
    resumed = train(tmp_path / "part", "streamed", resume=True)
    assert_equal(resumed.state, whole.state)
    assert records(tmp_path / "part") == records(tmp_path / "whole")


@pytest.mark.parametrize("batch_seed", [-1, 3])
def test_members_of_a_sweep_are_streamed_together(batch_seed):
    finals = []
    for kind in ("resident", "streamed"):
        config = Config(**{**SMALL, "image_source": kind, "batch_seed": batch_seed})
        trainer = Trainer(config, progress=False).spread(2, jax.local_devices()[:1])
        singles = [trainer.init(config.replace(seed=seed)) for seed in (0, 1)]
        feed, states, means = trainer.feed(singles), trainer.stack(singles), []
        for steps in (4, 1):
            states, fetch = trainer.train(states, feed, steps)
            means.append(fetch())
        finals.append(([trainer.member(states, i) for i in range(2)], means))
        feed.close()
    assert_equal(finals[0][0], finals[1][0])
    assert finals[0][1] == finals[1][1]


@pytest.mark.once
def test_a_sweep_of_streamed_runs(tmp_path):
    sweep(
        Config(**{**SMALL, "image_source": "streamed", "steps": 6}), tmp_path / "sweep",
        betas=[1.0, 4.0], seeds=[0], strategy="sequential", progress=False, figures=False,
    )  # fmt: skip
    alone = train(tmp_path / "alone", "resident", steps=6, beta=4.0)
    member = load(tmp_path / "sweep" / "members" / "beta=4,seed=0", progress=False)
    assert_equal(member.params, alone.params)


def test_windows_are_bounded_and_read_ahead_in_order(monkeypatch):
    monkeypatch.setattr(sampling, "WINDOW_BYTES", 2 * 4 * 16 * 16 * 3)
    trainer = Trainer(Config(**{**SMALL, "image_source": "streamed"}), progress=False)
    windows = trainer.feed([trainer.init()])
    assert windows.steps_at_once == 2  # pyright: ignore
    sizes = [(n, images.shape) for n, (_, (_, images)) in windows.parts(5)]
    assert sizes == [(n, (2 * 4, 16, 16, 3)) for n in (2, 2, 1)]
    windows.close()


def test_threads_end_with_the_run(tmp_path):
    before = threading.active_count()
    train(tmp_path / "run", "streamed")
    for thread in threading.enumerate():
        if "grain" in thread.name:
            thread.join(5)
    assert threading.active_count() <= before + 2


def test_what_cannot_be_read_ends_the_run_in_one_line(tmp_path, monkeypatch, capsys):
    class Gone:
        nbytes, shape, ndim = 90 * 768, (90, 16, 16, 3), 4

        def __len__(self):
            return 90

        def __getitem__(self, rows):
            raise OSError(5, "Input/output error", os.fspath(tmp_path / "images.npy"))

    dataset = data.DATASETS["stored"]
    gone = dataclasses.replace(dataset, pixels=Stored(Gone(), (16, 16, 3)))  # pyright: ignore
    monkeypatch.setitem(data.DATASETS, "stored", gone)
    with pytest.raises(OSError, match="Input/output"):
        train(tmp_path / "run", "streamed")
