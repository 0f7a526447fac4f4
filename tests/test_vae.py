"""The VAE as a function of parameters, images and a key."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bvae_jax.conv import without_kernels
from bvae_jax.errors import UserError
from bvae_jax.likelihoods import LIKELIHOODS, make_likelihood
from bvae_jax.networks import make_network
from bvae_jax.types import Posterior
from bvae_jax.vae import VAE, decode, encode, forward, init_params, log_likelihood, reparameterize

LATENTS, SHAPE = 3, (16, 20, 3)
BERNOULLI, KEY = make_likelihood("bernoulli", 1.0), jax.random.key(1)


def model_and_params(likelihood):
    chosen = make_likelihood(likelihood, 0.5)
    model = VAE(*make_network("conv", LATENTS, SHAPE, chosen.parameters(3)), chosen)
    return model, jax.jit(lambda key: init_params(model, SHAPE, key))(jax.random.key(0))


@pytest.mark.parametrize("likelihood", sorted(LIKELIHOODS))
def test_one_pass(likelihood):
    model, params = model_and_params(likelihood)
    images = jax.random.uniform(jax.random.key(1), (2, *SHAPE))

    @functools.partial(jax.jit, static_argnums=0)
    def run(samples):
        return forward(model, params, images, jax.random.key(2), samples=samples)

    out = run(4)
    assert out.z.shape == (4, 2, LATENTS)
    assert out.log_likelihood.shape == (4, 2)
    posterior = jax.jit(encode, static_argnums=0)(model, params, images)
    np.testing.assert_allclose(posterior.mean, out.posterior.mean, rtol=1e-5, atol=1e-6)
    pictures = jax.jit(decode, static_argnums=0)(model, params, out.z[0])
    assert pictures.shape == images.shape
    assert 0 <= float(pictures.min()) <= float(pictures.max()) <= 1
    # Sample by sample and image by image the same as all at once, but for what a batch decides.
    if model.likelihood.calibrate is None:
        alone = jax.jit(log_likelihood, static_argnums=0)
        found = alone(model, params, out.z[2:3, 1:], images[1:])
        np.testing.assert_allclose(found[0, 0], out.log_likelihood[2, 1], rtol=1e-4)
    assert set(params) == {"encoder", "decoder", *dict(model.likelihood.own)}


class Returns(nn.Module):
    """A part of a network of one's own."""

    what: Callable[..., Any]

    def __call__(self, x):
        return self.what(x)


def normal(latents, dtype=jnp.float32):
    return Returns(lambda x: Posterior(*2 * (jnp.full((len(x), latents), 0.3, dtype),)))


def pictures(*shape, dtype=jnp.float32):
    return Returns(lambda z: jnp.ones((len(z), *shape), dtype))


def test_what_networks_return_is_float32():
    model = VAE(normal(3, jnp.bfloat16), pictures(*SHAPE, dtype=jnp.bfloat16), BERNOULLI)
    images = jnp.zeros((2, *SHAPE))
    output = forward(model, init_params(model, SHAPE, jax.random.key(0), 3), images, KEY)
    assert {x.dtype for x in jax.tree.leaves(output)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("encoder", "decoder", "message"),
    [
        (Returns(lambda x: jnp.ones((1, 3))), pictures(*SHAPE), r"returned an array \[1, 3\]"),
        (Returns(lambda x: None), pictures(*SHAPE), "encoder returned <class 'NoneType'>, wanted"),
        (Returns(lambda x: Posterior(x, x)), pictures(*SHAPE), r"a mean \[1, 16, 20, 3\], wanted"),
        (normal(4), pictures(*SHAPE), "returned 4 latents, wanted 3"),
        (normal(3), pictures(7), r"decoder returned an array \[1, 7\], wanted \[1, height, width"),
        (normal(3), pictures(8, 8, 3), r"\[1, 8, 8, 3\], wanted images of 16x20 pixels"),
        (normal(3), pictures(16, 20, 1), r"log_prob returned an array .*, wanted \[1\]"),
    ],
)
def test_what_is_no_network_is_said(encoder, decoder, message):
    own = BERNOULLI._replace(log_prob=lambda decoded, *_: decoded)
    model = VAE(encoder, decoder, own if "log_prob" in message else BERNOULLI)
    with pytest.raises(UserError, match=message):
        init_params(model, SHAPE, jax.random.key(0), 3)


def test_a_network_with_a_state_is_refused():
    def normalised(x):
        mean = nn.BatchNorm(use_running_average=False)(x.reshape(len(x), -1))[:, :3]
        return Posterior(mean, mean)

    encoder = type("Own", (nn.Module,), {"__call__": nn.compact(lambda self, x: normalised(x))})
    with pytest.raises(UserError, match="keeps batch_stats beside its parameters"):
        init_params(VAE(encoder(), pictures(*SHAPE), BERNOULLI), SHAPE, jax.random.key(0))


def test_without_noise_z_is_the_mean_and_adapting_comes_first():
    model, params = model_and_params("bernoulli")
    images = jax.random.uniform(jax.random.key(1), (2, *SHAPE))
    plain = forward(model, params, images, jax.random.key(2), noise=False)
    np.testing.assert_array_equal(plain.z[0], plain.posterior.mean)
    moved = forward(
        model, params, images, jax.random.key(2),
        adapt=lambda q: Posterior(q.mean + 5, q.logvar - 40), noise=True,
    )  # fmt: skip
    np.testing.assert_allclose(moved.z[0], plain.posterior.mean + 5, rtol=1e-5)


def test_reparameterized_samples_have_the_posterior_moments():
    mean, logvar = jnp.array([[-1.0, 2.0]]), jnp.array([[0.0, -2.0]])
    n = 40_000
    posterior = Posterior(jnp.tile(mean, (n, 1)), jnp.tile(logvar, (n, 1)))
    z = np.asarray(reparameterize(posterior, jax.random.key(0), 2)).reshape(2 * n, 2)
    n *= 2
    sigma = np.exp(0.5 * np.asarray(logvar[0]))
    np.testing.assert_array_less(abs(z.mean(0) - np.asarray(mean[0])), 4 * sigma / np.sqrt(n))
    np.testing.assert_allclose(z.std(0), sigma, rtol=0.02)


def equations(jaxpr):
    """All equations, also those inside of others."""
    for equation in jaxpr.eqns:
        yield equation
        inside = jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr"),
        )
        for inner in inside:
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


@pytest.mark.parametrize(
    ("products", "precision"), [("float32", "HIGHEST"), ("tensorfloat32", "HIGH")]
)
@pytest.mark.parametrize("network", ["conv", "mlp", "resnet"])
def test_every_product_has_the_precision_that_is_wanted(network, products, precision):
    """Those of the gradient too, of one model and of several; sums over pixels have the highest.
    Kernels of a GPU have precisions of their own."""
    model = VAE(
        *make_network(network, 3, (16, 16, 1), 1), make_likelihood("bernoulli", 1.0), products
    )
    images = jnp.zeros((2, 16, 16, 1))

    def loss(params):
        return forward(model, params, images, jax.random.key(0)).log_likelihood.sum()

    params = jax.eval_shape(lambda: init_params(model, (16, 16, 1), jax.random.key(0)))
    many = jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, *x.shape), x.dtype), params)
    for function, given in ((jax.grad(loss), params), (jax.vmap(jax.grad(loss)), many)):
        jaxpr = jax.make_jaxpr(without_kernels(function))(given).jaxpr
        found = [
            e
            for e in equations(jaxpr)
            if e.primitive.name in ("dot_general", "conv_general_dilated")
        ]
        assert len(found) > 10
        for equation in found:
            is_sum = any(operand.aval.ndim == 1 for operand in equation.invars)
            wanted = "HIGHEST" if is_sum else precision
            assert {p.name for p in equation.params["precision"]} == {wanted}, equation
