"""What the scripts that reproduce papers share: sizes, arguments, sweeps, a figure and a table.

Each script has SCALES: `small` for two cores and ten minutes, `full` as the paper. All that is
trained lies below --dir, and is gone on with when the script is called again.
"""

import argparse
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt

from bvae_jax import Config, ScoreConfig, Sweep, compare, sweep, train
from bvae_jax.comparison.base import Comparison
from bvae_jax.errors import UserError
from bvae_jax.objectives import OBJECTIVES
from bvae_jax.plots.style import COLUMN_INCHES, STYLE
from bvae_jax.presets import PRESETS
from bvae_jax.runs.grid import label, text
from bvae_jax.runs.placement import parse_shard

ALL_IMAGES = 737_280
QUICK = {"network": "locatello", "batch_size": 16, "learning_rate": 1e-3, "eval_images": 2048}
"""Changes that let a network learn something within minutes."""
LONG = {"checkpoint_every": 20_000, "eval_every": 20_000}
"""Changes for hundreds of thousands of steps."""
GPU = {
    "precision": "bfloat16", "image_source": "rendered", "log_every": 1000, "eval_every": 50_000,
    "checkpoint_every": 100_000,
}  # fmt: skip
"""Those for the scale `gpu`: as many runs as one GPU trains in minutes."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


class Scale(NamedTuple):
    """A size.

    Attributes:
        changes: of the preset's settings.
        seeds: how many.
        values: of what is varied; what they mean stands in the script.
        points: images that are encoded and scored.
        metrics: as ScoreConfig.metrics.
    """

    changes: dict[str, Any]
    seeds: int
    values: tuple[Any, ...]
    points: int = ALL_IMAGES
    metrics: str = "fast"


class Rival(NamedTuple):
    """An objective, whose settings it has, and its hyperparameter that is varied."""

    objective: str
    preset: str
    strength: str


def arguments(
    doc: str | None,
    name: str,
    scales: Mapping[str, Scale],
    argv: Sequence[str] | None,
    **flags: str,
) -> argparse.Namespace:
    """The command line's `scale`, `shard`, `dir` (of this name and scale) and `figure`.

    Args:
        flags: further ones, and what they are.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = "small: two cores and minutes (default), gpu: one GPU and minutes, full: as the paper"
    parser.add_argument("--scale", choices=scales, default="small", help=sizes)
    parser.add_argument("--dir", type=Path, default=Path("sweeps"), help="where runs lie (sweeps)")
    parser.add_argument("--figures", type=Path, default=Path(__file__).parent / "figures")
    parser.add_argument(
        "--shard", help="train the i-th of n parts, as 1/4, or slurm, of a job array; parts may "
        "run at once, with the same --dir. Without it what they trained is compared",
    )  # fmt: skip
    for flag, meaning in flags.items():
        parser.add_argument(f"--{flag}", help=meaning)
    args = parser.parse_args(argv)
    try:
        parse_shard(args.shard)
    except UserError as error:
        parser.error(str(error))
    args.dir /= f"{name}-{args.scale}"
    figure = name if args.scale == "small" else f"{name}-{args.scale}"
    args.figure = args.figures / f"{figure}.png"
    args.scale = scales[args.scale]
    return args


def settings(preset: str, changes: dict[str, Any], objective: str) -> Config:
    """A preset and changes, without hyperparameters that the objective does not have."""
    theirs = {name for other in OBJECTIVES.values() for name in other.hyper}
    strange = theirs - set(OBJECTIVES[objective].hyper)
    chosen = PRESETS[preset].settings | changes | {"objective": objective}
    return Config.from_dict({name: value for name, value in chosen.items() if name not in strange})


def trained(directory: Path, config: Config, args: argparse.Namespace, **grid: Any) -> Path:
    """The directory of a sweep whose members are done; trains those that are not.

    Raises:
        SystemExit: some are left, after Ctrl-C or with --shard.
    """
    check_done(args.shard, trained_part(directory, config, args, **grid))
    return directory


def trained_part(directory: Path, config: Config, args: argparse.Namespace, **grid: Any) -> Sweep:
    """A sweep whose members are done that are in the shard; trains those that are not.

    Raises:
        SystemExit: some of them are left, after Ctrl-C.
    """
    result = sweep(config, directory, seeds=args.scale.seeds, grid=grid, shard=args.shard)
    if result.left(args.shard):
        check_done(None, result)
    return result


def check_done(shard: str | None, *sweeps: Sweep) -> None:
    """Raise SystemExit if members are left in any: 0 if they are those of other shards."""
    if left := sum(len(one.left()) for one in sweeps):
        told = f"{left} of {sum(map(len, sweeps))} members are left"
        if shard is None:
            raise SystemExit(f"{told}: call it again.")
        print(f"Part {shard} is done; {told} to other parts.")
        raise SystemExit(0)


def trained_run(directory: Path, config: Config) -> Any:
    """The `Run` of a single run, finished, so that it has a summary.

    Raises:
        SystemExit: it was interrupted.
    """
    result = train(config, directory, resume=(directory / "config.json").exists())
    if result.summary is None:
        raise SystemExit("Interrupted: call it again.")
    return result


def scored(*directories: Path, scale: Scale, continuous: str = "", **options: Any) -> Comparison:
    """Sweeps compared, without figures and without the KL taken apart where nothing is said."""
    options = {"figures": False, "decomposition": 0, "baselines": False} | options
    test = min(5000, scale.points // 3)
    fit = min(10_000, scale.points - test)
    score = ScoreConfig(
        scale.metrics, permutations=0, train_points=fit, test_points=test, continuous=continuous
    )
    return compare(*directories, metrics=score, num_points=scale.points, **options).comparison


def compared(args: argparse.Namespace, rivals: Sequence[Rival]) -> Any:
    """A sweep for each rival over its part of `Scale.values`, trained and scored.

    Returns:
        A pandas.DataFrame with a row for each run: `setting`, `objective`, its strength, scores.
    """
    sweeps, labels = [], {}
    for rival, values in zip(rivals, args.scale.values, strict=True):
        config = settings(rival.preset, args.scale.changes, rival.objective)
        grid = {rival.strength: values}
        sweeps.append(trained_part(args.dir / rival.objective, config, args, **grid))
        labels[rival.objective] = rival.strength
    check_done(args.shard, *sweeps)
    directories = [args.dir / rival.objective for rival in rivals]
    members: Any = scored(*directories, scale=args.scale).members
    names = [
        f"`{row['objective']}`, {label({labels[row['objective']]: row[labels[row['objective']]]})}"
        for _, row in members.iterrows()
    ]
    return members.assign(setting=names)


@contextlib.contextmanager
def drawing(
    path: Path, rows: int = 1, columns: int = 1, height: float = 2.2, **options: Any
) -> Iterator[Any]:
    """Axes at one column's width, saved at the end."""
    size = (COLUMN_INCHES, height)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", **options)
        yield axes
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=200)
        plt.close(figure)
    print(path)


def trade_off(axes: Any, members: Any, rivals: Sequence[Rival], x: str, y: str) -> None:
    """Each run as a dot, and a line through the means of each rival, with its strengths."""
    for rival, colour in zip(rivals, COLOURS, strict=False):
        rows = members[members["objective"] == rival.objective]
        means = rows.groupby(rival.strength)[[x, y]].mean()
        axes.plot(rows[x], rows[y], "o", ms=2, mew=0, alpha=0.5, color=colour)
        axes.plot(means[x], means[y], "o-", ms=4, color=colour, label=rival.objective)
        for strength, row in means.iterrows():
            place = {"xytext": (3, 3), "textcoords": "offset points", "fontsize": 6}
            axes.annotate(text(strength), (row[x], row[y]), color=colour, **place)
    axes.legend(frameon=False, fontsize=6)


def print_table(members: Any, columns: Mapping[str, str]) -> None:
    """Markdown: mean and standard deviation over the seeds of each setting."""
    print("\n".join(table(members, columns)))


def table(members: Any, columns: Mapping[str, str]) -> Iterator[str]:
    """Its lines. `columns`: column of `members` -> its heading."""
    yield "| | n | " + " | ".join(columns.values()) + " |"
    yield "| --- |" + " --- |" * (1 + len(columns))
    for setting, rows in members.groupby("setting", sort=False):
        means, deviations = rows[list(columns)].mean(), rows[list(columns)].std()
        digits = {name: 2 if abs(mean) >= 1 else 3 for name, mean in means.items()}
        cells = [f"{means[c]:.{d}f} ± {deviations[c]:.{d}f}" for c, d in digits.items()]
        line = " | ".join(cells).replace(" ± nan", "").replace("nan", "")
        yield f"| {setting} | {len(rows)} | {line} |"
