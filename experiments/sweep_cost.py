"""What a member of a sweep costs: by strategy and step, and as a whole beside runs by themselves.

python experiments/sweep_cost.py [--steps 200] [--members 12] [--devices 2] [--together 4]

First, milliseconds for a step of one member, in turn: one run; as many members as there are
devices, one on each; some vmapped in one program. Then `bvae sweep` of all members, and `bvae
train` of one before it and one after it, each in a process of its own, evaluation included.
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


def step_costs(devices, together, rounds):
    """Milliseconds for a step of one member, by strategy."""
    import jax

    jax.config.update("jax_num_cpu_devices", devices)
    from bvae_jax import Config
    from bvae_jax.allocator import keep_freed_memory
    from bvae_jax.lanes import OneLane, Together
    from bvae_jax.program import build

    keep_freed_memory()
    program = build(Config(), progress=False)

    def states(count):
        configs = [Config(seed=seed, beta=1.0 + seed) for seed in range(count)]
        return [program.of(config).init() for config in configs]

    def at_once(count, where):
        return Together(program, count, where).start(states(count), range(count))

    lanes = {
        "sequential": (1, OneLane(program, states(1)[0])),
        f"devices ({devices})": (devices, at_once(devices, jax.devices())),
        f"vmap ({together})": (together, at_once(together, jax.devices()[:1])),
    }
    found = {name: [] for name in lanes}
    for _ in range(rounds + 1):
        for name, (count, lane) in lanes.items():
            begin = time.perf_counter()
            lane.advance(5)()
            found[name].append(1000 * (time.perf_counter() - begin) / 5 / count)
    return {name: statistics.median(values[1:]) for name, values in found.items()}


def seconds(*arguments):
    """Of a command, in a process of its own."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "bvae_jax.cli", *map(str, arguments)], check=True)
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
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--together", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    costs = step_costs(args.devices, args.together, args.rounds)
    print("| strategy (members at once) | ms for a step of one member | of sequential |")
    print("| --- | --- | --- |")
    for name, cost in costs.items():
        print(f"| {name} | {cost:.1f} | {cost / costs['sequential']:.2f} |")
    with tempfile.TemporaryDirectory() as folder:
        together, alone, ours, theirs = whole(Path(folder), args.steps, args.members)
    print(
        f"\nsweep of {args.members}, {args.steps} steps each: {together:.1f} s in all; one run by "
        f"itself: {alone:.1f} s, {args.members} of them: {args.members * alone:.1f} s "
        f"({together / args.members / alone:.2f} of a run's time for each member)"
    )
    print(
        f"while training: {ours:.0f} images/s for a member (median), {theirs:.0f} for a run: a "
        f"member's step costs {theirs / ours:.3f} of a run's"
    )


if __name__ == "__main__":
    main()
