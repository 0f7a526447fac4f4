"""One step serves the host loop, the scan, the sweep and several devices."""

import functools
import itertools
import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, assert_equal, raw, two_devices

from bvae_jax.conv import without_kernels
from bvae_jax.data import DATASETS
from bvae_jax.data.base import Stored
from bvae_jax.data.sampling import make_draw, make_pick, uniform_pool
from bvae_jax.data.sources import rendered, resident
from bvae_jax.elbo import information
from bvae_jax.likelihoods import make_likelihood
from bvae_jax.networks import NETWORKS, make_network
from bvae_jax.networks.mlp import MLPDecoder, MLPEncoder
from bvae_jax.objectives import OBJECTIVES
from bvae_jax.objectives.base import NOTHING
from bvae_jax.objectives.schedules import parse_schedule
from bvae_jax.step import (
    OPTIMIZERS,
    Recipe,
    _host_loop,
    _scan_loop,
    init_state,
    make_eval_body,
    make_optimizer,
    make_train_body,
    make_train_step,
    scheduled,
    share_of_newest,
    step_keys,
    weights,
)
from bvae_jax.vae import VAE, forward

SHAPE, LATENTS, BATCH, STEPS = (16, 16, 1), 3, 8, 4
NUMBERS = {"adam_b1": 0.9, "adam_b2": 0.999, "adam_eps": 1e-8, "momentum": 0.5, "weight_decay": 0.1}
LIKELIHOOD = make_likelihood("bernoulli", 1.0)
POOL = (jax.random.uniform(jax.random.key(9), (32, *SHAPE)) > 0.7).astype(jnp.float32)


RECIPE = Recipe(
    VAE(*make_network("conv", LATENTS, SHAPE, 1), LIKELIHOOD),
    OBJECTIVES["beta_vae"],
    make_optimizer("adam", NUMBERS),
)


@functools.cache
def tiny():
    """(init(key, hyper), step) of a small model."""
    init = functools.partial(init_state, recipe=RECIPE, image_shape=SHAPE, latents=LATENTS)
    return init, make_train_step(RECIPE)


def hyper(beta=4.0, learning_rate=1e-3):
    return {"beta": jnp.float32(beta), "learning_rate": jnp.float32(learning_rate)}


def fresh(beta=4.0, seed=0):
    return tiny()[0](jax.random.key(seed), hyper(beta))


def draw(data, key):
    return data[jax.random.randint(key, (BATCH,), 0, len(data))]


def batches(state):
    """The batches that the loop would draw."""
    states = (state._replace(step=jnp.int32(t)) for t in range(STEPS))
    return [draw(POOL, step_keys(s.key, s.step).batch) for s in states]


def test_host_loop_and_scan_give_the_same_numbers():
    body = make_train_body(tiny()[1], draw)
    host, fetch = _host_loop(body)(fresh(), POOL, STEPS)
    host_metrics = fetch()
    scan, fetch = _scan_loop(body)(fresh(), POOL, STEPS)
    scan_metrics = fetch()
    assert int(host.step) == STEPS
    assert_close(host, scan)
    assert set(host_metrics) == set(scan_metrics)
    for name, values in host_metrics.items():
        assert len(values) == STEPS
        np.testing.assert_allclose(values, scan_metrics[name], rtol=1e-3, atol=1e-5)


def test_chunks_do_not_change_the_numbers():
    loop = _host_loop(make_train_body(tiny()[1], draw))
    whole, _ = loop(fresh(), POOL, 4)
    parts, _ = loop(loop(fresh(), POOL, 1)[0], POOL, 3)
    assert_equal(whole, parts)


def test_vmapped_sweep_equals_single_runs():
    init, step = tiny()
    betas = jnp.array([1.0, 8.0])
    seeds = jnp.arange(2)
    keys = jax.vmap(jax.random.key)(seeds)
    states = jax.jit(jax.vmap(init))(keys, {"beta": betas, "learning_rate": jnp.full(2, 1e-3)})
    singles = [fresh(float(beta), int(seed)) for beta, seed in zip(betas, seeds, strict=True)]
    images = batches(singles[0])
    sweep, single = jax.jit(jax.vmap(step, in_axes=(0, None))), jax.jit(step)
    for batch in images:
        states, _ = sweep(states, batch)
        singles = [single(state, batch)[0] for state in singles]
    states = jax.tree.map(raw, states)
    for i, state in enumerate(singles):
        state = jax.tree.map(raw, state)
        assert_close(jax.tree.map(lambda x, i=i: x[i], states), state, rtol=1e-4, atol=1e-5)


@two_devices
def test_two_devices_equal_one():
    step = jax.jit(tiny()[1])
    one = fresh()
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    replicated = jax.NamedSharding(mesh, jax.P())
    split = jax.NamedSharding(mesh, jax.P("data"))
    two = jax.device_put(one, replicated)
    metrics = sharded_metrics = {}
    for batch in batches(one):
        one, metrics = step(one, batch)
        two, sharded_metrics = step(two, jax.device_put(batch, split))
    assert len(two.params["vae"]["encoder"]["head"]["mean"]["kernel"].devices()) == 2
    # Adam divides by small numbers at first: roundings become parts of a step of 1e-3.
    assert_close(two, one, rtol=1e-4, atol=5e-5)
    assert_close(sharded_metrics, metrics, rtol=1e-4, atol=1e-4)


def test_one_compile_for_all_betas_and_learning_rates():
    traces = itertools.count()

    def counted(state, batch):
        next(traces)
        return tiny()[1](state, batch)

    step = jax.jit(counted)
    losses = set()
    for beta, learning_rate in ((1.0, 1e-3), (4.0, 1e-3), (4.0, 1e-4)):
        state = tiny()[0](jax.random.key(0), hyper(beta, learning_rate))
        state, _ = step(state, POOL[:BATCH])
        losses.add(float(step(state, POOL[:BATCH])[1]["loss"]))
    assert next(traces) == 1
    assert len(losses) == 3


def test_the_loss_falls_and_the_step_counts():
    loop = _host_loop(make_train_body(tiny()[1], draw))
    state, fetch = loop(fresh(beta=1.0), POOL, 60)
    metrics = fetch()
    assert metrics["loss"][-10:].mean() < 0.9 * metrics["loss"][:3].mean()
    assert int(state.step) == 60


def test_keys_of_a_step_are_a_pure_function_of_key_and_step():
    state = fresh()
    later = state._replace(step=jnp.int32(7))
    assert_equal(step_keys(later.key, later.step), step_keys(later.key, later.step))
    keys = [key for s in (state, later) for key in step_keys(s.key, s.step)]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 6


def numpy_updates(name, gradients, rate):
    """Steps of the named optimizer on one number, by its paper's formulas."""
    x, m, v, trace = 1.0, 0.0, 0.0, 0.0
    for t, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        adam = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 0.1)
        trace = 0.5 * trace + g
        squares = 0.1 + sum(h**2 for h in gradients[:t])
        x -= (
            rate
            * {
                "adam": adam,
                "adamw": adam + 0.1 * x,
                "adagrad": g / np.sqrt(squares + 1e-7),
                "sgd": trace,
            }[name]
        )
    return x


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_optimizers_against_their_formulas(name):
    gradients, rate = [0.5, -2.0, 0.3, 1.0], 0.1
    optimizer, x = make_optimizer(name, NUMBERS | {"adam_eps": 0.1}), jnp.float32(1)
    state = optimizer.init(x)
    for gradient in gradients:
        update, state = optimizer.update(jnp.float32(gradient), state, x)
        assert isinstance(update, jax.Array)
        x = x - rate * update
    assert float(x) == pytest.approx(numpy_updates(name, gradients, rate), rel=1e-4)


def test_of_a_quantised_model_only_kernels_decay():
    optimizer = make_optimizer("adamw", NUMBERS)
    weights = {"kernel": jnp.ones(2), "bias": jnp.ones(2)}
    for params, decayed in (
        ({"encoder": weights, "codebook": jnp.ones((2, 3))}, {"kernel"}),
        ({"encoder": weights}, {"kernel", "bias"}),
    ):
        none = jax.tree.map(jnp.zeros_like, params)
        updates, _ = optimizer.update(none, optimizer.init(params), params)
        found = {
            path[-1].key for path, u in jax.tree_util.tree_leaves_with_path(updates) if u.any()
        }
        assert found == decayed


def test_clipping_shortens_long_gradients_only():
    optimizer = make_optimizer("sgd", NUMBERS | {"momentum": 0.0}, clip_norm=1.0)
    for gradient, wanted in (([3.0, 4.0], [0.6, 0.8]), ([0.3, 0.4], [0.3, 0.4])):
        x = jnp.array(gradient)
        update, _ = optimizer.update(x, optimizer.init(x), x)
        assert isinstance(update, jax.Array)
        np.testing.assert_allclose(update, wanted, rtol=1e-6)


def length(tree):
    return np.sqrt(sum(np.sum(np.square(leaf, dtype=np.float64)) for leaf in jax.tree.leaves(tree)))


def trained(recipe, steps=3, extra=NOTHING):
    """States before and after each of some steps, and the metrics."""
    init = functools.partial(init_state, recipe=recipe, image_shape=SHAPE, latents=LATENTS)
    values = {k: jnp.float32(v) for k, v in extra.items()}
    states, metrics = [init(jax.random.key(0), hyper() | values)], []
    step = jax.jit(make_train_step(recipe))
    for batch in batches(states[0])[:steps]:
        state, found = step(states[-1], batch)
        states.append(state)
        metrics.append(found)
    return states, metrics


def test_the_moving_average_is_that_of_the_parameters():
    states, _ = trained(RECIPE._replace(ema=0.75))
    after = [state.params["vae"] for state in states[1:]]
    counts = 0.75 ** np.arange(len(after))[::-1]
    wanted = jax.tree.map(
        lambda *leaves: np.average(np.stack(leaves), axis=0, weights=counts), *after
    )
    assert_close(weights(states[-1]), wanted)
    without = trained(RECIPE)[0][-1]
    assert_close(states[-1].params, without.params)  # it changes no step
    assert_equal(weights(without), without.params["vae"])


@pytest.mark.parametrize("decay", [0.5, 0.99, 0.9999, 0.999999])
def test_the_moving_average_of_a_long_run_forgets_the_initialisation(decay):
    steps = np.array([1, 2, 10, 3000, 10**6])
    wanted = [1 / np.sum(np.float64(decay) ** np.arange(t)) for t in steps]
    found = [share_of_newest(decay, jnp.int32(t)) for t in steps]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    assert float(found[0]) == pytest.approx(1, abs=1e-6)


def test_an_evaluation_is_a_pass_with_the_averaged_parameters():
    """And with noise of its own for each batch."""
    encoder, decoder = MLPEncoder(LATENTS, (8,)), MLPDecoder(SHAPE[:2], 1, (8,))
    recipe = RECIPE._replace(model=VAE(encoder, decoder, LIKELIHOOD), ema=0.5, samples=2)
    kept = {"recipe": recipe, "image_shape": SHAPE, "latents": LATENTS}
    init = jax.jit(functools.partial(init_state, **kept))
    see = jax.jit(functools.partial(forward, recipe.model, samples=2))
    state = init(jax.random.key(0), hyper())._replace(ema=init(jax.random.key(1), hyper()).ema)
    key, images = jax.random.key(5), POOL[:BATCH]
    rows = jnp.tile(jnp.arange(BATCH)[None], (2, 1))
    body = make_eval_body(recipe, lambda data, rows: data[rows])
    _, fetch = _host_loop(body)(jnp.int32(0), (state, POOL, rows, key), 2)
    found = fetch()
    for i in range(2):
        noise, _ = jax.random.split(jax.random.fold_in(key, i))
        out = see(state.ema, images, noise)
        nll = -np.asarray(out.log_likelihood).mean(axis=0)
        error = np.square(images[None] - out.reconstruction).mean(axis=(0, 2, 3, 4))
        wanted = {
            "nll": nll.mean(), "nll_variance": nll.var(),
            "mse": error.mean(), "mse_variance": error.var(),
            "information": information(out.posterior, out.z[0]),
            "variance_per_latent": np.var(out.posterior.mean, axis=0),
        }  # fmt: skip
        assert_close({name: found[name][i] for name in wanted}, wanted, rtol=1e-3)
    assert found["nll"][0] != found["nll"][1]


def test_schedules_move_hyperparameters():
    schedules = {
        "beta": parse_schedule("linear:steps=4", "--beta-schedule"),
        "learning_rate": parse_schedule("piecewise:0=1,1=0", "--learning-rate-schedule"),
    }
    numbers = {f"beta_schedule.{n}": v for n, v in schedules["beta"].numbers.items()}
    states, metrics = trained(RECIPE._replace(schedules=schedules), extra=numbers)
    np.testing.assert_allclose([m["beta"] for m in metrics], [0.0, 1.0, 2.0])
    np.testing.assert_allclose([m["learning_rate"] for m in metrics], [1e-3, 0, 0])
    # With a step size of 0 nothing moves; before, it did.
    assert_equal(states[1].params, states[3].params)
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, states[:2]), strict=True)
               if a.dtype == jnp.float32)  # fmt: skip
    now = scheduled(states[0].hyper, jnp.int32(400), schedules)
    assert (float(now["beta"]), float(now["learning_rate"])) == (4.0, 0.0)


def test_the_discriminator_has_an_optimizer_of_its_own():
    sgd = make_optimizer("sgd", NUMBERS | {"momentum": 0.0})
    recipe = RECIPE._replace(objective=OBJECTIVES["factor_vae"], optimizer=sgd)
    rates = {"gamma": 35.0, "aux_learning_rate": 0.0}
    states, _ = trained(recipe, 2, rates)
    assert_equal(states[0].params["aux"], states[2].params["aux"])
    moved, (metrics,) = trained(recipe, 1, rates | {"aux_learning_rate": 0.01})
    # Adam's first step is the step size, whatever the gradient.
    change = jax.tree.map(
        lambda a, b: np.abs(a - b).max(), moved[0].params["aux"], moved[1].params["aux"]
    )
    np.testing.assert_allclose(jax.tree.leaves(change), 0.01, rtol=1e-2)
    # A step of gradient descent is the gradient; Adam's first mean is half of it.
    gradient = jax.tree.map(
        lambda a, b: (a - b) / 1e-3, moved[0].params["vae"], moved[1].params["vae"]
    )
    assert float(metrics["grad_norm"]) == pytest.approx(length(gradient), rel=1e-3)
    half = moved[1].opt_state["aux"].mu  # pyright: ignore[reportAttributeAccessIssue]
    assert float(metrics["aux_grad_norm"]) == pytest.approx(2 * length(half), rel=1e-4)
    first = trained(recipe, 1, rates)[0][1]
    assert_equal(moved[1].params["vae"], first.params["vae"])


def programs(network, images):
    """What is lowered: (function, arguments) of each."""
    dataset = DATASETS["dsprites"]
    if images == "rendered":
        source = rendered(dataset)
    else:
        source = resident(dataset, Stored(np.zeros((16, 512), np.uint8), dataset.image_shape))
    model = VAE(*make_network(network, 10, dataset.image_shape, 1), LIKELIHOOD)
    recipe = RECIPE._replace(model=model)
    step = make_train_step(recipe)
    pool = uniform_pool(np.arange(1000))
    body = make_train_body(step, make_draw(source, make_pick(pool, 64)))
    init = functools.partial(init_state, recipe=recipe, image_shape=dataset.image_shape, latents=10)
    state = jax.eval_shape(init, jax.random.key(0), hyper())
    data = (jax.tree.map(jnp.asarray, pool), source.arrays)
    batch = jax.ShapeDtypeStruct((64, *dataset.image_shape), jnp.float32)

    def chunk(state, data):
        return jax.lax.scan(lambda carry, _: body(carry, data), state, length=50)

    found = [(step, (state, batch)), (chunk, (state, data))]
    found = [(jax.jit(without_kernels(function)), given) for function, given in found]
    return found if network == "conv" else found[:1]


@pytest.mark.parametrize(
    ("network", "images"),
    [
        ("conv", "resident"),
        ("conv", "rendered"),
        *(pytest.param(n, "rendered", marks=pytest.mark.once) for n in NETWORKS if n != "conv"),
    ],
)
def test_step_and_chunk_lower_for_every_platform(network, images):
    """From a machine with a CPU only; no float64 and no call back to the host in the program."""
    platforms = ("cpu", "cuda", "tpu")
    for function, arguments in programs(network, images):
        module = jax.export.export(function, platforms=platforms)(*arguments)
        text = module.mlir_module()
        assert module.platforms == platforms
        assert "f64" not in text
        calls = set(re.findall(r"custom_call @(\w+)", text))
        assert not {call for call in calls if "callback" in call}, calls
