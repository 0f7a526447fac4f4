"""Convolutions with stride 2 and ReLU, hidden layers, and the mirror image; spatial broadcast."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Initializer
from jaxtyping import Array, Float

from bvae_jax.networks.layers import (
    GLOROT,
    HE,
    UNIFORM,
    ConvDown,
    ConvUp,
    Dense,
    GaussianHead,
    Network,
    chain,
    halvings,
    in_parts,
)
from bvae_jax.types import Decoded, Images, ImageShape, Latents, Posterior


class StridedEncoder(nn.Module):
    """Strided convolutions, hidden layers, the head.

    Attributes:
        channels: of each convolution.
        kernels: side of each convolution's kernel, 4 or 2.
        hidden: units of each hidden layer between the last convolution and the head.
    """

    latents: int
    channels: tuple[int, ...]
    kernels: tuple[int, ...]
    hidden: tuple[int, ...]
    weights: Initializer = UNIFORM
    dtype: Any = jnp.float32
    gates = True

    @nn.compact
    def __call__(self, images: Images) -> Posterior:
        layers = []
        for features, side in zip(self.channels, self.kernels, strict=True):
            layers += [ConvDown(features, side, self.weights, self.dtype), nn.relu]
        h = in_parts(chain(layers), images.astype(self.dtype))
        h = h.reshape((h.shape[0], -1))
        for features in self.hidden:
            h = nn.relu(Dense(features, self.weights, self.dtype)(h))
        return GaussianHead(self.latents, self.weights, self.dtype, name="head")(h)


class StridedDecoder(nn.Module):
    """The mirror image of `StridedEncoder`, with 4x4 kernels throughout.

    Attributes:
        sides: height and width of the image.
        outputs: numbers for each pixel.
        channels: those of the encoder, in the encoder's order.
        hidden: so, too.
        linear_start: no ReLU on the smallest map, which a dense layer makes.
    """

    sides: tuple[int, int]
    outputs: int
    channels: tuple[int, ...]
    hidden: tuple[int, ...]
    linear_start: bool = False
    weights: Initializer = UNIFORM
    dtype: Any = jnp.float32
    gates = True

    @nn.compact
    def __call__(self, z: Latents) -> Decoded:
        dense = functools.partial(Dense, weights=self.weights, dtype=self.dtype)
        up = functools.partial(ConvUp, weights=self.weights, dtype=self.dtype)
        *levels, small = halvings(self.sides, len(self.channels))
        h = z.astype(self.dtype)
        for features in reversed(self.hidden):
            h = nn.relu(dense(features)(h))
        h = dense(math.prod(small) * self.channels[-1], gated=not self.linear_start)(h)
        h = h if self.linear_start else nn.relu(h)
        h = h.reshape((h.shape[0], *small, self.channels[-1]))
        layers = []
        for features, sides in zip(reversed(self.channels[:-1]), reversed(levels[1:]), strict=True):
            layers += [up(features, sides), nn.relu]
        layers.append(up(self.outputs, self.sides, gated=False))
        return in_parts(chain(layers), h).astype(jnp.float32)


def conv(latents: int, image_shape: ImageShape, outputs: int, dtype: Any) -> Network:
    """4×4 convolutions with stride 2 of 32-32-64-64 channels, a layer of 256; mirrored decoder.

    Higgins et al. 2017, table 1 (Chairs, CelebA, 3D faces).

    Weights: `UNIFORM`.
    """
    channels, hidden, sides = (32, 32, 64, 64), (256,), image_shape[:2]
    return Network(
        StridedEncoder(latents, channels, (4, 4, 4, 4), hidden, dtype=dtype),
        StridedDecoder(sides, outputs, channels, hidden, dtype=dtype),
    )


def locatello(latents: int, image_shape: ImageShape, outputs: int, dtype: Any) -> Network:
    """`conv`, but with 2×2 kernels in the encoder's last two convolutions, and Glorot's weights.

    Locatello et al. 2019, as their code has it.

    Weights: `GLOROT`.
    """
    channels, hidden, sides = (32, 32, 64, 64), (256,), image_shape[:2]
    return Network(
        StridedEncoder(latents, channels, (4, 4, 2, 2), hidden, GLOROT, dtype),
        StridedDecoder(sides, outputs, channels, hidden, weights=GLOROT, dtype=dtype),
    )


def burgess(latents: int, image_shape: ImageShape, outputs: int, dtype: Any) -> Network:
    """4×4 convolutions with stride 2 of 32-32-32-32 channels, two layers of 256; mirrored decoder.

    Burgess et al. 2018.

    Weights: `UNIFORM`.
    """
    channels, hidden, sides = (32,) * 4, (256, 256), image_shape[:2]
    return Network(
        StridedEncoder(latents, channels, (4, 4, 4, 4), hidden, dtype=dtype),
        StridedDecoder(sides, outputs, channels, hidden, dtype=dtype),
    )


def conv128(latents: int, image_shape: ImageShape, outputs: int, dtype: Any) -> Network:
    """4×4 convolutions with stride 2 of 32-64-128-256-512 channels; mirrored decoder.

    No paper: made for pictures of 128×128.

    The smallest maps of such pictures are 4×4×512. The decoder starts from an affine map of z,
    without ReLU. It is that of the PyTorch notebook that this package grew out of. Weights:
    `UNIFORM`.
    """
    channels, sides = (32, 64, 128, 256, 512), image_shape[:2]
    return Network(
        StridedEncoder(latents, channels, (4,) * 5, (), dtype=dtype),
        StridedDecoder(sides, outputs, channels, (), linear_start=True, dtype=dtype),
    )


# Spatial broadcast decoders: z at every pixel or cell of an image, and where that is.


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
