"""The ELBO's KL taken apart: against sums in double precision, and where the answer is known."""

import inspect
import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from statsmodels.regression.linear_model import OLS

from bvae_jax.errors import UserError
from bvae_jax.evaluation import decomposition
from bvae_jax.evaluation.decomposition import Decomposition, decompose
from bvae_jax.metrics.scoring import jsonable

TERMS = ("mutual_information", "total_correlation", "dimension_wise_kl")


def key(seed=3):
    """A fresh one for each use: JAX refuses a key that was used."""
    return jax.random.key(seed)


def posteriors(n, latents, logvar, spread=1.0, seed=0):
    """Random means, and log-variances at and above `logvar`."""
    rng = np.random.default_rng(seed)
    means = rng.normal(0, spread, (n, latents)).astype(np.float32)
    return means, (logvar + rng.uniform(0, 1, (n, latents))).astype(np.float32)


MIXED = np.array([-12, 0, -3, 2], np.float32)
CASES = {
    "broad": posteriors(300, 5, -1.0),
    "narrow": posteriors(300, 3, -12.0, spread=2.0),
    "narrower than single precision": posteriors(50, 2, -40.0, spread=2.0),
    "close and narrow": posteriors(400, 3, -12.0, spread=3e-3),
    "of all widths": posteriors(300, 4, MIXED),
    "many latents": posteriors(200, 128, -4.0, spread=0.3),
    "across blocks": posteriors(2 * decomposition.IMAGES + 1, 2, -2.0),
    "one block": posteriors(decomposition.IMAGES, 2, -2.0),
    "few": posteriors(7, 2, -1.0),
    "one": posteriors(1, 3, -1.0),
}


def brute_force(means, logvars, draws):
    """Each term for each draw, [sample]; the dimension-wise KL is [sample, latent]."""
    m, logvar = means.astype(np.float64), logvars.astype(np.float64)
    z = draws.mean.astype(np.float64) + draws.offset
    log_q = -0.5 * (
        (z[:, None] - m) ** 2 / np.exp(logvar) + logvar + math.log(2 * math.pi)
    )  # [sample, image, latent]
    own = np.argmin(((draws.mean[:, None] - means) ** 2).sum(axis=2), axis=1)
    log_q_of_own = log_q[np.arange(len(z)), own].sum(axis=1)
    joint = np.logaddexp.reduce(log_q.sum(axis=2), axis=1) - math.log(len(m))
    marginal = np.logaddexp.reduce(log_q, axis=1) - math.log(len(m))
    prior = -0.5 * (z**2 + math.log(2 * math.pi))
    return {
        "mutual_information": log_q_of_own - joint,
        "total_correlation": joint - marginal.sum(axis=1),
        "dimension_wise_kl": (marginal - prior).sum(axis=1),
        "kl of the draw": log_q_of_own - prior.sum(axis=1),
    }, marginal - prior


@pytest.mark.parametrize("case", CASES)
def test_terms_are_those_of_double_precision(case):
    means, logvars = CASES[case]
    found = decompose(means, logvars, samples=100, key=key())
    draws = decomposition._draw(means, logvars, 100, key())
    wanted, per_latent = brute_force(means, logvars, draws)
    control = wanted.pop("kl of the draw") - found.kl
    for name, term in wanted.items():
        mean, error = by_regression(term, control)
        np.testing.assert_allclose(getattr(found, name), mean, 1e-5, 2e-4, err_msg=name)
        np.testing.assert_allclose(getattr(found, f"{name}_error"), error, 1e-5, 1e-4)
    each = [by_regression(term, control)[0] for term in per_latent.T]
    np.testing.assert_allclose(found.dimension_wise_kl_per_latent, each, 1e-5, 2e-4)


def by_regression(term, control):
    """The intercept: the term where the control is 0, as it is on average; and its error."""
    if np.ptp(control) < 1e-9:
        return term.mean(), term.std(ddof=2) / math.sqrt(len(term))
    fit = OLS(term, np.stack([np.ones_like(control), control], axis=1)).fit()
    return fit.params[0], math.sqrt(fit.scale / len(term))


def test_the_known_kl_makes_the_terms_more_precise():
    """And the errors that are said are those that there are."""
    means, logvars = posteriors(200, 24, -4.0, spread=0.3)
    plain, found = [], []
    for seed in range(40):
        found.append(decompose(means, logvars, samples=200, key=key(seed)))
        draws = decomposition._draw(means, logvars, 200, key(seed))
        plain.append(brute_force(means, logvars, draws)[0]["total_correlation"].mean())
    values = [each.total_correlation for each in found]
    assert np.std(values) < 0.8 * np.std(plain)
    said = np.mean([each.total_correlation_error for each in found])
    assert said == pytest.approx(np.std(values), rel=0.35)


@pytest.mark.parametrize("case", CASES)
def test_terms_add_up(case):
    found = decompose(*CASES[case], samples=500, key=key())
    assert sum(getattr(found, name) for name in TERMS) == pytest.approx(found.kl, rel=1e-6)
    assert found.dimension_wise_kl_per_latent.sum() == pytest.approx(found.dimension_wise_kl)
    assert found.kl_per_latent.sum() == pytest.approx(found.kl)
    assert (found.samples, found.points) == (500, len(CASES[case][0]))
    limit = math.log(found.points)
    assert -1e-4 <= found.mutual_information <= limit + 1e-4


def test_kl_in_closed_form():
    found = decompose(
        np.array([[1, 0], [3, 0]], np.float32),
        np.log(np.array([[1, 2], [1, 2]], np.float32)),
        samples=3,
        key=key(),
    )
    np.testing.assert_allclose(found.kl_per_latent, [2.5, 0.5 * (1 - math.log(2))], 1e-6)


def gaussian(correlation, n=20_000, variance=0.05):
    """Posteriors whose aggregate is a Gaussian of variance 1 with this correlation, nearly."""
    covariance = np.array([[1, correlation], [correlation, 1]]) - variance * np.eye(2)
    means = np.random.default_rng(1).multivariate_normal(np.zeros(2), covariance, n)
    return means.astype(np.float32), np.full((n, 2), math.log(variance), np.float32)


@pytest.mark.parametrize("correlation", [0.0, 0.5, -0.8])
def test_gaussian_aggregate_posterior(correlation):
    """TC = -log(1 - r^2) / 2; KL(q(z_j) || p) = 0; what is left of the KL is information."""
    found = decompose(*gaussian(correlation), samples=2000, key=key())
    wanted = -0.5 * math.log(1 - correlation**2)
    assert abs(found.total_correlation - wanted) < 4 * found.total_correlation_error + 0.01
    assert found.total_correlation_error < 0.03
    assert found.dimension_wise_kl == pytest.approx(0, abs=0.01)
    information = found.kl - wanted
    assert abs(found.mutual_information - information) < 4 * found.mutual_information_error + 0.02


def test_posteriors_that_are_all_alike_tell_nothing():
    means, logvars = (np.repeat(x[:1], 1000, axis=0) for x in posteriors(1, 4, -3.0))
    found = decompose(means, logvars, samples=300, key=key())
    assert found.mutual_information == pytest.approx(0, abs=1e-5)
    assert found.total_correlation == pytest.approx(0, abs=1e-5)
    assert found.dimension_wise_kl == pytest.approx(found.kl, abs=1e-5)
    assert found.active_latents == 0
    assert found.sentence.startswith("No latent is active")


def test_posteriors_that_are_all_apart_tell_everything():
    n, latents = 1000, 3
    means = np.linspace(-100, 100, n, dtype=np.float32)[:, None] * np.ones(latents, np.float32)
    found = decompose(means, np.full_like(means, -12), samples=100, key=key())
    assert found.mutual_information == pytest.approx(math.log(n), abs=1e-5)
    assert found.mutual_information_error == pytest.approx(0, abs=1e-5)
    # Each latent tells the image, and so the other latents.
    assert found.total_correlation == pytest.approx((latents - 1) * math.log(n), abs=1e-4)
    assert "ceiling, log 1000 = 6.91" in found.sentence


def test_order_of_images_changes_the_draws_alone():
    means, logvars = posteriors(3000, 4, -2.0)
    order = np.random.default_rng(2).permutation(3000)
    a = decompose(means, logvars, samples=2000, key=key())
    b = decompose(means[order], logvars[order], samples=2000, key=key())
    np.testing.assert_allclose(a.kl_per_latent, b.kl_per_latent)
    assert a.active_latents == b.active_latents
    for name in TERMS:
        error = math.hypot(getattr(a, f"{name}_error"), getattr(b, f"{name}_error"))
        difference = abs(getattr(a, name) - getattr(b, name))
        assert 0 < difference < 4 * error


def same(a, b, atol):
    for name, value in a._asdict().items():
        if not isinstance(value, str):
            np.testing.assert_allclose(value, getattr(b, name), rtol=0, atol=atol, err_msg=name)


def test_the_key_decides():
    means, logvars = posteriors(50, 2, -1.0)
    a = decompose(means, logvars, samples=60, key=key())
    same(a, decompose(means, logvars, samples=60, key=key()), 0)
    other = decompose(means, logvars, samples=60, key=key(4))
    assert other.mutual_information != a.mutual_information


@pytest.mark.parametrize(
    ("images", "blocks", "draws"), [(1, 1000, 9), (64, 3, 1000), (100, 1, 100)]
)
def test_blocks_do_not_matter(monkeypatch, images, blocks, draws):
    means, logvars = posteriors(1001, 3, -4.0)
    whole = decompose(means, logvars, samples=203, key=key())
    monkeypatch.setattr(decomposition, "IMAGES", images)
    monkeypatch.setattr(decomposition, "BLOCKS", blocks)
    monkeypatch.setattr(decomposition, "DRAWS", draws)
    same(whole, decompose(means, logvars, samples=203, key=key()), 1e-5)


def test_memory_does_not_grow_with_images_or_draws(monkeypatch):
    seen = []

    def sums(*arrays):
        seen.append([array.shape for array in arrays])
        return jnp.ones(len(arrays[3])), jnp.ones(arrays[3].shape)

    n, samples, latents = 100_000, 3000, 2
    monkeypatch.setattr(decomposition, "_sums", sums)
    decompose(*posteriors(n, latents, -1.0), samples=samples, key=key())
    whole = (decomposition.BLOCKS, latents, decomposition.IMAGES)
    assert len(seen) == math.ceil(n / whole[0] / whole[2]) * math.ceil(
        samples / decomposition.DRAWS
    )
    for blocks, _, _, draws, *_ in seen:
        assert blocks <= whole
        assert draws[0] <= decomposition.DRAWS


def test_memory_of_a_call():
    """About two arrays of [draw, latent, image] for one block, and not for all."""
    latents = 128
    blocks = jax.ShapeDtypeStruct(
        (decomposition.BLOCKS, latents, decomposition.IMAGES), jnp.float32
    )
    draws = jax.ShapeDtypeStruct((decomposition.DRAWS, latents), jnp.float32)
    function = inspect.unwrap(decomposition._sums)
    compiled = jax.jit(function).lower(blocks, blocks, blocks, draws, draws, draws).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 100e6  # pyright: ignore


def test_extreme_posteriors_stay_finite():
    means = np.array([[0, 1e30], [2, -1e4], [-3, 5], [1, 1]], np.float32)
    logvars = np.array([[-300, 0], [300, -1e5], [-60, 60], [-1, 1e30]], np.float32)
    found = decompose(means, logvars, samples=100, key=key())
    json.dumps(jsonable(found), allow_nan=False)


def test_a_kl_without_information_makes_no_latent_active():
    rng = np.random.default_rng(0)
    means = np.stack([rng.normal(size=500), 0.05 * rng.normal(size=500), np.full(500, 2.0)], 1)
    logvars = np.zeros((500, 3))
    logvars[:, 0] = -3
    found = decompose(means, logvars, samples=10, key=key())
    assert found.active_latents == 1  # The first alone varies by more than 0.01.
    assert found.kl_per_latent[2] == pytest.approx(2)
    assert "1 of 3 latents are active" in found.sentence


def test_a_collapsed_posterior_is_named():
    means, logvars = np.full((500, 4), 0.01, np.float32), np.zeros((500, 4), np.float32)
    found = decompose(means, logvars, samples=50, key=key())
    assert found.sentence.startswith("No latent is active")
    assert found.active_latents == 0
    for name in (*TERMS, "kl"):
        assert getattr(found, name) == pytest.approx(0, abs=0.01)


def test_the_sentence_of_a_good_posterior():
    found = decompose(*gaussian(0.5), samples=500, key=key())
    assert found.sentence.startswith("2 of 2 latents are active (")
    information, dependence, distance = re.findall(
        r"(-?[\d.]+) (?:tell|are dep|dist)", found.sentence
    )
    assert float(information) == pytest.approx(found.mutual_information, abs=0.006)
    assert float(dependence) == pytest.approx(found.total_correlation, abs=0.006)
    assert float(distance) == pytest.approx(max(found.dimension_wise_kl, 0), abs=0.006)
    assert "ceiling" not in found.sentence
    assert "\n" not in found.sentence


def test_an_average_below_0_is_0_in_words():
    of = gaussian(0.5, n=200, variance=0.4)
    few = (decompose(*of, samples=4, key=key(seed)) for seed in range(8))
    found = min(few, key=lambda each: each.dimension_wise_kl)
    assert found.dimension_wise_kl < -0.01
    assert " 0.00 distance of single latents" in found.sentence


def test_json_holds_every_number():
    found = decompose(*posteriors(20, 3, -1.0), samples=10, key=key())
    read = json.loads(json.dumps(jsonable(found), allow_nan=False))
    assert set(read) == set(Decomposition._fields)
    assert len(read["kl_per_latent"]) == len(read["dimension_wise_kl_per_latent"]) == 3
    for name, value in found._asdict().items():
        assert read[name] == (value.tolist() if isinstance(value, np.ndarray) else value)


GOOD = np.zeros((4, 2), np.float32)
NAN = np.array([[0, 0], [0, np.nan]], np.float32)


@pytest.mark.parametrize(
    ("means", "logvars", "samples", "message"),
    [
        (GOOD, GOOD[1:], 10, r"logvars: got shape \(3, 2\), wanted that of means, \(4, 2\)"),
        (GOOD, GOOD[:, 1:], 10, "logvars: got shape"),
        (GOOD[0], GOOD, 10, r"means: got shape \(2,\)"),
        (GOOD[:0], GOOD[:0], 10, "means: got shape"),
        (GOOD[:, :0], GOOD[:, :0], 10, "means: got shape"),
        (NAN, NAN, 10, "means: 1 of 4 numbers are not finite .* row 1"),
        (GOOD[:2], NAN, 10, "logvars: 1 of 4 numbers are not finite"),
        (GOOD.astype(float) + 1e300, GOOD, 10, "means: 8 of 8 numbers are not finite"),
        (GOOD, GOOD, 1, "samples: got 1, wanted 3 or more"),
    ],
)
def test_bad_arguments_are_named_in_one_line(means, logvars, samples, message):
    # Without the checks of shapes from outside, which users do not have.
    plain = inspect.unwrap(decompose)
    with pytest.raises(UserError, match=message) as error:
        plain(means, logvars, samples=samples, key=key())
    assert "\n" not in str(error.value)


def test_progress_counts_images(capsys):
    decompose(*posteriors(300, 2, -1.0), samples=10, key=key(), progress=True)
    assert "300/300" in capsys.readouterr().err
    decompose(*posteriors(300, 2, -1.0), samples=10, key=key())
    assert capsys.readouterr().err == ""
