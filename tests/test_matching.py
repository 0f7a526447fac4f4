"""Which latent of one run is which of another."""

import itertools

import jaxtyping
import numpy as np
import pytest
from scipy import stats

from bvae_jax.comparison.matching import correlations, match


def mixed(n, k, seed=0):
    """Correlated codes [n, k], so that the best pairs are not obvious."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, k)) @ rng.standard_normal((k, k))


def test_correlations_are_scipys():
    rng = np.random.default_rng(0)
    a = mixed(60, 3)
    b = np.round(a[:, :2] @ rng.standard_normal((2, 4)) + rng.standard_normal((60, 4)))  # with ties
    wanted = np.array([[stats.pearsonr(x, y)[0] for y in b.T] for x in a.T], float)
    np.testing.assert_allclose(correlations(a, b), wanted, atol=1e-12)


def test_what_is_constant_correlates_with_nothing():
    a = mixed(50, 3).astype(np.float32)
    a[:, 1] = 0.1
    b = np.concatenate([a[:, :1], np.full((50, 1), 7.0)], axis=1)
    r = correlations(a, b)
    assert r[0, 0] == pytest.approx(1)
    assert r[0, 0] <= 1
    np.testing.assert_array_equal(r[1], 0)
    np.testing.assert_array_equal(r[:, 1], 0)


def test_correlations_do_not_depend_on_shift_and_scale():
    a, b = mixed(50, 3), mixed(50, 2, seed=1)
    r = correlations(a, b)
    np.testing.assert_allclose(correlations(1e-9 * a, b * 1e6 - 1e7), r, atol=1e-6)
    np.testing.assert_allclose(correlations(-a, b), -r)


@pytest.mark.parametrize("seed", range(5))
def test_planted_permutations_and_signs_are_found(seed):
    rng = np.random.default_rng(seed)
    reference = rng.standard_normal((300, 10))
    order, sign = rng.permutation(10), rng.choice([-1, 1], 10)
    other = np.empty_like(reference)
    other[:, order] = reference * sign * rng.uniform(0.1, 10, 10)  # latent i is now order[i]
    other += 0.3 * other.std(axis=0) * rng.standard_normal(other.shape) + 5
    found = match(reference, other)
    np.testing.assert_array_equal(found.partner, order)
    np.testing.assert_array_equal(found.sign, sign)
    assert found.correlation.min() > 0.9
    aligned = found.sign * other[:, found.partner]
    r = correlations(reference, aligned)
    np.testing.assert_allclose(np.diag(r), found.correlation)


@pytest.mark.parametrize(("k", "m"), [(1, 1), (4, 4), (5, 5), (3, 5), (5, 2), (1, 3)])
@pytest.mark.parametrize("seed", range(4))
def test_no_other_pairing_is_better(k, m, seed):
    rng = np.random.default_rng(seed)
    a = mixed(40, k, seed)
    b = a @ rng.standard_normal((k, m)) + rng.standard_normal((40, m))
    r = np.abs(correlations(a, b))
    if k <= m:
        best = max(r[range(k), list(p)].sum() for p in itertools.permutations(range(m), k))
    else:
        best = max(r[list(p), range(m)].sum() for p in itertools.permutations(range(k), m))
    found = match(a, b)
    assert found.correlation.sum() == pytest.approx(best)
    partners = found.partner[found.partner >= 0]
    assert len(set(partners)) == len(partners) == min(k, m)


def test_the_sum_counts_and_not_each_latents_best():
    """Both latents of the reference are closest to the same one."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 500))
    reference = np.stack([x, x + 0.5 * y], axis=1)
    other = np.stack([x + 0.1 * y, y], axis=1)
    assert np.abs(correlations(reference, other)).argmax(axis=1).tolist() == [0, 0]
    assert match(reference, other).partner.tolist() == [0, 1]


def test_dead_and_constant_latents_have_no_partner():
    reference = mixed(80, 4)
    reference[:, 2] = 3.0
    other = -reference[:, [3, 2, 1, 0]]
    found = match(reference, other, usable_reference=np.array([False, True, True, True]))
    assert found.partner.tolist() == [-1, 2, -1, 0]
    assert found.correlation[[0, 2]].tolist() == [0, 0]
    assert found.sign.tolist() == [1, -1, 1, -1]
    usable = np.array([True, True, False, True])  # the image of latent 1 is dead
    found = match(reference, other, usable_other=usable)
    assert found.partner.tolist() == [3, -1, -1, 0]


def test_the_dead_are_left_out_even_if_they_fit_best():
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((100, 2))
    other = np.concatenate([reference, reference + rng.standard_normal((100, 2))], axis=1)
    assert match(reference, other).partner.tolist() == [0, 1]
    alive = np.array([False, False, True, True])
    assert match(reference, other, usable_other=alive).partner.tolist() == [2, 3]


def test_nothing_to_pair():
    codes, none = mixed(20, 3), np.zeros(3, bool)
    assert match(codes, codes, usable_other=none).partner.tolist() == [-1, -1, -1]
    found = match(codes, codes, usable_reference=none)
    assert found.partner.tolist() == [-1, -1, -1]
    assert found.sign.tolist() == [1, 1, 1]
    assert found.correlation.tolist() == [0, 0, 0]
    assert match(np.ones((1, 2)), np.ones((1, 1))).partner.tolist() == [-1, -1], "one point"


def test_codes_that_do_not_fit():
    codes = mixed(20, 3)
    with pytest.raises((ValueError, jaxtyping.TypeCheckError)):
        match(codes, codes[:-1])
    with pytest.raises(ValueError, match="not finite"):
        match(codes, np.where(codes > 1, np.nan, codes))
