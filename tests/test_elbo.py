import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from scipy.special import logsumexp
from scipy.stats import norm

from bvae_jax import elbo
from bvae_jax.objectives.beta_tcvae import decompose, weighted
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


def test_information_of_images_and_codes():
    """By the definition in double precision; 0 where posteriors are alike; never above log B."""
    q = posterior(50, 3)
    noise = np.random.default_rng(0).standard_normal((50, 3))
    mean, sigma = np.float64(q.mean), np.exp(0.5 * np.float64(q.logvar))
    z = mean + sigma * noise
    log_q = norm.logpdf(z[:, None], mean, sigma).sum(axis=-1)
    wanted = np.mean(np.diagonal(log_q) - logsumexp(log_q, axis=1) + np.log(50))
    assert elbo.information(q, jnp.float32(z)) == pytest.approx(wanted, abs=1e-4)
    alike = Posterior(jnp.full((50, 3), 5.0), jnp.full((50, 3), -8.0))
    assert elbo.information(alike, alike.mean + 0.02 * noise) == pytest.approx(0, abs=1e-4)
    points = Posterior(q.mean, jnp.full((50, 3), -200.0))
    assert elbo.information(points, q.mean) == pytest.approx(np.log(50), abs=1e-4)


def test_a_posterior_that_is_a_point_has_finite_bounds_and_gradients():
    """Narrower than single precision knows: z is its mean."""
    out = output(2)

    def bounds(logvar):
        q = Posterior(out.posterior.mean, logvar)
        draws = VAEOutput(q, jnp.tile(q.mean, (2, 1, 1)), *out[2:])
        terms = decompose(q, q.mean, weighted(3, 100))
        return elbo.importance_weighted(draws).sum() + sum(term.sum() for term in terms)

    value, gradient = jax.jit(jax.value_and_grad(bounds))(jnp.full((3, 4), -100.0))
    assert jnp.isfinite(value)
    assert jnp.isfinite(gradient).all()
    q = Posterior(out.posterior.mean, jnp.full((3, 4), -200.0))
    ratio = elbo.log_prior_ratio(q, q.mean[None])[0]
    np.testing.assert_allclose(ratio, -elbo.gaussian_kl(q).sum(axis=1), atol=4 * 0.5 + 0.01)


def test_a_latent_is_active_by_the_variance_of_its_mean():
    assert elbo.is_active(np.array([0.0, 0.01, 0.011])).tolist() == [False, False, True]


def test_kl_is_zero_only_at_the_prior():
    zero = jnp.zeros((1, 1))
    assert elbo.gaussian_kl(Posterior(zero, zero))[0, 0] == 0
    # expm1 keeps the digits that exp(v) - 1 - v would lose: v^2 / 4 for small v.
    small = elbo.gaussian_kl(Posterior(zero, zero + 1e-3))[0, 0]
    assert small == pytest.approx(1e-6 / 4, rel=1e-2)


def pictures(samples, batch):
    """Images and reconstructions, which the bounds do not read."""
    return jnp.zeros((batch, 1, 1, 1)), jnp.zeros((samples, batch, 1, 1, 1))


def output(samples, batch=3, latents=4):
    """What a model might have returned: z drawn from the posterior."""
    q = posterior(batch, latents)
    z_key, log_key = jax.random.split(jax.random.key(7))
    z = q.mean[None] + jnp.exp(0.5 * q.logvar)[None] * jax.random.normal(
        z_key, (samples, batch, latents)
    )
    log_likelihood = -20 + jax.random.normal(log_key, (samples, batch))
    return VAEOutput(q, z, log_likelihood, *pictures(samples, batch))


def test_elbo_is_the_mean_log_likelihood_minus_the_kl():
    out = output(5)
    wanted = np.asarray(out.log_likelihood).mean(0) - np.asarray(
        elbo.gaussian_kl(out.posterior)
    ).sum(1)
    np.testing.assert_allclose(elbo.elbo(out), wanted, rtol=1e-6)


def test_importance_weights_against_scipy():
    out = output(5)
    sigma = np.exp(0.5 * np.asarray(out.posterior.logvar))
    ratio = norm.logpdf(out.z) - norm.logpdf(out.z, np.asarray(out.posterior.mean), sigma)
    np.testing.assert_allclose(
        elbo.log_prior_ratio(out.posterior, out.z), ratio.sum(-1), rtol=1e-4, atol=1e-5
    )
    for beta in (1.0, 3.0):
        wanted = logsumexp(np.asarray(out.log_likelihood) + beta * ratio.sum(-1), axis=0) - np.log(
            5
        )
        np.testing.assert_allclose(elbo.importance_weighted(out, beta), wanted, rtol=1e-5)


def test_the_mean_log_prior_ratio_is_minus_the_kl():
    out = output(100_000, batch=1, latents=2)
    ratio = np.asarray(elbo.log_prior_ratio(out.posterior, out.z))
    kl = float(elbo.gaussian_kl(out.posterior).sum())
    assert abs(ratio.mean() + kl) < 4 * ratio.std() / np.sqrt(ratio.size)


def test_importance_weighting_recovers_the_evidence_of_a_linear_model():
    """x = z + noise, all standard normal: log p(x) = log N(x; 0, 2), with a wrong posterior."""
    n, x = 200_000, 1.3
    q = Posterior(jnp.full((1, 1), 0.4), jnp.full((1, 1), -0.2))
    z = q.mean[None] + jnp.exp(0.5 * q.logvar)[None] * jax.random.normal(
        jax.random.key(0), (n, 1, 1)
    )
    log_likelihood = jnp.asarray(norm.logpdf(x, np.asarray(z[..., 0])))
    out = VAEOutput(q, z, log_likelihood, *pictures(*z.shape[:2]))
    wanted = norm.logpdf(x, 0, np.sqrt(2))
    assert float(elbo.importance_weighted(out)[0]) == pytest.approx(wanted, abs=0.01)
    assert float(elbo.elbo(out)[0]) < wanted - 0.01
