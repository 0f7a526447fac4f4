"""Figures of one run: grids of images, animated traversals, curves of its training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from bvae_jax.plots.style import COLUMN_INCHES, STYLE, Curve, panels, show_picture, zoom_past_start

ImageGrid = Float[np.ndarray, "row column height width channels"]
GAP = 2  # pixels between images
MOST_LABELS = 11  # below a grid; of more columns every second, third, ... is labelled
LOSSES = {"nll": "−log p(x|z)", "kl": "KL", "elbo": "ELBO"}
SPLIT_LABELS = {
    "train": "training batches",
    "train_eval": "training images, evaluated alike",
    "holdout": "held-out images",
}
LOOKS: dict[str, dict[str, Any]] = {
    "train": {"ms": 3},
    "train_eval": {"ls": "", "marker": "s", "ms": 3},
    "holdout": {"ls": "", "marker": "o", "ms": 2.5, "mfc": "white"},
}


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
    picture = mosaic(images)
    heights = [1.0]
    with panels(path, heights) as (figure, grid):
        axes = grid[0, 0]
        show_picture(axes, picture)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        label_images(axes, images.shape[3], column_labels)
        rows = np.arange(len(row_labels)) * (images.shape[2] + GAP) + images.shape[2] / 2
        axes.set_yticks(rows, row_labels)
        figure.draw_without_rendering()
        heights[0] = axes.bbox.width / figure.dpi * picture.shape[0] / picture.shape[1]


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


def save_loss_curves(path: Path, curves: Mapping[str, Mapping[str, Curve]]) -> None:
    """Negative log-likelihood, KL and ELBO, as far as they are known, against the step.

    Args:
        curves: "nll", "kl", "elbo" -> split -> curve, nats per image. What tells how much worse
            held-out images are is the training images that are evaluated at the same parameters.
    """
    known = {name: title for name, title in LOSSES.items() if curves.get(name)}
    with panels(path, [1.1] * len(known), sharex=True) as (figure, grid):
        for axes, (name, title) in zip(grid[:, 0], known.items(), strict=True):
            for split, look in LOOKS.items():
                if split in curves[name]:
                    steps, values = curves[name][split]
                    style = {"marker": "o"} if len(steps) == 1 else {}  # that is no line
                    axes.plot(steps, values, label=SPLIT_LABELS[split], **style | look)
            axes.set_ylabel(f"{title}\n(nats per image)")
            if "train" in curves[name]:
                zoom_past_start(axes, [curves[name]["train"]])
        figure.align_ylabels()
        grid[0, 0].legend(frameon=False)
        grid[-1, 0].set_xlabel("step")


def save_kl_per_latent(
    path: Path,
    steps: Float[np.ndarray, " point"],
    kl: Float[np.ndarray, "point latent"],
    active_nats: float,
) -> None:
    """The KL of each latent in nats against the step; those that end inactive are grey."""
    colours = plt.get_cmap("tab10")
    with panels(path, [2.0]) as (_, grid):
        axes, dead = grid[0, 0], 0
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


def label_images(axes: Axes, width: int, labels: Sequence[str]) -> None:
    """Labels below the columns of a mosaic of images of this width: at most `MOST_LABELS`."""
    every = -(-len(labels) // MOST_LABELS) or 1
    centres = np.arange(len(labels)) * (width + GAP) + width / 2
    axes.set_xticks(centres[::every], labels[::every])


def _rasterise(figure: Figure) -> Image.Image:
    figure.set_dpi(160)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())  # pyright: ignore[reportAttributeAccessIssue]
    return Image.fromarray(pixels[..., :3].copy()).convert("P", palette=Image.Palette.ADAPTIVE)
