"""log p(x) of held-out images by importance sampling, in nats per image."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from bvae_jax.elbo import log_prior_ratio
from bvae_jax.errors import UserError
from bvae_jax.likelihoods import bits_per_dim
from bvae_jax.runs.trainer import Trainer, calibrated
from bvae_jax.runtime import bar
from bvae_jax.types import (
    Images,
    Params,
    PRNGKey,
    key_for,
)
from bvae_jax.vae import VAE, forward

IMAGES_AT_ONCE, SAMPLES_AT_ONCE = 16, 32
FEW = 10
"""Effective samples below which the estimate for an image may be too low by nats."""


class HeldOut(NamedTuple):
    """The mean over images of an estimate of log p(x), nats per image.

    Attributes:
        log_likelihood: log 1/K sum_k p(x, z_k) / q(z_k|x); too low on average, by less the more
            samples there are (Burda et al. 2016, theorem 1).
        standard_error: of that mean. It covers the choice of images and of samples, which are drawn
            separately for each image; it does not cover how far the estimates are too low.
        elbo: the mean of log p(x, z_k) / q(z_k|x) with the same samples.
        bits_per_dim: of -log_likelihood.
        effective_samples: median over images of (sum w)^2 / sum w^2: how many of the samples count.
        least_effective: of the image with the fewest.
        few: images with fewer than `FEW`.
        images: how many.
        samples: K.
    """

    log_likelihood: float
    standard_error: float
    elbo: float
    bits_per_dim: float
    effective_samples: float
    least_effective: float
    few: int
    images: int
    samples: int


class Sums(NamedTuple):
    """Over the samples of each image, with weights w = p(x, z) / q(z|x)."""

    log_sum: Float[Array | np.ndarray, " batch"]
    log_sum_of_squares: Float[Array | np.ndarray, " batch"]
    sum_of_logs: Float[Array | np.ndarray, " batch"]


def held_out_log_likelihood(
    trainer: Trainer, params: Params, *, samples: int, images: int, progress: bool = False
) -> HeldOut:
    """Estimate log p(x) of the first evaluation images. The same numbers whenever it is called.

    Args:
        params: the VAE's.
        samples: K, for each image.
        images: how many; all evaluation images, if there are fewer.
        progress: show a bar.

    Raises:
        UserError: there are fewer than two images: one has no standard error.
    """
    indices = trainer.eval_indices.ravel()[:images]
    if len(indices) < 2:
        raise UserError(f"--log-likelihood: got {len(indices)} image, wanted at least 2.")
    likelihood = calibrated(trainer, params)
    function = jax.jit(functools.partial(weight_sums, trainer.model.clone(likelihood=likelihood)),
                       static_argnums=2)  # fmt: skip
    found = []
    with bar(
        total=len(indices) * samples, desc="log-likelihood", unit=" samples", unit_scale=True,
        disable=not progress,
    ) as shown:  # fmt: skip
        for start in range(0, len(indices), IMAGES_AT_ONCE):
            size = len(indices[start : start + IMAGES_AT_ONCE])
            # The last batch is filled up with copies of its last image: one shape, one compile.
            chosen = np.minimum(np.arange(start, start + IMAGES_AT_ONCE), len(indices) - 1)
            batch = trainer.images(indices[chosen])
            key = jax.random.fold_in(key_for("log-likelihood", 0), start)
            sums = _over_samples(
                functools.partial(function, params, batch), key, samples,
                lambda done, size=size: shown.update(done * size),
            )  # fmt: skip
            found.append([x[:size] for x in sums])
    sums = Sums(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
    return _summarise(sums, samples, trainer)


def weight_sums(model: VAE, params: Params, images: Images, samples: int, key: PRNGKey) -> Sums:
    """The sums over `samples` draws of z ~ q(z|x)."""
    out = forward(model, params, images, key, samples=samples)
    ratio = log_prior_ratio(out.posterior, out.z)
    log_weights: Float[Array, "sample batch"] = out.log_likelihood + ratio
    return Sums(
        jax.nn.logsumexp(log_weights, axis=0),
        jax.nn.logsumexp(2 * log_weights, axis=0),
        log_weights.sum(axis=0),
    )


def _over_samples(
    function: Callable[..., Sums], key: PRNGKey, samples: int, on_done: Callable[[int], Any]
) -> Sums:
    """The sums over all samples, a part of them at a time, in float64."""
    nothing = np.full(IMAGES_AT_ONCE, -np.inf)
    total = Sums(nothing, nothing, np.zeros(IMAGES_AT_ONCE))
    for number, start in enumerate(range(0, samples, SAMPLES_AT_ONCE)):
        count = min(SAMPLES_AT_ONCE, samples - start)
        part = Sums(*map(np.asarray, function(count, jax.random.fold_in(key, number))))
        total = Sums(
            np.logaddexp(total.log_sum, part.log_sum),
            np.logaddexp(total.log_sum_of_squares, part.log_sum_of_squares),
            np.asarray(total.sum_of_logs + part.sum_of_logs),
        )
        on_done(count)
    return total


def _summarise(sums: Sums, samples: int, trainer: Trainer) -> HeldOut:
    estimates = np.asarray(sums.log_sum) - math.log(samples)
    count = len(estimates)
    mean = float(estimates.mean())
    error = float(estimates.std(ddof=1) / math.sqrt(count))
    shape = trainer.dataset.image_shape
    effective = np.exp(2 * sums.log_sum - sums.log_sum_of_squares)
    return HeldOut(
        log_likelihood=mean,
        standard_error=error,
        elbo=float(sums.sum_of_logs.mean() / samples),
        bits_per_dim=float(bits_per_dim(-mean, trainer.model.likelihood, shape)),
        effective_samples=float(np.median(effective)),
        least_effective=float(effective.min()),
        few=int((effective < FEW).sum()),
        images=count,
        samples=samples,
    )
