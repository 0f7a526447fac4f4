"""Every preset for 200 steps: does its loss fall, and does it resume bit for bit?

python experiments/presets.py [--steps 200] [--runs runs/presets] [PRESET ...]

Each is trained at a stretch; then a copy goes on from its checkpoint after three quarters.
"""

import argparse
import shutil
from pathlib import Path

from bvae_jax import Config, train
from bvae_jax.presets import PRESETS
from bvae_jax.runs.loggers import METRICS, read_records


def study(name, steps, directory):
    """The records, the summary, and whether a copy that goes on ends with the same parameters."""
    settings = PRESETS[name].settings | {"steps": steps, "log_every": 20, "eval_images": 512}
    config = Config(**settings, checkpoint_every=steps - steps // 4)
    copy = directory.with_name(f"{name}-resumed")
    for path in (directory, copy):
        shutil.rmtree(path, ignore_errors=True)
    summary = train(config, directory, figures=False).summary
    shutil.copytree(directory, copy)
    shutil.rmtree(copy / "checkpoints" / str(steps))
    again = train(config, copy, resume=True, figures=False).summary
    if summary is None or again is None:
        raise SystemExit("Interrupted.")
    records = [r for r in read_records(directory / METRICS) if r["split"] == "train"]
    return records, summary, summary["params_sha256"] == again["params_sha256"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--runs", type=Path, default=Path("runs/presets"))
    parser.add_argument("presets", nargs="*", default=list(PRESETS))
    args = parser.parse_args()
    print("| preset | loss at first | loss at last | images/s | resumes bit for bit |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    for name in args.presets:
        records, summary, same = study(name, args.steps, args.runs / name)
        losses = [f"{record['loss']:.1f}" for record in (records[0], records[-1])]
        speed = f"{summary['images_per_second']:.0f}"
        print(
            f"| `{name}` |", " | ".join([*losses, speed, "yes" if same else "NO"]), "|", flush=True
        )


if __name__ == "__main__":
    main()
