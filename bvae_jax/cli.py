"""`bvae ...`: parse, call, print. A user's mistake is one line on stderr and exit code 2."""

import contextlib
import errno
import importlib.metadata
import io
import logging
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from bvae_jax.config import Config
from bvae_jax.errors import UserError, unknown
from bvae_jax.interrupt import fatal

T = TypeVar("T")


@dataclass(frozen=True)
class TrainArgs:
    """Train a beta-VAE; leaves checkpoints, metrics, a summary and figures in --run-dir."""

    run_dir: Path
    """Directory of the run. It must not exist, unless --resume or --overwrite is given."""
    config: tyro.conf.OmitArgPrefixes[Config]
    resume: bool = False
    """Go on with the run in --run-dir. Flags that are not given keep the run's own values."""
    overwrite: bool = False
    """Replace the run in --run-dir."""
    tensorboard: bool = False
    """Also write TensorBoard's files to RUN_DIR/tensorboard."""
    wandb: str | None = None
    """Also log to this project of Weights & Biases."""
    figures: bool = True
    """Draw figures at the end (--no-figures: do not)."""
    quiet: bool = False
    """No progress bar."""


@dataclass(frozen=True)
class TraverseArgs:
    """Draw latent traversals of a run again, with other ranges and images."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """Directory of a run."""
    range: float = 3.0
    """Latents run from -RANGE to RANGE, in standard deviations of the prior."""
    columns: int = 11
    """Number of values for each latent."""
    images: tuple[int, ...] = ()
    """Data set indices of the images to start from; without them, one held-out image."""
    step: int | None = None
    """Step of the checkpoint to take; the newest, if not given."""
    out: Path | None = None
    """Directory for the pictures; RUN_DIR/figures if not given."""


def train(argv: Sequence[str]) -> int:
    """`bvae train`."""
    with fatal():
        from bvae_jax import rundir, runner

    args = _parse(TrainArgs, argv, "bvae train")
    run_dir = args.run_dir.expanduser()
    if args.resume:
        start = TrainArgs(run_dir, rundir.read_config(run_dir))
        args = _parse(TrainArgs, argv, "bvae train", default=start)
    resume_command = f"bvae train --run-dir {shlex.quote(str(run_dir))} --resume"
    try:
        result = runner.run(
            args.config,
            run_dir,
            resume=args.resume,
            overwrite=args.overwrite,
            tensorboard=args.tensorboard,
            wandb=args.wandb,
            figures=args.figures,
            progress=not args.quiet,
        )
    except KeyboardInterrupt:
        begun = (run_dir / rundir.CONFIG).exists()
        print("Interrupted.", f"Go on with: {resume_command}" if begun else "Nothing was begun.")
        return 0
    if result.summary is None:
        print(f"Interrupted at step {result.state.step}; all is kept. Go on with: {resume_command}")
        return 0
    print(
        "step {step}  nll {nll:.2f}  kl {kl:.2f}  elbo {elbo:.2f} ({split}, {eval_images} images)"
        "  active latents {active_latents}".format(**result.summary)
    )
    print(f"{result.run_dir}: {', '.join(sorted(p.name for p in result.run_dir.glob('[a-z]*')))}")
    return 0


def traverse(argv: Sequence[str]) -> int:
    """`bvae traverse`."""
    args = _parse(TraverseArgs, argv, "bvae traverse")
    if not 0 < args.range <= 1000:
        raise UserError(f"--range: got {args.range}, wanted a number above 0 and up to 1000.")
    if not 2 <= args.columns <= 101:
        raise UserError(f"--columns: got {args.columns}, wanted a whole number from 2 to 101.")
    with fatal():
        from bvae_jax import figures, runner

    result = runner.load(args.run_dir, step=args.step)
    settings = figures.TraversalSettings(args.range, args.columns, args.images or None)
    out = (args.out or args.run_dir / "figures").expanduser()
    for path in figures.draw_traversals(out, result.program, result.params, settings):
        print(path)
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"train": train, "traverse": traverse}
USAGE = """usage: bvae COMMAND ...

The laboratory for beta-VAEs in JAX.

  bvae train --run-dir DIR [--beta 4 ...]   train a beta-VAE
  bvae traverse DIR [--range 3 ...]         draw latent traversals of a run again

bvae COMMAND --help lists a command's flags."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0, or 2 after a user's mistake.
    """
    command, *rest = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    try:
        if command in ("-h", "--help"):
            print(USAGE)
            return 0
        if command == "--version":
            print(f"bvae_jax {importlib.metadata.version('bvae_jax')}")
            return 0
        if command not in COMMANDS:
            raise unknown("command", command, COMMANDS)
        return COMMANDS[command](rest)
    except UserError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(_describe(error))
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except Exception as error:
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            return _fail("Out of memory. Lower --batch-size, --latents or the network's size.")
        raise


def run_main() -> None:
    """The entry point of the `bvae` command: `main` in a process of its own."""
    # A failed write is reported once, by us; not again by every background task of Orbax.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    sys.unraisablehook = _unraisable
    sys.exit(main())


def _unraisable(unraisable: Any) -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _fail(message: str) -> int:
    print(f"bvae: {message}", file=sys.stderr)
    return 2


def _describe(error: OSError) -> str:
    what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    advice = {
        errno.EACCES: "Choose a place that you may read and write.",
        errno.EPERM: "Choose a place that you may read and write.",
        errno.EROFS: "Choose a place that you may read and write.",
        errno.ENOSPC: "The disk is full: make room, then go on with --resume.",
        errno.EDQUOT: "The disk quota is used up: make room, then go on with --resume.",
        errno.ENOTDIR: "A part of the path is a file: choose another path.",
        errno.EEXIST: "There is a file in the way: choose another path.",
    }
    return f"{what}. {advice.get(error.errno or 0, 'Check the path.')}"


def _parse(kind: type[T], argv: Sequence[str], prog: str, **options: Any) -> T:
    """Parse by tyro, whose framed errors become one line.

    Raises:
        UserError: the arguments do not fit.
    """
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            return tyro.cli(
                kind, prog=prog, args=argv, config=(tyro.conf.FlagCreatePairsOff,), **options
            )
    except SystemExit as exit_:
        if not exit_.code:
            raise
    lines = [re.sub(r"^[│|]?\s*|\s*[│|]?$", "", line) for line in stderr.getvalue().splitlines()]
    message = " ".join(line for line in lines if line and not re.match(r"[─╭╰]", line))
    message = re.split(r"Argument helptext:|For full helptext|Perhaps you meant", message)[0]
    raise UserError(f"{message.strip().rstrip('.')}. See {prog} --help.")


if __name__ == "__main__":
    run_main()
