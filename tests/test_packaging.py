"""What is installed: with the hard dependencies alone, and from a wheel in a clean environment."""

import os
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SMALL = {"image_source": "rendered", "batch_size": 4, "latents": 3, "steps": 2, "eval_images": 16}

WITHOUT = """
import sys
for name in (
    "array_record", "grain", "h5py", "importlib_resources", "lightgbm", "platformdirs", "psutil",
    "statsmodels", "tensorboardX", "tensorflow_datasets", "tyro", "wandb",
):
    sys.modules[name] = None

import importlib, pkgutil
import bvae_jax as bvae
import tiny

for module in pkgutil.walk_packages(bvae.__path__, "bvae_jax."):
    if ".cli" not in module.name and "__main__" not in module.name:
        importlib.import_module(module.name)
config = bvae.Config(network="tiny", **SMALL)
bvae.train(config, "run", figures=False, progress=False)
some = {"num_points": 300, "figures": False, "progress": False}
points = {"train_points": 200, "test_points": 100}
bvae.evaluate("run", bvae.ScoreConfig(metrics="fast", **points), **some)

def message(action):
    try:
        action()
    except bvae.UserError as error:
        print(error)

print(bvae.evaluate("run", bvae.ScoreConfig(metrics="dci", **points), **some)["dci"]["skipped"])
streamed = bvae.Config(**{**SMALL, "image_source": "streamed"}, network="tiny")
message(lambda: bvae.train(streamed, "streamed", progress=False))
message(lambda: bvae.train(bvae.Config(dataset="tfds:mnist"), "tfds", progress=False))
"""
NEEDS = (
    ("needs lightgbm", "bvae_jax[metrics]"),
    ("image_source streamed needs grain", "bvae_jax[data]"),
    ("tfds:mnist needs tensorflow_datasets", "bvae_jax[data]"),
)


@pytest.mark.once
def test_hard_dependencies_are_enough(tmp_path):
    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run(
        [sys.executable, "-c", f"SMALL = {SMALL}\n{WITHOUT}"],
        cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for line, said in zip(done.stdout.splitlines()[-len(NEEDS) :], NEEDS, strict=True):
        assert all(part in line for part in said), line


def test_what_is_declared():
    assert len(PROJECT["dependencies"]) == 16
    versions = [name.rsplit(" ")[-1] for name in PROJECT["classifiers"] if ":: 3." in name]
    assert versions[0] == PROJECT["requires-python"].removeprefix(">=")
    assert (ROOT / "bvae_jax" / "py.typed").exists()


USE = """
import bvae_jax as bvae
run = bvae.load("runs/b4", progress=False)
print(run.summary["step"], bvae.__file__)
"""


@pytest.mark.once
def test_a_wheel_in_a_clean_environment(tmp_path):
    """Another directory, no index; the dependencies are those of this environment."""
    pytest.importorskip("hatchling")
    dist, rebuilt = tmp_path / "dist", tmp_path / "rebuilt"

    def call(*command, **environment):
        environment = {**os.environ, "PIP_NO_INDEX": "1", **environment}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(dist)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    call(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(rebuilt), str(sdist))
    held, again = (zipfile.ZipFile(path) for path in (wheel, *rebuilt.glob("*.whl")))
    assert {name: held.read(name) for name in held.namelist()} == {
        name: again.read(name) for name in again.namelist()
    }
    assert {name.split("/")[0].split("-")[0] for name in held.namelist()} == {"bvae_jax"}
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "bvae_jax").rglob("*.py")}
    assert files | {"bvae_jax/py.typed"} <= {*held.namelist()}
    with tarfile.open(sdist) as archive:
        tops = {name.split("/")[1] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "bvae_jax", "pyproject.toml", "tests"} <= tops
    assert not tops & {"notebooks", "experiments", "docs"}

    clean = tmp_path / "clean"
    venv.create(clean, with_pip=False)
    python = clean / "bin" / "python"
    call(*pip, "--python", str(python), "install", "--no-deps", "--no-compile", str(wheel))
    (site,) = clean.glob("lib/python*/site-packages")
    others = [path for path in sys.path if path.endswith("site-packages")]
    (site / "others.pth").write_text("\n".join(others))  # their own .pth files are not read
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    train = ["train", "--run-dir=runs/b4", "--network=small", *flags, "--no-figures", "--quiet"]
    call(clean / "bin" / "bvae", *train, PYTHONPATH="")
    step, where = call(python, "-c", USE, PYTHONPATH="").split()
    assert step == "2"
    assert Path(where).is_relative_to(site)


def test_the_stages_of_make_name_test_files():
    makefile = (ROOT / "Makefile").read_text()
    for line in makefile.splitlines():
        if line.startswith(("OF_JAX =", "OF_PACKAGES =")):
            assert all((ROOT / f"tests/test_{name}.py").exists() for name in line.split()[2:]), line
