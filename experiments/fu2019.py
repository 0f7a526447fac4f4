"""Constant, linear and cyclical beta: error, KL and active latents over time.

Fu et al., Cyclical Annealing Schedule, 2019, whose models are of text; here the pictures and the
network of the study of 2019.

python experiments/fu2019.py [--scale small|full] [--shard 1/4]
"""

import common
import numpy as np
from common import COLOURS, LONG, QUICK, Scale

PANELS = {"nll": "−log p(x|z)\n(nats)", "kl": "KL\n(nats)", "active_latents": "active\nlatents"}
COLUMNS = {"nll": "−log p(x\\|z)", "kl": "KL", "mutual_information": "MI"}
FEW = QUICK | {"steps": 1200, "eval_every": 100, "eval_images": 512}
SCALES = {  # values: beta
    "small": Scale(FEW, 2, (4.0,), 12_000, "mig"),
    "full": Scale(LONG | {"eval_every": 5000}, 10, (4.0,), metrics="mig"),
}


def curves(found, schedule):
    """Steps of evaluations, and number -> its mean over seeds at each."""
    rows = found.members[found.members["beta_schedule"] == schedule]
    runs = [[r for r in found.records[name] if r["split"] == "train_eval"] for name in rows.index]
    means = {number: np.mean([[r[number] for r in run] for run in runs], 0) for number in PANELS}
    return [record["step"] for record in runs[0]], means


def main(argv=None):
    args = common.arguments(__doc__, "fu2019", SCALES, argv)
    config = common.settings("locatello2019", args.scale.changes, "beta_vae")
    schedules = {  # linear: as the first of four cycles
        "constant": "constant",
        "linear": f"linear:steps={config.steps // 8}",
        "cyclical": f"cyclical-linear:steps={config.steps}",
    }
    values = tuple(schedules.values())
    common.trained(args.dir, config, args, beta=args.scale.values, beta_schedule=values)
    found = common.scored(args.dir, scale=args.scale, decomposition=1000)
    common.print_table(found.members, COLUMNS | {"active_latents": "active latents", "mig": "MIG"})
    with common.drawing(args.figure, len(PANELS), height=3.6, sharex=True) as panels:
        for (name, schedule), colour in zip(schedules.items(), COLOURS, strict=False):
            steps, means = curves(found, schedule)
            for axes, number in zip(panels, PANELS, strict=True):
                axes.plot(steps, means[number], color=colour, label=name)
                axes.set_ylabel(PANELS[number])
        panels[0].set_yscale("log")
        panels[0].yaxis.set_major_formatter("{x:g}")
        panels[0].yaxis.set_minor_formatter("{x:g}")
        panels[0].legend(frameon=False, ncols=3)
        panels[-1].set_xlabel("training steps")


if __name__ == "__main__":
    main()
