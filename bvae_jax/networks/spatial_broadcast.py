"""The spatial broadcast decoder: z at every pixel, and where the pixel is."""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from bvae_jax.networks.layers import UNIFORM, Network, chain, in_parts
from bvae_jax.networks.strided import StridedEncoder
from bvae_jax.types import Decoded, ImageShape, Latents


class SpatialBroadcastDecoder(nn.Module):
    """Convolutions 3x3 with stride 1 on [z, x, y], which is z tiled over the image's pixels.

    Attributes:
        sides: height and width of the image.
        outputs: numbers for each pixel, from one more convolution.
        channels: of each hidden convolution, which ReLU follows.
    """

    sides: tuple[int, int]
    outputs: int
    channels: tuple[int, ...] = (64, 64)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, z: Latents) -> Decoded:
        batch, latents = z.shape
        tiled = jnp.broadcast_to(z[:, None, None], (batch, *self.sides, latents))
        grid = jnp.broadcast_to(coordinates(self.sides)[None], (batch, *self.sides, 2))
        h = jnp.concatenate([tiled, grid], axis=-1).astype(self.dtype)
        conv = functools.partial(nn.Conv, kernel_size=(3, 3), kernel_init=UNIFORM, dtype=self.dtype)
        layers = [layer for features in self.channels for layer in (conv(features), nn.relu)]
        return in_parts(chain([*layers, conv(self.outputs)]), h).astype(jnp.float32)


def coordinates(sides: tuple[int, int]) -> Float[Array, "height width 2"]:
    """x (to the right) and y (downwards) of every pixel, each from -1 to 1."""
    height, width = sides
    x, y = jnp.meshgrid(jnp.linspace(-1, 1, width), jnp.linspace(-1, 1, height))
    return jnp.stack([x, y], axis=-1)


def spatial_broadcast(latents: int, image_shape: ImageShape, outputs: int, dtype: Any) -> Network:
    """Four 4×4 convolutions of 64 channels, a layer of 256; decoder of z at every pixel.

    Watters et al. 2019; sizes unchecked.

    The decoder gives each pixel's coordinates beside z to 3×3 convolutions ("Spatial broadcast
    decoder"). The widths and the decoder's depth and kernels are those of a public
    reimplementation, not checked against the paper's appendix. Weights: `UNIFORM`.
    """
    return Network(
        StridedEncoder(latents, (64,) * 4, (4,) * 4, (256,), dtype=dtype),
        SpatialBroadcastDecoder(image_shape[:2], outputs, dtype=dtype),
    )
