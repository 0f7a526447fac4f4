"""loss = -E_q[log p(x|z)] + (1 - alpha) KL + (alpha + lambda - 1) MMD(q(z), p(z)).

Zhao, Song & Ermon, "InfoVAE: Balancing Learning and Inference in Variational Autoencoders", AAAI
2019, section 3. MMD is the squared maximum mean discrepancy between the batch's z and as many draws
from the prior. alpha = 1 is the MMD-VAE, without a KL. The kernel is exp(-|z - z'|^2 / M^2) for M
latents, as in the authors' code.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bvae_jax.objectives.base import Inputs, Loss, Objective
from bvae_jax.types import Latents, Scalar


def kernel(x: Latents, y: Float[Array, "other latent"]) -> Float[Array, "batch other"]:
    """exp(-|x - y|^2 / latents^2)."""
    squares = jnp.sum(jnp.square(x[:, None] - y[None]), axis=-1)
    return jnp.exp(-squares / x.shape[-1] ** 2)


def mmd(x: Latents, y: Float[Array, "other latent"]) -> Scalar:
    """Squared maximum mean discrepancy, every pair counted. Gretton et al. 2012, eq. 5."""
    return kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean()


def unbiased_mmd(x: Latents, y: Float[Array, "other latent"]) -> Scalar:
    """The same without pairs of a point with itself, 0 on average where x and y are alike.

    Gretton et al. 2012, eq. 3.
    """

    def apart(points: Float[Array, "point latent"]) -> Scalar:
        n = len(points)
        return (kernel(points, points).sum() - n) / max(n * (n - 1), 1)

    return apart(x) + apart(y) - 2 * kernel(x, y).mean()


def loss(inputs: Inputs) -> Loss:
    """Mean over the batch, nats per image; of several samples of z the first is used for MMD.

    The loss takes the distance as the authors do, with every pair: above 0 even where z is as the
    prior. What is reported as `mmd` is unbiased.
    """
    z = inputs.out.z[0]
    prior = jax.random.normal(inputs.key, z.shape, z.dtype)
    distance = mmd(z, prior)
    alpha, weight = inputs.hyper["alpha"], inputs.hyper["lambda_mmd"]
    value = inputs.nll + (1 - alpha) * inputs.mean_kl + (alpha + weight - 1) * distance
    return Loss(value, {"mmd": unbiased_mmd(z, prior), "beta": 1 - alpha})


OBJECTIVE = Objective(
    loss=loss,
    formula="−E[log p(x|z)] + (1 − α) KL + (α + λ − 1) MMD(q(z), p(z))",
    reference="Zhao et al., InfoVAE, 2019",
    hyper={"alpha": 0.0, "lambda_mmd": 1000.0},
    neutral={"alpha": 0.0, "lambda_mmd": 1.0},
)
