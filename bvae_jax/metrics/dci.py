"""Disentanglement and completeness of a matrix of importances, for DCI and MED."""

from typing import Literal, NamedTuple

import numpy as np
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LassoCV, MultiTaskLassoCV

from bvae_jax.continuous import Numbers, Targets, targets
from bvae_jax.metrics.base import (
    BINS,
    CodesTest,
    FactorsTest,
    InvalidArrays,
    Matrix,
    Metric,
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
from bvae_jax.metrics.regression import explained_variance, upright
from bvae_jax.metrics.trees import EXACT, boosted_trees, regression_trees
from bvae_jax.types import CodeMatrix, Factors, Score


def disentanglement(importance: Matrix) -> tuple[float, np.ndarray, np.ndarray]:
    """1 - entropy over factors of each latent's importances, weighted by its share of all.

    Factors whose importances are nan are left out; with one factor left, the entropy is 0. Without
    any importance at all the score is 0.

    Returns:
        the weighted mean; [latent] the same of each latent, nan for one without importance;
        [latent] weights.

    Eastwood & Williams, 2018, section 2.
    """
    known = importance[:, ~np.isnan(importance).any(axis=0)]
    return _concentration(known)


def completeness(importance: Matrix) -> tuple[float, np.ndarray, np.ndarray]:
    """1 - entropy over latents of each factor's importances, weighted by its share of all.

    Returns:
        the weighted mean; [factor] the same of each factor, nan where unknown; [factor] weights.

    Eastwood & Williams, 2018, section 2.
    """
    known = np.asarray(~np.isnan(importance).any(axis=0))
    score, some, share = _concentration(importance[:, known].T)
    per_factor, weight = np.full(len(known), np.nan), np.zeros(len(known))
    per_factor[known], weight[known] = some, share
    return score, per_factor, weight


def _concentration(rows: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """1 - entropy of each row to the base of its length, and the rows' shares of the sum."""
    totals = rows.sum(axis=1)
    p = ratio(rows, totals[:, None])
    logs = np.log(p, out=np.zeros_like(p), where=p > 0)
    entropy = -np.sum(p * logs, axis=1) / max(np.log(max(rows.shape[1], 1)), 1e-300)
    concentration = 1 - (entropy if rows.shape[1] > 1 else 0 * entropy)
    if totals.sum() == 0:
        return 0.0, concentration, totals
    weight = totals / totals.sum()
    return float(np.nansum(concentration * weight)), concentration, weight


Predictor = Literal["boosted", "boosted_sklearn", "forest", "lasso"]
Rule = Literal["sum", "mean_of_trees"]
FOLDS = 5
"""Of the lasso's cross-validation."""


class Fit(NamedTuple):
    """What one factor's predictor says of the latents.

    Attributes:
        importance: [latent], not negative.
        test: accuracy (lasso, and of a number: R2) on the test points.
        train: the same on the points that it was fitted to.
    """

    importance: np.ndarray
    test: float
    train: float


def dci(
    codes: CodeMatrix,
    factors: Factors,
    codes_test: CodesTest,
    factors_test: FactorsTest,
    numbers: Numbers | None = None,
    *,
    predictor: Predictor = "boosted",
    rule: Rule = "sum",
    max_bins: int = EXACT,
) -> Score:
    """Importances R[j, k] of latent j for predicting factor k, and how they concentrate.

    Disentanglement: 1 - entropy over factors of each latent's importances, weighted by its share.
    Completeness: 1 - entropy over latents of each factor's importances, weighted by its share.
    Informativeness: mean accuracy on the test points.

    A number: trees, forest or lasso regress its values; with a period the angle's cosine and sine,
    whose importances are added. Its accuracy is the share of the variance explained on the test
    points, 0 at least; Eastwood and Williams give the error.

    Where it differs: the published study's scikit-learn let every tree count alike; here gains
    are summed over all trees, as scikit-learn does since 0.20, and trees are LightGBM's.

    Args:
        codes: [n, latent] to fit on.
        factors: [n, factor] class indices.
        codes_test: [m, latent] to score on.
        factors_test: [m, factor].
        numbers: values of factors that are numbers, in place of their classes.
        predictor: "boosted", gradient-boosted trees as in the published study; "boosted_sklearn",
            the same by scikit-learn, many times slower; "forest", a random forest; "lasso", a
            cross-validated linear regression of the class index, whose accuracy is an R2.
        rule: how a boosted model's importances are made from its trees. "sum" adds up the splits'
            gains over all trees, as scikit-learn does since 0.20; "mean_of_trees" lets every tree
            count alike, as it did in the published study's time.
        max_bins: thresholds that boosted trees try for a latent.

    Returns:
        `disentanglement`, `completeness`, `informativeness` in [0, 1]; `train`, the accuracy on
        the points fitted to; `importance` [latent, factor]; `disentanglement_per_latent`,
        `completeness_per_factor`, `informativeness_per_factor`; `notes`. nan for factors with one
        value, and for what any codes would have with one latent, or of one factor.

    Raises:
        ValueError: arrays that do not fit or are not finite, or an unknown predictor or rule.

    Eastwood & Williams, 2018, "A framework for the quantitative evaluation of disentangled
    representations", section 2; settings of Locatello et al., 2019.
    """
    if predictor not in PREDICTORS:
        raise ValueError(f"predictor: got {predictor!r}, wanted one of {', '.join(PREDICTORS)}.")
    if rule not in ("sum", "mean_of_trees"):
        raise ValueError(f"rule: got {rule!r}, wanted sum or mean_of_trees.")
    x, y, x_test, y_test = checked_split(codes, factors, codes_test, factors_test)
    keep, own, own_test = varying(x), targets(numbers), targets(numbers, test=True)

    def of_factor(k: int) -> Fit:
        if len(np.unique(y[:, k])) == 1:
            return Fit(np.full(x.shape[1], np.nan), np.nan, np.nan)
        importance = np.zeros(x.shape[1])
        if not keep.any() and k in own:
            return Fit(importance, 0.0, 0.0)
        if not keep.any():
            values, counts = np.unique(y[:, k], return_counts=True)
            common = values[counts.argmax()]
            return Fit(importance, *(float(np.mean(c[:, k] == common)) for c in (y_test, y)))
        arrays = x[:, keep], y[:, k], x_test[:, keep], y_test[:, k]
        if k in own:
            fit = _of_number(
                x[:, keep], own[k], x_test[:, keep], own_test[k], predictor, rule, max_bins
            )
        elif predictor == "boosted":
            fit = _boosted(*arrays, rule, max_bins)
        else:
            fit = PREDICTORS[predictor](*arrays, rule)
        importance[keep] = fit.importance
        return fit._replace(importance=importance)

    fits = for_each(of_factor, range(y.shape[1]))
    importance = np.stack([fit.importance for fit in fits], axis=1)
    score_d, per_latent, _ = disentanglement(importance)
    score_c, per_factor, _ = completeness(importance)
    test, notes = np.array([fit.test for fit in fits]), []
    if why := alone(varying_latents=keep):
        score_c = np.nan
        notes.append(f"completeness is not computed: {why}")
    if why := alone(varying_latents=keep, varying_factors=varying(y)):
        score_d = np.nan
        notes.append(f"disentanglement is not computed: {why}")
    return {
        "disentanglement": score_d,
        "completeness": score_c,
        "informativeness": mean(test),
        "train": mean([fit.train for fit in fits]),
        "importance": importance,
        "disentanglement_per_latent": per_latent,
        "completeness_per_factor": per_factor,
        "informativeness_per_factor": test,
        "notes": notes,
    }


def _boosted(
    x: np.ndarray,
    y: np.ndarray,
    x_test: np.ndarray,
    y_test: np.ndarray,
    rule: Rule,
    max_bins: int = EXACT,
) -> Fit:
    trees = boosted_trees(x, y, x_test, max_bins=max_bins)
    accuracy = float(np.mean(trees.predictions == y_test))
    return Fit(_by_rule(trees.gains, rule), accuracy, trees.train_accuracy)


def _boosted_sklearn(
    x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, rule: Rule
) -> Fit:
    model = GradientBoostingClassifier(random_state=0).fit(x, y)
    trees = [tree.tree_ for stage in model.estimators_ for tree in stage]
    gains = np.array([tree.compute_feature_importances(normalize=False) for tree in trees])
    return Fit(_by_rule(gains, rule), model.score(x_test, y_test), model.score(x, y))


def _by_rule(gains: np.ndarray, rule: Rule) -> np.ndarray:
    """[feature] importances from those of each tree [tree, feature]."""
    if rule == "mean_of_trees":
        totals = gains.sum(axis=1, keepdims=True)
        return np.divide(gains, totals, out=np.zeros_like(gains), where=totals > 0).mean(axis=0)
    total = gains.sum()
    return gains.sum(axis=0) / total if total > 0 else gains.sum(axis=0)


def _forest(
    x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, rule: Rule
) -> Fit:
    model = RandomForestClassifier(random_state=0).fit(x, y)
    return Fit(model.feature_importances_, model.score(x_test, y_test), model.score(x, y))


def _lasso(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, rule: Rule) -> Fit:
    z, z_test = _standardised(x, x_test)
    model = LassoCV(cv=FOLDS, random_state=0).fit(z, y / y.std())
    r2, r2_train = (model.score(a, b / y.std()) for a, b in ((z_test, y_test), (z, y)))
    return Fit(np.abs(model.coef_), max(0.0, r2), max(0.0, r2_train))


def _of_number(
    x: np.ndarray,
    y: Targets,
    x_test: np.ndarray,
    y_test: np.ndarray,
    predictor: Predictor,
    rule: Rule,
    max_bins: int,
) -> Fit:
    """A regression of a factor that is a number, of one or two targets."""
    y, y_test = upright(x, y, y_test)
    if predictor == "boosted":
        trees = regression_trees(x, y, x_test, max_bins=max_bins)
        importance = _by_rule(trees.gains, rule)
        predicted, fitted = trees.predictions, trees.fitted
    elif predictor == "boosted_sklearn":
        models = [GradientBoostingRegressor(random_state=0).fit(x, column) for column in y.T]
        trees = [tree[0].tree_ for model in models for tree in model.estimators_]
        gains = [tree.compute_feature_importances(normalize=False) for tree in trees]
        importance = _by_rule(np.array(gains), rule)
        predicted, fitted = (np.stack([m.predict(a) for m in models], 1) for a in (x_test, x))
    elif predictor == "forest":
        model = RandomForestRegressor(random_state=0).fit(x, y.squeeze())
        importance = model.feature_importances_
        predicted, fitted = (model.predict(a).reshape(-1, y.shape[1]) for a in (x_test, x))
    else:
        z, z_test = _standardised(x, x_test)
        # Cosine and sine are penalised together, so that no angle is the first.
        model = MultiTaskLassoCV(cv=FOLDS, random_state=0).fit(z, y)
        importance = np.sqrt(np.sum(model.coef_**2, axis=0))
        predicted, fitted = model.predict(z_test), model.predict(z)
    return Fit(importance, explained_variance(predicted, y_test), explained_variance(fitted, y))


def _standardised(x: np.ndarray, x_test: np.ndarray) -> list[np.ndarray]:
    """For the lasso's cross-validation."""
    if len(x) < FOLDS:
        raise InvalidArrays(f"too few points: got {len(x)} to fit on, wanted {FOLDS} or more.")
    return standardised(x, x_test)


PREDICTORS = {
    "boosted": _boosted,
    "boosted_sklearn": _boosted_sklearn,
    "forest": _forest,
    "lasso": _lasso,
}

DCI = Metric(
    dci,
    "how the importances of latents for predicting factors concentrate, and the accuracy",
    "Eastwood & Williams 2018",
    headline="disentanglement",
    others=("completeness", "informativeness", "train"),
    compat={"rule": "mean_of_trees"},
)


# MED: DCI's disentanglement on mutual information, so that nothing is fitted.


def med(codes: CodeMatrix, factors: Factors, *, bins: int = BINS) -> Score:
    """DCI's disentanglement of the matrix I(z_j; v_k) / sum over latents of I(z; v_k).

    Args:
        codes: [n, latent].
        factors: [n, factor] class indices; those with one value are left out.
        bins: for each latent.

    Returns:
        `score` in [0, 1]; `per_latent` and `latent_weight` [latent]; `importance`
        [latent, factor].

    Raises:
        ValueError: arrays that do not fit or are not finite, or fewer than two latents or factors
            that vary.

    Cao, Nai, Yang, Huang & Gao, 2022, "An empirical study on disentanglement of negative-free
    contrastive learning", section 3.2.
    """
    codes, factors = checked(codes, factors)
    if why := alone(varying_factors=varying(factors), varying_latents=varying(codes)):
        raise InvalidArrays(why)
    matrix = mutual_information(discretize(codes, bins), factors)
    importance = ratio(matrix, matrix.sum(axis=0))
    score, per_latent, weight = disentanglement(importance)
    return {
        "score": score,
        "per_latent": per_latent,
        "latent_weight": weight,
        "importance": importance,
    }


MED = Metric(
    med,
    "DCI's disentanglement on each factor's shares of its mutual information with the latents",
    "Cao et al. 2022",
    fast=True,
    null=True,
)
