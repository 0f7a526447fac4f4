"""The Bernoulli of pixels that are 0 or 1, and the continuous one of pixels in [0, 1]."""

import jax
import jax.numpy as jnp

from bvae_jax.likelihoods.base import Likelihood, Own, expected_image, log_normaliser, sum_pixels
from bvae_jax.types import Images, PerImage


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
