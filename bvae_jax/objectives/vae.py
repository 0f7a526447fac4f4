"""loss = -ELBO = -E_q[log p(x|z)] + KL(q(z|x) || p(z)).

Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014, eq. 3.
"""

import jax.numpy as jnp

from bvae_jax.elbo import importance_weighted
from bvae_jax.objectives.base import NOTHING, Inputs, Loss, Objective


def loss(inputs: Inputs) -> Loss:
    """Mean over the batch, nats per image."""
    return Loss(inputs.nll + inputs.mean_kl, {"beta": jnp.ones(())})


def iwae(inputs: Inputs) -> Loss:
    """Burda et al., "Importance Weighted Autoencoders", ICLR 2016, eq. 8."""
    return Loss(-importance_weighted(inputs.out).mean(), {"beta": jnp.ones(())})


OBJECTIVE = Objective(
    loss=loss,
    formula="−E[log p(x|z)] + KL",
    reference="Kingma & Welling, Auto-Encoding Variational Bayes, 2014",
    neutral=NOTHING,
    iwae=iwae,
)
