"""A run that is killed again and again ends as if it never was.

`python tests/test_kill.py 20` does the long version: twenty kills with SIGKILL.
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
    "--image-source rendered --batch-size 4 --latents 3 --steps 600 --log-every 10 --eval-every 100"
)
FLAGS += " --eval-images 16 --checkpoint-every 30 --keep-checkpoints 2 --quiet --no-figures"


def command(directory):
    resume = ["--resume"] if (directory / "config.json").exists() else []
    train = [sys.executable, "-m", "bvae_jax.cli", "train", "--run-dir", str(directory)]
    return [*train, *FLAGS.split(), *resume]


def fingerprint(directory):
    summary = json.loads((directory / "summary.json").read_text())
    return summary["params_sha256"], (directory / "metrics.jsonl").read_text()


def kill_and_resume(root, kills, seed=0):
    """Train once undisturbed and once with `kills` kills; both fingerprints, and the kills."""
    begin = time.monotonic()
    subprocess.run(command(root / "straight"), check=True, capture_output=True)
    seconds = time.monotonic() - begin
    moments = random.Random(seed)
    done = 0
    while done < kills:
        # At any moment: while importing, compiling, training, saving, evaluating, drawing.
        begin = time.monotonic()
        process = subprocess.Popen(
            command(root / "killed"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
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
    last = subprocess.run(command(root / "killed"), capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    return fingerprint(root / "straight"), fingerprint(root / "killed"), done


@pytest.mark.once
def test_killed_at_random_moments_and_resumed(tmp_path):
    straight, killed, kills = kill_and_resume(tmp_path, kills=3)
    assert kills == 3
    assert killed == straight
    records = [json.loads(line) for line in killed[1].splitlines()]
    steps = [record["step"] for record in records if record["split"] == "train"]
    assert steps == list(range(10, 601, 10))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        a, b, count = kill_and_resume(Path(folder), kills=int(sys.argv[1]), seed=1)
    same = "the same parameters and the same metrics.jsonl" if a == b else "DIFFERENT RESULTS"
    print(f"{count} kills: {same} (params_sha256 {a[0]} and {b[0]})")
    sys.exit(a != b)
