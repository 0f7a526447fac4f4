"""Rate and distortion of a beta-VAE on dSprites, beside the numbers that another library publishes.

Dubois et al., "Disentangling VAE", https://github.com/YannDubs/disentangling-vae, 2019: their
`burgess` network, 30 epochs of batches of 64, Adam, beta ramped up over 10,000 steps, all images.

python experiments/dubois2019.py [--scale small|full] [--shard 1/2]
"""

from typing import Any

import numpy as np
from common import COLOURS, Scale, arguments, drawing, trained

from bvae_jax import Config
from bvae_jax.runs.loggers import read_records
from bvae_jax.runs.sweep import Sweep

EPOCH = 11_520
PUBLISHED = {1.0: (17.99, 25.40), 4.0: (35.61, 15.35)}
"""beta -> reconstruction and KL in nats, means of the last epoch."""
OFTEN = {"log_every": EPOCH, "eval_every": EPOCH, "checkpoint_every": 10 * EPOCH}
SCALES = {
    "small": Scale({"steps": 1000, "batch_size": 16, "eval_images": 2048}, 2, (1.0, 4.0)),
    "full": Scale({"steps": 30 * EPOCH, **OFTEN}, 4, (1.0, 4.0)),
}
RECIPE = {
    "dataset": "dsprites", "network": "burgess", "latents": 10, "batch_size": 64, "holdout": 0.0,
    "learning_rate": 5e-4, "beta_schedule": "linear:steps=10000", "precision": "tensorfloat32",
}  # fmt: skip


def last_epoch(run: Any) -> tuple[float, float]:
    """Mean nll and KL of the last training batches that were recorded together."""
    records = read_records(run.run_dir / "metrics.jsonl")
    last = [record for record in records if record["split"] == "train"][-1]
    return last["nll"], last["kl"]


def draw(path, found):
    with drawing(path) as axes:
        for (beta, published), colour in zip(PUBLISHED.items(), COLOURS, strict=False):
            nll, kl = np.transpose(found[beta])
            axes.plot(kl, nll, "o", ms=3, mew=0, color=colour, label=f"β = {beta:g}, ours")
            axes.plot(*published[::-1], "x", ms=6, color=colour, label=f"β = {beta:g}, published")
        axes.set(xlabel="KL (nats)", ylabel="−log p(x|z) (nats)")
        axes.legend(frameon=False, fontsize=6)


def main(argv=None):
    args = arguments(__doc__, "dubois2019", SCALES, argv)
    config = Config.from_dict(RECIPE | args.scale.changes)
    directory = trained(args.dir, config, args, beta=args.scale.values)
    runs, found = Sweep(directory), {}
    for name in runs:
        found.setdefault(runs[name].config.beta, []).append(last_epoch(runs[name]))
    print("| | n | −log p(x\\|z) | published | KL | published |")
    print("| --- | --- | --- | --- | --- | --- |")
    for beta, values in found.items():
        nll, kl = np.transpose(values)
        ours = [f"{x.mean():.2f} ± {x.std(ddof=1) if len(x) > 1 else 0:.2f}" for x in (nll, kl)]
        theirs = PUBLISHED[beta]
        print(f"| β = {beta:g} | {len(nll)} | {ours[0]} | {theirs[0]} | {ours[1]} | {theirs[1]} |")
    draw(args.figure, found)


if __name__ == "__main__":
    main()
