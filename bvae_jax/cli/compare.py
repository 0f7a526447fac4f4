"""`bvae compare` and `bvae suggest`."""

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, cast

import tyro

from bvae_jax.cli.parsing import parse
from bvae_jax.config import ScoreConfig
from bvae_jax.errors import UserError
from bvae_jax.runtime import fatal

PRINTED = ("nll", "kl", "elbo", "active_latents", "total_correlation", "mig", "dci/disentanglement")
"""Scores that stand in the terminal; all are in the files."""


@dataclass(frozen=True)
class CompareArgs:
    """Compare the members of sweeps: evaluate those that are not, and leave table.csv, .md and
    .tex, statistics.md and .json, figures/ and report.html."""

    sweep_dirs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Directories of sweeps, on the same data set."""
    config: tyro.conf.OmitArgPrefixes[ScoreConfig] = field(
        default_factory=lambda: ScoreConfig(metrics="fast")
    )
    num_points: int = 50_000
    """Images of each member to encode; at most the whole data set."""
    decomposition: int = 1000
    """Draws of z to take each member's KL apart. 0: do not."""
    baselines: bool = True
    """Other representations (PCA, pixels, ...) take minutes; --no-baselines leaves them out."""
    average: str = "mean"
    """Over seeds: mean, or iqm (mean of the middle half)."""
    statistic: tuple[str, ...] = ()
    """Scores of which paired tests across seeds are printed in words; all are in statistics.md."""
    out: Path | None = None
    """Directory for what is written; the first sweep's, if not given."""
    figures: bool = True
    """Draw figures and write report.html (--no-figures: do not)."""
    quiet: bool = False
    """No progress bar."""


@dataclass(frozen=True)
class SuggestArgs:
    """Choose a setting of a sweep without labels: by how far its seeds agree (UDR), or by a target
    for the KL. Leaves suggestion.json."""

    sweep_dirs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Directories of sweeps, on the same data set."""
    rate: float | None = None
    """Wanted KL, nats per image. Without it the agreement of seeds decides."""
    measure: str = "lasso"
    """Similarity of two latents: lasso or spearman."""
    out: Path | None = None
    """Directory for suggestion.json; the first sweep's, if not given."""
    quiet: bool = False
    """No progress bar."""


def compare(argv: Sequence[str]) -> int:
    """`bvae compare`."""
    args = parse(CompareArgs, argv, "bvae compare")
    with fatal():
        from bvae_jax.comparison.compare import compare as run_compare
        from bvae_jax.comparison.findings import statistics_text
        from bvae_jax.comparison.reading import known_scores
        from bvae_jax.comparison.statistics import Average
        from bvae_jax.comparison.tables import make_table, to_markdown
        from bvae_jax.metrics.scoring import metric_names

    known = known_scores(metric_names(args.config.metrics))
    strange = [name for name in args.statistic if name not in known]
    if strange:
        raise UserError(
            f"--statistic: got {', '.join(strange)}, wanted some of {', '.join(known)}."
        )
    command = shlex.join(["bvae", "compare", *argv])
    try:
        compared = run_compare(
            *args.sweep_dirs,
            score=args.config,
            num_points=args.num_points,
            decomposition=args.decomposition,
            baselines=args.baselines,
            average=args.average,
            out=args.out,
            figures=args.figures,
            commands=[command],
            progress=not args.quiet,
        )
    except KeyboardInterrupt:
        print(f"Interrupted; what was evaluated is kept. Go on with: {command}")
        return 130
    comparison = compared.comparison
    wanted = {*PRINTED, *args.statistic}
    scores = tuple(score for score in comparison.scores if score in wanted)
    shown = dataclasses.replace(comparison, scores=scores)
    average = cast(Average, args.average)
    print(to_markdown(make_table(shown, average)))
    print(f"All {len(comparison.scores)} scores stand in the files below.\n")
    if args.statistic:
        spoken = [score for score in args.statistic if score in comparison.scores]
        print(statistics_text(comparison, spoken, average))
    print(" ".join(str(path) for path in compared.files if path.suffix not in (".png", ".pdf")))
    return 0


def suggest(argv: Sequence[str]) -> int:
    """`bvae suggest`."""
    args = parse(SuggestArgs, argv, "bvae suggest")
    if args.measure not in ("lasso", "spearman"):
        raise UserError(f"--measure: got {args.measure!r}, wanted lasso or spearman.")
    if args.rate is not None and not args.rate > 0:
        raise UserError(f"--rate: got {args.rate}, wanted a number of nats above 0.")
    with fatal():
        from bvae_jax.comparison.suggest import FILE, in_words
        from bvae_jax.comparison.suggest import suggest as run_suggest

    try:
        found = run_suggest(
            *args.sweep_dirs,
            rate=args.rate,
            measure=args.measure,
            out=args.out,
            progress=not args.quiet,
        )
    except KeyboardInterrupt:
        again = shlex.join(["bvae", "suggest", *argv])
        print(f"Interrupted; what was encoded is kept. Go on with: {again}")
        return 130
    print(in_words(found))
    print((args.out or args.sweep_dirs[0]) / FILE)
    return 0
