"""The scripts that reproduce papers: each runs, at a tiny size, and leaves its table and figure."""

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bvae_jax import Sweep
from bvae_jax.data import get_dataset
from bvae_jax.runs.hyper import resolved

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
LINES = 60
STEPS = {
    "steps": 4, "checkpoint_every": 2, "log_every": 2, "eval_every": 2, "eval_images": 32,
    "batch_size": 4, "network": "tiny", "image_source": "rendered",
}  # fmt: skip
CHANGES = {"burgess2018": {"capacity_schedule": "linear:steps=4", "keep_checkpoints": 2}}
VALUES = {
    "bars": (4.0,),
    "burgess2018": (),
    "chen2018": ((4.0,), (4.0,)),
    "dubois2019": (1.0, 4.0),
    "fu2019": (4.0,),
    "higgins2017": (4.0,),
    "hsu2023": ((4.0,), (0.1,), (0.1,)),
    "kim2018": ((4.0,), (35.0,)),
    "kumar2018": ((4.0,), (10.0,), (10.0,)),
    "locatello2019": (1.0, 4.0),
    "montero2021": (4.0,),
    "notebook128": (12,),
    "traeuble2021": (4.0,),
}


@pytest.fixture
def script(monkeypatch, registries):
    """Imports a script, as Python does that is given its file."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    return importlib.import_module


@pytest.mark.parametrize("name", sorted(VALUES))
def test_settings_of_every_size_are_valid(name, script, tmp_path, monkeypatch):
    """All that a script does before it trains."""
    module = script(name)

    class Begun(Exception):
        pass

    def begin(config, *_, **__):
        raise Begun(resolved(config))

    monkeypatch.setattr(script("common"), "sweep", begin)
    monkeypatch.setattr(script("common"), "train", begin)
    assert {"small", "full"} <= set(module.SCALES)
    for scale in module.SCALES:
        (tmp_path / f"{name}-{scale}" / "pictures").mkdir(parents=True)  # that one draws itself
        with pytest.raises(Begun):
            module.main(["--scale", scale, "--dir", str(tmp_path)])


@pytest.mark.once
@pytest.mark.usefixtures("tiny_network")
@pytest.mark.parametrize("name", ["burgess2018", "kim2018", "locatello2019"])
def test_a_script_leaves_its_table_and_figure(name, script, tmp_path, monkeypatch, capsys):
    module = script(name)
    small = module.SCALES["small"]
    changes = small.changes | STEPS | CHANGES.get(name, {})
    tiny = small._replace(changes=changes, values=VALUES[name], points=300, seeds=1)
    monkeypatch.setitem(module.SCALES, "tiny", tiny)
    module.main(["--scale", "tiny", "--dir", str(tmp_path), "--figures", str(tmp_path)])
    assert (tmp_path / f"{name}-tiny.png").stat().st_size > 5000
    assert "| --- |" in capsys.readouterr().out


class Trained(Sweep):
    """One of which only the statuses are known."""

    statuses: Any = None

    def __init__(self, statuses):
        self.statuses = self.members = statuses


@pytest.mark.parametrize(("statuses", "calls"), [(("done", "missing"), 2), (("begun", "done"), 1)])
def test_a_shard_is_a_part_of_every_sweep(statuses, calls, script, tmp_path, monkeypatch, capsys):
    """The second member is another shard's; where one's own is left, it was interrupted."""
    begun = []

    def sweep(config, directory, **_):
        begun.append(directory.name)
        return Trained(dict(zip("ab", statuses, strict=True)))

    monkeypatch.setattr(script("common"), "sweep", sweep)
    with pytest.raises(SystemExit) as ended:
        script("kim2018").main(["--dir", str(tmp_path), "--shard", "1/2"])
    assert begun == ["beta_vae", "factor_vae"][:calls]
    if "begun" in statuses:
        assert ended.value.code == "1 of 2 members are left: call it again."
    else:
        assert ended.value.code == 0
        assert (
            capsys.readouterr().out == "Part 1/2 is done; 2 of 4 members are left to other parts.\n"
        )


def test_a_shard_that_cannot_be_is_one_line(script, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        script("kim2018").main(["--dir", str(tmp_path), "--shard", "5/4"])
    assert "error: --shard: got '5/4', wanted i/n" in capsys.readouterr().err


def test_scripts_are_short_and_listed():
    readme = (EXPERIMENTS / "README.md").read_text()
    for name in VALUES:
        lines = (EXPERIMENTS / f"{name}.py").read_text().splitlines()
        assert len(lines) <= LINES
        assert f"`{name}.py`" in readme
        assert f"python experiments/{name}.py" in "\n".join(lines)


def test_settings_leave_out_what_an_objective_does_not_have(script):
    settings = script("common").settings
    config = settings("kim2018-dsprites", {"aux_learning_rate": 1e-3}, "beta_vae")
    assert (config.gamma, config.aux_learning_rate, config.batch_size) == (None, None, 128)
    config = settings("kim2018-dsprites", {"aux_learning_rate": 1e-3}, "factor_vae")
    assert (config.gamma, config.aux_learning_rate) == (35.0, 1e-3)


def test_pretrained_runs_are_what_their_cards_say():
    """A sweep, whose images that are decoded from the mean code cost about the card's NLL."""
    sweep = Sweep(EXPERIMENTS / "pretrained")
    done = [name for name, status in sweep.statuses.items() if status == "done"]
    assert [sweep.members[name].config.beta for name in done] == [1, 2, 4, 6, 8, 16]
    dataset: Any = get_dataset("dsprites")
    indices = np.random.default_rng(0).choice(dataset.size, 64, replace=False)
    images = np.asarray(dataset.pixels.render(dataset.factors(indices)), np.float64)
    for name in (done[0], done[-1]):
        run = sweep[name]
        assert int(run.state.step) == 300_000
        p = np.clip(np.asarray(run.reconstruct(images), np.float64), 1e-6, 1 - 1e-6)
        nll = -(images * np.log(p) + (1 - images) * np.log1p(-p)).sum(axis=(1, 2, 3)).mean()
        card = (run.run_dir / "README.md").read_text()
        (said,) = map(float, re.findall(r"\| NLL ↓ \| ([\d.]+)", card))
        assert 0.6 < nll / said < 1.2
        assert run.summary is not None
        assert run.summary["nll"] == pytest.approx(said, rel=0.005)
