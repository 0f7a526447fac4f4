"""Traversals of a run's latents: which images they start from, which latents, and their files."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from bvae_jax.config import TraversalSettings
from bvae_jax.data.folder import in_words
from bvae_jax.data.pictures import decode_all
from bvae_jax.elbo import ACTIVE_VARIANCE, gaussian_kl, is_active
from bvae_jax.errors import UserError
from bvae_jax.plots import run as plots
from bvae_jax.plots.style import short_name
from bvae_jax.runs.trainer import Trainer
from bvae_jax.types import Images, Params, Posterior
from bvae_jax.vae import CODEBOOK, decode, encode

# From latents to pictures: arrays in, arrays out. `decode` maps [n, latent] to images.

Codes = Float[Array, "n latent"]
Decode = Callable[[Codes], Images]
Code = Float[Array, " latent"]
Values = Float[Array, "*row column"]
"""Of every row, or of each row its own."""
Grid = Float[Array, "row column height width channels"]


def traverse(decode: Decode, code: Code, latents: Int[Array, " row"], values: Values) -> Grid:
    """Images of `code` with one latent at a time set to each of `values`.

    Higgins et al. 2017, fig. 1.

    Args:
        code: [latent], where the other latents stay: a posterior mean, or zeros.
        latents: [row], which latent each row varies.
        values: [column] or [row, column], what the latent is set to.

    Returns:
        [row, column, height, width, channels].
    """
    rows, columns = len(latents), values.shape[-1]
    codes = jnp.broadcast_to(code[None, None], (rows, columns, len(code)))
    row, column = jnp.meshgrid(jnp.arange(rows), jnp.arange(columns), indexing="ij")
    codes = codes.at[row, column, latents[:, None]].set(jnp.broadcast_to(values, (rows, columns)))
    return _decode_grid(decode, codes)


def interpolate(decode: Decode, start: Codes, end: Codes, columns: int) -> Grid:
    """Images along the straight line between two codes, ends included.

    Args:
        start: [row, latent].
        end: [row, latent].
        columns: number of images, at least 2.

    Returns:
        [row, column, height, width, channels].
    """
    weight = jnp.linspace(0.0, 1.0, columns)[None, :, None]
    return _decode_grid(decode, (1 - weight) * start[:, None] + weight * end[:, None])


def by_size(of_latents: Code) -> Int[Array, " latent"]:
    """Codes from the largest to the smallest number, such as their KL."""
    return jnp.argsort(-of_latents, stable=True)


def _decode_grid(decode: Decode, codes: Float[Array, "row column latent"]) -> Grid:
    rows, columns, latents = codes.shape
    images = decode(codes.reshape(rows * columns, latents))
    return images.reshape(rows, columns, *images.shape[1:])


Encode = Callable[[Images], Posterior]
Picture = Float[np.ndarray, "height width channels"]
Pictures = Float[np.ndarray, "n height width channels"]
MOST_ROWS = 20
"""Latents that a traversal shows: those of the largest KL."""


class Latents(NamedTuple):
    """What is known of each latent, from evaluation images; and the first batch of these.

    Attributes:
        size: mean KL in nats; of an autoencoder the standard deviation of its codes.
        active: whether the posterior mean varies with the image.
        mean, spread: where an autoencoder's latents are traversed.
        values: of each latent's codebook from the lowest to the highest, where there is one.
    """

    images: Images
    codes: Float[np.ndarray, "n latent"]
    size: Float[np.ndarray, " latent"]
    active: Bool[np.ndarray, " latent"]
    mean: Float[np.ndarray, " latent"]
    spread: Float[np.ndarray, " latent"]
    values: Float[np.ndarray, "latent value"] | None = None


class Start(NamedTuple):
    """An image that traversals start from.

    Attributes:
        number: its index in the data set; -1 of a picture.
        title: what it is, in words.
        stem: of the names of its files.
    """

    image: Picture
    code: Float[np.ndarray, " latent"]
    number: int
    title: str
    stem: str = "traversal"


def draw_traversals(
    directory: Path, trainer: Trainer, params: Params, settings: TraversalSettings
) -> list[Path]:
    """A grid (PNG and PDF) and an animation (GIF) for each starting image, latents ordered by KL.

    The image and its reconstruction come first. The other latents stay at the image's posterior
    mean. An autoencoder's latents are ordered by the standard deviation of their codes.

    Where no image is given, it is one of the first batch of evaluation images: see `best_start`.

    Returns:
        The files: traversal.png, .pdf and .gif, or traversal-INDEX and traversal-FILE where the
        images were chosen.

    Raises:
        UserError: there is no such image or latent, or a picture cannot be read.
    """
    chosen_rows(settings, trainer.config.latents)
    pictures = [image_of(trainer, given) for given in settings.images]
    encoder, decoder = fixed_coders(trainer, params)
    latents = look(trainer, params, trainer.eval_indices)
    if pictures:
        codes = np.asarray(encoder(jnp.stack([one.image for one in pictures])).mean)
        starts = [one._replace(code=code) for one, code in zip(pictures, codes, strict=True)]
    else:
        decoded = np.asarray(decoder(jnp.asarray(latents.codes)))
        starts = [central(trainer, latents, decoded)]
    files, stems = [], set()
    for number, start in enumerate(starts, 1):
        while start.stem in stems:  # files of the same name
            start = start._replace(stem=f"{start.stem}-{number}")
        stems.add(start.stem)
        files += draw_traversal(directory, trainer, decoder, settings, latents, start)
    return files


def draw_traversal(
    directory: Path,
    trainer: Trainer,
    decoder: Decode,
    settings: TraversalSettings,
    latents: Latents,
    start: Start,
) -> list[Path]:
    """The files of one starting image: see `draw_traversals`."""
    order, left_out = rows_of(trainer, settings, latents)
    spans = spans_of(settings, latents)
    values, axis, what = values_of(trainer, latents, order, spans)
    rows = np.asarray(traverse(decoder, jnp.asarray(start.code), jnp.asarray(order), values))
    decoded = np.asarray(decoder(jnp.asarray(start.code)[None]))[0]
    labels = [f"z{latent} ({latents.size[latent]:.2f})" for latent in order]
    path, digits = directory / start.stem, 1 if latents.values is None else 0
    plots.save_image_grid(
        path,
        with_source(start.image, decoded, rows),
        row_labels=[what, *labels],
        column_labels=[f"{value:.{digits}f}" for value in spans],
        xlabel="\n".join(filter(None, (axis, left_out))),
        title=f"{start.title}, and its reconstruction",
    )
    files = [path.with_name(f"{path.name}.{kind}") for kind in ("png", "pdf", "gif")]
    still = {"image": start.image, "decoded": decoded}
    words = "{:+.1f} standard deviations" if latents.values is None else "value {:.0f}"
    plots.save_traversal_gif(files[-1], rows, labels, [*map(words.format, spans)], still)
    return files


def with_source(
    image: Picture, decoded: Picture, rows: Float[np.ndarray, "row column h w c"]
) -> Float[np.ndarray, "row_and_1 column h w c"]:
    """Rows of pictures, above them one that begins with these two; nan where there is none."""
    top = np.full_like(rows[:1], np.nan)
    top[0, 0], top[0, 1] = image, decoded
    return np.concatenate([top, rows])


def spans_of(settings: TraversalSettings, latents: Latents) -> np.ndarray:
    """[column] of a traversal: standard deviations, or places in each latent's codebook."""
    if latents.values is None:
        return np.linspace(-settings.range, settings.range, settings.columns)
    last = latents.values.shape[1] - 1
    return np.unique(np.linspace(0, last, settings.columns).round())


def values_of(
    trainer: Trainer, latents: Latents, order: Int[np.ndarray, " row"], spans: np.ndarray
) -> tuple[jax.Array, str, str]:
    """What latents are set to; what that is, in words; and what stands above their names."""
    if trainer.variational:
        values, axis = spans, "value of the latent (standard deviations of the prior)"
    elif latents.values is not None:
        values = latents.values[order][:, spans.astype(int)]
        axis = "value of the latent's codebook, in order"
    else:
        values = latents.mean[order, None] + latents.spread[order, None] * spans[None]
        axis = "value of the latent (standard deviations from its mean)"
    what = "latent\n(KL in nats)" if trainer.variational else "latent\n(std. of codes)"
    return jnp.asarray(values, jnp.float32), axis, what


def chosen_rows(settings: TraversalSettings, latents: int) -> list[int]:
    """The latents that `settings` name, once each.

    Raises:
        UserError: there are no such latents of a number of `latents`.
    """
    if settings.latents and settings.all_latents:
        raise UserError("Got both --latents and --all-latents: give one of them.")
    parts = settings.latents.split(",") if settings.latents else []
    if not all(part.strip().isdecimal() and int(part) < latents for part in parts):
        raise UserError(
            f"--latents: got {settings.latents!r}, wanted numbers from 0 to {latents - 1} with "
            "commas, as 1,0."
        )
    return list(dict.fromkeys(map(int, parts)))


def rows_of(
    trainer: Trainer, settings: TraversalSettings, latents: Latents
) -> tuple[Int[np.ndarray, " row"], str]:
    """Which latents are shown, in order; and which are not, in words."""
    if chosen := chosen_rows(settings, len(latents.size)):
        return np.array(chosen), ""
    order = np.asarray(by_size(jnp.asarray(latents.size)))
    shown = order if settings.all_latents else order[latents.active[order]]
    if trainer.variational:
        measure, varies = "KL", "variance of the mean"
        wanted, got = f"{varies} > {ACTIVE_VARIANCE}", f"{varies} ≤ {ACTIVE_VARIANCE}"
    else:
        measure, wanted, got = "standard deviation", "more than one value", "one value"
    if not len(shown):
        return order[:MOST_ROWS], f"no latent is active ({wanted})"
    left = []
    if inactive := len(order) - len(shown):
        left.append(f"{inactive} not active ({got})")
    if more := len(shown[MOST_ROWS:]):
        left.append(f"{more} of a smaller {measure}")
    return shown[:MOST_ROWS], f"not shown: {', '.join(left)}" if left else ""


def image_of(trainer: Trainer, given: int | str) -> Start:
    """An image by its index, or a picture file made into one; its code is left open."""
    shape, size = trainer.dataset.image_shape, trainer.dataset.size
    nowhere = np.zeros(0, np.float32)
    if isinstance(given, int):
        if not 0 <= given < size:
            raise UserError(f"--images: got {given}, wanted an index from 0 to {size - 1}.")
        image = np.asarray(trainer.images(np.array([given])))[0]
        return Start(image, nowhere, given, f"image {given}", f"traversal-{given}")
    if not Path(given).suffix:
        raise UserError(
            f"--images: got {given!r}, wanted an index from 0 to {size - 1}, or a picture file."
        )
    file, called = Path(given).expanduser(), "×".join(map(str, shape))
    if shape[0] != shape[1] or shape[2] not in (1, 3):
        raise UserError(
            f"--images: got {given}, but no picture can be made into an image of {called}: wanted "
            f"an index from 0 to {size - 1}."
        )
    read = next(decode_all([file], shape, 1))
    if read.failed:
        raise UserError(
            f"--images: {given} cannot be read ({read.failed[0]}): wanted a PNG, JPEG or WebP."
        )
    image = read.images[0].astype(np.float32) / 255
    title = f"{short_name(file.name)} ({in_words({*read.sizes})})\nas {called}"
    return Start(image, nowhere, -1, title, f"traversal-{file.stem.replace('.', '_')}")


def central(trainer: Trainer, latents: Latents, decoded: np.ndarray) -> Start:
    """A well reconstructed image whose code is central: see `draw_traversals`."""
    images, codes = np.asarray(latents.images), latents.codes
    if not trainer.variational:
        codes = (codes - latents.mean) / np.maximum(latents.spread, 1e-12)
    best = best_start(images, decoded, codes)
    number = int(trainer.eval_indices[0, best])
    kind = "held-out image" if trainer.config.holdout else "image"
    return Start(images[best], latents.codes[best], number, f"{kind} {number}")


def best_start(images: Pictures, decoded: Pictures, codes: Float[np.ndarray, "n latent"]) -> int:
    """Which image to start from: of the better half, that whose code is most central.

    Better is measured by what is left of an image's squared distance from the mean picture, since
    of small objects little is lost by leaving them out.
    """
    pixels = (1, 2, 3)
    left = np.square(images - decoded).sum(axis=pixels)
    left /= np.square(images - images.mean(axis=0)).sum(axis=pixels) + 1e-12
    distance = np.square(codes - codes.mean(axis=0)).sum(axis=1)  # which need not be at 0
    return int(np.argmin(np.where(left <= np.median(left), distance, np.inf)))


def look(trainer: Trainer, params: Params, batches: Int[np.ndarray, "batches batch"]) -> Latents:
    """Encode some of the evaluation images."""
    found = [trainer.encode(params, indices) for indices in batches]
    codes = np.concatenate([posterior.mean for posterior in found])
    spread = codes.std(axis=0)
    size, active = spread, spread > 0
    if trainer.variational:
        size = np.concatenate([gaussian_kl(posterior) for posterior in found]).mean(axis=0)
        active = is_active(np.square(spread))
    images = trainer.images(batches[0])
    values = np.sort(params[CODEBOOK], axis=1) if trainer.model.codebook else None
    return Latents(images, codes[: len(images)], size, active, codes.mean(axis=0), spread, values)


def coders(trainer: Trainer, params: Params) -> tuple[Encode, Decode]:
    """images -> Posterior and z -> images, compiled; the parameters are an argument."""
    encoder, decoder = (jax.jit(f, static_argnums=0) for f in (encode, decode))
    return (
        functools.partial(encoder, trainer.model, params),
        functools.partial(decoder, trainer.model, params),
    )


def fixed_coders(trainer: Trainer, params: Params) -> tuple[Encode, Decode]:
    """`coders` that compute in batches as large as those of evaluation, so are compiled once."""
    size = trainer.eval_indices.shape[1]
    encoder, decoder = coders(trainer, params)

    def batches(rows: jax.Array) -> list[jax.Array]:
        filled = jnp.pad(rows, [(0, -len(rows) % size), *[(0, 0)] * (rows.ndim - 1)])
        return list(filled.reshape(-1, size, *rows.shape[1:]))

    def encode_all(images: Images) -> Posterior:
        parts = [encoder(batch) for batch in batches(images)]
        means, logvars = (jnp.concatenate([p[i] for p in parts])[: len(images)] for i in range(2))
        return Posterior(means, logvars)

    def decode_all(z: jax.Array) -> Images:
        return jnp.concatenate([decoder(batch) for batch in batches(z)])[: len(z)]

    return encode_all, decode_all
