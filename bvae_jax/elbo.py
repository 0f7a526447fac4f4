"""The evidence lower bound, in nats per image.

    ELBO(x) = E_q(z|x)[log p(x|z)] - KL(q(z|x) || p(z)),    p(z) = N(0, I)

Kingma & Welling, "Auto-Encoding Variational Bayes", 2014, eq. 3. The expectation is the mean over
samples of z, one for each image by default. Terms are summed over pixels and latents, never
averaged, so that beta means what it means in Higgins et al., 2017.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bvae_jax.types import Latents, PerImage, Posterior, Samples, Scalar, VAEOutput

ACTIVE_VARIANCE = 0.01
"""Variance of a latent's posterior mean over images above which it is active."""
MOST_LOGVAR = 60.0
"""Distances are in standard deviations of a log-variance within +- this: a posterior this narrow is
a point, and of a narrower one they are soon infinite in single precision, or no number."""
ACTIVE = f"variance of the posterior mean over images above {ACTIVE_VARIANCE}"
"""What active is, for where it is printed."""


def elbo(out: VAEOutput) -> PerImage:
    """The bound for each image: mean over samples of log p(x|z), minus the KL; nats, [batch]."""
    return jnp.mean(out.log_likelihood, axis=0) - jnp.sum(gaussian_kl(out.posterior), axis=-1)


def gaussian_kl(q: Posterior) -> Latents:
    """KL(N(mean, exp(logvar)) || N(0, 1)) for each latent, nats.

        (mean^2 + exp(logvar) - 1 - logvar) / 2

    Kingma & Welling 2014, appendix B. Shape [batch, latent].
    """
    return 0.5 * (jnp.square(q.mean) + jnp.expm1(q.logvar) - q.logvar)


def is_active(variance: Any) -> Any:
    """Whether a latent is active: its posterior mean varies with the image; elementwise.

    A KL from the prior is no such sign: a posterior may be narrow, or off 0, alike for all images.
    Burda, Grosse & Salakhutdinov, 2016, section 5.2.

    Args:
        variance: of the posterior mean over images, for a prior of variance 1.
    """
    return variance > ACTIVE_VARIANCE


def log_normal(x: Array, mean: Array, logvar: Array) -> Array:
    """log N(x; mean, exp(logvar)), elementwise; distances as `MOST_LOGVAR` says."""
    inverse = jnp.exp(-jnp.clip(logvar, -MOST_LOGVAR, MOST_LOGVAR))
    return -0.5 * (jnp.square(x - mean) * inverse + logvar + math.log(2 * math.pi))


def log_prior(z: Array) -> Array:
    """log N(z; 0, 1), elementwise."""
    return -0.5 * (jnp.square(z) + math.log(2 * math.pi))


def information(q: Posterior, z: Latents) -> Scalar:
    """Mutual information of a batch's images and their codes, nats; at most log B.

        1/B sum_i log q(z_i|x_i) - log 1/B sum_j q(z_i|x_j)

    That of all images is larger where it is near log B: Hoffman & Johnson, "ELBO surgery", 2016.

    Args:
        z: [batch, latent], a draw for each image.
    """
    pairs = jnp.sum(log_normal(z[:, None], q.mean[None], q.logvar[None]), axis=-1)
    log_q = jax.nn.logsumexp(pairs, axis=1) - math.log(len(pairs))
    return jnp.mean(jnp.diagonal(pairs) - log_q)


def importance_weighted(out: VAEOutput, beta: Scalar | float = 1.0) -> PerImage:
    """The importance-weighted bound on log p(x) from K samples of z; nats, [batch].

        log 1/K sum_k p(x|z_k) (p(z_k) / q(z_k|x))^beta

    With beta = 1 that is Burda et al., "Importance Weighted Autoencoders", ICLR 2016, eq. 8: at
    least the ELBO, and log p(x) in the limit of many samples.
    """
    log_weights = out.log_likelihood + beta * log_prior_ratio(out.posterior, out.z)
    return jax.nn.logsumexp(log_weights, axis=0) - jnp.log(len(log_weights))


def log_prior_ratio(q: Posterior, z: Samples) -> Float[Array, "sample batch"]:
    """log p(z) - log q(z|x) of the samples, nats. Its mean is minus the KL."""
    return jnp.sum(log_prior(z) - log_normal(z, q.mean[None], q.logvar[None]), axis=-1)
