"""loss = -E_q[log p(x|z)] + beta KL + gamma sum_{i<j} d_H(S_i x S_j, S_ij), distances of supports.

Roth, Ibrahim, Akata, Vincent & Bouchacourt, "Disentanglement of Correlated Factors via Hausdorff
Factorized Support", ICLR 2023, section 3. S_ij are the pairs of latents i and j that the batch's
posterior means have, S_i x S_j all pairs of a value of i with a value of j. Latents may be
correlated, as factors are in real data, but every combination of their values should occur.
"""

import jax
import jax.numpy as jnp
import numpy as np

from bvae_jax.objectives.base import Inputs, Loss, Objective
from bvae_jax.types import Latents, Scalar


def factorised_support_distance(codes: Latents) -> Scalar:
    """Sum over pairs of latents of the squared Hausdorff distance from S_i x S_j to S_ij.

    That is how far the farthest combination of two values is from the nearest code that occurs.
    Every pair of latents and every combination counts: the authors' code draws some of them.
    """
    apart = jax.lax.stop_gradient(jnp.square(codes[:, None] - codes[None]))  # [value, code, latent]

    def farthest(pair: tuple[jax.Array, jax.Array]) -> Scalar:
        i, j = pair
        squares = apart[:, None, :, i] + apart[None, :, :, j]  # [value of i, of j, code]
        a, b = jnp.unravel_index(squares.min(axis=2).argmax(), squares.shape[:2])
        c = squares[a, b].argmin()
        return jnp.square(codes[a, i] - codes[c, i]) + jnp.square(codes[b, j] - codes[c, j])

    pairs = np.triu_indices(codes.shape[1], 1)
    if not len(pairs[0]):
        return jnp.zeros((), codes.dtype)
    return jax.lax.map(farthest, tuple(map(jnp.asarray, pairs))).sum()


def loss(inputs: Inputs) -> Loss:
    """Mean over the batch, nats per image; the distance is the batch's."""
    beta = inputs.hyper["beta"]
    distance = factorised_support_distance(inputs.out.posterior.mean)
    value = inputs.nll + beta * inputs.mean_kl + inputs.hyper["gamma"] * distance
    return Loss(value, {"beta": beta, "support_distance": distance})


OBJECTIVE = Objective(
    loss=loss,
    formula="−E[log p(x|z)] + β KL + γ Σ_{i<j} d_H(S_i × S_j, S_ij)",
    reference="Roth et al., Hausdorff Factorized Support, 2023",
    hyper={"beta": 1.0, "gamma": 10.0},
    neutral={"beta": 1.0, "gamma": 0.0},
)
