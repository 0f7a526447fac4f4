"""`python -m benchmarks`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.settings import Settings
from bvae_jax.cli.parsing import parse
from bvae_jax.errors import UserError
from bvae_jax.runtime import (
    fatal,
)


@dataclass(frozen=True)
class BenchmarkArgs:
    """Measure how fast it is here: training steps, batches, encoding, sweeps, start-up. Each
    contender is a process of its own, and they take turns."""

    settings: tyro.conf.OmitArgPrefixes[Settings]
    json: Path | None = None
    """Write all that was measured to this file, each round's times too."""
    quiet: bool = False
    """No progress bar."""


def main(argv: Sequence[str]) -> int:
    """Measure, and print the tables."""
    args = parse(BenchmarkArgs, argv, "python -m benchmarks")
    with fatal():
        from benchmarks import tables
        from benchmarks.benchmark import benchmark as measure

    path = args.json.expanduser() if args.json else None
    try:
        print(tables.markdown(measure(args.settings, json=path, progress=not args.quiet)))
    except UserError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
