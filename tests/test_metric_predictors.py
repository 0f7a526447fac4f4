"""Scores that fit a predictor, against the same predictors by scikit-learn."""

import inspect
import warnings

import jax
import numpy as np
import pytest
from metric_points import FACTORS, MIXED, ROTATED, TRAIN, TRUE, score
from scipy.stats import entropy
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss, roc_auc_score
from sklearn.model_selection import KFold
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

from bvae_jax.metrics import METRICS, base
from bvae_jax.metrics.dci import dci
from bvae_jax.metrics.dci_es import dci_es
from bvae_jax.metrics.downstream import downstream
from bvae_jax.metrics.explicitness import explicitness
from bvae_jax.metrics.infomec import infomec
from bvae_jax.metrics.sap import sap
from bvae_jax.metrics.trees import boosted_trees

X, X_TEST = MIXED.codes[:TRAIN], MIXED.codes[TRAIN:]
Y, Y_TEST = FACTORS[:TRAIN], FACTORS[TRAIN:]
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


def test_boosted_trees_share_the_gains_of_copies():
    x = np.column_stack([X[:, 0], -3 * X[:, 0] + 1, X[:, 1]])
    single, double = (boosted_trees(a, Y[:, 0], a, stages=5) for a in (x[:, [0, 2]], x))
    np.testing.assert_array_equal(single.predictions, double.predictions)
    np.testing.assert_array_equal(double.gains[:, 0], double.gains[:, 1])
    np.testing.assert_allclose(double.gains[:, :2].sum(axis=1), single.gains[:, 0])


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
    four = infomec(X[:, :4], Y, jax.random.key(2))
    for entry in ("infom", "infoc"):
        assert found[entry] == pytest.approx(four[entry], abs=1e-3)


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


def test_downstream_s_logistic_regression_is_scikit_learn_s():
    found = score("downstream", MIXED, labels=(TRAIN,))
    z, z_test = BY_LEVEL
    for k, y in enumerate(Y.T):
        by_penalty = [
            LogisticRegression(C=c, max_iter=100).fit(z, y).score(z_test, Y_TEST[:, k])
            for c in (0.01, 1.0, 100.0)
        ]
        assert np.abs(found["logistic_per_factor"][0, k] - by_penalty).min() < 0.004


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
