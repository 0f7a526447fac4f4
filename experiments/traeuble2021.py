"""A correlated pair of factors in training: how far latents mix it, and what that costs.

Traeuble et al., On Disentangled Representations Learned from Correlated Data, 2021; by beta-TCVAEs.

python experiments/traeuble2021.py [--scale small|full] [--shard 1/4]
"""

import common
from common import COLOURS, LONG, Scale

from bvae_jax.presets import PRESETS

SMALL = PRESETS["laptop"].settings | {"only": "orientation=0,y=8:24", "holdout": 0.1}
SMALL |= {"steps": 1000, "eval_every": 1000, "image_source": "rendered"}
PAIR = "x,y=0.2"
COLUMNS = {
    "nll_correlated": "−log p(x\\|z), correlated draws", "nll_all": "all images", "nll_gap": "gap",
    "mig_correlated": "MIG, correlated draws", "mig": "all images",
    "entanglement": "entanglement of the pair", "entanglement_others": "of other pairs",
}  # fmt: skip
SCALES = {
    "small": Scale(SMALL, 2, (5.0, 15.0), 9000, "mig"),
    "full": Scale(LONG, 5, (1.0, 4.0, 8.0), metrics="mig,dci"),
}


def draw(path, members):
    """Left: circles of the pair, dashes of others. Right: correlated draws and all images."""
    betas = sorted(set(members["beta"]))
    looks = {"": (-0.15, "0.5", "uncorrelated"), PAIR: (0.15, COLOURS[0], PAIR)}
    with common.drawing(path, 1, 2) as (left, right):
        for trained, (shift, colour, label) in looks.items():
            rows = members[members["correlate"] == trained]
            x = rows["beta"].map(betas.index) + shift
            left.plot(x, rows["entanglement"], "o", color=colour, ms=3, label=label)
            left.plot(x, rows["entanglement_others"], "_", color=colour, ms=8)
        left.plot([], [], "_", color="0.3", ms=8, label="other pairs, median")
        left.set_xticks(range(len(betas)), [f"β = {beta:g}" for beta in betas])
        left.set(ylabel="entanglement of x and y", xlim=(-0.5, len(betas) - 0.5), ylim=0)
        left.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=6)
        for beta, colour in zip(betas, COLOURS[1:], strict=False):
            rows = members[(members["correlate"] == PAIR) & (members["beta"] == beta)]
            both, label = rows[["nll_correlated", "nll_all"]].to_numpy().T, f"β = {beta:g}"
            right.plot([0, 1], both, "o-", color=colour, ms=3, lw=0.8)[0].set_label(label)
        right.set(xlim=(-0.4, 1.4), ylabel="−log p(x|z) (nats per image)", xticks=[0, 1])
        right.set_xticklabels(["correlated", "all images"])
        right.legend(loc="lower right", frameon=False, fontsize=6)


def main(argv=None):
    args = common.arguments(__doc__, "traeuble2021", SCALES, argv)
    config = common.settings("locatello2019", args.scale.changes, "beta_tcvae")
    common.trained(args.dir, config, args, correlate=("", PAIR), beta=args.scale.values)
    found = common.scored(args.dir, scale=args.scale)
    common.print_table(found.members, COLUMNS)
    draw(args.figure, found.members)


if __name__ == "__main__":
    main()
