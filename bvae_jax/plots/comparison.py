"""Figures of how numbers of runs depend on the setting."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bvae_jax.plots.drawing import (
    SEED,
    UNITS,
    Setting,
    around,
    by_setting,
    colours,
    is_numeric,
    mean,
    panels,
    places,
    put_settings,
)
from bvae_jax.plots.scores import COLOURS, DASHES, MARKERS, _legend_below, _short

Interval = tuple[float, float, float]  # centre, low, high
BASELINES = [(grey, dash) for dash in ((4, 2), (1, 1), (6, 1, 1, 1)) for grey in ("0", "0.6")]
OVERHANG = 0.5  # of an interval beyond the seeds, at most, as a share of what these span
DEPTH = 30  # how far below the threshold KL is shown, as a factor


def save_scores(
    path: Path,
    members: pd.DataFrame,
    settings: Sequence[Setting],
    scores: Mapping[str, Sequence[Interval]],
    baselines: Mapping[str, Mapping[str, float]],
    xlabel: str,
) -> None:
    """A panel for each score: every seed, the mean with its 95% interval, and baselines.

    Seeds, means and baselines decide what y shows; a much wider interval runs out of the panel.

    Args:
        members: columns `setting`, `seed` and the scores.
        scores: score -> (centre, low, high) for each setting.
        baselines: baseline -> score -> value.
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
            axes.set_title(_title(score, 54 // columns), loc="left", size=6, pad=3)
        for axes in shown[-columns:]:
            axes.tick_params(labelbottom=True)
        put_settings(shown[-columns:], settings, xlabel)
        handles = [Line2D([], [], color=colours(settings)[0], ms=3, label="a seed", **SEED)]
        known = any(np.isfinite(low) for found in scores.values() for _, low, _ in found)
        label = "mean, 95% interval" if known else "mean"
        handles += [Line2D([], [], color="0", marker="o", ms=2.5, label=label, ls="-" * known)]
        for name, (grey, dashes) in looks.items():
            handles += [Line2D([], [], color=grey, dashes=dashes, lw=0.7, label=_short(name))]
        _legend_below(figure, handles)


def _title(score: str, width: int) -> str:
    """A score's name in one line or two, and its unit."""
    unit = f" ({UNITS[score]})" if score in UNITS else ""
    words = re.sub(r"[_/]", " ", score) + unit
    lines = textwrap.wrap(words, width, break_on_hyphens=False)
    return "\n".join(_short(line, width) for line in [*lines[:1], " ".join(lines[1:])] if line)


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
    active_nats: float,
) -> None:
    """The KL of each run's latents from the largest to the smallest, in every setting.

    A line joins the means over seeds of the same rank. What is far below the threshold stands at
    the lower edge.

    Args:
        kl: setting -> for each seed the KL of its latents in nats, in any order.
        active_nats: KL up to which a latent counts as inactive; positive.
    """
    spectra = _spectra(kl, settings)
    means = np.stack([mean(spectrum) for spectrum in spectra])
    shades = plt.get_cmap("viridis")(np.linspace(0, 0.85, means.shape[1]))
    x, floor = places(settings), active_nats / DEPTH
    with panels(path, [2.2, 0.07]) as (figure, grid):
        axes, bar = grid[:, 0]
        for rank, shade in enumerate(shades):
            for number, spectrum in enumerate(spectra):
                values = np.maximum(spectrum[:, rank], floor)
                axes.plot(around(x, number, len(values)), values, color=shade, ms=1.6, **SEED)
            look = {"marker": "o", "ms": 2.5, "lw": 0.8, "clip_on": False}
            axes.plot(x, np.maximum(means[:, rank], floor), color=shade, **look)
        top = max([1.0, *(s[np.isfinite(s)].max(initial=0) for s in spectra)])
        axes.set(yscale="log", ylim=(floor, 1.6 * top), ylabel="KL of a latent (nats)")
        axes.yaxis.set_major_formatter("{x:g}")  # and not 10 to a power, which is mathematics
        axes.axhspan(floor, active_nats, color="0.93", zorder=0)
        axes.axhline(active_nats, color="0.4", lw=0.7, dashes=(4, 2), zorder=1)
        limit = f"inactive: KL ≤ {active_nats:g} nats"
        _draw_ranks(figure, bar, shades)
        _legend_below(figure, [Line2D([], [], color="0.4", lw=0.7, dashes=(4, 2), label=limit)])
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
    """Which colour stands for which rank."""
    ranks = len(shades)
    mapped = ScalarMappable(BoundaryNorm(np.arange(ranks + 1) + 0.5, ranks))
    mapped.set_cmap(ListedColormap(list(shades)))
    drawn = figure.colorbar(mapped, cax=bar, orientation="horizontal")
    drawn.set_label("rank of the latent in its run by KL (1: largest)")
    drawn.set_ticks(np.unique(np.linspace(1, ranks, min(ranks, 10)).round()).tolist())
    drawn.minorticks_off()


def save_factor_scores(
    path: Path, shares: pd.DataFrame, settings: Sequence[Setting], xlabel: str, ylabel: str
) -> None:
    """A line for each factor, the mean over seeds, with every seed beside it.

    Args:
        shares: column `setting`, maybe `seed`, and one for each factor.
        ylabel: what the numbers are, and their unit.
    """
    factors = [name for name in shares if name not in ("setting", "seed")]
    x = places(settings)
    with panels(path, [2.0]) as (figure, grid):
        axes, handles = grid[0, 0], []
        for number, factor in enumerate(factors):
            colour, turn = COLOURS[number % len(COLOURS)], number // len(COLOURS)
            seeds = by_setting(shares, settings, factor)
            for place, values in enumerate(seeds):
                axes.plot(around(x, place, len(values)), values, color=colour, ms=1.6, **SEED)
            look = {"ls": DASHES[turn % len(DASHES)], "marker": MARKERS[number % len(MARKERS)]}
            means = [mean(values) for values in seeds]
            handles += axes.plot(x, means, color=colour, ms=3, label=_short(str(factor)), **look)
        axes.set_ylim(min(0, axes.get_ylim()[0]), axes.get_ylim()[1])
        axes.set_ylabel(ylabel)
        _legend_below(figure, handles)
        put_settings([axes], settings, xlabel)
