"""loss = -E_q[log p(x|z)] + beta KL(q(z|x) || p(z)), both ends of its scale, and what
else sets the weight of the KL: a target for it, a controller, an error beside it.

Higgins et al., "beta-VAE: Learning Basic Visual Concepts with a Constrained Variational
Framework", ICLR 2017, eq. 4. beta = 1 is the negative ELBO of a VAE, and beta = 0 without noise an
autoencoder.
"""

import jax
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


def annealed_loss(inputs: Inputs) -> Loss:
    """loss = -E_q[log p(x|z)] + gamma |KL - C|, the KL averaged over the batch.

    Burgess et al., "Understanding disentangling in beta-VAE", 2018, eq. 8. C grows with the step,
    by `--capacity-schedule`. The absolute value is that of the batch's mean, as in Locatello et al.
    2019.
    """
    gamma, capacity = inputs.hyper["gamma"], inputs.hyper["capacity"]
    distance = jnp.abs(inputs.mean_kl - capacity)
    return Loss(inputs.nll + gamma * distance, {"capacity": capacity})


ANNEALED_VAE = Objective(
    loss=annealed_loss,
    formula="−E[log p(x|z)] + γ |KL − C|",
    reference="Burgess et al., Understanding disentangling in beta-VAE, 2018",
    hyper={"gamma": 1000.0, "capacity": 25.0},
    schedules={"capacity": "linear:steps=100000"},
    neutral={"gamma": 1.0, "capacity": 0.0},
)


def control_loss(inputs: Inputs) -> Loss:
    """loss = -E_q[log p(x|z)] + beta(t) KL, where a PI controller sets beta(t) to hold the KL at C.

        e(t) = C - KL(t),    I(t) = I(t-1) - K_i e(t)
        beta(t) = beta_min + K_p / (1 + exp(e(t))) + I(t)

    Shao et al., "ControlVAE: Controllable Variational Autoencoder", ICML 2020, algorithm 1. The
    KL is the batch's, in nats; beta(t) is a constant to the gradient and at most beta_max. The
    paper stops integrating while beta is out of its range, and may get stuck there; here I(t) is
    kept between 0 and beta_max - beta_min. C may grow, by `--capacity-schedule`.
    """
    hyper, kl = inputs.hyper, inputs.mean_kl
    error = hyper["capacity"] - jax.lax.stop_gradient(kl)
    most = hyper["beta_max"] - hyper["beta_min"]
    integral = jnp.clip(inputs.memory["integral"] - hyper["ki"] * error, 0, most)
    proportional = hyper["kp"] * jax.nn.sigmoid(-error)
    beta = jnp.minimum(hyper["beta_min"] + proportional + integral, hyper["beta_max"])
    reported = {"beta": beta, "capacity": hyper["capacity"]}
    return Loss(inputs.nll + beta * kl, reported, {"integral": integral})


CONTROL_VAE = Objective(
    loss=control_loss,
    formula="−E[log p(x|z)] + β(t) KL, β(t) by a PI controller that holds KL = C",
    reference="Shao et al., ControlVAE, 2020",
    hyper={"capacity": 18.0, "kp": 0.01, "ki": 0.001, "beta_min": 1.0, "beta_max": 100.0},
    neutral={"kp": 0.0, "ki": 0.0, "beta_min": 1.0},
    memory={"integral": 0.0},
)


def lambda_loss(inputs: Inputs) -> Loss:
    """loss = -E_q[log p(x|z)] + beta KL + lambda E_q |x - x'|^2, x' the mean image of p(x|z).

    "Mutual information collapse explains disentanglement failure in beta-VAEs", arXiv 2602.09277,
    2026: the squared error, a sum over pixels, holds against a large beta what z knows of x.
    """
    beta, out = inputs.hyper["beta"], inputs.out
    error = jnp.square(out.images[None] - out.reconstruction).sum(axis=(2, 3, 4)).mean()
    value = inputs.nll + beta * inputs.mean_kl + inputs.hyper["lambda_l2"] * error
    return Loss(value, {"beta": beta, "squared_error": error})


LAMBDA_BETA_VAE = Objective(
    loss=lambda_loss,
    formula="−E[log p(x|z)] + β KL + λ E|x − x̂|²",
    reference="λβ-VAE, arXiv 2602.09277, 2026",
    hyper={"beta": 4.0, "lambda_l2": 1.0},
    neutral={"beta": 1.0, "lambda_l2": 0.0},
)
