"""Convolutions with stride 2 and ReLU, hidden layers, and the mirror image."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Initializer

from bvae_jax.networks.layers import (
    GLOROT,
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
