"""The pictures that a run gets: latents made into arrays, arrays made into files."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from bvae_jax.config import TraversalSettings
from bvae_jax.elbo import ACTIVE_NATS, gaussian_kl
from bvae_jax.errors import UserError
from bvae_jax.plots import run as plots
from bvae_jax.plots import scores as score_plots
from bvae_jax.runs.loggers import SCORES, Record, curves, places
from bvae_jax.runs.trainer import Trainer
from bvae_jax.traversal import Decode, by_size, interpolate, traverse
from bvae_jax.types import (
    Images,
    Params,
    Posterior,
    key_for,
)
from bvae_jax.vae import decode, encode

Encode = Callable[[Images], Posterior]
COLUMNS = 8
PAIRS = 5
MOST_ROWS = 20
"""Latents that a traversal shows: those of the largest KL."""


def draw_figures(
    directory: Path, trainer: Trainer, params: Params, records: Sequence[Record]
) -> None:
    """Loss curves, KL per latent, reconstructions, samples, interpolations and traversals.

    An autoencoder has no KL, and no prior to draw samples from; where the records of training were
    lost, there are no curves.
    """
    train = [record for record in records if record["split"] == "train"]
    if train:
        plots.save_loss_curves(directory / "loss_curves.png", curves(records))
    if train and trainer.variational:
        steps = np.array(places(train))
        kl = np.array([record["kl_per_latent"] for record in train])
        plots.save_kl_per_latent(directory / "kl_per_latent.png", steps, kl, ACTIVE_NATS)
    scores = [record for record in records if record["split"] == SCORES]
    if scores:
        from bvae_jax.metrics.scoring import headlines

        found = curves(scores, headlines(scores[0]))
        if found:
            shown = {name: splits[SCORES] for name, splits in found.items()}
            score_plots.save_score_curves(directory / "score_curves.png", shown)

    encoder, decoder = coders(trainer, params)
    indices = np.resize(trainer.eval_indices.ravel(), 2 * COLUMNS)
    images = trainer.images(indices)
    means = encoder(images).mean

    rows = jnp.stack([images, decoder(means)]).reshape(2, 2, COLUMNS, *images.shape[1:])
    plots.save_image_grid(
        directory / "reconstructions.png",
        np.asarray(rows.swapaxes(0, 1).reshape(4, COLUMNS, *images.shape[1:])),
        row_labels=("original", "decoded") * 2,
    )
    if trainer.variational:
        z = jax.random.normal(key_for("samples", 0), (COLUMNS * COLUMNS, trainer.config.latents))
        plots.save_image_grid(
            directory / "samples.png",
            np.asarray(decoder(z)).reshape(COLUMNS, COLUMNS, *images.shape[1:]),
            xlabel="decoded samples of the prior N(0, I)",
        )
    between = interpolate(decoder, means[:PAIRS], means[PAIRS : 2 * PAIRS], COLUMNS)
    ends = [images[:PAIRS, None], between, images[PAIRS : 2 * PAIRS, None]]
    plots.save_image_grid(
        directory / "interpolation.png",
        np.asarray(jnp.concatenate(ends, axis=1)),
        column_labels=("image", *[f"{w:.2g}" for w in np.linspace(0, 1, COLUMNS)], "image"),
        xlabel="weight of the right image's code",
    )
    draw_traversals(directory, trainer, params, TraversalSettings())


def draw_traversals(
    directory: Path, trainer: Trainer, params: Params, settings: TraversalSettings
) -> list[Path]:
    """A grid (PNG) and an animation (GIF) for each starting image, latents ordered by KL.

    The other latents stay at the image's posterior mean. An autoencoder's latents are ordered by
    the standard deviation of their codes.

    Returns:
        The files: traversal.png and .gif, or traversal-INDEX.png and .gif where the images were
        chosen.

    Raises:
        UserError: there is no image of such an index.
    """
    for index in settings.images or ():
        if not 0 <= index < trainer.dataset.size:
            raise UserError(
                f"--images: got {index}, wanted an index from 0 to {trainer.dataset.size - 1}."
            )
    encoder, decoder = coders(trainer, params)
    posterior = encoder(trainer.images(trainer.eval_indices[0]))
    mean, spread = posterior.mean.mean(axis=0), posterior.mean.std(axis=0)
    size = gaussian_kl(posterior).mean(axis=0) if trainer.variational else spread
    order = by_size(size)[:MOST_ROWS]
    labels = [f"z{latent} ({size[latent]:.2f})" for latent in order]
    spans = jnp.linspace(-settings.range, settings.range, settings.columns)
    values, of, what = spans, "the prior", "KL in nats"
    if not trainer.variational:
        values = mean[order, None] + spread[order, None] * spans[None]
        of, what = "its codes, from their mean", "standard deviation of its codes"
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for index in settings.images or [int(trainer.eval_indices[0, 0])]:
        code = encoder(trainer.images(np.array([index]))).mean[0]
        grid = np.asarray(traverse(decoder, code, order, values))
        name = f"traversal-{index}" if settings.images else "traversal"
        files += [directory / f"{name}.png", directory / f"{name}.gif"]
        plots.save_image_grid(
            files[-2],
            grid,
            row_labels=labels,
            column_labels=[f"{value:.1f}" for value in spans],
            xlabel=f"value of the latent (standard deviations of {of})",
            ylabel=f"latent ({what})",
        )
        plots.save_traversal_gif(files[-1], grid, labels, spans.tolist())
    return files


def coders(trainer: Trainer, params: Params) -> tuple[Encode, Decode]:
    """images -> Posterior and z -> images, compiled; the parameters are an argument."""
    encoder, decoder = (jax.jit(f, static_argnums=0) for f in (encode, decode))
    return (
        functools.partial(encoder, trainer.model, params),
        functools.partial(decoder, trainer.model, params),
    )
