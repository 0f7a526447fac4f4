"""Explicitness: can each value of a factor be told from the rest, from all latents together?"""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from bvae_jax.metrics.base import (
    CodesTest,
    FactorsTest,
    Metric,
    checked_split,
    for_each,
    mean,
    standardised,
)
from bvae_jax.types import CodeMatrix, Factors, Score


def explicitness(
    codes: CodeMatrix, factors: Factors, codes_test: CodesTest, factors_test: FactorsTest
) -> Score:
    """Mean ROC-AUC of telling a factor's value from the others, by logistic regression.

    The multinomial probabilities of each value are ranked against the test points that have it.
    Values that are not among the test points are left out, as are constant latents (the original
    fails on both).

    Args:
        codes: [n, latent] to fit on.
        factors: [n, factor] class indices.
        codes_test: [m, latent] to score on.
        factors_test: [m, factor].

    Returns:
        `score` (chance 0.5, best 1), on the test points; `train`, on the others; `per_factor`
        [factor], nan for a factor with one value.

    Raises:
        ValueError: arrays that do not fit or are not finite.

    Ridgeway & Mozer, 2018, section 4, with scikit-learn's multinomial regression as in Locatello
    et al., 2019.
    """
    codes, factors, codes_test, factors_test = checked_split(
        codes, factors, codes_test, factors_test
    )
    x, x_test = standardised(codes, codes_test)

    def of_factor(k: int) -> tuple[float, float]:
        y, y_test = factors[:, k], factors_test[:, k]
        if len(np.unique(y)) == 1:
            return np.nan, np.nan
        if not x.shape[1]:
            return 0.5, 0.5
        model = LogisticRegression().fit(x, y)
        return _area(model, x, y), _area(model, x_test, y_test)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        train, test = np.array(for_each(of_factor, range(factors.shape[1]))).T
    return {"score": mean(test), "train": mean(train), "per_factor": test}


def _area(model: LogisticRegression, x: np.ndarray, y: np.ndarray) -> float:
    """Mean over classes of the area under the ROC curve of one against the rest."""
    probabilities = model.predict_proba(x)
    areas = [
        roc_auc_score(y == value, column)
        for value, column in zip(model.classes_, probabilities.T, strict=True)
        if 0 < np.sum(y == value) < len(y)
    ]
    return mean(areas)


EXPLICITNESS = Metric(
    explicitness,
    "area under the ROC curve of each factor value by logistic regression on all latents",
    "Ridgeway & Mozer 2018",
    others=("train",),
)
