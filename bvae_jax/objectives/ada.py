"""beta-VAE on pairs of images that share factors, with the posteriors of shared latents merged.

Locatello et al., "Weakly-Supervised Disentanglement Without Compromises", ICML 2020, section 4.
Latent i of a pair is taken as shared where KL(q(z_i|x1) || q(z_i|x2)) lies below the midpoint of
the smallest and the largest of the pair's latents. What two shared posteriors become:

- `ada_gvae`: the mean of the means and the mean of the variances (Hosoya 2019);
- `ada_mlvae`: their product, a Gaussian whose precision is the mean of the precisions, so that
  equal posteriors stay as they are (Bouchacourt et al. 2018).

The first half of the batch holds the first images of the pairs. Merging is part of training only:
evaluation is that of the encoder as it is, on single images.
"""

import functools
from collections.abc import Callable

import jax.numpy as jnp

from bvae_jax.objectives.base import Objective
from bvae_jax.objectives.beta_vae import loss
from bvae_jax.types import Latents, Posterior

Merge = Callable[[Posterior, Posterior], Posterior]


def kl_between(q: Posterior, p: Posterior) -> Latents:
    """KL(q || p) for each latent, nats."""
    log_ratio = q.logvar - p.logvar
    distance = jnp.square(q.mean - p.mean) * jnp.exp(-p.logvar)
    return 0.5 * (jnp.expm1(log_ratio) - log_ratio + distance)


def mean_of_moments(q: Posterior, p: Posterior) -> Posterior:
    """Means and variances averaged."""
    logvar = jnp.logaddexp(q.logvar, p.logvar) - jnp.log(2)
    return Posterior(0.5 * (q.mean + p.mean), logvar)


def product(q: Posterior, p: Posterior) -> Posterior:
    """Means weighted by precision, and precisions averaged."""
    log_precision = jnp.logaddexp(-q.logvar, -p.logvar) - jnp.log(2)
    total = (
        jnp.exp(-q.logvar - log_precision) * q.mean + jnp.exp(-p.logvar - log_precision) * p.mean
    )
    return Posterior(0.5 * total, -log_precision)


def merge_shared(posterior: Posterior, merge: Merge) -> Posterior:
    """The posteriors of a batch of pairs, with those of shared latents merged."""
    half = len(posterior.mean) // 2
    first = Posterior(*(x[:half] for x in posterior))
    second = Posterior(*(x[half:] for x in posterior))
    kl = kl_between(first, second)
    low, high = kl.min(axis=-1, keepdims=True), kl.max(axis=-1, keepdims=True)
    shared = kl < 0.5 * (low + high)
    merged = merge(first, second)
    kept = [
        jnp.concatenate([jnp.where(shared, m, x), jnp.where(shared, m, y)])
        for x, y, m in zip(first, second, merged, strict=True)
    ]
    return Posterior(*kept)


GVAE = Objective(
    loss=loss,
    formula="−E[log p(x|z)] + β KL on pairs, shared posteriors averaged",
    reference="Locatello et al., Weakly-Supervised Disentanglement Without Compromises, 2020",
    hyper={"beta": 1.0},
    neutral={"beta": 1.0},
    adapt=functools.partial(merge_shared, merge=mean_of_moments),
    pairs=True,
    halves=True,
)
MLVAE = GVAE._replace(
    formula="−E[log p(x|z)] + β KL on pairs, shared posteriors multiplied",
    adapt=functools.partial(merge_shared, merge=product),
)
