"""Every preset for 200 steps: does its loss fall, and does it resume bit for bit?

python experiments/presets.py [--steps 200] [--runs runs/presets] [PRESET ...]

Each is trained twice, once at a stretch and once with an interruption after half of the steps.
"""

import argparse
import shutil
from pathlib import Path

from bvae_jax import Config, run
from bvae_jax.loggers import METRICS, read_records
from bvae_jax.presets import PRESETS


def trained(name, steps, directory, **options):
    settings = PRESETS[name].settings | {"steps": steps, "log_every": 20, "eval_images": 512}
    return run(Config(**settings), directory, figures=False, **options)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--runs", type=Path, default=Path("runs/presets"))
    parser.add_argument("presets", nargs="*", default=list(PRESETS))
    args = parser.parse_args()
    print("| preset | loss at first | loss at last | images/s | resumes bit for bit |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    for name in args.presets:
        whole, parts = (args.runs / f"{name}-{kind}" for kind in ("whole", "parts"))
        for directory in (whole, parts):
            shutil.rmtree(directory, ignore_errors=True)
        once = trained(name, args.steps, whole).summary
        trained(name, args.steps // 2, parts)
        again = trained(name, args.steps, parts, resume=True).summary
        if once is None or again is None:
            raise SystemExit("Interrupted.")
        losses = [r["loss"] for r in read_records(whole / METRICS) if r["split"] == "train"]
        same = "yes" if once["params_sha256"] == again["params_sha256"] else "NO"
        speed = once["images_per_second"]
        print(
            f"| `{name}` | {losses[0]:.1f} | {losses[-1]:.1f} | {speed:.0f} | {same} |", flush=True
        )


if __name__ == "__main__":
    main()
