"""Sweeps: members as if trained alone, whoever trains them with whom, and whatever is killed."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import assert_close, assert_equal, changed, two_devices

import bvae_jax
from bvae_jax.config import Config
from bvae_jax.errors import UserError
from bvae_jax.files import read_json
from bvae_jax.runs import placement as sweep_plan
from bvae_jax.runs import rundir, sweepdir, trainer
from bvae_jax.runs.placement import batches, evenly, make_plan, parse_shard
from bvae_jax.runs.sweep import make_sweep, sweep
from bvae_jax.runs.sweepdir import SweepConfig, open_sweep, read_sweep
from bvae_jax.runs.trainer import Trainer, Trainers
from bvae_jax.runs.writer import Writer

BASE = Config(
    image_source="rendered", batch_size=4, latents=3, steps=8, log_every=2, eval_every=8,
    eval_images=16, checkpoint_every=2,
)  # fmt: skip
TINY = dataclasses.replace(BASE, network="tiny")
pytestmark = pytest.mark.usefixtures("tiny_network")


@pytest.fixture(autouse=True)
def shard_map_may_see_keys_twice():
    """JAX's check of key reuse takes a shard_map for a use of every key that goes through it."""
    with jax.debug_key_reuse(False):
        yield


def small(directory, betas=(1.0, 6.0), seeds=2, config=BASE, **options):
    return sweep(config, directory, betas=betas, seeds=seeds, progress=False, **options)


def fingerprints(directory):
    """Of what a member leaves, without times."""
    found = {}
    for path in sorted((directory / "members").iterdir()):
        if (path / "summary.json").exists():
            summary = read_json(path / "summary.json")
            found[path.name] = (summary["params_sha256"], (path / "metrics.jsonl").read_text())
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished sweep of four members."""
    return small(tmp_path_factory.mktemp("sweeps") / "sweep", strategy="sequential")


def test_members_equal_single_runs_bit_for_bit(finished, tmp_path):
    assert set(finished.statuses.values()) == {"done"}
    for beta, seed in ((1.0, 0), (6.0, 1)):
        config = dataclasses.replace(BASE, beta=beta, seed=seed)
        name = f"beta={beta:g},seed={seed}"
        alone = bvae_jax.train(config, tmp_path / name, figures=False, progress=False)
        assert alone.summary
        summary, records = fingerprints(finished.sweep_dir)[name]
        assert summary == alone.summary["params_sha256"]
        assert records == (tmp_path / name / "metrics.jsonl").read_text()


def test_a_member_is_a_run(finished, tmp_path):
    directory = finished.sweep_dir / "members" / "beta=6,seed=1"
    loaded = bvae_jax.load(directory, progress=False)
    assert loaded.config.beta == 6.0
    assert rundir.read_config(directory) == loaded.config


def test_a_sweep_is_a_mapping_of_runs_and_a_table(finished):
    table = finished.table
    assert list(table.index) == [f"beta={b},seed={s}" for b in (1, 6) for s in (0, 1)]
    assert list(table["beta"]) == [1.0, 1.0, 6.0, 6.0]
    assert list(table["setting"]) == ["β = 1", "β = 1", "β = 6", "β = 6"]
    assert list(finished) == list(table.index)
    for name, run in finished.items():
        alone = bvae_jax.load(finished.sweep_dir / "members" / name, progress=False)
        assert_equal(run.state, alone.state)
        assert (run.config, run.summary) == (alone.config, alone.summary)
        assert table["nll"][name] == alone.summary["nll"]  # pyright: ignore
        assert run.trainer is finished[table.index[0]].trainer  # compiled once for all
    with pytest.raises(UserError, match="Unknown member 'beta=9'"):
        finished["beta=9"]
    assert finished.get("beta=9") is None
    assert "beta=9" not in finished


@pytest.mark.once
def test_a_finished_sweep_is_left_alone_and_can_grow(finished, tmp_path):
    small(tmp_path / "sweep", betas=(6.0,), seeds=1, strategy="sequential")
    one = tmp_path / "sweep" / "members" / "beta=6,seed=0"
    before = {path: path.stat().st_mtime_ns for path in one.rglob("*") if path.is_file()}
    result = small(tmp_path / "sweep", betas=(6.0, 1.0), seeds=2, strategy="sequential")
    assert set(result.statuses.values()) == {"done"}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert fingerprints(tmp_path / "sweep") == fingerprints(finished.sweep_dir)


@pytest.mark.parametrize("strategy", ["vmap", pytest.param("devices", marks=pytest.mark.once)])
def test_members_trained_together_are_close_to_single_runs(finished, tmp_path, strategy):
    result = small(tmp_path / "sweep", strategy=strategy)
    assert set(result.statuses.values()) == {"done"}
    for name in finished:
        ours, alone = result[name].state, finished[name].state
        # Adam divides by small numbers at first: roundings become steps of the learning rate.
        assert_close(ours.params, alone.params, rtol=1e-3, atol=4 * BASE.learning_rate)
        assert_equal(ours.key, alone.key)
    np.testing.assert_allclose(result.table["loss"], finished.table["loss"], rtol=1e-4)
    np.testing.assert_allclose(result.table["kl"], finished.table["kl"], rtol=1e-2)
    sessions = read_json(tmp_path / "sweep" / "members" / "beta=1,seed=0" / rundir.PROVENANCE)[
        "sessions"
    ]
    assert sessions[0]["sweep"] == {
        "strategy": strategy,
        "members_at_once": {"devices": 2, "vmap": 4}[strategy],
    }


def compilations(action):
    """How often something was compiled."""
    count = []

    def listen(event: str, duration_secs: float, **_):
        if event.endswith("backend_compile_duration"):
            count.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    action()
    return len(count)


@pytest.mark.once
@pytest.mark.parametrize("strategy", ["sequential", "devices"])
def test_one_program_serves_all_betas_rates_and_seeds(tmp_path, strategy):
    """Eight times as many members: not one compilation more."""
    rates = {"learning_rate": (1e-4, 1e-3)}
    config = dataclasses.replace(TINY, steps=4, eval_every=4, beta_schedule="linear:steps=3")
    few = compilations(lambda: small(tmp_path / "a", (1.0,), 1, config, strategy=strategy))
    many = compilations(
        lambda: small(tmp_path / "b", (2.0, 5.0), 2, config, grid=rates, strategy=strategy)
    )
    assert len(fingerprints(tmp_path / "b")) == 8
    assert 0 < many <= few


@pytest.mark.once
@pytest.mark.parametrize("strategy", ["sequential", "vmap"])
def test_a_member_that_is_not_finite_changes_no_other(tmp_path, capsys, strategy):
    config = dataclasses.replace(TINY, steps=4, eval_every=4)
    good = {"learning_rate": (1e-4, 1e-3), "beta": (1.0,)}
    for name, poison in (("good", 5e-4), ("bad", 1e25)):
        grid = good | {"learning_rate": (1e-4, poison, 1e-3)}
        runs = sweep(config, tmp_path / name, grid=grid, strategy=strategy, progress=True)
    bad = sweepdir_statuses(tmp_path / "bad")
    assert bad == {
        "learning_rate=0.0001,beta=1,seed=0": "done",
        "learning_rate=1e+25,beta=1,seed=0": "failed",
        "learning_rate=0.001,beta=1,seed=0": "done",
    }
    assert "3 members (2 done, 1 failed)" in repr(runs)
    ours, theirs = fingerprints(tmp_path / "bad"), fingerprints(tmp_path / "good")
    assert len(ours) == 2
    assert all(theirs[name] == found for name, found in ours.items())
    assert "learning_rate=1e+25,beta=1,seed=0 is left out" in capsys.readouterr().err
    failed = tmp_path / "bad" / "members" / "learning_rate=1e+25,beta=1,seed=0" / "failed.json"
    assert "Not finite" in json.loads(failed.read_text())["reason"]
    with pytest.raises(UserError, match="seed=0 failed: Not finite between"):
        runs["learning_rate=1e+25,beta=1,seed=0"]


def test_a_member_whose_evaluation_is_not_finite_is_not_done(tmp_path, monkeypatch):
    averaged, calls = trainer.averaged, itertools.count(1)

    def poisoned(metrics):  # in the first member's only evaluation
        bad = "nll_variance" in metrics and next(calls) == 1
        return averaged(metrics) | ({"kl": float("inf")} if bad else {})

    monkeypatch.setattr(trainer, "averaged", poisoned)
    config = dataclasses.replace(TINY, steps=2, eval_every=2)
    small(tmp_path / "s", config=config, betas=(1.0, 6.0), seeds=1, strategy="sequential")
    assert list(sweepdir_statuses(tmp_path / "s").values()) == ["failed", "done"]


def sweepdir_statuses(directory):
    found = read_sweep(directory)
    return {one.name: sweepdir.status(directory, one) for one in found.members()}


@pytest.mark.once
@pytest.mark.parametrize("strategy", ["vmap", "devices"])
def test_a_signal_between_two_saves_and_the_resumed_sweep_is_the_same(
    tmp_path, monkeypatch, strategy
):
    """One member has a checkpoint of step 4 and the others do not: all go on from step 2."""
    options = {"betas": (1.0, 6.0), "seeds": 1, "config": TINY, "strategy": strategy}
    whole = small(tmp_path / "whole", **options)
    original, saves = Writer.save, itertools.count(1)

    def die_at_the_fourth(self, state):
        if next(saves) == 4:
            raise RuntimeError("killed")
        original(self, state)

    monkeypatch.setattr(Writer, "save", die_at_the_fourth)
    with pytest.raises(RuntimeError, match="killed"):
        small(tmp_path / "parts", **options)
    monkeypatch.undo()
    steps = [
        sorted(int(p.name) for p in (path / "checkpoints").iterdir() if p.name.isdigit())
        for path in sorted((tmp_path / "parts" / "members").iterdir())
    ]
    assert steps == [[2, 4], [2]]
    if strategy == "vmap":  # `auto` goes on as the sweep was begun
        options["strategy"] = "auto"
    small(tmp_path / "parts", **options)
    assert fingerprints(tmp_path / "parts") == fingerprints(whole.sweep_dir)


@pytest.mark.once
def test_ctrl_c_saves_and_names_what_is_left(tmp_path, monkeypatch):
    log = Writer._log

    def signal_at_four(self, step, split, means):
        log(self, step, split, means)
        if (step, split) == (4, "train"):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Writer, "_log", signal_at_four)
    options = {"seeds": 1, "config": TINY, "strategy": "sequential"}
    result = small(tmp_path / "sweep", **options)
    assert result.statuses == {"beta=1,seed=0": "begun", "beta=6,seed=0": "missing"}
    monkeypatch.undo()
    assert np.isnan(result.table["nll"]["beta=1,seed=0"])
    result = small(tmp_path / "sweep", **options)
    assert set(result.statuses.values()) == {"done"}


@pytest.mark.once
def test_shared_batches(tmp_path, monkeypatch):
    """Members with different seeds then see the same images, and a run alone can do so too."""
    result = small(tmp_path / "sweep", (4.0,), 2, TINY, strategy="sequential", shared_batches=True)
    config = dataclasses.replace(TINY, beta=4.0, seed=1, batch_seed=0)
    alone = bvae_jax.train(config, tmp_path / "alone", figures=False, progress=False)
    assert alone.summary
    found = fingerprints(result.sweep_dir)["beta=4,seed=1"][0]
    assert found == alone.summary["params_sha256"]
    shared = Trainer(dataclasses.replace(config, batch_seed=7), progress=False)
    states = [shared.init(dataclasses.replace(config, seed=s)) for s in (0, 1)]
    np.testing.assert_array_equal(*(images_of_a_step(monkeypatch, shared, s) for s in states))


def images_of_a_step(monkeypatch, shared, state):
    """The batch that a step sees; the step itself is not done."""

    class SeenError(Exception):
        pass

    def seeing(recipe):
        def step(state, images):
            raise SeenError(images)

        return step

    monkeypatch.setattr(trainer, "make_train_step", seeing)
    with jax.disable_jit(), pytest.raises(SeenError) as seen:
        shared.make_body()(state, shared.train_data)
    return seen.value.args[0]


BVAE = (sys.executable, "-m", "bvae_jax")
FLAGS = {"image-source": "rendered", "batch-size": 4, "latents": 3, "steps": 8, "log-every": 2}
FLAGS |= {"eval-every": 8, "eval-images": 16, "checkpoint-every": 2, "strategy": "sequential"}
FLAGS = [part for name, value in FLAGS.items() for part in (f"--{name}", str(value))]
FLAGS += ["--betas", "1", "6", "--seeds", "2", "--quiet"]


@pytest.mark.once
def test_two_shards_at_once_are_the_whole(finished, tmp_path):
    command = [*BVAE, "sweep", "--sweep-dir", str(tmp_path / "sweep"), *FLAGS]
    processes = [
        subprocess.Popen(
            [*command, "--shard", f"{i}/2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for i in (1, 2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert fingerprints(tmp_path / "sweep") == fingerprints(finished.sweep_dir)


@pytest.mark.once
def test_a_busy_member_is_left_to_the_other_process(tmp_path, capsys):
    small(tmp_path / "sweep", (1.0,), 1, dataclasses.replace(TINY, steps=2), strategy="sequential")
    directory = tmp_path / "sweep" / "members" / "beta=1,seed=0"
    with rundir.lock(directory):
        result = sweep(TINY, tmp_path / "sweep", betas=(1.0,), strategy="sequential")
    assert result.statuses == {"beta=1,seed=0": "begun"}
    assert "is being trained by another process" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "devices"),
    [
        (3, 1),
        pytest.param(3, 2, marks=two_devices),
        *(pytest.param(*x, marks=pytest.mark.once) for x in ((1, 2), (4, 2))),
    ],
)
def test_stacked_states_take_the_steps_of_single_ones(devices, count):
    """Also where several devices share the batches of a member, as of three on two devices."""
    one = Trainer(BASE, progress=False)
    many = one.spread(count, jax.devices()[:devices])
    configs = [dataclasses.replace(BASE, beta=1.0 + i, seed=i) for i in range(count)]
    states = [one.init(config) for config in configs]
    divided = count % devices == 0
    older = count > 1 and jax.__version_info__ < (0, 10)  # it leaves the second device alone
    assert dict(many.mesh.shape) == {
        "run": devices if divided else 1,
        "data": 1 if divided or older else devices,
    }
    together, fetch = many.train(many.stack(states), many.feed(states), 2)
    metrics = fetch()
    for i, config in enumerate(configs):
        state = one.init(config)
        alone, fetch = one.train(state, one.feed([state]), 2)
        assert metrics[i]["loss"] == pytest.approx(fetch()[0]["loss"], rel=1e-5)
        ours = many.member(together, i)
        assert_close(ours.params, alone.params, rtol=1e-3, atol=2e-4)


def test_the_directory_of_a_sweep(tmp_path):
    values = {"beta": (1.0, 4.0), "seed": (0, 1)}
    whole = open_sweep(tmp_path / "sweep", SweepConfig(BASE, values))
    assert read_sweep(tmp_path / "sweep") == whole == SweepConfig(BASE, values)
    grown = open_sweep(
        tmp_path / "sweep", SweepConfig(BASE, {"beta": (4.0, 1.0, 9.0), "seed": (1, 0)})
    )
    assert grown.values == {"beta": (1.0, 4.0, 9.0), "seed": (0, 1)}
    assert read_sweep(tmp_path / "sweep") == grown
    one = grown.members()[-1]
    directory = sweepdir.member_dir(tmp_path / "sweep", one)
    rundir.create(directory, one.config, overwrite=False)
    longer = dataclasses.replace(BASE, steps=9, data_dir="elsewhere")
    assert open_sweep(tmp_path / "sweep", SweepConfig(longer, grown.values)).base.steps == 9
    assert rundir.read_config(directory) == one.config.replace(data_dir="elsewhere")


def test_values_may_be_numbers_of_numpy(tmp_path):
    rates, latents = np.geomspace(1e-4, 1e-3, 3), np.array([3, 5])
    grid = {"learning_rate": rates, "latents": latents, "seed": np.arange(2)}
    found = make_sweep(BASE, np.array([1.0, 4.0]), 1, grid, False)
    plain = {"learning_rate": rates.tolist(), "latents": latents.tolist()}
    wanted = make_sweep(BASE, [1.0, 4.0], 2, plain, False)
    assert open_sweep(tmp_path / "sweep", found) == wanted
    assert read_sweep(tmp_path / "sweep").members() == found.members() == wanted.members()
    assert make_sweep(BASE, None, np.int64(2), plain, False).values["seed"] == (0, 1)
    few = np.array([0.001, 0.1], np.float32)
    short = make_sweep(BASE, few[1:], 1, {"learning_rate": few[:1]}, False)
    assert short.values == {"learning_rate": (0.001,), "beta": (0.1,), "seed": (0,)}


@pytest.mark.parametrize(
    ("betas", "seeds", "grid", "message"),
    [
        (4.0, 1, {}, r"betas: got 4.0, wanted a list of values, as \[4.0\]"),
        (np.array(4.0), 1, {}, r"betas: got array\(4.\), wanted a list of values"),
        (["much"], 1, {}, "Member beta=much,seed=0: --beta: got 'much', wanted a number"),
        (None, 2.5, {}, "seeds: got 2.5, wanted a list of values"),
        (None, 0, {}, "--seeds: got 0, wanted at least 1"),
        (None, ["x"], {}, "Member seed=x: --seed: got 'x', wanted a whole number"),
        (None, 1, {"latents": None}, "latents: got None, wanted a list of values"),
        (None, 1, {"latents": 5}, "latents: got 5, wanted a list of values"),
        ([1.0], 1, {"beta": [4.0]}, "Got beta twice"),
    ],
)
def test_what_is_no_list_of_values(betas, seeds, grid, message):
    with pytest.raises(UserError, match=message):
        make_sweep(BASE, betas, seeds, grid, False).members()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({}, r"is that of no sweep"),
        ({"config": []}, r"config is a list, wanted an object"),
        ({"config": {"seed": 0}}, r"is no config of a run: it has no dataset"),
        ({"values": {"beta": 4}}, r"values\.beta is a whole number, wanted a list"),
        ({"values": {"beta": [[4]]}}, r"values\.beta\.0 is a list"),
        ({"values": {"bета": [4]}}, r"Unknown field to vary"),
        ({"values": {"seed": ["x"]}}, r"--seed: got 'x', wanted a whole number"),
    ],
)
def test_a_damaged_config_of_a_sweep_is_one_line(tmp_path, damage, message):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")  # to an empty directory, which is as good as none
    open_sweep(tmp_path / "link", SweepConfig(BASE, {"seed": (0,)}))
    path = tmp_path / "disk" / "config.json"
    path.write_text(json.dumps(read_json(path) | damage if damage else {}))
    with pytest.raises(UserError, match=message) as caught:
        read_sweep(tmp_path / "link")
    assert str(path.name) in str(caught.value)


@pytest.mark.parametrize("content", ["[]", '{"step": "8"}', '{"step": 8}', "{", "[" * 10**5])
def test_a_member_with_a_damaged_summary_is_not_done(tmp_path, capsys, content):
    sweep = open_sweep(tmp_path / "sweep", SweepConfig(BASE, {"seed": (0,)}))
    (one,) = sweep.members()
    directory = sweepdir.member_dir(tmp_path / "sweep", one)
    rundir.create(directory, one.config, overwrite=False)
    (directory / "summary.json").write_text(content)
    assert sweepdir.status(tmp_path / "sweep", one) == "begun"
    assert f"{directory / 'summary.json'} is damaged" in capsys.readouterr().err
    (directory / "failed.json").write_text(content)
    assert sweepdir.status(tmp_path / "sweep", one) == "failed"
    assert "is damaged" in rundir.read_failed(directory)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"augment": ("", "foo")}, "Member augment=foo,seed=0: --augment: got 'foo'"),
        ({"likelihood": ("bernoulli", "foo")}, "Member likelihood=foo,seed=0: Unknown likelihood"),
        ({"only": ("", "shape=9")}, "Member only=shape=9,seed=0: --only: got 'shape=9'"),
        ({"correlate": ("", "x,z=1")}, "Member correlate=x,z=1,seed=0: --correlate"),
    ],
)
def test_what_does_not_fit_a_later_member_is_found_before_anything_is_written(
    tmp_path, grid, message
):
    with pytest.raises(UserError, match=message):
        sweep(TINY, tmp_path / "sweep", grid=grid, progress=False)
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": {"beta": (1.0,), "seed": (0,)}}, r"^beta: the sweep in .* has 4 too"),
        ({"values": {"seed": (0,)}}, "holds a sweep over beta, seed, got one over seed"),
        ({"base": dataclasses.replace(BASE, steps=7)}, "--steps: got 7, .* is trained to 8"),
        ({"base": dataclasses.replace(BASE, latents=4)}, r"other settings \(latents: 3 -> 4\)"),
    ],
)
def test_another_sweep_is_refused(tmp_path, change, message):
    stored = SweepConfig(BASE, {"beta": (1.0, 4.0), "seed": (0,)})
    open_sweep(tmp_path / "sweep", stored)
    with pytest.raises(UserError, match=message):
        open_sweep(tmp_path / "sweep", stored._replace(**change))
    assert read_sweep(tmp_path / "sweep") == stored


def test_directories_that_hold_something_else(tmp_path, finished):
    with pytest.raises(UserError, match="No sweep in"):
        read_sweep(tmp_path)
    with pytest.raises(UserError, match="is that of no sweep"):
        read_sweep(finished.sweep_dir / "members" / "beta=1,seed=0")
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is no sweep"):
        open_sweep(tmp_path, SweepConfig(BASE, {"seed": (0,)}))
    directory = tmp_path / "sweep"
    open_sweep(directory, SweepConfig(BASE, {"seed": (0,)}))
    other = dataclasses.replace(BASE, latents=4)
    rundir.create(directory / "members" / "seed=0", other, overwrite=False)
    with pytest.raises(UserError, match=r"another run than the sweep's \(latents: 4 -> 3"):
        sweep(BASE, directory, progress=False)
    (directory / "config.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        read_sweep(directory)


SLURM = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_MAX": "11"}


def test_shards():
    assert parse_shard(None) == (1, 1)
    assert parse_shard("2/3") == (2, 3)
    assert parse_shard("slurm", SLURM | {"SLURM_ARRAY_TASK_STEP": "4"}) == (2, 3)
    assert parse_shard("slurm", SLURM) == (5, 9)
    with pytest.raises(UserError, match="sbatch --array"):
        parse_shard("slurm", {})
    for bad in ("0/2", "3/2", "a/2", "1", "-1/2", ""):
        with pytest.raises(UserError, match="wanted i/n"):
            parse_shard(bad)


def test_pace_and_place_need_no_program_of_their_own():
    """Comparing runs that differ in these compiles nothing again."""
    trainers = Trainers()
    first = trainers.of(TINY)
    other = trainers.of(
        dataclasses.replace(
            TINY, steps=9, log_every=3, eval_every=5, eval_metrics="mig", checkpoint_every=7,
            keep_checkpoints=2, data_dir="elsewhere",
        )
    )  # fmt: skip
    assert other is first


def test_members_of_different_pace_are_not_trained_side_by_side(tmp_path):
    config = dataclasses.replace(TINY, steps=4, eval_every=4, checkpoint_every=4)
    paces = {"log_every": (2, 4)}
    small(tmp_path / "s", (1.0,), 1, config, grid=paces, strategy="vmap")
    lines = [records.count('"train"') for _, records in fingerprints(tmp_path / "s").values()]
    assert lines == [2, 1]


def test_programs_share_the_data_on_the_device(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (500, 16, 16, 1), np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    config = dataclasses.replace(
        TINY, image_source="resident", dataset=f"npz:{tmp_path}/images.npz", data_dir=str(tmp_path)
    )
    trainers = Trainers()
    one, other = trainers.of(config), trainers.of(dataclasses.replace(config, latents=4))
    assert one.source.arrays is other.source.arrays
    # Training and evaluation read one copy; the rest are indices.
    assert images.nbytes < one.data_bytes < 1.1 * images.nbytes
    elsewhere = trainers.of(dataclasses.replace(config, image_source="streamed"))
    assert elsewhere.source.arrays is not one.source.arrays


def test_a_plan_leaves_room_for_the_data(monkeypatch):
    empty = changed(Trainer(TINY, progress=False), _pool=(), eval_data=())
    full = changed(empty, eval_data=np.empty(10**9, np.uint8))
    monkeypatch.setattr(sweep_plan, "compiled_bytes", lambda trainer: 10**6)
    monkeypatch.setattr(sweep_plan, "memory_of_device", lambda device: 2 * 10**9)
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)
    assert make_plan(empty, 1600, "auto", None, "gpu").at_once == 1600
    assert make_plan(full, 1600, "auto", None, "gpu").at_once == 534  # 600 fit: three rounds
    monkeypatch.setattr(jax, "local_device_count", lambda: 2)
    assert make_plan(full, 1600, "auto", None, "gpu").at_once == 800  # 600 on each: two rounds


def test_what_is_refused_for_lack_of_memory(monkeypatch):
    """Parameters, their gradient, two moments, a batch in float32, and the data that are there."""
    trainer = changed(Trainer(TINY, progress=False), _pool=(), eval_data=np.empty(1000, np.uint8))
    parameters = sum(x.size for x in jax.tree.leaves(jax.eval_shape(trainer.init).params))
    least = 4 * 4 * parameters + 4 * TINY.batch_size * 64 * 64 + trainer.data_bytes
    assert trainer.data_bytes >= 1000
    monkeypatch.setattr(sweep_plan, "memory_of_device", lambda device: least)
    sweep_plan.check_memory(trainer)
    monkeypatch.setattr(sweep_plan, "memory_of_device", lambda device: least - 1)
    with pytest.raises(UserError, match="Not enough memory"):
        sweep_plan.check_memory(trainer)


@two_devices
def test_plans():
    program = Trainer(BASE, progress=False)
    devices = jax.device_count()
    assert make_plan(program, 4, "auto", None, "cpu")[:2] == ("devices", devices)
    assert make_plan(program, 1, "auto", None, "cpu")[:2] == ("sequential", 1)
    assert make_plan(program, 4, "vmap", None, "cpu")[:2] == ("vmap", 4)
    assert make_plan(program, 4, "vmap", 3, "cpu")[:2] == ("vmap", 3)
    plan = make_plan(program, 300, "auto", None, "gpu")  # with the memory of this machine
    assert plan.strategy == "vmap"
    state = 4 * sum(x.size for x in jax.tree.leaves(program.init().params))
    assert plan.bytes_each > 3 * state
    assert 1 <= plan.at_once <= 300
    for strategy, at_once in (("best", None), ("sequential", 2), ("auto", 0)):
        with pytest.raises(UserError, match=r"--(strategy|members-at-once): got"):
            make_plan(program, 4, strategy, at_once, "cpu")
    assert [evenly(12, most) for most in (20, 12, 8, 5, 1)] == [12, 12, 6, 4, 1]
    assert batches([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]
