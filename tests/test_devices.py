"""One run on several devices."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
from conftest import assert_equal

import bvae_jax
from bvae_jax.config import Config
from bvae_jax.errors import UserError
from bvae_jax.files import read_json
from bvae_jax.runs import rundir
from bvae_jax.runs.mesh import choose_devices
from bvae_jax.runs.placement import shard_of_process
from bvae_jax.runtime import (
    SIGNALS,
    Interrupt,
)

SMALL = Config(
    network="small", image_source="rendered", batch_size=16, latents=3, steps=8, log_every=2,
    eval_every=4, eval_images=16, checkpoint_every=4,
)  # fmt: skip
CHANGED = ("network", "image_source", "batch_size", "latents", "log_every", "eval_every")
CHANGED += ("eval_images", "checkpoint_every")
BVAE = (sys.executable, "-m", "bvae_jax")
SECONDS = 240
"""After which a process that hangs is killed."""


@pytest.fixture(autouse=True, scope="module")
def constraints_may_see_keys_twice():
    """Older JAX's check of key reuse takes a sharding constraint for a use of a key."""
    with jax.debug_key_reuse(False):
        yield


def flags(config=SMALL):
    pairs = [(f"--{name.replace('_', '-')}", getattr(config, name)) for name in CHANGED]
    return [str(part) for pair in pairs for part in pair]


def assert_near(ours, other):
    """Two runs went the same way, but for roundings: Adam divides by small numbers at first, so
    that some become steps of the learning rate."""
    start, end, found = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])
        for params in (other.trainer.init().params["vae"], other.params, ours.params)
    )
    moved, apart = np.linalg.norm(end - start), np.linalg.norm(end - found)
    assert apart < 0.05 * moved  # with other batches it is half


def train(path, config=SMALL, **options: Any):
    return bvae_jax.train(config, path, figures=False, progress=False, **options)


def left(path):
    """What a run leaves, without times."""
    summary = read_json(path / "summary.json")
    return summary["params_sha256"], (path / "metrics.jsonl").read_text()


def together(*command):
    """Two processes of `bvae` with the variables of a cluster, which succeed."""
    shared = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_PROCESSES": "2"}
    processes = [
        subprocess.Popen(
            [*BVAE, *map(str, command)],
            env=shared | {"JAX_PROCESS_ID": str(i)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        found = [process.communicate(timeout=SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], found


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """A run on one device."""
    return train(tmp_path_factory.mktemp("runs") / "single")


@pytest.fixture(scope="module")
def divided(tmp_path_factory):
    """A run on two devices of one process."""
    return train(tmp_path_factory.mktemp("runs") / "divided", devices=2)


LONGER = dataclasses.replace(SMALL, steps=12)


@pytest.fixture(scope="module")
def longer(tmp_path_factory):
    """A longer run on two devices of one process."""
    return train(tmp_path_factory.mktemp("runs") / "longer", LONGER, devices=2)


def test_two_devices_do_what_one_does(single, divided):
    assert_near(divided, single)
    assert_equal(divided.state.key, single.state.key)
    assert divided.summary["nll"] == pytest.approx(single.summary["nll"], rel=1e-5)
    assert left(divided.run_dir) != left(single.run_dir)  # the roundings of another order of sums
    assert all(len(leaf.devices()) == 1 for leaf in jax.tree.leaves(divided.params))


def test_each_device_computes_its_share_of_a_batch(divided):
    trainer = divided.trainer
    state = trainer.init()
    state, fetch = trainer.train(trainer.stack([state]), trainer.feed([state]), 1)
    fetch()
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))
    assert len(state.step.devices()) == 2


@pytest.mark.once
def test_a_resumed_run_keeps_its_devices(longer, tmp_path):
    train(tmp_path / "run", devices=2)
    again = train(tmp_path / "run", LONGER, resume=True)
    assert_equal(again.state, longer.state)
    sessions = read_json(tmp_path / "run" / rundir.PROVENANCE)["sessions"]
    assert [one["devices"] for one in sessions] == [2, 2]


@pytest.mark.once
def test_a_run_may_go_on_with_other_devices(divided, longer, tmp_path, capsys):
    shutil.copytree(divided.run_dir, tmp_path / "run")
    options = {"resume": True, "figures": False, "devices": 1}
    result = bvae_jax.train(LONGER, tmp_path / "run", **options)
    assert "1 device(s), before 2: roundings will differ" in capsys.readouterr().err
    assert_near(result, longer)


def test_devices_that_do_not_fit(divided, tmp_path):
    odd = dataclasses.replace(SMALL, batch_size=5)
    with pytest.raises(UserError, match=r"--batch-size: got 5, wanted a multiple of 2"):
        train(tmp_path / "run", odd, devices="all")
    assert not (tmp_path / "run").exists()
    for bad in (0, 3, "3", "-1", "two", ""):
        with pytest.raises(UserError, match=r"--devices: got .*, wanted all or a number from 1"):
            choose_devices(bad, 1)
    with pytest.raises(UserError, match="divided over 3 devices, here are 2"):
        choose_devices(None, 3)
    found = [choose_devices(given, 2) for given in (None, "all", "1", 1)]
    assert [len(devices) for devices in found] == [2, 2, 1, 1]


@pytest.mark.once
def test_four_devices(single, tmp_path):
    """`bvae train --devices all`, and a sweep with a member on each."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "4"}
    options = {"env": environment, "check": True, "timeout": SECONDS, "capture_output": True}
    run_flags = ["--run-dir", tmp_path / "run", "--devices", "all", "--no-figures", "--steps", "8"]
    subprocess.run([*BVAE, "train", *flags(), *run_flags], **options)
    result = bvae_jax.load(tmp_path / "run", progress=False)
    assert_near(result, single)
    (session,) = read_json(tmp_path / "run" / rundir.PROVENANCE)["sessions"]
    assert (session["devices"], session["device"]) == (4, "4 x cpu")

    betas = ["4", "1", "2", "6"]
    sweep_flags = ["--sweep-dir", tmp_path / "sweep", "--steps", "8", "--betas", *betas, "--quiet"]
    subprocess.run([*BVAE, "sweep", *flags(), *sweep_flags], **options)
    members = tmp_path / "sweep" / "members"
    assert len(list(members.rglob("summary.json"))) == 4
    member = bvae_jax.load(members / "beta=4,seed=0", progress=False)
    assert_near(member, single)
    session = read_json(members / "beta=4,seed=0" / rundir.PROVENANCE)["sessions"][0]
    assert session["sweep"] == {"strategy": "devices", "members_at_once": 4}


@pytest.mark.once
def test_each_process_trains_its_part_of_a_sweep(single, tmp_path):
    more = ("--steps", 8, "--betas", 1, 4, "--quiet", "--distributed")
    together("sweep", "--sweep-dir", tmp_path / "sweep", *more, *flags())
    members = tmp_path / "sweep" / "members"
    assert left(members / "beta=4,seed=0") == left(single.run_dir)
    commands = [read_json(path)["sessions"] for path in members.rglob("provenance.json")]
    assert [len(sessions) for sessions in commands] == [1, 1]


CLUSTER = {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}


def test_no_cluster(tmp_path):
    with pytest.raises(UserError, match="--distributed: found no other processes"):
        shard_of_process({})
    with pytest.raises(UserError, match="both --shard and --distributed"):
        bvae_jax.sweep(SMALL, tmp_path / "sweep", shard="1/2", distributed=True)


def test_which_part_of_a_sweep_a_process_has():
    assert shard_of_process(CLUSTER) == (2, 2)
    assert shard_of_process({"SLURM_PROCID": "0", "SLURM_NTASKS": "3"}) == (1, 3)
    mpi = {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4"}
    assert shard_of_process(mpi) == (4, 4)


def test_a_handler_that_python_does_not_know_is_no_obstacle(monkeypatch):
    """JAX may have set one in C++; `signal.signal` then gives None, and does not take it."""
    original, taken = signal.signal, []

    def unknown(number, handler):
        taken.append(handler)
        original(number, handler)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    monkeypatch.setattr(signal, "signal", unknown)
    try:
        with Interrupt():
            pass
    finally:
        for number, handler in before.items():
            original(number, handler)
    assert taken[3:] == [signal.SIG_DFL] * 3
