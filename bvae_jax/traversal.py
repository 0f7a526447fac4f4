"""From latents to pictures: arrays in, arrays out. `decode` maps [n, latent] to images."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bvae_jax.types import Images, Latents

Decode = Callable[[Latents], Images]
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


def interpolate(decode: Decode, start: Latents, end: Latents, columns: int) -> Grid:
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
    """Latents from the largest to the smallest number, such as their KL."""
    return jnp.argsort(-of_latents, stable=True)


def _decode_grid(decode: Decode, codes: Float[Array, "row column latent"]) -> Grid:
    rows, columns, latents = codes.shape
    images = decode(codes.reshape(rows * columns, latents))
    return images.reshape(rows, columns, *images.shape[1:])
