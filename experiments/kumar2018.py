"""DIP-VAE I and II against beta-VAE: SAP against reconstruction error.

Kumar et al., Variational Inference of Disentangled Latent Concepts, 2018. Numbers in the figure are
beta and lambda_od. Network and optimizer are not the paper's, but those of the study of 2019.

python experiments/kumar2018.py [--scale small|full] [--shard 1/4]
"""

from common import LONG, QUICK, Rival, Scale, arguments, compared, drawing, print_table, trade_off

RIVALS = (
    Rival("beta_vae", "kumar2018-i", "beta"),
    Rival("dip_vae_i", "kumar2018-i", "lambda_od"),
    Rival("dip_vae_ii", "kumar2018-ii", "lambda_od"),
)
METRICS = "sap,sap_r2,mig"
STRENGTHS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
SCALES = {
    "small": Scale(
        QUICK | {"steps": 600},
        2,
        ((1.0, 4.0, 16.0), (1.0, 10.0, 50.0), (1.0, 10.0, 50.0)),
        12_000,
        METRICS,
    ),
    "full": Scale(
        LONG,
        10,
        ((1.0, 2.0, 4.0, 6.0, 8.0, 16.0), STRENGTHS, STRENGTHS),
        metrics=METRICS,
    ),
}


def main(argv=None):
    args = arguments(__doc__, "kumar2018", SCALES, argv)
    members = compared(args, RIVALS)
    columns = {"nll": "−log p(x\\|z)", "kl": "KL", "sap": "SAP", "sap_r2": "SAP (R²)", "mig": "MIG"}
    print_table(members, columns)
    with drawing(args.figure) as axes:
        trade_off(axes, members, RIVALS, "nll", "sap")
        axes.set_xlabel("reconstruction error −log p(x|z) (nats per image)")
        axes.set_ylabel("SAP")


if __name__ == "__main__":
    main()
