"""loss = -ELBO + gamma TC, the total correlation of q(z) from a discriminator's density ratio.

    TC = KL(q(z) || prod_j q(z_j)) ~ E_q(z)[log D(z) - log(1 - D(z))]

Kim & Mnih, "Disentangling by Factorising", ICML 2018, eq. 2 and 3, algorithm 2. The discriminator D
tells z from z whose coordinates were permuted over the batch, each for itself. z comes from the
first half of the batch and what is permuted from the second; the paper draws two batches for that.
The ELBO uses all of the batch.

Neither sees the other's gradient: the discriminator is constant in the VAE's loss, and z is
constant in the discriminator's.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bvae_jax.objectives.base import Inputs, Loss, Objective
from bvae_jax.types import Latents, Params, PRNGKey

UNITS, LAYERS, SLOPE = 1000, 6, 0.2


class Discriminator(nn.Module):
    """z -> logits of (drawn jointly, permuted): six layers of 1000 leaky ReLUs."""

    @nn.compact
    def __call__(self, z: Latents) -> Float[Array, "batch 2"]:
        for _ in range(LAYERS):
            z = nn.leaky_relu(nn.Dense(UNITS)(z), SLOPE)
        return nn.Dense(2)(z)


def init_aux(key: PRNGKey, latents: int) -> Params:
    """The discriminator's parameters."""
    return Discriminator().init(key, jnp.zeros((1, latents)))["params"]


def permute(z: Latents, key: PRNGKey) -> Latents:
    """Each column permuted for itself: a draw from prod_j q(z_j). Kim & Mnih 2018, algorithm 1."""
    return jax.random.permutation(key, z, axis=0, independent=True)


def loss(inputs: Inputs) -> Loss:
    """Mean over the batch, nats per image; of several samples of z the first is used for TC.

    The value is the VAE's loss alone; the discriminator's adds its gradient.
    """
    z, half = inputs.out.z[0], inputs.out.z.shape[1] // 2
    logits = _discriminate(jax.lax.stop_gradient(inputs.aux), z[:half])
    tc = jnp.mean(logits[:, 0] - logits[:, 1])

    fixed = jax.lax.stop_gradient(z)
    joint = nn.log_softmax(_discriminate(inputs.aux, fixed[:half]))[:, 0]
    permuted = permute(fixed[half : 2 * half], inputs.key)
    product = nn.log_softmax(_discriminate(inputs.aux, permuted))[:, 1]
    discriminator_loss = -0.5 * (joint.mean() + product.mean())

    value = inputs.nll + inputs.mean_kl + inputs.hyper["gamma"] * tc
    gradient_only = discriminator_loss - jax.lax.stop_gradient(discriminator_loss)
    reported = {"tc": tc, "discriminator_loss": discriminator_loss, "beta": jnp.ones(())}
    return Loss(value + gradient_only, reported)


def _discriminate(params: Params, z: Latents) -> Array:
    return jnp.asarray(Discriminator().apply({"params": params}, z))


OBJECTIVE = Objective(
    loss=loss,
    formula="−E[log p(x|z)] + KL + γ TC",
    reference="Kim & Mnih, Disentangling by Factorising, 2018",
    hyper={"gamma": 35.0, "aux_learning_rate": 1e-4},
    neutral={"gamma": 0.0},
    init_aux=init_aux,
    halves=True,
)
