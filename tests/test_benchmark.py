"""The benchmark: its contenders, its peers and its report. Nothing here depends on a time."""

import dataclasses
import gzip
import importlib.util
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks import pool, startup, tables, tasks, traces, variants
from benchmarks.__main__ import main
from benchmarks.architecture import architecture, least_work
from benchmarks.benchmark import add_medians, benchmark
from benchmarks.contenders import COPY, MATMUL, OURS, Cast, Machine
from benchmarks.settings import Settings
from bvae_jax import conv
from bvae_jax.data import DATASETS, dsprites
from bvae_jax.data.sources import make_source
from bvae_jax.errors import UserError
from bvae_jax.likelihoods import make_likelihood
from bvae_jax.networks import make_network
from bvae_jax.objectives import get_objective
from bvae_jax.runs.program import build
from bvae_jax.step import Recipe, init_state, make_loss
from bvae_jax.vae import VAE, init_params

SMALL = Settings(
    network="mlp", batch_size=2, latents=2, image_source="rendered", quick=True, rounds=2, threads=1
)
NETWORKS = ("burgess", "conv", "conv128", "locatello", "mlp")


def cast(settings, platform="cpu", layers=None):
    shape = (64, 64, settings.channels)
    return Cast(settings.quickened(), Machine(platform, "it", 1), layers, shape)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_table_of_layers_counts_the_parameters_of_the_network(network):
    shape = (64, 64, 3)
    modules = make_network(network, 10, shape, 3)
    inputs = (jnp.zeros((1, *shape)), jnp.zeros((1, 10)))
    parts = zip(modules, inputs, strict=True)
    ours = [jax.eval_shape(part.init, jax.random.key(0), x) for part, x in parts]
    counted = least_work(architecture(network, 10, shape), shape, 64).parameters
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


def test_a_network_without_twin_is_refused(monkeypatch, capsys):
    with pytest.raises(UserError, match="no PyTorch twin"):
        architecture("resnet", 10, (64, 64, 1))
    with pytest.raises(UserError, match="halve evenly"):
        architecture("conv", 10, (60, 64, 1))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert main(["--peer", "torch", "--network", "resnet"]) == 2
    assert "no PyTorch twin" in capsys.readouterr().err


def in_torch_order(params, small):
    """Our parameters as PyTorch's, in the order of its layers.

    Args:
        small: height and width of the smallest map.
    """
    encoder, decoder = params["encoder"], params["decoder"]
    head = [encoder["head"][name] for name in ("mean", "logvar")]
    last = {name: np.concatenate([one[name] for one in head], -1) for name in ("kernel", "bias")}

    def ordered(part, *kinds):
        names = [name for kind in kinds for name in sorted(part) if name.startswith(kind)]
        return [{key: np.asarray(value) for key, value in part[name].items()} for name in names]

    down, up = ordered(encoder, "ConvDown"), ordered(decoder, "ConvUp")
    first, before = ordered(encoder, "Dense"), ordered(decoder, "Dense")
    first = [*first, last]
    if down:  # flattened pixels: channels come last here, and first in PyTorch
        first[0] = first[0] | {"kernel": channels_first(first[0]["kernel"], small)}
        turned = {name: channels_first(before[-1][name].T, small).T for name in ("kernel", "bias")}
        before[-1] = turned
    for layer in [*down, *first, *before, *up]:
        kernel = layer["kernel"]
        yield kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
        yield layer["bias"]


def channels_first(rows, small):
    """[height * width * channels, ...] -> [channels * height * width, ...]"""
    maps = rows.reshape(*small, -1, *rows.shape[1:])
    return np.moveaxis(maps, 2, 0).reshape(rows.shape)


@pytest.mark.parametrize(("network", "channels"), [("conv", 1), ("locatello", 3), ("mlp", 1)])
def test_pytorch_has_our_loss_and_our_gradients(network, channels):
    torch = pytest.importorskip("torch")
    from benchmarks import torch_peer

    shape = (64, 64, channels)
    model = VAE(*make_network(network, 3, shape, channels), make_likelihood("bernoulli", 1.0))
    recipe = Recipe(model, get_objective("beta_vae"), optax.identity())
    hyper = {"beta": jnp.float32(4.0), "learning_rate": jnp.float32(1.0)}
    keys = jax.random.split(jax.random.key(0), 3)
    state = init_state(keys[0], hyper, recipe=recipe, image_shape=shape, latents=3)
    images = (jax.random.uniform(keys[1], (5, *shape)) > 0.5).astype(jnp.float32)
    with jax.debug_key_reuse(False):
        noise = np.asarray(jax.random.normal(keys[2], (1, 5, 3))[0])  # as `reparameterize` draws it
        gradient = jax.jit(jax.value_and_grad(make_loss(recipe, training=True), has_aux=True))
        (value, _), gradients = gradient(state.params, state, images, keys[2], keys[0])

    peer = torch_peer.VAE(architecture(network, 3, shape)._asdict())
    theirs = list(peer.parameters())
    params = in_torch_order(state.params["vae"], (4, 4))
    with torch.no_grad():
        for parameter, ours in zip(theirs, params, strict=True):
            parameter.copy_(torch.tensor(np.ascontiguousarray(ours)))
    found = peer(torch.tensor(np.moveaxis(np.asarray(images), 3, 1)), torch.tensor(noise), 4.0)
    found.backward()
    assert found.item() == pytest.approx(float(value), rel=1e-5)
    ours = in_torch_order(gradients["vae"], (4, 4))
    for parameter, expected in zip(theirs, ours, strict=True):
        assert parameter.grad is not None
        largest = abs(expected).max()
        np.testing.assert_allclose(parameter.grad.numpy(), expected, rtol=1e-3, atol=1e-4 * largest)


@pytest.mark.parametrize("network", ["conv", "locatello"])
def test_pytorch_starts_from_the_same_distribution(network):
    pytest.importorskip("torch")
    from benchmarks import torch_peer

    shape = (64, 64, 1)
    peer = torch_peer.VAE(architecture(network, 10, shape)._asdict())
    model = VAE(*make_network(network, 10, shape, 1), make_likelihood("bernoulli", 1.0))
    params = in_torch_order(init_params(model, shape, jax.random.key(0)), (4, 4))
    for theirs, ours in zip(peer.parameters(), params, strict=True):
        assert theirs.shape == ours.shape
        assert theirs.detach().abs().max().item() == pytest.approx(abs(ours).max(), rel=0.1)


def test_pytorch_encodes():
    pytest.importorskip("torch")
    from benchmarks import torch_peer

    layers = architecture("conv", 2, (64, 64, 1))._asdict()
    (eager, *_) = cast(Settings(peer=("torch",), parts=("encode",)), layers=layers).parts()[
        "encode"
    ][1:]
    task = torch_peer.torch_encode(eager.options)
    task.run(2)
    assert task.amount == 128


def test_plain_convolutions_are_ours():
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 8, 12, 3), (2, 4, 6, 5)))
    for side in (2, 4):
        kernel = jnp.asarray(rng.normal(size=(side, side, 3, 5)), jnp.float32)
        for ours, plain, image in (
            (conv.conv_down, variants.plain_down, x),
            (conv.conv_up, variants.plain_up, y),
        ):
            image = jnp.asarray(image)
            np.testing.assert_allclose(plain(image, kernel, 2), ours(image, kernel, 2), atol=1e-4)


def test_networks_of_plain_convolutions(monkeypatch):
    def gradient_of(module):
        x = jnp.zeros((1, 64, 64, 1))
        params = jax.eval_shape(module.init, jax.random.key(0), x)
        loss = lambda params, x: module.apply(params, x).mean.sum()  # noqa: E731
        return str(jax.make_jaxpr(jax.grad(loss))(params, x))

    for name in ("conv_down", "conv_up"):  # so that they are put back
        monkeypatch.setattr(variants.layers, name, getattr(variants.layers, name))
    before = gradient_of(make_network("conv", 2, (64, 64, 1), 1).encoder)
    variants.with_plain_convolutions()
    plain = gradient_of(make_network("conv", 2, (64, 64, 1), 1).encoder)
    assert "lhs_dilation=(2, 2)" in plain
    assert plain.count("conv_general_dilated") < before.count("conv_general_dilated")


def test_colour_images(monkeypatch):
    monkeypatch.setattr(variants.data, "DATASETS", dict(DATASETS))
    name = variants.in_colour("dsprites", 3)
    coloured, grey = variants.data.DATASETS[name], DATASETS["dsprites"]
    indices = jnp.arange(5) * 1000
    source = make_source(coloured, "rendered", "cpu")
    images = source.look((), indices)
    assert images.shape == (5, *coloured.image_shape) == (5, 64, 64, 3)
    for channel in range(3):
        np.testing.assert_array_equal(
            images[..., channel], dsprites.render(grey.factors(indices))[..., 0]
        )


@pytest.mark.parametrize(
    ("members", "strategy", "turns"),
    [(1, "sequential", 1), (2, "sequential", 2), (3, "devices", 2), (2, "vmap", 1)],
)
def test_every_member_takes_every_step(members, strategy, turns):
    program = build(SMALL.config(), progress=False)
    with jax.debug_key_reuse(False):  # which takes a shard_map for a use of every key
        lanes = tasks._turns(program, members, strategy)
        assert len(lanes) == turns
        seen = []
        for one in lanes:
            means = one.advance(3)()
            states = [one.state(i) for i in range(len(means))]
            assert [int(state.step) for state in states] == [3] * len(means)
            seen += [
                (float(state.hyper["beta"]), mean["beta"])
                for state, mean in zip(states, means, strict=True)
            ]
    assert seen == [(beta, beta) for beta in range(1, members + 1)]


def test_who_takes_part():
    names = {
        part: [one.name for one in who] for part, who in cast(Settings(threads=2)).parts().items()
    }
    assert names["step"] == [MATMUL, COPY, OURS, f"{OURS}, default malloc"]
    assert names["sweep"] == [
        "1 member on one core", "sequential, 1",
        "sequential, 2", "devices (2), 2", "vmap, 2", "sequential, 4", "devices (2), 4", "vmap, 4",
    ]  # fmt: skip
    on_gpu = cast(Settings(members=(1, 64), peer=("torch",)), "gpu", {}).parts()
    assert [one.name for one in on_gpu["sweep"]] == ["sequential, 1", "vmap, 64"]
    assert [one.options["mode"] for one in on_gpu["step"][3:]] == [
        "eager", "compile", "cudagraph", "reduce-overhead",
    ]  # fmt: skip


def events(lines, spans):
    """A trace: lines are (process, thread, process's name, thread's name)."""
    for pid, tid, process, thread in lines:
        yield {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": process}}
        yield {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": thread}}
    for pid, tid, name, microseconds, args in spans:
        yield {"ph": "X", "pid": pid, "tid": tid, "name": name, "dur": microseconds, "args": args}
    yield {}


def test_the_largest_kernels_of_a_gpu():
    lines = [(1, 1, "/device:GPU:0", "Stream #14(Compute)"), (1, 2, "/device:GPU:0", "XLA Ops"),
             (9, 3, "/host:CPU", "python")]  # fmt: skip
    lines[1] = (1, 2, "/device:GPU:0", "Source code")
    spans = [
        (1, 1, "sgemm", 30, {"tf_op": "jit(body)/vmap()/encoder/conv"}),
        (1, 2, "sgemm", 30, {"hlo_op": "dot.1"}),  # the same once more, on a derived line
        (1, 1, "copy", 50, {"hlo_op": "copy.1"}),
        (1, 1, "sgemm", 40, {}),
        (9, 3, "main", 10_000, {}),
    ]
    first, second = traces.largest(events(lines, spans), {"copy.1": "jit(body)/a/b/c"})
    assert (first["name"], first["calls"]) == ("sgemm", 2)
    assert first["share"] == pytest.approx(70 / 120)
    assert first["seconds"] == pytest.approx(70e-6)
    assert second["origin"] == "a/b/c"
    assert len(traces.largest(events(lines, spans), count=1)) == 1


def test_the_largest_operations_of_a_cpu(tmp_path):
    lines = [(9, 1, "/host:CPU", "tf_XLAEigen/1"), (9, 2, "/host:CPU", "python")]
    spans = [(9, 1, "dot.3", 5, {"hlo_op": "dot.3"}), (9, 2, "main", 10_000, {})]
    written = {"traceEvents": list(events(lines, spans))}
    (tmp_path / "plugins").mkdir()
    with gzip.open(tmp_path / "plugins" / "it.trace.json.gz", "wt") as file:
        json.dump(written, file)
    text = (
        '  ROOT %dot.3 = f32[2,2]{1,0} dot(%a, %b), metadata={op_name="jit(f)/x/dot" source="y"}\n'
    )
    (found,) = traces.largest(traces.read_events(tmp_path), traces.origins(text))
    assert found == {
        "name": "dot.3", "origin": "jit(f)/x/dot", "calls": 1, "seconds": 5e-6, "share": 1.0
    }  # fmt: skip
    with pytest.raises(UserError, match="No trace"):
        traces.read_events(tmp_path / "plugins" / "none")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """All that is measured in turn, with PyTorch where it is installed."""
    peer = ("torch",) if importlib.util.find_spec("torch") else ()
    path = tmp_path_factory.mktemp("benchmark") / "report.json"
    settings = dataclasses.replace(SMALL, peer=peer, parts=("step",), profile=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHDYNAMO_DISABLE", "1")  # torch.compile takes a minute
        found = benchmark(settings, json=path, progress=False)
    assert json.loads(path.read_text()) == json.loads(json.dumps(found))
    return found


def test_a_report_says_what_was_measured(report):
    assert not [
        entry for part in report["parts"].values() for entry in part.values() if "error" in entry
    ]
    step = report["parts"]["step"]
    for entry in (entry for part in report["parts"].values() for entry in part.values()):
        rounds = entry[f"seconds_per_{entry['unit']}"]
        assert len(rounds) == 2
        assert entry[f"median_seconds_per_{entry['unit']}"] == np.median(rounds) > 0
        assert entry["peak_host_bytes"] > 10**7
        assert entry["waiting_cpu_share"] < 0.5
    counts = {entry["parameters"] for entry in step.values() if "parameters" in entry}
    assert counts == {report["least"]["parameters"]}
    ours = step[OURS]
    adam = ours["compiled_flop"] - report["least"]["flop"]
    assert 5 * ours["parameters"] < adam < 30 * ours["parameters"]
    assert ours["compiled_bytes"] > report["least"]["parameters"] * 4 * 6
    assert report["machine"]["versions"]["jax"] == jax.__version__
    assert report["machine"]["cores"] == 1


def test_the_profile_of_a_step(report):
    operations = report["parts"]["step"][OURS]["profile"]
    if jax.__version_info__ < (0, 8):
        assert "names no operations of bvae_jax here" in tables.markdown(report)
        pytest.skip("the profiler of older JAX sees no single operations on a CPU")
    assert 1 <= len(operations) <= 10
    assert any(operation["origin"] for operation in operations)
    assert 0 < sum(operation["share"] for operation in operations) <= 1


def test_its_tables(report):
    text = tables.markdown(report)
    for name, entry in report["parts"]["step"].items():
        if name not in (MATMUL, COPY):
            milliseconds = 1e3 * entry["median_seconds_per_step"]
            assert f"| {name} | {milliseconds:.2f} ms |" in text
    for block in text.split("\n\n"):
        assert len({line.count("|") for line in block.splitlines()}) == 1, block
    assert "of that limit" in text


def test_ratios_are_of_the_same_round():
    ours = {"unit": "step", "seconds_per_step": [1.0, 10.0, 1.0]}
    theirs = {"unit": "step", "seconds_per_step": [2.0, 20.0, 4.0]}
    report = {"parts": {"step": {"a": theirs}}}
    add_medians(report)
    assert report["parts"]["step"]["a"]["median_seconds_per_step"] == 4.0
    assert tables.ratio(theirs, ours) == "2.00"
    assert tables.ratio(theirs, {}) == "–"


def test_the_limit_is_that_of_products_or_of_memory():
    part = {
        MATMUL: {"unit": "flop", "median_seconds_per_flop": 1e-9},
        COPY: {"unit": "byte", "median_seconds_per_byte": 1e-8},
    }
    assert tables.limit_seconds(part, {"flop": 10**9, "bytes": 10**6}) == pytest.approx(1)
    assert tables.limit_seconds(part, {"flop": 10**9, "bytes": 10**9}) == pytest.approx(10)
    assert tables.limit_seconds({}, {"flop": 1, "bytes": 1}) is None


def test_a_worker_that_dies_is_reported_and_the_others_go_on():
    copy = next(one for one in cast(SMALL).parts()["step"] if one.name == COPY)
    config = copy.options["config"] | {"network": "escher"}
    dead = copy._replace(name="dead", task="encode", options={**copy.options, "config": config})
    found = {}
    pool.take_turns([dead, copy], 2, found)
    assert "Unknown network 'escher'" in found["dead"]["error"]
    assert found["dead"]["seconds_per_byte"] == []
    assert len(found[COPY]["seconds_per_byte"]) == 2
    text = tables.markdown({"parts": {"encode": found}})
    assert "dead: bvae_jax.errors.UserError: Unknown network 'escher'" in text


def test_a_worker_that_does_not_answer_is_left_out():
    found = {}
    copy = next(one for one in cast(SMALL).parts()["step"] if one.name == COPY)
    pool.take_turns([copy], 1, found, patience=0)
    assert found[COPY] == {
        "unit": "byte", "cores": 1, "seconds_per_byte": [], "error": "no answer in 0 s"
    }  # fmt: skip


def test_ctrl_c_leaves_what_was_measured(tmp_path, monkeypatch):
    asked, processes = [], []
    ask, enter = pool.Process.ask, pool.Process.__enter__

    def interrupted_at_the_eighth_turn(self, command, argument=None):
        asked.append(command)
        if asked.count("turn") == 8:
            raise KeyboardInterrupt
        return ask(self, command, argument)

    def remembered(self):
        processes.append(enter(self))
        return processes[-1]

    monkeypatch.setattr(pool.Process, "ask", interrupted_at_the_eighth_turn)
    monkeypatch.setattr(pool.Process, "__enter__", remembered)
    path = tmp_path / "report.json"
    arguments = "--network burgess --batch-size 2 --quick --parts batch encode --channels 3 --quiet"
    assert main([*arguments.split(), "--json", str(path)]) == 0
    left = json.loads(path.read_text())
    assert left["interrupted"]
    assert len(left["parts"]["batch"]["rendered"]["seconds_per_batch"]) == 3
    entry = left["parts"]["encode"][OURS]
    assert len(entry["seconds_per_image"]) == 1
    assert entry["median_seconds_per_image"] == entry["seconds_per_image"][0] > 0
    assert all(process._process.poll() is not None for process in processes)


@pytest.mark.once
def test_start_up_is_measured_to_the_first_record():
    found = {}
    startup.measure(dataclasses.replace(SMALL, batch_size=4), 1, found)
    for case in startup.CASES:
        assert "error" not in found[case]
        assert len(found[case]["seconds"]) == 1
        assert found[case]["peak_host_bytes"][0] > 10**8
    text = tables.markdown({"parts": {"startup": found}})
    assert f"| empty cache | {found['empty cache']['seconds'][0]:.1f} |" in text


def test_a_start_that_fails_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(startup, "_command", lambda _: [sys.executable, "-c", "raise OSError('x')"])
    found = {}
    startup.measure(SMALL, 1, found)
    assert found["empty cache"] == {"seconds": [], "peak_host_bytes": [], "error": "OSError: x"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--peer escher", "Unknown peer 'escher'. Known: torch, xla."),
        ("--parts escher", "Unknown part 'escher'"),
        ("--strategies escher", "Unknown strategy 'escher'"),
        ("--members 0", "--members: got 0, wanted"),
        ("--rounds 0", "--rounds: got 0, wanted"),
        ("--threads -1", "--threads: got -1, wanted"),
        ("--precision float8", "--precision: got 'float8', wanted one of"),
        ("--network escher", "Unknown network 'escher'"),
    ],
)
def test_mistakes_are_one_line(flags, message, capsys):
    assert main([*flags.split()]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


def test_pytorch_that_is_not_installed(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["--peer", "torch"]) == 2
    assert "install the extra bench" in capsys.readouterr().err
