"""Figures of one run: grids of images, animated traversals, curves of its training."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from bvae_jax.files import replacing
from bvae_jax.plots.style import (
    BLUE,
    COLOURS,
    COLUMN_INCHES,
    DASHES,
    GREEN,
    ORANGE,
    STYLE,
    Curve,
    fit,
    label_steps,
    legend_below,
    panels,
    show_picture,
    zoom_past_start,
)

ImageGrid = Float[np.ndarray, "row column height width channels"]
SIDE = 64  # pixels that smaller images are enlarged to
MOST_LABELS = 11  # below a grid; of more columns every second, third, ... is labelled
MOST_NAMED = 2 * len(COLOURS)
"""Latents with a line of their own look."""
ACROSS = 6
"""Pictures beside each other in an animation."""
LOSSES = {"nll": "−log p(x|z)", "kl": "KL", "elbo": "ELBO"}
SCHEDULED = {"beta": "β\n(weight of the KL)", "capacity": "C, the KL aimed at\n(nats per image)"}
SPLIT_LABELS = {
    "train": "training batches",
    "train_eval": "training images, evaluated alike",
    "holdout": "held-out images",
}
LOOKS: dict[str, dict[str, Any]] = {
    "train": {"color": BLUE, "ms": 3},
    "train_eval": {"color": ORANGE, "ls": "", "marker": "s", "ms": 3.5},
    "holdout": {"color": GREEN, "ls": "", "marker": "o", "ms": 2.5, "mfc": "white"},
}


def save_image_grid(
    path: Path,
    images: ImageGrid,
    *,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    xlabel: str = "",
    title: str = "",
) -> None:
    """Draw a grid of images in [0, 1] with labels for its rows and columns.

    Args:
        images: nan where there is none.
        title: above, from the left.
    """
    heights = [1.0]
    with panels(path, heights) as (figure, grid):
        axes = grid[0, 0]
        picture = _draw_grid(axes, images, row_labels, column_labels)
        axes.set_xlabel(xlabel)
        axes.set_title(title, loc="left")
        figure.draw_without_rendering()
        heights[0] = axes.bbox.width / figure.dpi * picture.shape[0] / picture.shape[1]


def save_samples(
    directory: Path, images: Float[np.ndarray, "n height width channels"]
) -> list[Path]:
    """samples.png, a grid of images in [0, 1], and sample-0.png, ..., each in its own size."""
    columns = math.ceil(math.sqrt(len(images)))
    grid = np.full((-(-len(images) // columns) * columns, *images.shape[1:]), np.nan, np.float32)
    grid[: len(images)] = images
    grid = enlarged(grid.reshape(-1, columns, *images.shape[1:]))
    digits = len(str(len(images) - 1))
    shown = {"samples": grid} | {
        f"sample-{number:0{digits}}": image[None, None] for number, image in enumerate(images)
    }
    paths = [directory / f"{stem}.png" for stem in shown]
    for path, one in zip(paths, shown.values(), strict=True):
        with replacing(path) as file:
            Image.fromarray(np.rint(255 * mosaic(one)).astype(np.uint8)).save(file, "PNG")
    return paths


def save_traversal_gif(
    path: Path,
    images: ImageGrid,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    still: Mapping[str, Float[np.ndarray, "height width channels"]],
) -> None:
    """Animate a traversal: one picture for each row, moving through the columns and back.

    Args:
        still: label -> a picture that does not move; they come first.
    """
    columns = images.shape[1]
    fixed = [np.broadcast_to(one, images.shape[1:]) for one in still.values()]
    rows, labels = [*fixed, *images], [*still, *row_labels]
    across = min(len(rows), ACROSS)
    down = -(-len(rows) // across)
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            down, across, figsize=(COLUMN_INCHES, 0.3 + (0.2 + COLUMN_INCHES / across) * down),
            squeeze=False, layout="constrained",
        )  # fmt: skip
        pictures = []
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, row, label in zip(grid.flat, rows, labels, strict=False):
            axes.set_title(label, fontsize=7, pad=2)
            first = mosaic(row[None, :1])
            pictures.append(axes.imshow(first, cmap="gray", vmin=0, vmax=1, resample=False))
        frames, below = [], figure.supxlabel("", fontsize=7)
        for column in range(columns):
            for picture, row in zip(pictures, rows, strict=True):
                picture.set_data(mosaic(row[None, column : column + 1]))
            below.set_text(column_labels[column])
            frames.append(_rasterise(figure))
            figure.set_layout_engine("none")  # that of the first frame, for all
        plt.close(figure)
    frames += frames[-2:0:-1]
    _save_gif(path, frames, [80] * len(frames))


def save_training_gif(
    path: Path,
    images: Iterable[ImageGrid],
    titles: Sequence[str],
    row_labels: Sequence[Sequence[str]],
    column_labels: Sequence[str],
    xlabel: str,
) -> None:
    """A grid of images that changes as training goes on; it takes about five seconds.

    Args:
        images: one grid for each frame, all of one shape.
        titles: of the frames.
        row_labels: of each frame, of its rows.
    """
    frames = []
    with plt.rc_context(STYLE):
        size = COLUMN_INCHES, 2 * COLUMN_INCHES
        figure, one = plt.subplots(figsize=size, squeeze=False, layout="constrained")
        axes = one[0, 0]
        for grid, title, labels in zip(images, titles, row_labels, strict=True):
            axes.clear()
            picture = _draw_grid(axes, grid, labels, column_labels)
            axes.set_xlabel(xlabel)
            axes.set_title(title, loc="left")
            if not frames:
                figure.draw_without_rendering()
                width = axes.bbox.width / figure.dpi
                fit(figure, one, [width * picture.shape[0] / picture.shape[1]])
                figure.draw_without_rendering()
                figure.set_layout_engine("none")  # nothing moves but the pictures
            frames.append(_rasterise(figure))
        plt.close(figure)
    each = int(np.clip(5000 / len(frames), 100, 800))
    _save_gif(path, frames, [*[each] * (len(frames) - 1), 2000])


def save_loss_curves(path: Path, curves: Mapping[str, Mapping[str, Curve]]) -> None:
    """Negative log-likelihood, KL and ELBO, as far as they are known, against the step.

    Below them beta and the capacity, where they change.

    Args:
        curves: "nll", "kl", "elbo", "beta", "capacity" -> split -> curve, nats per image. What
            tells how much worse held-out images are is the training images that are evaluated at
            the same parameters.
    """
    known = {name: f"{title}\n(nats per image)" for name, title in LOSSES.items()}
    known = {name: title for name, title in known.items() if curves.get(name)}
    for name, title in SCHEDULED.items():
        values = curves.get(name, {}).get("train", np.zeros((2, 1)))[1]
        if np.ptp(values) > 1e-6 * abs(values).max():
            known[name] = title
    heights = [0.7 if name in SCHEDULED else 1.1 for name in known]
    with panels(path, heights, sharex=True) as (figure, grid):
        for axes, (name, title) in zip(grid[:, 0], known.items(), strict=True):
            shown = {split: look for split, look in LOOKS.items() if split in curves[name]}
            for split, look in shown.items():
                if name in LOSSES or split == "train":
                    steps, values = curves[name][split]
                    style = {"marker": "o"} if len(steps) == 1 else {}  # that is no line
                    axes.plot(steps, values, label=SPLIT_LABELS[split], **style | look)
            axes.set_ylabel(title)
            if name in LOSSES:
                zoom_past_start(axes, [curves[name][split] for split in shown])
        figure.align_ylabels()
        last = max(steps[-1] for some in curves.values() for steps, _ in some.values())
        label_steps(grid[-1, 0], np.array([0, last]))
        legend_below(figure, grid[0, 0].get_lines())


def save_kl_per_latent(
    path: Path,
    steps: Float[np.ndarray, " point"],
    kl: Float[np.ndarray, "point latent"],
    final: Float[np.ndarray, " latent"],
    active: Bool[np.ndarray, " latent"],
) -> None:
    """The KL of each latent in nats against the step; those that end inactive are grey.

    Args:
        final: what it is at the end, which need not be the last point.
    """
    order = np.argsort(-final, kind="stable")
    named = order[active[order]][:MOST_NAMED]
    groups = {
        ("more active", "0.55"): order[active[order]][MOST_NAMED:],
        ("not active", "0.8"): order[~active[order]],
    }
    look = {"marker": "o" if len(steps) == 1 else "", "ms": 2.5}  # one point is no line
    with panels(path, [1.6]) as (figure, grid):
        axes, handles = grid[0, 0], []
        for (what, grey), latents in groups.items():
            for latent in latents:
                axes.plot(steps, kl[:, latent], color=grey, zorder=1, **look)
            if len(latents):
                handles.append(Line2D([], [], color=grey, label=f"{len(latents)} {what}"))
        for rank in range(len(named) - 1, -1, -1):  # the largest on top
            turn, number = divmod(rank, len(COLOURS))
            label = f"z{named[rank]} ({final[named[rank]]:.2f})"
            dashes = {"color": COLOURS[number], "ls": DASHES[turn], "label": label}
            handles[:0] = axes.plot(steps, kl[:, named[rank]], **look, **dashes)
        if len(named):
            handles.append(Line2D([], [], ls="", label="(KL at the end)"))
        label_steps(axes, np.array([0, *steps]))
        axes.set_ylabel("KL(q(z|x) || N(0, 1)) (nats)")
        zoom_past_start(axes, [np.stack([steps, course]) for course in kl.T])
        axes.set_ylim(bottom=0)
        legend_below(figure, handles)


def enlarged(images: Float[np.ndarray, "*grid height width channels"]) -> np.ndarray:
    """Small images by a whole factor larger, so that the space between them can be narrow."""
    times = -(-SIDE // max(images.shape[-3:-1]))
    return images.repeat(times, -3).repeat(times, -2)


def gap(height: int, width: int) -> int:
    """Pixels between images of this size."""
    return max(1, round(max(height, width) / 32))


def mosaic(images: ImageGrid) -> np.ndarray:
    """One picture [y, x] or [y, x, 3] of all images, with a grey line between them.

    Channels that are no colours, for they are neither one nor three, are shown by their mean.
    Images that are nan are white, and so is the line at their right and below them.
    """
    if images.shape[-1] not in (1, 3):
        images = images.mean(axis=-1, keepdims=True)
    rows, columns, height, width, channels = images.shape
    space = gap(height, width)
    tiles = np.full((rows, columns, height + space, width + space, channels), 0.5)
    tiles[:, :, :height, :width] = images
    tiles[np.isnan(images).any(axis=(2, 3, 4))] = 1
    picture = tiles.swapaxes(1, 2).reshape(
        rows * (height + space), columns * (width + space), channels
    )
    picture = np.clip(picture[:-space, :-space], 0, 1)
    return picture[..., 0] if channels == 1 else picture


def label_images(axes: Axes, height: int, width: int, labels: Sequence[str]) -> None:
    """Labels below the columns of a mosaic of images of this size: at most `MOST_LABELS`."""
    every = -(-len(labels) // MOST_LABELS) or 1
    centres = np.arange(len(labels)) * (width + gap(height, width)) + width / 2
    axes.set_xticks(centres[::every], labels[::every])


def _draw_grid(
    axes: Axes, images: ImageGrid, row_labels: Sequence[str], column_labels: Sequence[str]
) -> np.ndarray:
    """The picture that is drawn."""
    images = enlarged(images)
    height, width = images.shape[2:4]
    picture = mosaic(images)
    show_picture(axes, picture)
    label_images(axes, height, width, column_labels)
    rows = np.arange(len(row_labels)) * (height + gap(height, width)) + height / 2
    axes.set_yticks(rows, row_labels)
    return picture


def _rasterise(figure: Figure) -> Image.Image:
    figure.set_dpi(160)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())  # pyright: ignore[reportAttributeAccessIssue]
    return Image.fromarray(pixels[..., :3].copy()).convert("P", palette=Image.Palette.ADAPTIVE)


def _save_gif(path: Path, frames: Sequence[Image.Image], milliseconds: Sequence[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = frames
    with replacing(path) as file:
        first.save(
            file, "GIF", save_all=True, append_images=rest, duration=list(milliseconds), loop=0
        )
