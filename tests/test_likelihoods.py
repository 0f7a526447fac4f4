import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from conftest import float64
from jax.flatten_util import ravel_pytree
from scipy.special import expit, softmax
from scipy.stats import bernoulli, laplace, norm

from bvae_jax.errors import UserError
from bvae_jax.likelihoods import LIKELIHOODS, bits_per_dim, make_likelihood

NAMES = sorted(LIKELIHOODS)
OFFSET = np.linspace(-0.9, 0.9, 10)


def draw(name="bernoulli", shape=(3, 8, 8, 2), sigma=0.7):
    """A likelihood, decoder output, images of 0, 1 and what lies between, and its own scalars."""
    likelihood = make_likelihood(name, sigma)
    rng = np.random.default_rng(0)
    images = np.clip(2 * rng.random(shape, np.float32) - 0.5, 0, 1)
    if not likelihood.density:
        levels = np.float32(255 if name == "logistic_mixture" else 1)
        images = np.round(images * levels) / levels  # exactly 1
    decoded = 2 * rng.standard_normal((*shape[:3], likelihood.parameters(shape[3])), np.float32)
    own = {key: jnp.asarray(value - 1.0) for key, value in likelihood.own}
    return likelihood, jnp.asarray(decoded), jnp.asarray(images), own


def test_bernoulli_against_scipy():
    likelihood, logits, images, own = draw()
    got = likelihood.log_prob(logits, images, own)
    wanted = bernoulli.logpmf(np.asarray(images), expit(np.float64(logits))).sum((1, 2, 3))
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


@pytest.mark.parametrize("name", ["gaussian", "laplace"])
@pytest.mark.parametrize("sigma", [0.1, 1.0, 3.0])
def test_gaussian_and_laplace_against_scipy(name, sigma):
    likelihood, logits, images, own = draw(name, sigma=sigma)
    got = likelihood.log_prob(logits, images, own)
    reference = {"gaussian": norm, "laplace": laplace}[name]
    mean = expit(np.float64(logits))
    wanted = reference.logpdf(np.float64(images), mean, sigma).sum((1, 2, 3))
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    np.testing.assert_allclose(likelihood.mean(logits), mean, rtol=1e-5)


def test_sigma_vae_against_scipy():
    likelihood, logits, images, _ = draw("sigma_vae")
    for log_sigma, clipped in ((0.0, 0.0024756), (-2.0, -1.9818499), (-20.0, -5.9999992)):
        got = likelihood.log_prob(logits, images, {"log_sigma": jnp.asarray(log_sigma)})
        mean, sigma = expit(np.float64(logits)), np.exp(clipped)
        wanted = norm.logpdf(np.float64(images), mean, sigma).sum((1, 2, 3))
        np.testing.assert_allclose(got, wanted, rtol=1e-5)
    assert likelihood.own == (("log_sigma", 0.0),)


def test_optimal_sigma_vae_against_scipy():
    likelihood, logits, images, own = draw("optimal_sigma_vae")
    got = likelihood.log_prob(logits, images, own)
    mean, images = expit(np.float64(logits)), np.float64(images)
    sigma = np.sqrt(np.square(images - mean).mean()) + np.exp(-6)
    np.testing.assert_allclose(got, norm.logpdf(images, mean, sigma).sum((1, 2, 3)), rtol=1e-5)


LOGITS = [-300, -30, -3, -0.501, -0.499, -1e-2, -1e-4, -1e-12, 0]
LOGITS += [-logit for logit in LOGITS[:-1]]


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_by_integration(logit):
    # Nodes in u, x = u^4 or 1 - u^4, lie close where the density does.
    nodes, weights = np.polynomial.legendre.leggauss(100)
    u, weights = (nodes + 1) / 2, weights / 2
    x = u**4 if logit <= 0 else 1 - u**4
    weights = weights * 4 * u**3
    with float64():
        likelihood = make_likelihood("continuous_bernoulli", 1.0)
        logits = jnp.full((100, 1, 1, 1), float(logit))
        log_prob = likelihood.log_prob(logits, jnp.asarray(x).reshape(-1, 1, 1, 1), {})
        density = np.exp(np.asarray(log_prob))
        mean = likelihood.mean(logits)[0, 0, 0, 0]
    assert weights @ density == pytest.approx(1, rel=1e-9)
    assert mean == pytest.approx(weights @ (x * density), rel=1e-7)
    # Single precision, and its gradient with respect to the logit: x - mean.
    image = jnp.full((1, 1, 1, 1), 0.25)
    value, gradient = jax.value_and_grad(lambda x: likelihood.log_prob(x, image, {}).sum())(
        jnp.full((1, 1, 1, 1), float(logit))
    )
    with float64():
        wanted = likelihood.log_prob(logits[:1], image.astype(jnp.float64), {})[0]
    assert value == pytest.approx(float(wanted), rel=1e-5, abs=1e-7)
    assert gradient[0, 0, 0, 0] == pytest.approx(0.25 - float(mean), rel=1e-5, abs=1e-6)


def test_continuous_bernoulli_against_the_papers_formula():
    likelihood, logits, images, own = draw("continuous_bernoulli")
    p = expit(np.float64(logits))
    constant = 2 * np.arctanh(1 - 2 * p) / (1 - 2 * p)
    x = np.float64(images)
    wanted = (x * np.log(p) + (1 - x) * np.log1p(-p) + np.log(constant)).sum((1, 2, 3))
    np.testing.assert_allclose(likelihood.log_prob(logits, images, own), wanted, rtol=1e-5)
    mean = p / (2 * p - 1) + 1 / (2 * np.arctanh(1 - 2 * p))
    np.testing.assert_allclose(likelihood.mean(logits), mean, rtol=1e-5)


def mixture_by_loops(decoded, images):
    """log p of one image by the book; decoded [height, width, parameter], in float64."""
    total = 0.0
    channels = images.shape[-1]
    for row, column in np.ndindex(images.shape[:2]):
        numbers = np.asarray(decoded[row, column], np.float64)
        weights = softmax(numbers[:10])
        levels = np.round(255 * np.asarray(images[row, column], np.float64))
        v = 2 * levels / 255 - 1
        probability = 0.0
        for k in range(10):

            def number(kind, channel, k=k, numbers=numbers):
                return numbers[10 + (kind * channels + channel) * 10 + k]

            product = weights[k]
            for channel in range(channels):
                mean = number(0, channel) + OFFSET[k]
                scale = np.exp(max(number(1, channel) + np.log(0.1), -7))
                if channels == 3 and channel == 1:
                    mean += np.tanh(number(2, 0)) * v[0]
                if channels == 3 and channel == 2:
                    mean += np.tanh(number(2, 1)) * v[0] + np.tanh(number(2, 2)) * v[1]
                above = (v[channel] + 1 / 255 - mean) / scale
                below = (v[channel] - 1 / 255 - mean) / scale
                above = np.inf if levels[channel] == 255 else above
                below = -np.inf if levels[channel] == 0 else below
                # The difference of the smaller two numbers, so that it does not round to 0.
                sides = (above, below) if below < 0 else (-below, -above)
                product *= expit(sides[0]) - expit(sides[1])
            probability += product
        total += np.log(probability)
    return total


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_logistic_mixture_against_loops(channels):
    likelihood, decoded, images, _ = draw("logistic_mixture", (3, 3, 3, channels))
    assert likelihood.parameters(channels) == {1: 30, 2: 50, 3: 100, 4: 90}[channels]
    assert {0.0, 1.0} <= set(np.unique(images).tolist())
    got = likelihood.log_prob(decoded, images + 0.3 / 255, {})
    wanted = [mixture_by_loops(*p) for p in zip(*map(np.asarray, (decoded, images)), strict=True)]
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


def colours(likelihood, decoded, levels):
    """Probabilities of all colours whose channels have the given levels."""
    grid = np.stack(np.meshgrid(*levels, indexing="ij"), axis=-1).reshape(-1, 1, 1, len(levels))
    images = jnp.asarray(grid / 255)
    repeated = jnp.broadcast_to(decoded, (len(grid), 1, 1, decoded.shape[-1]))
    log_prob = jax.jit(likelihood.log_prob)(repeated, images, {})
    return np.asarray(images[:, 0, 0]), np.exp(np.asarray(log_prob))


@pytest.mark.parametrize("log_scale", [-9.0, -4.0, -1.0, 0.0, 3.0])
def test_logistic_mixture_of_one_channel_sums_to_1(log_scale):
    with float64():
        likelihood, decoded, *_ = draw("logistic_mixture", (1, 1, 1, 1))
        decoded = decoded.astype(jnp.float64).at[..., 20:].add(log_scale)
        x, probability = colours(likelihood, decoded, [np.arange(256)])
        mean = likelihood.mean(decoded)[0, 0, 0, 0]
    assert probability.sum() == pytest.approx(1, rel=1e-12)
    # The mean is that of the distribution before it is rounded to levels.
    error = 0.5 / 255 if log_scale < -3 else 0.01 / 255
    assert mean == pytest.approx(probability @ x[:, 0], abs=error)


@pytest.mark.parametrize("centre", [(-0.99, 0.2, 0.3), (0.1, -0.3, 0.4)])
def test_logistic_mixture_of_three_channels_sums_to_1(centre):
    # Narrow components that lie together: the colours that matter are few enough to list.
    with float64():
        likelihood, decoded, *_ = draw("logistic_mixture", (1, 1, 1, 3))
        noise = np.asarray(decoded, np.float64).reshape(10, 10)
        numbers = noise.copy()
        numbers[1:4] = np.reshape(centre, (3, 1)) - OFFSET + 0.005 * noise[1:4]
        numbers[4:7] = np.log(0.05) + 0.1 * noise[4:7]
        numbers[7:] = 1 + 0.02 * noise[7:]
        decoded = jnp.asarray(numbers.reshape(1, 1, 1, 100))
        mean = likelihood.mean(decoded)
        middle = np.asarray(255 * mean[0, 0, 0]).round()
        levels = [np.arange(max(m - 25, 0), min(m + 26, 256)) for m in middle]
        x, probability = colours(likelihood, decoded, levels)
    assert probability.sum() == pytest.approx(1, rel=1e-6)
    np.testing.assert_allclose(mean[0, 0, 0], probability @ x, atol=1e-3)


def test_zeros_from_the_decoder_are_nearly_uniform_levels():
    likelihood = make_likelihood("logistic_mixture", 1.0)
    _, probability = colours(likelihood, jnp.zeros((1, 1, 1, 30)), [np.arange(256)])
    bits = -np.log2(probability)
    # The tails make black and white, which images are full of, cheaper still.
    assert bits[1:-1].min() > 7.9
    assert bits.max() < 9


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_extreme_decoder_outputs_stay_finite(name, channels):
    likelihood, decoded, images, own = draw(name, (2, 4, 4, channels))
    outputs = np.float32(-1e4) + 0 * decoded, np.float32(1e4) + 0 * decoded, 5e3 * decoded
    owns = [own, *({key: jnp.asarray(v) for key in own} for v in (-1e4, 1e4))]
    both = jax.jit(jax.value_and_grad(lambda *xs: likelihood.log_prob(*xs).sum(), argnums=(0, 2)))
    for output, own in itertools.product(outputs, owns):
        for target in (images, jnp.round(images), 0 * images):
            value, gradients = both(output, target, own)
            assert np.isfinite(value)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
        mean = np.asarray(jax.jit(likelihood.mean)(output))
        assert mean.shape == images.shape
        assert ((mean >= 0) & (mean <= 1)).all()


@pytest.mark.parametrize("name", NAMES)
def test_exact_reconstructions_have_finite_gradients(name):
    likelihood, decoded, images, own = draw(name)
    images = 0 * images + 0.5
    gradient = jax.jit(jax.grad(lambda d: likelihood.log_prob(d, images, own).sum()))
    gradients = gradient(0 * decoded)
    assert np.isfinite(gradients).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_by_finite_differences(name, channels):
    likelihood, *arguments = draw(name, (1, 2, 1, channels))
    with float64():
        decoded, images, own = jax.tree.map(lambda x: x.astype(jnp.float64), arguments)
        flat, unflatten = ravel_pytree((decoded, own))
        weights = jnp.asarray([1.0])

        @jax.jit
        def value(flat):
            decoded, own = unflatten(flat)
            return likelihood.log_prob(decoded, images, own) @ weights

        flat = np.asarray(flat)
        steps = 1e-5 * np.eye(len(flat))
        wanted = [(value(flat + step) - value(flat - step)) / 2e-5 for step in steps]
        got = jax.jit(jax.grad(value))(flat)
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-8)


def test_the_best_sigma_of_sigma_vae_is_the_mean_squared_error():
    likelihood, logits, images, _ = draw("sigma_vae")
    with float64():
        logits, images = (x.astype(jnp.float64) for x in (logits, images))

        def loss(log_sigma):
            own = {"log_sigma": jnp.asarray(float(log_sigma))}
            return -float(likelihood.log_prob(logits, images, own).sum())

        best = scipy.optimize.minimize_scalar(loss, (-3, 1), tol=1e-10).x
        error = jnp.square(images - likelihood.mean(logits)).mean()
        scale = likelihood.scale({"log_sigma": jnp.asarray(best)})
    assert scale == pytest.approx(float(error), rel=1e-6)


def test_no_sigma_beats_that_of_optimal_sigma_vae():
    fixed, logits, images, _ = draw("sigma_vae")
    optimal = make_likelihood("optimal_sigma_vae", 1.0)
    best = optimal.log_prob(logits, images, {}).sum()
    error = jnp.square(images - optimal.mean(logits)).mean()
    # The clip adds exp(-6) to sigma, which costs (exp(-6) / sigma)^2 for each pixel at most.
    slack = images.size * np.exp(-12) / error
    for log_sigma in np.linspace(-3, 2, 101):
        own = {"log_sigma": jnp.asarray(log_sigma, jnp.float32)}
        assert best + slack >= fixed.log_prob(logits, images, own).sum()
    assert best > fixed.log_prob(logits, images, {"log_sigma": jnp.asarray(0.0)}).sum()


def test_a_calibrated_likelihood_keeps_its_sigma():
    optimal, logits, images, _ = draw("optimal_sigma_vae")
    assert optimal.calibrate is not None
    calibrated = optimal.calibrate(logits, images)
    whole = optimal.log_prob(logits, images, {})
    np.testing.assert_allclose(calibrated.log_prob(logits, images, {}), whole, rtol=1e-6)
    np.testing.assert_allclose(calibrated.log_prob(logits[:1], images[:1], {}), whole[:1], 1e-6)
    assert not np.isclose(optimal.log_prob(logits[:1], images[:1], {})[0], whole[0], rtol=1e-4)
    sigma = np.sqrt(np.square(np.asarray(images - optimal.mean(logits))).mean()) + np.exp(-6)
    assert calibrated.scale({}) == pytest.approx(sigma**2, rel=1e-5)
    assert calibrated.calibrate is None
    assert hash(calibrated) == hash(calibrated)

    @jax.jit
    def inside(logits, images):
        assert optimal.calibrate is not None
        return optimal.calibrate(logits, images).log_prob(logits[:1], images[:1], {})

    np.testing.assert_allclose(inside(logits, images), whole[:1], rtol=1e-6)


@pytest.mark.parametrize("name", ["gaussian", "sigma_vae", "laplace", "calibrated"])
def test_scale_gives_the_beta_of_an_unscaled_error(name):
    likelihood, logits, images, own = draw("optimal_sigma_vae" if name == "calibrated" else name)
    if name == "calibrated":
        assert likelihood.calibrate is not None
        likelihood = likelihood.calibrate(logits, images)

    def error(logits):
        difference = images - likelihood.mean(logits)
        each = jnp.abs(difference) if name == "laplace" else 0.5 * jnp.square(difference)
        return each.sum()

    gradient = jax.grad(lambda x: -likelihood.log_prob(x, images, own).sum())(logits)
    scaled = likelihood.scale(own) * gradient
    np.testing.assert_allclose(scaled, jax.grad(error)(logits), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["bernoulli", "continuous_bernoulli", "logistic_mixture"])
def test_other_scales_are_1(name):
    assert make_likelihood(name, 0.5).scale({}) == 1


def test_bits_per_dim_of_uniform_pixels():
    shape = (4, 4, 3)
    density = make_likelihood("continuous_bernoulli", 1.0)
    nll = -density.log_prob(jnp.zeros((2, *shape)), jnp.full((2, *shape), 0.3), {})
    np.testing.assert_allclose(bits_per_dim(nll, density, shape), 8)
    levels = make_likelihood("logistic_mixture", 1.0)
    assert bits_per_dim(48 * np.log(256), levels, shape) == pytest.approx(8)
    fair = make_likelihood("bernoulli", 1.0)
    nll = -fair.log_prob(jnp.zeros((2, *shape)), jnp.ones((2, *shape)), {})
    np.testing.assert_allclose(bits_per_dim(nll, fair, shape), 1, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_likelihood_may_be_static_and_is_made_once(name):
    compiled = []

    def function(likelihood, decoded):
        compiled.append(name)
        return likelihood.mean(decoded)

    run = jax.jit(function, static_argnums=0)
    for _ in range(2):
        likelihood, decoded, *_ = draw(name)
        run(likelihood, decoded)
    assert len(compiled) == 1


@pytest.mark.parametrize("name", NAMES)
def test_jit_and_vmap_change_nothing(name):
    likelihood, decoded, images, own = draw(name)
    samples = jnp.stack([decoded, decoded[::-1]])
    over_samples = jax.vmap(likelihood.log_prob, in_axes=(0, None, None))
    got = jax.jit(over_samples)(samples, images, own)
    wanted = [likelihood.log_prob(sample, images, own) for sample in samples]
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    np.testing.assert_allclose(
        jax.jit(jax.vmap(likelihood.mean))(samples)[1], likelihood.mean(samples[1]), rtol=1e-5
    )


def test_unknown_likelihood_is_named():
    with pytest.raises(UserError, match=r"Unknown likelihood 'poisson'\. Known: bernoulli"):
        make_likelihood("poisson", 1.0)


def test_a_wrong_number_of_mixture_parameters_is_named():
    likelihood, decoded, images, own = draw("logistic_mixture", (2, 8, 8, 3))
    message = r"gives 90 numbers for each pixel; logistic_mixture wants 100 for 3 channels"
    with pytest.raises(UserError, match=message):
        likelihood.log_prob(decoded[..., :90], images, own)
    with pytest.raises(UserError, match="gives 35 numbers"):
        likelihood.mean(decoded[..., :35])
