"""What an objective is."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from jaxtyping import Array, Int

from bvae_jax.types import ElboTerms, Hyper, Metrics, Params, PRNGKey, Scalar, VAEOutput

LossFn = Callable[
    [Params, VAEOutput, ElboTerms, Hyper, Int[Array, ""], PRNGKey], tuple[Scalar, Metrics]
]
"""(aux params, model output, ELBO terms, hyper, step, key) -> (loss, further named scalars)."""


def no_aux(key: PRNGKey, latents: int) -> Params:
    """No parameters beside the VAE's."""
    del key, latents
    return {}


class Objective(NamedTuple):
    """A loss to minimise, averaged over the batch, in nats per image.

    The train step reports `loss`, `nll`, `kl`, `kl_per_latent` and `elbo` for every objective; the
    loss function returns what it wants to report beside them.

    Attributes:
        loss: see `LossFn`. It sees hyperparameters as traced scalars.
        hyper: the hyperparameters that it reads. A field of `Config` of that name gives the value;
            where there is none, the default here holds.
        init_aux: (key, latents) -> parameters of its own, such as a discriminator's.
    """

    loss: LossFn
    hyper: Mapping[str, float]
    init_aux: Callable[[PRNGKey, int], Params] = no_aux
