"""loss = -log p(x|z) + beta KL(q(z|x) || p(z)).

Higgins et al., "beta-VAE: Learning Basic Visual Concepts with a Constrained Variational
Framework", ICLR 2017, eq. 4. beta = 1 is the negative ELBO.
"""

import jax.numpy as jnp
from jaxtyping import Array, Int

from bvae_jax.objectives.base import Objective
from bvae_jax.types import ElboTerms, Hyper, Metrics, Params, PRNGKey, Scalar, VAEOutput


def loss(
    aux: Params,
    out: VAEOutput,
    terms: ElboTerms,
    hyper: Hyper,
    step: Int[Array, ""],
    key: PRNGKey,
) -> tuple[Scalar, Metrics]:
    """Mean over the batch, nats per image."""
    del aux, out, step, key
    kl = jnp.sum(terms.kl, axis=-1)
    return jnp.mean(hyper["beta"] * kl - terms.log_likelihood), {}


OBJECTIVE = Objective(loss=loss, hyper={"beta": 4.0})
