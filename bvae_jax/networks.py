"""Encoders and decoders, and the table that names them.

Every weight starts from the uniform distribution on +-1/sqrt(fan_in) (PyTorch's
default) and every bias from zero. The fan-in of a transposed convolution is
its kernel's side squared times its output channels.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from bvae_jax.conv import Coarse, Fine, conv_down, conv_up
from bvae_jax.errors import UserError, unknown
from bvae_jax.types import Images, ImageShape, Latents, Posterior

WEIGHTS = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Network(NamedTuple):
    """An encoder (images -> Posterior) and a decoder (z -> logits) that fit each other."""

    encoder: nn.Module
    decoder: nn.Module


class ConvDown(nn.Module):
    """4x4 convolution with stride 2 and a bias: half the sides, `features` channels."""

    features: int

    @nn.compact
    def __call__(self, x: Fine) -> Coarse:
        kernel = self.param("kernel", WEIGHTS, (4, 4, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return conv_down(x, kernel, 2) + bias[None, None, None]  # pyright: ignore


class ConvUp(nn.Module):
    """4x4 transposed convolution with stride 2 and a bias: twice the sides."""

    features: int

    @nn.compact
    def __call__(self, x: Coarse) -> Fine:
        kernel = self.param("kernel", WEIGHTS, (4, 4, self.features, x.shape[-1]))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return conv_up(x, kernel, 2) + bias[None, None, None]  # pyright: ignore


class GaussianHead(nn.Module):
    """Mean and log-variance of q(z|x), each an affine map of the features."""

    latents: int

    @nn.compact
    def __call__(self, h: Float[Array, "batch feature"]) -> Posterior:
        return Posterior(
            mean=nn.Dense(self.latents, kernel_init=WEIGHTS, name="mean")(h),
            logvar=nn.Dense(self.latents, kernel_init=WEIGHTS, name="logvar")(h),
        )


class ConvEncoder(nn.Module):
    """Strided convolutions, one hidden layer, the head."""

    latents: int
    channels: tuple[int, ...] = (32, 32, 64, 64)
    hidden: int = 256

    @nn.compact
    def __call__(self, images: Images) -> Posterior:
        h = images
        for features in self.channels:
            h = nn.relu(ConvDown(features)(h))
        h = h.reshape((h.shape[0], -1))
        h = nn.relu(nn.Dense(self.hidden, kernel_init=WEIGHTS)(h))
        return GaussianHead(self.latents, name="head")(h)


class ConvDecoder(nn.Module):
    """The mirror image of `ConvEncoder`."""

    image_shape: ImageShape
    channels: tuple[int, ...] = (32, 32, 64, 64)
    hidden: int = 256

    @nn.compact
    def __call__(self, z: Latents) -> Images:
        height, width, image_channels = self.image_shape
        shrink = 2 ** len(self.channels)
        small = (height // shrink, width // shrink, self.channels[-1])
        h = nn.relu(nn.Dense(self.hidden, kernel_init=WEIGHTS)(z))
        h = nn.relu(nn.Dense(small[0] * small[1] * small[2], kernel_init=WEIGHTS)(h))
        h = h.reshape((-1, *small))
        for features in reversed(self.channels[:-1]):
            h = nn.relu(ConvUp(features)(h))
        return ConvUp(image_channels)(h)


class MLPEncoder(nn.Module):
    """Hidden layers of ReLU units on the flattened image."""

    latents: int
    hidden: tuple[int, ...] = (1200, 1200)

    @nn.compact
    def __call__(self, images: Images) -> Posterior:
        h = images.reshape((images.shape[0], -1))
        for features in self.hidden:
            h = nn.relu(nn.Dense(features, kernel_init=WEIGHTS)(h))
        return GaussianHead(self.latents, name="head")(h)


class MLPDecoder(nn.Module):
    """Hidden layers of tanh units."""

    image_shape: ImageShape
    hidden: tuple[int, ...] = (1200, 1200, 1200)

    @nn.compact
    def __call__(self, z: Latents) -> Images:
        height, width, channels = self.image_shape
        h = z
        for features in self.hidden:
            h = jnp.tanh(nn.Dense(features, kernel_init=WEIGHTS)(h))
        logits = nn.Dense(height * width * channels, kernel_init=WEIGHTS)(h)
        return logits.reshape((-1, *self.image_shape))


def conv(latents: int, image_shape: ImageShape) -> Network:
    """Convolutions 4x4, stride 2, of 32-32-64-64 channels and a layer of 256; mirrored decoder.

    Higgins et al. 2017, table 1 (Chairs, CelebA, 3D faces).
    """
    height, width, _ = image_shape
    if height % 16 or width % 16:
        raise UserError(
            f"Network 'conv' halves the image four times: got {height}x{width} pixels, wanted "
            "sides that are multiples of 16. Choose --network mlp, or resize the images."
        )
    return Network(ConvEncoder(latents), ConvDecoder(image_shape))


def mlp(latents: int, image_shape: ImageShape) -> Network:
    """Fully connected: encoder 1200-1200 ReLU, decoder 1200-1200-1200 tanh.

    Higgins et al. 2017, table 1 (2D shapes).
    """
    return Network(MLPEncoder(latents), MLPDecoder(image_shape))


NETWORKS: dict[str, Callable[[int, ImageShape], Network]] = {
    "conv": conv,
    "mlp": mlp,
}


def make_network(name: str, latents: int, image_shape: ImageShape) -> Network:
    """The named network for images of [height, width, channels].

    Raises:
        UserError: the name is not known, or the network does not fit the image's size.
    """
    if name not in NETWORKS:
        raise unknown("network", name, NETWORKS)
    return NETWORKS[name](latents, image_shape)
