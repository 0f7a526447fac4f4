"""Modularity: does each latent know of one factor only? And explicitness."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from bvae_jax.metrics.base import (
    BINS,
    CodesTest,
    FactorsTest,
    InvalidArrays,
    LatentKL,
    Metric,
    active,
    alone,
    checked,
    checked_split,
    discretize,
    for_each,
    mean,
    mutual_information,
    ratio,
    standardised,
    varying,
)
from bvae_jax.types import CodeMatrix, Factors, Score


def modularity(
    codes: CodeMatrix,
    factors: Factors,
    kl: LatentKL | None = None,
    *,
    bins: int = BINS,
    constant_as_zero: bool = False,
) -> Score:
    """Mean over latents of 1 - sum of I(z; v)^2 over the other factors / (max I^2 (K - 1)).

    K is the number of factors that vary. Latents that vary without knowing anything still have a
    best factor by chance: pure noise scores about .7. Left out, therefore, are latents that are
    not active (`metrics.base.active`) or know nothing at all; without any other the score is 0.

    Where it differs: disentanglement_lib counts latents that are constant as 0; here those that
    are not active are left out.

    Args:
        codes: [n, latent].
        factors: [n, factor] class indices.
        kl: [latent] mean KL from the prior, in nats.
        bins: for each latent.
        constant_as_zero: average over all latents, constant ones as 0, as disentanglement_lib does.

    Returns:
        `score` in [0, 1]; `per_latent` [latent], nan for those left out; `mutual_information`
        [latent, factor] in nats.

    Raises:
        ValueError: arrays that do not fit or are not finite, or fewer than two factors that vary.

    Ridgeway & Mozer, 2018, "Learning deep disentangled embeddings with the F-statistic loss",
    equation 2.
    """
    codes, factors = checked(codes, factors)
    counted = varying(factors)
    if why := alone(varying_factors=counted):
        raise InvalidArrays(why)
    matrix = mutual_information(discretize(codes, bins), factors)
    squared = matrix**2
    largest = squared.max(axis=1)
    per_latent = 1 - ratio(squared.sum(axis=1) - largest, largest * (counted.sum() - 1))
    if constant_as_zero:
        per_latent = np.nan_to_num(per_latent, nan=0.0)
    else:
        per_latent[~active(codes, kl)] = np.nan
    return {
        "score": mean(per_latent, empty=0.0),
        "per_latent": per_latent,
        "mutual_information": matrix,
    }


MODULARITY = Metric(
    modularity,
    "how little a latent knows of any factor but its best",
    "Ridgeway & Mozer 2018",
    fast=True,
    null=True,
    compat={"constant_as_zero": True},
    invariant=("permute", "sign", "order"),  # a latent of little variance is inactive
)


# Explicitness: can each value of a factor be told from the rest, from all latents together?


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
