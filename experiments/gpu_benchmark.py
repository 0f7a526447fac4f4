"""The stages of gpu_benchmark.sh, by the package's functions: they need no command line.

python experiments/gpu_benchmark.py {check,tests,sweeps,grouped,peers,train} --out DIR
    [--precision float32] [--small]
"""

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

TESTS = ("conv", "elbo", "likelihoods", "train")


def check(args):
    """Three training steps on the device give the losses of a CPU."""
    import jax
    import numpy as np

    from bvae_jax.config import Config
    from bvae_jax.runs.program import build

    losses = []
    for device in (jax.devices()[0], jax.devices("cpu")[0]):
        with jax.default_device(device):
            program = build(Config(batch_size=16, image_source="rendered"), progress=False)
            _, fetch = program.train(program.init(), program.train_data, 3)
            losses.append(fetch()["loss"])
        print(device.platform, losses[-1].tolist())
    np.testing.assert_allclose(*losses, rtol=2e-3)
    print("equal to 0.2 %")


def tests(args):
    """Those of the suite whose answer depends on the device."""
    if importlib.util.find_spec("pytest") is None:
        print("pytest is missing: left out")
        return
    files = [f"tests/test_{name}.py" for name in TESTS[: 1 if args.small else None]]
    flags = ["-q", "-p", "no:cacheprovider", "-k", "not lower"]
    sys.exit(subprocess.run([sys.executable, "-m", "pytest", *flags, *files]).returncode)


def measure(args, name, **settings):
    from benchmarks import tables
    from benchmarks.benchmark import benchmark
    from benchmarks.settings import Settings

    if args.small:
        settings |= {"quick": True, "batch_size": 4, "threads": 1}
    wanted = Settings(precision=args.precision, **settings)
    report = benchmark(wanted, json=args.out / f"{name}-{args.precision}.json")
    print(tables.markdown(report))


def sweeps(args):
    """One run, and sweeps in one program; what a step is, and its largest kernels."""
    members = (2, 3) if args.small else (64, 16, 256)
    parts = ("step", "sweep") if args.precision != "float32" else ("step", "sweep", "encode")
    measure(
        args, "sweeps", parts=parts, members=members, strategies=("vmap",), rounds=7, profile=True
    )


def grouped(args):
    """A sweep whose convolutions are not matrix products."""
    members = (2,) if args.small else (64,)
    measure(args, "grouped", parts=("sweep",), members=members, strategies=("vmap",), rounds=5)


def peers(args):
    """One run beside PyTorch's."""
    if importlib.util.find_spec("torch") is None:
        print("PyTorch is missing: left out")
        return
    patience = 300 if args.small else 25  # what is not compiled by then is left out
    measure(args, "peers", parts=("step", "encode"), peer=("torch",), rounds=9, patience=patience)


def train(args):
    """A real run: what a precision costs in nll."""
    import bvae_jax

    config = bvae_jax.Config(
        steps=20 if args.small else 3000, eval_images=512, precision=args.precision
    )
    run_dir = args.out / f"run-{args.precision}"
    result = bvae_jax.train(config, run_dir, overwrite=run_dir.exists(), figures=False)
    print({name: (result.summary or {}).get(name) for name in (
        "step", "nll", "kl", "elbo", "active_latents", "images_per_second", "wall_seconds"
    )})  # fmt: skip


def main():
    stages = {stage.__name__: stage for stage in (check, tests, sweeps, grouped, peers, train)}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=stages)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    stages[args.stage](args)


if __name__ == "__main__":
    main()
