"""beta-VAE on 2D shapes: the BetaVAE score against beta, beside simpler representations.

Higgins et al., beta-VAE, 2017: fully connected network, Adagrad; table 1 and figure 6.

python experiments/higgins2017.py [--scale small|gpu|full] [--shard 1/4]
"""

from typing import Any

import common
from common import COLOURS, GPU, LONG, Scale

SCORE = "beta_vae_score"
SCORES = "mig,beta_vae_score,factor_vae_score"
BASELINES = {"pca": "PCA", "ica": "ICA", "raw pixels": "raw pixels", "untrained": "untrained"}
FEW = {"steps": 1000, "batch_size": 16, "eval_images": 2048}
EXACT = {"steps": 460_800, "holdout": 0.2, "precision": "tensorfloat32"}
"""A step's time is that of moving 14 million weights, which are float32 in every precision."""
SCALES = {
    "small": Scale(FEW, 2, (1.0, 4.0, 16.0), 6000, SCORE),
    "gpu": Scale(GPU | EXACT, 2, (1.0, 4.0), metrics=SCORES),
    "full": Scale(LONG, 10, (0.5, 1.0, 2.0, 4.0, 8.0, 16.0), metrics=SCORES),
}


def draw(path, members, baselines):
    """Each run as a dot, a line through the means, and the baselines as levels."""
    means = members.groupby("beta")[SCORE].mean()
    with common.drawing(path) as axes:
        axes.plot(members["beta"], members[SCORE], "o", ms=2, mew=0, alpha=0.5, color=COLOURS[0])
        axes.plot(means.index, means, "o-", ms=4, color=COLOURS[0], label="β-VAE")
        for name, colour in zip(BASELINES, COLOURS[1:], strict=False):
            axes.axhline(baselines[name], ls="--", color=colour, label=BASELINES[name])
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set(xlabel="β", ylabel="BetaVAE score", xticks=means.index, ylim=(0, 1.02))
        axes.legend(frameon=False, ncols=2, fontsize=6)


def main(argv=None):
    args = common.arguments(__doc__, "higgins2017", SCALES, argv)
    config = common.settings("higgins2017-dsprites", args.scale.changes, "beta_vae")
    common.trained(args.dir, config, args, beta=args.scale.values)
    found = common.scored(args.dir, scale=args.scale, baselines=True)
    columns = {"nll": "−log p(x\\|z)", "kl": "KL", SCORE: "BetaVAE score"}
    others = {"mig": "MIG", "factor_vae_score": "FactorVAE score"}
    common.print_table(
        found.members, columns | {n: t for n, t in others.items() if n in found.members}
    )
    baselines: Any = found.baselines.groupby("baseline")[SCORE].mean()
    for name, title in BASELINES.items():
        print(f"| {title} | | | | {baselines[name]:.3f} |")
    draw(args.figure, found.members, baselines)


if __name__ == "__main__":
    main()
