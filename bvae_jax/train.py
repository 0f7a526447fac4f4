"""One training step, for a single run, a scan, a vmapped sweep or several devices."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from bvae_jax.elbo import elbo_terms
from bvae_jax.objectives.base import Objective
from bvae_jax.types import (
    Hyper,
    Images,
    ImageShape,
    LogLikelihood,
    Metrics,
    Params,
    PRNGKey,
    StepFn,
    TrainState,
)
from bvae_jax.vae import VAE, forward, init_params

Body = Callable[[PyTree, PyTree], tuple[PyTree, Metrics]]
"""(carry, data) -> (carry, metrics): one turn of a loop. `data` does not change."""
Loop = Callable[[PyTree, PyTree, int], tuple[PyTree, dict[str, np.ndarray]]]
"""(carry, data, n) -> (carry, metrics stacked over the n turns)."""


class StepKeys(NamedTuple):
    """The randomness of one step."""

    batch: PRNGKey
    noise: PRNGKey
    objective: PRNGKey


def step_keys(state: TrainState) -> StepKeys:
    """A pure function of the run's key and the step."""
    return StepKeys(*jax.random.split(jax.random.fold_in(state.key, state.step), 3))


def make_optimizer() -> optax.GradientTransformation:
    """Adam (Kingma & Ba, 2015) without its learning rate, which is a traced hyperparameter."""
    return optax.scale_by_adam()


def init_state(
    key: PRNGKey,
    hyper: Hyper,
    *,
    model: VAE,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    image_shape: ImageShape,
    latents: int,
) -> TrainState:
    """The state before the first step. Jittable, and vmappable over `key` and `hyper`.

    Args:
        key: the run's key.
        hyper: `learning_rate` and what the objective reads, float32 scalars.
    """
    params_key, aux_key, run_key = jax.random.split(key, 3)
    params = {
        "vae": init_params(model, image_shape, params_key),
        "aux": objective.init_aux(aux_key, latents),
    }
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, params, optimizer.init(params), run_key, hyper)


def make_loss(model: VAE, objective: Objective, log_likelihood: LogLikelihood) -> Callable:
    """(params, state, images, noise key, objective key) -> (loss, metrics), nats per image.

    The metrics are those that every objective reports, and its own. `elbo` never contains beta.
    """

    def loss_fn(
        params: Params, state: TrainState, images: Images, noise_key: PRNGKey, loss_key: PRNGKey
    ) -> tuple[jax.Array, Metrics]:
        out = forward(model, params["vae"], images, noise_key)
        terms = elbo_terms(out, images, log_likelihood)
        loss, extra = objective.loss(params["aux"], out, terms, state.hyper, state.step, loss_key)
        nll = -jnp.mean(terms.log_likelihood)
        kl_per_latent = jnp.mean(terms.kl, axis=0)
        kl = jnp.sum(kl_per_latent)
        reported = {
            "loss": loss,
            "nll": nll,
            "kl": kl,
            "elbo": -(nll + kl),
            "kl_per_latent": kl_per_latent,
        }
        return loss, extra | reported

    return loss_fn


def make_train_step(
    model: VAE,
    objective: Objective,
    log_likelihood: LogLikelihood,
    optimizer: optax.GradientTransformation,
) -> StepFn:
    """(state, images) -> (state, metrics): one update. The body type of `lax.scan`.

    Beside the loss function's metrics it reports `grad_norm`, the global norm of the gradient.
    """
    loss_fn = make_loss(model, objective, log_likelihood)

    def train_step(state: TrainState, images: Images) -> tuple[TrainState, Metrics]:
        keys = step_keys(state)
        grads, metrics = jax.grad(loss_fn, has_aux=True)(
            state.params, state, images, keys.noise, keys.objective
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        updates = jax.tree.map(lambda u: -state.hyper["learning_rate"] * u, updates)
        params = optax.apply_updates(state.params, updates)
        metrics = metrics | {"grad_norm": optax.tree.norm(grads)}
        return state._replace(step=state.step + 1, params=params, opt_state=opt_state), metrics

    return train_step


def make_train_body(step: StepFn, draw: Callable[[Any, PRNGKey], Images]) -> Body:
    """A loop's body that draws its own batch: `draw(data, key)`, on the device."""

    def body(state: TrainState, data: PyTree) -> tuple[TrainState, Metrics]:
        return step(state, draw(data, step_keys(state).batch))

    return body


def make_eval_body(
    model: VAE,
    objective: Objective,
    log_likelihood: LogLikelihood,
    take: Callable[[Any, jax.Array], Images],
) -> Body:
    """A loop's body that evaluates batch i: carry i, data (state, arrays, indices, key).

    `indices` is [batches, batch]; `take(arrays, indices[i])` makes the images. The noise of
    batch i is a pure function of (key, i): evaluating twice gives the same numbers.
    """
    loss_fn = make_loss(model, objective, log_likelihood)

    def body(i: jax.Array, data: PyTree) -> tuple[jax.Array, Metrics]:
        state, arrays, indices, key = data
        noise_key, loss_key = jax.random.split(jax.random.fold_in(key, i))
        images = take(arrays, indices[i])
        _, metrics = loss_fn(state.params, state, images, noise_key, loss_key)
        return i + 1, metrics

    return body


def make_loop(body: Body, platform: str) -> Loop:
    """Runs `body` many times: the only place that knows how.

    On an accelerator it is one `lax.scan`, one dispatch for all turns. On a CPU it is a host loop
    over the jitted body, because XLA's convolutions are tens of times slower inside a compiled
    loop there. Both give the same numbers. The carry is donated: use what the loop returns.

    Args:
        platform: `jax.default_backend()`: "cpu", "gpu" or "tpu".
    """
    return _host_loop(body) if platform == "cpu" else _scan_loop(body)


def _scan_loop(body: Body) -> Loop:
    @functools.partial(jax.jit, donate_argnums=0, static_argnums=2)
    def scan(carry: PyTree, data: PyTree, n: int) -> tuple[PyTree, Metrics]:
        return jax.lax.scan(lambda carry, _: body(carry, data), carry, length=n)

    def loop(carry: PyTree, data: PyTree, n: int) -> tuple[PyTree, dict[str, np.ndarray]]:
        carry, metrics = scan(carry, data, n)
        return carry, jax.device_get(metrics)

    return loop


def _host_loop(body: Body) -> Loop:
    turn = jax.jit(body, donate_argnums=0)

    def loop(carry: PyTree, data: PyTree, n: int) -> tuple[PyTree, dict[str, np.ndarray]]:
        history = []
        for _ in range(n):
            carry, metrics = turn(carry, data)
            history.append(metrics)
        history = jax.device_get(history)
        return carry, {name: np.stack([m[name] for m in history]) for name in history[0]}

    return loop
