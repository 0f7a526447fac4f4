"""Things of one's own, from a script outside the package, through train, sweep and compare."""

import hashlib
import json
import re
import sys

import jax.numpy as jnp
import pandas as pd
import pytest
from conftest import registries_kept

from bvae_jax import Config, UserError, config, load, register, registry
from bvae_jax.cli import main
from bvae_jax.data.base import Dataset
from bvae_jax.likelihoods import LIKELIHOODS, make_likelihood
from bvae_jax.metrics.base import Metric
from bvae_jax.networks import NETWORKS, make_network
from bvae_jax.objectives import OBJECTIVES
from bvae_jax.objectives.base import Loss, Objective
from bvae_jax.registry import REGISTRIES, load_plugin
from bvae_jax.runs import rundir
from bvae_jax.runs.grid import groups, members, parse_grid
from bvae_jax.runs.hyper import graph, hyperparameters, resolved
from bvae_jax.runs.trainer import Trainer

PLUGIN = """
import jax.numpy as jnp
import numpy as np

import bvae_jax as bvae
from bvae_jax.data.base import Dataset, Stored
from bvae_jax.likelihoods import LIKELIHOODS
from bvae_jax.metrics import METRICS
from bvae_jax.metrics.base import Metric
from bvae_jax.networks import Network
from bvae_jax.networks.mlp import MLPDecoder, MLPEncoder
from bvae_jax.objectives.base import Loss, Objective


def loss(given):
    return Loss(given.nll + given.hyper["beta"] * given.hyper["tilt"] * given.mean_kl**2)


def flat(codes):
    return {"score": np.float32(0.5), "more": jnp.ones(2)}


def own_mlp(latents, image_shape, outputs, dtype):
    encoder = MLPEncoder(latents, (4,), dtype=dtype)
    return Network(encoder, MLPDecoder(image_shape[:2], outputs, (4,), dtype=dtype))


rng = np.random.default_rng(0)
pixels = Stored(rng.integers(0, 255, (48, 64), dtype=np.uint8), (8, 8, 1))
labels = np.stack([np.arange(48) % 4, np.arange(48) // 4 % 3], axis=1).astype(np.int32)
noise = Dataset("noise", 1, (8, 8, 1), pixels, ("a", "b"), (4, 3), labels=labels)
bvae.register(
    objective={"tilted": Objective(loss, "NLL + beta tilt KL^2", "ours", {"beta": 1, "tilt": 0.1})},
    network={"own_mlp": own_mlp},
    likelihood={"narrow": lambda sigma: LIKELIHOODS["gaussian"](0.4)},
    metric={"mig_again": METRICS["mig"], "flat": Metric(flat, "a half", "ours")},
    dataset={"noise": noise},
)
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """A script that registers one of each kind; all are forgotten at the end."""
    path = tmp_path_factory.mktemp("plugin") / "mine.py"
    path.write_text(PLUGIN)
    with registries_kept():
        yield path


@pytest.fixture
def tilted(plugin):
    load_plugin(plugin)
    load_plugin(plugin)  # nothing happens again
    return Config(objective="tilted", dataset="noise", network="own_mlp", likelihood="narrow")


def test_an_own_hyperparameter_is_traced_and_varied(tilted):
    config = resolved(tilted)
    assert (config.value("beta"), config.value("tilt")) == (1.0, 0.1)
    assert hyperparameters(config) == {"learning_rate": 5e-4, "beta": 1.0, "tilt": 0.1}
    assert "tilt" not in graph(config)
    found = members(tilted, parse_grid(["tilt=0.5,2", "seed=0,1"]))
    assert [one.name for one in found] == [
        f"tilt={tilt},seed={seed}" for tilt in ("0.5", "2") for seed in (0, 1)
    ]
    assert [one.config.value("tilt") for one in found] == [0.5, 0.5, 2.0, 2.0]
    assert len(groups(found)) == 1  # one program
    with pytest.raises(UserError, match="--hyper tilt: objective vae has no such hyperparameter"):
        resolved(Config(objective="vae", hyper={"tilt": 1.0}))
    with pytest.raises(UserError, match="--tilt: got 'many', wanted a number"):
        parse_grid(["tilt=many"])


QUICK = "--dataset noise --network own_mlp --likelihood narrow --latents 2 --batch-size 4 --steps 4"
QUICK += " --log-every 2 --eval-images 8 --holdout 0.2 --quiet --no-figures"
SCORES = (
    "--metrics mig_again --train-points 30 --test-points 10 --no-baselines --quiet --no-figures"
)


@pytest.mark.once
def test_from_a_script_through_train_sweep_and_compare(plugin, tmp_path, capsys, monkeypatch):
    """On the command line; what another process needs to know is in the directories."""

    def bvae(command, *more):
        assert main([*f"--plugin {plugin} {command}".split(), *more]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    own = f"--objective tilted {QUICK}"
    bvae(f"train --run-dir {tmp_path}/run {own} --hyper tilt=0.5 --eval-metrics mig_again")
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (stored["tilt"], stored["beta"]) == (0.5, 1.0)  # flat

    # Another run from its config; a flag changes it.
    again = f"--config {tmp_path}/run/config.json --seed 1 --quiet --no-figures"
    bvae(f"train --run-dir {tmp_path}/b {again}")
    assert json.loads((tmp_path / "b" / "config.json").read_text()) == stored | {"seed": 1}

    bvae(f"sweep --sweep-dir {tmp_path}/sweep {own} --grid tilt=0.1,9 --seeds 2")
    names = {path.name for path in (tmp_path / "sweep" / "members").iterdir()}
    assert names == {f"tilt={tilt},seed={seed}" for tilt in ("0.1", "9") for seed in (0, 1)}
    assert "tilt = 9" in bvae(f"compare {tmp_path}/sweep {SCORES}")
    table = pd.read_csv(tmp_path / "sweep" / "table.csv")
    assert list(table["setting"]) == ["tilt = 0.1", "tilt = 9"]
    assert {"mig_again", "mig_again_low"} <= set(table)
    for kind, name in (("objectives", "tilted"), ("networks", "own_mlp"), ("metrics", "mig_again")):
        assert name in bvae(f"list {kind}").split()
    assert "--beta 1 --hyper tilt=0.1" in bvae("list objectives")

    # Scores of a metric whose script changed are computed anew, and no others.
    evaluate = f"evaluate {tmp_path}/run --metrics mig_again,flat --decomposition 0 --quiet"
    seconds, script = [], plugin.read_text()
    for _ in range(3):
        assert "0.5000" in bvae(evaluate)
        found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
        seconds.append([found[name]["seconds"] for name in ("mig_again", "flat")])
        if len(seconds) == 2:
            plugin.write_text(f"{script}# another one\n")
    plugin.write_text(script)
    assert seconds[0] == seconds[1]
    assert seconds[2][0] == seconds[0][0]
    assert seconds[2][1] != seconds[0][1]

    # A process that did not load the script: the run says which it was.
    (session,) = json.loads((tmp_path / "run" / "provenance.json").read_text())["sessions"]
    assert session["plugins"] == {str(plugin): hashlib.sha256(plugin.read_bytes()).hexdigest()}
    monkeypatch.setattr(rundir, "PLUGINS", {})
    told = f"has parts that {plugin} registers, which is not loaded: give --plugin {plugin}"
    for forget in (
        lambda patch: patch.delitem(REGISTRIES["network"][0], "own_mlp"),
        lambda patch: patch.setattr(config, "OWN_HYPERPARAMETERS", set()),
    ):
        with monkeypatch.context() as patch:
            forget(patch)
            for command in ("traverse", "train --resume --run-dir"):
                assert main([*command.split(), str(tmp_path / "run")]) == 2
                assert told in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(config, "OWN_HYPERPARAMETERS", set())
        assert main(["compare", str(tmp_path / "sweep")]) == 2
        assert told in capsys.readouterr().err
    monkeypatch.setattr(rundir, "PLUGINS", {str(plugin): "another"})
    load(tmp_path / "run", data=False)
    assert f"{plugin} is not what it was when" in capsys.readouterr().err
    assert load(tmp_path / "run", data=False).config.network == "own_mlp"


def test_from_an_installed_package(tmp_path, capsys, monkeypatch):
    """Its entry points say which module registers things."""
    script = "import bvae_jax\nbvae_jax.register(metric={'own': bvae_jax.metrics.METRICS['mig']})\n"
    (tmp_path / "mine_parts.py").write_text(script)
    info = tmp_path / "mine-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text("[bvae_jax]\nmine = mine_parts\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "PLUGINS", {})
    with registries_kept():
        assert main(["list", "metrics"]) == 0
        assert "own" in capsys.readouterr().out.split()
        assert registry.PLUGINS == {"mine_parts": "1.5"}
    del sys.modules["mine_parts"]


def test_a_run_of_what_is_not_registered(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(Config().to_dict() | {"tint": 1}))
    for command in (f"evaluate {tmp_path}", f"train --run-dir x --config {tmp_path}/config.json"):
        assert main(command.split()) == 2
        assert re.match(r"bvae: .*\['tint'\].*--plugin FILE\.py.*\n$", capsys.readouterr().err)


ANY = Objective(lambda given: Loss(given.nll), "formula", "reference")


@pytest.mark.parametrize(
    ("kinds", "wanted"),
    [
        ({"objective": {"vae": ANY}}, "the objective 'vae' is there already"),
        ({"objective": {"a b": ANY}}, "got the name 'a b'"),
        ({"objective": {"one": 3}}, "'one': got 3, wanted: Objective"),
        ({"network": {"one": 3}}, "'one': got 3, wanted: function"),
        ({"dataset": {"one": Dataset}}, "wanted: Dataset"),
        ({"optimizer": {"lion": 3}}, "got 'optimizer', wanted some of objective, network"),
        ({"objective": {"one": ANY._replace(hyper={"steps": 1})}}, "'steps' has the name of a"),
        ({"objective": {"one": ANY._replace(hyper={"a b": 1})}}, "'a b' is no name of Python's"),
        (
            {"objective": {"one": ANY._replace(hyper={"q": None})}},
            "got None for q, wanted",
        ),
        ({"objective": {"one": ANY._replace(init_aux=dict)}}, "wanted aux_learning_rate in"),
        ({"metric": {"one": Metric(lambda z, codes: {}, "", "")}}, "takes z, wanted some of"),
    ],
)
def test_what_cannot_be_registered(kinds, wanted):
    before = dict(OBJECTIVES)
    with pytest.raises(UserError, match=wanted):
        register(**kinds)
    assert before == OBJECTIVES


def test_what_is_not_registered_says_how():
    with pytest.raises(UserError, match=r"Unknown objective 'own'.* --plugin FILE.py, or bvae_jax"):
        resolved(Config(objective="own"))
    with pytest.raises(UserError, match=r"Unknown config fields \['tint'\].* --plugin FILE.py"):
        Config.from_dict({"tint": 1.0})


def test_no_plugin(tmp_path):
    with pytest.raises(UserError, match=r"--plugin: got .*, wanted a Python file"):
        load_plugin(tmp_path / "none.py")


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        (lambda given: Loss(given.kl.sum(axis=-1), {}), r"a value of shape \(2,\)"),
        (lambda given: given.nll, "returned .*, wanted objectives.base.Loss"),
        (lambda given: Loss(jnp.int32(3)), "a value of type int32, wanted objectives.base.Loss"),
        (lambda given: Loss(given.nll * given.hyper["q"]), "asks for 'q', which is not there"),
        (lambda given: Loss(given.nll, {"nll": 2 * given.nll}), "reports 'nll', which every run"),
        (lambda given: Loss(given.nll, {"mse": given.nll}), "reports 'mse', which every run has"),
        (lambda given: Loss(given.nll, memory={"m": given.nll}), "keeps a memory of shapes {'m'"),
    ],
)
@pytest.mark.usefixtures("tiny_network")
def test_what_is_no_loss_is_said(monkeypatch, loss, found):
    monkeypatch.setitem(OBJECTIVES, "wrong", Objective(loss, "", ""))
    tiny = Config(dataset="xy_squares", network="tiny", batch_size=2, objective="wrong")
    trainer = Trainer(tiny, progress=False)
    state = trainer.init()
    with pytest.raises(UserError, match=found):
        trainer.train(state, trainer.feed([state]), 1)


def test_what_is_no_mapping_is_said():
    with pytest.raises(UserError, match=r"register: objective: got .* wanted {name: obj"):
        register(objective=Objective(lambda given: Loss(given.nll), "", ""))  # pyright: ignore


def test_a_function_that_makes_something_else_is_said(monkeypatch):
    monkeypatch.setitem(NETWORKS, "wrong", lambda *_: None)
    with pytest.raises(UserError, match="network 'wrong': its function returned None, wanted Net"):
        make_network("wrong", 3, (8, 8, 1), 1)
    monkeypatch.setitem(LIKELIHOODS, "wrong", lambda sigma: 3)
    with pytest.raises(UserError, match="likelihood 'wrong': its function returned 3, wanted Lik"):
        make_likelihood("wrong", 1.0)
