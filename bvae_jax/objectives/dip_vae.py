"""loss = -ELBO + lambda_od sum_{i != j} C_ij^2 + lambda_d sum_i (C_ii - 1)^2.

Kumar, Sattigeri & Balakrishnan, "Variational Inference of Disentangled Latent Concepts from
Unlabeled Observations", ICLR 2018, eq. 6 and 7. C is the covariance over the batch of the posterior
means (DIP-VAE-I), or that plus the mean posterior variances on the diagonal, the covariance of
q(z) (DIP-VAE-II). lambda_d = lambda_d_factor * lambda_od: 10 times for I, once for II, as in
Locatello et al. 2019.
"""

import functools

import jax.numpy as jnp
from jaxtyping import Array, Float

from bvae_jax.objectives.base import Inputs, Loss, Objective
from bvae_jax.types import Posterior

Covariance = Float[Array, "latent latent"]


def covariance_of_means(q: Posterior) -> Covariance:
    """Cov[E[z|x]] over the batch, divided by its size."""
    centred = q.mean - q.mean.mean(axis=0, keepdims=True)
    return centred.T @ centred / len(centred)


def covariance_of_codes(q: Posterior) -> Covariance:
    """Cov[z] = Cov[E[z|x]] + E[Cov[z|x]]."""
    return covariance_of_means(q) + jnp.diag(jnp.exp(q.logvar).mean(axis=0))


def loss(inputs: Inputs, covariance) -> Loss:
    """Mean over the batch, nats per image."""
    c = covariance(inputs.out.posterior)
    diagonal = jnp.diag(c)
    off_diagonal = jnp.sum(jnp.square(c - jnp.diag(diagonal)))
    lambda_od = inputs.hyper["lambda_od"]
    lambda_d = inputs.hyper["lambda_d_factor"] * lambda_od
    dip = lambda_od * off_diagonal + lambda_d * jnp.sum(jnp.square(diagonal - 1))
    return Loss(inputs.nll + inputs.mean_kl + dip, {"dip": dip, "beta": jnp.ones(())})


_REFERENCE = "Kumar et al., Variational Inference of Disentangled Latent Concepts, 2018"
_FORMULA = "−ELBO + λ_od Σ_(i≠j) C_ij² + λ_d Σ (C_ii − 1)², C = Cov[{}]"
FIRST = Objective(
    loss=functools.partial(loss, covariance=covariance_of_means),
    formula=_FORMULA.format("E[z|x]"),
    reference=_REFERENCE,
    hyper={"lambda_od": 10.0, "lambda_d_factor": 10.0},
    neutral={"lambda_od": 0.0},
)
SECOND = FIRST._replace(
    loss=functools.partial(loss, covariance=covariance_of_codes),
    formula=_FORMULA.format("z"),
    hyper={"lambda_od": 10.0, "lambda_d_factor": 1.0},
)
