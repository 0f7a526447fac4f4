"""`bvae evaluate`, `bvae compare` and `bvae suggest`."""

import dataclasses
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bvae_jax.cli.flags import QUIET, Flag, Flags, group, of_dataclass, of_function, parse
from bvae_jax.config import ScoreConfig, flag
from bvae_jax.errors import UserError
from bvae_jax.files import write_json
from bvae_jax.files.codes_file import check_codes

OF_FILES = ("path", "json", "baselines", "udr_with", "out", "quiet", "score")
"""Flags of `bvae evaluate` that fit an .npz file, too."""
GENERALISED = {"correlated": ("all images alike", "as --correlate draws them")}
"""What the two sides of a comparison are called, where they are no split and training images."""
ELBO_SETTINGS = ("decomposition", "log_likelihood", "log_likelihood_images")


def evaluate_flags() -> Flags:
    """Those of `bvae evaluate`."""
    from bvae_jax.evaluation.elbo import evaluate_elbo
    from bvae_jax.evaluation.evaluate import evaluate
    from bvae_jax.runs.run import load

    loading, parts = of_function(load), of_function(evaluate_elbo)
    return QUIET | {
        "path": Flag(
            Path,
            "Directory of a run, hf:USER/NAME, or an .npz file from any framework with codes "
            "[n, latent] and factors [n, factor] (class indices or strings), and perhaps logvars, "
            "codes_test and factors_test, factor_sizes, factor_names, kl [latent], continuous "
            "(which factors are numbers).",
            positional=True,
            required=True,
        ),
        **of_function(evaluate, "run", "metrics", "progress"),
        "step": loading["step"],
        "dataset": loading["dataset"],
        "beta": loading["beta"],
        "decomposition": parts["decomposition"],
        "log_likelihood": parts["log_likelihood"],
        "log_likelihood_images": parts["images"],
        "json": Flag(Path, "Write the scores to this file."),
        "out": Flag(Path, "Of an .npz file: draw figures in this directory."),
        "score": group("score", of_dataclass(ScoreConfig)),
    }


def evaluate(argv: Sequence[str]) -> int:
    """Score a run by disentanglement metrics (--metrics none: by none), and take its ELBO apart;
    leaves evaluation.json, elbo.json and figures in it. Or score a representation in a file."""
    if argv and argv[0].endswith(".npz"):  # before anything heavy is imported
        check_codes(Path(argv[0]).expanduser())
    given = parse(argv, "bvae evaluate", evaluate.__doc__, evaluate_flags)
    from bvae_jax.evaluation import elbo
    from bvae_jax.evaluation import evaluate as evaluation
    from bvae_jax.evaluation.generalisation import SPLITS
    from bvae_jax.runs import run as runner
    from bvae_jax.runs.encode import of_split

    config, path = ScoreConfig(**given["score"]), given["path"].expanduser()
    common: Any = {name: given[name] for name in ("baselines", "udr_with") if name in given}
    common["progress"] = progress = not given.get("quiet", False)
    json = _checked_json(given.get("json"))
    if path.suffix == ".npz" or path.is_file():
        strange = [flag(name) for name in given if name not in OF_FILES]
        if strange:
            raise UserError(f"{', '.join(strange)}: got a file, {path}: wanted a run for that.")
        entries = evaluation.score_file(path, config, figures=given.get("out"), **common)
        print_scores(entries)
        if json:
            write_json(json, entries)
        return 0
    if "out" in given:
        raise UserError("--out: a run's figures are in its own directory: leave it out.")
    flags = evaluate_flags()
    settings = [given.get(name, flags[name].default) for name in ELBO_SETTINGS]
    elbo.check_settings(*settings)
    scored = config.metrics != "none"
    if not (scored or any(settings[:2]) or config.split in SPLITS):
        raise UserError(
            "--metrics none: wanted at least --decomposition, --log-likelihood or --split then."
        )
    count, figures = given.get("num_points"), given.get("figures", True)
    try:
        options: Any = {name: given.get(name) for name in ("step", "dataset", "beta")}
        run = runner.load(path, **options, progress=progress)
        if scored:
            entries = evaluation.evaluate(run, config, num_points=count, figures=figures, **common)
            print_scores(entries)
            if json:
                write_json(json, entries)
            print(run.run_dir / of_split(evaluation.EVALUATION, config.split))
        found = elbo.evaluate_elbo(
            run, *settings, num_points=count, split=config.split, progress=progress
        )
    except KeyboardInterrupt:
        again = shlex.join(["bvae", "evaluate", *argv])
        print(f"Interrupted; what was computed is kept. Go on with: {again}")
        return 130
    if found:
        print_elbo(found)
        print(run.run_dir / of_split(elbo.ELBO, config.split))
    return 0


def _checked_json(path: Path | None) -> Path | None:
    """Where scores are written, so that it is known now, not after minutes of scoring.

    Raises:
        UserError: nothing can be written there.
    """
    if path is None:
        return None
    path = path.expanduser()
    if path.is_dir():
        raise UserError(f"--json: {path} is a directory, wanted the name of a file.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def print_scores(entries: dict[str, Any]) -> None:
    """A table of all scores that are one number; what was skipped and noted stands below it.

    Raises:
        UserError: all were skipped.
    """
    from bvae_jax.metrics import METRICS

    rows, below = [], []
    for name, entry in entries.items():
        if "skipped" in entry:
            below.append(f"{name}: skipped: {entry['skipped']}")
            continue
        below += [f"{name}: {note}" for note in entry.get("notes", ())]
        below += [entry["mixing"]["sentence"]] if "mixing" in entry else []
        for baseline, scores in entry.get("baselines", {}).items():
            below += [f"{name} of {baseline}: {note}" for note in scores.get("notes", ())]
        for number in (METRICS[name].headline, *METRICS[name].others):
            label = name if number == "score" else f"{name} {number}"
            rows.append({"": label} | _columns(entry, number, METRICS[name].headline))
    columns = list(dict.fromkeys(column for row in rows for column in row))
    baselines = {name for entry in entries.values() for name in entry.get("baselines", {})}
    columns.sort(key=lambda column: column in baselines)
    table = [columns, *([row.get(column, "") for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    for line in table if rows else ():
        first, *others = zip(line, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
        print("  ".join(cells).rstrip())
    if any("repeats" in entry for entry in entries.values()):
        below.append(
            "95 % interval: of the mean over repeated evaluations of the same codes, each with "
            "its own points and votes. Runs with different training seeds may differ by more."
        )
    for line in below:
        print(line)
    if not rows:
        raise UserError("Nothing could be scored: the reasons stand above.")


def _columns(entry: dict[str, Any], number: str, headline: str) -> dict[str, str]:
    """What stands in a number's line of the table."""
    columns = {"score": _short(entry[number])}
    if "repeats" in entry:
        of = entry["repeats"][number]
        columns = {
            "mean": _short(of["mean"]),
            "95 % interval": f"[{_short(of['low'])}, {_short(of['high'])}]",
        }
    columns["n"] = f"{entry['n']:,}"
    if number == headline and "null" in entry:
        columns["null"] = _short(entry["null"]["mean"])
    for baseline, scores in entry.get("baselines", {}).items():
        columns[baseline] = _short(scores[number])
    return columns


def _short(value: Any) -> str:
    if not isinstance(value, float | str):
        return str(value)
    return "n/a" if math.isnan(number := float(value)) else f"{number:.4f}"


def print_elbo(found: dict[str, dict[str, Any]]) -> None:
    """Both results in lines for people; errors are standard errors."""
    from bvae_jax.evaluation.log_likelihood import FEW

    for name, of in found.items():
        if "skipped" in of:
            print(f"{name.replace('_', ' ')}: skipped: {of['skipped']}")
    found = {name: of for name, of in found.items() if "skipped" not in of}
    if "generalisation" in found:
        of = found["generalisation"]
        here, there = GENERALISED.get(split := of["request"]["split"], (split, "training images"))
        for name, label in (("nll", "NLL"), ("kl", "KL"), ("mse", "squared error")):
            if name in of:
                of_these, train, gap = (
                    f"{of[key]:.4g} ± {of[key + '_error']:.2g}"
                    for key in (name, f"{name}_train", f"{name}_gap")
                )
                unit = "mean over pixels" if name == "mse" else "nats"
                numbers = f"{of['images']:,} and {of['train_images']:,} images"
                print(f"{here}: {label} {of_these}, {there} {train}, gap {gap} "
                      f"({unit}; {numbers})")  # fmt: skip
        if "mig" in of:
            print(f"{here}: MIG {_short(of['mig'])}, {there} {_short(of['mig_train'])} "
                  f"({of['points']:,} points of each)")  # fmt: skip
    if "decomposition" in found:
        of = found["decomposition"]
        terms = "  ".join(
            f"{label} {f'{round(of[name], 2) + 0.0:.2f}'} ± {of[name + '_error']:.2f}"
            for label, name in (
                ("index-code mutual information", "mutual_information"),
                ("+ total correlation of samples", "total_correlation"),
                ("+ dimension-wise KL", "dimension_wise_kl"),
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


SWEEP_DIRS = Flag(
    tuple[Path, ...],
    "Directories of sweeps, or of runs for many β (--multi-rate), on the same data set.",
    positional=True,
    required=True,
)


def compare_flags() -> Flags:
    """Those of `bvae compare`."""
    from bvae_jax.comparison.compare import compare

    flags = of_function(compare, "metrics", "commands", "progress") | QUIET
    flags["statistic"] = Flag(
        tuple[str, ...],
        "Scores of which paired tests across seeds are printed in words; all are in statistics.md.",
    )
    fields = of_dataclass(ScoreConfig, default=of_function(compare)["metrics"].default)
    return flags | {"sweep_dirs": SWEEP_DIRS, "score": group("score", fields)}


def compare(argv: Sequence[str]) -> int:
    """Compare the members of sweeps: evaluate those that are not, and leave table.csv, .md and
    .tex, statistics.md and .json, figures/ and report.html."""
    given = parse(argv, "bvae compare", compare.__doc__, compare_flags)
    from bvae_jax.comparison.base import find_scores, known_scores
    from bvae_jax.comparison.compare import compare as run_compare
    from bvae_jax.comparison.findings import seeds_text, statistics_text
    from bvae_jax.comparison.rates import differences, differences_text
    from bvae_jax.comparison.tables import to_markdown
    from bvae_jax.metrics.scoring import metric_names

    default = of_function(run_compare)["metrics"].default
    score = dataclasses.replace(default, **given.pop("score"))
    statistics = given.pop("statistic", ())
    if statistics:
        possible = known_scores(metric_names(score.metrics))
        statistics = find_scores(statistics, possible, "--statistic")
    command = shlex.join(["bvae", "compare", *argv])
    directories, progress = given.pop("sweep_dirs"), not given.pop("quiet", False)
    try:
        compared = run_compare(
            *directories, metrics=score, commands=[command], progress=progress, **given
        )
    except KeyboardInterrupt:
        print(f"Interrupted; what was evaluated is kept. Go on with: {command}")
        return 130
    comparison = compared.comparison
    print(to_markdown(compared.shown))
    print(f"All {len(comparison.scores)} scores are in the files below.\n")
    print(seeds_text(compared.statistics))
    print(differences_text(differences(comparison)), end="")
    if statistics:
        known = compared.statistics
        print(statistics_text(known[score] for score in statistics if score in known))
    print(" ".join(str(path) for path in compared.files if path.suffix not in (".png", ".pdf")))
    return 0


def suggest_flags() -> Flags:
    """Those of `bvae suggest`."""
    from bvae_jax.comparison.suggest import suggest

    return of_function(suggest, "progress") | QUIET | {"sweep_dirs": SWEEP_DIRS}


def suggest(argv: Sequence[str]) -> int:
    """Choose a setting of a sweep without labels: by how far its seeds agree (UDR), or by a target
    for the KL. Leaves suggestion.json."""
    given = parse(argv, "bvae suggest", suggest.__doc__, suggest_flags)
    from bvae_jax.comparison.suggest import FILE, in_words
    from bvae_jax.comparison.suggest import suggest as run_suggest

    directories, progress = given.pop("sweep_dirs"), not given.pop("quiet", False)
    try:
        found = run_suggest(*directories, progress=progress, **given)
    except KeyboardInterrupt:
        again = shlex.join(["bvae", "suggest", *argv])
        print(f"Interrupted; what was encoded is kept. Go on with: {again}")
        return 130
    print(in_words(found))
    print(given.get("out", directories[0]) / FILE)
    return 0
