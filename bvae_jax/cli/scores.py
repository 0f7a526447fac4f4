"""What `bvae evaluate` and `bvae score` share: flags, and how scores are shown and written."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bvae_jax.config import ScoreConfig
from bvae_jax.errors import UserError


@dataclass(frozen=True)
class OutputFlags:
    """What to score besides, and where to write it."""

    baselines: bool = False
    """Score other representations of the same points alike: random codes, the true factors and,
    of a run, the untrained encoder, PCA, ICA and raw pixels."""
    udr_with: tuple[Path, ...] = ()
    """Other runs (or files) of the same data with different seeds, for udr."""
    json: Path | None = None
    """Write the scores to this file."""
    quiet: bool = False
    """No progress bar."""


def check_flags(config: ScoreConfig, flags: OutputFlags) -> None:
    """Find now what would go wrong after minutes of scoring.

    Raises:
        UserError: a metric is not known, or --json cannot be written.
    """
    from bvae_jax.metrics.scoring import metric_names

    if metric_names(config.metrics) == ("udr",) and not flags.udr_with:
        raise UserError("--metrics udr: it compares runs, give the others by --udr-with.")
    if flags.json is not None:
        path = flags.json.expanduser()
        if path.is_dir():
            raise UserError(f"--json: {path} is a directory, wanted the name of a file.")
        path.parent.mkdir(parents=True, exist_ok=True)


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
        for baseline, scores in entry.get("baselines", {}).items():
            below += [f"{name} of {baseline}: {note}" for note in scores.get("notes", ())]
        for number in (METRICS[name].headline, *METRICS[name].others):
            label = name if number == "score" else f"{name} {number}"
            rows.append({"": label} | _columns(entry, number, METRICS[name].headline))
    columns = list(dict.fromkeys(column for row in rows for column in row))
    columns.sort(key=lambda column: column in _baselines(entries))
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


def _baselines(entries: dict[str, Any]) -> set[str]:
    return {name for entry in entries.values() for name in entry.get("baselines", {})}


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


def write_scores(path: Path | None, entries: dict[str, Any]) -> None:
    """To a JSON file: name of the metric -> scores."""
    from bvae_jax.runs.rundir import write_json

    if path is not None:
        write_json(path.expanduser(), entries)
