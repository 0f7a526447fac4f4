"""What the networks are made of.

The one rule for image sizes: a strided layer halves a side, rounding up. An odd side first gets
one row of zeros at its end, which is TensorFlow's "SAME" padding. The layer that mirrors it
doubles the side and crops that row again, so the two stay each other's transpose.

Parameters are float32 always; `dtype` is that of activations and products.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer
from jaxtyping import Array, Float

from bvae_jax.conv import Coarse, Fine, conv_down, conv_up
from bvae_jax.networks.gates import gated, gates_of_parts
from bvae_jax.types import Posterior

Features = Float[Array, "batch feature"]
Matrix = Float[Array, "feature output"]
Outputs = Float[Array, "batch output"]

UNIFORM: Initializer = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""Uniform on +-1/sqrt(fan_in), PyTorch's default.

The fan-in of a transposed convolution is its kernel's side squared times its output channels.
"""
HE: Initializer = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")
"""Uniform on +-sqrt(6 / fan_in), which keeps the variance through ReLU (He et al., 2015)."""
GLOROT: Initializer = nn.initializers.glorot_uniform()
"""Uniform on +-sqrt(6 / (fan_in + fan_out)), TensorFlow's default (Glorot & Bengio, 2010)."""


class Network(NamedTuple):
    """An encoder and a decoder that fit each other.

    Where both have the class attribute `gates = True`, all of their layers are those of this file,
    and they can be trained for many β at once.

    Attributes:
        encoder: images -> Posterior, float32.
        decoder: z -> Decoded [batch, height, width, outputs], float32.
    """

    encoder: nn.Module
    decoder: nn.Module


CPU_PARTS, SMALLEST_PART = 4, 8


def chain(layers: Sequence[Callable[[Array], Array]]) -> Callable[[Array], Array]:
    """One layer after another."""
    return lambda x: functools.reduce(lambda h, layer: layer(h), layers, x)


def in_parts(layers: Callable[[Array], Array], x: Array) -> Array:
    """`layers(x)`; on a CPU in parts of the batch that do not wait for each other.

    There XLA computes a convolution on one core, and what a part leaves fits into its caches. More
    parts make compiling slower.

    Args:
        layers: convolutions, say: the result for an image depends on no other image.
        x: [batch, ...].
    """
    parts = min(CPU_PARTS, len(x) // SMALLEST_PART) if jax.default_backend() == "cpu" else 1
    if parts < 2 or len(x) % parts:
        return layers(x)
    done = []
    for part, gates in zip(jnp.split(x, parts), gates_of_parts(parts), strict=True):
        with gates:
            done.append(layers(part))
    return jnp.concatenate(done)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x: Features, kernel: Matrix, precision: str | None) -> Outputs:
    """x @ kernel. The kernel's gradient comes out as the kernel lies: JAX's own is its transpose,
    which the optimizer's loops on a CPU would read in bad order."""
    return jnp.dot(x, kernel, precision=precision)


def _product_forward(x, kernel, precision):
    return product(x, kernel, precision), (x, kernel)


def _product_backward(precision, arguments, dy):
    x, kernel = arguments
    dot = functools.partial(jnp.dot, precision=precision)
    return dot(dy, kernel.T), dot(x.T, dy)


product.defvjp(_product_forward, _product_backward)


def precision_here() -> str | None:
    """That of the `jax.default_matmul_precision` around a layer's call: of `VAE.products`.

    Layers hand it on as an argument, for gradients are traced later, outside of that context.
    """
    return jax.config.jax_default_matmul_precision  # pyright: ignore


class Dense(nn.Module):
    """Affine map of the features.

    Attributes:
        gated: an activation follows, so that a network for many β has gates here: `gates.py`.
    """

    features: int
    weights: Initializer = UNIFORM
    dtype: Any = jnp.float32
    gated: bool = True

    @nn.compact
    def __call__(self, h: Features) -> Outputs:
        shape = (h.shape[-1], self.features)
        kernel = self.param("kernel", self.weights, shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        y: Outputs = product(h.astype(self.dtype), kernel, precision_here())  # pyright: ignore
        y = y + bias[None]
        return gated(self, y) if self.gated else y


class ConvDown(nn.Module):
    """Convolution with stride 2 and a bias: half the sides, rounded up, `features` channels."""

    features: int
    side: int = 4
    weights: Initializer = UNIFORM
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Fine) -> Coarse:
        shape = (self.side, self.side, x.shape[-1], self.features)
        kernel = self.param("kernel", self.weights, shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        y: Coarse = conv_down(_even(x), kernel, 2, precision=precision_here())  # pyright: ignore
        return gated(self, y + bias[None, None, None])


class ConvUp(nn.Module):
    """Transposed convolution with stride 2 and a bias: twice the sides, cropped to `sides`.

    Attributes:
        gated: as of `Dense`.
    """

    features: int
    sides: tuple[int, int]
    side: int = 4
    weights: Initializer = UNIFORM
    dtype: Any = jnp.float32
    gated: bool = True

    @nn.compact
    def __call__(self, x: Coarse) -> Fine:
        shape = (self.side, self.side, self.features, x.shape[-1])
        kernel = self.param("kernel", self.weights, shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        height, width = self.sides
        fine: Fine = conv_up(x, kernel, 2, precision=precision_here())  # pyright: ignore
        y = fine[:, :height, :width] + bias[None, None, None]
        return gated(self, y, channels_first=True) if self.gated else y


class GaussianHead(nn.Module):
    """Mean and log-variance of q(z|x), each an affine map of the features; float32."""

    latents: int
    weights: Initializer = UNIFORM
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, h: Features) -> Posterior:
        def affine(name: str) -> Array:
            dense = Dense(self.latents, self.weights, self.dtype, gated=False, name=name)
            return dense(h).astype(jnp.float32)

        return Posterior(mean=affine("mean"), logvar=affine("logvar"))


def halvings(sides: tuple[int, int], times: int) -> list[tuple[int, int]]:
    """Height and width of the image and of its maps after 1, 2, ... `times` strided layers."""
    levels = [sides]
    for _ in range(times):
        height, width = levels[-1]
        levels.append(((height + 1) // 2, (width + 1) // 2))
    return levels


def _even(x: Fine) -> Float[Array, "batch even_height even_width fine"]:
    """Zeros after the last row and column of an odd side."""
    _, height, width, _ = x.shape
    if height % 2 == width % 2 == 0:
        return x
    return jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
