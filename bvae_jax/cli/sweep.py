"""`bvae sweep`."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from bvae_jax import runtime
from bvae_jax.cli.parsing import parse
from bvae_jax.cli.settings import OWNED, parse_onto
from bvae_jax.config import Config
from bvae_jax.errors import UserError
from bvae_jax.runtime import (
    fatal,
)


@dataclass(frozen=True)
class SweepArgs:
    """Train a grid of models, and go on with those that are not done. Each leaves a run directory
    in SWEEP_DIR/members."""

    sweep_dir: Path
    """Directory of the sweep."""
    config: tyro.conf.OmitArgPrefixes[Config]
    betas: tuple[str, ...] = ()
    """Values of beta, with spaces between them."""
    seeds: int | None = None
    """Number of seeds, counted from --seed: each combination is trained with each. 1, if not
    given."""
    grid: tuple[str, ...] = ()
    """Values of other fields, as learning_rate=1e-4,5e-4 objective=beta_vae,beta_tcvae (for
    schedules, with semicolons between them)."""
    shared_batches: bool = False
    """All members see the same batches, whatever their seeds."""
    resume: bool = False
    """Go on with the sweep in --sweep-dir: settings that are not given keep its own values.
    Values of --betas, --seeds and --grid may be added to."""
    shard: str | None = None
    """Train the i-th of n parts, as 1/4; slurm: as the job array says. Several may run at once."""
    strategy: str = "auto"
    """sequential: one member after another; devices: one on each device; vmap: many in one
    program; auto: as the machine likes it."""
    members_at_once: str = "auto"
    """Members in one program, for vmap. auto: as many as the memory takes."""
    preset: str | None = None
    """Settings of a published experiment, which other flags then change: see bvae presets."""
    tensorboard: bool = False
    """Also write TensorBoard's files for each member."""
    wandb: str | None = None
    """Also log to this project of Weights & Biases."""
    figures: bool = False
    """Draw each member's figures at its end."""
    compile_cache: str | None = None
    """Directory that keeps compiled programs for the next start, or off. Not given:
    JAX_COMPILATION_CACHE_DIR, or the user's cache directory."""
    quiet: bool = False
    """No progress bar."""
    distributed: bool = False
    """Each process that srun, mpirun or a TPU pod started trains its part, as by --shard."""


def sweep(argv: Sequence[str]) -> int:
    """`bvae sweep`."""
    with fatal():
        from bvae_jax.runs import grid, sweepdir
        from bvae_jax.runs import sweep as sweeping

    args = parse(SweepArgs, argv, "bvae sweep")
    sweep_dir = args.sweep_dir.expanduser()
    stored = sweepdir.read_sweep(sweep_dir) if args.resume else None
    if stored or args.preset:
        args = parse_onto(stored and stored.base, args, argv, "bvae sweep")
    runtime.use_compile_cache(args.compile_cache)
    values = grid.parse_grid(args.grid)
    varied = sorted(set(OWNED) & set(values))
    if args.preset and varied:
        raise UserError(
            f"--preset {args.preset} with --grid {varied[0]}=...: what a preset says is for its "
            f"own {varied[0]}. Leave one of them out, or sweep each {varied[0]} by itself."
        )
    seeds: int | Sequence[int] = 1 if args.seeds is None else args.seeds
    betas = grid.parse_grid([f"beta={','.join(args.betas)}"])["beta"] if args.betas else None
    if stored:
        kept = dict(stored.values)
        if betas is not None:
            kept.pop("beta", None)
        if args.seeds is not None:
            kept.pop("seed", None)
        values = kept | values
    again = ["bvae", "sweep", "--sweep-dir", str(sweep_dir), "--resume"]
    again += ["--shard", args.shard] if args.shard else []
    again += ["--distributed"] if args.distributed else []
    try:
        result = sweeping.sweep(
            args.config,
            sweep_dir,
            betas=betas,
            seeds=seeds,
            grid=values,
            shared_batches=args.shared_batches,
            shard=args.shard,
            strategy=args.strategy,
            members_at_once=_at_once(args.members_at_once),
            tensorboard=args.tensorboard,
            wandb=args.wandb,
            figures=args.figures,
            progress=not args.quiet,
            distributed=args.distributed,
        )
    except KeyboardInterrupt:
        begun = (sweep_dir / sweepdir.CONFIG).exists()
        print("Interrupted.", f"Go on with: {shlex.join(again)}" if begun else "Nothing was begun.")
        return 130
    by_status = {
        kind: [name for name, status in result.statuses.items() if status == kind]
        for kind in ("done", "failed", "begun", "missing")
    }
    print(f"{len(by_status['done'])} of {len(result.statuses)} members are done.")
    if by_status["failed"]:
        print(f"Left out, for their numbers were not finite: {', '.join(by_status['failed'])}.")
    if by_status["begun"] or by_status["missing"]:
        print(f"Go on with: {shlex.join(again)}")
    else:
        print(f"Compare them: bvae compare {shlex.quote(str(sweep_dir))}")
    return 0


def _at_once(given: str) -> int | None:
    if given == "auto":
        return None
    if not given.isdigit():
        raise UserError(f"--members-at-once: got {given!r}, wanted auto or a number above 0.")
    return int(given)
