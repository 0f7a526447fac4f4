"""Factors that are numbers, scored as numbers and as 20 classes each: the same codes, side by side.

Bars of two widths at any place and any angle, which repeats after 180 degrees. Not of a paper.

python experiments/bars.py [--scale small|full] [--shard 1/4]
"""

import common
import numpy as np
from common import COLOURS, LONG, QUICK, Scale

NAMES, NUMBERS = ("width", "x", "y", "angle"), "x,y,angle=180"
FORMS = {"mcc": "MCC", "sap": "SAP", "dci/informativeness": "DCI, I", "infomec/infoe": "InfoE"}
METRICS, DEGREE = "mcc,sap,dci,infomec", np.pi / 180
SCALES = {
    "small": Scale(QUICK | {"steps": 2000}, 2, (1.0, 4.0), 6_000, METRICS),
    "full": Scale(LONG, 5, (1.0, 4.0, 16.0), 100_000, METRICS),
}


def bars(folder, count):
    """images.npz: images [count, 32, 32] with soft edges, their factors and what these are."""
    rng = np.random.default_rng(0)
    wide, turn = rng.integers(0, 2, count), rng.uniform(0, 180, count)
    x, y = rng.uniform(10, 22, (2, count))
    right, down = (a - 0.5 for a in np.meshgrid(range(1, 33), range(1, 33)))
    images = np.empty((count, 32, 32), np.uint8)
    for k, (cos, sin) in enumerate(np.stack([np.cos(turn * DEGREE), np.sin(turn * DEGREE)], 1)):
        along = np.abs((right - x[k]) * cos + (down - y[k]) * sin) - 8
        across = np.abs((down - y[k]) * cos - (right - x[k]) * sin) - (1.5, 3)[wide[k]]
        images[k] = 255 * np.clip(0.5 - np.maximum(along, across), 0, 1)
    arrays = {"images": images, "factors": np.stack([wide, x, y, turn], axis=1)}
    folder.mkdir(parents=True)
    np.savez(folder / "images.npz", **arrays, factor_names=NAMES, continuous=NUMBERS)


def main(argv=None):
    args = common.arguments(__doc__, "bars", SCALES, argv)
    if not (args.dir / "pictures").exists():
        bars(args.dir / "pictures", args.scale.points)
    data = {"dataset": f"npz:{args.dir / 'pictures' / 'images.npz'}"}
    config = common.settings("locatello2019", args.scale.changes | data, "beta_vae")
    sweep = common.trained(args.dir / "runs", config, args, beta=args.scale.values)
    both = [common.scored(sweep, scale=args.scale, continuous=c).members for c in ("none", NUMBERS)]
    members = both[0].join(both[1][list(FORMS)], rsuffix=" as numbers")
    columns = {f"{n}{how}": t + how for n, t in FORMS.items() for how in ("", " as numbers")}
    common.print_table(members, columns)
    with common.drawing(args.figure, 1, len(FORMS), sharey=True) as panels:
        for axes, (name, title) in zip(panels, FORMS.items(), strict=True):
            for (beta, rows), colour in zip(members.groupby("beta"), COLOURS, strict=False):
                pairs = rows[[name, f"{name} as numbers"]].to_numpy().T
                lines = axes.plot([0, 1], pairs, "o-", color=colour, ms=3, lw=0.8)
                lines[0].set_label(f"β = {beta:g}")
            axes.set(title=title, xlim=(-0.4, 1.4), ylim=(0, 1))
            axes.set_xticks([0, 1], ["bins", "values"])
        panels[0].legend(frameon=False)


if __name__ == "__main__":
    main()
