"""`bvae evaluate`."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from bvae_jax.commands.parsing import parse
from bvae_jax.commands.scores import OutputFlags, check_flags, print_scores, write_scores
from bvae_jax.config import ScoreConfig
from bvae_jax.interrupt import fatal


@dataclass(frozen=True)
class EvaluateArgs:
    """Score a run by disentanglement metrics; leaves evaluation.json and figures in it."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """Directory of a run."""
    config: tyro.conf.OmitArgPrefixes[ScoreConfig]
    flags: tyro.conf.OmitArgPrefixes[OutputFlags]
    num_points: int | None = None
    """Images to encode; the whole data set, if not given. The encode is kept in RUN_DIR."""
    step: int | None = None
    """Step of the checkpoint to take; the newest, if not given."""
    figures: bool = True
    """Draw figures in RUN_DIR/figures (--no-figures: do not)."""


def evaluate(argv: Sequence[str]) -> int:
    """`bvae evaluate`."""
    args = parse(EvaluateArgs, argv, "bvae evaluate")
    with fatal():
        from bvae_jax import evaluation

    check_flags(args.config, args.flags)
    run_dir = args.run_dir.expanduser()
    try:
        entries = evaluation.evaluate(
            run_dir,
            args.config,
            num_points=args.num_points,
            baselines=args.flags.baselines,
            step=args.step,
            udr_with=args.flags.udr_with,
            figures=args.figures,
            progress=not args.flags.quiet,
        )
    except KeyboardInterrupt:
        again = shlex.join(["bvae", "evaluate", *argv])
        print(f"Interrupted; what was computed is kept. Go on with: {again}")
        return 0
    print_scores(entries)
    write_scores(args.flags.json, entries)
    print(f"{run_dir / evaluation.EVALUATION}")
    return 0
