import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from conftest import float64
from scipy.stats import bernoulli, norm

from bvae_jax import elbo
from bvae_jax.errors import UserError
from bvae_jax.types import Posterior, VAEOutput


def posterior(batch=3, latents=4):
    mean_key, logvar_key = jax.random.split(jax.random.key(0))
    mean = 2 * jax.random.normal(mean_key, (batch, latents))
    return Posterior(mean, jax.random.normal(logvar_key, (batch, latents)))


def test_kl_against_numerical_integration():
    q = posterior()
    kl = elbo.gaussian_kl(q)
    for index in np.ndindex(kl.shape):
        sigma = np.exp(0.5 * float(q.logvar[index]))
        mean = float(q.mean[index])

        def integrand(z, mean=mean, sigma=sigma):
            log_q, log_p = norm.logpdf(z, mean, sigma), norm.logpdf(z)
            return np.exp(log_q) * (log_q - log_p)

        low, high = mean - 8 * sigma, mean + 8 * sigma
        wanted, _ = scipy.integrate.quad(integrand, low, high)
        assert kl[index] == pytest.approx(wanted, rel=1e-4, abs=1e-6)


def test_kl_against_monte_carlo():
    q = posterior(1, 1)
    mean, sigma = float(q.mean[0, 0]), np.exp(0.5 * float(q.logvar[0, 0]))
    z = np.random.default_rng(0).normal(mean, sigma, 200_000)
    samples = norm.logpdf(z, mean, sigma) - norm.logpdf(z)
    error = samples.std() / np.sqrt(len(samples))
    assert abs(float(elbo.gaussian_kl(q)[0, 0]) - samples.mean()) < 4 * error


def test_kl_is_zero_only_at_the_prior():
    zero = jnp.zeros((1, 1))
    assert elbo.gaussian_kl(Posterior(zero, zero))[0, 0] == 0
    # expm1 keeps the digits that exp(v) - 1 - v would lose: v^2 / 4 for small v.
    small = elbo.gaussian_kl(Posterior(zero, zero + 1e-3))[0, 0]
    assert small == pytest.approx(1e-6 / 4, rel=1e-2)


def images_and_logits(shape=(3, 8, 8, 2)):
    image_key, logit_key = jax.random.split(jax.random.key(0))
    images = (jax.random.uniform(image_key, shape) > 0.5).astype(jnp.float32)
    return images, 3 * jax.random.normal(logit_key, shape)


def test_bernoulli_against_scipy():
    images, logits = images_and_logits()
    got = elbo.bernoulli_log_likelihood(logits, images)
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    wanted = bernoulli.logpmf(np.asarray(images), p).sum((1, 2, 3))
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 3.0])
def test_gaussian_against_scipy(sigma):
    images, logits = images_and_logits()
    got = elbo.make_log_likelihood("gaussian", sigma)(logits, images)
    mean = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    wanted = norm.logpdf(np.asarray(images), mean, sigma).sum((1, 2, 3))
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(elbo.LIKELIHOODS))
def test_extreme_logits_stay_finite(name):
    images, _ = images_and_logits()
    for logit in (-1e4, 1e4):
        logits = jnp.full(images.shape, logit)
        log_likelihood = elbo.make_log_likelihood(name, 1.0)
        value, gradient = jax.value_and_grad(lambda x, f=log_likelihood: f(x, images).sum())(logits)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", sorted(elbo.LIKELIHOODS))
def test_gradients_by_finite_differences(name):
    with float64():
        images, logits = (x.astype(jnp.float64) for x in images_and_logits((1, 2, 2, 1)))
        q = Posterior(*(x.astype(jnp.float64) for x in posterior(1, 2)))
        log_likelihood = elbo.make_log_likelihood(name, 0.7)

        def value(logits, mean, logvar):
            out = VAEOutput(logits, Posterior(mean, logvar), mean)
            terms = elbo.elbo_terms(out, images, log_likelihood)
            return jnp.sum(terms.log_likelihood) - jnp.sum(terms.kl)

        arguments = (logits, q.mean, q.logvar)
        gradients = jax.grad(value, argnums=(0, 1, 2))(*arguments)
        for number, (argument, gradient) in enumerate(zip(arguments, gradients, strict=True)):
            for index in np.ndindex(argument.shape):
                up, down = list(arguments), list(arguments)
                up[number] = argument.at[index].add(1e-5)
                down[number] = argument.at[index].add(-1e-5)
                wanted = (value(*up) - value(*down)) / 2e-5
                assert gradient[index] == pytest.approx(float(wanted), rel=1e-6, abs=1e-8)


def test_unknown_likelihood_is_named():
    with pytest.raises(UserError, match=r"Unknown likelihood 'poisson'\. Known: bernoulli"):
        elbo.make_log_likelihood("poisson", 1.0)


def test_a_wrong_number_of_channels_is_caught():
    images, _ = images_and_logits((2, 8, 8, 3))
    with pytest.raises(Exception, match=r"channels|dimension"):
        elbo.bernoulli_log_likelihood(jnp.zeros((2, 8, 8, 1)), images)
