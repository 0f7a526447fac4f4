"""What a sweep costs as a whole, beside runs by themselves.

python experiments/sweep_cost.py [--steps 200] [--members 12]

`bvae sweep` of all members, and `bvae train` of one before it and one after it, each in a process
of its own, evaluation included. What a step costs by strategy: bvae benchmark --parts sweep.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FLAGS = ["--eval-every", "1000000", "--checkpoint-every", "1000000", "--quiet"]


def seconds(*arguments):
    """Of a command, in a process of its own."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "bvae_jax", *map(str, arguments)], check=True)
    return time.perf_counter() - begin


def whole(root, steps, members):
    """Seconds of a sweep and of single runs, and images per second while training."""
    flags = ["--steps", steps, "--log-every", max(1, steps // 4), *FLAGS]
    single = ["train", "--no-figures", *flags, "--run-dir"]
    before = seconds(*single, root / "before")
    sweep = ["sweep", "--strategy", "sequential", "--betas", *range(1, members + 1), *flags]
    together = seconds(*sweep, "--sweep-dir", root / "sweep")
    after = seconds(*single, root / "after")

    def rates(paths):
        return [json.loads(path.read_text())["images_per_second"] for path in paths]

    ours = rates((root / "sweep").rglob("summary.json"))
    alone = rates([root / name / "summary.json" for name in ("before", "after")])
    return together, (before + after) / 2, statistics.median(ours), statistics.mean(alone)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--members", type=int, default=12)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        together, alone, ours, theirs = whole(Path(folder), args.steps, args.members)
    print(
        f"sweep of {args.members}, {args.steps} steps each: {together:.1f} s in all; one run by "
        f"itself: {alone:.1f} s, {args.members} of them: {args.members * alone:.1f} s "
        f"({together / args.members / alone:.2f} of a run's time for each member)"
    )
    print(
        f"while training: {ours:.0f} images/s for a member (median), {theirs:.0f} for a run: a "
        f"member's step costs {theirs / ours:.3f} of a run's"
    )


if __name__ == "__main__":
    main()
