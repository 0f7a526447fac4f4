"""Laws that every registered network obeys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bvae_jax.errors import UserError
from bvae_jax.networks import NETWORKS, make_network
from bvae_jax.types import Posterior
from bvae_jax.vae import VAE, decode, encode, forward, init_params, reparameterize

LATENTS = 3
EXPECTED_PARAMETERS = {
    # conv: 544 + 16,416 + 32,832 + 65,600 (convolutions), 262,400 (hidden), 5,140 (head), and the
    # decoder's 2,816 + 263,168 + 65,600 + 32,800 + 16,416 + 513.
    "conv": 764_245,
    # mlp: 4,916,400 + 1,441,200 + 24,020 and 13,200 + 2 * 1,441,200 + 4,919,296.
    "mlp": 14_196_516,
}


def model_and_params(name, shape):
    model = VAE(*make_network(name, LATENTS, shape))
    params = jax.jit(lambda key: init_params(model, shape, key))(jax.random.key(0))
    return model, params


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("shape", [(32, 32, 1), (32, 48, 3)])
def test_shapes(name, shape):
    model, params = model_and_params(name, shape)
    images = jax.random.uniform(jax.random.key(1), (2, *shape))
    out = forward(model, params, images, jax.random.key(2))
    assert out.logits.shape == images.shape
    assert out.z.shape == out.posterior.mean.shape == out.posterior.logvar.shape == (2, LATENTS)
    posterior = encode(model, params, images)
    np.testing.assert_allclose(posterior.mean, out.posterior.mean, rtol=1e-5, atol=1e-6)
    pictures = decode(model, params, out.z)
    np.testing.assert_allclose(pictures, jax.nn.sigmoid(out.logits), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_number_of_parameters(name):
    model = VAE(*make_network(name, 10, (64, 64, 1)))
    abstract = jax.eval_shape(lambda key: init_params(model, (64, 64, 1), key), jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(abstract)) == EXPECTED_PARAMETERS[name]


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_uniform_weights_and_zero_biases(name):
    _, params = model_and_params(name, (32, 32, 1))
    for path, leaf in jax.tree.leaves_with_path(params):
        if path[-1].key == "bias":
            assert not leaf.any()
        else:
            fan_in = np.prod(leaf.shape[:-1])
            bound = 1 / np.sqrt(fan_in)
            assert 0.9 * bound < abs(leaf).max() <= 1.0001 * bound
            assert abs(leaf.mean()) < 0.2 * bound


def test_conv_refuses_sizes_that_do_not_halve():
    with pytest.raises(UserError, match="got 28x28 pixels, wanted sides that are multiples of 16"):
        make_network("conv", LATENTS, (28, 28, 1))


def test_unknown_network_is_named():
    with pytest.raises(UserError, match=r"Unknown network 'vgg'\. Known: conv, mlp\."):
        make_network("vgg", LATENTS, (64, 64, 1))


def test_reparameterized_samples_have_the_posterior_moments():
    mean, logvar = jnp.array([[-1.0, 2.0]]), jnp.array([[0.0, -2.0]])
    n = 40_000
    posterior = Posterior(jnp.tile(mean, (n, 1)), jnp.tile(logvar, (n, 1)))
    z = np.asarray(reparameterize(posterior, jax.random.key(0)))
    sigma = np.exp(0.5 * np.asarray(logvar[0]))
    np.testing.assert_array_less(abs(z.mean(0) - np.asarray(mean[0])), 4 * sigma / np.sqrt(n))
    np.testing.assert_allclose(z.std(0), sigma, rtol=0.02)
