"""Figures of disentanglement scores from arrays, at one column's width."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bvae_jax.plots.style import (
    BLUE,
    COLOURS,
    DASHES,
    LIGHT,
    MARKERS,
    ORANGE,
    Curve,
    ink_on,
    label_steps,
    legend_below,
    panels,
    short_name,
    short_number,
    whole_ticks,
)

Matrix = Float[np.ndarray, "latent factor"]
MOST_LATENTS = 20  # rows of a matrix; more fill a page and are read by no one
MOST_NUMBERS = 12  # factors whose cells are wide enough for a number
MOST_PAIRS = 6
BEST = 3  # latents shown for each factor


def save_matrix(
    path: Path,
    matrix: Matrix,
    factor_names: Sequence[str],
    *,
    inactive: Bool[np.ndarray, " latent"],
    label: str,
) -> None:
    """A heat map of what each latent has to do with each factor, with the numbers in it.

    Of more than `MOST_LATENTS` latents those with the largest maxima are shown.

    Args:
        matrix: nan is grey.
        inactive: latents whose row is hatched.
        label: what the numbers are, and their unit.
    """
    maxima = np.where(np.isnan(matrix), -np.inf, matrix).max(axis=1)
    rows = np.sort(np.argsort(-maxima, kind="stable")[:MOST_LATENTS])
    cells = np.ma.masked_invalid(matrix[rows])
    low, high = (cells.min(), cells.max()) if cells.count() else (0, 0)
    with panels(path, [max(0.15 * len(rows), 0.45), 0.07]) as (figure, grid):
        axes, bar = grid[:, 0]
        colours = plt.get_cmap("Blues").with_extremes(bad="0.8")
        limits = {"vmin": min(low, 0), "vmax": high if high > 0 else 1}
        image = axes.imshow(cells, cmap=colours, aspect="auto", interpolation="nearest", **limits)
        figure.colorbar(image, cax=bar, orientation="horizontal", label=label)
        for (row, column), value in np.ndenumerate(matrix[rows]):
            if np.isfinite(value) and matrix.shape[1] <= MOST_NUMBERS:
                cell = image.to_rgba(value)
                free = {"facecolor": cell, "linewidth": 0, "pad": 0.4}  # of the hatching
                place = {"ha": "center", "va": "center_baseline", "bbox": free}
                axes.text(column, row, short_number(value), color=ink_on(cell), size=6, **place)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labeltop=True, labelbottom=False)
        axes.set_yticks(
            range(len(rows)), [f"z{j} (inactive)" if inactive[j] else f"z{j}" for j in rows]
        )
        for row in np.flatnonzero(inactive[rows]):
            axes.get_yticklabels()[row].set_color("0.5")
            hatched = {"fill": False, "hatch": "/////", "edgecolor": "0.6", "linewidth": 0}
            axes.axhspan(row - 0.5, row + 0.5, **hatched)
        some = f"{len(rows)} of {len(matrix)} latents (largest maxima)"
        axes.set_ylabel("latent" if len(rows) == len(matrix) else some)
        axes.set_xticks(range(matrix.shape[1]), [short_name(name) for name in factor_names])
        figure.draw_without_rendering()
        widest = max(text.get_window_extent().width for text in axes.get_xticklabels())
        if widest > 0.95 * axes.bbox.width / matrix.shape[1]:
            axes.tick_params(axis="x", labelrotation=90)


def save_best_latents(
    path: Path, matrix: Matrix, entropy: Float[np.ndarray, " factor"], factor_names: Sequence[str]
) -> None:
    """For each factor, how much of it its best latents know, and the gap: the factor's MIG.

    Args:
        matrix: mutual information in nats.
        entropy: of each factor in nats. There are no bars where it is 0.
    """
    pitch = min(BEST, len(matrix)) + 1.4  # rows of a factor: its name, its bars, a space
    with panels(path, [0.115 * pitch * len(entropy)]) as (figure, grid):
        axes, ticks = grid[0, 0], {}
        for factor, (name, nats) in enumerate(zip(factor_names, entropy, strict=True)):
            top, text = factor * pitch, "H(v) = 0"
            if nats > 0:
                best = np.argsort(-matrix[:, factor], kind="stable")[:BEST]
                shares = matrix[best, factor] / nats
                places = top + 1 + np.arange(len(best))
                ticks |= {place: f"z{j}" for place, j in zip(places, best, strict=True)}
                second, place = (shares[1], places[1]) if len(best) > 1 else (0, places[0])
                gap = shares[0] - second
                text = f"gap {short_number(gap)}"
                axes.barh(places, shares, 0.75, color=[BLUE, LIGHT, LIGHT][: len(best)])
                outline = {"fill": False, "edgecolor": ORANGE, "linewidth": 0.7, "clip_on": False}
                axes.barh(place, gap, 0.75, left=second, **outline)
            axes.text(0.008, top, short_name(name), va="center", weight="bold")
            axes.text(1, top, text, va="center", ha="right", color=ORANGE, size=6)
        axes.set_yticks(list(ticks), list(ticks.values()))
        axes.tick_params(axis="y", length=0)
        axes.set(xlim=(0, 1), ylim=(pitch * len(entropy) - 0.7, -0.7))
        axes.set_xlabel("I(z; v) / H(v): share of the factor's entropy")
        handles = [Patch(color=BLUE, label="best latent"), Patch(color=LIGHT, label="next best")]
        handles += [Patch(fill=False, edgecolor=ORANGE, lw=0.7, label="gap to the second (MIG)")]
        legend_below(figure, handles)


def save_latent_against_factor(
    path: Path,
    codes: Float[np.ndarray, "n latent"],
    factors: Int[np.ndarray, "n factor"],
    pairs: Sequence[tuple[int, int]],
    factor_names: Sequence[str],
    units: Sequence[str],
) -> None:
    """Mean and middle 90% of a latent for each value of a factor: a panel for each pair of them.

    Args:
        units: [factor] what its values are, as "class index".

    Raises:
        ValueError: no pair, or more than `MOST_PAIRS`.
    """
    if not 1 <= len(pairs) <= MOST_PAIRS:
        raise ValueError(f"pairs: got {len(pairs)}, wanted 1 to {MOST_PAIRS}.")
    across = min(len(pairs), 2)
    with panels(path, [1.1] * -(-len(pairs) // across), across) as (figure, grid):
        for axes in grid.flat[len(pairs) :]:
            axes.remove()
        for axes, (latent, factor) in zip(grid.flat, pairs, strict=False):
            values, means, low, high = _by_value(codes[:, latent], factors[:, factor])
            axes.plot(values, means, "o-" if len(values) <= 12 else "-", ms=2, color=BLUE)
            axes.fill_between(values, low, high, color=LIGHT, linewidth=0)
            if len(values) == 1:  # there the band has no width
                axes.vlines(values, low, high, color=LIGHT, zorder=1)
            axes.set_xlabel(f"{short_name(factor_names[factor], 18)}\n({units[factor]})", size=6)
            axes.set_ylabel(f"z{latent} (posterior mean)")
            whole_ticks(axes, values)
        band = Patch(color=LIGHT, label="5th to 95th percentile")
        legend_below(figure, [Line2D([], [], color=BLUE, label="mean"), band])


def save_score_curves(path: Path, curves: Mapping[str, Curve]) -> None:
    """Scores against the step.

    Scores with a value outside [0, 1] share a second panel. One that is always nan is in the
    legend only, which says so.

    Args:
        curves: score -> steps and values.

    Raises:
        ValueError: there is no score.
    """
    if not curves:
        raise ValueError("curves: got none, wanted one or more.")
    finite = {name: curve[:, np.isfinite(curve[1])] for name, curve in curves.items()}
    beyond = {n for n, c in finite.items() if c.size and np.abs(c[1] - 0.5).max() > 0.5 + 1e-6}
    kinds = sorted({name in beyond for name in finite})
    with panels(path, [1.0 if kind else 1.7 for kind in kinds], sharex=True) as (figure, grid):
        handles = []
        for number, (name, curve) in enumerate(finite.items()):
            turn = number // len(COLOURS) % len(DASHES)
            look = {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[turn]}
            look |= {"marker": MARKERS[turn] if curve.shape[1] <= 12 else "", "markersize": 2.5}
            axes = grid[kinds.index(name in beyond), 0]
            handles += axes.plot(*curve, label=name if curve.size else f"{name} (nan)", **look)
        for axes, kind in zip(grid[:, 0], kinds, strict=True):
            axes.set_ylabel("scores beyond [0, 1]\n(each in its unit)" if kind else "score")
            if not kind:
                axes.set_ylim(-0.03, 1.03)
        label_steps(
            grid[-1, 0], np.unique([step for steps, _ in curves.values() for step in steps])
        )
        figure.align_ylabels()
        legend_below(figure, handles)


def _by_value(
    z: Float[np.ndarray, " n"], v: Int[np.ndarray, " n"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Values of v, and for each the mean, the 5th and the 95th percentile of z."""
    order = np.lexsort((z, v))
    z = z[order].astype(np.float64)
    values, starts, counts = np.unique(v[order], return_index=True, return_counts=True)

    def percentile(share: float) -> np.ndarray:
        """Between the two nearest points, as NumPy's."""
        below, part = np.divmod(share * (counts - 1), 1)
        first = starts + below.astype(int)
        second = np.minimum(first + 1, starts + counts - 1)
        return z[first] + part * (z[second] - z[first])

    return values, np.add.reduceat(z, starts) / counts, percentile(0.05), percentile(0.95)
