"""What each disentanglement metric costs, and DCI's trees against scikit-learn's own.

python experiments/metric_cost.py [--rounds 3] [--original]

10,000 points and 5,000 to test, 10 latents, the 5 factors of dSprites: two pairs of factors turned
into each other, noise of a tenth, five latents that are nearly dead. Prints medians of wall and
CPU seconds. `--original` fits scikit-learn's GradientBoostingClassifier once too (minutes).
"""

import argparse
import time

import jax
import numpy as np

from bvae_jax.metrics import METRICS
from bvae_jax.metrics.scoring import FAST

SIZES = (3, 6, 40, 32, 32)


def representation(rng, n):
    """(codes, factors): each factor with its neighbour turned by 30 or 45 degrees, and noise."""
    factors = np.stack([rng.integers(size, size=n) for size in SIZES], axis=1)
    z = (factors - factors.mean(axis=0)) / factors.std(axis=0)
    for (i, j), degrees in (((1, 2), 30), ((3, 4), 45)):
        turn = np.deg2rad(degrees)
        z[:, i], z[:, j] = (
            np.cos(turn) * z[:, i] - np.sin(turn) * z[:, j],
            np.sin(turn) * z[:, i] + np.cos(turn) * z[:, j],
        )
    z = z + 0.1 * rng.standard_normal(z.shape)
    dead = 0.02 * rng.standard_normal((n, 5))
    return np.concatenate([z, dead], axis=1).astype(np.float32), factors


def timed(function):
    """(wall seconds, CPU seconds, result)."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--original", action="store_true")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    codes, factors = representation(rng, 10_000)
    codes_test, factors_test = representation(rng, 5_000)
    arrays = {
        "codes": codes,
        "factors": factors,
        "codes_test": codes_test,
        "factors_test": factors_test,
        "logvars": np.full_like(codes, np.log(0.01)),
        "kl": np.ones(10),
        "key": jax.random.key(0),
        "codes_of_runs": [codes, codes[:, ::-1] * -2],
    }
    found = {name: [] for name in METRICS}
    for _ in range(args.rounds):
        for name, metric in METRICS.items():
            given = {key: arrays[key] for key in metric.takes if key in arrays}
            found[name].append(timed(lambda m=metric, g=given: m.function(**g))[:2])
    medians = {name: np.median(times, axis=0) for name, times in found.items()}
    print(f"{'metric':20s}{'seconds':>10s}{'CPU-seconds':>13s}")
    for name, (wall, cpu) in medians.items():
        print(f"{name:20s}{wall:10.2f}{cpu:13.2f}{'  fast' if name in FAST else ''}")
    for label, names in (("fast", FAST), ("all", METRICS)):
        wall, cpu = np.sum([medians[name] for name in names], axis=0)
        print(f"{label:20s}{wall:10.2f}{cpu:13.2f}")
    if args.original:
        given = {key: arrays[key] for key in METRICS["dci"].takes}
        ours = METRICS["dci"].function(**given)
        wall, cpu, theirs = timed(
            lambda: METRICS["dci"].function(**given, predictor="boosted_sklearn")
        )
        print(f"{'DCI by scikit-learn':20s}{wall:10.2f}{cpu:13.2f}")
        print(f"CPU-seconds, theirs over ours: {cpu / medians['dci'][1]:.1f}")
        for name in ("disentanglement", "completeness", "informativeness"):
            print(f"{name:20s} ours {ours[name]:.4f}, scikit-learn {theirs[name]:.4f}")


if __name__ == "__main__":
    main()
