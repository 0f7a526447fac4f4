"""Figures of what seeds tell: how runs are spread, and how many tell settings apart."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator, PercentFormatter

from bvae_jax.plots.comparison import Setting, colours, legend_of_settings
from bvae_jax.plots.style import COLOURS, legend_below, panels

Band = Float[np.ndarray, "3 value"]
"""Values along x, and the lower and the upper end of what a share may be there."""


class PowerCurve(NamedTuple):
    """The probability that a test with some seeds finds a difference.

    Attributes:
        seeds: numbers of seeds.
        paired: [seeds], of a paired test.
        unpaired: [seeds], of one with so many seeds of each.
        low: [seeds], of the paired one at the lower end of the effect's interval.
        high: at its upper end.
        now: seeds that are there.
    """

    seeds: Float[np.ndarray, " n"]
    paired: Float[np.ndarray, " n"]
    unpaired: Float[np.ndarray, " n"]
    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]
    now: int


def save_profiles(
    path: Path,
    runs: Mapping[str, Sequence[Float[np.ndarray, " _seed"]]],
    settings: Sequence[Setting],
    bands: Mapping[str, Sequence[Band | None]] = {},
) -> None:
    """A panel for each score: the share of each setting's runs that are above a value.

    Agarwal et al. 2021, "Deep RL at the Edge of the Statistical Precipice", figure 4.

    Args:
        runs: title -> for each setting the scores of its runs, finite.
        bands: title -> for each setting where the share of all runs may be; None: nowhere drawn.
    """
    with panels(path, [1.1] * len(runs)) as (figure, grid):
        for axes, (title, groups) in zip(grid[:, 0], runs.items(), strict=True):
            values = np.concatenate(groups)
            low, high = values.min(), values.max()
            margin = 0.05 * ((high - low) or 1)
            ends = low - margin, high + margin
            found = zip(groups, colours(settings), bands.get(title, [None] * len(groups)),
                        strict=True)  # fmt: skip
            for group, colour, band in found:
                if not len(group):
                    continue
                # At a run's own value it is not above that value any more.
                x = np.concatenate([[ends[0]], np.sort(group), [ends[1]]])
                above = np.concatenate([1 - np.arange(len(group) + 1) / len(group), [0]])
                axes.step(x, above, where="post", color=colour, lw=1, zorder=3)
                if band is not None:
                    x, least, most = band
                    axes.fill_between(x, least, most, step="post", color=colour, alpha=0.12, lw=0)
            axes.set(xlim=ends, ylim=(-0.02, 1.04), ylabel="share of runs\nabove it")
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            axes.set_title(title, loc="left", size=6, pad=3)
        legend_below(figure, legend_of_settings(settings))


def save_power(path: Path, curves: Mapping[str, PowerCurve], wanted: float) -> None:
    """A panel for each score: the power of a test against the number of seeds.

    Args:
        curves: title -> curve.
        wanted: the power that is asked for, as a line.
    """
    with panels(path, [1.1] * len(curves)) as (figure, grid):
        for number, (axes, (title, curve)) in enumerate(
            zip(grid[:, 0], curves.items(), strict=True)
        ):
            axes.fill_between(
                curve.seeds, curve.low, curve.high, color=COLOURS[0], alpha=0.15, lw=0
            )
            axes.plot(curve.seeds, curve.paired, color=COLOURS[0])
            axes.plot(curve.seeds, curve.unpaired, color=COLOURS[3], ls="--")
            axes.axhline(wanted, color="0.6", lw=0.6, zorder=0)
            now = np.interp(curve.now, curve.seeds, curve.paired)
            axes.plot(curve.now, now, "o", color=COLOURS[0], ms=3.5, zorder=4)
            axes.set(xscale="log", ylim=(0, 1.04), xlim=(curve.seeds[0], curve.seeds[-1]))
            ticks = [n for n in (2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
                     if curve.seeds[0] <= n <= curve.seeds[-1]]  # fmt: skip
            axes.set_xticks(ticks, [str(n) for n in ticks])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_ylabel("power")
            axes.set_title(title, loc="left", size=6, pad=3)
            if number == len(curves) - 1:
                axes.set_xlabel("seeds of each setting")
        band = Line2D([], [], color=COLOURS[0], alpha=0.15, lw=5, label="paired, 95% interval")
        legend_below(
            figure,
            [
                Line2D([], [], color=COLOURS[0], label="paired"),
                band,
                Line2D([], [], color=COLOURS[3], ls="--", label="unpaired"),
                Line2D([], [], color=COLOURS[0], marker="o", ls="", ms=3.5, label="seeds there"),
            ],
        )
