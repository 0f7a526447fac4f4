"""The large study on dSprites: six scores of beta-VAEs, or (annealed) of annealed VAEs with C = 5.

Locatello et al., Challenging Common Assumptions, 2019. Also leaves `bvae compare`'s report.

python experiments/locatello2019.py [--scale small|gpu|annealed|full] [--shard 1/4]
"""

import common
from common import COLOURS, GPU, LONG, QUICK, Scale

from bvae_jax import suggest
from bvae_jax.comparison.suggest import in_words

STRENGTHS = {"beta_vae": ("beta", "β"), "annealed_vae": ("capacity", "C (nats)")}
BETAS = (1.0, 2.0, 4.0, 6.0, 8.0, 16.0)
SCORES = {
    "beta_vae_score": "BetaVAE score", "factor_vae_score": "FactorVAE score", "mig": "MIG",
    "dci/disentanglement": "DCI", "modularity": "modularity", "sap": "SAP",
}  # fmt: skip
CHEAP = "beta_vae_score,factor_vae_score,mig,modularity,sap"
SCALES = {
    "small": Scale(QUICK | {"steps": 800}, 3, BETAS, 12_000, CHEAP),
    "gpu": Scale(GPU, 3, BETAS, metrics=CHEAP),
    "annealed": Scale(GPU | {"objective": "annealed_vae"}, 3, (5.0,), metrics=CHEAP),
    "full": Scale(LONG, 50, BETAS, metrics="all"),
}


def draw(path, members, strength, label):
    """A panel for each score: each run, and the mean over seeds."""
    names = [name for name in SCORES if name in members]
    with common.drawing(path, -(-len(names) // 3), 3, 2.6, sharex=True) as panels:
        for axes in panels.flat[len(names) :]:
            axes.set_axis_off()
        for axes, name in zip(panels.flat, names, strict=False):
            means = members.groupby(strength)[name].mean()
            dots = {"ms": 2, "mew": 0, "alpha": 0.5, "clip_on": False}
            axes.plot(members[strength], members[name], "o", color=COLOURS[0], **dots)
            axes.plot(means.index, means, color=COLOURS[0])
            axes.set_xscale("log", base=2)
            axes.set(title=SCORES[name], xlabel=label, xticks=means.index[::2], ylim=(0, None))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_tick_params(labelbottom=True)


def main(argv=None):
    args = common.arguments(__doc__, "locatello2019", SCALES, argv)
    objective = args.scale.changes.get("objective", "beta_vae")
    strength, label = STRENGTHS[objective]
    config = common.settings("locatello2019", args.scale.changes, objective)
    common.trained(args.dir, config, args, **{strength: args.scale.values})
    found = common.scored(args.dir, scale=args.scale, figures=True, decomposition=1000)
    shown = {name: title for name, title in SCORES.items() if name in found.members}
    common.print_table(found.members, {"nll": "−log p(x\\|z)", "kl": "KL"} | shown)
    print(in_words(suggest(args.dir)))
    draw(args.figure, found.members, strength, label)


if __name__ == "__main__":
    main()
