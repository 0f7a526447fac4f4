"""loss = -E_q[log p(x|z)] + beta KL(q(z|x) || p(z)), and both ends of its scale.

Higgins et al., "beta-VAE: Learning Basic Visual Concepts with a Constrained Variational
Framework", ICLR 2017, eq. 4. beta = 1 is the negative ELBO of a VAE, and beta = 0 without noise an
autoencoder.
"""

import jax.numpy as jnp

from bvae_jax.elbo import importance_weighted
from bvae_jax.objectives.base import NOTHING, Inputs, Loss, Objective


def loss(inputs: Inputs) -> Loss:
    """Mean over the batch, nats per image."""
    beta = inputs.hyper["beta"]
    return Loss(inputs.nll + beta * inputs.mean_kl, {"beta": beta})


def iwae(inputs: Inputs) -> Loss:
    """The importance-weighted bound in place of the ELBO, with p(z) / q(z|x) to the power beta."""
    beta = inputs.hyper["beta"]
    return Loss(-importance_weighted(inputs.out, beta).mean(), {"beta": beta})


def multi_rate(inputs: Inputs) -> Loss:
    """Each image with a beta of its own; mean over the batch, nats per image.

    Bae et al., "Multi-Rate VAE", ICLR 2023, algorithm 1.
    """
    assert inputs.beta is not None
    return Loss(inputs.nll + (inputs.beta * inputs.kl.sum(axis=-1)).mean())


def vae_loss(inputs: Inputs) -> Loss:
    """-ELBO; mean over the batch, nats per image. Kingma & Welling, 2014, eq. 3."""
    return Loss(inputs.nll + inputs.mean_kl, {"beta": jnp.ones(())})


def vae_iwae(inputs: Inputs) -> Loss:
    """Burda et al., "Importance Weighted Autoencoders", ICLR 2016, eq. 8."""
    return Loss(-importance_weighted(inputs.out).mean(), {"beta": jnp.ones(())})


def ae_loss(inputs: Inputs) -> Loss:
    """-log p(x|z) at z = the posterior mean; mean over the batch, nats per image.

    Nothing is drawn and nothing pulls the codes towards the prior. The encoder's log-variances are
    never trained: codes are points, and nothing that rests on a posterior is reported of them.
    """
    return Loss(inputs.nll, {"beta": jnp.zeros(())})


BETA_VAE = Objective(
    loss=loss,
    formula="−E[log p(x|z)] + β KL",
    reference="Higgins et al., beta-VAE, 2017",
    hyper={"beta": 4.0},
    neutral={"beta": 1.0},
    iwae=iwae,
    multi_rate=multi_rate,
)
VAE = Objective(
    loss=vae_loss,
    formula="−E[log p(x|z)] + KL",
    reference="Kingma & Welling, Auto-Encoding Variational Bayes, 2014",
    neutral=NOTHING,
    iwae=vae_iwae,
)
AE = Objective(
    loss=ae_loss,
    formula="−log p(x|z), z = E[z|x]",
    reference="Hinton & Salakhutdinov, Reducing the Dimensionality of Data, 2006",
    noise=False,
)
