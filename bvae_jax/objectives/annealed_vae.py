"""loss = -E_q[log p(x|z)] + gamma |KL - C|, the KL averaged over the batch.

Burgess et al., "Understanding disentangling in beta-VAE", 2018, eq. 8. C grows with the step, by
`--capacity-schedule`. The absolute value is that of the batch's mean, as in Locatello et al. 2019.
"""

import jax.numpy as jnp

from bvae_jax.objectives.base import Inputs, Loss, Objective


def loss(inputs: Inputs) -> Loss:
    """Mean over the batch, nats per image."""
    gamma, capacity = inputs.hyper["gamma"], inputs.hyper["capacity"]
    distance = jnp.abs(inputs.mean_kl - capacity)
    return Loss(inputs.nll + gamma * distance, {"capacity": capacity})


OBJECTIVE = Objective(
    loss=loss,
    formula="−E[log p(x|z)] + γ |KL − C|",
    reference="Burgess et al., Understanding disentangling in beta-VAE, 2018",
    hyper={"gamma": 1000.0, "capacity": 25.0},
    schedules={"capacity": "linear:steps=100000"},
    neutral={"gamma": 1.0, "capacity": 0.0},
)
