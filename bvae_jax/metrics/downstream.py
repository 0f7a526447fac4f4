"""Downstream accuracy: how well factors are predicted from few and from many labels."""

import numpy as np
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, RidgeCV
from sklearn.model_selection import KFold

from bvae_jax.continuous import Numbers, Targets, targets
from bvae_jax.metrics.base import (
    CodesTest,
    FactorsTest,
    Metric,
    checked_split,
    for_each,
    generator,
    mean,
    ratio,
    standardised,
)
from bvae_jax.metrics.regression import explained_variance, upright
from bvae_jax.metrics.trees import EXACT, boosted_trees, regression_trees
from bvae_jax.types import CodeMatrix, Factors, PRNGKey, Score

PENALTIES = (0.01, 1.0, 100.0)
"""C of logistic regression, of which cross-validation chooses."""
FOLDS = 3
RIDGES = (0.01, 1.0, 100.0)
"""Penalties of ridge regression."""
CROSS_VALIDATED = 1_000
"""Labels that the penalty is chosen on, at most."""
TREE_BINS = 255
PUBLISHED_PENALTIES, PUBLISHED_FOLDS = 10, 5


def downstream(
    codes: CodeMatrix,
    factors: Factors,
    codes_test: CodesTest,
    factors_test: FactorsTest,
    key: PRNGKey,
    numbers: Numbers | None = None,
    *,
    labels: tuple[int, ...] = (10, 100, 1_000, 10_000),
    as_published: bool = False,
) -> Score:
    """Test accuracy of logistic regression and of boosted trees, by number of labels.

    Codes are standardised by those with labels. The regression's penalty is chosen by 3-fold
    cross-validation on 1,000 labels at most; trees are those of `dci` with 255 thresholds for a
    latent.

    A number: ridge regression, its penalty chosen by leaving one label out, and regression trees of
    its values (with a period, of the angle's cosine and sine); in place of accuracy the share of
    the variance explained on the test points, 0 at least.

    Where it differs: disentanglement_lib predicts from the codes as they are, with a penalty
    chosen among ten on all labels; here codes are standardised and at most 1,000 labels choose.

    Args:
        codes: [n, latent] to fit on.
        factors: [n, factor] class indices.
        codes_test: [m, latent] to score on.
        factors_test: [m, factor].
        key: of the order in which points get labels.
        numbers: values of factors that are numbers, in place of their classes.
        labels: how many points to fit on; those above n are left out, and n itself is taken if
            none is left.
        as_published: predict as disentanglement_lib does: from the codes as they are, by a
            regression whose penalty is chosen among ten by 5-fold cross-validation on all labels,
            and by trees with a threshold between any two values. It takes minutes.

    Returns:
        `score`: mean of the two accuracies at the most labels; `logistic` and `trees`: mean
        accuracy over factors [label]; `logistic_per_factor` and `trees_per_factor` [label, factor];
        `labels`, in their order; `efficiency`: accuracy of the trees with 100 labels over that with
        10,000, if both are there; nan where that is 0.

    Raises:
        ValueError: arrays that do not fit or are not finite.

    Locatello et al., 2019, section 5.5.
    """
    x, y, x_test, y_test = checked_split(codes, factors, codes_test, factors_test)
    counts = sorted({n for n in labels if n <= len(x)}) or [len(x)]
    order = generator(key).permutation(len(x))
    own, own_test = targets(numbers), targets(numbers, test=True)

    def accuracies(task: tuple[int, int]) -> tuple[float, float]:
        count, k = task
        if len(np.unique(y[:, k])) == 1:
            return np.nan, np.nan
        rows = order[:count]
        a, a_test = (x[rows], x_test) if as_published else standardised(x[rows], x_test)
        if k in own:
            bins = EXACT if as_published else TREE_BINS
            return _of_number(a, own[k][rows], a_test, own_test[k], bins)
        labelled = y[rows, k]
        regression = (_published_regression if as_published else _regression)(a, labelled, a_test)
        trees = _boosted(a, labelled, a_test, EXACT if as_published else TREE_BINS)
        right = (regression == y_test[:, k], trees == y_test[:, k])
        return float(right[0].mean()), float(right[1].mean())

    tasks = [(count, k) for count in counts for k in range(y.shape[1])]
    found = np.array(for_each(accuracies, tasks)).reshape(len(counts), y.shape[1], 2)
    logistic, trees = found[..., 0], found[..., 1]
    by_count = {n: mean(row) for n, row in zip(counts, trees, strict=True)}
    result = {
        "score": mean([mean(logistic[-1]), mean(trees[-1])]),
        "labels": np.array(counts),
        "logistic": np.array([mean(row) for row in logistic]),
        "trees": np.array(list(by_count.values())),
        "logistic_per_factor": logistic,
        "trees_per_factor": trees,
    }
    if {100, 10_000} <= set(counts):
        result["efficiency"] = float(ratio(by_count[100], by_count[10_000]))
    return result


def _regression(x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """Predictions of logistic regression, its penalty chosen by cross-validation."""

    def right(penalty: float) -> int:
        folds = KFold(FOLDS).split(x[:CROSS_VALIDATED])
        return sum(int(np.sum(_fit(x[a], y[a], x[b], penalty) == y[b])) for a, b in folds)

    if len(x) < FOLDS:
        return _fit(x, y, x_test, 1.0)
    return _fit(x, y, x_test, max(PENALTIES, key=right))


def _published_regression(x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """Predictions of the regression of disentanglement_lib, if every fold has two classes."""
    folds = KFold(PUBLISHED_FOLDS)
    if len(x) < PUBLISHED_FOLDS or any(len(np.unique(y[a])) == 1 for a, _ in folds.split(x)):
        return _fit(x, y, x_test, 1.0)
    model = LogisticRegressionCV(Cs=PUBLISHED_PENALTIES, cv=folds, scoring="accuracy")
    return model.fit(x, y).predict(x_test)


def _fit(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, penalty: float) -> np.ndarray:
    if len(np.unique(y)) == 1 or not x.shape[1]:
        values, counts = np.unique(y, return_counts=True)
        return np.full(len(x_test), values[counts.argmax()])
    return LogisticRegression(C=penalty).fit(x, y).predict(x_test)


def _of_number(
    x: np.ndarray, y: Targets, x_test: np.ndarray, y_test: np.ndarray, bins: int
) -> tuple[float, float]:
    """Variance explained by ridge regression and by trees."""
    if not x.shape[1]:
        return 0.0, 0.0
    y, y_test = upright(x, y, y_test)
    center = y.mean(axis=0)
    linear = RidgeCV(RIDGES).fit(x, y - center).predict(x_test).reshape(y_test.shape) + center
    trees = regression_trees(x, y, x_test, max_bins=bins).predictions
    return explained_variance(linear, y_test), explained_variance(trees, y_test)


def _boosted(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, bins: int) -> np.ndarray:
    if not x.shape[1]:
        return _fit(x, y, x_test, 1.0)
    return boosted_trees(x, y, x_test, max_bins=bins).predictions


DOWNSTREAM = Metric(
    downstream,
    "test accuracy of logistic regression and boosted trees with few and many labels",
    "Locatello et al. 2019",
    invariant=("permute", "sign", "scale"),
    compat={"as_published": True},
)
