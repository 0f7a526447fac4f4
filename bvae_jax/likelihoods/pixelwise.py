"""Likelihoods of independent pixels: Bernoulli, Gaussian and Laplace."""

import functools
import math

import jax
import jax.numpy as jnp

from bvae_jax.likelihoods.base import Likelihood, Own, expected_image, log_normaliser, sum_pixels
from bvae_jax.types import Images, PerImage, Scalar

LOWEST_LOG_SIGMA = -6.0
"""About half a level of 8 bits: below it a learned sigma gains nothing and may run to 0."""


def bernoulli_log_prob(decoded: Images, images: Images, own: Own) -> PerImage:
    """x ∈ {0, 1}; for greys a cross-entropy, which is not normalised.

        sum_pixels x log s(l) + (1 - x) log(1 - s(l)),   s the logistic function; nats, [batch]

    Kingma & Welling, "Auto-Encoding Variational Bayes", 2014, eq. 11.
    """
    # x l - log(1 + exp(l)): one logarithm for each pixel, where log s(l) and log s(-l) take two.
    return sum_pixels(images * decoded - jax.nn.softplus(decoded))


def continuous_bernoulli_log_prob(decoded: Images, images: Images, own: Own) -> PerImage:
    """x ∈ [0, 1] (Loaiza-Ganem & Cunningham 2019).

        sum_pixels l x - log((exp(l) - 1) / l);   nats, [batch]

    "The continuous Bernoulli", 2019, section 3, with lambda = s(l):
    the density lambda^x (1 - lambda)^(1 - x) C(lambda) in terms of its logit.
    """
    return sum_pixels(decoded * images - log_normaliser(decoded))


def continuous_bernoulli_mean(decoded: Images) -> Images:
    """1 / (1 - exp(-l)) - 1 / l: as in every exponential family, the log normaliser's gradient."""
    return jax.jvp(log_normaliser, (decoded,), (jnp.ones_like(decoded),))[1]


BERNOULLI = Likelihood(bernoulli_log_prob, expected_image, density=False)
CONTINUOUS = Likelihood(continuous_bernoulli_log_prob, continuous_bernoulli_mean)


def gaussian_log_prob(
    decoded: Images, images: Images, own: Own, log_sigma: float | Scalar
) -> PerImage:
    """Gaussian around a mean in (0, 1), with `--sigma` as standard deviation.

    log N(x; s(l), sigma^2 I) with its normalising constant; nats, [batch]:

        -sum_pixels (x - s(l))^2 / (2 sigma^2) + log(sigma) + log(2 pi) / 2

    s is the logistic function: the mean of a pixel lies in (0, 1), like the pixel.
    Kingma & Welling 2014, eq. 12, with one sigma for all pixels.
    """
    error = jnp.square(images - expected_image(decoded))
    constant = log_sigma + 0.5 * math.log(2 * math.pi)
    return -sum_pixels(0.5 * jnp.exp(-2 * log_sigma) * error + constant)


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
    """Gaussian with one learned σ for all pixels (Rybkin et al. 2021).

    `gaussian_log_prob`; nats, [batch]. Rybkin, Daniilidis & Levine, "Simple and Effective VAE
    Training with Calibrated Decoders": the sigma-VAE with one shared variance.
    """
    return gaussian_log_prob(decoded, images, own, soft_clip(own["log_sigma"]))


def optimal_log_sigma(decoded: Images, images: Images) -> Scalar:
    """log of the root of the mean squared error over batch, pixels and channels, soft-clipped."""
    error = jnp.mean(jnp.square(images - expected_image(decoded)))
    # The floor lies far below the clip: it only keeps log's gradient finite at an error of 0.
    return soft_clip(0.5 * jnp.log(jnp.maximum(error, 1e-12)))


def optimal_sigma_vae_log_prob(decoded: Images, images: Images, own: Own) -> PerImage:
    """Gaussian with σ² = the batch's mean squared error (Rybkin et al. 2021).

    `gaussian_log_prob` with the sigma that suits this batch best; nats, [batch]. Gradients flow
    through sigma. An image's value depends on the others: use `calibrate` to compare batches or
    samples. The paper's optimal sigma-VAE.
    """
    return gaussian_log_prob(decoded, images, own, optimal_log_sigma(decoded, images))


SIGMA_VAE = Likelihood(
    sigma_vae_log_prob,
    expected_image,
    own=(("log_sigma", 0.0),),
    scale=lambda own: jnp.exp(2 * soft_clip(own["log_sigma"])),
)

# Without a batch there is no sigma: `scale` is that of the calibrated likelihood alone.
OPTIMAL_SIGMA_VAE = Likelihood(
    optimal_sigma_vae_log_prob,
    expected_image,
    calibrate=lambda decoded, images: gaussian(optimal_log_sigma(decoded, images)),
)


def laplace_log_prob(decoded: Images, images: Images, own: Own, width: float) -> PerImage:
    """Laplace around a mean in (0, 1), with `--sigma` as width b.

    -sum_pixels |x - s(l)| / b + log(2 b); nats, [batch].
    """
    error = jnp.abs(images - expected_image(decoded))
    return -sum_pixels(error / width + math.log(2 * width))


def laplace(width: float) -> Likelihood:
    """Each pixel around s(l), with a width b that is not trained."""
    return Likelihood(
        functools.partial(laplace_log_prob, width=width),
        expected_image,
        scale=lambda own: jnp.full((), width),
    )
