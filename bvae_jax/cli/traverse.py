"""`bvae traverse`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from bvae_jax.cli.parsing import parse
from bvae_jax.errors import UserError
from bvae_jax.runtime import (
    fatal,
)


@dataclass(frozen=True)
class TraverseArgs:
    """Draw latent traversals of a run again, with other ranges and images."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """Directory of a run."""
    range: float = 3.0
    """Latents run from -RANGE to RANGE, in standard deviations of the prior (of an autoencoder's
    codes, around their mean)."""
    columns: int = 11
    """Number of values for each latent."""
    images: tuple[int, ...] = ()
    """Data set indices of the images to start from; without them, one held-out image."""
    step: int | None = None
    """Step of the checkpoint to take; the newest, if not given."""
    dataset: str | None = None
    """Where the run's images are now, as folder:DIRECTORY or npz:FILE, if they were moved."""
    out: Path | None = None
    """Directory for the pictures; RUN_DIR/figures if not given."""


def traverse(argv: Sequence[str]) -> int:
    """`bvae traverse`."""
    args = parse(TraverseArgs, argv, "bvae traverse")
    if not 0 < args.range <= 1000:
        raise UserError(f"--range: got {args.range}, wanted a number above 0 and up to 1000.")
    if not 2 <= args.columns <= 101:
        raise UserError(f"--columns: got {args.columns}, wanted a whole number from 2 to 101.")
    with fatal():
        from bvae_jax.runs import figures
        from bvae_jax.runs import run as runner

    result = runner.load(args.run_dir, step=args.step, dataset=args.dataset)
    settings = figures.TraversalSettings(args.range, args.columns, args.images or None)
    out = (args.out or args.run_dir / "figures").expanduser()
    for path in figures.draw_traversals(out, result.program, result.params, settings):
        print(path)
    return 0
