"""Residual networks without batch statistics."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from bvae_jax.conv import Fine
from bvae_jax.networks.layers import (
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

GROUPS = 8


class NormRelu(nn.Module):
    """relu(GroupNorm(x)), statistics over the pixels and channels of a group; Wu & He, 2018.

    An image's numbers do not depend on its batch, and there is nothing to track while training.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Fine) -> Fine:
        return nn.relu(nn.GroupNorm(GROUPS, dtype=self.dtype, name="norm")(x))


class ResidualBlock(nn.Module):
    """x + f(x), f twice normalise, ReLU, convolve 3x3: the pre-activation form; He et al. 2016b."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Fine) -> Fine:
        h = x
        for _ in range(2):
            h = NormRelu(self.dtype)(h)
            h = nn.Conv(x.shape[-1], (3, 3), kernel_init=UNIFORM, dtype=self.dtype)(h)
        return x + h


class ResNetEncoder(nn.Module):
    """Stem 3x3; stages of a strided convolution and a residual block; hidden layer; head."""

    latents: int
    channels: tuple[int, ...] = (32, 32, 64, 64)
    hidden: int = 256
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Images) -> Posterior:
        dense = functools.partial(Dense, dtype=self.dtype)
        stem = nn.Conv(self.channels[0], (3, 3), kernel_init=UNIFORM, dtype=self.dtype)
        layers: list[Any] = [stem]
        for features in self.channels:
            layers += [ConvDown(features, dtype=self.dtype), ResidualBlock(self.dtype)]
        layers.append(NormRelu(self.dtype))
        h = in_parts(chain(layers), images.astype(self.dtype))
        h = nn.relu(dense(self.hidden)(h.reshape((h.shape[0], -1))))
        return GaussianHead(self.latents, dtype=self.dtype, name="head")(h)


class ResNetDecoder(nn.Module):
    """The mirror image of `ResNetEncoder`."""

    sides: tuple[int, int]
    outputs: int
    channels: tuple[int, ...] = (32, 32, 64, 64)
    hidden: int = 256
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, z: Latents) -> Decoded:
        dense = functools.partial(Dense, dtype=self.dtype)
        *levels, small = halvings(self.sides, len(self.channels))
        h = nn.relu(dense(self.hidden)(z.astype(self.dtype)))
        h = dense(math.prod(small) * self.channels[-1])(h)
        h = h.reshape((h.shape[0], *small, self.channels[-1]))
        ups = (self.channels[0], *self.channels[:-1])
        layers: list[Any] = []
        for features, sides in zip(reversed(ups), reversed(levels), strict=True):
            layers += [ResidualBlock(self.dtype), ConvUp(features, sides, dtype=self.dtype)]
        layers.append(NormRelu(self.dtype))
        layers.append(nn.Conv(self.outputs, (3, 3), kernel_init=UNIFORM, dtype=self.dtype))
        return in_parts(chain(layers), h).astype(jnp.float32)


def resnet(latents: int, image_shape: ImageShape, outputs: int, dtype: Any) -> Network:
    """`conv` with a residual block after each strided layer; mirrored decoder.

    No paper; blocks of He et al. 2016b.

    A block has two 3×3 convolutions and GroupNorm ("Identity mappings"). The widths are those of
    `conv`, so that the two differ in depth alone. Weights: `UNIFORM`.
    """
    sides = image_shape[:2]
    return Network(ResNetEncoder(latents, dtype=dtype), ResNetDecoder(sides, outputs, dtype=dtype))
