"""The pictures that a run gets, made of its latents, and training as an animation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from bvae_jax.config import TraversalSettings
from bvae_jax.files.archive import DamagedError, read_npz, write_npz
from bvae_jax.networks.gates import Rates
from bvae_jax.plots import run as plots
from bvae_jax.plots import scores as score_plots
from bvae_jax.runs.grid import label
from bvae_jax.runs.loggers import SCORES, Record, curves, places
from bvae_jax.runs.trainer import Trainer, eval_split
from bvae_jax.runs.traversals import (
    MOST_ROWS,
    Latents,
    by_size,
    central,
    draw_traversal,
    fixed_coders,
    image_of,
    interpolate,
    look,
    rows_of,
    spans_of,
    traverse,
    values_of,
    with_source,
)
from bvae_jax.types import Params, TrainState, key_for

COLUMNS = 8
PAIRS = 5
POINTS = 9
"""Of the rate–distortion curve of a network for many β."""
NUMBERS = ("nll", "nll_error", "kl", "kl_error", "elbo", "active_latents")


def draw_figures(
    directory: Path, trainer: Trainer, params: Params, records: Sequence[Record], step: int
) -> None:
    """Loss curves, KL per latent, reconstructions, samples, interpolations and traversals, as PNG
    and PDF; animations of the traversals, and of training if that left frames.

    An autoencoder has no KL, and no prior to draw samples from; where the records of training were
    lost, there are no curves.

    Args:
        step: of the parameters.
    """
    _, decoder = fixed_coders(trainer, params)
    latents = look(trainer, params, trainer.eval_indices)
    _draw_curves(directory, records, latents.active, kl=latents.size)
    images, means = np.asarray(latents.images), jnp.asarray(latents.codes)
    decoded = np.asarray(decoder(means))
    _draw_reconstructions(directory, images, decoded)
    if trainer.variational:
        z = jax.random.normal(key_for("samples", 0), (COLUMNS * COLUMNS, trainer.config.latents))
        plots.save_image_grid(
            directory / "samples",
            np.asarray(decoder(z)).reshape(COLUMNS, COLUMNS, *images.shape[1:]),
            xlabel="decoded samples of the prior N(0, I)",
        )
    if pairs := min(PAIRS, len(images) // 2):
        between = interpolate(decoder, means[:pairs], means[pairs : 2 * pairs], COLUMNS)
        ends = images[:pairs, None], np.asarray(between), images[pairs : 2 * pairs, None]
        plots.save_image_grid(
            directory / "interpolation",
            np.concatenate(ends, axis=1),
            column_labels=("image", *[f"{w:.2g}" for w in np.linspace(0, 1, COLUMNS)], "image"),
            xlabel="weight of the right image's code",
        )
    settings = TraversalSettings()
    start = central(trainer, latents, decoded)
    draw_traversal(directory, trainer, decoder, settings, latents, start)
    draw_training(directory, trainer, latents, step)


def _draw_curves(
    directory: Path,
    records: Sequence[Record],
    active: Bool[np.ndarray, " latent"],
    kl: Float[np.ndarray, " latent"],
) -> None:
    """What training recorded.

    Args:
        kl: of each latent at the end, if it has one.
    """
    train = [record for record in records if record["split"] == "train"]
    if train:
        names = (*plots.LOSSES, *plots.SCHEDULED)
        plots.save_loss_curves(directory / "loss_curves", curves(records, names))
    if train and "kl_per_latent" in train[0]:
        steps = np.array(places(train))
        course = np.array([record["kl_per_latent"] for record in train])
        plots.save_kl_per_latent(directory / "kl_per_latent", steps, course, kl, active)
    scores = [record for record in records if record["split"] == SCORES]
    if scores:
        from bvae_jax.metrics.scoring import headlines

        found = curves(scores, headlines(scores[0]))
        if found:
            shown = {name: splits[SCORES] for name, splits in found.items()}
            score_plots.save_score_curves(directory / "score_curves", shown)


def _draw_reconstructions(directory: Path, images: np.ndarray, decoded: np.ndarray) -> None:
    """Evaluation images, as many as there are up to two rows, and below each what is decoded."""
    count = min(len(images), 2 * COLUMNS)
    rows = -(-count // COLUMNS)
    grid = np.full((rows * COLUMNS, 2, *images.shape[1:]), np.nan, np.float32)
    grid[:count, 0], grid[:count, 1] = images[:count], decoded[:count]
    grid = grid.reshape(rows, COLUMNS, *grid.shape[1:]).swapaxes(1, 2)
    plots.save_image_grid(
        directory / "reconstructions",
        grid.reshape(2 * rows, COLUMNS, *images.shape[1:]),
        row_labels=("original", "decoded") * rows,
    )


def betas_of(rates: Rates) -> list[float]:
    """Values over the range, at equal distances on a logarithmic scale; its ends are among them."""
    inner = [float(f"{beta:.3g}") for beta in np.geomspace(rates.low, rates.high, POINTS)[1:-1]]
    return sorted({rates.low, *(b for b in inner if rates.low < b < rates.high), rates.high})


def rate_distortion(trainer: Trainer, state: TrainState, rates: Rates) -> list[dict[str, Any]]:
    """Evaluations at `betas_of`: `beta`, and of the evaluation images those of `NUMBERS`."""
    split, points = eval_split(trainer.config), []
    for beta in betas_of(rates):
        at = state._replace(hyper=state.hyper | {"beta": jnp.float32(beta)})
        found = trainer.evaluate(at, split)[split]
        points.append({"beta": beta} | {name: found[name] for name in NUMBERS if name in found})
    return points


def draw_rate_distortion(path: Path, points: Sequence[Mapping[str, Any]]) -> None:
    """The figure of `rate_distortion`."""
    import pandas as pd

    from bvae_jax.plots.comparison import Setting, save_rate_distortion

    settings = [Setting(label({"beta": point["beta"]}), point["beta"]) for point in points]
    members = pd.DataFrame(points).assign(setting=[setting.label for setting in settings])
    save_rate_distortion(path, members, settings)


# Training as an animation: what is kept of a step, and the GIF that is made from it.

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
    order, left_out = rows_of(trainer, SHOWN, latents)
    spans = spans_of(SHOWN, latents)
    _, axis, what = values_of(trainer, latents, order, spans)
    grids, labels = [], []
    for frame in frames.values():
        places = {latent: place for place, latent in enumerate(frame["latents"].tolist())}
        images = frame["images"] / 255
        grid = np.full((len(order) + 1, *images.shape[1:]), np.nan)
        grid[0, :2], names = images[0, :2], [what]
        for row, latent in enumerate(order.tolist(), 1):
            name = f"z{latent}"
            if latent in places:
                place = places[latent]
                grid[row] = images[place + 1]
                name += f" ({frame['size'][place]:.2f})"
            names.append(name)
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
