"""Our disentanglement scores beside those of the original implementations.

python experiments/conformance.py DIRECTORY [--cases perfect mixed_soft ...] [--skip-slow]

DIRECTORY holds metric_cases.npz (six known representations of dSprites' factors) and
metric_expected.json (what the original code said of them). "fixed" are the original's scores of
these very points; "sampled" are means over seeds of its own sampling of the full factor grid, where
four standard errors are added to the tolerance. A star marks our score under the original's
settings (`--compat`), where ours differ on purpose. Ends with exit code 1 if a score is outside.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import jax
import numpy as np

from bvae_jax.metrics import METRICS

# The original's name of a score -> our metric and the entry of its result.
NAMES = {
    "mig": ("mig", "score"),
    "modularity": ("modularity", "score"),
    "sap": ("sap", "score"),
    "sap_continuous": ("sap_r2", "score"),
    "irs": ("irs", "score"),
    "gaussian_tc": ("unsupervised", "gaussian_total_correlation"),
    "wasserstein": ("unsupervised", "wasserstein_correlation"),
    "wasserstein_norm": ("unsupervised", "wasserstein_correlation_norm"),
    "mi_codes": ("unsupervised", "mutual_information"),
    "explicitness": ("explicitness", "score"),
    "explicitness_train": ("explicitness", "train"),
    "infom": ("infomec", "infom"),
    "infoc": ("infomec", "infoc"),
    "infoe": ("infomec", "infoe"),
    "beta_vae": ("beta_vae_score", "score"),
    "beta_vae_train": ("beta_vae_score", "train"),
    "factor_vae": ("factor_vae_score", "score"),
    "factor_vae_train": ("factor_vae_score", "train"),
    "dci_d": ("dci", "disentanglement"),
    "dci_c": ("dci", "completeness"),
    "dci_i": ("dci", "informativeness"),
    "dci_i_train": ("dci", "train"),
    "dci_d_sklearn019": ("dci", "disentanglement"),
    "dci_c_sklearn019": ("dci", "completeness"),
}
SLOW = ("dci",)


def wants_compat(name, case):
    """Whether the original's settings are needed: its old rule, its accuracy, or its faults."""
    faults = case == "collapsed" and name in ("modularity", "gaussian_tc", "mi_codes")
    return name == "sap" or name.endswith("_sklearn019") or faults


def scores(metric, arrays, compat):
    settings = dict(METRICS[metric].compat) if compat else {}
    if metric == "infomec":  # whose original was told of no discrete latents
        settings["counted"] = False
    given = {name: arrays[name] for name in METRICS[metric].takes if name in arrays}
    return METRICS[metric].function(**given, **settings)


def references(expected, case):
    """(kind, name, mean, standard error) of all numbers that the original has for a case."""
    for kind in ("fixed", "sampled"):
        for name, found in expected[kind][case].items():
            if name in NAMES and "mean" in found:
                error = found["std"] / math.sqrt(found["n"]) if kind == "sampled" else 0.0
                yield kind, name, float(found["mean"]), float(error)


def agrees(ours, theirs, tolerance):
    same = (math.isnan(ours) and math.isnan(theirs)) or ours == theirs
    return same or abs(ours - theirs) <= tolerance


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--cases", nargs="*")
    parser.add_argument("--skip-slow", action="store_true", help="without DCI")
    args = parser.parse_args()
    data = np.load(args.directory / "metric_cases.npz")
    expected = json.loads((args.directory / "metric_expected.json").read_text())
    worst, outside, count, starred = {}, 0, 0, 0
    print(f"{'case':12s}{'score':20s}{'kind':9s}{'original':>10s}{'ours':>11s}{'difference':>12s}")
    for case in args.cases or expected["fixed"]:
        arrays = {
            "codes": data[f"{case}/train"],
            "codes_test": data[f"{case}/test"],
            "factors": data["factors_train"],
            "factors_test": data["factors_test"],
            "key": jax.random.key(0),
        }
        cache = {}
        for kind, name, theirs, error in references(expected, case):
            metric, entry = NAMES[name]
            if args.skip_slow and metric in SLOW:
                continue
            compat = wants_compat(name, case)
            if (metric, compat) not in cache:
                cache[metric, compat] = scores(metric, arrays, compat)
            ours = float(cache[metric, compat][entry])
            # Scores without a tolerance of their own have that of their kin.
            kin = name.removesuffix("_train").removesuffix("_sklearn019")
            tolerance = expected["tolerance"][kin] + 4 * error
            fine = agrees(ours, theirs, tolerance)
            outside, count = outside + (not fine), count + 1
            difference = 0.0 if ours == theirs or math.isnan(theirs) else abs(ours - theirs)
            largest = worst.setdefault((name, kind), (0.0, tolerance))
            worst[name, kind] = max(largest, (difference, tolerance))
            starred += compat
            print(
                f"{case:12s}{name:20s}{kind:9s}{theirs:10.4f}{ours:10.4f}{'*' if compat else ' '}"
                f"{difference:12.5f}  {'within' if fine else 'OUTSIDE'} {tolerance:.4f}"
            )
    print("\nLargest difference of each score over all cases:")
    for (name, kind), (difference, tolerance) in sorted(worst.items()):
        print(f"{name:20s}{kind:9s}{difference:9.5f}  tolerance {tolerance:.4f}")
    print(f"\n{count - outside} of {count} are within their tolerance ({starred} by --compat).")
    sys.exit(1 if outside else 0)


if __name__ == "__main__":
    main()
