"""The evidence lower bound, in nats per image.

    ELBO(x) = E_q(z|x)[log p(x|z)] - KL(q(z|x) || p(z)),    p(z) = N(0, I)

Kingma & Welling, "Auto-Encoding Variational Bayes", 2014, eq. 3. The expectation is taken with
one sample of z for each image. Terms are summed over pixels and latents, never averaged, so that
beta means what it means in Higgins et al., 2017.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from bvae_jax.errors import unknown
from bvae_jax.types import ElboTerms, Images, Latents, LogLikelihood, PerImage, Posterior, VAEOutput

PIXEL_AXES = (-3, -2, -1)


def elbo_terms(out: VAEOutput, images: Images, log_likelihood: LogLikelihood) -> ElboTerms:
    """Both terms of the ELBO for each image; `elbo = log_likelihood - sum(kl)`.

    Args:
        out: what the model made of `images`.
        images: [batch, height, width, channels] in [0, 1].
        log_likelihood: one of those that `make_log_likelihood` returns.

    Returns:
        log_likelihood [batch] and kl [batch, latent], nats.
    """
    return ElboTerms(log_likelihood(out.logits, images), gaussian_kl(out.posterior))


def gaussian_kl(q: Posterior) -> Latents:
    """KL(N(mean, exp(logvar)) || N(0, 1)) for each latent, nats.

        (mean^2 + exp(logvar) - 1 - logvar) / 2

    Kingma & Welling 2014, appendix B. Shape [batch, latent].
    """
    return 0.5 * (jnp.square(q.mean) + jnp.expm1(q.logvar) - q.logvar)


def bernoulli_log_likelihood(logits: Images, images: Images) -> PerImage:
    """sum_pixels x log s(l) + (1 - x) log(1 - s(l)), s the logistic function; nats, [batch].

    Kingma & Welling 2014, eq. 11. For x strictly between 0 and 1 it is a cross-entropy, not a
    normalised log-likelihood.
    """
    return -jnp.sum(optax.sigmoid_binary_cross_entropy(logits, images), axis=PIXEL_AXES)


def gaussian_log_likelihood(logits: Images, images: Images, sigma: float) -> PerImage:
    """log N(x; s(l), sigma^2 I) with its normalising constant; nats, [batch].

        -sum_pixels (x - s(l))^2 / (2 sigma^2) + log(sigma) + log(2 pi) / 2

    s is the logistic function: the mean of a pixel lies in (0, 1), like the pixel.
    Kingma & Welling 2014, eq. 12, with one fixed sigma.
    """
    z = (images - expected_image(logits)) / sigma
    constant = jnp.log(sigma) + 0.5 * jnp.log(2 * jnp.pi)
    return -jnp.sum(0.5 * jnp.square(z) + constant, axis=PIXEL_AXES)


def expected_image(logits: Images) -> Images:
    """The mean of p(x|z), in (0, 1): what a reconstruction or a sample is drawn as."""
    return jax.nn.sigmoid(logits)


LIKELIHOODS: dict[str, Callable[[float], LogLikelihood]] = {
    "bernoulli": lambda sigma: bernoulli_log_likelihood,
    "gaussian": lambda sigma: functools.partial(gaussian_log_likelihood, sigma=sigma),
}


def make_log_likelihood(name: str, sigma: float) -> LogLikelihood:
    """The named log-likelihood, a function (logits, images) -> [batch], nats.

    Args:
        name: a key of `LIKELIHOODS`.
        sigma: the standard deviation of a pixel, for `gaussian`.

    Raises:
        UserError: the name is not known.
    """
    if name not in LIKELIHOODS:
        raise unknown("likelihood", name, LIKELIHOODS)
    return LIKELIHOODS[name](sigma)
