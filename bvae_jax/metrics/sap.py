"""SAP: separated attribute predictability, by support vector machines or squared correlations."""

import numpy as np
from sklearn.svm import LinearSVC

from bvae_jax.continuous import Numbers, targets
from bvae_jax.metrics.base import (
    CodesTest,
    FactorsTest,
    Metric,
    checked,
    checked_split,
    for_each,
    mean,
    relabel,
    top_two,
    varying,
)
from bvae_jax.metrics.regression import explained
from bvae_jax.types import CodeMatrix, Factors, Score


def sap(
    codes: CodeMatrix,
    factors: Factors,
    codes_test: CodesTest,
    factors_test: FactorsTest,
    numbers: Numbers | None = None,
    *,
    regularisation: float = 0.01,
    plain_accuracy: bool = False,
) -> Score:
    """Mean over factors of the gap between the two latents that best predict the factor alone.

    A linear SVM with balanced classes is fitted to each pair of latent and factor; its balanced
    accuracy on the test points (the mean over classes of the share that is recognised, as in the
    paper) is the pair's score, and that of guessing, one over the number of classes, if it is below
    that. A lone latent is compared with guessing. The score depends on the codes' scale and mean,
    through the regularisation.

    A number: the squared correlation with a latent, as in `sap_r2` and in the paper.

    Where it differs: disentanglement_lib takes plain accuracy; here, as in the paper, all
    classes count alike.

    Args:
        codes: [n, latent] to fit on.
        factors: [n, factor] class indices.
        codes_test: [m, latent] to score on.
        factors_test: [m, factor].
        numbers: values of factors that are numbers, in place of their classes.
        regularisation: C of the SVM; 0.01 in the published study.
        plain_accuracy: let points count alike instead of classes, as disentanglement_lib does,
            and compare a lone latent with the most common class: then latents that know nothing
            have a gap where classes are not equally common.

    Returns:
        `score` in [0, 1]; `per_factor` [factor]; `accuracy` [latent, factor], balanced unless told
        otherwise; of a number R².

    Raises:
        ValueError: arrays that do not fit or are not finite.

    Kumar, Sattigeri & Balakrishnan, 2018, section 3; settings of Locatello et al., 2019.
    """
    x, y, x_test, y_test = checked_split(codes, factors, codes_test, factors_test)
    weights, chance = zip(*(_weights(column, plain_accuracy) for column in y_test.T), strict=True)
    r2 = {k: explained(x, number) for k, number in targets(numbers).items()}
    chance = [0.0 if k in r2 else guess for k, guess in enumerate(chance)]
    pairs = [(j, k) for j in range(x.shape[1]) for k in range(y.shape[1])]

    def accuracy(pair: tuple[int, int]) -> float:
        j, k = pair
        if k in r2:
            return float(r2[k][j])
        if len(np.unique(y[:, k])) == 1:
            return np.nan
        machine = LinearSVC(C=regularisation, class_weight="balanced", random_state=0)
        machine.fit(x[:, [j]], y[:, k])
        right = machine.predict(x_test[:, [j]]) == y_test[:, k]
        return float(np.average(right, weights=weights[k]))

    matrix = np.array(for_each(accuracy, pairs)).reshape(x.shape[1], y.shape[1])
    better = np.maximum(matrix, chance) if len(matrix) == 1 or not plain_accuracy else matrix
    first, second = top_two(np.vstack([better, chance]) if len(matrix) == 1 else better)
    return {"score": mean(first - second), "per_factor": first - second, "accuracy": matrix}


def _weights(y_test: np.ndarray, plain: bool) -> tuple[np.ndarray, float]:
    """Of the test points of one factor, and what a guess is worth under them."""
    labels, size = relabel(y_test)
    counts = np.bincount(labels)
    if plain:
        return np.ones(len(labels)), counts.max() / len(labels)
    return 1 / counts[labels], 1 / size


def sap_r2(codes: CodeMatrix, factors: Factors, numbers: Numbers | None = None) -> Score:
    """Mean over factors of the gap between the two largest squared correlations with a latent.

    Class indices are taken as numbers, so that it makes sense for ordered factors. Latents that do
    not vary have correlation 0.

    A number: its values; with a period the squared multiple correlation of the latent with the
    angle's cosine and sine.

    Args:
        codes: [n, latent].
        factors: [n, factor] class indices.
        numbers: values of factors that are numbers, in place of their classes.

    Returns:
        `score` in [0, 1]; `per_factor` [factor]; `r2` [latent, factor].

    Raises:
        ValueError: arrays that do not fit or are not finite.

    Kumar, Sattigeri & Balakrishnan, 2018, section 3.
    """
    codes, factors = checked(codes, factors)
    x, y = codes - codes.mean(axis=0), factors - factors.mean(axis=0)
    variance_x, variance_y = x.var(axis=0), y.var(axis=0)
    covariance, some = x.T @ y / len(x), varying(codes)
    scale = np.outer(np.where(some, variance_x, 1.0), variance_y)
    squared = np.where(some[:, None], covariance**2, 0.0)
    matrix = np.divide(squared, scale, out=np.full_like(scale, np.nan), where=scale > 0)
    for k, number in targets(numbers).items():
        matrix[:, k] = explained(codes, number)
    first, second = top_two(matrix)
    return {"score": mean(first - second), "per_factor": first - second, "r2": matrix}


SAP = Metric(
    sap,
    "gap between the two latents from which a linear SVM best predicts a factor",
    "Kumar et al. 2018",
    invariant=("permute", "sign", "order"),
    compat={"plain_accuracy": True},
)
SAP_R2 = Metric(
    sap_r2,
    "gap between the two largest squared correlations of a factor with a latent",
    "Kumar et al. 2018",
    fast=True,
    pixels=True,
)
