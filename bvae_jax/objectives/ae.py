"""loss = -log p(x|z) at z = the posterior mean: an autoencoder, the end of the scale at beta = 0.

Nothing is drawn and nothing pulls the codes towards the prior. The encoder's log-variances are
never trained: codes are points, and nothing that rests on a posterior is reported of them.
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
