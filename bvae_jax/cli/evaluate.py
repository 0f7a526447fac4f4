"""`bvae evaluate`."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from bvae_jax.cli.parsing import parse
from bvae_jax.cli.scores import OutputFlags, check_flags, print_scores, write_scores
from bvae_jax.config import ScoreConfig
from bvae_jax.errors import UserError
from bvae_jax.runtime import fatal


@dataclass(frozen=True)
class EvaluateArgs:
    """Score a run by disentanglement metrics (--metrics none: by none), and take its ELBO apart;
    leaves evaluation.json, elbo.json and figures in it."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """Directory of a run."""
    config: tyro.conf.OmitArgPrefixes[ScoreConfig]
    flags: tyro.conf.OmitArgPrefixes[OutputFlags]
    num_points: int | None = None
    """Images to encode; the whole data set, if not given. The encode is kept in RUN_DIR."""
    decomposition: int = 1000
    """Draws of z to take the KL apart: mutual information, total correlation, dimension-wise KL,
    against the aggregate posterior of all encoded images. 0: do not."""
    log_likelihood: int = 0
    """Importance samples for each image to estimate log p(x), as 5000. 0: do not."""
    log_likelihood_images: int = 64
    """Held-out images for --log-likelihood."""
    step: int | None = None
    """Step of the checkpoint to take; the newest, if not given."""
    dataset: str | None = None
    """Where the run's images are now, as folder:DIRECTORY or npz:FILE, if they were moved."""
    figures: bool = True
    """Draw figures in RUN_DIR/figures (--no-figures: do not)."""


def evaluate(argv: Sequence[str]) -> int:
    """`bvae evaluate`."""
    args = parse(EvaluateArgs, argv, "bvae evaluate")
    with fatal():
        from bvae_jax.evaluation import evaluate as elbo_evaluation
        from bvae_jax.evaluation import evaluate as evaluation

    scored = args.config.metrics != "none"
    if scored:
        check_flags(args.config, args.flags)
    settings = (args.decomposition, args.log_likelihood, args.log_likelihood_images)
    elbo_evaluation.check_settings(*settings)
    if not (scored or args.decomposition or args.log_likelihood):
        raise UserError("--metrics none: wanted at least --decomposition or --log-likelihood then.")
    run_dir = args.run_dir.expanduser()
    common: Any = {
        "num_points": args.num_points, "step": args.step, "dataset": args.dataset,
        "progress": not args.flags.quiet,
    }  # fmt: skip
    try:
        if scored:
            entries = evaluation.evaluate(
                run_dir,
                args.config,
                baselines=args.flags.baselines,
                udr_with=args.flags.udr_with,
                figures=args.figures,
                **common,
            )
            print_scores(entries)
            write_scores(args.flags.json, entries)
            print(f"{run_dir / evaluation.EVALUATION}")
        found = elbo_evaluation.evaluate_elbo(run_dir, *settings, split=args.config.split, **common)
    except KeyboardInterrupt:
        again = shlex.join(["bvae", "evaluate", *argv])
        print(f"Interrupted; what was computed is kept. Go on with: {again}")
        return 130
    if found:
        print_elbo(found)
        print(f"{run_dir / elbo_evaluation.ELBO}")
    return 0


def print_elbo(found: dict[str, dict[str, Any]]) -> None:
    """Both results in lines for people; errors are standard errors."""
    from bvae_jax.evaluation.log_likelihood import FEW

    for name, of in found.items():
        if "skipped" in of:
            print(f"{name.replace('_', ' ')}: skipped: {of['skipped']}")
    found = {name: of for name, of in found.items() if "skipped" not in of}
    if "decomposition" in found:
        of = found["decomposition"]
        terms = "  ".join(
            f"{label} {_short(of[name])} ± {of[name + '_error']:.2f}"
            for label, name in (
                ("mutual information", "mutual_information"),
                ("+ total correlation of samples", "total_correlation"),
                ("+ dimension-wise KL", "dimension_wise_kl"),
                ("=", "kl_sampled"),
            )
        )
        print(f"{terms}  (nats ± standard error over {of['samples']} draws)")
        print(f"KL {of['kl']:.2f} nats, exactly, over {of['points']:,} images.")
        print(of["sentence"])
    if "log_likelihood" in found:
        of = found["log_likelihood"]
        print(
            f"log p(x) {of['log_likelihood']:.2f} ± {of['standard_error']:.2f} nats per image "
            f"(standard error over {of['images']} images; {of['samples']} importance samples, "
            f"effective: median {of['effective_samples']:.1f}, least {of['least_effective']:.1f}), "
            f"{of['bits_per_dim']:.4f} bits per dimension; ELBO of the same images "
            f"{of['elbo']:.2f}"
        )
        if of["few"]:
            print(
                f"Warning: {of['few']} of {of['images']} images have fewer than {FEW} effective "
                "samples: the estimate is too low, perhaps by nats, which the ± does not cover. "
                "Give --log-likelihood more samples."
            )


def _short(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # no minus before zero
