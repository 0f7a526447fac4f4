"""One run of each setting of a sweep, that nearest to the setting's mean, as a sweep with cards.

python experiments/pretrained/make.py SWEEP OUT [--matched beta=1 beta=16]

Nearest by MIG, where `bvae compare SWEEP` was called before and left it, which cards want, too;
else by the ELBO.

Needs `pip install '.[hub]'` for the cards. OUT becomes a sweep of which these members are there:
weights in float16, summary, a card and figures. And OUT gets matched.png: the latents of the last
run of --matched (all if not given) that all of these have.
"""

import argparse
from pathlib import Path

import numpy as np

from bvae_jax.comparison.matching import cross_traversals, representatives
from bvae_jax.comparison.reading import read_comparison
from bvae_jax.errors import UserError
from bvae_jax.export.card import model_card
from bvae_jax.export.weights import portable
from bvae_jax.plots.matrices import save_matched_traversals
from bvae_jax.runs.hyper import resolved
from bvae_jax.runs.run import load_shared
from bvae_jax.runs.sweepdir import MEMBERS, open_sweep, read_sweep
from bvae_jax.runs.trainer import Trainers

KEPT = ("traversal.png", "reconstructions.png")


def make(run, directory):
    """A member: what was exported, but for most figures, and its card."""
    run.export(directory, dtype="float16")
    for path in (directory / "figures").iterdir():
        if path.name not in KEPT:
            path.unlink()
    (directory / "README.md").write_text(model_card(run, directory, None, "MIT"))


def publish(sweep_dir, out, matched):
    """The sweep in `out`, and matched.png."""
    trainers, chosen = Trainers(), {}
    comparison = read_comparison([sweep_dir], None, trainers, progress=False)
    for member in representatives(comparison).values():
        run = load_shared(comparison.run_dirs[member], trainers)
        chosen[run.run_dir.name.partition(",seed")[0]] = run
    names = matched or list(chosen)
    if strange := [name for name in names if name not in chosen]:
        raise UserError(f"--matched: got {strange[0]}, wanted some of {', '.join(chosen)}.")
    sweep = read_sweep(sweep_dir)
    open_sweep(out, sweep._replace(base=resolved(portable(sweep.base))))
    for run in chosen.values():
        make(run, out / MEMBERS / run.run_dir.name)
        print(out / MEMBERS / run.run_dir.name)
    runs = [chosen[name] for name in names]
    kl = [np.array(run.summary["kl_per_latent"]) for run in runs]
    crossed = cross_traversals(runs, kl, reference=len(runs) - 1)
    there = ~crossed.weak.any(axis=1) & ~np.isnan(crossed.images).any(axis=(1, 2, 3, 4, 5))
    rows = np.flatnonzero(there)
    save_matched_traversals(
        out / "matched", crossed.images[rows], [crossed.labels[row] for row in rows],
        [name.replace("beta=", "β = ") for name in names], crossed.values,
        [crossed.notes[row] for row in rows], crossed.weak[rows],
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", type=Path)
    parser.add_argument("out", type=Path, help="a directory that is not there yet")
    parser.add_argument("--matched", nargs="+", help="settings, as beta=1 beta=16")
    args = parser.parse_args()
    try:
        publish(args.sweep, args.out, args.matched)
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
