"""Figures from arrays, at one column's width."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg", force=False)

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from bvae_jax.runs.loggers import Record, places

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
    "figure.dpi": 100,
    "savefig.dpi": 300,
    "text.parse_math": False,  # names of factors and folders may hold dollars
}
ImageGrid = Float[np.ndarray, "row column height width channels"]
GAP = 2  # pixels between images
MOST_LABELS = 11  # below a grid; of more columns every second, third, ... is labelled


def save_image_grid(
    path: Path,
    images: ImageGrid,
    *,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    xlabel: str = "",
    ylabel: str = "",
) -> None:
    """Draw a grid of images in [0, 1] with labels for its rows and columns."""
    with plt.rc_context(STYLE):
        figure, axes = _grid_axes(images.shape, row_labels, column_labels)
        axes.imshow(mosaic(images), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        _fit_height(figure)
        _save(figure, path)


def save_traversal_gif(
    path: Path, images: ImageGrid, row_labels: Sequence[str], values: Sequence[float]
) -> None:
    """Animate a traversal: one picture for each row, moving through the columns and back."""
    rows, columns = images.shape[:2]
    across = min(rows, 5)
    down = -(-rows // across)
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            down, across, figsize=(COLUMN_INCHES, 0.15 + 0.85 * COLUMN_INCHES * down / across),
            squeeze=False, layout="constrained",
        )  # fmt: skip
        pictures = []
        for axes in panels.flat:
            axes.set_axis_off()
        for axes, row, label in zip(panels.flat, images, row_labels, strict=False):
            axes.set_title(label, fontsize=6, pad=2)
            pictures.append(axes.imshow(mosaic(row[None, :1]), cmap="gray", vmin=0, vmax=1))
        frames = []
        for column in [*range(columns), *range(columns - 2, 0, -1)]:
            for picture, row in zip(pictures, images, strict=True):
                picture.set_data(mosaic(row[None, column : column + 1]))
            figure.supxlabel(f"value {values[column]:+.1f}", fontsize=7)
            frames.append(_rasterise(figure))
        plt.close(figure)
    first, *rest = frames
    first.save(path, save_all=True, append_images=rest, duration=80, loop=0)


def save_loss_curves(path: Path, records: Sequence[Record]) -> None:
    """Negative log-likelihood, KL and ELBO, as far as the records hold them, against the step.

    There is a curve for each split. The mean of training batches is drawn at the middle of its
    steps. What tells how much worse held-out images are is the training images that are evaluated
    at the same parameters.
    """
    panels = {"nll": "−log p(x|z)", "kl": "KL", "elbo": "ELBO"}
    panels = {name: title for name, title in panels.items() if name in records[0]}
    with plt.rc_context(STYLE):
        figure, all_axes = plt.subplots(
            len(panels), 1, figsize=(COLUMN_INCHES, 1.4 * len(panels)), sharex=True,
            squeeze=False, layout="constrained",
        )  # fmt: skip
        figure.align_ylabels()
        for axes, (name, title) in zip(all_axes[:, 0], panels.items(), strict=True):
            for split, style in (("train", "-"), ("train_eval", "s"), ("holdout", "o")):
                chosen = [record for record in records if record["split"] == split]
                if chosen:
                    steps = places(chosen)
                    values = [record[name] for record in chosen]
                    style = "o" if style == "-" and len(steps) == 1 else style  # that is no line
                    look = {"ms": 2.5, "mfc": "white"} if split == "holdout" else {"ms": 3}
                    axes.plot(steps, values, style, label=SPLIT_LABELS[split], **look)
            axes.set_ylabel(f"{title}\n(nats per image)")
            _zoom_out_of_the_start(axes, [r[name] for r in records if r["split"] == "train"])
        all_axes[0, 0].legend(frameon=False)
        all_axes[-1, 0].set_xlabel("step")
        _save(figure, path)


SPLIT_LABELS = {
    "train": "training batches",
    "holdout": "held-out images",
    "train_eval": "training images, evaluated alike",
}


def save_kl_per_latent(path: Path, records: Sequence[Record], active_nats: float) -> None:
    """The KL of each latent against the step; those that end inactive are grey."""
    chosen = [record for record in records if record["split"] == "train"]
    steps = places(chosen)
    kl = np.array([record["kl_per_latent"] for record in chosen])
    colours = plt.get_cmap("tab10")
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(COLUMN_INCHES, 2.4), layout="constrained")
        dead = 0
        for rank, latent in enumerate(np.argsort(-kl[-1], kind="stable")):
            if kl[-1, latent] > active_nats:
                label = f"latent {latent}: {kl[-1, latent]:.2f}"
                axes.plot(steps, kl[:, latent], color=colours(rank % 10), label=label)
            else:
                dead += 1
                label = f"not active (KL ≤ {active_nats} nat)" if dead == 1 else None
                axes.plot(steps, kl[:, latent], color="0.7", label=label)
        axes.set_xlabel("step")
        axes.set_ylabel("KL(q(z|x) || N(0, 1)) (nats)")
        axes.legend(frameon=False, ncols=2)
        axes.set_ylim(0, 1.6 * max(kl.max(), active_nats))
        _save(figure, path)


def mosaic(images: ImageGrid) -> np.ndarray:
    """One picture [y, x] or [y, x, 3] of all images, with a grey line between them.

    Channels that are no colours, for they are neither one nor three, are shown by their mean.
    """
    if images.shape[-1] not in (1, 3):
        images = images.mean(axis=-1, keepdims=True)
    rows, columns, height, width, channels = images.shape
    grey = np.full((rows, columns, height + GAP, width + GAP, channels), 0.5)
    grey[:, :, :height, :width] = images
    picture = grey.swapaxes(1, 2).reshape(rows * (height + GAP), columns * (width + GAP), channels)
    picture = np.clip(picture[:-GAP, :-GAP], 0, 1)
    return picture[..., 0] if channels == 1 else picture


def _grid_axes(
    shape: tuple[int, ...], row_labels: Sequence[str], column_labels: Sequence[str]
) -> tuple[Figure, Axes]:
    rows, columns, height, width, _ = shape
    tall = rows * (height + GAP) / (columns * (width + GAP))
    figure, axes = plt.subplots(
        figsize=(COLUMN_INCHES, 0.45 + 0.85 * COLUMN_INCHES * tall), layout="constrained"
    )
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    centres = np.arange(columns) * (width + GAP) + width / 2
    every = -(-len(column_labels) // MOST_LABELS) or 1
    axes.set_xticks(centres[: len(column_labels) : every], column_labels[::every])
    centres = np.arange(rows) * (height + GAP) + height / 2
    axes.set_yticks(centres[: len(row_labels)], row_labels)
    return figure, axes


def _fit_height(figure: Figure) -> None:
    """Cut the height to what is drawn; the width stays one column."""
    for _ in range(2):  # the second time for labels that moved
        figure.canvas.draw()
        drawn = figure.get_tightbbox()
        figure.set_figheight(drawn.height + 0.06)


def _zoom_out_of_the_start(axes: Axes, values: Sequence[float]) -> None:
    """Let the first tenth of training, often many times larger, leave the picture."""
    settled = np.array(values[len(values) // 10 :])
    if len(settled) > 1 and np.ptp(settled) > 0:
        margin = 0.08 * np.ptp(settled)
        axes.set_ylim(settled.min() - margin, settled.max() + margin)


def _rasterise(figure: Figure) -> Image.Image:
    figure.set_dpi(160)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())  # pyright: ignore[reportAttributeAccessIssue]
    return Image.fromarray(pixels[..., :3].copy()).convert("P", palette=Image.Palette.ADAPTIVE)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)
