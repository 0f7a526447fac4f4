"""Weights leave and come back with the same bits; what is not ours is refused in one line."""

import dataclasses
import importlib.util
import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from bvae_jax import cli
from bvae_jax.config import Config
from bvae_jax.errors import UserError
from bvae_jax.evaluation.answers import Answers
from bvae_jax.export import formats, weights
from bvae_jax.export.weights import export_run, metadata, named, read, write_npz
from bvae_jax.files import CHECKSUM, read_json, write_json
from bvae_jax.likelihoods import LIKELIHOODS, make_likelihood
from bvae_jax.likelihoods.base import expected_image
from bvae_jax.networks import NETWORKS
from bvae_jax.runs.checkpoint import fingerprint
from bvae_jax.runs.run import Run, load
from bvae_jax.runs.rundir import add_session
from bvae_jax.runs.train import train
from bvae_jax.runs.trainer import build_model
from bvae_jax.types import TrainState

pytestmark = pytest.mark.usefixtures("tiny_network")
TINY = Config(network="tiny", latents=3, steps=20, likelihood="sigma_vae")
SHAPE = (5, 7, 1)
GUIDE = Path(__file__).parents[1] / "docs" / "sharing.md"
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
    rounded = named(run.params)[KERNEL].astype(np.float16)
    done = {"step": 20, "params_sha256": fingerprint(run.params)}
    halves = dataclasses.replace(run, summary=done).export(tmp_path / "h", dtype="float16")
    summary = read_json(halves / "summary.json")
    assert summary["params_sha256"] == fingerprint(read(halves).params) != done["params_sha256"]
    for out in (halves, write_npz(run, tmp_path / "h.npz", "float16")):
        np.testing.assert_array_equal(named(load(out, data=False).params)[KERNEL], rounded)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("h", "out")]
    assert sizes[0] < 0.7 * sizes[1]
    whole = (halves / "model.safetensors").read_bytes()
    (halves / "model.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match="its parameters are not those of its SHA-256"):
        load(halves, data=False)


def test_an_export_names_no_place_of_this_machine(tmp_path):
    config = TINY.replace(dataset=f"folder:{tmp_path}/pictures", data_dir=str(tmp_path))
    run = some_run(config, SHAPE, tmp_path / "run")
    run.run_dir.mkdir()
    add_session(run.run_dir, 0, data={"identity": "pictures, 5 of them"})
    out = export_run(run, tmp_path / "out")
    assert not [path for path in out.iterdir() if str(tmp_path).encode() in path.read_bytes()]
    found = load(out, data=False)
    assert found.config.dataset == "folder:pictures"
    for exported in (out, export_run(found, tmp_path / "again")):
        assert read(exported).data == "pictures, 5 of them"
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


def test_nothing_is_replaced_that_is_something_else(run, tmp_path, monkeypatch):
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
    rename = Path.rename

    def interrupted(self, to):
        if self.name == "new":
            raise KeyboardInterrupt
        return rename(self, to)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            export_run(run, out, overwrite=True)
    assert fingerprint(read(out).params) == fingerprint(run.params)
    (out / "explore.html").write_text("of the weights that are replaced")
    export_run(run, out, overwrite=True)
    assert not (out / "explore.html").exists()
    (out / "README.md").write_text("kept")
    with pytest.raises(UserError, match=r"holds more than an export: README\.md"):
        export_run(run, out, overwrite=True)
    with pytest.raises(UserError, match=r"--resume: .*out was exported"):
        train(TINY, out, resume=True, progress=False)


def test_scores_of_an_export_are_kept_where_it_is_exported_anew(run, tmp_path):
    """Those of the same weights, that is; the run's own come first."""
    out, sha256 = export_run(run, tmp_path / "out"), fingerprint(run.params)
    for name, score, of in (("mig", 0.5, sha256), ("sap", 0.2, sha256), ("mcc", 0.1, "other")):
        answers = Answers(out / "evaluation-holdout.json")
        answers.put(name, {"score": score}, {"params_sha256": of})
    run.run_dir.mkdir(exist_ok=True)
    own = Answers(run.run_dir / "evaluation-holdout.json")
    own.put("sap", {"score": 0.3}, {"params_sha256": sha256})
    export_run(run, out, overwrite=True)
    found = read_json(out / "evaluation-holdout.json")
    assert {name: entry["score"] for name, entry in found.items()} == {"mig": 0.5, "sap": 0.3}


def changed(arrays, about, **values):
    values[CHECKSUM] = None  # as of those of before
    return arrays, {name: value for name, value in (about | values).items() if value is not None}


DAMAGED = (
    ("no weights of bvae_jax", lambda a, m: (a, {})),
    ("no weights of bvae_jax", lambda a, m: changed(a, m, step=None)),
    ("got format 9, wanted 1", lambda a, m: changed(a, m, format_version="9")),
    ("config in its metadata is damaged", lambda a, m: changed(a, m, config="{")),
    ("config in its metadata is damaged", lambda a, m: changed(a, m, config="[" * 100_000)),
    ("config has ['kernels'], which is not known here", lambda a, m: changed(
        a, m, config='{"kernels": 3}')),
    ("its metadata are not what was written", lambda a, m: (a, m | {"config": m["config"].replace(
        '"sigma": 1', '"sigma": 3')})),
    ("config and image_shape (9000, 7, 1)", lambda a, m: changed(a, m, image_shape="[9000, 7, 1]")),
    ("no config of a run", lambda a, m: changed(a, m, config="{}")),
    ("it is a text, wanted a list", lambda a, m: changed(a, m, image_shape='"5"')),
    ("wanted height, width, channels", lambda a, m: changed(a, m, image_shape="[5, 7]")),
    ("wanted height, width, channels", lambda a, m: changed(a, m, image_shape="[5, 0, 1]")),
    ("step 2147483648", lambda a, m: changed(a, m, step=str(2**31))),
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
        arrays, about = change(named(run.params), metadata(run, named(run.params)))
        save_file(arrays, tmp_path / "m.safetensors", metadata=about)
        with pytest.raises(UserError) as error:
            load(tmp_path / "m.safetensors", data=False)
        assert words in str(error.value)
        assert "\n" not in str(error.value)


def test_a_damaged_file_is_one_line(run, tmp_path, capsys):
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
    (out / "summary.json").write_text("{")
    assert load(out, data=False).summary is None
    assert capsys.readouterr().err.endswith(". It is left out.\n")  # an export is not resumed
    config = json.loads((out / "config.json").read_text())
    write_json(out / "config.json", config | {"beta": 3.0})
    with pytest.raises(UserError, match=r"config.json was edited.*beta"):
        load(out, data=False)
    (out / "config.json").unlink()
    with pytest.raises(UserError, match=r"has no config\.json"):
        load(out, data=False)
    np.savez(tmp_path / "codes.npz", codes=np.zeros((3, 2)))
    with pytest.raises(UserError, match=r"holds codes, .* bvae_jax\.score_file scores codes"):
        load(tmp_path / "codes.npz", data=False)
    write_npz(run, tmp_path / "w.npz")
    (tmp_path / "w.npz").write_bytes((tmp_path / "w.npz").read_bytes()[:-300])
    with pytest.raises(UserError, match=r"w\.npz"):
        load(tmp_path / "w.npz", data=False)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", exc_type=ImportError)


MODELS = (
    *((network, "bernoulli", (11, 14, 1)) for network in NETWORKS if network != "tiny"),
    *(("mlp", name, (3, 2, 3)) for name in ("continuous_bernoulli", "logistic_mixture")),
    *(("mlp", "logistic_mixture", (2, 2, channels)) for channels in (1, 4)),
)


@pytest.mark.once
@pytest.mark.parametrize(("network", "likelihood", "shape"), MODELS)
def test_torch_gives_what_jax_gives(torch, tmp_path, network, likelihood, shape):
    """Through the files: odd sides, every network, every mean image."""
    objective = "qlae" if network == "small" else "beta_vae"
    config = Config(network=network, likelihood=likelihood, latents=3, objective=objective)
    run = some_run(config, shape, tmp_path / "run")
    dtype = "float16" if network == "conv" else "float32"
    run.export(tmp_path / "out", to="torch", dtype=dtype)
    vae, run = imported(tmp_path / "out").load(tmp_path / "out"), load(tmp_path / "out", data=False)
    rng = np.random.default_rng(1)
    images, z = rng.random((5, *shape), np.float32), 2 * rng.normal(size=(5, 3)).astype(np.float32)
    with torch.no_grad():
        found = vae.encode(torch.tensor(images).movedim(3, 1))
        pictures = vae.decode(torch.tensor(z)).movedim(1, 3)
    assert pictures.std(dim=0).max() > 0.02
    if not run.variational:  # nobody trained its log-variances
        found = (found, torch.full_like(found, torch.nan))
    for one, other in zip((*found, pictures), (*run.encode(images), run.decode(z)), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


TORCH, ONNX = re.findall(r"^```py\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


def test_what_the_guide_shows_runs_in_torch(torch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = some_run(Config(network="mlp", latents=3), (3, 2, 1), tmp_path / "run")
    run.export("b4-torch", to="torch")
    monkeypatch.syspath_prepend(tmp_path / "b4-torch")
    images = np.random.default_rng(1).random((5, 3, 2, 1), np.float32)
    seen = {"images": torch.tensor(images).movedim(3, 1)}
    exec(TORCH, seen)
    mean, logvar = run.encode(images)
    for name, wanted in (("mean", mean), ("logvar", logvar)):
        np.testing.assert_allclose(seen[name].detach(), wanted, atol=1e-5)
    pictures = seen["pictures"].detach().movedim(1, 3)
    np.testing.assert_allclose(pictures, run.decode(mean), atol=1e-5)
    sys.modules.pop("bvae_torch")


def imported(directory):
    spec = importlib.util.spec_from_file_location("bvae_torch", directory / "bvae_torch.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_torch_cannot_know_is_said(run, tmp_path, torch):
    with pytest.raises(UserError, match=r"network tiny is your own.*--to safetensors or npz"):
        run.export(tmp_path / "out", to="torch")
    run.export(tmp_path / "out")
    module = imported(formats.TEMPLATE.parent)
    with pytest.raises(ValueError, match=r"uses \{'tiny'\}: wanted some of"):
        module.load(tmp_path / "out")
    save_file({"a": np.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no weights of bvae_jax"):
        module.load(tmp_path / "other.safetensors")
    known = {*module.NETS, *module.LOGISTIC, *module.MEANS}
    assert known == {*NETWORKS, *LIKELIHOODS} - {"tiny"}
    for name in module.LOGISTIC:
        assert make_likelihood(name, 1.0).mean is expected_image
    text = formats.TEMPLATE.read_text()
    assert len(text.splitlines()) <= 127
    assert "jax" not in text.replace("bvae_jax", "")


@pytest.mark.once
def test_onnx_gives_what_jax_gives(tmp_path):
    for package in ("torch", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    onnx = pytest.importorskip("onnx")
    config = Config(network="small", likelihood="logistic_mixture", latents=3, objective="qlae")
    config = config.replace(precision="bfloat16")  # the files are in float32
    run = some_run(config, (5, 7, 3), tmp_path / "run")
    out = run.export(tmp_path / "out", to="onnx")
    for images in (1, 6):  # a batch of any size
        assert max(formats.check_onnx(run, out, images).values()) < 1e-5
    assert fingerprint(load(out, data=False).params) == fingerprint(run.params)
    opened = onnx.load(out / formats.ENCODER)
    assert [one.name for one in opened.graph.output] == ["codes"]
    assert [one.version for one in opened.opset_import if not one.domain] == [formats.OPSET]
    shown = ONNX.replace("b4-onnx", str(out)).replace("mean, logvar", "(codes,)")
    exec(shown, {"images": np.zeros((4, 3, 5, 7), np.float32)})
    other = some_run(config, (5, 7, 3), tmp_path / "run", seed=1)
    with pytest.raises(UserError, match=r"codes of the ONNX file is .* away from JAX"):
        formats.check_onnx(other, out)


def test_export_says_what_it_cannot(run, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="float16 with --to onnx, wanted float32 there"):
        run.export(tmp_path / "a", to="onnx", dtype="float16")
    with pytest.raises(UserError, match=r"wanted the name of an \.npz file"):
        run.export(tmp_path / "a", to="npz")
    run.export(tmp_path / "a.npz", to="npz")
    with pytest.raises(UserError, match="there already: give --overwrite"):
        run.export(tmp_path / "a.npz", to="npz")
    run.export(tmp_path / "a.npz", to="npz", overwrite=True)
    run.export(tmp_path / "alone" / "w.npz", to="npz")
    with pytest.raises(UserError, match=r"bvae export .*w\.npz makes one"):
        load(tmp_path / "alone" / "w.npz", data=False).codes()
    with pytest.raises(UserError, match=r"Give the directory of a run, or a file of weights"):
        load(tmp_path / "alone", data=False)
    with pytest.raises(UserError, match="there is no such file or directory"):
        load(tmp_path / "other.npz", data=False)
    np.savez(tmp_path / "codes.npz", codes=np.zeros((2, 3)))
    (tmp_path / "cut.npz").write_bytes(b"no archive")
    for name in ("codes.npz", "cut.npz"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(UserError, match="is no exported run: it is left alone"):
            run.export(tmp_path / name, to="npz", overwrite=True)
        assert (tmp_path / name).read_bytes() == before
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    small = some_run(TINY.replace(network="small"), SHAPE, tmp_path / "run")
    with pytest.raises(UserError, match=r"--to onnx needs torch: pip install 'bvae_jax\[export\]'"):
        small.export(tmp_path / "b", to="onnx")
    assert not (tmp_path / "b").exists()


def test_the_command_exports_to_a_place_of_its_own(run, tmp_path, monkeypatch, capsys):
    export_run(run, tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["export", "a", "--to", "npz", "--dtype", "float16"]) == 0
    assert capsys.readouterr().out == "exports/a.npz\n"
    assert cli.main(["export", "exports/a.npz"]) == 0
    assert capsys.readouterr().out == "exports/a: config.json, model.safetensors\n"
    assert cli.main(["export", "a", "--to", "keras"]) == 2
    assert "--to: got 'keras', wanted one of" in capsys.readouterr().err
    assert cli.main(["export", "a", "--step", "3"]) == 2
    assert "--step: got 3, but a was exported at step 20" in capsys.readouterr().err
