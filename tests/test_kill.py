"""A run that is killed again and again ends as if it never was.

`python tests/test_kill.py 20` does the long version: twenty kills with SIGKILL of a run; with
`sequential` or `vmap` as a second argument, of a sweep.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import conftest
import pytest

from bvae_jax import runtime

FLAGS = (
    "--network tiny --image-source rendered --batch-size 4 --latents 3 --steps 80 --log-every 10"
)
FLAGS += " --eval-every 40 --eval-images 16 --checkpoint-every 10 --keep-checkpoints 2 --quiet"

BVAE = f"""
import sys
from bvae_jax import runtime
runtime.set_compile_cache_default()
sys.path.insert(0, {str(Path(__file__).parent)!r})
import tiny
from bvae_jax.cli import run_main
run_main()
"""


def command(kind, directory):
    if kind == "train":
        own = ["train", "--run-dir", str(directory), "--no-figures"]
        own += ["--resume"] if (directory / "config.json").exists() else []
    else:
        own = ["sweep", "--sweep-dir", str(directory), "--betas", "1", "6", "--strategy", kind]
    return [sys.executable, "-c", BVAE, *own, *FLAGS.split()]


def finished(kind, directory):
    """Train to the end; the seconds it took."""
    begin = time.monotonic()
    done = subprocess.run(command(kind, directory), capture_output=True, text=True, check=False)
    # It learns nothing in so few steps. Killed before its first checkpoint, it begins again.
    expected = re.compile(r"bvae: warning: .*|bvae: no checkpoint in .* from step 0 again\.")
    said = [line for line in done.stderr.splitlines() if not expected.fullmatch(line)]
    assert (done.returncode, said) == (0, [])
    return time.monotonic() - begin


def left(directory):
    """Of each run: the hash of its parameters, and its records."""
    return [
        (json.loads(path.read_text())["params_sha256"], path.with_name("metrics.jsonl").read_text())
        for path in sorted(directory.rglob("summary.json"))
    ]


def kill_and_resume(root, kills, kind, seed=0):
    """Train once undisturbed and once with `kills` kills; what both left."""
    seconds = finished(kind, root / "straight")
    compiled = programs()
    moments = random.Random(seed)
    while kills:
        # At any moment: while importing, compiling, training, saving, evaluating, drawing.
        process = subprocess.Popen(
            command(kind, root / "killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        begin = time.monotonic()
        try:
            assert process.wait(timeout=moments.uniform(0, seconds)) == 0
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills -= 1
        else:  # It got to its end first: from the beginning once more.
            seconds = time.monotonic() - begin
            shutil.rmtree(root / "killed")
    finished(kind, root / "killed")
    assert programs() == compiled, "a program was compiled again"
    return left(root / "straight"), left(root / "killed")


def programs():
    """Those that the user's cache has, but for JAX's own that copy an array from a checkpoint."""
    cache = Path(os.environ["BVAE_CACHE_DIR"])
    names = {path.name for path in cache.glob("compiled-*/*-cache")}
    return {name for name in names if not name.startswith("jit_stage-")}


@pytest.mark.once
def test_killed_at_random_moments_and_resumed(tmp_path, monkeypatch):
    """Members of a sweep in one program; what a process compiled, those after it only read."""
    for name in (runtime.CACHE_DIRECTORY, runtime.CACHE_LEAST_SECONDS):
        monkeypatch.delenv(name)
    monkeypatch.setenv("BVAE_CACHE_DIR", str(tmp_path / "cache"))
    straight, killed = kill_and_resume(tmp_path, 2, "vmap", seed=4)
    assert programs()
    assert len(straight) == 2
    assert killed == straight
    records = [json.loads(line) for line in killed[0][1].splitlines()]
    steps = [record["step"] for record in records if record["split"] == "train"]
    assert steps == list(range(10, 81, 10))


if __name__ == "__main__":
    assert conftest.CACHE  # which sets the caches that the processes share
    with tempfile.TemporaryDirectory() as folder:
        kind = sys.argv[2] if len(sys.argv) > 2 else "train"
        a, b = kill_and_resume(Path(folder), int(sys.argv[1]), kind, seed=1)
    for (ours, _), (theirs, _) in zip(a, b, strict=True):
        print(f"{ours} {'==' if ours == theirs else '!='} {theirs}")
    print("the same parameters and the same metrics.jsonl" if a == b else "DIFFERENT RESULTS")
    sys.exit(a != b)
