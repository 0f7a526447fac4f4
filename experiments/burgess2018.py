"""Which factor enters when the capacity grows: KL of each latent, and what latents know, over time.

Burgess et al., Understanding disentangling in beta-VAE, 2018, section 5.

python experiments/burgess2018.py [--scale small|full]
"""

import numpy as np
from common import COLOURS, QUICK, Scale, arguments, drawing, settings, trained_run

from bvae_jax import ScoreConfig, evaluate
from bvae_jax.runs.loggers import read_records

MIG = ScoreConfig(metrics="mig", permutations=0)
FEW = QUICK | {"steps": 5000, "keep_checkpoints": 10}
FEW |= {"capacity_schedule": "linear:steps=5000", "gamma": 100.0}
SCALES = {
    "small": Scale(FEW, 1, (), 6000),
    "full": Scale({"checkpoint_every": 10_000, "keep_checkpoints": 10}, 1, (), 100_000),
}


def known(directory, step, points):
    """[latent, factor] the share of a factor's entropy that a latent knows, at that step."""
    mig = evaluate(directory, MIG, num_points=points, step=step, figures=False)["mig"]
    return np.array(mig["mutual_information"]) / np.array(mig["entropy"])


def draw(path, run_dir, shares, factors):
    """Above each latent's KL, in the colour of what it knows most of; below what is known."""
    train = [r for r in read_records(run_dir / "metrics.jsonl") if r["split"] == "train"]
    steps, kl = [r["step"] for r in train], np.array([r["kl_per_latent"] for r in train])
    with drawing(path, 2, height=3.4, sharex=True) as (above, below):
        for latent, share in enumerate(shares[steps[-1]]):
            colour = COLOURS[share.argmax()] if share.max() > 0.05 else "0.75"  # grey: of none
            above.plot(steps, kl[:, latent], color=colour)
        for factor, name in enumerate(factors):
            best = [share[:, factor].max() for share in shares.values()]
            below.plot(list(shares), best, "o-", ms=3, color=COLOURS[factor], label=name)
        above.set(ylabel="KL of each latent (nats)", ylim=(0, None))
        below.set(xlabel="training steps (C grows from 0 to 25 nats)", ylim=(0, None))
        below.set(ylabel="share of a factor that\nits best latent knows")
        below.legend(frameon=False, ncols=2)


def main(argv=None):
    args = arguments(__doc__, "burgess2018", SCALES, argv)
    config = settings("burgess2018", args.scale.changes, "annealed_vae")
    factors = trained_run(args.dir, config).trainer.dataset.factor_names
    steps = range(config.checkpoint_every, config.steps + 1, config.checkpoint_every)
    shares = {step: known(args.dir, step, args.scale.points) for step in steps}
    print(f"| step | {' | '.join(factors)} |\n|{' --- |' * (1 + len(factors))}")
    for step, share in shares.items():
        best = zip(share.max(axis=0), share.argmax(axis=0), strict=True)
        print(f"| {step:,} | {' | '.join(f'{part:.2f} (z{latent})' for part, latent in best)} |")
    draw(args.figure, args.dir, shares, factors)


if __name__ == "__main__":
    main()
