"""The Laplace distribution with one width for all pixels."""

import functools
import math

import jax.numpy as jnp

from bvae_jax.likelihoods.base import Likelihood, Own, expected_image, sum_pixels
from bvae_jax.types import Images, PerImage


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
