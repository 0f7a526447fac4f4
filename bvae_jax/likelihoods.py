"""What a decoder's numbers say about an image: p(x|z), by name.

Every log-likelihood is in nats, summed over pixels and channels, with its normalising constant.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from bvae_jax.errors import UserError, unknown
from bvae_jax.types import Decoded, Images, ImageShape, PerImage, Scalar

PIXEL_AXES = (-3, -2, -1)
LOWEST_LOG_SIGMA = -6.0
"""About half a level of 8 bits: below it a learned sigma gains nothing and may run to 0."""
COMPONENTS = 10
LOWEST_LOG_SCALE = -7.0
HALF_LEVEL = 1 / 255
"""Half the width of one of 256 levels that cover [-1, 1]."""

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


def bernoulli_log_prob(decoded: Images, images: Images, own: Own) -> PerImage:
    """sum_pixels x log s(l) + (1 - x) log(1 - s(l)), s the logistic function; nats, [batch].

    Kingma & Welling, "Auto-Encoding Variational Bayes", 2014, eq. 11. For x strictly between 0
    and 1 it is a cross-entropy, not a normalised log-likelihood.
    """
    return -jnp.sum(optax.sigmoid_binary_cross_entropy(decoded, images), axis=PIXEL_AXES)


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


def continuous_bernoulli_log_prob(decoded: Images, images: Images, own: Own) -> PerImage:
    """sum_pixels l x - log((exp(l) - 1) / l); nats, [batch].

    Loaiza-Ganem & Cunningham, "The continuous Bernoulli", 2019, section 3, with lambda = s(l):
    the density lambda^x (1 - lambda)^(1 - x) C(lambda) in terms of its logit.
    """
    return jnp.sum(decoded * images - log_normaliser(decoded), axis=PIXEL_AXES)


def continuous_bernoulli_mean(decoded: Images) -> Images:
    """1 / (1 - exp(-l)) - 1 / l: as in every exponential family, the log normaliser's gradient."""
    return jax.jvp(log_normaliser, (decoded,), (jnp.ones_like(decoded),))[1]


def gaussian_log_prob(
    decoded: Images, images: Images, own: Own, log_sigma: float | Scalar
) -> PerImage:
    """log N(x; s(l), sigma^2 I) with its normalising constant; nats, [batch].

        -sum_pixels (x - s(l))^2 / (2 sigma^2) + log(sigma) + log(2 pi) / 2

    s is the logistic function: the mean of a pixel lies in (0, 1), like the pixel.
    Kingma & Welling 2014, eq. 12, with one sigma for all pixels.
    """
    error = jnp.square(images - expected_image(decoded))
    constant = log_sigma + 0.5 * math.log(2 * math.pi)
    return -jnp.sum(0.5 * jnp.exp(-2 * log_sigma) * error + constant, axis=PIXEL_AXES)


def gaussian(log_sigma: float | Scalar) -> Likelihood:
    """N(s(l), sigma^2 I) with a sigma that is not trained."""
    return Likelihood(
        functools.partial(gaussian_log_prob, log_sigma=log_sigma),
        expected_image,
        scale=lambda own: jnp.exp(2 * jnp.asarray(log_sigma)),
    )


def soft_clip(log_sigma: Scalar) -> Scalar:
    """-6 + softplus(log_sigma + 6), which is log(sigma + exp(-6)); Rybkin et al. 2021."""
    return jnp.logaddexp(log_sigma, LOWEST_LOG_SIGMA)


def sigma_vae_log_prob(decoded: Images, images: Images, own: Own) -> PerImage:
    """`gaussian_log_prob` with a trained sigma, shared by all pixels; nats, [batch].

    Rybkin, Daniilidis & Levine, "Simple and Effective VAE Training with Calibrated Decoders",
    2021: the sigma-VAE with one shared variance.
    """
    return gaussian_log_prob(decoded, images, own, soft_clip(own["log_sigma"]))


def optimal_log_sigma(decoded: Images, images: Images) -> Scalar:
    """log of the root of the mean squared error over batch, pixels and channels, soft-clipped."""
    error = jnp.mean(jnp.square(images - expected_image(decoded)))
    # The floor lies far below the clip: it only keeps log's gradient finite at an error of 0.
    return soft_clip(0.5 * jnp.log(jnp.maximum(error, 1e-12)))


def optimal_sigma_vae_log_prob(decoded: Images, images: Images, own: Own) -> PerImage:
    """`gaussian_log_prob` with the sigma that suits this batch best; nats, [batch].

    Gradients flow through sigma. An image's value depends on the others: use `calibrate` to
    compare batches or samples. Rybkin et al. 2021: the optimal sigma-VAE.
    """
    return gaussian_log_prob(decoded, images, own, optimal_log_sigma(decoded, images))


def laplace_log_prob(decoded: Images, images: Images, own: Own, width: float) -> PerImage:
    """-sum_pixels |x - s(l)| / b + log(2 b), b the width; nats, [batch]."""
    error = jnp.abs(images - expected_image(decoded))
    return -jnp.sum(error / width + math.log(2 * width), axis=PIXEL_AXES)


def mixture_parameters(channels: int) -> int:
    """Weights, and for each channel means, log scales and (3 channels only) coefficients."""
    return COMPONENTS * (1 + channels * (3 if channels == 3 else 2))


class Mixture(NamedTuple):
    """A mixture of logistic distributions for each pixel, over [-1, 1].

    Attributes:
        log_weights: [batch, height, width, component].
        means, log_scales: [batch, height, width, channel, component].
        coefficients: like them, in (-1, 1): green on red, blue on red, blue on green. Empty
            where there are not 3 channels.
    """

    log_weights: Float[Array, "batch height width component"]
    means: Float[Array, "batch height width channel component"]
    log_scales: Float[Array, "batch height width channel component"]
    coefficients: Float[Array, "batch height width _ component"]


def read_mixture(decoded: Decoded, channels: int) -> Mixture:
    """The mixture that a decoder's numbers stand for.

    Zeros stand for equal components side by side: a channel by itself is nearly uniform on
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
    """sum_pixels log sum_k w_k prod_channels P_k(level), level = round(255 x); nats, [batch].

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


def _sigma_vae(sigma: float) -> Likelihood:
    return Likelihood(
        sigma_vae_log_prob,
        expected_image,
        own=(("log_sigma", 0.0),),
        scale=lambda own: jnp.exp(2 * soft_clip(own["log_sigma"])),
    )


def _laplace(sigma: float) -> Likelihood:
    return Likelihood(
        functools.partial(laplace_log_prob, width=sigma),
        expected_image,
        scale=lambda own: jnp.full((), sigma),
    )


LIKELIHOODS: dict[str, Callable[[float], Likelihood]] = {
    "bernoulli": lambda sigma: Likelihood(bernoulli_log_prob, expected_image, density=False),
    "continuous_bernoulli": lambda sigma: Likelihood(
        continuous_bernoulli_log_prob, continuous_bernoulli_mean
    ),
    "gaussian": lambda sigma: gaussian(math.log(sigma)),
    "sigma_vae": _sigma_vae,
    # Without a batch there is no sigma: `scale` is that of the calibrated likelihood alone.
    "optimal_sigma_vae": lambda sigma: Likelihood(
        optimal_sigma_vae_log_prob,
        expected_image,
        calibrate=lambda decoded, images: gaussian(optimal_log_sigma(decoded, images)),
    ),
    "laplace": _laplace,
    "logistic_mixture": lambda sigma: Likelihood(
        logistic_mixture_log_prob,
        logistic_mixture_mean,
        parameters=mixture_parameters,
        density=False,
    ),
}


@functools.cache
def make_likelihood(name: str, sigma: float) -> Likelihood:
    """The named likelihood, the same object each time, so that what is compiled for it is reused.

    Args:
        name: a key of `LIKELIHOODS`.
        sigma: the standard deviation of a pixel for `gaussian`, the width b for `laplace`.

    Raises:
        UserError: the name is not known.
    """
    if name not in LIKELIHOODS:
        raise unknown("likelihood", name, LIKELIHOODS)
    return LIKELIHOODS[name](sigma)


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
