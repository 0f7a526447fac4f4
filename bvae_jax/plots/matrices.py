"""Figures of a comparison: tables of metrics, of shares, of images; and what seeds tell."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import NullLocator, PercentFormatter

from bvae_jax.plots.comparison import Setting, colours, legend_of_settings
from bvae_jax.plots.run import enlarged, gap, label_images, mosaic
from bvae_jax.plots.style import (
    BLUE,
    COLOURS,
    LONGEST,
    free_labels,
    ink_on,
    legend_below,
    panels,
    short_name,
    short_number,
    show_picture,
)

PARTS = (BLUE, "#E69F00", "0.82", "#009E73")  # of the variance, in the order of the columns
HEADING = 0.16  # inches above the images of a latent
TITLE = 62  # characters in a line
FEWEST = 6  # columns that fill the width; fewer leave some of it white


def save_agreement(path: Path, correlations: pd.DataFrame, runs: int) -> None:
    """Spearman correlations of metrics as a heat map with the numbers in it, where they fit.

    Args:
        correlations: square, from -1 to 1, the same names in rows and columns; nan is grey.
        runs: that they are over.
    """
    values = correlations.to_numpy(np.float64)
    names = [short_name(str(name), 30) for name in correlations.columns]
    if len(names) <= 16:  # a cell has room for two lines
        names = [textwrap.fill(name, 16, break_long_words=False) for name in names]
    heights = [1.0, 0.07]
    with panels(path, heights) as (figure, grid):
        axes, bar = grid[:, 0]
        look = {"cmap": plt.get_cmap("RdBu_r").with_extremes(bad="0.8"), "vmin": -1, "vmax": 1}
        image = axes.imshow(np.ma.masked_invalid(values), aspect="auto", **look)
        label = f"Spearman correlation over n = {runs} runs"
        figure.colorbar(image, cax=bar, orientation="horizontal", label=label)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labeltop=True, labelbottom=False)
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names)
        if not all(free_labels(axes)):
            axes.tick_params(axis="x", labelrotation=90)
        axes.tick_params(labelsize=min(6, 0.8 * _cell(axes)))  # of many metrics
        figure.draw_without_rendering()
        heights[0] = len(names) * min(_cell(axes) / 72, 0.3)
        _write_numbers(axes, image, values)


def _cell(axes: Axes) -> float:
    """Width of a cell in points."""
    return 72 * axes.bbox.width / axes.figure.dpi / np.ptp(axes.get_xlim())


def _write_numbers(axes: Axes, image: AxesImage, values: Float[np.ndarray, "row column"]) -> None:
    """In each cell, if the longest of them fits."""
    known = {place: float(value) for place, value in np.ndenumerate(values) if np.isfinite(value)}
    numbers = {p: short_number(v) if abs(v) < 0.995 else f"{v:.0f}" for p, v in known.items()}
    style = {"size": 5, "ha": "center", "va": "center_baseline"}
    longest = axes.text(0, 0, max(numbers.values(), key=len, default=""), **style)
    width = 72 * longest.get_window_extent().width / axes.figure.dpi
    longest.remove()
    for (row, column), number in numbers.items() if width < _cell(axes) else ():
        colour = ink_on(image.to_rgba(values[row, column]))
        axes.text(column, row, number, color=colour, **style)


def save_variance_split(path: Path, shares: pd.DataFrame, limits: Sequence[float]) -> None:
    """Bars of what the variance of each score over runs comes from.

    Args:
        shares: by score, a column for each source, such as setting, seed and rest, that sum to 1;
            nan where a score does not vary, or settings share no two seeds.
        limits: of each score what noise alone would give the first source in 19 of 20 cases.
    """
    with panels(path, [max(0.17 * len(shares), 0.35)]) as (figure, grid):
        axes = grid[0, 0]
        rows = np.arange(len(shares))
        left = np.zeros(len(shares))
        for name, colour in zip(shares.columns, PARTS, strict=False):
            widths = shares[name].to_numpy(np.float64)
            axes.barh(rows, widths, 0.78, left=left, color=colour)
            for row in np.flatnonzero(widths >= 0.09):
                start, end, limit = left[row], left[row] + widths[row], limits[int(row)]
                if abs((start + end) / 2 - limit) < 0.04:  # beside the line, where there is room
                    start, end = (start, limit) if limit - start > end - limit else (limit, end)
                middle = (start + end) / 2
                place = {"ha": "center", "va": "center_baseline", "size": 5}
                ink = "w" if colour == BLUE else "k"
                axes.text(middle, row, short_number(widths[row]), color=ink, **place)
            left = left + widths
        for row in np.flatnonzero(np.isnan(left)):
            axes.text(0.01, row, "nothing to divide", va="center_baseline", size=5, color="0.4")
        known = np.flatnonzero(np.isfinite(left))
        axes.vlines(np.array(limits)[known], known - 0.45, known + 0.45, color="k", lw=0.9)
        axes.set_yticks(rows, [short_name(str(score), 28) for score in shares.index])
        axes.tick_params(axis="y", length=0)
        axes.set(xlim=(0, 1), ylim=(len(shares) - 0.5, -0.5))
        axes.set_xlabel("share of the variance over runs")
        names = zip(shares.columns, PARTS, strict=False)
        handles: list[Any] = [Patch(color=colour, label=str(name)) for name, colour in names]
        noise: dict[str, Any] = {
            "ls": "",
            "marker": "|",
            "color": "k",
            "label": "noise alone stays below (95 %)",
        }
        legend_below(figure, [*handles, Line2D([], [], **noise)])


def save_matched_traversals(
    path: Path,
    images: Float[np.ndarray, "latent setting column height width channels"],
    row_labels: Sequence[str],
    setting_labels: Sequence[str],
    values: Sequence[float],
    notes: Sequence[Sequence[str]],
    weak: Bool[np.ndarray, "latent setting"],
) -> None:
    """Traversals of latents that mean the same in every setting, one below the other.

    Args:
        images: in [0, 1]; nan where a setting has no such latent.
        row_labels: of the latents, above the rows of each.
        setting_labels: of the rows.
        values: of the latent, of the columns.
        notes: [latent, setting], at the right of each row.
        weak: rows that are grey.
    """
    images = enlarged(images)
    latents, settings, columns, height, width, _ = images.shape
    space = gap(height, width)
    pitch = height + space
    across = columns * (width + space) - space
    spare = max(0, FEWEST - columns) * (width + space)
    heading = round(HEADING * (across + spare) / 2.6)  # inches that labels leave, about
    block = heading + settings * pitch
    blocks = [mosaic(np.nan_to_num(block_images, nan=0.9)) for block_images in images]
    above = ((heading, space), (0, spare), (0, 0))[: blocks[0].ndim]
    picture = np.concatenate([np.pad(b, above, constant_values=1.0) for b in blocks])
    heights = [1.0]
    with panels(path, heights) as (figure, grid):
        axes = grid[0, 0]
        show_picture(axes, picture)
        labels = [short_name(label, LONGEST).replace(", ", ",\n") for label in setting_labels]
        rows = [j * block + heading + i * pitch for j in range(latents) for i in range(settings)]
        axes.set_yticks(np.array(rows) + height / 2, labels * latents, size=4.5, linespacing=1.25)
        right = axes.secondary_yaxis("right")
        beside = [note for of_latent in notes for note in of_latent]
        blank = np.isnan(images).all(axis=(2, 3, 4, 5)).ravel()
        beside = ["" if empty else note for note, empty in zip(beside, blank, strict=True)]
        right.set_yticks(np.array(rows) + height / 2, beside)
        right.tick_params(length=0, pad=2, labelsize=4)
        right.spines[:].set_visible(False)
        for number in np.flatnonzero(weak):
            place = (-0.5, rows[number] - 0.5)
            axes.add_patch(Rectangle(place, across, height, color="0.9", alpha=0.7, linewidth=0))
            for labelled in (axes, right):
                labelled.get_yticklabels()[number].set_color("0.6")
        label_images(axes, height, width, [f"{value:.1f}" for value in values])
        said = ["value of the latent (standard deviations of the prior)"]
        if any(note.startswith("r ") for note in beside):
            said.append("r: correlation with the reference's codes")
        if any(note.startswith("r −") for note in beside):
            said.append("where r is negative, the row is mirrored")
        if weak.any():
            said.append("grey: a small correlation")
        axes.set_xlabel("\n".join(said), size=5)
        for top in np.array(rows)[blank]:
            axes.add_patch(Rectangle((-0.5, top - 0.5), across, height, color="0.9"))
            middle = {"ha": "center", "va": "center", "size": 5, "color": "0.4"}
            axes.text(across / 2, top + height / 2, "no such latent is active", **middle)
        for number, label in enumerate(row_labels):
            place = {"va": "bottom", "weight": "bold", "size": 6}
            axes.text(-0.5, number * block + heading - 2, short_name(label, 40), **place)
        figure.draw_without_rendering()
        heights[0] = axes.bbox.width / figure.dpi * len(picture) / (across + spare)


# Figures of what seeds tell: how runs are spread, and how many tell settings apart.

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
            counts = [len(group) for group in groups]
            if min(counts) < max(counts):  # some runs have no such score
                few = len(counts) <= 6
                told = ", ".join(map(str, counts)) if few else f"{min(counts)} to {max(counts)}"
                title = f"{title} (n = {told})"
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
            axes.set_title("\n".join(textwrap.wrap(title, TITLE)), loc="left", size=6, pad=3)
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
