"""Reconstruction and KL of a beta-VAE on dSprites, beside what another library publishes.

Dubois et al., "Disentangling VAE", https://github.com/YannDubs/disentangling-vae, 2019; means over
the last of 30 epochs. Weights start as theirs, by `burgess_he.py`.

python experiments/dubois2019.py [--scale small|gpu|full] [--shard 1/2]
"""

from pathlib import Path

import numpy as np
from common import COLOURS, Scale, arguments, drawing, settings, trained

from bvae_jax.registry import load_plugin
from bvae_jax.runs.loggers import read_records
from bvae_jax.runs.sweep import Sweep

EPOCH = 11_520
PUBLISHED = {1.0: (17.99, 25.40), 4.0: (35.61, 15.35)}
"""beta -> -log p(x|z) and KL, nats."""
FULL = {"log_every": EPOCH, "eval_every": 10 * EPOCH, "checkpoint_every": 10 * EPOCH}
SCALES = {
    "small": Scale({"steps": 1000, "batch_size": 16, "eval_images": 2048}, 2, (1.0, 4.0)),
    "gpu": Scale(FULL | {"precision": "bfloat16", "image_source": "rendered"}, 4, (1.0, 4.0)),
    "full": Scale(FULL | {"precision": "tensorfloat32"}, 4, (1.0, 4.0)),
}


def draw(path, found):
    """Each run as a dot, published ones as crosses."""
    with drawing(path) as axes:
        for (beta, values), colour in zip(found.items(), COLOURS, strict=False):
            nll, kl = np.transpose(values)
            axes.plot(kl, nll, "o", ms=3, mew=0, color=colour, label=f"β = {beta:g}")
            axes.plot(*PUBLISHED[beta][::-1], "x", ms=6, color=colour, label="published")
        axes.set(xlabel="KL (nats)", ylabel="−log p(x|z) (nats)")
        axes.legend(frameon=False, fontsize=6)


def main(argv=None):
    args = arguments(__doc__, "dubois2019", SCALES, argv)
    load_plugin(Path(__file__).with_name("burgess_he.py"))
    config = settings("dubois2019", {"network": "burgess_he"} | args.scale.changes, "beta_vae")
    runs, found = Sweep(trained(args.dir, config, args, beta=args.scale.values)), {}
    for run in (runs[name] for name in runs):
        records = read_records(run.run_dir / "metrics.jsonl")
        *_, last = (record for record in records if record["split"] == "train")
        found.setdefault(run.config.beta, []).append((last["nll"], last["kl"]))
    print("| | n | −log p(x\\|z) | published | KL | published |")
    print("| --- | --- | --- | --- | --- | --- |")
    for beta, values in found.items():
        mean, deviation = np.mean(values, axis=0), np.std(values, axis=0, ddof=len(values) > 1)
        ours = (f"{m:.2f} ± {d:.2f}" for m, d in zip(mean, deviation, strict=True))
        cells = (f"{o} | {p}" for o, p in zip(ours, PUBLISHED[beta], strict=True))
        print(f"| β = {beta:g} | {len(values)} | {' | '.join(cells)} |")
    draw(args.figure, found)


if __name__ == "__main__":
    main()
