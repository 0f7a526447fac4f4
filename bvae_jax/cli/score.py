"""`bvae score`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from bvae_jax.cli.parsing import parse
from bvae_jax.cli.scores import OutputFlags, check_flags, print_scores, write_scores
from bvae_jax.config import ScoreConfig
from bvae_jax.runtime import (
    fatal,
)


@dataclass(frozen=True)
class ScoreArgs:
    """Score a representation from any framework, in an .npz file.

    It holds codes [n, latent] and factors [n, factor] (class indices), and may hold logvars,
    codes_test and factors_test, factor_sizes, factor_names, kl [latent].
    """

    file: Annotated[Path, tyro.conf.Positional]
    """The .npz file."""
    config: tyro.conf.OmitArgPrefixes[ScoreConfig]
    flags: tyro.conf.OmitArgPrefixes[OutputFlags]
    figures: Path | None = None
    """Draw figures in this directory."""


def score(argv: Sequence[str]) -> int:
    """`bvae score`."""
    args = parse(ScoreArgs, argv, "bvae score")
    with fatal():
        from bvae_jax.evaluation import evaluate as evaluation

    check_flags(args.config, args.flags)
    entries = evaluation.score_file(
        args.file,
        args.config,
        baselines=args.flags.baselines,
        udr_with=args.flags.udr_with,
        figures=args.figures,
        progress=not args.flags.quiet,
    )
    print_scores(entries)
    write_scores(args.flags.json, entries)
    return 0
