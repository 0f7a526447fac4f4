"""Every objective on dSprites at its default strength, with the same network and steps.

python experiments/objectives.py [--steps 2000] [--runs runs/objectives] [--out FILE.png]

Prints a table and draws it. Called again, it goes on where it was interrupted. The schedule of C,
which takes 100,000 steps in the paper, is shortened to the steps of the study.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt

from bvae_jax import Config, evaluate_elbo, train
from bvae_jax.objectives import OBJECTIVES
from bvae_jax.plots.style import COLUMN_INCHES, STYLE

POINTS = 50_000
COLUMNS = {
    "nll": "−log p(x|z)\n(nats per image)",
    "kl": "KL\n(nats per image)",
    "total_correlation": "total correlation\n(nats)",
    "active_latents": "active latents\n(variance > 0.01)",
}


TERMS = ("mutual_information", "total_correlation", "dimension_wise_kl")


def study(name, steps, runs):
    """The numbers of one objective, by name."""
    directory = Path(runs) / name
    schedule = OBJECTIVES[name].schedules.get("capacity") and f"linear:steps={steps}"
    config = Config(objective=name, steps=steps, capacity_schedule=schedule)
    resume = (directory / "config.json").exists()
    summary = train(config, directory, resume=resume).summary
    if summary is None:
        raise SystemExit(f"Interrupted in {name}; the same command goes on.")
    if not OBJECTIVES[name].noise:  # an autoencoder has no KL
        return {"nll": summary["nll"]}
    numbers = {n: summary[n] for n in ("nll", "kl", "active_latents")}
    found = evaluate_elbo(directory, num_points=POINTS)["decomposition"]
    return numbers | {n: found[n] for n in (*TERMS, "total_correlation_error")}


def draw(rows, path):
    """A row for each objective, a panel for each number."""
    with plt.rc_context(STYLE):
        size = (COLUMN_INCHES, 0.6 + 0.16 * len(rows))
        figure, panels = plt.subplots(1, len(COLUMNS), figsize=size, sharey=True)
        figure.subplots_adjust(left=0.24, right=0.98, bottom=0.2, top=0.98, wspace=0.25)
        for axes, (number, label) in zip(panels, COLUMNS.items(), strict=True):
            values = [row.get(number, 0) for row in rows.values()]
            axes.barh(list(rows), values, color="#0072B2", height=0.7)
            axes.set_xlabel(label, fontsize=5)
            axes.tick_params(axis="x", labelsize=5)
            axes.locator_params(axis="x", nbins=3)
            axes.margins(x=0.08)
        panels[0].invert_yaxis()
        figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--runs", default="runs/objectives")
    parser.add_argument("--out", default="docs/objectives.png")
    args = parser.parse_args()
    rows = {name: study(name, args.steps, args.runs) for name in OBJECTIVES}
    print("| objective | −log p(x\\|z) | KL | MI | TC | dimension-wise KL | active latents |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, row in rows.items():
        numbers = [f"{row[n]:.2f}" if n in row else "–" for n in ("nll", "kl", *TERMS)]
        numbers[3] += f" ± {row['total_correlation_error']:.2f}" if "kl" in row else ""
        print(f"| `{name}` |", " | ".join(numbers), f"| {row.get('active_latents', '–')} |")
    draw(rows, args.out)


if __name__ == "__main__":
    main()
