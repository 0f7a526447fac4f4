"""FactorVAE against beta-VAE: FactorVAE score against reconstruction error.

Kim & Mnih, Disentangling by Factorising, 2018. Numbers in the figure are beta and gamma.

python experiments/kim2018.py [--scale small|full] [--shard 1/4]
"""

from common import LONG, QUICK, Rival, Scale, arguments, compared, drawing, print_table, trade_off

RIVALS = (
    Rival("beta_vae", "kim2018-dsprites", "beta"),
    Rival("factor_vae", "kim2018-dsprites", "gamma"),
)
METRICS = "factor_vae_score,mig"
FEW = QUICK | {"steps": 800, "aux_learning_rate": 5e-4}
SCALES = {
    "small": Scale(FEW, 2, ((1.0, 4.0, 16.0), (6.0, 35.0, 100.0)), 12_000, METRICS),
    "full": Scale(
        LONG,
        10,
        ((1.0, 4.0, 6.0, 8.0, 16.0), (10.0, 20.0, 30.0, 35.0, 40.0, 50.0, 100.0)),
        metrics=METRICS,
    ),
}


def main(argv=None):
    args = arguments(__doc__, "kim2018", SCALES, argv)
    members = compared(args, RIVALS)
    columns = {"nll": "−log p(x\\|z)", "kl": "KL", "mig": "MIG"}
    print_table(members, columns | {"factor_vae_score": "FactorVAE score"})
    with drawing(args.figure) as axes:
        trade_off(axes, members, RIVALS, "nll", "factor_vae_score")
        axes.set_xlabel("reconstruction error −log p(x|z) (nats per image)")
        axes.set_ylabel("FactorVAE score")


if __name__ == "__main__":
    main()
