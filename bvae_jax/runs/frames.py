"""Training as an animation: what is kept of a step, and the GIF that is made from it."""

from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bvae_jax.archive import DamagedError, read_npz, write_npz
from bvae_jax.config import TraversalSettings
from bvae_jax.plots import run as plots
from bvae_jax.runs.trainer import Trainer
from bvae_jax.runs.traversals import (
    MOST_ROWS,
    Latents,
    central,
    fixed_coders,
    image_of,
    look,
    rows_of,
    spans_of,
    values_of,
    with_source,
)
from bvae_jax.traversal import by_size, traverse
from bvae_jax.types import Params

FRAMES = "training"
"""The directory, beside training.gif, of what it is made from."""
MOST_FRAMES = 60
SHOWN = TraversalSettings(columns=7)
SIDE = 64
"""Pixels of an image in a frame, about: more cannot be seen in it."""


def keep_frame(directory: Path, trainer: Trainer, params: Params, step: int, steps: int) -> None:
    """Keep what training.gif shows of a step: traversals of one image, and its reconstruction.

    The image is the same at all steps, chosen at the first one as for `draw_traversals`. Of a
    step that is followed closely by others nothing is kept: there are at most `MOST_FRAMES`.

    Args:
        directory: of the figures.
        steps: of the whole run.
    """
    kept = [s for s in _frames(directory) if s < step]
    if not is_due(step, steps, kept):
        return
    encoder, decoder = fixed_coders(trainer, params)
    latents = look(trainer, params, trainer.eval_indices[:1])
    first = _read_frame(directory, kept[0]) if kept else None
    if first:
        start = image_of(trainer, int(first["index"]))
        start = start._replace(code=np.asarray(encoder(jnp.asarray(start.image)[None]).mean)[0])
    else:
        start = central(trainer, latents, np.asarray(decoder(jnp.asarray(latents.codes))))
    order = np.asarray(by_size(jnp.asarray(latents.size)))[:MOST_ROWS]
    values, _, _ = values_of(trainer, latents, order, spans_of(SHOWN, latents))
    rows = np.asarray(traverse(decoder, jnp.asarray(start.code), jnp.asarray(order), values))
    decoded = np.asarray(decoder(jnp.asarray(start.code)[None]))[0]
    grid = with_source(start.image, decoded, rows)
    levels = np.nan_to_num(_shrunk(grid) * 255).round().astype(np.uint8)
    numbers = {"latents": order, "size": latents.size[order], "index": np.array(start.number)}
    write_npz(directory / FRAMES / f"{step}.npz", compress=True, images=levels, **numbers)


def is_due(step: int, steps: int, kept: Sequence[int]) -> bool:
    """Whether a frame is wanted of this step: there are at most about `MOST_FRAMES` in a run.

    Args:
        kept: earlier steps that have one, in order.
    """
    every = -(-steps // MOST_FRAMES)
    return not kept or step == steps or step // every > kept[-1] // every


def draw_training(directory: Path, trainer: Trainer, latents: Latents, step: int) -> None:
    """training.gif, of the frames up to a step; a single one makes none.

    Args:
        latents: as they are now: the active ones are shown.
    """
    frames = {s: _read_frame(directory, s) for s in _frames(directory) if s <= step}
    frames = {s: frame for s, frame in frames.items() if frame}
    if len(frames) < 2:
        return
    order, left_out = rows_of(SHOWN, latents)
    spans = spans_of(SHOWN, latents)
    _, axis, what = values_of(trainer, latents, order, spans)
    grids, labels = [], []
    for frame in frames.values():
        places = {latent: place for place, latent in enumerate(frame["latents"].tolist())}
        images = frame["images"] / 255
        grid = np.full((len(order) + 1, *images.shape[1:]), np.nan)
        grid[0, :2], names = images[0, :2], [what]
        for row, latent in enumerate(order.tolist(), 1):
            known = latent in places
            grid[row] = images[places[latent] + 1] if known else np.nan
            size = f" ({frame['size'][places[latent]]:.2f})" if known else ""
            names.append(f"z{latent}{size}")
        grids.append(grid)
        labels.append(names)
    plots.save_training_gif(
        directory / "training.gif",
        grids,
        [f"step {s:,}: image, its reconstruction, and traversals" for s in frames],
        labels,
        [f"{value:.0f}" for value in spans],
        xlabel="\n".join(filter(None, (axis, left_out))),
    )


def _frames(directory: Path) -> list[int]:
    """Steps of which there are frames, in order."""
    names = [path.stem for path in (directory / FRAMES).glob("*.npz")]
    return sorted(int(name) for name in names if name.isdecimal())


def _read_frame(directory: Path, step: int) -> dict[str, np.ndarray] | None:
    """None if it is damaged."""
    try:
        return read_npz(directory / FRAMES / f"{step}.npz")
    except DamagedError:
        return None


def _shrunk(images: Float[np.ndarray, "row column h w c"]) -> Float[np.ndarray, "row column i j c"]:
    """Large images by a whole factor smaller."""
    rows, columns, height, width, channels = images.shape
    times = max(1, min(height, width) // SIDE)
    height, width = height // times, width // times
    cut = images[:, :, : height * times, : width * times]
    return cut.reshape(rows, columns, height, times, width, times, channels).mean(axis=(3, 5))
