"""Figures of how the numbers of runs depend on their setting."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter

from bvae_jax.plots.run import LOSSES, SPLIT_LABELS
from bvae_jax.plots.style import (
    COLOURS,
    DASHES,
    LONGEST,
    MARKERS,
    Curve,
    free_labels,
    label_steps,
    legend_below,
    panels,
    short_name,
    zoom_past_start,
)

Interval = tuple[float, float, float]  # centre, low, high
CHARACTERS = 60  # that a line takes at the size of tick labels
SEED: dict[str, Any] = {"linestyle": "", "marker": "o", "markeredgewidth": 0, "alpha": 0.5}
BASELINES = [(grey, dash) for dash in ((4, 2), (1, 1), (6, 1, 1, 1)) for grey in ("0", "0.6")]
OVERHANG = 0.5  # of an interval beyond the seeds, at most, as a share of what these span
LEAST = 1e-3 / 3  # nats: what is less is drawn there
MOST_POINTS = 200  # of a curve: more are closer than a printed line is wide
DOTS: dict[str, Any] = {"ls": "", "ms": 2.5, "mew": 0.6}
EVALUATED: dict[str, dict[str, Any]] = {
    "train_eval": {"marker": "s", "zorder": 4},
    "holdout": {"marker": "o", "mfc": "white", "zorder": 5},
}


class Setting(NamedTuple):
    """What runs share that differ in their seed only.

    Attributes:
        label: as "β = 4"; no two settings share one.
        value: of the field that varies, where that is one number.
    """

    label: str
    value: float | None


def colours(settings: Sequence[Setting]) -> Float[np.ndarray, "setting 4"]:
    """RGBA of each setting: in order, even in lightness, dark enough on white."""
    return plt.get_cmap("plasma")(np.linspace(0, 0.82, len(settings)))


def is_numeric(settings: Sequence[Setting]) -> bool:
    """Whether settings are increasing numbers."""
    values = np.array([s.value for s in settings], float)  # None becomes nan
    return bool(np.isfinite(values).all() and (np.diff(values) > 0).all())


def places(settings: Sequence[Setting]) -> Float[np.ndarray, " setting"]:
    """Places of settings along x: their values, the logarithms of these, or 0, 1, 2, ...

    Logarithms are taken of positive values that spread over more than a decade.
    """
    if not is_numeric(settings):
        return np.arange(float(len(settings)))
    values = np.array([s.value for s in settings], float)
    return np.log10(values) if 0 < 10 * values[0] < values[-1] else values


def around(x: Float[np.ndarray, " setting"], number: int, count: int) -> np.ndarray:
    """Places of `count` seeds side by side around setting `number`, apart from its neighbours."""
    return x[number] + 0.3 * _pitch(x) * (
        np.linspace(-1, 1, count) if count > 1 else np.zeros(count)
    )


def _pitch(x: Float[np.ndarray, " setting"]) -> float:
    """How far settings are apart along x where that is least, or less where they are few."""
    return float(min(np.diff(x).min(), np.ptp(x) / 5)) if len(x) > 1 else 0.2


def put_settings(shared: Sequence[Axes], settings: Sequence[Setting], xlabel: str) -> None:
    """Ticks along x at the settings; to be called when all else is drawn.

    Names that do not fit side by side are turned; what still does not fit has a tick alone.

    Args:
        shared: axes of equal width with the same x.
    """
    x, numeric = places(settings), is_numeric(settings)
    names = [short_name(s.label, LONGEST) for s in settings]
    labels = [f"{s.value:.4g}" for s in settings] if numeric else names
    axes = shared[0]
    axes.set_xticks(x, labels)
    edge = max(0.6 * _pitch(x), 0.04 * np.ptp(x))
    axes.set_xlim(x[0] - edge, x[-1] + edge)
    for each in shared:
        each.set_xlabel(xlabel)
    # Names far too long to stand side by side leave no width to the axes: turned before they do.
    turned = not numeric and len(shared) * sum(map(len, names)) > CHARACTERS
    kept = [False] if turned else free_labels(axes)
    if not numeric and not all(kept):
        for each in shared:
            each.tick_params(axis="x", labelrotation=90)
        kept = free_labels(axes)
    axes.set_xticks(x, [label if k else "" for label, k in zip(labels, kept, strict=True)])


def legend_of_settings(settings: Sequence[Setting], **look: Any) -> list[Line2D]:
    """A line for each setting in its colour."""
    names = [short_name(s.label, LONGEST) for s in settings]
    pairs = zip(names, colours(settings), strict=True)
    return [Line2D([], [], color=colour, label=name, **look) for name, colour in pairs]


def by_setting(members: pd.DataFrame, settings: Sequence[Setting], column: str) -> list[np.ndarray]:
    """The column's numbers in each setting, by seed; an empty array where there is none."""
    ordered = members.sort_values("seed") if "seed" in members else members
    return [
        ordered.loc[ordered["setting"] == s.label, column].to_numpy(np.float64) for s in settings
    ]


def mean(values: Float[np.ndarray, "seed ..."]) -> np.ndarray:
    """Over seeds, without what is not finite; nan where nothing is left."""
    finite = np.isfinite(values)
    total = np.where(finite, values, 0).sum(axis=0)
    counts = finite.sum(axis=0)
    return np.where(counts, total / np.maximum(counts, 1), np.nan)


def save_rate_distortion(path: Path, members: pd.DataFrame, *families: Sequence[Setting]) -> None:
    """Rate against distortion of every seed, the settings' means, and lines of equal ELBO.

    The means of a family are joined where its settings are increasing numbers.
    As figure 3 of Alemi et al. 2018, "Fixing a Broken ELBO": ELBO = −(distortion + rate).

    Args:
        members: columns `setting`, `kl` (the rate) and `nll` (the distortion), nats per image.
        families: settings that belong together; those of the second, ... are drawn as squares, ...
    """
    settings = [setting for family in families for setting in family]
    looks = [look for family, look in zip(families, MARKERS, strict=False) for _ in family]
    pairs = zip(*(by_setting(members, settings, name) for name in ("kl", "nll")), strict=True)
    points = [np.stack(pair, axis=1) for pair in pairs]
    means = np.stack([mean(group) for group in points])
    steps, start = [], 0
    for family in families:
        part = means[start : (start := start + len(family))]
        known = part[np.isfinite(part).all(axis=1)]
        steps += [np.linspace(*ends, 20) for ends in pairwise(known) if is_numeric(family)]
    with panels(path, [2.3]) as (figure, grid):
        axes = grid[0, 0]
        for line in steps:
            axes.plot(*line.T, color="0.3", lw=0.8, zorder=2)
        shades = np.concatenate([colours(family) for family in families])
        for group, centre, colour, look in zip(points, means, shades, looks, strict=True):
            axes.plot(*group.T, color=colour, markersize=2.5, zorder=3, **SEED)
            axes.plot(*centre, look, color=colour, ms=4.5, mec="white", mew=0.5, zorder=4)
        axes.margins(0.09)
        axes.set_xlabel("rate: KL(q(z|x) || p(z)) (nats per image)")
        axes.set_ylabel("distortion: −log p(x|z)\n(nats per image)")
        _draw_equal_elbo(axes, np.concatenate([*points, *steps]))
        handles = [
            handle
            for family, look in zip(families, MARKERS, strict=False)
            for handle in legend_of_settings(family, linestyle="", marker=look, markersize=4)
        ]
        handles += [Line2D([], [], color="0.75", lw=0.6, label="equal ELBO")]
        legend_below(figure, handles)


def _draw_equal_elbo(axes: Axes, points: Float[np.ndarray, "point 2"]) -> None:
    """Lines of equal x + y, each with its number where it is farthest from points and numbers."""
    corner = np.array([axes.get_xlim()[0], axes.get_ylim()[0]])
    size = np.array([axes.get_xlim()[1], axes.get_ylim()[1]]) - corner
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())  # lines do not widen the view
    taken = (points[np.isfinite(points).all(axis=1)] - corner) / size
    for level in MaxNLocator(7).tick_values(corner.sum(), (corner + size).sum()):
        x = corner[0] + size[0] * np.linspace(0, 1, 101)
        axes.axline((x[0], level - x[0]), slope=-1, color="0.8", lw=0.5, zorder=0)
        spots = (np.stack([x, level - x], axis=1) - corner) / size
        spots = spots[(np.abs(spots - 0.5) < 0.42).all(axis=1)]
        room = np.linalg.norm(spots[:, None] - taken, axis=2).min(axis=1, initial=np.inf)
        if not spots.size or room.max() < 0.1:
            continue
        spot = spots[room.argmax()]
        taken = np.concatenate([taken, [spot]])
        at, number = corner + size * spot, f"{-level:g}".replace("-", "−")
        axes.text(
            at[0], at[1], number, color="0.4", size=5, ha="center", va="center", zorder=1,
            rotation=-45, rotation_mode="anchor", transform_rotates_text=True,
            bbox={"facecolor": "white", "linewidth": 0, "pad": 0.4},
        )  # fmt: skip


def save_scores(
    path: Path,
    members: pd.DataFrame,
    settings: Sequence[Setting],
    scores: Mapping[str, Sequence[Interval]],
    baselines: Mapping[str, Mapping[str, float]],
    xlabel: str,
    titles: Mapping[str, str] = {},
    average: str = "mean",
) -> None:
    """A panel for each score: every seed, the average with its 95% interval, and baselines.

    Seeds, averages and baselines decide what y shows; a much wider interval runs out of the panel.

    Args:
        members: columns `setting`, `seed` and the scores.
        scores: score -> (centre, low, high) for each setting.
        baselines: baseline -> score -> value.
        titles: of the panels, by score; the score's name where there is none.
        average: what the centres are, in words.
    """
    columns, heights = _layout(len(scores), settings)
    looks = {name: BASELINES[i % len(BASELINES)] for i, name in enumerate(baselines)}
    with panels(path, heights, columns, sharex=True) as (figure, grid):
        shown = list(grid.flat[: len(scores)])
        for axes in grid.flat[len(scores) :]:
            axes.remove()
        for axes, (score, intervals) in zip(shown, scores.items(), strict=True):
            seeds = by_setting(members, settings, score)
            levels = [baselines[name].get(score, np.nan) for name in looks]
            _draw_score(axes, settings, seeds, intervals)
            for level, (grey, dashes) in zip(levels, looks.values(), strict=True):
                axes.axhline(level, color=grey, dashes=dashes, lw=0.7, zorder=1)
            _fit(axes, np.concatenate([*seeds, levels, [c for c, _, _ in intervals]]), intervals)
            found = np.concatenate(seeds)
            if np.array_equal(found, found.round()):  # numbers of latents
                axes.yaxis.get_major_locator().set_params(integer=True)
            title = textwrap.wrap(titles.get(score, score), 48 // columns, break_on_hyphens=False)
            axes.set_title("\n".join(title), loc="left", size=6, pad=3)
        for axes in shown[-columns:]:
            axes.tick_params(labelbottom=True)
        put_settings(shown[-columns:], settings, xlabel)
        handles = []
        if members["setting"].duplicated().any():
            handles += [Line2D([], [], color=colours(settings)[0], ms=3, label="a seed", **SEED)]
        known = any(np.isfinite(low) for found in scores.values() for _, low, _ in found)
        label = f"{average}, 95% interval" if known else average
        handles += [Line2D([], [], color="0", marker="o", ms=2.5, label=label, ls="-" * known)]
        for name, (grey, dashes) in looks.items():
            handles += [Line2D([], [], color=grey, dashes=dashes, lw=0.7, label=short_name(name))]
        legend_below(figure, handles)


def _layout(count: int, settings: Sequence[Setting]) -> tuple[int, list[float]]:
    """Columns of panels, and the height of each row in inches."""
    columns = min(3, -(-count // 3))
    if not is_numeric(settings):  # names need more room than numbers
        columns = max(1, min(columns, 24 // len(settings)))
    rows = -(-count // columns)
    return columns, [0.75 if rows > 3 else 1.1] * rows


def _draw_score(
    axes: Axes,
    settings: Sequence[Setting],
    seeds: Sequence[Float[np.ndarray, " _"]],
    intervals: Sequence[Interval],
) -> None:
    x = places(settings)
    for number, (values, colour) in enumerate(zip(seeds, colours(settings), strict=True)):
        axes.plot(around(x, number, len(values)), values, color=colour, ms=2.2, **SEED)
    centre, low, high = np.array(intervals).T
    axes.vlines(x, low, high, color="0", lw=0.8, zorder=3)
    axes.plot(x, centre, "o", color="0", ms=2, zorder=3)
    if is_numeric(settings):
        axes.plot(x, centre, color="0.5", lw=0.6, zorder=1)


def _fit(axes: Axes, values: np.ndarray, intervals: Sequence[Interval]) -> None:
    """Show all values, and the intervals as far as they do not dwarf them."""
    values = values[np.isfinite(values)]
    if not values.size:
        return
    span = np.ptp(values) or abs(values[0]) or 1.0
    ends = np.array([*values, *(end for _, *both in intervals for end in both)])
    ends = ends[np.isfinite(ends)]
    low = max(ends.min(), values.min() - OVERHANG * span)
    high = min(ends.max(), values.max() + OVERHANG * span)
    margin = 0.06 * ((high - low) or span)
    axes.set_ylim(low - margin, high + margin)
    axes.yaxis.set_major_locator(MaxNLocator(3 if axes.bbox.height < 90 else 4))


def save_kl_spectrum(
    path: Path,
    kl: Mapping[str, Float[np.ndarray, "_seed _latent"]],
    settings: Sequence[Setting],
    xlabel: str,
) -> None:
    """The KL of each run's latents from the largest to the smallest, in every setting.

    A line joins the means over seeds of the same rank where settings are numbers. The smallest is
    in the lowest decade; what is below `LEAST` is drawn at the lower edge.

    Args:
        kl: setting -> for each seed the KL of its latents in nats, in any order.
    """
    spectra = _spectra(kl, settings)
    means = np.stack([mean(spectrum) for spectrum in spectra])
    shades = plt.get_cmap("viridis")(np.linspace(0, 0.85, means.shape[1]))
    x = places(settings)
    with panels(path, [2.2, 0.07]) as (figure, grid):
        axes, bar = grid[:, 0]
        for rank, shade in enumerate(shades):
            for number, spectrum in enumerate(spectra):
                values = np.maximum(spectrum[:, rank], LEAST)
                axes.plot(around(x, number, len(values)), values, color=shade, ms=1.6, **SEED)
            joined = "-" if is_numeric(settings) else ""
            look = {"marker": "o", "ms": 2.5, "lw": 0.8, "ls": joined, "clip_on": False}
            axes.plot(x, np.maximum(means[:, rank], LEAST), color=shade, **look)
        known = np.concatenate([s[np.isfinite(s)] for s in spectra])
        decade = 10 ** np.floor(np.log10(max(LEAST, known.min(initial=0.5))))
        ends = max(LEAST, decade), 1.6 * known.max(initial=1)
        axes.set(yscale="log", ylim=ends, ylabel="KL of a latent (nats)")
        axes.yaxis.set_major_formatter("{x:g}")  # and not 10 to a power, which is mathematics
        axes.yaxis.set_minor_formatter(NullFormatter())
        _draw_ranks(figure, bar, shades)
        put_settings([axes], settings, xlabel)


def _spectra(
    kl: Mapping[str, Float[np.ndarray, "_seed _latent"]], settings: Sequence[Setting]
) -> list[np.ndarray]:
    """[seed, rank] of each setting, falling along ranks; nan where a run has fewer latents."""
    ranks = max((k.shape[1] for k in kl.values()), default=1)
    runs = [kl.get(s.label, np.empty((0, ranks))) for s in settings]
    full = [np.pad(k, ((0, 0), (0, ranks - k.shape[1])), constant_values=np.nan) for k in runs]
    return [-np.sort(-k, axis=1) for k in full]  # nan last


def _draw_ranks(figure: Figure, bar: Axes, shades: Float[np.ndarray, "rank 4"]) -> None:
    """The colour of each rank."""
    ranks = len(shades)
    mapped = ScalarMappable(BoundaryNorm(np.arange(ranks + 1) + 0.5, ranks))
    mapped.set_cmap(ListedColormap(list(shades)))
    drawn = figure.colorbar(mapped, cax=bar, orientation="horizontal")
    drawn.set_label("rank of the latent in its run by KL (1: largest)")
    drawn.set_ticks(np.unique(np.linspace(1, ranks, min(ranks, 10)).round()).tolist())
    drawn.minorticks_off()


def save_factor_scores(
    path: Path,
    shares: pd.DataFrame,
    settings: Sequence[Setting],
    xlabel: str,
    ylabel: str,
    intervals: Mapping[str, Sequence[Interval]] = {},
) -> None:
    """The mean over seeds for each factor, a line where settings are numbers, with every seed.

    Args:
        shares: column `setting`, maybe `seed`, and one for each factor; those without any number
            are left out.
        ylabel: what the numbers are, and their unit.
        intervals: factor -> (centre, low, high) for each setting; nan: none is drawn.
    """
    columns = shares.columns[shares.notna().any()]
    factors = [name for name in columns if name not in ("setting", "seed")]
    x = places(settings)
    with panels(path, [2.0]) as (figure, grid):
        axes, handles = grid[0, 0], []
        for number, factor in enumerate(factors):
            colour, turn = COLOURS[number % len(COLOURS)], number // len(COLOURS)
            seeds = by_setting(shares, settings, factor)
            for place, values in enumerate(seeds):
                axes.plot(around(x, place, len(values)), values, color=colour, ms=1.6, **SEED)
            look = {"ls": DASHES[turn % len(DASHES)] if is_numeric(settings) else ""}
            look["marker"] = MARKERS[number % len(MARKERS)]
            means = [mean(values) for values in seeds]
            handles += axes.plot(
                x, means, color=colour, ms=3, label=short_name(str(factor)), **look
            )
            _, low, high = np.array(intervals.get(factor, [(np.nan,) * 3] * len(x))).T
            axes.vlines(x, low, high, color=colour, lw=0.8)
        axes.set_ylim(min(0, axes.get_ylim()[0]), axes.get_ylim()[1])
        axes.set_ylabel(ylabel)
        legend_below(figure, handles)
        put_settings([axes], settings, xlabel)


def save_learning_curves(
    path: Path,
    runs: Mapping[str, Sequence[Mapping[str, Mapping[str, Curve]]]],
    settings: Sequence[Setting],
) -> None:
    """Negative log-likelihood, KL and ELBO against the step: seeds thin, their mean thick.

    Means are taken over the steps that all seeds of a setting have reached.

    Args:
        runs: setting -> for each seed "nll", "kl", "elbo" -> split -> curve. The lines are training
            batches; dots compare training images with held-out ones at the same parameters.
    """
    with panels(path, [1.2] * len(LOSSES), sharex=True) as (figure, grid):
        seen, last = set(), 1.0
        for axes, (name, title) in zip(grid[:, 0], LOSSES.items(), strict=True):
            drawn = []
            for setting, colour in zip(settings, colours(settings), strict=True):
                found = [_finite(run.get(name, {})) for run in runs.get(setting.label, ())]
                train = [curves["train"] for curves in found if "train" in curves]
                alpha = np.clip(4 / max(len(train), 1), 0.06, 0.4)  # many seeds hide the means
                for curve in train:
                    axes.plot(*_thinned(curve), color=colour, lw=0.4, alpha=alpha)
                _draw_mean(axes, train, {"color": colour, "lw": 1.2, "zorder": 3})
                for split, look in EVALUATED.items():
                    dots = [curves[split] for curves in found if split in curves]
                    _draw_mean(axes, dots, DOTS | look | {"color": colour})
                    seen |= {split} if dots else set()
                drawn += [curve for curves in found for curve in curves.values()]
            axes.set_ylabel(f"{title}\n(nats per image)")
            zoom_past_start(axes, drawn)
            last = max([last, *(curve[0, -1] for curve in drawn)])
        label_steps(grid[-1, 0], np.array([0, last]))
        figure.align_ylabels()
        handles = legend_of_settings(settings)
        handles += [
            Line2D([], [], color="0.3", label=SPLIT_LABELS[split], **DOTS | look)
            for split, look in EVALUATED.items()
            if split in seen
        ]
        legend_below(figure, handles)


def _finite(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    """Curves without what is not finite, if anything is left of them."""
    finite = {split: curve[:, np.isfinite(curve[1])] for split, curve in curves.items()}
    return {split: curve for split, curve in finite.items() if curve.size}


def _thinned(curve: Curve) -> Curve:
    """Means of neighbours, so that at most `MOST_POINTS` are left."""
    size = -(-curve.shape[1] // MOST_POINTS)
    if size < 2:
        return curve
    starts = np.arange(0, curve.shape[1], size)
    return np.add.reduceat(curve, starts, axis=1) / np.add.reduceat(np.ones(curve.shape[1]), starts)


def _mean_curve(seeds: Sequence[Curve]) -> Curve:
    """Mean of curves, linear between their points, over the steps that all of them span."""
    if not seeds:
        return np.empty((2, 0))
    steps = np.unique(np.concatenate([curve[0] for curve in seeds]))
    first, last = max(curve[0, 0] for curve in seeds), min(curve[0, -1] for curve in seeds)
    steps = steps[(first <= steps) & (steps <= last)]
    return np.stack([steps, np.mean([np.interp(steps, *curve) for curve in seeds], axis=0)])


def _draw_mean(axes: Axes, seeds: Sequence[Curve], look: dict[str, Any]) -> None:
    curve = _thinned(_mean_curve(seeds))
    marker = {"marker": "o", "ms": 2} if curve.shape[1] == 1 else {}  # one point is no line
    axes.plot(*curve, **marker | look)
