"""From a Config to the compiled pieces of its run."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bvae_jax.config import Config
from bvae_jax.data import get_dataset, make_source
from bvae_jax.data.base import Dataset, Source, Split, evaluation_batches, make_draw, split
from bvae_jax.elbo import make_log_likelihood
from bvae_jax.networks import make_network
from bvae_jax.objectives import get_objective
from bvae_jax.train import (
    Loop,
    init_state,
    make_eval_body,
    make_loop,
    make_optimizer,
    make_train_body,
    make_train_step,
)
from bvae_jax.types import Params, Posterior, TrainState
from bvae_jax.vae import VAE, encode

EVAL_BATCH = 256
ACTIVE_NATS = 0.01
"""A latent is active when its KL is above this."""


class Program(NamedTuple):
    """The pure parts of a run: data on the device, and functions that are compiled once.

    Attributes:
        init: () -> the state before the first step.
        train: `train(state, train_data, n)` does n steps; the state is donated.
        train_data: what the training loop reads.
        evaluate: state -> mean metrics over the evaluation images.
        eval_indices: [batches, batch], which images those are.
        encode: (parameters of the VAE, image indices) -> posteriors.
    """

    config: Config
    dataset: Dataset
    source: Source
    split: Split
    model: VAE
    init: Callable[[], TrainState]
    train: Loop
    train_data: Any
    evaluate: Callable[[TrainState], dict[str, Any]]
    eval_indices: np.ndarray
    encode: Callable[[Params, jax.Array], Posterior]


def build(config: Config, *, progress: bool = True) -> Program:
    """Look every name up and put the pieces together. Nothing is compiled yet.

    Args:
        progress: show a bar while the data set is rendered for the first time.

    Raises:
        UserError: an unknown name, or pieces that do not fit each other.
    """
    platform = jax.default_backend()
    dataset = get_dataset(config.dataset)
    model = VAE(*make_network(config.network, config.latents, dataset.image_shape))
    objective = get_objective(config.objective)
    log_likelihood = make_log_likelihood(config.likelihood, config.sigma)
    optimizer = make_optimizer()
    parts = split(dataset, config.holdout)
    source = make_source(dataset, config.image_source, platform, progress=progress)

    defaults = {"learning_rate": config.learning_rate, **objective.hyper}
    hyper = {name: getattr(config, name, default) for name, default in defaults.items()}
    hyper = {name: jnp.float32(value) for name, value in hyper.items()}

    @jax.jit
    def fresh(key, hyper):
        return init_state(
            key,
            hyper,
            model=model,
            objective=objective,
            optimizer=optimizer,
            image_shape=dataset.image_shape,
            latents=config.latents,
        )

    step = make_train_step(model, objective, log_likelihood, optimizer)
    draw = make_draw(source, config.batch_size)
    eval_indices = evaluation_batches(parts, config.eval_images, EVAL_BATCH)
    eval_loop = make_loop(make_eval_body(model, objective, log_likelihood, source.take), platform)

    def evaluate(state: TrainState) -> dict[str, Any]:
        data = (state, source.arrays, jnp.asarray(eval_indices), jax.random.key(0))
        _, metrics = eval_loop(jnp.int32(0), data, len(eval_indices))
        return averaged(metrics)

    @jax.jit
    def encode_images(params, arrays, indices):
        return encode(model, params, source.take(arrays, indices))

    return Program(
        config=config,
        dataset=dataset,
        source=source,
        split=parts,
        model=model,
        init=lambda: fresh(jax.random.key(config.seed), hyper),
        train=make_loop(make_train_body(step, draw), platform),
        train_data=(jnp.asarray(parts.train), source.arrays),
        evaluate=evaluate,
        eval_indices=eval_indices,
        encode=lambda params, indices: encode_images(params, source.arrays, indices),
    )


def averaged(metrics: dict[str, np.ndarray]) -> dict[str, Any]:
    """Means over the first axis as plain numbers and lists, and the count of active latents."""
    means = {name: np.mean(value, axis=0, dtype=np.float64) for name, value in metrics.items()}
    active = int(np.sum(means["kl_per_latent"] > ACTIVE_NATS))
    return {name: mean.tolist() for name, mean in means.items()} | {"active_latents": active}
