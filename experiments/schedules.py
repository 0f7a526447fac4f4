"""Every kind of schedule, drawn at one column's width.

python experiments/schedules.py [docs/schedules.png]
"""

import sys

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

from bvae_jax.objectives.schedules import multiple, parse_schedule
from bvae_jax.plots.style import COLUMN_INCHES, STYLE

LAST = 100_000
EXAMPLES = (
    "constant",
    "delayed:delay=20000",
    "linear:steps=60000,delay=20000",
    "sigmoid:steps=60000,delay=20000",
    "cosine:steps=80000,start=1,end=0.1",
    "cyclical-linear:steps=80000",
    "cyclical-sigmoid:steps=80000,cycles=2",
    "cyclical-cosine:steps=80000,ratio=0.8",
    "piecewise:10000=0,20000=1,90000=0.2",
)


def main(path="docs/schedules.png"):
    steps = jnp.arange(0, LAST + 1, 50)
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            len(EXAMPLES), 1, figsize=(COLUMN_INCHES, 5.4), sharex=True, sharey=True,
            layout="constrained",
        )  # fmt: skip
        for axes, spec in zip(panels, EXAMPLES, strict=True):
            schedule = parse_schedule(spec, "--schedule")
            numbers = {name: jnp.float32(value) for name, value in schedule.numbers.items()}
            values = jax.vmap(lambda step: multiple(schedule, step, numbers))(steps)  # noqa: B023
            axes.plot(steps / 1000, values, color="#0072B2", clip_on=False)
            axes.set_title(spec, loc="left", pad=3, family="monospace", fontsize=6)
        panels[0].set(xlim=(0, LAST / 1000), ylim=(-0.12, 1.06), yticks=(0, 1))
        panels[-1].set_xlabel("step (thousands)")
        figure.supylabel("multiple of the target value", fontsize=7)
        figure.savefig(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
