"""beta-VAE on 2D shapes: the BetaVAE score against beta, beside simpler representations.

Higgins et al., beta-VAE, 2017: fully connected network, Adagrad; table 1 and figure 6.

python experiments/higgins2017.py [--scale small|full] [--shard 1/4]
"""

from typing import Any

from common import COLOURS, LONG, Scale, arguments, drawing, print_table, scored, settings, trained

SCORE = "beta_vae_score"
BASELINES = {"pca": "PCA", "ica": "ICA", "raw pixels": "raw pixels", "untrained": "untrained"}
FEW = {"steps": 1000, "batch_size": 16, "eval_images": 2048}
SCALES = {
    "small": Scale(FEW, 2, (1.0, 4.0, 16.0), 6000, SCORE),
    "full": Scale(
        LONG,
        10,
        (0.5, 1.0, 2.0, 4.0, 8.0, 16.0),
        metrics=SCORE,
    ),
}


def draw(path, members, baselines):
    """Each run as a dot, a line through the means, and the baselines as levels."""
    means = members.groupby("beta")[SCORE].mean()
    with drawing(path) as axes:
        axes.plot(members["beta"], members[SCORE], "o", ms=2, mew=0, alpha=0.5, color=COLOURS[0])
        axes.plot(means.index, means, "o-", ms=4, color=COLOURS[0], label="β-VAE")
        for name, colour in zip(BASELINES, COLOURS[1:], strict=False):
            axes.axhline(baselines[name], ls="--", color=colour, label=BASELINES[name])
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set(xlabel="β", ylabel="BetaVAE score", xticks=means.index, ylim=(0, 1.02))
        axes.legend(frameon=False, ncols=2, fontsize=6)


def main(argv=None):
    args = arguments(__doc__, "higgins2017", SCALES, argv)
    config = settings("higgins2017-dsprites", args.scale.changes, "beta_vae")
    trained(args.dir, config, args, beta=args.scale.values)
    found = scored(args.dir, scale=args.scale, baselines=True)
    print_table(found.members, {"nll": "−log p(x\\|z)", "kl": "KL", SCORE: "BetaVAE score"})
    baselines: Any = found.baselines.groupby("baseline")[SCORE].mean()
    for name, title in BASELINES.items():
        print(f"| {title} | | | | {baselines[name]:.3f} |")
    draw(args.figure, found.members, baselines)


if __name__ == "__main__":
    main()
