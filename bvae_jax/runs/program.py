"""From a Config to the compiled pieces of its run."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bvae_jax.config import IMAGES, Config
from bvae_jax.data import open_dataset
from bvae_jax.data.augment import parse_augment
from bvae_jax.data.base import Dataset
from bvae_jax.data.sampling import Pick, make_draw, make_pair_pick, make_pick
from bvae_jax.data.feed import Constant, Feed, Streamed
from bvae_jax.data.sources import Source, make_source
from bvae_jax.data.splits import Split, evaluation_batches
from bvae_jax.data.variants import split_of, training_pool
from bvae_jax.elbo import ACTIVE_NATS
from bvae_jax.errors import UserError
from bvae_jax.runs.hyper import graph, hyperparameters, resolved, schedules
from bvae_jax.types import (
    key_for,
)
from bvae_jax.likelihoods import Likelihood, make_likelihood
from bvae_jax.networks import make_network
from bvae_jax.objectives import OBJECTIVES, get_objective
from bvae_jax.objectives.base import Objective
from bvae_jax.step import (
    NUMBERS,
    make_optimizer,
)
from bvae_jax.step import (
    Body,
    Loop,
    Recipe,
    compiler_options,
    init_state,
    make_eval_body,
    make_loop,
    make_train_body,
    make_train_step,
    run_keys,
    step_keys,
)
from bvae_jax.types import Hyper, Images, ImageShape, Params, Posterior, PRNGKey, TrainState
from bvae_jax.vae import VAE, decode_raw, encode

EVAL_BATCH = 256
TRAIN_EVAL = "train_eval"
"""The split of training images that are evaluated."""
PRODUCTS = {"float32": "float32", "tensorfloat32": "tensorfloat32", "bfloat16": "default"}
"""Precision of matrix products, as JAX names it: of bfloat16 there is but one."""
NO_POSTERIOR = "an autoencoder's codes are points: it has no variances, no KL, no prior, no bound"

Evaluate = Callable[..., dict[str, dict[str, Any]]]


class Program(NamedTuple):
    """The pure parts of a run: data on the device, and functions that are compiled once.

    Attributes:
        fresh: (key, hyperparameters) -> the state before the first step.
        make_body: (`place` of `make_train_body`) -> one step, as the body of a loop.
        train: `train(state, data, n)` does n steps; the state is donated.
        train_data: what the training loop reads; None where that is streamed.
        stream: (states that take their steps together, `place` of `Streamed`) -> their feed.
        evaluate: (state, *splits) -> for each split, or those of `eval_data`, mean metrics.
        make_evaluate: (`eval_data`, `place` of `make_eval_body`) -> such a function.
        eval_data: what it reads, by split: images, indices and a key. The last is `eval_split`;
            where that is held out, as many training images are evaluated at the same parameters.
        eval_indices: [batches, batch], which images those of `eval_split` are.
        images: image indices -> images, each the same whenever it is looked at.
        encode: (parameters of the VAE, image indices) -> posteriors. The log-variances mean nothing
            where the run is not `variational`.
        points: name of the split whose images are encoded to be scored.
    """

    config: Config
    dataset: Dataset
    source: Source
    split: Split
    model: VAE
    fresh: Callable[[PRNGKey, Hyper], TrainState]
    make_body: Callable[..., Body]
    train: Loop
    train_data: Any
    stream: Callable[..., Feed] | None
    evaluate: Evaluate
    make_evaluate: Callable[..., Evaluate]
    eval_data: dict[str, Any]
    eval_indices: np.ndarray
    images: Callable[[np.ndarray], Images]
    encode: Callable[[Params, np.ndarray], Posterior]
    points: str = "all"

    def init(self) -> TrainState:
        """The state before the first step."""
        return first_state(self.config, self.fresh)

    @property
    def variational(self) -> bool:
        """Whether images have a posterior; see `NO_POSTERIOR`."""
        return get_objective(self.config.objective).noise

    def feed(self, states: Sequence[TrainState]) -> Feed:
        """What the training loop reads for states that take their steps together."""
        return self.stream(states) if self.stream else Constant(self.train_data)

    @property
    def data_bytes(self) -> int:
        """Of the data that stay on the device; an array that is read in two places counts once."""
        leaves = jax.tree.leaves((self.train_data, self.eval_data))
        return sum({id(leaf): leaf.nbytes for leaf in leaves}.values())

    def of(self, config: Config) -> "Program":
        """The same compiled functions for another run, which differs in what is traced only."""
        config = resolved(config)
        if graph(config) != graph(self.config):
            raise ValueError(f"{config} needs another program than {self.config}.")
        return self._replace(config=config)


def build(config: Config, *, like: Sequence[Program] = (), progress: bool = True) -> Program:
    """Look every name up and put the pieces together. Nothing is compiled yet.

    Args:
        like: programs whose data set is taken, with its copy on the device, if one has the same.
        progress: show a bar while the data set is rendered for the first time.

    Raises:
        UserError: an unknown name, or pieces that do not fit each other.
    """
    config = resolved(config)
    platform = jax.default_backend()
    same = [p for p in like if all(getattr(p.config, n) == getattr(config, n) for n in IMAGES)]
    dataset = same[0].dataset if same else open_dataset(config, progress=progress)
    parts = split_of(dataset, config)
    recipe = _recipe(config, dataset.image_shape)._replace(dataset_size=len(parts.train))
    eval_indices = evaluation_batches(parts, config.eval_images, EVAL_BATCH)
    _check_halves(config, recipe.objective, eval_indices)
    source = (
        same[0].source
        if same
        else make_source(dataset, config.image_source, platform, progress=progress)
    )
    pick, pool = _make_pick(config, recipe.objective, dataset, parts)
    draw = make_draw(source, pick, parse_augment(config.augment, dataset.image_shape))
    shared_key = None
    if config.batch_seed >= 0:
        shared_key = run_keys(key_for("run", config.batch_seed)).steps
    make_body = functools.partial(make_train_body, make_train_step(recipe), draw, shared_key)
    eval_data = _eval_data(config, parts, source, eval_indices)

    def make_evaluate(data: dict[str, Any], **place: Any) -> Evaluate:
        loop = make_loop(make_eval_body(recipe, source.look, **place), platform)

        def evaluate(state: TrainState, *splits: str) -> dict[str, dict[str, Any]]:
            found = {}
            for split in splits or data:
                batches, batch = data[split][1].shape
                _, fetch = loop(jnp.int32(0), (state, *data[split]), batches)
                found[split] = with_errors(fetch(), batches * batch)
            return found

        return evaluate

    @functools.partial(jax.jit, compiler_options=compiler_options(platform))
    def encode_images(params, arrays, indices):
        return encode(recipe.model, params, source.look(arrays, indices))

    look = jax.jit(source.look)
    return Program(
        config=config,
        dataset=dataset,
        source=source,
        split=parts,
        model=recipe.model,
        fresh=_make_fresh(config, recipe, dataset.image_shape),
        make_body=make_body,
        train=make_loop(make_body(), platform),
        train_data=(pool, source.arrays) if source.read is None else None,
        stream=_make_stream(source, pick, pool, shared_key) if source.read else None,
        evaluate=make_evaluate(eval_data),
        make_evaluate=make_evaluate,
        eval_data=eval_data,
        eval_indices=eval_indices,
        images=lambda indices: look(source.reach(indices), indices),
        encode=lambda params, indices: encode_images(params, source.reach(indices), indices),
    )


def build_model(config: Config, image_shape: ImageShape) -> tuple[VAE, TrainState]:
    """The model of a run whose images are not there, and shapes and types of the run's states."""
    config = resolved(config)
    recipe = _recipe(config, image_shape)
    fresh = _make_fresh(config, recipe, image_shape)
    return recipe.model, jax.eval_shape(lambda: first_state(config, fresh))


def first_state(config: Config, fresh: Callable[[PRNGKey, Hyper], TrainState]) -> TrainState:
    """The state of a run before its first step, by what `Program.fresh` is."""
    hyper = {name: jnp.float32(value) for name, value in hyperparameters(config).items()}
    return fresh(key_for("run", config.seed), hyper)


def _make_fresh(
    config: Config, recipe: Recipe, image_shape: ImageShape
) -> Callable[[PRNGKey, Hyper], TrainState]:
    options = {"recipe": recipe, "image_shape": image_shape, "latents": config.latents}
    return jax.jit(functools.partial(init_state, **options))


def _recipe(config: Config, image_shape: ImageShape) -> Recipe:
    """What a step does, but for the number of images."""
    likelihood = make_likelihood(config.likelihood, config.sigma)
    network = make_network(
        config.network,
        config.latents,
        image_shape,
        likelihood.parameters(image_shape[-1]),
        jnp.bfloat16 if config.precision == "bfloat16" else jnp.float32,
    )
    return Recipe(
        model=VAE(*network, likelihood, PRODUCTS[config.precision]),
        objective=_objective(config),
        optimizer=_optimizer(config),
        schedules=schedules(config),
        samples=config.samples,
        ema=config.ema,
    )


def _objective(config: Config) -> Objective:
    """The objective, with the bound that is wanted."""
    objective = get_objective(config.objective)
    if config.samples > 1 and not objective.noise:
        raise UserError(
            f"--samples: got {config.samples}, wanted 1: {config.objective} draws no z."
        )
    if config.bound == "elbo":
        return objective
    if objective.iwae is None:
        known = ", ".join(name for name, other in OBJECTIVES.items() if other.iwae)
        raise UserError(
            f"--bound iwae: objective {config.objective} has none; these have: {known}."
        )
    return objective._replace(loss=objective.iwae)


def _optimizer(config: Config) -> optax.GradientTransformation:
    numbers = {name: getattr(config, name) for name in NUMBERS}
    return make_optimizer(config.optimizer, numbers, config.clip_norm)


def _check_halves(config: Config, objective: Objective, eval_indices: np.ndarray) -> None:
    if not objective.halves:
        return
    if config.batch_size % 2:
        raise UserError(
            f"--batch-size: got {config.batch_size}, wanted an even number: {config.objective} "
            "divides a batch into halves."
        )
    if eval_indices.shape[1] < 2:
        raise UserError(f"--eval-images: got 1, wanted at least 2 for {config.objective}.")


def _make_pick(
    config: Config, objective: Objective, dataset: Dataset, parts: Split
) -> tuple[Pick, Any]:
    """How the images of a training batch are chosen, and what they are chosen from."""
    pool = jax.tree.map(jnp.asarray, training_pool(dataset, parts.train, config.correlate))
    if not objective.pairs:
        return make_pick(pool, config.batch_size), pool
    pick = make_pair_pick(dataset, pool, config.batch_size, config.pair_changes)
    return pick, (pool, jnp.zeros(dataset.size, bool).at[parts.train].set(True))


def eval_split(config: Config) -> str:
    """What evaluation uses: images that training never draws, or training images if all are."""
    return "holdout" if config.holdout else TRAIN_EVAL


def _eval_data(
    config: Config, parts: Split, source: Source, eval_indices: np.ndarray
) -> dict[str, Any]:
    """What `Program.eval_data` is."""
    indices = {eval_split(config): eval_indices}
    if TRAIN_EVAL not in indices:
        trained = parts._replace(holdout=parts.holdout[:0])
        # Held-out images come last: theirs are the numbers of the run.
        chosen = evaluation_batches(trained, eval_indices.size, eval_indices.shape[1])
        indices = {TRAIN_EVAL: chosen} | indices
    return {
        split: (
            jax.tree.map(jnp.asarray, source.reach(some)),
            jnp.asarray(some),
            key_for("evaluation", number),
        )
        for number, (split, some) in enumerate(indices.items())
    }


def _make_stream(
    source: Source, pick: Pick, pool: Any, shared_key: PRNGKey | None
) -> Callable[..., Feed]:
    """What `Program.stream` is."""

    def key_of(key: PRNGKey, step: jax.Array) -> PRNGKey:
        return step_keys(key, step).batch

    def stream(states: Sequence[TrainState], **place: Any) -> Feed:
        keys = [state.key for state in states] if shared_key is None else [shared_key]
        start = int(states[0].step)
        return Streamed(source, pool, pick, key_of, keys, start, **place)

    return stream


def calibrated(program: Program, params: Params) -> Likelihood:
    """The likelihood; one that estimates something from each batch has it fixed, as it is for the
    reconstructions of the first batch of evaluation images."""
    model = program.model
    if model.likelihood.calibrate is None:
        return model.likelihood
    images = program.images(program.eval_indices[0])
    mean = encode(model, params, images).mean
    return model.likelihood.calibrate(decode_raw(model, params, mean), images)


def averaged(metrics: dict[str, np.ndarray]) -> dict[str, Any]:
    """Means over the first axis as plain numbers and lists, and how many latents are active."""
    means = {name: np.mean(value, axis=0, dtype=np.float64) for name, value in metrics.items()}
    numbers: dict[str, Any] = {name: mean.tolist() for name, mean in means.items()}
    if "kl_per_latent" in means:
        numbers["active_latents"] = int(np.sum(means["kl_per_latent"] > ACTIVE_NATS))
    return numbers


def with_errors(metrics: dict[str, np.ndarray], images: int) -> dict[str, Any]:
    """`averaged`, and the standard errors of nll and KL over images; of one there are none.

    Args:
        metrics: of batches of equal size, with the variances in each.
        images: in all batches.
    """
    found = averaged(metrics)
    for name in ("nll", "kl"):
        if name not in metrics:
            continue
        variance = found.pop(f"{name}_variance") + np.var(metrics[name], dtype=np.float64)
        if images > 1:
            found[f"{name}_error"] = math.sqrt(variance / (images - 1))
    return found
