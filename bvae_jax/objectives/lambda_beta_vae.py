"""loss = -E_q[log p(x|z)] + beta KL + lambda E_q |x - x'|^2, x' the mean image of p(x|z).

"Mutual information collapse explains disentanglement failure in beta-VAEs", arXiv 2602.09277, 2026:
the squared error, a sum over pixels, holds against a large beta what z knows of x.
"""

import jax.numpy as jnp

from bvae_jax.objectives.base import Inputs, Loss, Objective


def loss(inputs: Inputs) -> Loss:
    """Mean over the batch, nats per image."""
    beta, out = inputs.hyper["beta"], inputs.out
    error = jnp.square(out.images[None] - out.reconstruction).sum(axis=(2, 3, 4)).mean()
    value = inputs.nll + beta * inputs.mean_kl + inputs.hyper["lambda_l2"] * error
    return Loss(value, {"beta": beta, "squared_error": error})


OBJECTIVE = Objective(
    loss=loss,
    formula="−E[log p(x|z)] + β KL + λ E|x − x̂|²",
    reference="λβ-VAE, arXiv 2602.09277, 2026",
    hyper={"beta": 4.0, "lambda_l2": 1.0},
    neutral={"beta": 1.0, "lambda_l2": 0.0},
)
