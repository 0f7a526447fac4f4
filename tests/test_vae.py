"""The VAE as a function of parameters, images and a key."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bvae_jax.conv import without_kernels
from bvae_jax.likelihoods import LIKELIHOODS, make_likelihood
from bvae_jax.networks import make_network
from bvae_jax.types import Posterior
from bvae_jax.vae import VAE, decode, encode, forward, init_params, log_likelihood, reparameterize

LATENTS, SHAPE = 3, (16, 20, 3)


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
    posterior = encode(model, params, images)
    np.testing.assert_allclose(posterior.mean, out.posterior.mean, rtol=1e-5, atol=1e-6)
    pictures = decode(model, params, out.z[0])
    assert pictures.shape == images.shape
    assert 0 <= float(pictures.min()) <= float(pictures.max()) <= 1
    # Sample by sample and image by image the same as all at once, but for what a batch decides.
    if model.likelihood.calibrate is None:
        np.testing.assert_allclose(
            log_likelihood(model, params, out.z[2:3, 1:], images[1:])[0, 0],
            out.log_likelihood[2, 1],
            rtol=1e-4,
        )
    assert set(params) == {"encoder", "decoder", *dict(model.likelihood.own)}


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
