"""Fully connected networks."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from bvae_jax.networks.layers import Dense, GaussianHead, Network
from bvae_jax.types import Decoded, Images, ImageShape, Latents, Posterior


class MLPEncoder(nn.Module):
    """Hidden layers of ReLU units on the flattened image."""

    latents: int
    hidden: tuple[int, ...] = (1200, 1200)
    dtype: Any = jnp.float32
    gates = True

    @nn.compact
    def __call__(self, images: Images) -> Posterior:
        h = images.reshape((images.shape[0], -1)).astype(self.dtype)
        for features in self.hidden:
            h = nn.relu(Dense(features, dtype=self.dtype)(h))
        return GaussianHead(self.latents, dtype=self.dtype, name="head")(h)


class MLPDecoder(nn.Module):
    """Hidden layers of tanh units."""

    sides: tuple[int, int]
    outputs: int
    hidden: tuple[int, ...] = (1200, 1200, 1200)
    dtype: Any = jnp.float32
    gates = True

    @nn.compact
    def __call__(self, z: Latents) -> Decoded:
        shape = (*self.sides, self.outputs)
        h = z.astype(self.dtype)
        for features in self.hidden:
            h = jnp.tanh(Dense(features, dtype=self.dtype)(h))
        h = Dense(math.prod(shape), dtype=self.dtype, gated=False)(h)
        return h.reshape((h.shape[0], *shape)).astype(jnp.float32)


def mlp(latents: int, image_shape: ImageShape, outputs: int, dtype: Any) -> Network:
    """Two layers of 1200 ReLU units; decoder of three layers of 1200 tanh units.

    Higgins et al. 2017, table 1 (2D shapes).

    Weights: `UNIFORM`.
    """
    sides = image_shape[:2]
    return Network(MLPEncoder(latents, dtype=dtype), MLPDecoder(sides, outputs, dtype=dtype))
