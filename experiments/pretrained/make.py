"""One run of each setting of a sweep, that nearest to the setting's mean: weights and a model card.

python experiments/pretrained/make.py SWEEP OUT [--matched beta=1 beta=16]

Nearest by MIG, where `bvae compare SWEEP` was called before and left it, which cards want, too;
else by the ELBO.

Needs `pip install '.[hub]'` for the cards. OUT gets a directory for each setting, with weights.npz
in float16, README.md and figures, and matched.png: the latents of the last run of --matched (all
if not given) that all of these have.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np

from bvae_jax.comparison.matching import cross_traversals, representatives
from bvae_jax.comparison.reading import read_comparison
from bvae_jax.errors import UserError
from bvae_jax.export.card import WEIGHTS_NPZ, model_card
from bvae_jax.plots.matrices import save_matched_traversals
from bvae_jax.runs.figures import draw_figures
from bvae_jax.runs.loggers import read_records
from bvae_jax.runs.run import load_shared
from bvae_jax.runs.trainer import Trainers

KEPT = ("traversal.png", "reconstructions.png")


def make(run, directory):
    """Weights, figures and the card of a run."""
    run.export(directory / WEIGHTS_NPZ, to="npz", dtype="float16", overwrite=True)
    figures = directory / "figures"
    records = read_records(run.run_dir / "metrics.jsonl")
    draw_figures(figures, run.trainer, run.params, records, run.summary["step"])
    for path in figures.iterdir():
        if path.name not in KEPT:
            path.unlink() if path.is_file() else shutil.rmtree(path)
    (directory / "README.md").write_text(model_card(run, directory, None, "MIT"))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--matched", nargs="+", help="settings, as beta=1 beta=16")
    args = parser.parse_args()
    trainers = Trainers()
    try:
        comparison = read_comparison([args.sweep], None, trainers, progress=False)
    except UserError as error:
        parser.error(str(error))
    chosen = {}
    for member in representatives(comparison).values():
        run = load_shared(comparison.run_dirs[member], trainers)
        chosen[run.run_dir.name.partition(",seed")[0]] = run
    names = args.matched or list(chosen)
    if strange := [name for name in names if name not in chosen]:
        parser.error(f"--matched: got {strange[0]}, wanted some of {', '.join(chosen)}.")
    for name, run in chosen.items():
        make(run, args.out / name)
        print(args.out / name, run.run_dir.name)
    runs = [chosen[name] for name in names]
    kl = [np.array(run.summary["kl_per_latent"]) for run in runs]
    crossed = cross_traversals(runs, kl, reference=len(runs) - 1)
    there = ~crossed.weak.any(axis=1) & ~np.isnan(crossed.images).any(axis=(1, 2, 3, 4, 5))
    rows = np.flatnonzero(there)
    save_matched_traversals(
        args.out / "matched", crossed.images[rows], [crossed.labels[row] for row in rows],
        [name.replace("beta=", "β = ") for name in names], crossed.values,
        [crossed.notes[row] for row in rows], crossed.weak[rows],
    )  # fmt: skip


if __name__ == "__main__":
    main()
