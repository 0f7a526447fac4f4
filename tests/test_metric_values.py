"""Scores against other libraries, closed forms, plain loops and small cases done by hand."""

import inspect
import itertools
import warnings
from typing import Any

import jax
import numpy as np
import pytest
from metric_points import FACTORS, MIXED, ROTATED, TRAIN, TRUE, arrays, score
from scipy.integrate import quad
from scipy.linalg import sqrtm
from scipy.stats import entropy, norm, pearsonr, spearmanr
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    log_loss,
    mutual_info_score,
    roc_auc_score,
)
from sklearn.model_selection import KFold
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

from bvae_jax.continuous import Numbers
from bvae_jax.metrics import (
    METRICS,
    active_units,
    base,
    beta_vae_score,
    dci,
    dci_es,
    dcimig,
    downstream,
    explicitness,
    factor_vae_score,
    infomec,
    irs,
    jemmig,
    matched_information,
    mcc,
    med,
    mig,
    mig_chen,
    mig_sup,
    modularity,
    rmig,
    sap,
    sap_r2,
    udr,
    unsupervised,
)
from bvae_jax.metrics.dci import completeness, disentanglement
from bvae_jax.metrics.matching import Matching
from bvae_jax.metrics.trees import boosted_trees, regression_trees

X, X_TEST = MIXED.codes[:TRAIN], MIXED.codes[TRAIN:]
Y, Y_TEST = FACTORS[:TRAIN], FACTORS[TRAIN:]
BINNED = np.stack(
    [np.digitize(c, np.histogram(c, 20)[1][1:-1]) for c in X.T], axis=1
)  # as disentanglement_lib does
INFORMATION = np.array([[mutual_info_score(z, v) for v in Y.T] for z in BINNED.T])
ENTROPY = np.array([entropy(np.bincount(v)) for v in Y.T])

# Two factors of two values, each pair 25 times; 2 log 2 nats in all.
GRID = np.repeat(list(itertools.product(range(2), range(2))), 25, axis=0)
BIT = np.log(2)
NOTHING = np.tile(np.arange(25.0), 4)  # independent of both factors
OWN = GRID.astype(float)  # latent j is factor j
BOTH = (2.0 * GRID[:, :1] + GRID[:, 1:]).astype(float)  # one latent tells both factors
BOTH_AND_NOTHING = np.column_stack([BOTH, NOTHING])
COPIED = np.stack([GRID[:, 0], GRID[:, 0], GRID[:, 1]], axis=1).astype(float)


def test_bins_information_and_entropy():
    np.testing.assert_array_equal(base.discretize(X), BINNED)
    np.testing.assert_allclose(base.mutual_information(BINNED, Y), INFORMATION, atol=1e-12)
    np.testing.assert_allclose(base.entropies(Y), ENTROPY, atol=1e-12)
    assert base.discretize(np.array([[0.0], [0.49], [0.5], [1.0]]), 2).ravel().tolist() == [
        *(0, 0, 1, 1)
    ]
    assert base.discretize(np.full((3, 1), 7.0)).var() == 0


def test_mig_and_its_kin_on_another_library_s_information():
    ordered = np.sort(INFORMATION, axis=0)
    gap = (ordered[-1] - ordered[-2]) / ENTROPY
    np.testing.assert_allclose(mig(X, Y)["per_factor"], gap, atol=1e-12)
    squared = INFORMATION**2
    modular = 1 - (squared.sum(1) - squared.max(1)) / (squared.max(1) * 2)
    assert modularity(X, Y)["score"] == pytest.approx(modular.mean(), abs=1e-12)
    shares = INFORMATION / INFORMATION.sum(axis=0)
    weights = shares.sum(axis=1) / shares.sum()
    by_latent = 1 - entropy(shares, axis=1) / np.log(3)
    assert med(X, Y)["score"] == pytest.approx(weights @ by_latent, abs=1e-12)


@pytest.mark.parametrize(
    ("metric", "own", "both", "copied"),
    [
        # One latent for both factors: no other latent, so the whole bit is a gap.
        (mig, 1, 1, 0.5),
        # That latent does not tell its factor from the other one.
        (mig_sup, 1, 0, 1),
        (dcimig, 1, 0, 1),
        (med, 1, 0, 1),
        (modularity, 1, 0, 1),
        # 1 - (joint entropy - gap) / (log 2 + log 20): H(z, v) is one bit, two bits, one bit.
        (jemmig, 1, 1 - BIT / (BIT + np.log(20)), 1 - BIT / 2 / (BIT + np.log(20))),
    ],
)
def test_gaps_by_hand(metric, own, both, copied):
    found = [metric(codes, GRID)["score"] for codes in (OWN, BOTH_AND_NOTHING, COPIED)]
    np.testing.assert_allclose(found, [own, both, copied], atol=1e-9)
    with_noise = metric(np.column_stack([OWN, np.zeros(100)]), GRID)["score"]
    assert with_noise == pytest.approx(own)


def test_entries_by_hand():
    assert jemmig(BOTH, GRID)["jemmig"] == pytest.approx(BIT)
    assert jemmig(np.column_stack([OWN, NOTHING]), GRID)["jemmig"] == pytest.approx(0, abs=1e-12)
    assert dcimig(COPIED, GRID)["latent"].tolist() == [0, 2]
    assert dcimig(BOTH, GRID)["latent"].tolist() == [-1, -1]
    half = dcimig(OWN[:, :1], GRID)
    assert half["score"] == pytest.approx(0.5)
    assert half["per_factor"] == pytest.approx([1, 0])
    assert med(COPIED, GRID)["latent_weight"] == pytest.approx([0.25, 0.25, 0.5])


def test_concentration_of_importances():
    matrix = np.random.default_rng(3).random((4, 3))
    score_d, per_latent, share = disentanglement(matrix)
    np.testing.assert_allclose(per_latent, 1 - entropy(matrix, axis=1) / np.log(3))
    np.testing.assert_allclose(share, matrix.sum(axis=1) / matrix.sum())
    assert score_d == pytest.approx(share @ per_latent)
    score_c, per_factor, share = completeness(matrix)
    np.testing.assert_allclose(per_factor, 1 - entropy(matrix, axis=0) / np.log(4))
    assert score_c == pytest.approx((matrix.sum(axis=0) / matrix.sum()) @ per_factor)
    assert disentanglement(np.eye(3))[0] == completeness(np.eye(3))[0] == 1
    unknown = np.column_stack([matrix, np.full(4, np.nan)])
    assert disentanglement(unknown)[0] == pytest.approx(score_d)
    assert completeness(unknown)[0] == pytest.approx(score_c)
    assert disentanglement(np.zeros((2, 2)))[0] == 0


def _closed_form_information(shift, stds):
    """I(z; v) of z = N(-shift, stds[0]^2) or N(shift, stds[1]^2) by v, by quadrature."""

    def density(z):
        return 0.5 * (norm.pdf(z, -shift, stds[0]) + norm.pdf(z, shift, stds[1]))

    reach = shift + 10 * max(stds)
    found = quad(lambda z: -density(z) * np.log(density(z)), -reach, reach, points=[-shift, shift])
    return found[0] - np.mean([norm(0, std).entropy() for std in stds])


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0, 3.0])
def test_chen_s_mig_of_two_gaussians(shift):
    codes = np.column_stack([shift * (2 * GRID[:, 0] - 1), np.zeros(100)])
    stds = np.array([0.4, 1.0])
    logvars = np.column_stack([2 * np.log(stds[GRID[:, 0]]), np.zeros(100)])
    found = mig_chen(codes, GRID, logvars, jax.random.key(3), samples=20_000)
    want = _closed_form_information(shift, stds)
    np.testing.assert_allclose(found["mutual_information"][0], [want, 0], atol=0.01)
    np.testing.assert_allclose(found["mutual_information"][1], 0, atol=1e-6)
    np.testing.assert_allclose(found["per_factor"], [want / BIT, 0], atol=0.015)
    only = mig_chen(codes, GRID, logvars, jax.random.key(4), leave_out=(1,), samples=500)
    assert only["score"] == only["per_factor"][0]
    sized = mig_chen(codes, GRID, logvars, jax.random.key(4), np.array([4, 8]), samples=500)
    np.testing.assert_allclose(sized["per_factor"] * [2, 3], only["per_factor"])
    flat = mig_chen(codes, GRID * [1, 0], logvars, jax.random.key(4), np.array([2, 3]), samples=500)
    assert np.isnan(flat["per_factor"]).tolist() == [False, True]
    assert flat["score"] == flat["per_factor"][0]


@pytest.mark.parametrize(("shift", "logvar"), [(0, -30.0), (0, -38.0), (0, -42.0), (1e8, -30.0)])
def test_chen_s_mig_of_narrow_posteriors_anywhere(shift, logvar):
    """A latent with a peak for each point, narrower than single precision, knows all factors."""
    codes = shift + np.column_stack([np.random.default_rng(0).standard_normal(100), np.zeros(100)])
    found = mig_chen(codes, GRID, np.full((100, 2), logvar), jax.random.key(3), samples=2_000)
    np.testing.assert_allclose(found["mutual_information"], [[BIT, BIT], [0, 0]], atol=0.05)


def test_rmig_spreads_points_over_bins():
    variances = (None, 1e-20, 0.01, 0.1, 1.0, 1e4)
    logvars = [None if v is None else np.full(X.shape, np.log(v)) for v in variances]
    scores = [rmig(X, Y, logvar)["score"] for logvar in logvars]
    assert scores[0] == pytest.approx(mig(X, Y)["score"], abs=1e-12)
    assert scores[1] == pytest.approx(scores[0], abs=1e-3)
    assert scores[2] > scores[3] > scores[4] > scores[5]
    assert scores[5] == pytest.approx(0, abs=1e-3)
    # Two bins, open outside, of points at 0 and 1: each leaks what lies beyond 1/2.
    std, classes = 0.4, GRID[:, :1]
    found = rmig(OWN[:, :1], classes, np.full((100, 1), 2 * np.log(std)), bins=2)
    leak = norm.cdf(-0.5 / std)
    assert found["rmig"] == pytest.approx(BIT - entropy([leak, 1 - leak]))


def test_jemmig_spreads_points_over_bins():
    """Two bins, open outside, of points at 0 and 1, each leaking what lies beyond 1/2."""
    std = 0.4
    logvars = np.full(OWN.shape, 2 * np.log(std))
    leaks = entropy([norm.cdf(-0.5 / std), norm.cdf(0.5 / std)])
    found = jemmig(OWN, GRID, logvars, bins=2)
    # H(z, v) = H(v) + H(z|v); I = H(z) - H(z|v); nothing is known of the other factor.
    assert found["jemmig"] == pytest.approx((BIT + leaks) - (BIT - leaks))
    assert found["score"] == pytest.approx(1 - 2 * leaks / (BIT + np.log(2)))
    assert found["notes"] == []
    points, narrow = jemmig(X, Y), jemmig(X, Y, np.full(X.shape, -46.0))
    assert points["jemmig"] == pytest.approx(narrow["jemmig"], abs=1e-3)
    assert "deterministic" in points["notes"][0]


@pytest.mark.parametrize("metric", [rmig, jemmig])
def test_means_over_factors_leave_out_those_of_one_value(metric):
    more = np.column_stack([Y, np.full(TRAIN, 3)])
    one, other = metric(X, Y), metric(X, more)
    for name in ("score", metric.__name__):
        assert other[name] == pytest.approx(one[name])
    assert np.isnan(other["per_factor"][3])


@pytest.mark.parametrize("dead", [0, 2, 8])
def test_latents_that_hardly_vary_do_not_count(dead):
    rng = np.random.default_rng(dead)
    factors = rng.integers((8, 12), size=(10_000, 2))
    live = (factors - factors.mean(axis=0)) / factors.std(axis=0)
    codes = np.column_stack([live, 0.02 * rng.standard_normal((10_000, dead))])
    assert mig_sup(codes, factors)["score"] == pytest.approx(1, abs=0.01)
    kl = np.array([2.0, 2.0, *[3.0] * dead])  # however large it is
    assert modularity(codes, factors, kl)["score"] == pytest.approx(1, abs=0.01)
    pairs = unsupervised(np.column_stack([codes, live[:, 0]]), np.append(kl, 2.0))
    known = mutual_info_score(factors[:, 0], factors[:, 0])
    assert pairs["mutual_information"] == pytest.approx(known / 3, abs=0.01)


def test_mig_sup_judges_by_the_variance():
    scaled = OWN * [1, 0.19]  # variances 0.25 and 0.009
    assert np.isnan(mig_sup(scaled, GRID)["per_latent"]).tolist() == [False, True]
    assert mig_sup(0.01 * OWN, GRID)["score"] == 0
    # The unbiased one: 0.01008 over 99, 0.00998 over 100.
    assert mig_sup(0.1998 * OWN, GRID)["score"] == pytest.approx(1)


def test_dsprites_shape_alone_is_left_out_as_published():
    chen = METRICS["mig_chen"]
    logvars, key = np.zeros(OWN.shape), jax.random.key(4)
    for sizes, left_out in (
        ((3, 6, 40, 32, 32), 0),
        ((1, 3, 6, 40, 32, 32), 1),
        ((10, 10, 10, 8, 4, 15), None),
        ((6, 40, 32, 32), None),
    ):
        factors = np.random.default_rng(0).integers(np.minimum(sizes, 2), size=(100, len(sizes)))
        arrays = (OWN, factors, logvars, key, np.array(sizes))
        found = chen.function(*arrays, samples=500, **chen.compat)
        kept = [k for k in range(len(sizes)) if k != left_out]
        assert found["score"] == pytest.approx(np.nanmean(found["per_factor"][kept]))
        whole = found["score"] == pytest.approx(np.nanmean(found["per_factor"]))
        assert bool(whole) == (left_out is None)


def test_sap_r2_is_squared_correlation():
    r2 = np.corrcoef(X.T, Y.T)[:5, 5:] ** 2
    found = sap_r2(X, Y)
    assert sap_r2(1e-9 * X, Y)["score"] == pytest.approx(found["score"])  # whatever the unit
    np.testing.assert_allclose(found["r2"], r2, atol=1e-12)
    ordered = np.sort(r2, axis=0)
    assert found["score"] == pytest.approx((ordered[-1] - ordered[-2]).mean())


def test_irs_by_hand():
    # Latent 0 is factor 0: holding it nothing moves; holding factor 1 it moves by 1/2, which is
    # all. Latent 1 has 0, 0, 0, 3 at the four pairs, mean 3/4, at most 9/4 away from it.
    codes = np.column_stack([OWN[:, 0], 3 * GRID[:, 0] * GRID[:, 1]])
    found = irs(codes, GRID, quantile=1.0)
    # Either value held: 0 away from 0, or 3/2 away from 3/2.
    second = 1 - 0.5 * (0 + 1.5) / 2.25
    np.testing.assert_allclose(found["matrix"], [[1, 0], [second, second]], atol=1e-12)
    assert found["score"] == pytest.approx((0.5 * 1 + 2.25 * second) / 2.75)
    assert found["factor"][0] == 0
    # Factors of up to 20 values are not cut; any quantile, by a loop.
    for j, k in ((0, 0), (3, 1), (4, 2)):
        z, v = X[:, j], Y[:, k]
        groups = [z[v == value] for value in range(v.max() + 1)]
        moved = np.mean([np.quantile(np.abs(g - g.mean()), 0.9) for g in groups])
        matrix = irs(X, Y, quantile=0.9)["matrix"]
        assert matrix[j, k] == pytest.approx(1 - moved / np.abs(z - z.mean()).max())


def test_irs_takes_no_constant_factor_for_the_best():
    """A rare value moves the latent far; all values together hide that beyond the quantile."""
    rare = np.arange(600) < 3
    codes = 0.1 * np.random.default_rng(0).standard_normal((600, 1))
    codes[:3, 0] = [-10, 0, 10]
    one, more = (
        irs(codes, np.column_stack(columns)) for columns in ([rare * 1], [rare * 1, 0 * rare])
    )
    assert more["score"] == one["score"] < 0.6
    assert more["factor"].tolist() == [0]
    assert np.isnan(more["matrix"][0, 1])


def test_total_and_wasserstein_correlation():
    covariance = np.cov(X.T)
    found = unsupervised(X)
    std = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(std, std)
    total = -0.5 * np.log(np.linalg.det(correlation))
    assert found["gaussian_total_correlation"] == pytest.approx(total)
    independent = np.diag(np.diag(covariance))
    root = sqrtm(independent)
    cross = np.real(sqrtm(root @ covariance @ root))
    distance = np.trace(covariance + independent - 2 * cross)
    assert found["wasserstein_correlation"] == pytest.approx(distance)
    assert found["wasserstein_correlation_norm"] == pytest.approx(distance / np.trace(covariance))
    pairs = [mutual_info_score(a, b) for a, b in itertools.combinations(BINNED.T, 2)]
    assert found["mutual_information"] == pytest.approx(np.mean(pairs))
    constant = np.column_stack([X, np.ones(TRAIN)])
    assert np.isnan(unsupervised(constant, keep_constant=True)["gaussian_total_correlation"])
    with_constant = unsupervised(constant)["gaussian_total_correlation"]
    assert with_constant == pytest.approx(total)


def _votes(codes, factors, points, votes, prune=0.05):
    """Shares of (factor, latent of least relative variance) as the paper describes them."""
    rng = np.random.default_rng(8)
    table = np.zeros((codes.shape[1], factors.shape[1]))
    spread = codes.var(axis=0, ddof=1)
    for _ in range(votes):
        k = rng.integers(factors.shape[1])
        value = factors[rng.integers(len(factors)), k]
        rows = rng.choice(np.flatnonzero(factors[:, k] == value), points)
        relative = np.where(np.sqrt(spread) >= prune, codes[rows].var(axis=0) / spread, np.inf)
        table[np.argmin(relative), k] += 1
    return table / votes


def test_factor_vae_s_votes_against_a_loop():
    codes = X * [1, 1, 1, 1, 0.01]
    found = factor_vae_score(codes, Y, jax.random.key(5), points=3, train_votes=20_000)
    shares = _votes(codes, Y, 3, 4_000)
    np.testing.assert_allclose(found["votes"] / 20_000, shares, atol=0.025)
    assert found["active"].tolist() == [True] * 4 + [False]
    assert found["votes"].sum() == 20_000
    assert found["score"] == pytest.approx(shares.max(axis=1).sum(), abs=0.04)


def test_no_constant_latent_votes_where_none_is_pruned():
    codes = np.column_stack([np.ones(100), OWN])
    found = factor_vae_score(
        codes, GRID, jax.random.key(0), points=20, train_votes=100, test_votes=100, prune_std=0.0
    )
    assert found["active"].tolist() == [False, True, True]
    assert found["score"] == 1


def test_beta_vae_s_votes_against_a_loop():
    """One latent per factor: the smallest mean difference names the factor, if it is zero."""
    rng = np.random.default_rng(9)
    accuracy = []
    for _ in range(2_000):
        k = rng.integers(2)
        first = rng.integers(100, size=2)
        second = [rng.choice(np.flatnonzero(GRID[:, k] == GRID[row, k])) for row in first]
        difference = np.abs(OWN[first] - OWN[second]).mean(axis=0)
        # Of two pairs the other latent agrees as well once in four; then there is nothing to see.
        accuracy.append(0.5 if difference.max() == 0 else float(difference.argmin() == k))
    found = beta_vae_score(OWN, GRID, jax.random.key(6), pairs=2)
    assert found["score"] == pytest.approx(np.mean(accuracy), abs=0.02)
    assert found["score"] == pytest.approx(1 - 0.25 / 2, abs=0.02)


def test_partners_share_the_value_and_are_uniform():
    factors = np.array([[0], [0], [1], [1], [1], [2]])
    matching = Matching(factors)
    assert matching.notes == ["factor 0: 1 of 3 values have a single row and are left out"]
    rng = np.random.default_rng(0)
    rows = matching.rows(rng, 0, 50_000)
    np.testing.assert_allclose(np.bincount(rows, minlength=6) / 50_000, [0.2] * 5 + [0], atol=0.01)
    partners = matching.partners(rng, 0, rows)
    assert (factors[rows] == factors[partners]).all()
    after_two = partners[rows == 2]
    np.testing.assert_allclose(np.bincount(after_two)[2:] / len(after_two), 1 / 3, atol=0.02)


def test_udr_of_copies_and_of_strangers():
    rng = np.random.default_rng(4)
    grid = np.array(list(itertools.product(range(-2, 3), repeat=3)), float)
    copies = [grid, -3 * grid[:, [2, 0, 1]] + 1, grid[:, ::-1] * [2, -1, 5]]
    assert udr(copies)["score"] == pytest.approx(0.9)  # the lasso takes 0.1 of each
    bent = udr([grid**3, *copies[1:]], similarity="spearman")
    np.testing.assert_allclose(bent["per_run"], 1)
    assert udr([grid[:, :2], *copies[1:]])["score"] == pytest.approx((0.9 + 0.9 * 2 / 3) / 2)
    strangers = [rng.standard_normal((500, 4)) for _ in range(3)]
    assert udr(strangers)["score"] < 0.02
    assert udr(strangers, similarity="spearman")["score"] < 0.1
    # By hand, with rank correlations: mean over both sides of max^2 / sum.
    r = np.abs(np.asarray(spearmanr(strangers[0], strangers[1])[0])[:4, 4:])
    sides = [np.mean(m.max(axis=0) ** 2 / m.sum(axis=0)) for m in (r, r.T)]
    pairs = udr(strangers[:2], similarity="spearman")["pairs"]
    assert pairs[0, 1] == pytest.approx(np.mean(sides))
    quiet = [strangers[0] * [1, 1, 1, 0.09], *strangers[1:]]
    assert udr(quiet, [np.ones(4)] * 3)["active_latents"].tolist() == [3, 4, 4]
    assert udr(quiet)["active_latents"].tolist() == [4, 4, 4], "these codes have no unit"


def test_active_units_counts():
    codes = np.column_stack([X[:, 0], 0.09 * TRUE.codes[:TRAIN, 0], np.ones(TRAIN)])
    found = active_units(codes)
    assert [found[key] for key in ("score", "constant")] == [1, 1]
    assert found["active"].tolist() == [True, False, False]
    assert score("active_units", arrays(MIXED))["score"] == 5


# Metrics that fit a predictor.

BY_LEVEL = (X - X.mean(axis=0)) / X.std(axis=0), (X_TEST - X.mean(axis=0)) / X.std(axis=0)
STAGES = 20
# Two unequal classes each, so that balancing them matters.
SKEWED, SKEWED_TEST = np.minimum(Y // [1, 3, 4], 1), np.minimum(Y_TEST // [1, 3, 4], 1)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """As the package scores: threads of BLAS wait for each other."""
    with threadpool_limits(1):
        yield


@pytest.mark.parametrize("classes", [2, 5])
def test_boosted_trees_are_scikit_learn_s(classes):
    rng = np.random.default_rng(classes)
    x, x_test = rng.standard_normal((400, 4)), rng.standard_normal((300, 4))
    weights = np.array([1.0, 0.6, 0.3, 0.0])
    edges = {2: [0.0], 5: [-1.0, -0.35, 0.35, 1.0]}[classes]
    y, y_test = (np.digitize(a @ weights + 0.3 * a[:, 0] * a[:, 1], edges) for a in (x, x_test))
    ours = boosted_trees(x, 10 * y + 3, x_test, stages=STAGES)
    theirs = GradientBoostingClassifier(n_estimators=STAGES, random_state=0).fit(x, y)
    predicted = (ours.predictions - 3) // 10
    assert np.mean(predicted == theirs.predict(x_test)) >= 0.97
    assert ours.train_accuracy == pytest.approx(theirs.score(x, y), abs=0.005)
    assert accuracy_score(y_test, predicted) > 0.6
    importance = ours.gains.sum(axis=0) / ours.gains.sum()
    trees = [tree.tree_ for stage in theirs.estimators_ for tree in stage]
    gains = np.array([tree.compute_feature_importances(normalize=False) for tree in trees])
    assert ours.gains.shape == gains.shape == (STAGES * (1 if classes == 2 else classes), 4)
    np.testing.assert_allclose(importance, theirs.feature_importances_, atol=0.01)
    # Tree for tree, not only in sum: scikit-learn's are means over the points.
    np.testing.assert_allclose(ours.gains[:classes] / 400, gains[:classes], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("trees", "y"), [(boosted_trees, Y[:, 0]), (regression_trees, 1.0 * Y)])
def test_boosted_trees_share_the_gains_of_copies(trees, y):
    x = np.column_stack([X[:, 0], -3 * X[:, 0] + 1, X[:, 1]])
    single, double = (trees(a, y, a, stages=5) for a in (x[:, [0, 2]], x))
    np.testing.assert_array_equal(single.predictions, double.predictions)
    np.testing.assert_array_equal(double.gains[:, 0], double.gains[:, 1])
    np.testing.assert_allclose(double.gains[:, :2].sum(axis=1), single.gains[:, 0])


@pytest.mark.parametrize("x", [np.full((40, 2), 3.0), np.arange(80.0).reshape(40, 2)])
def test_where_trees_have_nothing_to_split_they_say_the_mean(x):
    varies, y = np.ptp(x) > 0, np.repeat([4, 9, 7, 9], 10)
    target = np.stack([np.arange(40.0) % 2, np.full(40, 0.5)], axis=1)[:, int(varies) :]
    found = regression_trees(x, target, x, stages=5)
    np.testing.assert_allclose(found.predictions, 0.5)
    assert (found.gains.shape, found.gains.sum()) == ((5 * target.shape[1], 2), 0)
    if not varies:
        classes = boosted_trees(x, y, x, stages=5)
        assert (classes.predictions.tolist(), classes.train_accuracy) == ([9] * 40, 0.5)
        assert (classes.gains.shape, classes.gains.sum()) == ((15, 2), 0)


def test_dci_of_its_own_importances():
    found = dci(X, Y, X_TEST, Y_TEST, max_bins=32)
    r = found["importance"]
    np.testing.assert_allclose(r.sum(axis=0), 1)
    by_latent, by_factor = 1 - entropy(r, axis=1) / np.log(3), 1 - entropy(r, axis=0) / np.log(5)
    assert found["disentanglement"] == pytest.approx(r.sum(axis=1) / r.sum() @ by_latent)
    assert found["completeness"] == pytest.approx(r.sum(axis=0) / r.sum() @ by_factor)
    assert found["informativeness"] == pytest.approx(found["informativeness_per_factor"].mean())


@pytest.mark.parametrize("rule", ["sum", "mean_of_trees"])
def test_dci_by_both_implementations_of_boosting(rule):
    few = slice(150)
    arrays = X[few], Y[few], X_TEST, Y_TEST
    ours, theirs = (dci(*arrays, predictor=p, rule=rule) for p in ("boosted", "boosted_sklearn"))
    np.testing.assert_allclose(ours["importance"], theirs["importance"], atol=0.03)
    for entry in ("disentanglement", "completeness", "informativeness", "train"):
        assert ours[entry] == pytest.approx(theirs[entry], abs=0.02)


@pytest.mark.parametrize("predictor", ["forest", "lasso"])
def test_dci_by_other_predictors(predictor):
    high, low = (
        dci(p.codes[:TRAIN], Y, p.codes[TRAIN:], Y_TEST, predictor=predictor)
        for p in (TRUE, ROTATED)
    )
    for entry in ("disentanglement", "completeness"):
        assert high[entry] > 0.85
        assert low[entry] < 0.6
    assert high["informativeness"] > 0.99


@pytest.mark.parametrize("setting", [{"predictor": "trees"}, {"rule": "mean"}])
def test_dci_names_what_it_does_not_know(setting):
    word = next(iter(setting))
    with pytest.raises(Exception, match=word):
        dci(X, Y, X_TEST, Y_TEST, **setting)
    with pytest.raises(ValueError, match=f"{word}: got"):
        inspect.unwrap(dci)(X, Y, X_TEST, Y_TEST, **setting)


COMMON = np.repeat([[0], [1]], [30, 10], axis=0)
"""Three quarters of the points have one value."""


def test_dci_of_constant_codes_guesses_the_most_common_class():
    constant, y_test = np.ones((40, 2)), 1 - COMMON
    found = dci(constant, COMMON, constant, y_test)
    assert (found["train"], found["informativeness"]) == (0.75, 0.25)
    assert not found["importance"].any()
    numbers = Numbers(np.zeros(1), 1.0 * COMMON, 1.0 * y_test)
    found = dci(constant, COMMON, constant, y_test, numbers)
    assert (found["train"], found["informativeness"]) == (0, 0)


def test_a_lone_latent_is_compared_with_a_guess():
    z, numbers = 4.0 * COMMON - 2, Numbers(np.zeros(1), 1.0 * COMMON)
    of = (z, COMMON, z, COMMON)
    assert sap(*of)["score"] == pytest.approx(1 - 1 / 2)
    assert sap(*of, plain_accuracy=True)["score"] == pytest.approx(1 - 3 / 4)
    assert sap(*of, numbers)["score"] == pytest.approx(1)  # a guess explains nothing of a number


def test_sap_is_the_gap_of_two_machines():
    y, y_test = SKEWED, SKEWED_TEST
    found = sap(X, y, X_TEST, y_test, regularisation=0.1)
    machine = LinearSVC(C=0.1, class_weight="balanced", random_state=0)
    for j, k in ((0, 0), (1, 2), (4, 1)):
        machine.fit(X[:, [j]], y[:, k])
        predicted = machine.predict(X_TEST[:, [j]])
        right = balanced_accuracy_score(y_test[:, k], predicted)
        assert found["accuracy"][j, k] == pytest.approx(right)
        plain = sap(X, y, X_TEST, y_test, regularisation=0.1, plain_accuracy=True)["accuracy"]
        assert plain[j, k] == pytest.approx(accuracy_score(y_test[:, k], predicted))
    ordered = np.sort(
        np.maximum(found["accuracy"], 1 / 2), axis=0
    )  # a guess is right half the time
    assert found["score"] == pytest.approx((ordered[-1] - ordered[-2]).mean())


def test_factor_vae_score_of_collapsed_runs_is_chance_and_then_0():
    """None is left out, or the worse a setting's runs are, the better is the mean of the rest."""
    rng = np.random.default_rng(0)
    factors = rng.integers(4, size=(2000, 4))
    codes = factors + 0.1 * rng.standard_normal((2000, 4))
    for kept, wanted, note in ((2, 0.5, ""), (1, 0.25, "one latent alone"), (0, 0.0, "no latent")):
        scale = np.where(np.arange(4) < kept, 1.0, 0.01)
        found = factor_vae_score(codes * scale, factors, jax.random.key(0))
        assert found["score"] == pytest.approx(wanted, abs=0.05)
        assert [text for text in found["notes"] if text.startswith(note or "all")] or not note
    with pytest.raises(ValueError, match="two varying latents, got 1"):
        factor_vae_score(codes[:, :1], factors, jax.random.key(0))


@pytest.mark.parametrize("latents", [1, 4])
@pytest.mark.parametrize("rare", [0.5, 0.1])
def test_sap_of_noise_is_nothing_and_of_the_truth_half(latents, rare):
    rng = np.random.default_rng(0)
    y = (rng.random((2_000, 3)) < rare).astype(int)
    noise = rng.standard_normal((2_000, latents))
    fit, test = slice(0, 1_000), slice(1_000, None)
    assert sap(noise[fit], y[fit], noise[test], y[test])["score"] < 0.05
    truth = np.column_stack([4.0 * y[:, :1] - 2, noise[:, 1:]])
    found = sap(truth[fit], y[fit], truth[test], y[test])
    assert found["per_factor"][0] == pytest.approx(0.5, abs=0.05)


def test_explicitness_is_one_against_the_rest():
    z, z_test = BY_LEVEL
    found = explicitness(X, Y, X_TEST, Y_TEST)
    fits = [LogisticRegression().fit(z, y) for y in Y.T]
    for entry, x, targets in (("score", z_test, Y_TEST), ("train", z, Y)):
        areas = [
            roc_auc_score(y, fit.predict_proba(x), multi_class="ovr", average="macro")
            for fit, y in zip(fits, targets.T, strict=True)
        ]
        assert found[entry] == pytest.approx(np.mean(areas))
        if entry == "score":
            np.testing.assert_allclose(found["per_factor"], areas)


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_infoe_is_the_loss_that_latents_save():
    factors = np.column_stack([SKEWED, Y])
    found = infomec(X[:, 2:], factors, jax.random.key(0))  # what is left tells little of most
    z = BY_LEVEL[0][:, 2:]
    for k, y in enumerate(factors.T):
        classes = len(np.unique(y))
        fit = LogisticRegression(C=np.inf, class_weight="balanced", max_iter=100).fit(z, y)
        loss = log_loss(y, fit.predict_proba(z))
        saved = 1 - loss / np.log(classes)  # balanced classes: without latents all are alike
        assert found["infoe_per_factor"][k] == pytest.approx(saved, abs=1e-3)
    found = infomec(X, Y, jax.random.key(5))
    n = found["normalised_information"]
    assert found["infom"] == pytest.approx(((n.max(1) / n.sum(1)).mean() - 1 / 3) / (1 - 1 / 3))
    assert found["infoc"] == pytest.approx(((n.max(0) / n.sum(0)).mean() - 1 / 5) / (1 - 1 / 5))


def test_infomec_leaves_out_latents_of_little_range():
    ranges = X * [1, 1, 1, 1, 0.01]
    found = infomec(ranges, Y, jax.random.key(1))
    assert found["active"].tolist() == [True] * 4 + [False]
    assert np.isnan(found["normalised_information"][4]).all()
    assert found["notes"] == ["left out, for they vary little beside the largest: 1 of 5 latents"]
    four = infomec(X[:, :4], Y, jax.random.key(2))
    for entry in ("infom", "infoc"):
        assert found[entry] == pytest.approx(four[entry], abs=1e-3)


def test_infomec_says_where_there_is_nothing_to_share():
    noise = np.random.default_rng(0).standard_normal((len(Y), 4))
    found = infomec(noise, Y, jax.random.key(1))
    assert found["infom"] > 0.2
    assert found["infoe"] < 0.05
    assert "random codes have .3 to .8" in found["notes"][0]


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_infomec_counts_the_values_of_quantised_latents():
    """Which a line cannot tell apart; nor does a latent's scale decide whether it takes part."""
    rng = np.random.default_rng(0)
    v = rng.integers(4, size=(800, 2))
    factors = np.column_stack([v[:, 0] % 2, (v[:, 1] + rng.integers(2, size=800)) % 4])
    codes = np.array([0.3, -0.2, 0.9, 0.1])[v] * [1, 0.01]
    found = infomec(codes, factors, jax.random.key(0))
    assert found["active"].all()
    wanted = [[mutual_info_score(z, y) / mutual_info_score(y, y) for y in factors.T] for z in v.T]
    np.testing.assert_allclose(found["normalised_information"], wanted, atol=1e-9)
    assert found["infoe_per_factor"][0] == pytest.approx(1, abs=1e-3)
    by_quartiles = infomec(codes, factors, jax.random.key(0), pruning="interquartile")
    assert by_quartiles["active"].tolist() == [True, False]


def test_downstream_learns_separable_data_and_more_from_more_labels():
    codes = TRUE.codes + 0.05 * MIXED.codes[:, :1]
    found = downstream(
        codes[:TRAIN], Y, codes[TRAIN:], Y_TEST, jax.random.key(1), labels=(5, 200, 10_000)
    )
    assert found["labels"].tolist() == [5, 200]
    assert found["score"] > 0.98
    assert found["logistic_per_factor"][1].min() > 0.97
    assert found["trees_per_factor"][1].min() > 0.97
    assert found["logistic"][0] < 0.8
    assert found["score"] == pytest.approx((found["logistic"][1] + found["trees"][1]) / 2)
    few = downstream(
        codes[:20], Y[:20], codes[TRAIN:], Y_TEST, jax.random.key(2), labels=(100, 10_000)
    )
    assert few["labels"].tolist() == [20]
    assert "efficiency" not in few


def test_downstream_s_score_is_that_of_the_most_labels_in_whatever_order():
    key = jax.random.key(0)
    wanted, found = (
        downstream(X, Y, X_TEST, Y_TEST, key, labels=labels)
        for labels in ((30, 200), (200, 30, 30))
    )
    assert found["labels"].tolist() == [30, 200]
    assert found["score"] == wanted["score"]


def test_downstream_s_efficiency_is_unknown_where_nothing_is_learned():
    """Of a number that codes do not know, no variance is explained, by however many labels."""
    rng = np.random.default_rng(0)
    codes, values = rng.standard_normal((10_300, 1)), rng.standard_normal((10_300, 1))
    bins, numbers = (
        np.digitize(values, [-1, 0, 1]),
        Numbers(np.zeros(1), values[300:], values[:300]),
    )
    found = downstream(
        codes[300:], bins[300:], codes[:300], bins[:300], jax.random.key(0), numbers,
        labels=(100, 10_000),
    )  # fmt: skip
    assert found["trees"].tolist() == [0, 0]
    assert np.isnan(found["efficiency"])


def test_downstream_s_logistic_regression_is_scikit_learn_s():
    found = score("downstream", MIXED, labels=(TRAIN,))
    z, z_test = BY_LEVEL
    for k, y in enumerate(Y.T):
        by_penalty = [
            LogisticRegression(C=c, max_iter=100).fit(z, y).score(z_test, Y_TEST[:, k])
            for c in (0.01, 1.0, 100.0)
        ]
        assert np.abs(found["logistic_per_factor"][0, k] - by_penalty).min() < 0.004


def test_downstream_s_penalty_is_chosen_on_1000_labels(monkeypatch):
    fit, sizes = LogisticRegression.fit, set()

    def seen(self, x, y):
        sizes.add(len(x))
        return fit(self, x, y)

    monkeypatch.setattr(LogisticRegression, "fit", seen)
    y = np.arange(1_500)[:, None] % 2
    z = y + np.random.default_rng(0).standard_normal((1_500, 1))
    downstream(z, y, z[:9], y[:9], jax.random.key(0), labels=(1_500,))
    assert sizes == {666, 667, 1_500}, "two of three folds, then all"


def test_downstream_as_published():
    """Raw codes, ten penalties by 5-fold cross-validation, and scikit-learn's trees."""
    x, x_test, y, y_test = 0.1 * X[:60], 0.1 * X_TEST, Y[:60, 2:], Y_TEST[:, 2:]
    key = jax.random.key(0)
    found = downstream(x, y, x_test, y_test, key, labels=(60,), as_published=True)
    order = base.generator(key).permutation(60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegressionCV(Cs=10, cv=KFold(5), scoring="accuracy")
        model.fit(x[order], y[order, 0])
    assert found["logistic"][0] == model.score(x_test, y_test[:, 0])
    trees = GradientBoostingClassifier(random_state=0).fit(x, y[:, 0])
    assert found["trees"][0] == pytest.approx(trees.score(x_test, y_test[:, 0]), abs=0.03)
    assert downstream(x, y, x_test, y_test, key, labels=(60,))["logistic"] != found["logistic"]


@pytest.mark.parametrize("predictor", ["boosted", "lasso"])
def test_too_few_points_to_fit_are_said(predictor):
    with pytest.raises(base.InvalidArrays, match="too few points: got 2 to fit on, wanted"):
        dci(X[:2], Y[:2], X_TEST, Y_TEST, predictor=predictor)


def test_dci_es_of_what_nothing_predicts():
    rng = np.random.default_rng(0)
    noise, noise_test = rng.standard_normal((TRAIN, 2)), rng.standard_normal((len(X_TEST), 2))
    arrays = (noise, Y, noise_test, Y_TEST, jax.random.key(0))
    assert dci_es(*arrays)["explicitness"] == -1
    assert dci_es(*arrays, **METRICS["dci_es"].compat)["explicitness"] == 1
    far = dci_es(X, Y, 100 * X_TEST, Y_TEST, jax.random.key(0))
    np.testing.assert_array_equal(far["loss"], 1)
    assert dci_es(noise, np.insert(Y, 1, 5, axis=1), noise_test, np.insert(Y_TEST, 1, 5, axis=1),
                  jax.random.key(0))["size"] == 3 / 2  # fmt: skip


def test_dci_es_wants_linear_codes():
    scores = {}
    y, noise = FACTORS[:, 2:], MIXED.codes[:, 3:4]
    codes = {
        "linear": np.column_stack([2.0 * y, noise]),
        "waves": np.column_stack([np.cos(2 * y), np.sin(2 * y)]),
        "shuffled": np.column_stack([np.array([3, 0, 5, 1, 4, 2])[y], noise]),
    }
    for name, z in codes.items():
        found = dci_es(z[:TRAIN], y[:TRAIN], z[TRAIN:], y[TRAIN:], jax.random.key(2))
        scores[name] = found["explicitness"]
        assert found["size"] == 0.5
    assert scores["linear"] == pytest.approx(1, abs=1e-3)
    assert 0.5 < scores["shuffled"] < scores["waves"] < 0.9


def test_dci_es_first_probe_is_least_squares():
    found = dci_es(X, Y, X_TEST, Y_TEST, jax.random.key(3))
    design, design_test = (np.column_stack([np.ones(len(a)), a]) for a in (X, X_TEST))
    weights = np.linalg.lstsq(design, Y, rcond=None)[0]
    error = np.mean((design_test @ weights - Y_TEST) ** 2, axis=0)
    baseline = np.mean((Y_TEST - Y.mean(axis=0)) ** 2, axis=0)
    np.testing.assert_allclose(found["loss"][0], error / baseline, atol=1e-3)


def largest_sum(matrix):
    """Latents of their own for the factors, by trying all."""
    latents, factors = matrix.shape
    return max(
        itertools.permutations(range(latents), factors),
        key=lambda chosen: sum(matrix[j, k] for k, j in enumerate(chosen)),
    )


def test_mcc_by_trying_all_pairs():
    found = mcc(X, Y, X_TEST, Y_TEST)
    kinds: Any = (pearsonr, found["score"]), (spearmanr, found["spearman"])
    for kind, scores in kinds:
        train, test = (
            np.array([[abs(kind(z, v)[0]) for v in b.T] for z in a.T])
            for a, b in ((X, Y), (X_TEST, Y_TEST))
        )
        chosen = largest_sum(train)
        assert scores == pytest.approx(np.mean([test[j, k] for k, j in enumerate(chosen)]))
        if kind is pearsonr:
            assert list(found["latent"]) == list(chosen)


def test_mcc_of_fewer_latents_than_factors_of_curves_and_of_chance():
    one = mcc(-2.0 * Y[:, :1], Y, -2.0 * Y_TEST[:, :1], Y_TEST)
    assert one["score"] == pytest.approx(1 / 3)
    assert list(one["latent"]) == [0, -1, -1]
    curved = mcc(np.exp(3.0 * Y), Y, np.exp(3.0 * Y_TEST), Y_TEST)
    assert curved["spearman"] == pytest.approx(1)
    assert curved["score"] < 0.9
    rng = np.random.default_rng(0)
    noise, other = rng.normal(size=(30, 9)), rng.normal(size=(3000, 9))
    y, y_test = rng.integers(0, 5, (30, 3)), rng.integers(0, 5, (3000, 3))
    assert mcc(noise, y, other, y_test)["score"] < 0.1 < mcc(noise, y, noise, y)["score"]
    assert mcc(noise, y, other, y_test)["notes"] == []
    few = mcc(noise, y, other[:2], np.zeros_like(y_test[:2]))
    assert [note.partition(":")[0] for note in few["notes"]] == [
        *(f"factor {k} has one value among the points to test on" for k in range(y.shape[1])),
        "2 points to test on",
    ]


def test_matched_information_by_trying_all_pairs():
    matrix = np.array([[mutual_info_score(z, v) for v in Y.T] for z in BINNED.T])
    chosen = largest_sum(matrix)
    nats = sum(matrix[j, k] for k, j in enumerate(chosen))
    found = matched_information(X, Y)
    assert found["nats"] == pytest.approx(nats)
    assert found["score"] == pytest.approx(nats / sum(entropy(np.bincount(v)) for v in Y.T))
    assert list(found["latent"]) == list(chosen)
    # A latent that knows every factor counts for one of them; a copy of it counts for another.
    every = (Y @ [1, 10, 100])[:, None].astype(float)
    bins = 10_000
    largest = max(entropy(np.bincount(v)) for v in Y.T)
    assert matched_information(every, Y, bins=bins)["nats"] == pytest.approx(largest)
    copied = np.repeat(every, 3, axis=1)
    assert matched_information(copied, Y, bins=bins)["score"] == pytest.approx(1)
