"""loss = -log p(x|z) at z = the posterior mean: an autoencoder, the end of the scale at beta = 0.

Nothing is drawn and nothing pulls the codes towards the prior. The reported `kl` is that of
posteriors whose variance was never trained, and `elbo` is no bound.
"""

import jax.numpy as jnp

from bvae_jax.objectives.base import Inputs, Loss, Objective


def loss(inputs: Inputs) -> Loss:
    """Mean over the batch, nats per image."""
    return Loss(inputs.nll, {"beta": jnp.zeros(())})


OBJECTIVE = Objective(
    loss=loss,
    formula="−log p(x|z), z = E[z|x]",
    reference="Hinton & Salakhutdinov, Reducing the Dimensionality of Data, 2006",
    noise=False,
)
