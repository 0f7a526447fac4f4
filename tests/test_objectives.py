"""Laws that every registered objective obeys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bvae_jax.elbo import bernoulli_log_likelihood
from bvae_jax.errors import UserError
from bvae_jax.networks import make_network
from bvae_jax.objectives import OBJECTIVES, get_objective
from bvae_jax.train import init_state, make_loss, make_optimizer
from bvae_jax.vae import VAE

SHAPE, LATENTS = (16, 16, 1), 3
MODEL = VAE(*make_network("conv", LATENTS, SHAPE))
IMAGES = (jax.random.uniform(jax.random.key(5), (4, *SHAPE)) > 0.5).astype(jnp.float32)
NEUTRAL = {"beta_vae": {"beta": 1.0}}
"""Hyperparameters at which the loss is the negative ELBO."""


def losses(name, **hyper):
    """(jitted, not jitted): each (loss, metrics) of the same state."""
    objective = OBJECTIVES[name]
    values = {"learning_rate": 1e-3, **objective.hyper, **hyper}
    state = init_state(
        jax.random.key(0),
        {k: jnp.float32(v) for k, v in values.items()},
        model=MODEL,
        objective=objective,
        optimizer=make_optimizer(),
        image_shape=SHAPE,
        latents=LATENTS,
    )
    loss = make_loss(MODEL, objective, bernoulli_log_likelihood)
    gradient = jax.value_and_grad(loss, has_aux=True)
    return [
        f(state.params, state, IMAGES, *jax.random.split(jax.random.key(1)))
        for f in (jax.jit(gradient), gradient)
    ]


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_reports_and_finite_gradients(name):
    (loss, metrics), gradients = losses(name)[0]
    assert {"loss", "nll", "kl", "elbo", "kl_per_latent"} <= set(metrics)
    assert metrics["kl_per_latent"].shape == (LATENTS,)
    assert metrics["elbo"] == pytest.approx(-float(metrics["nll"] + metrics["kl"]))
    assert metrics["loss"] == loss
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((metrics, gradients)))


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_jitted_equals_not_jitted(name):
    jitted, plain = losses(name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), jitted, plain)


@pytest.mark.parametrize("name", sorted(NEUTRAL))
def test_neutral_setting_is_the_elbo(name):
    (loss, metrics), _ = losses(name, **NEUTRAL[name])[0]
    assert float(loss) == pytest.approx(-float(metrics["elbo"]), rel=1e-6)


def test_every_objective_has_a_neutral_setting_here():
    assert set(NEUTRAL) == set(OBJECTIVES)


def test_beta_weighs_the_kl_and_nothing_else():
    (one, m1), _ = losses("beta_vae", beta=1.0)[0]
    (heavy, m8), _ = losses("beta_vae", beta=1001.0)[0]
    assert float(heavy - one) == pytest.approx(1000 * float(m1["kl"]), rel=1e-3)
    for name in ("nll", "kl", "elbo"):
        assert m1[name] == m8[name]


def test_unknown_objective_is_named():
    with pytest.raises(UserError, match=r"Unknown objective 'btcvae'\. Known: beta_vae"):
        get_objective("btcvae")
