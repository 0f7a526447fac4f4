"""What an objective is."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from jaxtyping import PyTree

from bvae_jax.types import (
    Hyper,
    Latents,
    Metrics,
    Params,
    PerImage,
    Posterior,
    PRNGKey,
    Scalar,
    VAEOutput,
)

NOTHING: Mapping = MappingProxyType({})


class Inputs(NamedTuple):
    """What a loss is computed from.

    Attributes:
        out: what the model made of the batch: posterior, z, log p(x|z), reconstructions; and the
            images.
        kl: KL(q(z|x) || p(z)) for each image and latent, nats.
        hyper: the objective's hyperparameters at this step, schedules applied.
        aux: the objective's own parameters.
        memory: what the objective kept from the step before.
        key: for what is random beside z.
        dataset_size: number of images that are trained on.
        beta: of each image, where one network is trained for many.
    """

    out: VAEOutput
    kl: Latents
    hyper: Hyper
    aux: Params
    memory: PyTree
    key: PRNGKey
    dataset_size: int
    beta: PerImage | None = None

    @property
    def nll(self) -> Scalar:
        """-log p(x|z), averaged over samples and images; nats per image."""
        return -self.out.log_likelihood.mean()

    @property
    def mean_kl(self) -> Scalar:
        """KL(q(z|x) || p(z)), averaged over images; nats per image."""
        return self.kl.sum(axis=-1).mean()


class Loss(NamedTuple):
    """What an objective makes of a batch.

    Attributes:
        value: what is minimised, averaged over the batch, nats per image.
        metrics: named scalars to report beside those that every objective reports.
        memory: for the next step; kept as it is if None.
    """

    value: Scalar
    metrics: Metrics = {}  # noqa: RUF012 (never changed)
    memory: PyTree | None = None


LossFn = Callable[[Inputs], Loss]


def no_aux(key: PRNGKey, latents: int) -> Params:
    """No parameters beside the VAE's."""
    del key, latents
    return {}


class Objective(NamedTuple):
    """A loss to minimise.

    The train step reports `loss` and `nll` for every objective, and `kl`, `kl_per_latent`, `elbo`
    and `bits_per_dim` where z is drawn. Hyperparameters are traced scalars: one compilation serves
    all their values.

    Attributes:
        loss: see `Inputs` and `Loss`.
        formula: in one line, for people.
        reference: authors, title, year.
        hyper: names and defaults of its hyperparameters: fields of `Config`, or, of an objective
            that `bvae_jax.register` makes known, names of its own.
        neutral: values of hyperparameters at which the loss is the negative ELBO; None if there are
            none.
        iwae: the loss with the importance-weighted bound in place of the ELBO, if it makes sense.
        multi_rate: the loss with `Inputs.beta`, a β for each image, if it makes sense.
        init_aux: (key, latents) -> parameters of its own, such as a discriminator's. They have an
            optimizer of their own: Adam with `aux_learning_rate` and betas .5, .9.
        memory: what `Inputs.memory` is before the first step: names and values of scalars.
        schedules: name of a hyperparameter -> its schedule, where the config gives none.
        adapt: changes the posteriors of a batch while training, before z is drawn.
        pairs: a batch is two halves: image i shares factors with image i + batch / 2.
        halves: the loss divides the batch into two halves, though they are alike.
        noise: z is drawn; otherwise it is the encoder's mean, a point: there is no posterior.
        codebook: means are snapped to values of a codebook: `VAE.codebook`, `VAEOutput.snapped`.
    """

    loss: LossFn
    formula: str
    reference: str
    hyper: Mapping[str, float] = NOTHING
    neutral: Mapping[str, float] | None = None
    iwae: LossFn | None = None
    multi_rate: LossFn | None = None
    init_aux: Callable[[PRNGKey, int], Params] = no_aux
    memory: Mapping[str, float] = NOTHING
    schedules: Mapping[str, str] = NOTHING
    adapt: Callable[[Posterior], Posterior] | None = None
    pairs: bool = False
    halves: bool = False
    noise: bool = True
    codebook: bool = False
