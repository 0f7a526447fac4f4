"""SAP: separated attribute predictability, by support vector machines."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from bvae_jax.metrics.base import CodesTest, FactorsTest, Metric, checked_split, for_each, mean
from bvae_jax.types import Codes, Factors, Score


def sap(
    codes: Codes,
    factors: Factors,
    codes_test: CodesTest,
    factors_test: FactorsTest,
    *,
    regularisation: float = 0.01,
) -> Score:
    """Mean over factors of the gap between the two latents that best predict the factor alone.

    A linear SVM with balanced classes is fitted to each pair of latent and factor; its accuracy on
    the test points is the pair's score. A lone latent is compared with the most common class. The
    score depends on the codes' scale, through the regularisation.

    Args:
        codes: [n, latent] to fit on.
        factors: [n, factor] class indices.
        codes_test: [m, latent] to score on.
        factors_test: [m, factor].
        regularisation: C of the SVM; 0.01 in the published study.

    Returns:
        `score` in [0, 1]; `per_factor` [factor]; `accuracy` [latent, factor].

    Raises:
        ValueError: arrays that do not fit or are not finite.

    Kumar, Sattigeri & Balakrishnan, 2018, section 3; settings of Locatello et al., 2019.
    """
    x, y, x_test, y_test = checked_split(codes, factors, codes_test, factors_test)
    pairs = [(j, k) for j in range(x.shape[1]) for k in range(y.shape[1])]

    def accuracy(pair: tuple[int, int]) -> float:
        j, k = pair
        if len(np.unique(y[:, k])) == 1:
            return np.nan
        machine = LinearSVC(C=regularisation, class_weight="balanced", random_state=0)
        machine.fit(x[:, [j]], y[:, k])
        return float(np.mean(machine.predict(x_test[:, [j]]) == y_test[:, k]))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        matrix = np.array(for_each(accuracy, pairs)).reshape(x.shape[1], y.shape[1])
    if len(matrix) == 1:
        common = [np.max(np.bincount(column)) / len(column) for column in y_test.T]
        second, first = np.sort(np.stack([matrix[0], common]), axis=0)
    else:
        second, first = np.sort(matrix, axis=0)[-2:]
    return {"score": mean(first - second), "per_factor": first - second, "accuracy": matrix}


METRIC = Metric(
    sap,
    "gap between the two latents from which a linear SVM best predicts a factor",
    "Kumar et al. 2018",
    invariant=("permute", "sign", "order"),
)
