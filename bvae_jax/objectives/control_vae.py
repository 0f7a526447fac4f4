"""loss = -E_q[log p(x|z)] + beta(t) KL, where a PI controller sets beta(t) to hold the KL at C.

    e(t) = C - KL(t),    I(t) = I(t-1) - K_i e(t)
    beta(t) = beta_min + K_p / (1 + exp(e(t))) + I(t)

Shao et al., "ControlVAE: Controllable Variational Autoencoder", ICML 2020, algorithm 1. The
KL is the batch's, in nats; beta(t) is a constant to the gradient and at most beta_max. The paper
stops integrating while beta is out of its range, and may get stuck there; here I(t) is kept between
0 and beta_max - beta_min. C may grow, by `--capacity-schedule`.
"""

import jax
import jax.numpy as jnp

from bvae_jax.objectives.base import Inputs, Loss, Objective


def loss(inputs: Inputs) -> Loss:
    """Mean over the batch, nats per image."""
    hyper, kl = inputs.hyper, inputs.mean_kl
    error = hyper["capacity"] - jax.lax.stop_gradient(kl)
    most = hyper["beta_max"] - hyper["beta_min"]
    integral = jnp.clip(inputs.memory["integral"] - hyper["ki"] * error, 0, most)
    proportional = hyper["kp"] * jax.nn.sigmoid(-error)
    beta = jnp.minimum(hyper["beta_min"] + proportional + integral, hyper["beta_max"])
    reported = {"beta": beta, "capacity": hyper["capacity"]}
    return Loss(inputs.nll + beta * kl, reported, {"integral": integral})


OBJECTIVE = Objective(
    loss=loss,
    formula="−E[log p(x|z)] + β(t) KL, β(t) by a PI controller that holds KL = C",
    reference="Shao et al., ControlVAE, 2020",
    hyper={"capacity": 18.0, "kp": 0.01, "ki": 0.001, "beta_min": 1.0, "beta_max": 100.0},
    neutral={"kp": 0.0, "ki": 0.0, "beta_min": 1.0},
    memory={"integral": 0.0},
)
