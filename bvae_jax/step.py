"""One training step, for a single run, a scan, a vmapped sweep or several devices."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, PyTree

from bvae_jax.elbo import elbo, gaussian_kl, importance_weighted, information
from bvae_jax.errors import UserError, unknown
from bvae_jax.likelihoods import bits_per_dim
from bvae_jax.objectives.base import NOTHING, Inputs, Loss, LossFn, Objective
from bvae_jax.objectives.schedules import Schedule, multiple
from bvae_jax.types import (
    Hyper,
    Images,
    ImageShape,
    Metrics,
    Params,
    PRNGKey,
    Scalar,
    StepFn,
    TrainState,
)
from bvae_jax.vae import CODEBOOK, VAE, forward, init_params

Body = Callable[[PyTree, PyTree], tuple[PyTree, Metrics]]
"""(carry, data) -> (carry, metrics): one turn of a loop. `data` does not change."""
Fetch = Callable[[], dict[str, np.ndarray]]
"""Waits for the metrics of n turns, stacked."""
Loop = Callable[[PyTree, PyTree, int], tuple[PyTree, Fetch]]
"""(carry, data, n) -> (carry, its metrics); both are perhaps still being computed."""


class RunKeys(NamedTuple):
    """The randomness of a run: its first parameters, and its steps."""

    params: PRNGKey
    aux: PRNGKey
    steps: PRNGKey


def run_keys(key: PRNGKey) -> RunKeys:
    """Of the run whose key this is."""
    return RunKeys(*jax.random.split(key, 3))


class StepKeys(NamedTuple):
    """The randomness of one step."""

    batch: PRNGKey
    noise: PRNGKey
    objective: PRNGKey


def step_keys(key: PRNGKey, step: Int[Array, ""]) -> StepKeys:
    """A pure function of `RunKeys.steps` and the step."""
    return StepKeys(*jax.random.split(jax.random.fold_in(key, step), 3))


class Recipe(NamedTuple):
    """What a step does with its arrays.

    Attributes:
        optimizer: of the VAE's parameters, without the learning rate.
        schedules: name of a hyperparameter -> how it gets to its value.
        samples: draws of z for each image.
        dataset_size: number of images that are trained on.
        ema: decay of the moving average of the VAE's parameters; 0 for none.
    """

    model: VAE
    objective: Objective
    optimizer: optax.GradientTransformation
    schedules: Mapping[str, Schedule] = NOTHING
    samples: int = 1
    dataset_size: int = 1
    ema: float = 0.0


AUX_OPTIMIZER = optax.scale_by_adam(b1=0.5, b2=0.9)
"""Of an objective's own parameters: Adam as for the discriminator of Kim & Mnih, 2018."""
OURS = {
    *("loss", "nll", "kl", "elbo", "iwae", "bits_per_dim", "kl_per_latent", "information", "mse"),
    *("mean_per_latent", "variance_per_latent", "nll_variance", "kl_variance", "mse_variance"),
    *("grad_norm", "aux_grad_norm", "learning_rate"),
}
"""What is reported of every objective, by the step or by an evaluation: no objective reports it."""


def init_state(
    key: PRNGKey, hyper: Hyper, *, recipe: Recipe, image_shape: ImageShape, latents: int
) -> TrainState:
    """The state before the first step. Jittable, and vmappable over `key` and `hyper`.

    Args:
        key: the run's key.
        hyper: `learning_rate`, what the objective reads and the numbers of schedules, float32.
    """
    keys = run_keys(key)
    objective = recipe.objective
    params = {
        "vae": init_params(recipe.model, image_shape, keys.params, latents),
        "aux": objective.init_aux(keys.aux, latents),
    }
    opt_state = {
        "vae": recipe.optimizer.init(params["vae"]),
        "aux": AUX_OPTIMIZER.init(params["aux"]),
    }
    memory = {name: jnp.float32(value) for name, value in objective.memory.items()}
    # A copy: the state's buffers are donated, and one buffer cannot be given away twice.
    ema = jax.tree.map(jnp.copy, params["vae"]) if recipe.ema else {}
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state, keys.steps, hyper, memory, ema)


def weights(state: TrainState) -> Params:
    """The VAE's parameters to use: their moving average where there is one; gates and all."""
    return state.ema or state.params["vae"]


def share_of_newest(decay: float, step: Int[Array, ""]) -> Scalar:
    """(1 - d) / (1 - d^t): what the parameters after step t count in their moving average.

    With it the average is the mean of those after steps 1 to t, weighted by d^(t - i): what there
    was before the first step counts nothing. Kingma & Ba, 2015, section 3.
    """
    return jnp.minimum(1.0, (1 - decay) / -jnp.expm1(step * math.log(decay)))


def scheduled(hyper: Hyper, step: Int[Array, ""], schedules: Mapping[str, Schedule]) -> Hyper:
    """The hyperparameters at a step."""
    now = dict(hyper)
    for name, schedule in schedules.items():
        numbers = {number: hyper[f"{name}_schedule.{number}"] for number in schedule.numbers}
        now[name] = hyper[name] * multiple(schedule, step, numbers)
    return now


def make_loss(recipe: Recipe, *, training: bool) -> Callable:
    """(params, state, images, noise key, objective key) -> (loss, (metrics, memory)).

    `params` is {"vae": ..., "aux": ...}; all else comes from the state. The metrics, in nats per
    image, are those that every objective reports, and its own. `elbo` never contains beta. Where
    no z is drawn there is no posterior: no KL, and no bound.

    Args:
        training: let the objective change the batch's posteriors, if it wants to; else report the
            mean squared error of reconstructions and what the codes know of the images, too, and
            variances over the batch.
    """
    objective = recipe.objective
    adapt = objective.adapt if training else None

    def loss_fn(
        params: Params, state: TrainState, images: Images, noise_key: PRNGKey, loss_key: PRNGKey
    ) -> tuple[Scalar, tuple[Metrics, PyTree]]:
        rates = recipe.model.rates
        beta = rates.draw(loss_key, len(images)) if rates else None
        out = forward(
            recipe.model, params["vae"], images, noise_key,
            samples=recipe.samples, adapt=adapt, noise=objective.noise, beta=beta,
        )  # fmt: skip
        inputs = Inputs(
            out=out,
            kl=gaussian_kl(out.posterior),
            hyper=scheduled(state.hyper, state.step, recipe.schedules),
            aux=params["aux"],
            memory=state.memory,
            key=loss_key,
            dataset_size=recipe.dataset_size,
            beta=beta,
        )
        loss = _checked_loss(objective.loss, inputs)
        reported: Metrics = {"loss": loss.value, "nll": inputs.nll}
        if objective.noise:
            bound = elbo(out).mean()
            reported |= {
                "kl": inputs.mean_kl,
                "elbo": bound,
                "bits_per_dim": jnp.asarray(
                    bits_per_dim(-bound, recipe.model.likelihood, _image_shape(images))
                ),
                "kl_per_latent": inputs.kl.mean(axis=0),
            }
        if not training and objective.noise:
            q = out.posterior
            reported |= {
                "information": information(q, out.z[0]),
                "mean_per_latent": q.mean.mean(axis=0),
                "variance_per_latent": q.mean.var(axis=0),
            }
        if not training:
            error = jnp.square(images[None] - out.reconstruction).mean(axis=(0, 2, 3, 4))
            reported["mse"] = error.mean()
            of_image = {"nll": out.log_likelihood.mean(axis=0), "kl": inputs.kl.sum(axis=-1)}
            of_image["mse"] = error
            reported |= {f"{n}_variance": x.var() for n, x in of_image.items() if n in reported}
        if len(out.z) > 1:
            reported["iwae"] = importance_weighted(out).mean()
        memory = state.memory if loss.memory is None else loss.memory
        return loss.value, (loss.metrics | reported, memory)

    return loss_fn


def _checked_loss(loss: LossFn, inputs: Inputs) -> Loss:
    """What an objective makes of a batch.

    Raises:
        UserError: it asks for a hyperparameter that it does not have, or returns something else.
    """
    try:
        found = loss(inputs)
    except KeyError as error:
        raise UserError(
            f"The objective's loss asks for {error}, which is not there. In hyper are "
            f"{', '.join(inputs.hyper)}; in memory {', '.join(inputs.memory) or 'is nothing'}."
        ) from error
    if not isinstance(found, Loss):
        got = found
    elif jnp.shape(found.value):
        got = f"a value of shape {jnp.shape(found.value)}"
    elif not jnp.issubdtype(jnp.result_type(found.value), jnp.floating):
        got = f"a value of type {jnp.result_type(found.value)}"
    else:
        _check_reported(found, inputs.memory)
        return found
    raise UserError(
        f"The objective's loss returned {got}, wanted objectives.base.Loss(value) with one "
        "number, the mean over the batch."
    )


def _check_reported(loss: Loss, memory: PyTree) -> None:
    if taken := sorted(OURS & set(loss.metrics)):
        raise UserError(
            f"The objective's loss reports {taken[0]!r}, which every run has: choose another name."
        )
    before, after = (jax.tree.map(jnp.shape, kept) for kept in (memory, loss.memory))
    if loss.memory is not None and before != after:
        raise UserError(
            f"The objective's loss keeps a memory of shapes {after}, wanted those that it began "
            f"with, {before}."
        )


def _image_shape(images: Images) -> ImageShape:
    _, height, width, channels = images.shape
    return height, width, channels


def make_train_step(recipe: Recipe) -> StepFn:
    """(state, images) -> (state, metrics): one update. The body type of `lax.scan`.

    Beside the loss function's metrics it reports `grad_norm`, the global norm of the gradient of
    the VAE's parameters before it is clipped, `aux_grad_norm`, that of the objective's own where it
    has any, and `learning_rate` where that has a schedule.
    """
    gradient = jax.grad(make_loss(recipe, training=True), has_aux=True)

    def train_step(state: TrainState, images: Images) -> tuple[TrainState, Metrics]:
        keys = step_keys(state.key, state.step)
        grads, (metrics, memory) = gradient(state.params, state, images, keys.noise, keys.objective)
        hyper = scheduled(state.hyper, state.step, recipe.schedules)
        params, opt_state = {}, {}
        for part, optimizer, rate in (
            ("vae", recipe.optimizer, hyper["learning_rate"]),
            ("aux", AUX_OPTIMIZER, hyper.get("aux_learning_rate", 0.0)),
        ):
            before = state.params[part]
            updates, opt_state[part] = optimizer.update(grads[part], state.opt_state[part], before)
            params[part] = jax.tree.map(lambda p, u, rate=rate: p - rate * u, before, updates)
        ema = state.ema
        if recipe.ema:
            share = share_of_newest(recipe.ema, state.step + 1)
            ema = optax.incremental_update(params["vae"], ema, share)
        metrics = metrics | {"grad_norm": optax.tree.norm(grads["vae"])}
        if grads["aux"]:
            metrics["aux_grad_norm"] = optax.tree.norm(grads["aux"])
        if "learning_rate" in recipe.schedules:
            metrics["learning_rate"] = hyper["learning_rate"]
        new = TrainState(state.step + 1, params, opt_state, state.key, state.hyper, memory, ema)
        return new, metrics

    return train_step


def make_train_body(
    step: StepFn,
    draw: Callable[[Any, PRNGKey], Images],
    shared_key: PRNGKey | None = None,
    place: Callable[[Images], Images] = lambda images: images,
) -> Body:
    """A loop's body that draws its own batch: `draw(data, key)`, on the device.

    Args:
        shared_key: `RunKeys.steps` of the run whose batches these are; the state's own if None.
        place: says on which devices the images of a batch are.
    """

    def body(state: TrainState, data: PyTree) -> tuple[TrainState, Metrics]:
        key = state.key if shared_key is None else shared_key
        return step(state, place(draw(data, step_keys(key, state.step).batch)))

    return body


def make_eval_body(
    recipe: Recipe,
    take: Callable[[Any, jax.Array], Images],
    place: Callable[[Images], Images] = lambda images: images,
) -> Body:
    """A loop's body that evaluates batch i: carry i, data (state, arrays, indices, key).

    `indices` is [batches, batch]; `take(arrays, indices[i])` makes the images. The noise of
    batch i is a pure function of (key, i): evaluating twice gives the same numbers.

    Args:
        place: says on which devices the images of a batch are.
    """
    loss_fn = make_loss(recipe, training=False)

    def body(i: jax.Array, data: PyTree) -> tuple[jax.Array, Metrics]:
        state, arrays, indices, key = data
        noise_key, loss_key = jax.random.split(jax.random.fold_in(key, i))
        images = place(take(arrays, indices[i]))
        params = {"vae": weights(state), "aux": state.params["aux"]}
        _, (metrics, _) = loss_fn(params, state, images, noise_key, loss_key)
        return i + 1, metrics

    return body


def make_loop(body: Body, platform: str) -> Loop:
    """Runs `body` many times: the only place that knows how.

    On an accelerator it is one `lax.scan`, one dispatch for all turns. On a CPU it is a host loop
    over the jitted body, because XLA's convolutions are tens of times slower inside a compiled
    loop there. Both give the same numbers. The carry is donated: use what the loop returns.
    Nothing waits for the device, so that the host has time for what came before.

    Args:
        platform: `jax.default_backend()`: "cpu", "gpu" or "tpu".
    """
    return _host_loop(body) if platform == "cpu" else _scan_loop(body)


def _scan_loop(body: Body) -> Loop:
    @functools.partial(jax.jit, donate_argnums=0, static_argnums=2)
    def scan(carry: PyTree, data: PyTree, n: int) -> tuple[PyTree, Metrics]:
        return jax.lax.scan(lambda carry, _: body(carry, data), carry, length=n)

    def loop(carry: PyTree, data: PyTree, n: int) -> tuple[PyTree, Fetch]:
        carry, metrics = scan(carry, data, n)
        return carry, lambda: jax.device_get(metrics)

    return loop


def compiler_options(platform: str) -> dict[str, bool]:
    """XLA's options where the defaults are slow."""
    # On a CPU, parts of a batch that do not wait for each other then run at the same time.
    return {"xla_cpu_enable_concurrency_optimized_scheduler": True} if platform == "cpu" else {}


def _host_loop(body: Body) -> Loop:
    turn = jax.jit(body, donate_argnums=0, compiler_options=compiler_options("cpu"))

    def loop(carry: PyTree, data: PyTree, n: int) -> tuple[PyTree, Fetch]:
        history = []
        for _ in range(n):
            carry, metrics = turn(carry, data)
            history.append(metrics)

        def fetch() -> dict[str, np.ndarray]:
            turns = jax.device_get(history)
            return {name: np.stack([m[name] for m in turns]) for name in turns[0]}

        return carry, fetch

    return loop


NUMBERS = ("adam_b1", "adam_b2", "adam_eps", "momentum", "weight_decay")
"""What optimizers take, by name; each takes what it knows."""
Numbers = dict[str, float]


def _adam(numbers: Numbers) -> optax.GradientTransformation:
    """Kingma & Ba, 2015."""
    return optax.scale_by_adam(numbers["adam_b1"], numbers["adam_b2"], numbers["adam_eps"])


def _adamw(numbers: Numbers) -> optax.GradientTransformation:
    """Adam with decoupled weight decay. Loshchilov & Hutter, 2019."""
    return optax.chain(_adam(numbers), _decay(numbers["weight_decay"]))


def _decay(rate: float) -> optax.GradientTransformation:
    """+ rate w; where there is a codebook, neither of it nor of biases, as in Hsu et al., 2023."""

    def update(updates: PyTree, params: PyTree) -> PyTree:
        spared = (CODEBOOK, "bias") if isinstance(params, Mapping) and CODEBOOK in params else ()

        def decayed(path: Any, update: jax.Array, weight: jax.Array) -> jax.Array:
            return update if path and path[-1].key in spared else update + rate * weight

        return jax.tree_util.tree_map_with_path(decayed, updates, params)

    return optax.stateless(update)


def _adagrad(numbers: Numbers) -> optax.GradientTransformation:
    """Duchi et al., 2011; sums of squares start at 0.1."""
    del numbers
    return optax.scale_by_rss()


def _sgd(numbers: Numbers) -> optax.GradientTransformation:
    """Gradient descent, with momentum where it is not 0."""
    momentum = numbers["momentum"]
    return optax.trace(momentum) if momentum else optax.identity()


OPTIMIZERS: dict[str, Callable[[Numbers], optax.GradientTransformation]] = {
    "adam": _adam,
    "adamw": _adamw,
    "adagrad": _adagrad,
    "sgd": _sgd,
}


def make_optimizer(
    name: str, numbers: Numbers, clip_norm: float = 0.0
) -> optax.GradientTransformation:
    """The named optimizer; a step is minus the learning rate times what it returns.

    Args:
        numbers: all of `NUMBERS`.
        clip_norm: largest global norm of the gradient; 0 for no limit.

    Raises:
        UserError: the name is not known.
    """
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    optimizer = OPTIMIZERS[name](numbers)
    return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer) if clip_norm else optimizer
