"""What all figures share: their size, their colours, how they are saved, labels that fit."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg", force=False)

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from bvae_jax.files import replacing

# A name in a script that the font lacks is drawn as boxes, which everybody sees.
warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from font")

COLUMN_INCHES = 3.4
STYLE: dict[Any, Any] = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.0,
    "hatch.linewidth": 0.5,
    # Measured at the resolution of the file: text is not equally wide at others.
    "figure.dpi": 300,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # TrueType: text can be searched
    "text.parse_math": False,  # names of factors and folders may hold dollars
}
BLUE, LIGHT, ORANGE, GREEN = "#0072B2", "#A6CBE3", "#D55E00", "#009E73"
COLOURS = (BLUE, "#E69F00", GREEN, ORANGE, "#56B4E9", "#CC79A7", "#000000")
DASHES, MARKERS = ("-", "--", ":", "-."), "os^DvPX"  # the next of them when all colours are taken
Curve = Float[np.ndarray, "2 _point"]
"""Steps and values."""
START = 0.1  # share of the steps whose values, where many times larger, are in the inset only
MANY_TIMES = 3
INSET = 0.5  # share of the height of axes that an inset needs
LONGEST = 34
"""Characters of a setting's label; of longer ones the middle is left out."""


@contextlib.contextmanager
def panels(
    path: Path, heights: Sequence[float], columns: int = 1, *, sharex: bool = False
) -> Iterator[tuple[Figure, np.ndarray]]:
    """Axes of these heights in inches, one column wide, saved at the end of the context.

    Labels and legends come on top of the heights, which may be changed inside where they follow
    from the width that is left to the axes.

    Args:
        path: as of `save`.
    """
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            len(heights), columns, figsize=(COLUMN_INCHES, sum(heights) + 4), squeeze=False,
            height_ratios=heights, sharex=sharex, layout="constrained",
        )  # fmt: skip
        yield figure, grid
        fit(figure, grid, heights)
        save(figure, path)


def fit(figure: Figure, grid: np.ndarray, heights: Sequence[float]) -> None:
    """Make a figure as high as it must be for axes of these heights in inches."""
    for _ in range(2):  # the second time for labels that moved
        figure.draw_without_rendering()
        drawn = sum(axes.bbox.height for axes in grid[:, 0]) / figure.dpi
        figure.set_figheight(figure.get_figheight() - drawn + sum(heights))


def save(figure: Figure, path: Path) -> None:
    """Save and close a figure, as PATH.png and PATH.pdf where the path names no format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix[1:] in figure.canvas.get_supported_filetypes():
        _write(figure, path)
    else:
        _write(figure, path.with_name(f"{path.name}.png"))
        figure.set_layout_engine("none")  # both formats have the same layout
        _write(figure, path.with_name(f"{path.name}.pdf"))
    plt.close(figure)


def _write(figure: Figure, path: Path) -> None:
    """The same bytes every time; what was there stays where the disk is full."""
    kind = path.suffix[1:]
    with replacing(path) as file:
        figure.savefig(file, format=kind, metadata={"CreationDate": None} if kind == "pdf" else {})


def legend_below(figure: Figure, handles: Sequence[Any]) -> None:
    """A legend under the axes, of as many columns as the figure has room for, read row by row."""
    place = {"loc": "outside lower center", "frameon": False, "columnspacing": 1, "borderpad": 0}
    for columns in range(4, 0, -1):
        rows_first = [handle for column in range(columns) for handle in handles[column::columns]]
        legend = figure.legend(handles=rows_first, ncols=columns, handlelength=2.4, **place)
        if columns == 1 or legend.get_window_extent().width <= 0.95 * figure.bbox.width:
            break
        legend.remove()


def show_picture(axes: Axes, picture: np.ndarray) -> None:
    """Pixels in [0, 1], [height, width] or [height, width, 3], without a frame."""
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def label_steps(axes: Axes, steps: np.ndarray) -> None:
    """Name the x axis of training steps."""
    axes.set_xlabel("training steps")
    whole_ticks(axes, steps)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 50k


def zoom_past_start(axes: Axes, curves: Sequence[Curve]) -> None:
    """Show along y what is reached after the first tenth of a run, if the rest is much larger.

    An inset at the right, where there is room for it, then has all that the axes have.
    """
    settled = [curve[:, curve[0] >= START * curve[0, -1]] for curve in curves]
    values = np.concatenate([value for _, value in settled] or [np.zeros(1)])
    low, high = values.min(), values.max()
    bottom, top = axes.get_ylim()
    if not 0 < MANY_TIMES * (high - low) < top - bottom:
        return
    beside = np.concatenate([value[steps >= 0.5 * steps[-1]] for steps, value in settled])
    above = high - beside.max() >= beside.min() - low
    if above:
        high = max(high, low + (beside.max() - low) / (1 - INSET))
    else:
        low = min(low, high - (high - beside.min()) / (1 - INSET))
    inset = axes.inset_axes((0.6, 0.94 - 0.8 * INSET if above else 0.04, 0.4, 0.75 * INSET))
    for line in axes.get_lines():
        (copy,) = inset.plot(*line.get_data(), color=line.get_color(), ls=line.get_linestyle())
        copy.set(marker=line.get_marker(), markersize=1, lw=0.6, zorder=line.get_zorder())
    inset.set_title("from the first step", size=5, pad=2)
    inset.set_xticks([])
    inset.set_yticks(np.linspace(*inset.dataLim.intervaly, 2))
    inset.yaxis.set_major_formatter("{x:.3g}")
    inset.tick_params(labelsize=5, length=1.5, pad=1)
    margin = 0.08 * (high - low)
    axes.set_ylim(low - margin, high + margin)


def whole_ticks(axes: Axes, values: np.ndarray) -> None:
    """Whole numbers as ticks along x; of one value only that."""
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    if np.ptp(values) == 0:
        axes.set_xticks(values[:1])


def free_labels(axes: Axes) -> list[bool]:
    """Which tick labels along x to keep so that each is apart from all that are kept before it."""
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    apart = 0.4 * figure.dpi / 72
    kept: list[bool] = []
    taken = []
    for text in axes.get_xticklabels():
        box = text.get_window_extent().padded(apart)
        kept.append(not any(box.overlaps(other) for other in taken))
        taken += [box] if kept[-1] else []
    return kept


def short_number(value: float) -> str:
    """Two decimals, without the zero before the point; three digits from 10 on."""
    if abs(value) >= 9.995:
        return f"{value:.3g}"
    return f"{round(float(value), 2) + 0.0:.2f}".replace("0.", ".", 1)  # + 0.0: no minus zero


def short_name(name: str, most: int = 24) -> str:
    """A name without its middle, if it has more than `most` characters."""
    return name if len(name) <= most else f"{name[: most - 10]}…{name[-9:]}"


def ink_on(colour: Sequence[float] | np.ndarray) -> str:
    """Black or white, whichever is read better on an RGB(A) colour."""
    return "white" if np.dot(colour[:3], (0.299, 0.587, 0.114)) < 0.5 else "black"
