"""Combinations of factors that training never sees: reconstruction of them, beside training images.

Montero et al., The Role of Disentanglement in Generalisation, 2021: recombination to element,
recombination to range, extrapolation, for beta-VAEs on dSprites.

python experiments/montero2021.py [--scale small|full] [--shard 1/4]
"""

import common
from common import COLOURS, LONG, QUICK, Scale

BETAS = (1.0, 8.0, 12.0)
SPLITS = {
    "recombination_to_element": "recombination\nto element",
    "recombination_to_range": "recombination\nto range",
    "extrapolation": "extrapolation",
}
COLUMNS = {
    "nll_train": "−log p(x\\|z), training", "nll_excluded": "excluded", "nll_gap": "gap",
    "mse_train": "squared error, training", "mse_excluded": "excluded", "mse_gap": "gap",
    "mig": "MIG",
}  # fmt: skip
SCALES = {
    "small": Scale(QUICK | {"steps": 800}, 2, (1.0, 4.0), 12_000, "mig"),
    "full": Scale(LONG, 5, BETAS, metrics="mig,dci"),
}


def draw(path, members):
    """Each run: training images on the left, excluded combinations on the right."""
    betas = sorted(set(members["beta"]))
    with common.drawing(path, 1, len(SPLITS), sharey=True) as panels:
        for axes, (split, title) in zip(panels, SPLITS.items(), strict=True):
            for beta, colour in zip(betas, COLOURS, strict=False):
                rows = members[(members["exclude"] == split) & (members["beta"] == beta)]
                both = rows[["nll_train", "nll_excluded"]].to_numpy().T
                lines = axes.plot([0, 1], both, "o-", color=colour, ms=3, lw=0.8)
                lines[0].set_label(f"β = {beta:g}")
            axes.set(title=title, xlim=(-0.4, 1.4), yscale="log")
            axes.set_xticks([0, 1], ["training", "excluded"])
            axes.yaxis.set_major_formatter("{x:g}")
        panels[0].set_ylabel("−log p(x|z) (nats per image)")
        panels[0].legend(frameon=False)


def main(argv=None):
    args = common.arguments(__doc__, "montero2021", SCALES, argv)
    config = common.settings("locatello2019", args.scale.changes, "beta_vae")
    grid = {"exclude": tuple(SPLITS), "beta": args.scale.values}
    common.trained(args.dir, config, args, **grid)
    found = common.scored(args.dir, scale=args.scale)
    common.print_table(found.members, COLUMNS)
    draw(args.figure, found.members)


if __name__ == "__main__":
    main()
