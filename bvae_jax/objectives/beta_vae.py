"""loss = -E_q[log p(x|z)] + beta KL(q(z|x) || p(z)).

Higgins et al., "beta-VAE: Learning Basic Visual Concepts with a Constrained Variational
Framework", ICLR 2017, eq. 4. beta = 1 is the negative ELBO.
"""

from bvae_jax.elbo import importance_weighted
from bvae_jax.objectives.base import Inputs, Loss, Objective


def loss(inputs: Inputs) -> Loss:
    """Mean over the batch, nats per image."""
    beta = inputs.hyper["beta"]
    return Loss(inputs.nll + beta * inputs.mean_kl, {"beta": beta})


def iwae(inputs: Inputs) -> Loss:
    """The importance-weighted bound in place of the ELBO, with p(z) / q(z|x) to the power beta."""
    beta = inputs.hyper["beta"]
    return Loss(-importance_weighted(inputs.out, beta).mean(), {"beta": beta})


OBJECTIVE = Objective(
    loss=loss,
    formula="−E[log p(x|z)] + β KL",
    reference="Higgins et al., beta-VAE, 2017",
    hyper={"beta": 4.0},
    neutral={"beta": 1.0},
    iwae=iwae,
)
