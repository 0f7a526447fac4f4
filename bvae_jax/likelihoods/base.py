"""What a likelihood is, and what several of them share."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bvae_jax.types import Decoded, Images, ImageShape, PerImage, Scalar

Own = dict[str, Scalar]
"""A likelihood's own trained scalars by name; {} for most."""


class Likelihood(NamedTuple):
    """p(x|z). Hashable, so that it may be a static field of a module.

    Attributes:
        log_prob: (decoder output, images, own) -> log p(x|z), nats, [batch].
        mean: decoder output -> the expected image, in [0, 1].
        parameters: channels -> how many numbers the decoder gives for each pixel.
        own: names and initial values of trained scalars.
        density: whether p is a density of pixels in [0, 1], or a probability of discrete values.
        scale: own -> what multiplies beta to give the beta of an unscaled reconstruction error:
            SE / (2 sigma^2) + beta KL is proportional to SE / 2 + beta sigma^2 KL.
        calibrate: (decoder output, images) -> the likelihood with what it would estimate from
            these images held fixed; None where nothing is estimated from a batch.
    """

    log_prob: Callable[[Decoded, Images, Own], PerImage]
    mean: Callable[[Decoded], Images]
    parameters: Callable[[int], int] = lambda channels: channels
    own: tuple[tuple[str, float], ...] = ()
    density: bool = True
    scale: Callable[[Own], Scalar] = lambda own: jnp.ones(())
    calibrate: "Callable[[Decoded, Images], Likelihood] | None" = None


def expected_image(decoded: Images) -> Images:
    """s(l) = 1 / (1 + exp(-l)), in [0, 1]: the mean of a pixel where the decoder gives a logit."""
    return jax.nn.sigmoid(decoded)


def sum_pixels(terms: Float[Array, "*batch height width channels"]) -> PerImage:
    """The sum over pixels and channels of each image.

    As a matrix product: XLA on a CPU puts a plain sum and what it adds up into one loop, which
    computes exponentials and logarithms one by one, ten times slower than in vectors.
    """
    rows = terms.reshape(*terms.shape[:-3], -1)
    return jnp.matmul(
        rows, jnp.ones(rows.shape[-1], rows.dtype), precision=jax.lax.Precision.HIGHEST
    )


def log_normaliser(logits: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log of the integral over [0, 1] of exp(l x), which is (exp(l) - 1) / l.

    max(l, 0) + log((1 - exp(-|l|)) / |l|), and around 0, where the gradient of that would lose
    its digits, the series l/2 + l^2/24 - l^4/2880 + l^6/181440 - ...
    """
    near_0 = jnp.abs(logits) < 0.5
    square = jnp.square(jnp.where(near_0, logits, 0))
    series = logits / 2 + square / 24 - square**2 / 2880 + square**3 / 181440
    # Each branch sees only what it can bear: `where` alone would let through its neighbour's NaN.
    size = jnp.where(near_0, 1, jnp.abs(logits))
    direct = jnp.maximum(logits, 0) + jnp.log(-jnp.expm1(-size) / size)
    return jnp.where(near_0, series, direct)


def bits_per_dim(
    nll: float | Float[Array | np.ndarray, "*shape"],
    likelihood: Likelihood,
    image_shape: ImageShape,
) -> float | Float[Array | np.ndarray, "*shape"]:
    """Nats per image to bits per pixel and channel of an 8-bit image; D = height width channels.

    (nll + D log 256) / (D log 2) for a density on [0, 1], whose levels are 1/256 wide, and
    nll / (D log 2) for a probability.
    """
    dimensions = math.prod(image_shape)
    offset = dimensions * math.log(256) if likelihood.density else 0.0
    return (nll + offset) / (dimensions * math.log(2))
