"""One run on several devices, and on several processes."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np
import optax
import pytest
from bvae_jax.runs.distributed import ALONE, join
from bvae_jax.runs.divided import choose_devices
from conftest import assert_equal

import bvae_jax
from bvae_jax.config import Config
from bvae_jax.errors import UserError
from bvae_jax.runs import rundir
from bvae_jax.runs.placement import shard_of_process
from bvae_jax.runtime import (
    SIGNALS,
    Interrupt,
)

SMALL = Config(
    image_source="rendered", batch_size=16, latents=3, steps=8, log_every=2, eval_every=4,
    eval_images=16, checkpoint_every=4,
)  # fmt: skip
CHANGED = ("image_source", "batch_size", "latents", "log_every", "eval_every", "eval_images")
CHANGED += ("checkpoint_every",)
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
    start = other.program.init().params["vae"]
    moved, apart = (
        optax.tree.norm(jax.tree.map(lambda a, b: a - b, other.params, from_))
        for from_ in (start, ours.params)
    )
    assert apart < 0.05 * moved  # with other batches it is half


def train(path, config=SMALL, **options: Any):
    return bvae_jax.train(config, path, figures=False, progress=False, **options)


def left(path):
    """What a run leaves, without times."""
    summary = rundir.read_json(path / "summary.json")
    return summary["params_sha256"], (path / "metrics.jsonl").read_text()


@contextlib.contextmanager
def started(*command, count=2, **environment):
    """As many processes of a command, which JAX can join; killed at the end if they hang."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = os.environ | environment | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
        "JAX_NUM_PROCESSES": str(count),
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            command,
            env=shared | {"JAX_PROCESS_ID": str(i)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def ended(processes):
    """(exit code, what it printed, its complaints) of each process."""
    found = []
    for process in processes:
        said, complaints = process.communicate(timeout=SECONDS)
        said = "".join(line for line in said.splitlines(True) if not line.startswith("[Gloo]"))
        found.append((process.returncode, said, complaints))
    return found


def together(*command):
    """Two processes of `bvae`, which succeed."""
    with started(*BVAE, *map(str, command)) as processes:
        found = ended(processes)
    assert [code for code, _, _ in found] == [0, 0], found
    return found


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """A run on one device."""
    return train(tmp_path_factory.mktemp("runs") / "single")


@pytest.fixture(scope="module")
def divided(tmp_path_factory):
    """A run on two devices of one process."""
    return train(tmp_path_factory.mktemp("runs") / "divided", devices=2)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A run of two processes with a device each, and what they said."""
    path = tmp_path_factory.mktemp("runs") / "shared"
    return path, together(
        "train", "--run-dir", path, "--steps", 8, "--no-figures", "--distributed", *flags()
    )


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
    program = divided.program
    state, fetch = program.train(program.init(), program.train_data, 1)
    fetch()
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))
    assert len(state.step.devices()) == 2


@pytest.mark.once
def test_a_resumed_run_keeps_its_devices(longer, tmp_path):
    train(tmp_path / "run", devices=2)
    again = train(tmp_path / "run", LONGER, resume=True)
    assert_equal(again.state, longer.state)
    sessions = rundir.read_json(tmp_path / "run" / rundir.PROVENANCE)["sessions"]
    assert [(one["devices"], one["processes"]) for one in sessions] == [(2, 1), (2, 1)]


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
            choose_devices(bad, 1, distributed=False)
    with pytest.raises(UserError, match="divided over 3 devices, here are 2"):
        choose_devices(None, 3, distributed=False)
    with pytest.raises(UserError, match="--devices: got 1, but --distributed takes all"):
        choose_devices("1", 1, distributed=True)
    found = [choose_devices(given, 2, distributed=False) for given in (None, "all", "1", 1)]
    assert [len(devices) for devices in found] == [2, 2, 1, 1]


@pytest.mark.once
def test_eight_devices(single, tmp_path):
    """`bvae train --devices all`, and a sweep with a member on each."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}
    options = {"env": environment, "check": True, "timeout": SECONDS, "capture_output": True}
    run_flags = ["--run-dir", tmp_path / "run", "--devices", "all", "--no-figures", "--steps", "8"]
    subprocess.run([*BVAE, "train", *flags(), *run_flags], **options)
    result = bvae_jax.load(tmp_path / "run", progress=False)
    assert_near(result, single)
    (session,) = rundir.read_json(tmp_path / "run" / rundir.PROVENANCE)["sessions"]
    assert (session["devices"], session["device"]) == (8, "8 x cpu (cpu)")

    betas = ["4", "1", "2", "6", "8", "10", "12", "16"]
    sweep_flags = ["--sweep-dir", tmp_path / "sweep", "--steps", "8", "--betas", *betas, "--quiet"]
    subprocess.run([*BVAE, "sweep", *flags(), *sweep_flags], **options)
    members = tmp_path / "sweep" / "members"
    assert len(list(members.rglob("summary.json"))) == 8
    member = bvae_jax.load(members / "beta=4,seed=0", progress=False)
    assert_near(member, single)
    session = rundir.read_json(members / "beta=4,seed=0" / rundir.PROVENANCE)["sessions"][0]
    assert session["sweep"] == {"strategy": "devices", "members_at_once": 8}


def test_two_processes_equal_one_with_two_devices_bit_for_bit(divided, shared):
    path, ((_, said, complaints), (_, other_said, other_complaints)) = shared
    assert left(path) == left(divided.run_dir)
    (session,) = rundir.read_json(path / rundir.PROVENANCE)["sessions"]
    assert (session["devices"], session["processes"]) == (2, 2)
    # The first process speaks for both.
    assert "step 8  nll" in said
    assert "on 2 x cpu" in complaints
    assert not other_said
    assert "bvae:" not in other_complaints


def test_one_process_goes_on_with_a_run_of_two(shared, longer, tmp_path):
    shutil.copytree(shared[0], tmp_path / "run")
    result = train(tmp_path / "run", LONGER, resume=True)
    assert_equal(result.state, longer.state)
    assert left(tmp_path / "run") == left(longer.run_dir)


@pytest.mark.once
def test_two_processes_go_on_with_a_run_of_one(divided, longer, tmp_path):
    shutil.copytree(divided.run_dir, tmp_path / "run")
    more = ("--steps", 12, "--no-figures", "--resume", "--distributed")
    together("train", "--run-dir", tmp_path / "run", *more)
    assert left(tmp_path / "run") == left(longer.run_dir)


@pytest.mark.once
def test_a_signal_to_one_process_stops_both_at_the_same_step(tmp_path):
    path = tmp_path / "run"
    many = ["--run-dir", str(path), "--steps", "1000000", "--checkpoint-every", "1000000"]
    with started(*BVAE, "train", "--distributed", *flags(), *many) as processes:
        deadline = time.monotonic() + SECONDS
        while not (path / "metrics.jsonl").exists() or not (path / "metrics.jsonl").read_text():
            assert time.monotonic() < deadline
            assert [process.poll() for process in processes] == [None, None]
            time.sleep(0.1)
        processes[1].send_signal(signal.SIGTERM)
        found = ended(processes)
    assert [code for code, _, _ in found] == [0, 0], found
    assert "finishing these steps and saving" in found[1][2]
    assert "Interrupted at step" in found[0][1]
    assert "--resume --distributed" in found[0][1]
    last = json.loads((path / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    (checkpoint,) = [p.name for p in (path / "checkpoints").iterdir() if p.name.isdigit()]
    assert int(checkpoint) == last


@pytest.mark.once
def test_a_directory_that_is_taken_ends_both(shared):
    path = shared[0]
    before = left(path)
    with started(*BVAE, "train", "--run-dir", str(path), "--distributed") as processes:
        found = ended(processes)
    assert [code for code, _, _ in found] == [2, 2], found
    assert all("holds a run already" in complaints for _, _, complaints in found)
    assert left(path) == before


@pytest.mark.once
def test_each_process_trains_its_part_of_a_sweep(single, tmp_path):
    more = ("--steps", 8, "--betas", 1, 4, "--quiet", "--distributed")
    together("sweep", "--sweep-dir", tmp_path / "sweep", *more, *flags())
    members = tmp_path / "sweep" / "members"
    assert left(members / "beta=4,seed=0") == left(single.run_dir)
    commands = [rundir.read_json(path)["sessions"] for path in members.rglob("provenance.json")]
    assert [len(sessions) for sessions in commands] == [1, 1]


TEAM = """
import os, sys
import jax, jax.numpy as jnp, numpy as np
from bvae_jax.errors import UserError
from bvae_jax.processes import check_agreed, join

team = join()
assert join().count == team.count == 2
here = team.index
assert team.first(lambda: {"number": [here, None], "text": "\\u03b2" * 5000})["number"] == [0, None]
assert team.each(lambda: here) == here
assert team.any(here == 1) and not team.any(False)

def fail_in(process, error):
    def action():
        if here == process:
            raise error
    return action

def outcome(action):
    try:
        action()
    except BaseException as error:
        return f"{type(error).__name__}: {error}"

assert outcome(lambda: team.each(fail_in(1, UserError("of 1")))) == "UserError: of 1"
assert outcome(lambda: team.first(fail_in(0, UserError("of 0")))) == "UserError: of 0"
lost = outcome(lambda: team.first(fail_in(0, OSError("disk"))))
assert lost == ["OSError: disk", "UserError: Process 0: OSError('disk')"][here]
assert outcome(lambda: team.each(fail_in(1, KeyboardInterrupt()))) == "KeyboardInterrupt: "

check_agreed(team, [1, None])
assert "same flags" in outcome(lambda: check_agreed(team, here))

mine = {"key": jax.random.key(3 + here), "x": jnp.array([-0.0, jnp.nan, here + 1.0]),
        "step": jnp.int32(here), "none": jnp.zeros((0, 2))}
got = team.share(mine)
assert got["key"].dtype == mine["key"].dtype
assert (jax.random.key_data(got["key"]) == jax.random.key_data(jax.random.key(3))).all()
assert np.asarray(got["x"]).tobytes() == np.float32([-0.0, np.nan, 1.0]).tobytes()
assert got["step"] == 0 and got["none"].shape == (0, 2)
print("good", flush=True)
if os.environ["DIE"] == str(here):
    raise RuntimeError("lost")
"""


def test_what_processes_tell_each_other():
    with started(sys.executable, "-c", TEAM, DIE="none") as processes:
        found = ended(processes)
    assert [(code, said) for code, said, _ in found] == [(0, "good\n")] * 2, found


def test_a_process_that_fails_does_not_wait_for_the_others():
    begin = time.monotonic()
    with started(sys.executable, "-c", TEAM, DIE="1") as processes:
        _, complaints = processes[1].communicate(timeout=SECONDS)
    assert processes[1].returncode == 1
    assert "RuntimeError: lost" in complaints
    assert time.monotonic() - begin < SECONDS


CLUSTER = {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"JAX_COORDINATOR_ADDRESS": "localhost"},
        {"JAX_COORDINATOR_ADDRESS": "localhost:1", "JAX_PROCESS_ID": "2"},
        {"JAX_COORDINATOR_ADDRESS": "localhost:1", "JAX_NUM_PROCESSES": "two"},
    ],
)
def test_variables_that_describe_no_processes(change):
    with pytest.raises(UserError, match=r"wanted host:port, a number n, and one from 0 to n - 1"):
        join(CLUSTER | change)


def test_no_cluster(tmp_path):
    with pytest.raises(UserError, match=r"--distributed: JAX cannot join the processes: .* srun"):
        join({})
    with pytest.raises(UserError, match="--distributed: found no other processes"):
        shard_of_process({})
    with pytest.raises(UserError, match="both --shard and --distributed"):
        bvae_jax.sweep(SMALL, tmp_path / "sweep", shard="1/2", distributed=True)


def test_which_part_of_a_sweep_a_process_has():
    assert shard_of_process(CLUSTER) == (2, 2)
    assert shard_of_process({"SLURM_PROCID": "0", "SLURM_NTASKS": "3"}) == (1, 3)
    mpi = {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4"}
    assert shard_of_process(mpi) == (4, 4)


def test_a_run_alone_agrees_with_itself():
    assert ALONE.first(lambda: 3) == ALONE.each(lambda: 3) == 3
    assert ALONE.any(True)
    assert not ALONE.any(False)
    tree = {"x": np.ones(2)}
    assert ALONE.share(tree) is tree


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
