"""The command line: the main job from end to end, what is listed, and a hundred mistakes."""

import functools
import json
import os
import pkgutil
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import bvae_jax
from bvae_jax import cli
from bvae_jax.cli import flags, lists
from bvae_jax.config import Config
from bvae_jax.files import read_json
from bvae_jax.likelihoods import LIKELIHOODS
from bvae_jax.metrics import METRICS
from bvae_jax.networks import NETWORKS
from bvae_jax.objectives import OBJECTIVES
from bvae_jax.presets import PRESETS
from bvae_jax.runs.writer import Writer

QUICK = ["--image-source", "rendered", "--batch-size", "4", "--latents", "2", "--steps", "4"]
QUICK += shlex.split("--log-every 2 --eval-images 8 --checkpoint-every 2 --quiet --no-figures")
TINY = Path(__file__).with_name("tiny.py")
pytestmark = pytest.mark.usefixtures("tiny_network", "shared_trainers")


def bvae(*arguments, **options):
    """The command in a process of its own."""
    command = [sys.executable, "-m", "bvae_jax", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A finished run."""
    directory = tmp_path_factory.mktemp("cli") / "run"
    assert cli.main(["train", "--run-dir", str(directory), *QUICK, "--network", "tiny"]) == 0
    return directory


def test_train_in_another_process_resume_and_traverse(tmp_path, capsys):
    directory = tmp_path / "runs" / "new"
    flags = "--dataset dsprites --network tiny --objective beta_vae --beta 6 --learning-rate 1e-4"
    train = ("--plugin", TINY, "train", "--run-dir", directory)
    done = bvae(*train, *flags.split(), "--seed", 3, *QUICK)
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert said, "it learned nothing"
    assert all(line.startswith("bvae: warning: ") for line in said)
    assert re.search(
        r"step 4  nll [\d.]+  kl [\d.]+  elbo -[\d.]+ \(holdout, 8 images\)", done.stdout
    )
    summary = json.loads((directory / "summary.json").read_text())
    assert (summary["step"], summary["beta"]) == (4, 6.0)

    # Flags that are not given keep the run's values.
    again = ["train", "--run-dir", str(directory), "--resume", "--steps", "6", "--no-figures"]
    assert cli.main(again) == 0
    assert "from step 4" in capsys.readouterr().err
    config = json.loads((directory / "config.json").read_text())
    assert (config["beta"], config["steps"], config["seed"]) == (6.0, 6, 3)

    out = tmp_path / "pictures"
    Image.new("RGB", (30, 20)).save(tmp_path / "my.own.png")
    options = ["--range", 2, "--columns", 3, "--images", tmp_path / "my.own.png", 737279]
    options += ["--latents", "1,0", "--step", 6, "--out", out]
    assert cli.main(["traverse", str(directory), *map(str, options)]) == 0
    said = capsys.readouterr().out
    stems = (737279, "my_own")
    names = {f"traversal-{i}.{kind}" for i in stems for kind in ("png", "pdf", "gif")}
    assert {path.name for path in out.iterdir()} == names
    assert {os.path.basename(line) for line in said.split()} == names


def test_from_python_in_three_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = {"steps": 2, "batch_size": 4, "image_source": "rendered", "eval_images": 4}
    result = bvae_jax.train(bvae_jax.Config(**small, network="tiny"), figures=False)
    assert str(result.run_dir) == "runs/dsprites-beta_vae-beta4-seed0"
    assert result.summary
    assert result.summary["step"] == 2
    assert (tmp_path / "runs/dsprites-beta_vae-beta4-seed0/summary.json").exists()


def test_presets_flags_and_resuming(tmp_path):
    """A flag goes before the preset, the preset before the default; steps stay when resumed."""
    directory = tmp_path / "run"
    preset = ["train", "--run-dir", str(directory), "--preset", "kim2018-dsprites"]
    quick = [*QUICK, "--objective", "beta_tcvae", "--alpha", "0.5"]
    assert cli.main([*preset, *quick, "--network", "tiny"]) == 0
    stored = json.loads((directory / "config.json").read_text())
    wanted = {"learning_rate": 1e-4, "holdout": 0.0, "batch_size": 4, "alpha": 0.5, "beta": 6.0}
    wanted |= {"gamma": 1.0, "aux_learning_rate": None, "steps": 4, "network": "tiny"}
    assert {name: stored[name] for name in wanted} == wanted
    given = shlex.split("--objective beta_tcvae --alpha 0.5 --network tiny --batch-size 4")
    again = [*preset, "--resume", *given, "--latents", "2", "--quiet", "--no-figures"]
    assert cli.main(again) == 0
    assert json.loads((directory / "config.json").read_text()) == stored


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help(arguments, capsys):
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    for command in cli.COMMANDS:
        assert f"bvae {command}" in out


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_and_flags(shell, capsys):
    assert cli.main(["--print-completion", shell]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in (*cli.COMMANDS, "prepare", "log-likelihood-images"))


def test_help_needs_no_jax():
    done = bvae("--help", env=os.environ | {"PYTHONPROFILEIMPORTTIME": "1"})
    assert done.returncode == 0
    assert "tyro" in done.stderr
    assert not re.search(r"\| +jax\b", done.stderr)


@pytest.mark.parametrize("kind", ["", *lists.KINDS, lists.DATASETS])
def test_list(kind, capsys):
    assert cli.main(["list", *filter(None, [kind])]) == 0
    out = capsys.readouterr().out
    wanted = {"": ["mig,", "conv,"], "objectives": OBJECTIVES, "presets": PRESETS}
    wanted |= {"metrics": METRICS, "networks": NETWORKS, "likelihoods": LIKELIHOODS}
    assert set(wanted.get(kind, ["dsprites", "mpi3d_toy"])) <= set(out.split())


def test_train_help_names_every_field(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    for name in (*Config().to_dict(), "plugin", "hyper", "config", "preset"):
        assert "--" + name.replace("_", "-") in out
    for name in ("--run-dir", "--resume", "--overwrite"):
        assert name in out


def damaged_config(text):
    def prepare(tmp_path, run_dir):
        (tmp_path / "bad").mkdir()
        (tmp_path / "bad" / "config.json").write_text(text)

    return prepare


def no_checkpoints(tmp_path, run_dir):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text((run_dir / "config.json").read_text())


def damaged_checkpoints(tmp_path, run_dir):
    no_checkpoints(tmp_path, run_dir)
    (tmp_path / "bad" / "checkpoints" / "2").mkdir(parents=True)


def edited_config(tmp_path, run_dir):
    shutil.copytree(run_dir, tmp_path / "bad")
    path = tmp_path / "bad" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"latents": 5}))


def a_file(tmp_path, run_dir):
    (tmp_path / "file").write_text("text")


def a_picture(tmp_path, run_dir):
    (tmp_path / "file.png").write_text("text")


def foreign(tmp_path, run_dir):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("text")


def no_wandb(tmp_path, run_dir):
    if find_spec("wandb"):
        pytest.skip("wandb is installed")


def mismatched(tmp_path, run_dir):
    np.savez(tmp_path / "bad.npz", codes=np.zeros((3, 2)), factors=np.zeros((4, 2), int))


def matched(tmp_path, run_dir):
    np.savez(tmp_path / "good.npz", codes=np.zeros((3, 2)), factors=np.zeros((3, 2), int))


TRAIN = "train --run-dir {tmp}/new --image-source rendered --quiet "
RESUME_BAD = "train --run-dir {tmp}/bad --resume --quiet"
# (arguments, what the line must say, what to prepare)
MISTAKES = [
    (
        "fly",
        "Unknown command 'fly'. Known: beta, compare, data, encode, evaluate, explore, export",
        None,
    ),
    ("train", "--run-dir", None),
    ("train --run-dir", "--run-dir", None),
    ("train {tmp}/new", "Unrecognized options", None),
    (TRAIN + "--beat 4", "Unrecognized options: --beat, 4. Did you mean --beta", None),
    (TRAIN + "--zzzz 4", "Unrecognized options: --zzzz, 4. See bvae train --help.", None),
    (TRAIN + "4", "Unrecognized options: 4", None),
    (TRAIN + "--beta", "--beta: wanted a value after it. See", None),
    (TRAIN + "--beta four", "bvae: --beta: got 'four', wanted a number. See", None),
    (TRAIN + "--beta -4", "--beta: got -4.0, wanted a number of at least 0", None),
    (TRAIN + "--beta nan", "--beta: got nan, wanted a finite number", None),
    (TRAIN + "--beta inf", "--beta: got inf, wanted a finite number", None),
    (TRAIN + "--latents 0", "--latents: got 0, wanted a whole number from 1", None),
    (TRAIN + "--latents 10000000000000000000", "--latents: got 10000000000000000000", None),
    (TRAIN + "--beta 1e300", "--beta: got 1e+300, wanted a number up to 1e+30", None),
    (TRAIN + "--latents 2.5", "--latents: got '2.5', wanted a whole number. See", None),
    (TRAIN + "--latents 1000000 --network mlp --batch-size 99999999", "Not enough memory", None),
    (TRAIN + "--batch-size 10000000", "Not enough memory", None),
    (TRAIN + "--batch-size 0", "--batch-size: got 0", None),
    (TRAIN + "--learning-rate 0", "--learning-rate: got 0.0", None),
    (TRAIN + "--learning-rate -1", "--learning-rate: got -1.0", None),
    (TRAIN + "--steps 0", "--steps: got 0", None),
    (TRAIN + "--steps 3000000000", "--steps: got 3000000000", None),
    (TRAIN + "--seed -1", "--seed: got -1", None),
    (TRAIN + "--holdout 1", "--holdout: got 1.0, wanted a fraction", None),
    (TRAIN + "--holdout 1e-9", "--holdout 1e-09 puts 0 of 718848 images aside", None),
    (TRAIN + "--sigma 0", "--sigma: got 0.0", None),
    (TRAIN + "--log-every 0", "--log-every: got 0", None),
    (TRAIN + "--checkpoint-every 0", "--checkpoint-every: got 0", None),
    (TRAIN + "--eval-every -5", "--eval-every: got -5", None),
    (TRAIN + "--eval-images 0", "--eval-images: got 0", None),
    (TRAIN + "--keep-checkpoints 0", "--keep-checkpoints: got 0", None),
    (TRAIN + "--image-source lazy", "--image-source: got 'lazy', wanted one of 'auto', ", None),
    (TRAIN + "--dataset celeba", "Unknown dataset 'celeba'. Known: cars3d", None),
    (TRAIN + "--network vgg", "Unknown network 'vgg'. Known: burgess, conv, conv128, ", None),
    (TRAIN + "--objective btcvae", "Unknown objective 'btcvae'. Known: ada_gvae, ", None),
    (TRAIN + "--likelihood poisson", "Unknown likelihood 'poisson'. Known: bernoulli", None),
    (TRAIN + "--resume", "No run in", None),
    (TRAIN + "--wandb p", "pip install 'bvae_jax[wandb]'", no_wandb),
    ("train --run-dir {run} --quiet", "holds a run already", None),
    ("train --run-dir {run} --resume --overwrite", "both --resume and --overwrite", None),
    ("train --run-dir {run} --resume --beta 8 --seed 1", "beta: 4.0 -> 8.0; seed: 0 -> 1", None),
    ("train --run-dir {run} --resume --steps 3 --quiet", "the run is at step 4 already", None),
    (
        "train --run-dir {tmp}/file/run --image-source rendered --quiet",
        "hoose another path",
        a_file,
    ),
    ("train --run-dir {tmp}/file --image-source rendered --quiet", "is a file: it is left", a_file),
    ("train --run-dir {tmp}/foreign --overwrite --quiet", "is no run directory", foreign),
    ("train --run-dir /proc/bvae --image-source rendered --quiet", "/proc", None),
    (
        "train --run-dir /sys/bvae --image-source rendered --quiet",
        "Choose a place that you may",
        None,
    ),
    (RESUME_BAD, "config.json is damaged", damaged_config("{")),
    (RESUME_BAD, "wanted an object", damaged_config("[1]")),
    (RESUME_BAD, "its config has ['gama'], which is not known here", damaged_config('{"gama": 1}')),
    (RESUME_BAD, "--beta: got 'x', wanted a number", damaged_config('{"beta": "x"}')),
    (RESUME_BAD, "No checkpoint in", damaged_checkpoints),
    (RESUME_BAD, "config.json was edited", edited_config),
    ("traverse {tmp}/bad", "latents: 2 -> 5", edited_config),
    ("traverse", "PATH", None),
    ("traverse {tmp}/none", "No run in", None),
    ("traverse {tmp}/file", "is a file, wanted the directory of a run", a_file),
    ("traverse {tmp}/bad", "has no checkpoint yet", no_checkpoints),
    ("explore", "PATH", None),
    ("explore {tmp}/none", "No run in", None),
    ("explore {tmp}/bad", "has no checkpoint yet", no_checkpoints),
    ("explore {run} --seed 1", "is a run: wanted a sweep", None),
    ("explore {run} -o {tmp}", "is a directory, wanted the name of a file", None),
    ("explore {run} -o {run}/config.json/a", "config.json is no directory that can be", None),
    ("traverse {run} --range 0", "--range: got 0.0", None),
    ("traverse {run} --range wide", "'wide'", None),
    ("traverse {run} --columns 1", "--columns: got 1, wanted a whole number from 2", None),
    ("traverse {run} --columns 30000", "--columns: got 30000", None),
    ("traverse {run} --images 737280", "--images: got 737280, wanted an index from 0", None),
    ("traverse {run} --images -1", "--images: got -1, wanted an index from 0", None),
    (
        "traverse {run} --images here",
        "--images: got 'here', wanted an index from 0 to",
        None,
    ),
    ("traverse {run} --images x.png", "--images: x.png cannot be read (No such file", None),
    ("traverse {run} --images {tmp}/file.png", "cannot be read (not PNG, JPEG or WebP)", a_picture),
    ("traverse {run} --latents 1,x", "--latents: got '1,x', wanted numbers from 0", None),
    ("traverse {run} --latents 1 --all-latents", "Got both --latents and --all-latents", None),
    ("traverse {run} --step 3", "No checkpoint of step 3", None),
    ("traverse {run} --out {tmp}/file/x", "hoose another path", a_file),
    (TRAIN + "--gamma 3", "--gamma: objective beta_vae has no such hyperparameter", None),
    (TRAIN + "--objective vae --beta 3", "--beta: objective vae has no such hyper", None),
    (TRAIN + "--objective vae --beta-schedule linear:steps=5", "vae has no --beta to sch", None),
    (TRAIN + "--beta-schedule linear", "--beta-schedule: got linear without steps", None),
    (TRAIN + "--learning-rate-schedule fast", "--learning-rate-schedule: got 'fast'", None),
    (TRAIN + "--levels 4", "--levels: got 4, but --objective beta_vae does not use it", None),
    (TRAIN + "--optimizer lion", "Unknown optimizer 'lion'. Known: adagrad, adam, adamw, s", None),
    (TRAIN + "--bound tight", "'tight'", None),
    (TRAIN + "--objective factor_vae --bound iwae", "--bound iwae: objective factor_vae", None),
    (TRAIN + "--objective factor_vae --batch-size 5", "--batch-size: got 5, wanted an ev", None),
    (TRAIN + "--objective ada_gvae --eval-images 1", "--eval-images: got 1, wanted at", None),
    (TRAIN + "--objective ada_gvae --pair-changes 5", "--pair-changes: got 5, wanted 0", None),
    (TRAIN + "--sigma 0.5", "--sigma: got 0.5, but --likelihood bernoulli does not use it", None),
    (TRAIN + "--momentum 0.9", "--momentum: got 0.9, but --optimizer adam does not use", None),
    (TRAIN + "--pair-changes 2", "--pair-changes: got 2, but --objective beta_vae does", None),
    ("evaluate {run} --metrics none --decomposition 0", "--metrics none: wanted at least", None),
    (TRAIN + "--samples 0", "--samples: got 0, wanted a whole number from 1", None),
    (TRAIN + "--objective ae --samples 2", "--samples: got 2, wanted 1: ae draws no z", None),
    (TRAIN + "--ema 1", "--ema: got 1.0, wanted a fraction", None),
    (TRAIN + "--clip-norm -1", "--clip-norm: got -1.0", None),
    (TRAIN + "--precision float16", "'float16'", None),
    (
        "sweep --sweep-dir x --preset kumar2018-i --grid objective=beta_vae,dip_vae_i",
        "is for its own objective",
        None,
    ),
    (TRAIN + "--preset higgins", "Unknown preset 'higgins'. Known: burgess2018, chen2018", None),
    ("train --run-dir {run} --resume --preset burgess2018", "objective: beta_vae -> ann", None),
    (TRAIN + "--eval-metrics migs", "Unknown metric 'migs'. Known: active_units, all", None),
    ("evaluate", "PATH", None),
    ("evaluate {tmp}/none", "No run in", None),
    ("evaluate {tmp}/bad", "has no checkpoint yet", no_checkpoints),
    ("evaluate {run} --metrics migs", "Unknown metric 'migs'. Known: active_units, all", None),
    ("evaluate {run} --metrics ,", "--metrics: got ',', wanted all, fast, or names", None),
    ("evaluate {run} --metrics udr", "give the others by --udr-with", None),
    ("evaluate {run} --udr-with {tmp}/none", "No run in", None),
    ("evaluate {run} --num-points 2", "--num-points: got 2, wanted a whole number from 3", None),
    ("evaluate {run} --num-points many", "'many'", None),
    ("evaluate {run} --repeats 0", "--repeats: got 0, wanted a whole number from 1", None),
    ("evaluate {run} --train-points 1", "--train-points: got 1, wanted a whole number", None),
    ("evaluate {run} --test-points 0", "--test-points: got 0", None),
    ("evaluate {run} --permutations -1", "--permutations: got -1", None),
    ("evaluate {run} --seed -1", "--seed: got -1", None),
    ("evaluate {run} --step 3", "No checkpoint of step 3", None),
    ("evaluate {run} --decomposition 1", "--decomposition: got 1, wanted 0 (none), or 3", None),
    ("evaluate {run} --log-likelihood -1", "--log-likelihood: got -1", None),
    ("evaluate {run} --log-likelihood-images 1", "--log-likelihood-images: got 1", None),
    ("list --all", "Unrecognized options", None),
    ("list optimizers", "optimizers", None),
    ("beta --value 4 --from disentanglement", "Unknown convention 'disentanglement'", None),
    ("evaluate {run} --json {tmp}", "is a directory, wanted the name of a file", None),
    ("evaluate {run} --json {tmp}/file/x", "hoose another path", a_file),
    (TRAIN + "--eval-metrics udr", "--eval-metrics udr: it compares runs", None),
    ("evaluate {tmp}/none.npz", "none.npz", None),
    ("evaluate {tmp}/good.npz --step 3", "--step: got a file, ", matched),
    ("evaluate {run} --out x", "--out: a run's figures are in its own directory", None),
    (TRAIN + "--hyper beta", "--hyper: got 'beta', wanted NAME=VALUE", None),
    (TRAIN + "--hyper bta=3", "Unknown hyperparameter 'bta'. Known: ", None),
    (TRAIN + "--hyper beta=x", "--beta: got 'x', wanted a number", None),
    (TRAIN + "--config {tmp}/none.json", "--config: there is no file", None),
    (TRAIN + "--config {run}/config.json --preset chen2018", "--config with --preset", None),
    (TRAIN + "--config {run}/summary.json", "Unknown config fields ['step'", None),
    ("--print-completion fish", "wanted one of bash, zsh", None),
    ("--plugin {tmp}/none.py list", "wanted a Python file", None),
    ("evaluate {tmp}/file", "file", a_file),
    ("evaluate {tmp}/good.npz --metrics migs", "Unknown metric 'migs'", matched),
    ("evaluate {tmp}/bad.npz", "factors [n, factor] has n = 4, but codes has n = 3", mismatched),
]


FRAMED = """╭─ Unrecognized options ────────╮
│ Unrecognized options: --stepz │
│ ───────────────────────────── │
│ Perhaps you meant:            │
│     --steps INT               │
│         Updates to do.        │
│ ───────────────────────────── │
│ For full helptext, see --help │
╰───────────────────────────────╯
"""
IN_ASCII = """ Unrecognized options
 -------------------------------
  Unrecognized options: --stepz
  -----------------------------
  Perhaps you meant:
      --steps INT
          Updates to do.
  -----------------------------
  For full helptext, see --help
 -------------------------------
"""


@pytest.mark.parametrize("message", [FRAMED, IN_ASCII])
def test_the_frame_of_a_message_is_taken_off(message):
    assert flags.summary(message) == "Unrecognized options: --stepz. Did you mean --steps?"


@pytest.mark.once
@pytest.mark.parametrize(("arguments", "wanted", "prepare"), MISTAKES)
def test_a_mistake_is_one_clear_line_and_exit_code_2(
    arguments, wanted, prepare, run_dir, tmp_path, capsys
):
    if prepare:
        prepare(tmp_path, run_dir)
    before = fingerprints(run_dir)
    code = cli.main(arguments.format(tmp=tmp_path, run=run_dir).split())
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if "is damaged (" not in line]
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("bvae: ")
    assert wanted in lines[0]
    assert fingerprints(run_dir) == before
    assert not (tmp_path / "new").exists()


def fingerprints(directory):
    return {
        path: path.stat().st_mtime_ns
        for path in directory.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: 9 GB")])
def test_running_out_of_memory_is_one_line(monkeypatch, capsys, error):
    def fail(argv):
        raise error

    monkeypatch.setitem(cli.COMMANDS, "train", (fail, None))
    assert cli.main(["train"]) == 2
    assert capsys.readouterr().err.startswith("bvae: Out of memory. Lower --batch-size")


def test_ctrl_c_ends_the_process_at_once(monkeypatch, capsys):
    """Python would take itself down under JAX's threads, which may then crash."""

    def interrupted(argv):
        os.kill(os.getpid(), signal.SIGINT)

    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(sys, "argv", ["bvae", "sample"])
    monkeypatch.setitem(cli.COMMANDS, "sample", (interrupted, None))
    with pytest.raises(SystemExit):
        cli.run_main()
    assert ended == [130]
    assert capsys.readouterr().err == "Interrupted.\n"


def test_other_errors_are_not_hidden(monkeypatch):
    def fail(argv):
        raise RuntimeError("a bug")

    monkeypatch.setitem(cli.COMMANDS, "train", (fail, None))
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["train"])


@pytest.mark.once
def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, capsys):
    """Files may not grow beyond a size that the metrics stay below and a checkpoint does not."""
    directory = tmp_path / "run"
    begun = ["train", "--run-dir", str(directory)]
    assert cli.main([*begun, *QUICK, "--network", "tiny"]) == 0
    kept = {path.name for path in (directory / "checkpoints").iterdir()}
    further = [*begun, "--resume", "--steps", "8", "--quiet", "--no-figures"]
    capsys.readouterr()
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, most))
    try:
        code = cli.main(further)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    said = capsys.readouterr().err
    assert code == 2, said
    assert re.fullmatch(
        r"bvae: Cannot write .* to .*: File too large\. .* go on with --resume\.\n", said
    )
    names = {path.name for path in (directory / "checkpoints").iterdir() if path.name.isdigit()}
    assert names == kept
    assert cli.main(further) == 0


def test_numbers_of_the_split_are_stated(run_dir):
    config = json.loads((run_dir / "config.json").read_text())
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["eval_images"] == 8
    assert np.isclose(summary["beta_norm"], config["beta"] * 2 / 4096)


@pytest.mark.parametrize(
    ("command", "function"),
    [
        ("train --run-dir {tmp}/new", "runs.train.train"),
        ("sweep --sweep-dir {tmp}/new", "runs.sweep.sweep"),
        ("evaluate {tmp}", "runs.run.load"),
        ("compare {tmp}", "comparison.compare.compare"),
        ("suggest {tmp}", "comparison.suggest.suggest"),
    ],
)
def test_ctrl_c_before_the_work_is_done_is_no_success(
    tmp_path, monkeypatch, capsys, command, function
):
    @functools.wraps(pkgutil.resolve_name(f"bvae_jax.{function}"))  # flags are its parameters
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"bvae_jax.{function}", interrupted)
    assert cli.main(command.format(tmp=tmp_path).split()) == 130
    assert capsys.readouterr().out.startswith("Interrupted")


def test_ctrl_c_before_the_first_step_is_no_success(tmp_path, monkeypatch, capsys):
    """There is no checkpoint then, although the directory is there."""
    original = Writer.begin

    def begin(self, *args, **remarks):
        os.kill(os.getpid(), signal.SIGINT)
        original(self, *args, **remarks)

    monkeypatch.setattr(Writer, "begin", begin)
    command = f"train --run-dir {tmp_path}/new {shlex.join(QUICK)}"
    assert cli.main(command.split()) == 130
    assert f"--run-dir {tmp_path}/new --resume" in capsys.readouterr().out


def test_evaluate_and_score(run_dir, tmp_path, capsys):
    """The same numbers from a run and from a file of its codes."""
    directory = tmp_path / "run"
    shutil.copytree(run_dir, directory)
    out = tmp_path / "out" / "run.json"
    flags = ["--metrics", "mig,irs", "--train-points", "200", "--test-points", "100"]
    flags += ["--repeats", "2", "--quiet"]
    arguments = ["evaluate", str(directory), *flags, "--num-points", "300", "--json", str(out)]
    assert cli.main([*arguments, "--baselines", "--no-figures"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split()[:3] == ["mean", "95", "%"]
    assert [line.split()[0] for line in printed[1:3]] == ["mig", "irs"]
    assert "true_factors" in printed[0]
    scores = json.loads(out.read_text())
    assert scores == read_json(directory / "evaluation.json")

    from bvae_jax.runs.encode import encoding_order
    from bvae_jax.runs.trainer import Trainer

    program = Trainer(Config(image_source="rendered"))
    codes = np.load(directory / "encoded.npz")["means"]
    factors = np.asarray(program.dataset.factors(jnp.asarray(encoding_order(program)[:300])))
    np.savez(tmp_path / "codes.npz", codes=codes, factors=factors)
    assert cli.main(["evaluate", str(tmp_path / "codes.npz"), *flags, "--json", str(out)]) == 0
    again = json.loads(out.read_text())
    assert list(again) == ["mig", "irs"]
    for name in again:
        assert again[name]["repeats"] == scores[name]["repeats"]
        assert again[name]["score"] == scores[name]["score"]


def test_the_command_to_go_on_has_what_a_run_does_not_keep():
    given = {
        "figures": False,
        "wandb": "my project",
        "tensorboard": True,
        "steps": 3,
        "shard": None,
    }
    again = flags.command(["bvae", "train"], given, "figures", "tensorboard", "wandb", "shard")
    assert again == "bvae train --no-figures --tensorboard --wandb 'my project'"
