"""A run that is killed again and again ends as if it never was.

`python tests/test_kill.py 20` does the long version: twenty kills with SIGKILL; with `sweep` or
`together` as a second argument, of a sweep.
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import conftest  # noqa: F401  sets the caches that the processes below share
import pytest

FLAGS = (
    "--image-source rendered --batch-size 4 --latents 3 --steps 120 --log-every 10 --eval-every 60"
)
FLAGS += " --eval-images 16 --checkpoint-every 20 --keep-checkpoints 2 --quiet --no-figures"


SWEEP_FLAGS = "--image-source rendered --batch-size 4 --latents 3 --steps 40 --log-every 10"
SWEEP_FLAGS += (
    " --eval-every 40 --eval-images 16 --checkpoint-every 10 --keep-checkpoints 2 --quiet"
)
SWEEP_FLAGS += " --betas 1 6 --seeds 1 --strategy"


def train(directory):
    resume = ["--resume"] if (directory / "config.json").exists() else []
    return ["train", "--run-dir", str(directory), *FLAGS.split(), *resume]


def sweep(directory, strategy="sequential"):
    return ["sweep", "--sweep-dir", str(directory), *SWEEP_FLAGS.split(), strategy]


def together(directory):
    """Members that are trained at the same time, in one program."""
    return sweep(directory, "vmap")


def command(make, directory):
    return [sys.executable, "-m", "bvae_jax", *make(directory)]


def fingerprint(directory):
    """Of a run, or of all runs of a sweep."""
    return [
        (
            json.loads(path.read_text())["params_sha256"],
            path.with_name("metrics.jsonl").read_text(),
        )
        for path in sorted(directory.rglob("summary.json"))
    ]


def kill_and_resume(root, kills, seed=0, make=train):
    """Train once undisturbed and once with `kills` kills; both fingerprints, and the kills."""
    begin = time.monotonic()
    subprocess.run(command(make, root / "straight"), check=True, capture_output=True)
    seconds = time.monotonic() - begin
    moments = random.Random(seed)
    done = 0
    while done < kills:
        # At any moment: while importing, compiling, training, saving, evaluating, drawing.
        begin = time.monotonic()
        process = subprocess.Popen(
            command(make, root / "killed"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            _, errors = process.communicate(timeout=moments.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            done += 1
        else:  # It got to its end first: from the beginning once more.
            assert process.returncode == 0, errors
            seconds = min(seconds, time.monotonic() - begin)
            shutil.rmtree(root / "killed")
    last = subprocess.run(
        command(make, root / "killed"), capture_output=True, text=True, check=False
    )
    assert last.returncode == 0, last.stderr
    return fingerprint(root / "straight"), fingerprint(root / "killed"), done


@pytest.mark.once
def test_killed_at_random_moments_and_resumed(tmp_path):
    straight, killed, kills = kill_and_resume(tmp_path, kills=2)
    assert kills == 2
    assert killed == straight
    records = [json.loads(line) for line in killed[0][1].splitlines()]
    steps = [record["step"] for record in records if record["split"] == "train"]
    assert steps == list(range(10, 121, 10))


@pytest.mark.once
def test_a_sweep_killed_at_a_random_moment_and_gone_on_with(tmp_path):
    straight, killed, _ = kill_and_resume(tmp_path, 1, make=together)
    assert len(straight) == 2
    assert killed == straight


if __name__ == "__main__":
    kinds = {"train": train, "sweep": sweep, "together": together}
    kind = kinds[sys.argv[2] if len(sys.argv) > 2 else "train"]
    with tempfile.TemporaryDirectory() as folder:
        a, b, count = kill_and_resume(Path(folder), kills=int(sys.argv[1]), seed=1, make=kind)
    same = "the same parameters and the same metrics.jsonl" if a == b else "DIFFERENT RESULTS"
    for (ours, _), (theirs, _) in zip(a, b, strict=True):
        print(f"{ours} {'==' if ours == theirs else '!='} {theirs}")
    print(f"{count} kills: {same} of {len(a)} runs")
    sys.exit(a != b)
