"""Weights leave and come back with the same bits; what is not ours is refused in one line."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from bvae_jax.config import Config
from bvae_jax.errors import UserError
from bvae_jax.export import weights
from bvae_jax.export.weights import export_run, metadata, named, read, write_npz
from bvae_jax.files import write_json
from bvae_jax.runs.checkpoint import fingerprint
from bvae_jax.runs.run import Run, load
from bvae_jax.runs.train import train
from bvae_jax.runs.trainer import build_model
from bvae_jax.types import TrainState

pytestmark = pytest.mark.usefixtures("tiny_network")
TINY = Config(network="tiny", latents=3, steps=20, likelihood="sigma_vae")
SHAPE = (5, 7, 1)
KERNEL = "encoder.head.mean.kernel"


def some_run(config, shape, directory, seed=0):
    """A run that nobody trained, whose pictures vary."""
    model, states = build_model(config, shape)
    rng = np.random.default_rng(seed)

    def some(leaf):
        fan_in = max(1, np.prod(leaf.shape[:-1]))
        return jnp.asarray(rng.normal(size=leaf.shape) * np.sqrt(2 / fan_in), jnp.float32)

    params = {"vae": jax.tree.map(some, states.params["vae"]), "aux": {}}
    hyper = {"beta": jnp.float32(config.beta or 4)}
    state = TrainState(jnp.int32(20), params, {}, jax.random.key(0), hyper, {}, {})
    return Run(directory, config, None, state, model, shape)


@pytest.fixture
def run(tmp_path):
    return some_run(TINY, SHAPE, tmp_path / "run")


def test_weights_come_back_with_the_same_bits(run, tmp_path):
    """NaN, infinities and -0, too, of which one array has some."""
    strange = np.array([np.nan, np.inf, -0.0], np.float32)
    run.params["encoder"]["head"]["mean"]["bias"] = jnp.asarray(strange)
    write_json(tmp_path / "run.json", {})
    images = np.random.default_rng(0).random((4, *SHAPE), np.float32)
    for out in (export_run(run, tmp_path / "out"), write_npz(run, tmp_path / "out.npz")):
        found = load(out, data=False)
        assert fingerprint(found.params) == fingerprint(run.params)
        assert (found.image_shape, int(found.state.step)) == (SHAPE, 20)
        assert found.config.replace(beta=None) == TINY.replace(beta_schedule="constant")
        for name, wanted in run.encode(images)._asdict().items():
            np.testing.assert_array_equal(getattr(found.encode(images), name), wanted)
    again = export_run(found, tmp_path / "out", overwrite=True)
    assert fingerprint(read(again).params) == fingerprint(run.params)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.npz", "run.json"]
    halves = load(write_npz(run, tmp_path / "h.npz", "float16"), data=False)
    np.testing.assert_allclose(named(halves.params)[KERNEL], named(run.params)[KERNEL], rtol=1e-3)


def test_an_export_names_no_place_of_this_machine(tmp_path):
    config = TINY.replace(dataset=f"folder:{tmp_path}/pictures", data_dir=str(tmp_path))
    run = some_run(config, SHAPE, tmp_path / "run")
    out = export_run(run, tmp_path / "out")
    assert not [path for path in out.iterdir() if str(tmp_path).encode() in path.read_bytes()]
    assert load(out, data=False).config.dataset == "folder:pictures"
    with pytest.raises(UserError, match="not in folder:pictures any more"):
        load(out)


def test_a_run_for_many_rates_is_exported_at_one(tmp_path):
    config = TINY.replace(multi_rate="0.5:8", objective="beta_vae", beta=2.0)
    run = some_run(config, SHAPE, tmp_path)
    found = load(export_run(run, tmp_path / "out"), data=False)
    assert (found.config.beta, found.config.multi_rate) == (2.0, "")
    assert "gate_slope" in str(run.state.params)
    assert "gate_slope" not in str(found.state.params)
    assert fingerprint(found.params) == fingerprint(run.params)
    with pytest.raises(UserError, match="trained for one β, wanted"):
        load(tmp_path / "out", beta=4.0, data=False)


def test_nothing_is_replaced_that_is_something_else(run, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("kept")
    with pytest.raises(UserError, match="no exported run: it is left alone"):
        export_run(run, tmp_path / "other", overwrite=True)
    out = export_run(run, tmp_path / "out")
    with pytest.raises(UserError, match="give --overwrite"):
        export_run(run, out)

    def fail(part):
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        export_run(run, out, overwrite=True, more=[fail])
    assert fingerprint(read(out).params) == fingerprint(run.params)
    with pytest.raises(UserError, match=r"--resume: .*out was exported"):
        train(TINY, out, resume=True, progress=False)


def changed(arrays, about, **values):
    return arrays, {name: value for name, value in (about | values).items() if value is not None}


DAMAGED = (
    ("no weights of bvae_jax", lambda a, m: (a, {})),
    ("no weights of bvae_jax", lambda a, m: changed(a, m, step=None)),
    ("got format 9, wanted 1", lambda a, m: changed(a, m, format_version="9")),
    ("config in its metadata is damaged", lambda a, m: changed(a, m, config="{")),
    ("config in its metadata is damaged", lambda a, m: changed(a, m, config="[" * 100_000)),
    ("Unknown config fields", lambda a, m: changed(a, m, config='{"kernels": 3}')),
    ("no config of a run", lambda a, m: changed(a, m, config="{}")),
    ("it is a text, wanted a list", lambda a, m: changed(a, m, image_shape='"5"')),
    ("wanted height, width, channels", lambda a, m: changed(a, m, image_shape="[5, 7]")),
    ("wanted height, width, channels", lambda a, m: changed(a, m, image_shape="[5, 0, 1]")),
    ("is [105, 16], wanted [35, 16]", lambda a, m: (a | {
        "encoder.Dense_0.kernel": np.zeros((105, 16), np.float32)}, m)),
    ("Unknown network 'nobody'", lambda a, m: changed(a, m, config=m["config"].replace(
        '"tiny"', '"nobody"'))),
    ("is [3, 16], wanted [4, 16]", lambda a, m: changed(a, m, config=m["config"].replace(
        '"latents": 3', '"latents": 4'))),
    ("has no " + KERNEL, lambda a, m: ({n: x for n, x in a.items() if n != KERNEL}, m)),
    ("which the network has not", lambda a, m: (a | {"more": np.zeros(1, np.float32)}, m)),
    ("is of F64, wanted F32", lambda a, m: (a | {KERNEL: a[KERNEL].astype(float)}, m)),
    ("not those of its SHA-256", lambda a, m: (a | {KERNEL: a[KERNEL] + 1}, m)),
)  # fmt: skip


def test_a_file_that_does_not_fit_is_one_line(run, tmp_path):
    for words, change in DAMAGED:
        arrays, about = change(named(run.params), metadata(run))
        save_file(arrays, tmp_path / "m.safetensors", metadata=about)
        with pytest.raises(UserError) as error:
            load(tmp_path / "m.safetensors", data=False)
        assert words in str(error.value)
        assert "\n" not in str(error.value)


def test_a_damaged_file_is_one_line(run, tmp_path):
    """Truncated anywhere, or of another kind."""
    out = export_run(run, tmp_path / "out")
    file = out / weights.WEIGHTS
    whole = file.read_bytes()
    for damaged in (b"", b"PK", whole[:5], whole[:100], whole[:-1], b"\xff" * 100, whole + b"x"):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged or no safetensors file") as error:
            load(out, data=False)
        assert "\n" not in str(error.value)
    file.write_bytes(whole)
    config = json.loads((out / "config.json").read_text())
    write_json(out / "config.json", config | {"beta": 3.0})
    with pytest.raises(UserError, match=r"config.json was edited.*beta"):
        load(out, data=False)
    (out / "config.json").unlink()
    with pytest.raises(UserError, match=r"has no config\.json"):
        load(out, data=False)
    np.savez(tmp_path / "codes.npz", codes=np.zeros((3, 2)))
    with pytest.raises(UserError, match="no weights of bvae_jax"):
        load(tmp_path / "codes.npz", data=False)
    write_npz(run, tmp_path / "w.npz")
    (tmp_path / "w.npz").write_bytes((tmp_path / "w.npz").read_bytes()[:-300])
    with pytest.raises(UserError, match=r"w\.npz"):
        load(tmp_path / "w.npz", data=False)
