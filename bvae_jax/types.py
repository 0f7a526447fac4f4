"""Aliases and containers of the arrays that the package passes around, and its random keys."""

import zlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

Images = Float[Array, "batch height width channels"]
"""Pixels in [0, 1]."""
Decoded = Float[Array, "batch height width parameter"]
"""What a decoder returns: for each pixel the numbers that its likelihood wants."""
Latents = Float[Array, "batch latent"]
Samples = Float[Array, "sample batch latent"]
CodeMatrix = Float[Array | np.ndarray, "n latent"]
"""A representation: posterior means, or any numbers from any framework."""
Score = dict[str, Any]
"""What a metric found: numbers, and arrays by factor, by latent, or [latent, factor]."""
Factors = Int[Array | np.ndarray, "n factor"]
"""Class indices of the ground-truth factors."""
Indices = Int[Array, " batch"]
"""Positions of images in a data set."""
PerImage = Float[Array, " batch"]
"""One number for each image, in nats unless said otherwise."""
Scalar = Float[Array, ""]
PRNGKey = Key[Array, ""]
PRNGKeys = Key[Array, " batch"]
Params = PyTree
Hyper = dict[str, Scalar]
"""Traced scalars: everything that a sweep may vary without another compile."""
Metrics = dict[str, Array]
"""Named scalars, and perhaps `kl_per_latent` [latent]."""
ImageShape = tuple[int, int, int]
"""Height, width, channels."""


class Posterior(NamedTuple):
    """q(z|x) = N(mean, diag(exp(logvar)))."""

    mean: Latents
    logvar: Latents


class Snapped(NamedTuple):
    """Codes, and the values of a codebook that they were snapped to.

    Attributes:
        codes: of the encoder.
        values: nearest to them; their gradient goes to the codebook, not to the encoder.
    """

    codes: Latents
    values: Latents


class VAEOutput(NamedTuple):
    """One pass through the model, with `sample` draws of z for each image.

    Attributes:
        posterior: q(z|x), from which z was drawn.
        z: [sample, batch, latent].
        log_likelihood: [sample, batch] log p(x|z), nats.
        images: x.
        reconstruction: the mean image of p(x|z), of every sample; what no loss reads is not
            computed in the end.
        snapped: what became of the codes, where there is a codebook.
    """

    posterior: Posterior
    z: Samples
    log_likelihood: Float[Array, "sample batch"]
    images: Images
    reconstruction: Float[Array, "sample batch height width channels"]
    snapped: Snapped | None = None


class TrainState(NamedTuple):
    """Everything that changes while training, arrays only.

    `params` and `opt_state` are {"vae": ..., "aux": ...}. `key` is constant: step t uses
    `fold_in(key, t)`, so a resumed run draws what the uninterrupted one would have. `memory`
    is what an objective keeps from step to step, `ema` the moving average of the VAE's parameters;
    either may be empty.
    """

    step: Int[Array, ""]
    params: Params
    opt_state: dict[str, optax.OptState]
    key: PRNGKey
    hyper: Hyper
    memory: PyTree
    ema: Params


StepFn = Callable[[TrainState, Images], tuple[TrainState, Metrics]]
"""The body type of `jax.lax.scan`."""


Purpose = Literal[
    "run", "evaluation", "decomposition", "log-likelihood", "samples", "augmentation", "scores",
    "correlated",
]  # fmt: skip


def key_for(purpose: Purpose, seed: int) -> PRNGKey:
    """The key of a purpose.

    `jax.random.key(0)` itself is left to the images as evaluation sees them (`Source.look`): they
    are part of what a data set is.
    """
    return jax.random.fold_in(jax.random.key(seed), 2**31 | zlib.crc32(purpose.encode()))
