"""Spatial broadcast decoders: z at every pixel or cell of an image, and where that is."""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from bvae_jax.networks.layers import (
    HE,
    UNIFORM,
    ConvUp,
    Dense,
    Network,
    chain,
    halvings,
    in_parts,
)
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
        h = broadcast(z, self.sides).astype(self.dtype)
        conv = functools.partial(nn.Conv, kernel_size=(3, 3), kernel_init=UNIFORM, dtype=self.dtype)
        layers = [layer for features in self.channels for layer in (conv(features), nn.relu)]
        return in_parts(chain([*layers, conv(self.outputs)]), h).astype(jnp.float32)


class CoarseBroadcastDecoder(nn.Module):
    """Layers at each cell of [z, x, y] on a small grid, then transposed convolutions.

    Attributes:
        sides: height and width of the image.
        outputs: numbers for each pixel.
        hidden: units of the layers at each cell, which ReLU follows.
        channels: of the transposed convolutions with stride 2 but the last, which ReLU follows.
    """

    sides: tuple[int, int]
    outputs: int
    hidden: tuple[int, ...] = (128, 64)
    channels: tuple[int, ...] = (32, 16)
    dtype: Any = jnp.float32
    gates = True

    @nn.compact
    def __call__(self, z: Latents) -> Decoded:
        *levels, cells = halvings(self.sides, len(self.channels) + 1)
        layers = []
        for features in self.hidden:
            layers += [Dense(features, HE, self.dtype), nn.relu]
        h = broadcast(z, cells).astype(self.dtype)
        h = chain(layers)(h.reshape(-1, h.shape[-1])).reshape(*h.shape[:3], -1)
        layers = []
        for features, sides in zip(self.channels, reversed(levels[1:]), strict=True):
            layers += [ConvUp(features, sides, weights=HE, dtype=self.dtype), nn.relu]
        layers.append(ConvUp(self.outputs, self.sides, weights=HE, dtype=self.dtype, gated=False))
        return in_parts(chain(layers), h).astype(jnp.float32)


def broadcast(z: Latents, sides: tuple[int, int]) -> Float[Array, "batch height width feature"]:
    """[z, x, y] at every place of a grid."""
    batch, latents = z.shape
    tiled = jnp.broadcast_to(z[:, None, None], (batch, *sides, latents))
    grid = jnp.broadcast_to(coordinates(sides)[None], (batch, *sides, 2))
    return jnp.concatenate([tiled, grid], axis=-1)


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


def small(latents: int, image_shape: ImageShape, outputs: int, dtype: Any) -> Network:
    """4×4 convolutions with stride 2 of 8-16-32-32 channels, a layer of 256; broadcast decoder.

    No paper: made for a CPU, where a step takes a third of the time of `conv`.

    The decoder gives z and coordinates to an eighth of the image's sides (8×8 cells of 64×64
    pixels), has two layers of 128 and 64 at each cell, and transposed convolutions of 32 and 16
    channels: the spatial broadcast of Watters et al. 2019 on a small grid, as in Slot Attention
    (Locatello et al. 2020). Weights: `HE`.
    """
    channels = (8, 16, 32, 32)
    return Network(
        StridedEncoder(latents, channels, (4,) * 4, (256,), HE, dtype),
        CoarseBroadcastDecoder(image_shape[:2], outputs, dtype=dtype),
    )
