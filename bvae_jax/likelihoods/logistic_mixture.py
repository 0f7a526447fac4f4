"""A mixture of logistic distributions, of pixels at the 256 levels of 8 bits."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bvae_jax.errors import UserError
from bvae_jax.likelihoods.base import Likelihood, Own, log_normaliser
from bvae_jax.types import Decoded, Images, PerImage

COMPONENTS = 10
LOWEST_LOG_SCALE = -7.0
HALF_LEVEL = 1 / 255
"""Half the width of one of 256 levels that cover [-1, 1]."""


def mixture_parameters(channels: int) -> int:
    """Weights, and for each channel means, log scales and (3 channels only) coefficients."""
    return COMPONENTS * (1 + channels * (3 if channels == 3 else 2))


class Mixture(NamedTuple):
    """A mixture of logistic distributions for each pixel, over [-1, 1].

    Attributes:
        log_weights: [batch, height, width, component].
        means: [batch, height, width, channel, component].
        log_scales: like them.
        coefficients: like them, in (-1, 1): green on red, blue on red, blue on green. Empty
            where there are not 3 channels.
    """

    log_weights: Float[Array, "batch height width component"]
    means: Float[Array, "batch height width channel component"]
    log_scales: Float[Array, "batch height width channel component"]
    coefficients: Float[Array, "batch height width _ component"]


def read_mixture(decoded: Decoded, channels: int) -> Mixture:
    """The mixture whose parameters a decoder's numbers are.

    Zeros are equal components side by side: a channel by itself is nearly uniform on
    [-1, 1], and channels are alike.

    Raises:
        UserError: not `mixture_parameters(channels)` numbers for each pixel.
    """
    got, wanted = decoded.shape[-1], mixture_parameters(channels)
    if got != wanted:
        raise UserError(
            f"The decoder gives {got} numbers for each pixel; logistic_mixture wants {wanted} "
            f"for {channels} channels."
        )
    weights, rest = jnp.split(decoded, [COMPONENTS], axis=-1)
    rest = rest.reshape(*decoded.shape[:-1], -1, channels, COMPONENTS)
    offset = jnp.broadcast_to(jnp.linspace(-0.9, 0.9, COMPONENTS), rest[..., 0, :, :].shape)
    return Mixture(
        jax.nn.log_softmax(weights),
        rest[..., 0, :, :] + offset,
        jnp.maximum(rest[..., 1, :, :] + math.log(0.1), LOWEST_LOG_SCALE),
        jnp.tanh(rest[..., 2:, :, :]).reshape(*weights.shape[:-1], -1, COMPONENTS),
    )


def conditional_means(
    mixture: Mixture, pixels: Float[Array, "batch height width channel _"]
) -> Float[Array, "batch height width channel component"]:
    """Each channel's means given the channels before it, which `pixels` holds, in [-1, 1].

    Red m_r; green m_g + a r; blue m_b + b r + c g. Other than 3 channels are independent.
    Salimans et al. 2017, section 2.2.
    """
    if mixture.means.shape[-2] != 3:
        return mixture.means
    red, green = pixels[..., 0, :], pixels[..., 1, :]
    a, b, c = jnp.moveaxis(mixture.coefficients, -2, 0)
    return mixture.means + jnp.stack([jnp.zeros_like(a), a * red, b * red + c * green], axis=-2)


def logistic_mixture_log_prob(decoded: Decoded, images: Images, own: Own) -> PerImage:
    """Ten discretised logistics, for 8-bit colours (Salimans et al. 2017).

    3 channels depend on each other; others do not.

        sum_pixels log sum_k w_k prod_channels P_k(level),   level = round(255 x); nats, [batch]
        P_k(level) = s((v + 1/255 - m_k) / s_k) - s((v - 1/255 - m_k) / s_k),   v = 2 level/255 - 1

    with the tails added to levels 0 and 255. For u > l the difference s(u) - s(l) equals
    s(u) s(-l) (1 - exp(l - u)), whose logarithm loses nothing however small it is.
    Salimans et al., "PixelCNN++", 2017, sections 2.1 and 2.2.
    """
    mixture = read_mixture(decoded, images.shape[-1])
    levels = jnp.round(255 * images)[..., None]
    pixels = 2 * HALF_LEVEL * levels - 1
    distance = pixels - conditional_means(mixture, pixels)
    inverse = jnp.exp(-mixture.log_scales)
    log_below = jax.nn.log_sigmoid((distance + HALF_LEVEL) * inverse)
    log_above = jax.nn.log_sigmoid((HALF_LEVEL - distance) * inverse)
    # log(1 - exp(-d)), d the width of a level, is log d + log_normaliser(-d).
    log_width = math.log(2 * HALF_LEVEL) - mixture.log_scales
    log_inside = log_below + log_above + log_width + log_normaliser(-jnp.exp(log_width))
    log_level = jnp.where(levels == 0, log_below, jnp.where(levels == 255, log_above, log_inside))
    log_component = mixture.log_weights + jnp.sum(log_level, axis=-2)
    return jnp.sum(jax.nn.logsumexp(log_component, axis=-1), axis=(-2, -1))


def logistic_mixture_mean(decoded: Decoded) -> Images:
    """The mixture's mean with its tails put on 0 and 1; given the means of preceding channels.

    A logistic variable clipped into [-1, 1] has the mean
    -1 + s_k (softplus((1 + m_k) / s_k) - softplus((m_k - 1) / s_k)).
    """
    per_component = decoded.shape[-1] // COMPONENTS - 1
    channels = 3 if per_component == 9 else per_component // 2
    mixture = read_mixture(decoded, channels)
    scales = jnp.exp(jnp.minimum(mixture.log_scales, -LOWEST_LOG_SCALE))
    pixels = jnp.zeros_like(mixture.means)
    for _ in range(channels):  # The first pass settles red, the second green, the third blue.
        means = conditional_means(mixture, pixels)
        high, low = (jax.nn.softplus((means + side) / scales) for side in (1, -1))
        pixels = scales * (high - low) - 1
    weights = jnp.exp(mixture.log_weights)[..., None, :]
    return jnp.clip(0.5 + 0.5 * jnp.sum(weights * pixels, axis=-1), 0, 1)


LIKELIHOOD = Likelihood(
    logistic_mixture_log_prob,
    logistic_mixture_mean,
    parameters=mixture_parameters,
    density=False,
)
