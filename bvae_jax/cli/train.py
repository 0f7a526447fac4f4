"""`bvae train`."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from bvae_jax import runtime
from bvae_jax.cli.parsing import parse
from bvae_jax.cli.settings import parse_onto
from bvae_jax.config import Config
from bvae_jax.runtime import (
    fatal,
)


@dataclass(frozen=True)
class TrainArgs:
    """Train a model; leaves checkpoints, metrics, a summary and figures in --run-dir."""

    run_dir: Path
    """Directory of the run. It must not exist, unless --resume or --overwrite is given."""
    config: tyro.conf.OmitArgPrefixes[Config]
    preset: str | None = None
    """Settings of a published experiment, which other flags then change: see bvae presets."""
    resume: bool = False
    """Go on with the run in --run-dir. Settings that are not given (the config options below) keep
    the run's own values."""
    overwrite: bool = False
    """Replace the run in --run-dir, which is deleted once the new one has a checkpoint."""
    tensorboard: bool = False
    """Also write TensorBoard's files to RUN_DIR/tensorboard."""
    wandb: str | None = None
    """Also log to this project of Weights & Biases."""
    figures: bool = True
    """Draw figures at the end (--no-figures: do not)."""
    compile_cache: str | None = None
    """Directory that keeps compiled programs for the next start, or off. Not given:
    JAX_COMPILATION_CACHE_DIR, or the user's cache directory."""
    quiet: bool = False
    """No progress bar."""
    devices: str | None = None
    """Divide each batch over N devices of this machine, or all. A run that is resumed keeps
    its number; else 1."""
    distributed: bool = False
    """Train together with the processes that srun, mpirun or a TPU pod started with this one (or
    see JAX_COORDINATOR_ADDRESS in the README), on all devices of all."""


def train(argv: Sequence[str]) -> int:
    """`bvae train`."""
    with fatal():
        from bvae_jax.runs import distributed as processes
        from bvae_jax.runs import run as runner
        from bvae_jax.runs import rundir

    args = parse(TrainArgs, argv, "bvae train")
    run_dir = args.run_dir.expanduser()
    team = processes.join() if args.distributed else processes.ALONE
    if args.resume or args.preset:
        stored = None
        if args.resume:  # from where the first process sees it
            stored = Config.from_dict(team.first(lambda: rundir.read_config(run_dir).to_dict()))
        args = parse_onto(stored, args, argv, "bvae train")
    runtime.use_compile_cache(args.compile_cache)
    resume_command = f"bvae train --run-dir {shlex.quote(str(run_dir))} --resume"
    resume_command += " --distributed" if args.distributed else ""
    try:
        result = runner.train(
            args.config,
            run_dir,
            resume=args.resume,
            overwrite=args.overwrite,
            tensorboard=args.tensorboard,
            wandb=args.wandb,
            figures=args.figures,
            progress=not args.quiet,
            devices=args.devices,
            distributed=args.distributed,
        )
    except KeyboardInterrupt:
        result = None
    if result is None or int(result.state.step) == 0:
        begun = (run_dir / rundir.CONFIG).exists()
        print("Interrupted.", f"Go on with: {resume_command}" if begun else "Nothing was begun.")
        return 130
    if team.index:  # the first process speaks for all
        return 0
    if result.summary is None:
        print(f"Interrupted at step {result.state.step}; all is kept. Go on with: {resume_command}")
        return 0
    print(in_one_line(result.summary))
    print(f"{result.run_dir}: {', '.join(sorted(p.name for p in result.run_dir.glob('[a-z]*')))}")
    return 0


def in_one_line(summary: dict[str, Any]) -> str:
    """A summary for people."""
    from bvae_jax.runs.program import NO_POSTERIOR

    numbers = [f"{name} {summary[name]:.2f}" for name in ("nll", "kl", "elbo") if name in summary]
    end = NO_POSTERIOR
    if "active_latents" in summary:
        end = f"active latents {summary['active_latents']}"
    where = "({split}, {eval_images} images)".format(**summary)
    return "  ".join([f"step {summary['step']}", *numbers]) + f" {where}  {end}"
