"""The benchmark: its contenders, its peer and its report. Nothing here depends on a time."""

import json
import os
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks import gpu, pool, starts, tables, tasks
from benchmarks.__main__ import main
from benchmarks.architecture import architecture, least_work
from benchmarks.contenders import COPY, MATMUL, OURS, Cast, Machine
from benchmarks.report import add_medians
from benchmarks.settings import Settings
from bvae_jax.errors import UserError
from bvae_jax.likelihoods import make_likelihood
from bvae_jax.networks import make_network
from bvae_jax.objectives import get_objective
from bvae_jax.runs.trainer import Trainer
from bvae_jax.step import Recipe, init_state, make_loss
from bvae_jax.vae import VAE

SHAPE = (64, 64, 3)


def cast(platform="cpu", layers=None, **settings):
    settings = Settings(threads=2, image_source="rendered", **settings).quickened()
    return Cast(settings, Machine(platform, "it", 1), layers, SHAPE).parts()


@pytest.mark.parametrize("network", ["burgess", "conv", "conv128", "locatello"])
def test_the_table_of_layers_counts_the_parameters_of_the_network(network):
    inputs = (jnp.zeros((1, *SHAPE)), jnp.zeros((1, 10)))
    parts = zip(make_network(network, 10, SHAPE, 3), inputs, strict=True)
    ours = [jax.eval_shape(part.init, jax.random.key(0), x) for part, x in parts]
    counted = least_work(architecture(network, 10, SHAPE), SHAPE, 64).parameters
    assert counted == sum(leaf.size for leaf in jax.tree.leaves(ours))


def test_the_least_work_of_a_step():
    """conv, batch 64: multiplications and additions three times, the activations by hand."""
    shape = (64, 64, 1)
    work = least_work(architecture("conv", 10, shape), shape, 64)
    maps = [(32, 1, 32), (16, 32, 32), (8, 32, 64), (4, 64, 64)]
    down = sum(side**2 * 16 * i * o for side, i, o in maps) + 1024 * 256
    products = 2 * down + 256 * 20 + 10 * 256  # the decoder mirrors the convolutions
    assert work.flop == 3 * 2 * 64 * products
    assert work.flop == pytest.approx(6.3e9, rel=0.02)
    assert work.bytes == pytest.approx(150e6, rel=0.03)
    halved = least_work(architecture("conv", 10, shape), shape, 64, activation_bytes=2)
    assert work.bytes - halved.bytes == pytest.approx(64e6, rel=0.03)


def in_torch_order(params):
    """Our parameters as PyTorch's, in the order of its layers."""
    encoder, decoder = params["encoder"], params["decoder"]
    head = [encoder["head"][name] for name in ("mean", "logvar")]
    last = {name: np.concatenate([one[name] for one in head], -1) for name in ("kernel", "bias")}

    def ordered(part, kind):
        layers = [part[name] for name in sorted(part) if name.startswith(kind)]
        return [{key: np.asarray(value) for key, value in layer.items()} for layer in layers]

    first, before = [*ordered(encoder, "Dense"), last], ordered(decoder, "Dense")
    # Flattened pixels: channels come last here, and first in PyTorch.
    first[0] = first[0] | {"kernel": channels_first(first[0]["kernel"])}
    before[-1] = {name: channels_first(before[-1][name].T).T for name in ("kernel", "bias")}
    for layer in [*ordered(encoder, "ConvDown"), *first, *before, *ordered(decoder, "ConvUp")]:
        kernel = layer["kernel"]
        yield kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
        yield layer["bias"]


def channels_first(rows):
    """[4 * 4 * channels, ...] -> [channels * 4 * 4, ...]"""
    return np.moveaxis(rows.reshape(4, 4, -1, *rows.shape[1:]), 2, 0).reshape(rows.shape)


@pytest.mark.parametrize("network", ["conv", "locatello"])
def test_pytorch_has_our_loss_and_our_gradients(network):
    torch = pytest.importorskip("torch")
    from benchmarks import torch_peer

    model = VAE(*make_network(network, 3, SHAPE, 3), make_likelihood("bernoulli", 1.0))
    recipe = Recipe(model, get_objective("beta_vae"), optax.identity())
    hyper = {"beta": jnp.float32(4.0), "learning_rate": jnp.float32(1.0)}
    keys = jax.random.split(jax.random.key(0), 3)
    state = init_state(keys[0], hyper, recipe=recipe, image_shape=SHAPE, latents=3)
    images = (jax.random.uniform(keys[1], (5, *SHAPE)) > 0.5).astype(jnp.float32)
    with jax.debug_key_reuse(False):
        noise = np.asarray(jax.random.normal(keys[2], (1, 5, 3))[0])  # as `reparameterize` draws it
        gradient = jax.jit(jax.value_and_grad(make_loss(recipe, training=True), has_aux=True))
        (value, _), gradients = gradient(state.params, state, images, keys[2], keys[0])
    layers = architecture(network, 3, SHAPE)._asdict()
    peer = torch_peer.VAE(layers)
    theirs = list(peer.parameters())
    with torch.no_grad():
        for parameter, ours in zip(theirs, in_torch_order(state.params["vae"]), strict=True):
            parameter.copy_(torch.tensor(np.ascontiguousarray(ours)))
    found = peer(torch.tensor(np.moveaxis(np.asarray(images), 3, 1)), torch.tensor(noise), 4.0)
    found.backward()
    assert found.item() == pytest.approx(float(value), rel=1e-5)
    for parameter, expected in zip(theirs, in_torch_order(gradients["vae"]), strict=True):
        assert parameter.grad is not None
        largest = abs(expected).max()
        np.testing.assert_allclose(parameter.grad.numpy(), expected, rtol=1e-3, atol=1e-4 * largest)

    parts = cast(torch=True, latents=3, batch_size=2, layers=layers)
    for part, amount in (("step", 5), ("encode", 128)):
        eager = next(one for one in parts[part] if one.name == "PyTorch eager")
        task = getattr(torch_peer, eager.task.split(":")[1])(**eager.options)
        task.run(1)
        assert task.amount == amount


@pytest.mark.parametrize(
    ("members", "strategy", "turns"), [(1, "sequential", 1), (3, "devices", 2), (2, "vmap", 1)]
)
@pytest.mark.usefixtures("tiny_network")
def test_every_member_takes_every_step(members, strategy, turns):
    config = Settings(network="tiny", batch_size=2, latents=2, image_source="rendered").config()
    program = Trainer(config, progress=False)
    with jax.debug_key_reuse(False):  # which takes a shard_map for a use of every key
        lanes = tasks.in_turn(program, members, strategy)
        assert len(lanes) == turns
        seen = []
        for one in lanes:
            means = one.advance(3)()
            seen += [mean["beta"] for mean in means]
    assert seen == list(range(1, members + 1))


@pytest.mark.usefixtures("tiny_network")
def test_facts_of_a_step():
    config = Settings(network="tiny", batch_size=2, latents=2, image_source="rendered").config()
    facts = tasks.train(config, 1, 1, "sequential").facts()
    products = 6 * 2 * facts["parameters"]  # a dense network: a multiply-add for each weight
    adam = facts["compiled_flop"] - products
    assert 5 * facts["parameters"] < adam < 30 * facts["parameters"]
    assert facts["compiled_bytes"] > facts["parameters"] * 4 * 6


def test_who_takes_part():
    names = {part: [one.name for one in who] for part, who in cast().items()}
    assert names["step"] == [MATMUL, COPY, OURS, f"{OURS}, default malloc"]
    assert names["sweep"] == [
        "1 member on one core", "sequential, 1",
        "sequential, 2", "devices (2), 2", "vmap, 2", "sequential, 4", "devices (2), 4", "vmap, 4",
    ]  # fmt: skip
    on_gpu = cast("gpu", {"layers": 1}, members=(1, 64))
    assert [one.name for one in on_gpu["sweep"]] == ["sequential, 1", "vmap, 64"]
    assert [one.name for one in on_gpu["step"][3:]] == [
        "PyTorch eager", "PyTorch compile", "PyTorch cudagraph",
    ]  # fmt: skip


REPORT = {
    "settings": {"batch_size": 64},
    "least": {"flop": 10**9, "bytes": 10**6, "parameters": 1},
    "parts": {
        "step": {
            MATMUL: {"unit": "flop", "cores": 1, "seconds_per_flop": [1e-11]},
            COPY: {"unit": "byte", "cores": 1, "seconds_per_byte": [1e-10]},
            OURS: {"unit": "step", "cores": 1, "seconds_per_step": [0.02, 0.2, 0.02]},
            "PyTorch": {"unit": "step", "cores": 1, "seconds_per_step": [0.04, 0.4, 0.08]},
            "dead": {"unit": "step", "cores": 1, "seconds_per_step": [], "error": "OSError: x"},
        }
    },
}


def test_tables():
    report = json.loads(json.dumps(REPORT))
    add_medians(report)
    text = tables.markdown(report)
    assert f"| {OURS} | 1 | 20.00 ms | 3,200 | 1.00 | 50 % | – | – |" in text
    # The median of ratios of the same round, not the ratio of medians, which is 4.
    assert "| PyTorch | 1 | 80.00 ms | 800 | 2.00 | 12.5 % | – | – |" in text
    assert "| dead | 1 | – | – | – | – | – | – |" in text
    assert "dead: OSError: x" in text
    assert "| a step, fused by hand: 1 GFLOP, 1 MB | 50 | 50 % | 0.05 | 0.5 % |" in text
    assert "No step can take less than 10.00 ms at these rates; ours is at 50 %" in text
    for block in text.split("\n\n"):
        assert len({line.count("|") for line in block.splitlines()}) == 1, block


def test_the_limit_is_that_of_products_or_of_memory():
    part = {
        MATMUL: {"unit": "flop", "median_seconds_per_flop": 1e-9},
        COPY: {"unit": "byte", "median_seconds_per_byte": 1e-8},
    }
    assert tables.limit_seconds(part, {"flop": 10**9, "bytes": 10**6}) == pytest.approx(1)
    assert tables.limit_seconds(part, {"flop": 10**9, "bytes": 10**9}) == pytest.approx(10)
    assert tables.limit_seconds({}, {"flop": 1, "bytes": 1}) is None


def test_a_contender_that_fails_is_reported_and_the_others_go_on():
    copy = cast()["step"][1]
    found = {}
    dead = copy._replace(name="dead", options={"size": "large"})
    killed = copy._replace(name="killed", task="starts:os._exit")
    pool.take_turns([dead, killed, copy], 2, found)
    assert found["dead"]["error"].startswith("TypeError: ")
    assert "error" in found["killed"]
    assert len(found[COPY]["seconds_per_byte"]) == 2
    slow = {}
    pool.take_turns([copy], 1, slow, patience=0)
    assert slow[COPY] == {
        "unit": "byte", "cores": 2, "seconds_per_byte": [], "error": "no answer in 0 s"
    }  # fmt: skip


@pytest.mark.once
def test_ctrl_c_leaves_what_was_measured(tmp_path, monkeypatch, capsys):
    turns, turn, parts = [], pool.Process.turn, Cast.parts

    def interrupted_at_the_second_turn(self):
        turns.append(self)
        if len(turns) == 2:
            raise KeyboardInterrupt
        turn(self)

    monkeypatch.setattr(pool.Process, "turn", interrupted_at_the_second_turn)
    monkeypatch.setattr(Cast, "parts", lambda self: {"batch": parts(self)["batch"][1:2]})
    path = tmp_path / "report.json"
    flags = "--network burgess --batch-size 2 --quick --parts batch --threads 1 --json"
    assert main([*flags.split(), str(path)]) == 0
    left = json.loads(path.read_text())
    assert left["interrupted"]
    assert left["machine"]["versions"]["jax"] == jax.__version__
    (drawn,) = left["parts"]["batch"].values()
    assert [drawn["median_seconds_per_batch"]] == drawn["seconds_per_batch"]
    assert f"| rendered | 1 | {tables.duration(drawn['median_seconds_per_batch'])} |" in (
        capsys.readouterr().out
    )


def test_a_start_ends_with_its_first_record():
    record = "import os, sys, time; os.mkdir(sys.argv[2]);"
    record += "open(sys.argv[2] + '/metrics.jsonl', 'w').write('{}'); time.sleep(60)"
    for empty in (False, True):
        task = starts.start(Settings().config(), empty, record)
        task.run(2)
        assert task.facts()["peak_host_bytes"] > 10**6
    with pytest.raises(RuntimeError, match="OSError: x"):
        starts.start(Settings().config(), True, "raise OSError('x')").run(1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--members 0", "--members: got 0, wanted"),
        ("--rounds 0", "--rounds: got 0, wanted"),
        ("--steps -1", "--steps: got -1, wanted a whole number of at least 0"),
        ("--threads -1", "--threads: got -1, wanted a whole number of at least 0"),
        ("--precision float8", "--precision: got 'float8', wanted one of"),
        ("--network escher", "Unknown network 'escher'"),
        ("--torch", "install 'bvae_jax[bench]'"),
    ],
)
def test_mistakes_are_one_line(flags, message, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(flags.split()) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


def test_a_network_without_twin_is_refused():
    with pytest.raises(UserError, match="no PyTorch twin"):
        architecture("resnet", 10, SHAPE)
    with pytest.raises(UserError, match="halve evenly"):
        architecture("conv", 10, (60, 64, 1))


def test_jobs_of_the_gpu_script_are_tasks(tmp_path):
    script = Path(__file__).parents[1] / "benchmarks" / "gpu.sh"
    dry = subprocess.run(
        ["bash", script, tmp_path], env=os.environ | {"DRY": "1"}, text=True, capture_output=True
    )
    lines = [line.split() for line in dry.stdout.splitlines()]
    scripts = [line for line in lines if line[0].startswith("experiments/")]
    assert len(scripts) == 5
    for path, *_, scale, _, directory, _, _ in scripts:
        assert f'"{scale}": Scale(' in (script.parents[1] / path).read_text()
        assert directory == f"{tmp_path}/sweeps"
    (tests,) = [line for line in lines if line[:2] == ["-m", "pytest"]]
    files = [word for word in tests if word.endswith(".py")]
    assert len(files) > 10
    assert all((script.parents[1] / file).is_file() for file in files)
    rest = [line for line in lines if line not in scripts and line != tests]
    jobs = [gpu.parse([str(tmp_path), *line]) for line in rest]
    assert {job.task for job in jobs} == set(gpu.TASKS)
    assert {(job.members, job.precision, job.torch) for job in jobs} >= {
        (64, "bfloat16", ""), (1, "tensorfloat32", "cudagraph"),
    }  # fmt: skip


def test_microseconds_for_a_unit(monkeypatch):
    clock = iter(np.arange(100.0))
    monkeypatch.setattr(gpu.time, "perf_counter", lambda: next(clock))
    assert gpu.timed(lambda pieces: None, 10) == {"us": 1e5, "least": 1e5, "most": 1e5}
