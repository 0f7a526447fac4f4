"""Figures of what training reaches: rate against distortion, and how it got there."""

from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from bvae_jax.plots.drawing import (
    SEED,
    Setting,
    by_setting,
    colours,
    is_numeric,
    legend_of_settings,
    mean,
    panels,
)
from bvae_jax.plots.run import SPLIT_LABELS
from bvae_jax.plots.scores import _legend_below, _whole_ticks
from bvae_jax.runs.loggers import Record, places

Curve = Float[np.ndarray, "2 _point"]  # steps and values
MOST_POINTS = 200  # of a curve: more are closer than a printed line is wide
DOTS: dict[str, Any] = {"ls": "", "ms": 2.5, "mew": 0.6}
EVALUATED: dict[str, dict[str, Any]] = {
    "train_eval": {"marker": "s", "zorder": 4},
    "holdout": {"marker": "o", "mfc": "white", "zorder": 5},
}
START = 0.1  # share of the steps whose values, often many times larger, may leave the picture


def save_rate_distortion(path: Path, members: pd.DataFrame, settings: Sequence[Setting]) -> None:
    """Rate against distortion of every seed, the settings' means, and lines of equal ELBO.

    The means are joined where settings are increasing numbers.
    As figure 3 of Alemi et al. 2018, "Fixing a Broken ELBO": ELBO = −(distortion + rate).

    Args:
        members: columns `setting`, `kl` (the rate) and `nll` (the distortion), nats per image.
    """
    pairs = zip(*(by_setting(members, settings, name) for name in ("kl", "nll")), strict=True)
    points = [np.stack(pair, axis=1) for pair in pairs]
    means = np.stack([mean(group) for group in points])
    known = means[np.isfinite(means).all(axis=1)]
    steps = [np.linspace(*ends, 20) for ends in pairwise(known)] if is_numeric(settings) else []
    with panels(path, [2.3]) as (figure, grid):
        axes = grid[0, 0]
        for line in steps:
            axes.plot(*line.T, color="0.3", lw=0.8, zorder=2)
        for group, centre, colour in zip(points, means, colours(settings), strict=True):
            axes.plot(*group.T, color=colour, markersize=2.5, zorder=3, **SEED)
            axes.plot(*centre, "o", color=colour, ms=4.5, mec="white", mew=0.5, zorder=4)
        axes.margins(0.09)
        axes.set_xlabel("rate: KL(q(z|x) || p(z)) (nats per image)")
        axes.set_ylabel("distortion: −log p(x|z)\n(nats per image)")
        _draw_equal_elbo(axes, np.concatenate([*points, *steps]))
        handles = legend_of_settings(settings, linestyle="", marker="o", markersize=4)
        handles += [Line2D([], [], color="0.75", lw=0.6, label="equal ELBO (nats per image)")]
        _legend_below(figure, handles)


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


def save_learning_curves(
    path: Path, curves: Mapping[str, Sequence[Sequence[Record]]], settings: Sequence[Setting]
) -> None:
    """Negative log-likelihood, KL and ELBO against the step: seeds thin, their mean thick.

    Means are taken over the steps that all seeds of a setting have reached.

    Args:
        curves: setting -> for each seed its records. The lines are training batches; dots compare
            training images with held-out ones at the same parameters.
    """
    names = {"nll": "−log p(x|z)", "kl": "KL", "elbo": "ELBO"}
    with panels(path, [1.2] * len(names), sharex=True) as (figure, grid):
        seen, last = set(), 1.0
        for axes, (name, title) in zip(grid[:, 0], names.items(), strict=True):
            drawn = []
            for setting, colour in zip(settings, colours(settings), strict=True):
                runs = curves.get(setting.label, ())
                train = [_curve(records, "train", name) for records in runs]
                dots = {s: [_curve(records, s, name) for records in runs] for s in EVALUATED}
                alpha = np.clip(4 / max(len(train), 1), 0.06, 0.4)  # many seeds hide the means
                for curve in train:
                    axes.plot(*_thinned(curve), color=colour, lw=0.4, alpha=alpha)
                _draw_mean(axes, train, {"color": colour, "lw": 1.2, "zorder": 3})
                for split, means in dots.items():
                    _draw_mean(axes, means, DOTS | EVALUATED[split] | {"color": colour})
                    seen |= {split for curve in means if curve.size}
                every = (*train, *chain(*dots.values()))
                drawn += [curve for curve in every if curve.size]
            axes.set_ylabel(f"{title}\n(nats per image)")
            _zoom(axes, drawn)
            last = max([last, *(curve[0, -1] for curve in drawn)])
        bottom = grid[-1, 0]
        bottom.set_xlabel("training steps")
        _whole_ticks(bottom, np.array([0, last]))
        bottom.xaxis.set_major_formatter(EngFormatter(sep=""))  # 50k
        figure.align_ylabels()
        handles = legend_of_settings(settings)
        handles += [
            Line2D([], [], color="0.3", label=SPLIT_LABELS[split], **DOTS | look)
            for split, look in EVALUATED.items()
            if split in seen
        ]
        _legend_below(figure, handles)


def _curve(records: Sequence[Record], split: str, name: str) -> Curve:
    """What is finite of a number in one split, by step; means over steps are at their middle."""
    chosen = [r for r in records if r["split"] == split and name in r]
    pairs = [(step, r[name]) for step, r in zip(places(chosen), chosen, strict=True)]
    points = np.array(pairs, np.float64).reshape(-1, 2)
    return points[np.isfinite(points[:, 1])].T


def _thinned(curve: Curve) -> Curve:
    """Means of neighbours, so that at most `MOST_POINTS` are left."""
    size = -(-curve.shape[1] // MOST_POINTS)
    if size < 2:
        return curve
    starts = np.arange(0, curve.shape[1], size)
    return np.add.reduceat(curve, starts, axis=1) / np.add.reduceat(np.ones(curve.shape[1]), starts)


def _mean_curve(seeds: Sequence[Curve]) -> Curve:
    """Mean of curves, linear between their points, over the steps that all of them span."""
    seeds = [curve for curve in seeds if curve.size]
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


def _zoom(axes: Axes, curves: Sequence[Curve]) -> None:
    """Show what is reached after the first tenth of a run."""
    settled = [values[steps >= START * steps[-1]] for steps, values in curves]
    low, high = (min(map(np.min, settled)), max(map(np.max, settled))) if settled else (0, 0)
    if high > low:
        margin = 0.08 * (high - low)
        axes.set_ylim(low - margin, high + margin)
