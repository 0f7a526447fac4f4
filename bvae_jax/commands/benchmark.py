"""`bvae benchmark`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from bvae_jax.benchmarks.settings import Settings
from bvae_jax.commands.parsing import parse
from bvae_jax.interrupt import fatal


@dataclass(frozen=True)
class BenchmarkArgs:
    """Measure how fast it is here: training steps, batches, encoding, sweeps, start-up. Each
    contender is a process of its own, and they take turns."""

    settings: tyro.conf.OmitArgPrefixes[Settings]
    json: Path | None = None
    """Write all that was measured to this file, each round's times too."""
    quiet: bool = False
    """No progress bar."""


def benchmark(argv: Sequence[str]) -> int:
    """`bvae benchmark`."""
    args = parse(BenchmarkArgs, argv, "bvae benchmark")
    with fatal():
        from bvae_jax.benchmarks import tables
        from bvae_jax.benchmarks.benchmark import benchmark as measure

    path = args.json.expanduser() if args.json else None
    print(tables.markdown(measure(args.settings, json=path, progress=not args.quiet)))
    return 0
