"""One training for every beta against a sweep of five: rate, distortion, MIG; step time, size.

Bae et al., Multi-Rate VAE, 2023; here the pictures of dSprites. Each member of the sweep has the
steps of the one run; those of a second sweep have them all together.

python experiments/multi_rate.py [--scale small|full] [--steps 100000] [--seeds 3]
"""

from typing import Any

import jax
import pandas as pd
from common import COLOURS, LONG, Scale, arguments, check_done, drawing, print_table, trained_part

from bvae_jax import Config

EASY = {"network": "small", "only": "orientation=0,y=8:24", "batch_size": 32, "eval_images": 2048}
BETAS = (1.0, 2.0, 4.0, 8.0, 16.0)
SCALES = {
    "small": Scale(EASY | {"learning_rate": 1e-3, "steps": 1500}, 3, BETAS, 9216),
    "full": Scale(LONG | {"network": "locatello", "steps": 100_000}, 3, BETAS),
}
COLUMNS = {"kl": "rate", "nll": "distortion", "loss": "D + βR", "mig": "MIG"}


def numbers(name, run, beta, points):
    """A row of the table."""
    run = (run.at(beta) if run.config.multi_rate else run).summarised()
    points = min(points, run.dataset.size)
    mig = run.evaluate("mig", num_points=points, figures=False, progress=False)["mig"]["score"]
    found = {name: run.summary[name] for name in ("kl", "nll")}
    found |= {"loss": found["nll"] + beta * found["kl"], "mig": mig}
    return {"setting": f"β = {beta:g}, {name}", "name": name, "beta": beta} | found


def cost(runs):
    """Milliseconds of a step at best, and the number of parameters."""
    fast = max(run.summary["images_per_second"] for run in runs)
    leaves = jax.tree.leaves(runs[0].state.params["vae"])
    return 1e3 * runs[0].config.batch_size / fast, sum(leaf.size for leaf in leaves)


def main(argv=None):
    args = arguments(__doc__, "multi_rate", SCALES, argv, steps="of a run", seeds="how many")
    scale, betas = args.scale, args.scale.values
    steps = int(args.steps or scale.changes["steps"])
    args.scale = scale._replace(seeds=int(args.seeds or scale.seeds))
    config = Config.from_dict(scale.changes | {"steps": steps})
    grids = {
        "one run for all": (config.replace(multi_rate=f"{betas[0]:g}:{betas[-1]:g}"), {}),
        "sweep": (config, {"beta": betas}),
        "sweep, same total": (config.replace(steps=steps // len(betas)), {"beta": betas}),
    }
    sweeps = {
        name: trained_part(args.dir / name.replace(", ", "-").replace(" ", "_"), of, args, **grid)
        for name, (of, grid) in grids.items()
    }
    check_done(args.shard, *sweeps.values())
    rows = [
        numbers(name, run, beta, scale.points)
        for beta in betas
        for name, runs in sweeps.items()
        for run in runs.values()
        if run.config.multi_rate or run.config.beta == beta
    ]
    members = pd.DataFrame(rows)
    print_table(members, COLUMNS)
    (many, more), (one, size) = (cost([*sweeps[n].values()]) for n in list(sweeps)[:2])
    print(f"{many:.2f} ms a step against {one:.2f}: {many / one:.2f}; gates {more / size - 1:.2%}")
    with drawing(args.figure) as axes:
        for (name, of), colour in zip(members.groupby("name", sort=False), COLOURS, strict=False):
            means: Any = of.groupby("beta")[["kl", "nll"]].mean()
            axes.plot(of["kl"], of["nll"], "o", ms=2, mew=0, alpha=0.5, color=colour)
            axes.plot(means["kl"], means["nll"], "o-", ms=4, color=colour, label=name)
        axes.set(xlabel="rate (nats per image)", ylabel="distortion (nats per image)")
        axes.legend(frameon=False, fontsize=6)


if __name__ == "__main__":
    main()
