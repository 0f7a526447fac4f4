"""From a Config to the compiled step, and the states that it trains."""

import copy
import functools
import json
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bvae_jax.config import IMAGES, Config
from bvae_jax.conv import without_kernels
from bvae_jax.data import open_dataset
from bvae_jax.data.augment import parse_augment
from bvae_jax.data.base import Dataset
from bvae_jax.data.sampling import (
    Constant,
    Feed,
    Pick,
    Streamed,
    make_draw,
    make_pair_pick,
    make_pick,
)
from bvae_jax.data.sources import Source, make_source
from bvae_jax.data.variants import Split, evaluation_batches, split_of, training_pool
from bvae_jax.elbo import is_active
from bvae_jax.errors import UserError
from bvae_jax.likelihoods import Likelihood, make_likelihood
from bvae_jax.networks import make_network
from bvae_jax.objectives import OBJECTIVES, get_objective
from bvae_jax.objectives.base import Objective
from bvae_jax.runs.hyper import graph, hyperparameters, many_rates, resolved, schedules
from bvae_jax.runs.mesh import DATA, make_mesh, member, on_each, over_images, over_members, stack
from bvae_jax.step import (
    NUMBERS,
    Loop,
    Recipe,
    compiler_options,
    init_state,
    make_eval_body,
    make_loop,
    make_optimizer,
    make_train_body,
    make_train_step,
    run_keys,
    step_keys,
    weights,
)
from bvae_jax.types import (
    Images,
    ImageShape,
    Params,
    Posterior,
    PRNGKey,
    TrainState,
    key_for,
)
from bvae_jax.vae import VAE, decode_raw, encode

EVAL_BATCH = 256
TRAIN_EVAL = "train_eval"
"""The split of training images that are evaluated."""
PRODUCTS = {"float32": "float32", "tensorfloat32": "tensorfloat32", "bfloat16": "default"}
"""Precision of matrix products, as JAX names it: of bfloat16 there is but one."""
NO_POSTERIOR = "an autoencoder's codes are points: it has no variances, no KL, no prior, no bound"

Means = list[dict[str, Any]]
"""Of each member: its metrics, averaged over steps."""


class Trainer:
    """Trains runs that share a compiled step: they differ in the seed and in what is traced.

    Many are trained at the same time, their states stacked on a mesh of devices; a run
    by itself is a sweep of one. Nothing is compiled before it is used.

    Args:
        config: of one of the runs.
        like: trainers whose data set is taken, with its copy on the device, where one has the same.
        progress: show a bar while the data set is rendered for the first time.

    Attributes:
        config: of one of the runs, with the objective's own values; the others have another seed,
            pace, and other values of what is traced.
        dataset: the images.
        source: how they come to the device.
        split: which of them are trained on, held out, and so on.
        model: encoder, decoder and likelihood.
        eval_data: what evaluation reads, by split: images, indices and a key. The last is
            `eval_split`; where that is held out, as many training images are evaluated as well.
        eval_indices: [batches, batch], which images those of `eval_split` are.
        members: trained at the same time.
        mesh: the devices; see `spread`.

    Raises:
        UserError: an unknown name, or pieces that do not fit each other.
    """

    def __init__(self, config: Config, *, like: Sequence["Trainer"] = (), progress: bool = True):
        self.config = config = resolved(config)
        self._platform = jax.default_backend()
        same = [other for other in like if images_of(other.config) == images_of(config)]
        self.dataset: Dataset = same[0].dataset if same else open_dataset(config, progress=progress)
        parts, shape = pieces(config, self.dataset), self.dataset.image_shape
        self.split, self.eval_indices, recipe = parts.split, parts.eval_indices, parts.recipe
        self._pick, self._pool = parts.pick, parts.pool
        self._recipe, self._used = recipe, recipe
        if recipe.model.rates:  # trained with gates, used without: see `weights_of`
            plain, objective = recipe.model.clone(rates=None), get_objective(config.objective)
            self._used = recipe._replace(model=plain, objective=objective)
        self.model = self._used.model
        self.source: Source = (
            same[0].source
            if same
            else make_source(self.dataset, config.image_source, self._platform, progress=progress)
        )
        self._draw = make_draw(self.source, self._pick, parts.augment)
        self._shared_key: PRNGKey | None = None
        if config.batch_seed >= 0:
            self._shared_key = run_keys(key_for("run", config.batch_seed)).steps
        self.eval_data = _eval_data(config, self.split, self.source, self.eval_indices)
        self._look = jax.jit(self.source.look)
        self._encode = jax.jit(
            functools.partial(_encode, self.model, self.source.look),
            compiler_options=compiler_options(self._platform),
        )
        self._fresh = _make_fresh(config, recipe, shape)
        self._place(1, jax.local_devices()[:1])

    def spread(self, members: int, devices: Sequence[Any]) -> "Trainer":
        """The same for other numbers of members and devices.

        As many devices as possible have members of their own; the others divide the batches.

        Args:
            members: trained at the same time.
            devices: of this process.

        Raises:
            UserError: batches of a single run do not divide equally over the devices.
        """
        size = self.config.batch_size
        if members == 1 and size % len(devices):
            raise UserError(
                f"--batch-size: got {size}, wanted a multiple of {len(devices)}: each batch is "
                "divided equally over the devices (--devices)."
            )
        other = copy.copy(self)
        other._place(members, devices)
        return other

    def _place(self, members: int, devices: Sequence[Any]) -> None:
        self.members, self.mesh = members, make_mesh(members, devices)
        self._train: Loop = make_loop(self.make_body(), self._platform)
        # A single run is evaluated on all of its devices, the members of a sweep one by one.
        divided = members == 1 and self.mesh.shape[DATA] > 1
        self._eval_mesh = self.mesh if divided else make_mesh(1, devices[:1])
        sizes = [indices.shape[1] for _, indices, _ in self.eval_data.values()]
        even = not any(size % self._eval_mesh.size for size in sizes)
        place = {"place": over_images(self._eval_mesh)} if even else {}
        body = make_eval_body(self._used, self.source.look, **place)
        body = without_kernels(body) if divided else body
        self._evaluate: Loop = make_loop(body, self._platform)
        train_data = self._pool if self.source.read else (self._pool, self.source.arrays)
        if divided:  # what both read is copied once
            both = on_each(self.mesh, (train_data, self.eval_data))
            self.train_data, self._placed_eval_data = both
        else:
            self.train_data = on_each(self.mesh, train_data)
            self._placed_eval_data = self.eval_data

    def make_body(self) -> Callable[..., Any]:
        """(states, data) -> (states, metrics): one step of all members."""
        place = over_images(self.mesh)
        body = make_train_body(make_train_step(self._recipe), self._draw, self._shared_key, place)
        body = without_kernels(body) if self.mesh.shape[DATA] > 1 else body
        return over_members(body, self.mesh, self.members)

    @property
    def variational(self) -> bool:
        """Whether images have a posterior; see `NO_POSTERIOR`."""
        return self._recipe.objective.noise

    @property
    def data_bytes(self) -> int:
        """Of the data that stay on a device; an array that is read in two places counts once."""
        arrays = () if self.source.read else self.source.arrays
        leaves = jax.tree.leaves((self._pool, arrays, self.eval_data))
        return sum({id(leaf): leaf.nbytes for leaf in leaves}.values())

    def init(self, config: Config | None = None) -> TrainState:
        """The state of a run before its first step.

        Args:
            config: of the run; `self.config` if None.
        """
        return first_state(self.config if config is None else resolved(config), self._fresh)

    def stack(self, states: Sequence[TrainState]) -> TrainState:
        """States of all members as one, where they are trained."""
        return stack(states, self.mesh)

    def member(self, states: TrainState, i: int) -> TrainState:
        """The state of the i-th member, on one device."""
        return member(states, i)

    def feed(self, states: Sequence[TrainState]) -> Feed:
        """What the steps read that these states, at the same step, take from now on."""
        if self.source.read is None:
            return Constant(self.train_data)
        shared = self._shared_key
        keys = [state.key for state in states] if shared is None else [shared]
        place = functools.partial(on_each, self.mesh)
        start = int(states[0].step)
        return Streamed(self.source, self._pool, self._pick, _batch_key, keys, start, place)

    def train(
        self, states: TrainState, feed: Feed, steps: int
    ) -> tuple[TrainState, Callable[[], Means]]:
        """Start to take steps; `states` are donated.

        Returns:
            The states afterwards, and what waits for the metrics.
        """
        fetches = []
        for some, data in feed.parts(steps):
            states, fetch = self._train(states, data, some)
            fetches.append(fetch)

        def means() -> Means:
            parts = [fetch() for fetch in fetches]
            metrics = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            if self.members == 1:
                return [averaged(metrics)]
            return [
                averaged({name: values[:, i] for name, values in metrics.items()})
                for i in range(self.members)
            ]

        return states, means

    def evaluate(self, state: TrainState, *splits: str) -> dict[str, dict[str, Any]]:
        """Mean metrics of a run on these splits, or all of `eval_data`; at its own β of many."""
        return {
            split: self._measured(state, self._placed_eval_data[split])
            for split in splits or self.eval_data
        }

    def measure(self, state: TrainState, indices: np.ndarray) -> dict[str, Any]:
        """What `evaluate` finds of a split, of any images: [batches, batch] of their indices."""
        reached = jax.tree.map(jnp.asarray, self.source.reach(indices))
        data = (reached, jnp.asarray(indices), key_for("evaluation", 0))
        return self._measured(state, on_each(self._eval_mesh, data))

    def _measured(self, state: TrainState, data: Any) -> dict[str, Any]:
        batches, batch = data[1].shape
        used = {"params": state.params | {"vae": self.weights(state)}, "ema": {}}
        state = on_each(self._eval_mesh, state._replace(**used))
        _, fetch = self._evaluate(jnp.int32(0), (state, *data), batches)
        return with_errors(fetch(), batches * batch)

    def weights(self, state: TrainState) -> Params:
        """See `weights_of`."""
        return weights_of(self.config, state)

    def images(self, indices: np.ndarray) -> Images:
        """Images by index, each the same whenever it is looked at.

        Raises:
            UserError: there is no such image.
        """
        self.dataset.check_indices(np.asarray(indices))
        return self._look(self.source.reach(indices), indices)

    def encode(self, params: Params, indices: np.ndarray) -> Posterior:
        """Posteriors of images by index; the log-variances mean nothing where there are none."""
        return self._encode(params, self.source.reach(indices), indices)


class Trainers:
    """Trainers of many runs, one for all that can share it: built when they are wanted first.

    Args:
        keep: the latest ones; each has what was compiled for it, and its data on the device, which
            those of the same images share.
        progress: show a bar if a data set has to be rendered first.
    """

    def __init__(self, *, keep: int = 4, progress: bool = False):
        self._known: dict[str, Trainer] = {}
        self._keep, self._progress = keep, progress

    def of(self, config: Config) -> Trainer:
        """The trainer of a run."""
        config = resolved(config)
        key = json.dumps(graph(config), sort_keys=True)
        found = self._known.pop(key, None)
        if found is None:
            found = Trainer(config, like=tuple(self._known.values()), progress=self._progress)
        while len(self._known) >= self._keep:
            self._known.pop(next(iter(self._known)))
        self._known[key] = found  # the last that was wanted is the last in order
        return found


def images_of(config: Config) -> tuple[Any, ...]:
    """What the images of a run depend on."""
    return tuple(getattr(config, name) for name in IMAGES)


DRAWN_BY = {
    "jax_enable_x64": False,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
}
"""Settings of JAX that say which random numbers are drawn, and what a checkpoint holds."""


def check_jax() -> None:
    """Refuse settings by which a run would be another one, or its checkpoints look damaged.

    Raises:
        UserError: one of `DRAWN_BY` is not what it is by default.
    """
    for name, wanted in DRAWN_BY.items():
        found = getattr(jax.config, name, wanted)
        if found != wanted:
            raise UserError(
                f"JAX has {name}={found}: by that other numbers are drawn, and runs can neither be "
                f"repeated nor read. Wanted {wanted}: jax.config.update({name!r}, {wanted!r}), "
                f"or unset {name.upper()} in the environment."
            )


def build_model(config: Config, image_shape: ImageShape) -> tuple[VAE, TrainState]:
    """The model of a run whose images are not there, and shapes and types of the run's states."""
    config = resolved(config)
    recipe = make_recipe(config, image_shape)
    fresh = _make_fresh(config, recipe, image_shape)
    states = jax.eval_shape(lambda: first_state(config, fresh))
    return recipe.model.clone(rates=None), states


def weights_of(config: Config, state: TrainState) -> Params:
    """The VAE's parameters for `Trainer.model`: of a run for many β, those of its own β."""
    rates = many_rates(config)
    return rates.at(weights(state), state.hyper["beta"]) if rates else weights(state)


def first_state(config: Config, fresh: Callable[..., TrainState]) -> TrainState:
    """The state of a run before its first step.

    Args:
        config: resolved.
        fresh: (key, hyperparameters) -> a state.
    """
    hyper = {name: jnp.float32(value) for name, value in hyperparameters(config).items()}
    return fresh(key_for("run", config.seed), hyper)


def _make_fresh(
    config: Config, recipe: Recipe, image_shape: ImageShape
) -> Callable[..., TrainState]:
    options = {"recipe": recipe, "image_shape": image_shape, "latents": config.latents}
    return jax.jit(functools.partial(init_state, **options))


class Pieces(NamedTuple):
    """What a trainer is made of, but for the way in which images come to the device.

    Attributes:
        recipe: what a step does.
        eval_indices: as of `Trainer`.
        augment: what is done to the images of a batch; None for nothing.
        pick: how the images of a batch are chosen.
        pool: what from.
    """

    split: Split
    recipe: Recipe
    eval_indices: np.ndarray
    augment: Callable | None
    pick: Pick
    pool: Any


def pieces(config: Config, dataset: Dataset) -> Pieces:
    """Those of a run on these images.

    Raises:
        UserError: an unknown name, or pieces that do not fit each other.
    """
    config, shape = resolved(config), dataset.image_shape
    if config.eval_metrics and not dataset.factor_names:
        raise UserError(f"--eval-metrics: {dataset.name} has no factors to score by: leave it out.")
    split = split_of(dataset, config)
    recipe = make_recipe(config, shape)._replace(dataset_size=len(split.train))
    indices = evaluation_batches(split, config.eval_images, EVAL_BATCH)
    _check_halves(config, recipe.objective, indices)
    augment = parse_augment(config.augment, shape)
    pick, pool = _make_pick(config, recipe.objective, dataset, split)
    return Pieces(split, recipe, indices, augment, pick, pool)


def make_recipe(config: Config, image_shape: ImageShape) -> Recipe:
    """What a step does, but for the number of images."""
    likelihood = make_likelihood(config.likelihood, config.sigma)
    network = make_network(
        config.network,
        config.latents,
        image_shape,
        likelihood.parameters(image_shape[-1]),
        jnp.bfloat16 if config.precision == "bfloat16" else jnp.float32,
    )
    rates = many_rates(config)
    if rates and not all(getattr(part, "gates", False) for part in network):
        raise UserError(
            f"--multi-rate: network {config.network} has layers without gates; wanted conv, "
            "locatello, burgess, conv128, mlp or small."
        )
    objective = _objective(config)
    codebook = (config.latents, config.levels) if objective.codebook else None
    numbers = {name: getattr(config, name) for name in NUMBERS}
    return Recipe(
        model=VAE(*network, likelihood, PRODUCTS[config.precision], rates, codebook),
        objective=objective,
        optimizer=make_optimizer(config.optimizer, numbers, config.clip_norm),
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
    if config.multi_rate and objective.multi_rate:
        return objective._replace(loss=objective.multi_rate)
    if config.bound == "elbo":
        return objective
    if objective.iwae is None:
        known = ", ".join(name for name, other in OBJECTIVES.items() if other.iwae)
        raise UserError(
            f"--bound iwae: objective {config.objective} has none; these have: {known}."
        )
    return objective._replace(loss=objective.iwae)


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
    config: Config, objective: Objective, dataset: Dataset, split: Split
) -> tuple[Pick, Any]:
    """How the images of a training batch are chosen, and what they are chosen from."""
    pool = jax.tree.map(jnp.asarray, training_pool(dataset, split.train, config.correlate))
    if not objective.pairs:
        return make_pick(pool, config.batch_size), pool
    pick = make_pair_pick(dataset, pool, config.batch_size, config.pair_changes)
    return pick, (pool, jnp.zeros(dataset.size, bool).at[split.train].set(True))


def eval_split(config: Config) -> str:
    """What evaluation uses: images that training never draws, or training images if all are."""
    return "holdout" if config.holdout else TRAIN_EVAL


def _eval_data(
    config: Config, split: Split, source: Source, eval_indices: np.ndarray
) -> dict[str, Any]:
    """What `Trainer.eval_data` is."""
    indices = {eval_split(config): eval_indices}
    if TRAIN_EVAL not in indices:
        trained = split._replace(holdout=split.holdout[:0])
        # Held-out images come last: theirs are the numbers of the run.
        chosen = evaluation_batches(trained, eval_indices.size, eval_indices.shape[1])
        indices = {TRAIN_EVAL: chosen} | indices
    return {
        name: (
            jax.tree.map(jnp.asarray, source.reach(some)),
            jnp.asarray(some),
            key_for("evaluation", number),
        )
        for number, (name, some) in enumerate(indices.items())
    }


def _batch_key(key: PRNGKey, step: jax.Array) -> PRNGKey:
    return step_keys(key, step).batch


def _encode(
    model: VAE, look: Callable, params: Params, arrays: Any, indices: np.ndarray | jax.Array
) -> Posterior:
    return encode(model, params, look(arrays, indices))


def calibrated(trainer: Trainer, params: Params) -> Likelihood:
    """The likelihood; one that estimates something from each batch has it fixed, as it is for the
    reconstructions of the first batch of evaluation images."""
    model = trainer.model
    if model.likelihood.calibrate is None:
        return model.likelihood
    images = trainer.images(trainer.eval_indices[0])
    mean = encode(model, params, images).mean
    return model.likelihood.calibrate(decode_raw(model, params, mean), images)


def averaged(metrics: dict[str, np.ndarray]) -> dict[str, Any]:
    """Means over the first axis as plain numbers and lists."""
    return {
        name: np.mean(value, axis=0, dtype=np.float64).tolist() for name, value in metrics.items()
    }


def with_errors(metrics: dict[str, np.ndarray], images: int) -> dict[str, Any]:
    """`averaged`, and what there is of all images only.

    That are the standard errors of nll, KL and squared error, of one image none; the variance of
    each latent's mean, and how many latents are active.

    Args:
        metrics: of batches of equal size, with the variances in each.
        images: in all batches.
    """
    found = averaged(metrics)
    for name in ("nll", "kl", "mse"):
        if name not in metrics:
            continue
        variance = found.pop(f"{name}_variance") + np.var(metrics[name], dtype=np.float64)
        if images > 1:
            found[f"{name}_error"] = math.sqrt(variance / (images - 1))
    if found.pop("mean_per_latent", None) is not None:
        within = np.array(found["variance_per_latent"])
        variance = within + np.var(metrics["mean_per_latent"], axis=0, dtype=np.float64)
        found["variance_per_latent"] = variance.tolist()
        found["active_latents"] = int(is_active(variance).sum())
    return found
