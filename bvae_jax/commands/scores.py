"""What `bvae evaluate` and `bvae score` share: flags, and how scores are shown and written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bvae_jax.errors import UserError


@dataclass(frozen=True)
class ScoreFlags:
    """How to score."""

    metrics: str = "all"
    """all, fast, or names with commas, as mig,dci."""
    repeats: int = 1
    """Score so often, with other seeds: mean, standard deviation, 95 % interval."""
    baselines: bool = False
    """Score other representations of the same points alike: random codes, the true factors and,
    of a run, the untrained encoder, PCA, ICA and raw pixels."""
    train_points: int = 10_000
    """Points to compute a score from, or to fit on."""
    test_points: int = 5_000
    """Points to test fitted predictors on."""
    permutations: int = 20
    """Of the factors, for the null of scores that rest on mutual information. 0: none."""
    compat: bool = False
    """Where original implementations have known faults, give their scores."""
    seed: int = 0
    """Seed of the evaluation."""
    udr_with: tuple[Path, ...] = ()
    """Other runs (or files) of the same data with other seeds, for udr."""
    json: Path | None = None
    """Write the scores to this file."""
    quiet: bool = False
    """No progress bar."""


_RANGES = {
    "repeats": (1, 10_000),
    "train_points": (2, 10**9),
    "test_points": (1, 10**9),
    "permutations": (0, 10**6),
    "seed": (0, 2**31 - 1),
}


def settings_of(flags: ScoreFlags) -> Any:
    """The `scoring.Settings` that the flags ask for.

    Raises:
        UserError: a value is out of its range, or a metric is not known.
    """
    from bvae_jax.scoring import Settings, metric_names

    for name, (low, high) in _RANGES.items():
        value = getattr(flags, name)
        if not low <= value <= high:
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag}: got {value}, wanted a whole number from {low} to {high}.")
    if flags.json is not None and flags.json.expanduser().is_dir():
        raise UserError(f"--json: {flags.json} is a directory, wanted the name of a file.")
    names = metric_names(flags.metrics)
    if flags.metrics == "udr" and not flags.udr_with:
        raise UserError("--metrics udr: it compares runs, give the others by --udr-with.")
    return Settings(
        metrics=names,
        seed=flags.seed,
        repeats=flags.repeats,
        train_points=flags.train_points,
        test_points=flags.test_points,
        permutations=flags.permutations,
        compat=flags.compat,
    )


def print_scores(entries: dict[str, Any]) -> None:
    """A line for each number: score, interval, null, baselines."""
    from bvae_jax.metrics import METRICS

    for name, entry in entries.items():
        if "skipped" in entry:
            print(f"{name:18s} skipped: {entry['skipped']}")
            continue
        metric = METRICS[name]
        for number in (metric.headline, *metric.others):
            label = name if number == "score" else f"{name} {number}"
            print(f"{label:44s} {_shown(entry, number)}")
        for note in entry.get("notes", ()):
            print(f"{name:18s} note: {note}")


def _shown(entry: dict[str, Any], number: str) -> str:
    if "repeats" in entry:
        of = entry["repeats"][number]
        text = f"{of['mean']:8.4f} [{of['low']:.4f}, {of['high']:.4f}]"
    else:
        text = f"{float(entry[number]):8.4f}"
    text += f"  n {entry['n']:,}"
    if number == "score" and "null" in entry:
        text += f"  null {entry['null']['mean']:.4f} (p {entry['null']['p']:.3f})"
    for baseline, scores in entry.get("baselines", {}).items():
        text += f"  {baseline} {float(scores[number]):.4f}"
    return text


def write_scores(path: Path | None, entries: dict[str, Any]) -> None:
    """To a JSON file: name of the metric -> scores."""
    from bvae_jax.rundir import write_json

    if path is not None:
        path = path.expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, entries)
