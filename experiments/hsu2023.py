"""Quantised latents and weight decay against β-VAE: InfoM, InfoC, InfoE and MIG on dSprites.

Hsu et al., Disentanglement via Latent Quantization, 2023. Autoencoders with and without codebooks,
each with and without weight decay: the paper's method is both. Numbers in the figure are β, and
the weight decay.

python experiments/hsu2023.py [--scale small|full] [--shard 1/4]
"""

from common import LONG, QUICK, Rival, Scale, arguments, compared, drawing, print_table, trade_off

RIVALS = (
    Rival("beta_vae", "locatello2019", "beta"),
    Rival("ae", "hsu2023", "weight_decay"),
    Rival("qlae", "hsu2023", "weight_decay"),
)
METRICS = "infomec,mig"
COLUMNS = {
    "nll": "−log p(x\\|z)", "infomec/infom": "InfoM", "infomec/infoc": "InfoC",
    "infomec/infoe": "InfoE", "mig": "MIG",
}  # fmt: skip
DECAYS = (0.0, 0.1)
SCALES = {
    "small": Scale(QUICK | {"steps": 1000}, 2, ((1.0, 4.0), DECAYS, DECAYS), 12_000, METRICS),
    "full": Scale(LONG, 5, ((1.0, 4.0, 16.0), DECAYS, (0.0, 0.01, 0.1)), metrics=METRICS),
}


def main(argv=None):
    args = arguments(__doc__, "hsu2023", SCALES, argv)
    members = compared(args, RIVALS)
    print_table(members, COLUMNS)
    with drawing(args.figure, 1, 2) as panels:
        trade_off(panels[0], members, RIVALS, "infomec/infoe", "infomec/infom")
        panels[0].set(xlabel="InfoE", ylabel="InfoM")
        trade_off(panels[1], members, RIVALS, "nll", "mig")
        panels[1].set(xlabel="−log p(x|z) (nats)", ylabel="MIG")
        names = panels[0].get_legend_handles_labels()
        panels[0].figure.legend(*names, loc="outside upper center", ncols=3, frameon=False)
        for axes in panels:
            axes.get_legend().remove()


if __name__ == "__main__":
    main()
