"""The comparison of β values: a sweep, its table, figures and report, at three sizes.

python experiments/beta_sweep.py [--scale cores|gpu|full] [--shard i/n] [--sweep-dir DIR]

`full` is the β-VAE column of the large study on dSprites (Locatello et al., 2019): 6 values × 50
seeds × 300,000 steps. Called again, it goes on with what is there.
"""

import argparse

from bvae_jax import Config, ScoreConfig, compare, suggest, sweep
from bvae_jax.comparison.suggestion import in_words
from bvae_jax.presets import PRESETS

BETAS = (1.0, 2.0, 4.0, 6.0, 8.0, 16.0)
SCALES = {
    # β values, seeds, changes of the settings of the study, metrics
    "cores": (BETAS, 3, {"steps": 1000, "learning_rate": 1e-3, "holdout": 0.1}, "fast"),
    "gpu": (BETAS, 10, {"steps": 30_000, "checkpoint_every": 5000, "eval_every": 10_000}, "all"),
    "full": (BETAS, 50, {"steps": 300_000, "checkpoint_every": 20_000}, "all"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", choices=SCALES, default="cores")
    parser.add_argument("--sweep-dir")
    parser.add_argument("--shard", help="train the i-th of n parts, as 1/4, and compare nothing")
    args = parser.parse_args()
    betas, seeds, changes, metrics = SCALES[args.scale]
    config = Config(**PRESETS["locatello2019"].settings | changes)
    directory = args.sweep_dir or f"sweeps/beta-{args.scale}"
    result = sweep(config, directory, betas=betas, seeds=seeds, shard=args.shard)
    left = [name for name, status in result.statuses.items() if status in ("begun", "missing")]
    if left:
        raise SystemExit(f"{len(left)} of {len(result.statuses)} members are left: call it again.")
    points = 50_000 if args.scale == "cores" else 737_280
    compared = compare(directory, score=ScoreConfig(metrics=metrics), num_points=points)
    print(in_words(suggest(directory)))
    print(compared.files[-1])


if __name__ == "__main__":
    main()
