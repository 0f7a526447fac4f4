"""Gradient-boosted trees as scikit-learn defines them, many times faster.

`GradientBoostingClassifier` fits each tree to the residuals by their variance alone, then gives
every leaf a Newton step. LightGBM grows the same trees when it is handed the residuals as gradient
and a hessian of one; the leaves' steps are computed here. Latents that order the points alike (or
reversed) offer the same splits; scikit-learn chooses among them at random, here one is fitted and
its gains are shared equally. What remains different is how splits of equal gain of different
latents are chosen otherwise.
"""

import re
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from bvae_jax.errors import UserError, needs
from bvae_jax.metrics.base import InvalidArrays

EXACT = 65_535
"""More bins than there are points: a threshold between any two values, as in scikit-learn."""
FEWEST = 3
"""Points; LightGBM does not split fewer."""
DEPTH = 3
LEAVES = 2**DEPTH
LEARNING_RATE = 0.1


class Boosted(NamedTuple):
    """Fitted trees.

    Attributes:
        predictions: [m] classes of the test points.
        train_accuracy: on the points that it was fitted to.
        gains: [tree, feature] decrease of the residuals' sum of squares.
    """

    predictions: Int[np.ndarray, " m"]
    train_accuracy: float
    gains: Float[np.ndarray, "tree feature"]


def boosted_trees(
    x: Float[np.ndarray, "n feature"],
    y: Int[np.ndarray, " n"],
    x_test: Float[np.ndarray, "m feature"],
    *,
    stages: int = 100,
    max_bins: int = EXACT,
) -> Boosted:
    """Fit trees of depth 3 to classes and predict those of other points.

    The defaults are those of scikit-learn's `GradientBoostingClassifier`. One thread, and nothing
    is random: the result depends on the arrays alone.

    Args:
        max_bins: thresholds that are tried for a feature; fewer are faster.

    Raises:
        InvalidArrays: fewer than three points.

    Friedman, 2001, "Greedy function approximation", algorithm 6.
    """
    _check_points(x)
    values, labels = np.unique(y, return_inverse=True)
    if len(values) == 1:
        return Boosted(np.full(len(x_test), values[0]), 1.0, np.zeros((0, x.shape[1])))
    n, trees = len(x), 1 if len(values) == 2 else len(values)
    group = _alike(x)
    chosen_columns = np.unique(group, return_index=True)[1]
    both = _ranks(x, np.concatenate([x, x_test]))[:, chosen_columns]
    booster = _booster(both[:n], trees, max_bins)
    # Two classes are one column of logits; more are one column each.
    targets = (labels[:, None] if trees == 1 else np.eye(trees)[labels]).astype(np.float64)
    share = targets.mean(axis=0)
    prior = np.log(share / (1 - share)) if trees == 1 else np.log(share)
    logits = np.tile(prior, (len(both), 1))
    step = LEARNING_RATE * (1.0 if trees == 1 else (trees - 1) / trees)
    first_leaf = LEAVES * np.arange(trees)
    for stage in range(stages):
        p = _probabilities(logits[:n])
        residual = targets - p
        leaf = _grow(booster, residual, both, stage)
        if leaf is None:
            break
        leaf += first_leaf
        inside = leaf[:n].ravel()
        total = np.bincount(inside, residual.ravel(), LEAVES * trees)
        curvature = np.bincount(inside, (p * (1 - p)).ravel(), LEAVES * trees)
        newton = np.divide(total, curvature, out=np.zeros_like(total), where=curvature > 1e-150)
        logits += step * newton[leaf]
    chosen = (logits[:, 0] > 0).astype(int) if trees == 1 else logits.argmax(axis=1)
    gains = (_gains(booster, stages * trees, both.shape[1]) / np.bincount(group))[:, group]
    return Boosted(values[chosen[n:]], float(np.mean(chosen[:n] == labels)), gains)


class Regressed(NamedTuple):
    """Fitted trees of a regression.

    Attributes:
        predictions: [m, target] of the test points.
        fitted: [n, target] of the points that it was fitted to.
        gains: [tree, feature] decrease of the residuals' sum of squares, target after target.
    """

    predictions: Float[np.ndarray, "m target"]
    fitted: Float[np.ndarray, "n target"]
    gains: Float[np.ndarray, "tree feature"]


def regression_trees(
    x: Float[np.ndarray, "n feature"],
    y: Float[np.ndarray, "n target"],
    x_test: Float[np.ndarray, "m feature"],
    *,
    stages: int = 100,
    max_bins: int = EXACT,
) -> Regressed:
    """Fit trees of depth 3 to numbers, as scikit-learn's `GradientBoostingRegressor` does, to each
    target by itself: see `boosted_trees`.

    Raises:
        InvalidArrays: fewer than three points.

    Friedman, 2001, "Greedy function approximation", algorithm 2.
    """
    _check_points(x)
    n, group = len(x), _alike(x)
    both = _ranks(x, np.concatenate([x, x_test]))[:, np.unique(group, return_index=True)[1]]
    found, gains = [], []
    for column in y.T:
        booster = _booster(both[:n], 1, max_bins)
        predicted = np.full(len(both), column.mean())
        for stage in range(stages):
            residual = column - predicted[:n]
            leaf = _grow(booster, residual[:, None], both, stage)
            if leaf is None:
                break
            leaf = leaf[:, 0]
            total, count = np.bincount(leaf[:n], residual), np.bincount(leaf[:n])
            predicted += LEARNING_RATE * (total / np.maximum(count, 1))[leaf]
        found.append(predicted)
        gains.append(_gains(booster, stages, both.shape[1]))
    predicted = np.stack(found, axis=1)
    gain = (np.concatenate(gains) / np.bincount(group))[:, group]
    return Regressed(predicted[n:], predicted[:n], gain)


def _check_points(x: np.ndarray) -> None:
    if len(x) < FEWEST:
        raise InvalidArrays(f"too few points: got {len(x)} to fit on, wanted {FEWEST} or more.")


def _grow(booster: Any, residual: np.ndarray, points: np.ndarray, stage: int) -> np.ndarray | None:
    """Fit the next trees to residuals [n, tree].

    Returns:
        [point, tree] number of the leaf that each point falls in; None where no split of any tree
        gains anything, as where features, or residuals, are all alike.
    """
    gradient = (-residual.squeeze(axis=1) if residual.shape[1] == 1 else -residual).astype(
        np.float32
    )
    if booster.update(fobj=lambda *_: (gradient, np.ones_like(gradient))):
        return None
    leaf = booster.predict(
        points, pred_leaf=True, start_iteration=stage, num_iteration=1, num_threads=1
    )
    return np.asarray(leaf, np.int64).reshape(len(points), residual.shape[1])


def _ranks(x: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points by their places among the values of `x`, whatever those values' magnitude.

    Linear in between, so that halfway between two values stays halfway. Places count from 1, for
    LightGBM keeps zeros apart.
    """
    columns = []
    for values, column in zip(x.T, points.T, strict=True):
        known = np.unique(values)
        columns.append(np.interp(column, known, np.arange(1, len(known) + 1)))
    return np.stack(columns, axis=1)


def _alike(x: np.ndarray) -> np.ndarray:
    """[feature] number of its group: features that order the points alike or reversed."""
    groups: dict[bytes, int] = {}
    numbers = []
    for column in x.T:
        rank = np.unique(column, return_inverse=True)[1]
        rank = max(rank.tobytes(), (rank.max() - rank).tobytes())
        numbers.append(groups.setdefault(rank, len(groups)))
    return np.array(numbers)


def _probabilities(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits)) if logits.shape[1] == 1 else softmax(logits, axis=1)


def _booster(x: np.ndarray, trees: int, max_bins: int) -> Any:
    """A `lightgbm.Booster` without trees."""
    needs("lightgbm", "metrics", "boosted trees (dci, downstream)")
    try:
        import lightgbm
    except OSError as error:  # the package is there, a system library is not
        raise UserError(
            f"LightGBM cannot be loaded ({error}): install the system package libgomp1."
        ) from error
    data = lightgbm.Dataset(
        x,
        params={
            "max_bin": int(min(max_bins, max(2, len(x)))),
            "min_data_in_bin": 1,
            "bin_construct_sample_cnt": len(x),
            "feature_pre_filter": False,
            "num_threads": 1,
            "verbose": -1,
        },
    )
    return lightgbm.Booster(
        {
            "objective": "none",
            "num_class": trees,
            "max_depth": DEPTH,
            "num_leaves": LEAVES,
            "learning_rate": 1.0,
            "min_data_in_leaf": 1,
            "min_sum_hessian_in_leaf": 0.5,
            "lambda_l2": 0.0,
            "force_col_wise": True,
            "deterministic": True,
            "seed": 0,
            "num_threads": 1,
            "verbose": -1,
        },
        data,
    )


def _gains(booster: Any, trees: int, features: int) -> Float[np.ndarray, "tree feature"]:
    """From LightGBM's text format; 0 of those that were not grown."""
    gains = np.zeros((trees, features))
    for gain, tree in zip(gains, booster.model_to_string().split("\nTree=")[1:], strict=False):
        split = re.search(r"^split_feature=(.*)$", tree, re.MULTILINE)
        size = re.search(r"^split_gain=(.*)$", tree, re.MULTILINE)
        if split and size and split[1]:
            of, by = np.fromstring(split[1], int, sep=" "), np.fromstring(size[1], sep=" ")
            np.add.at(gain, of, by)
    return gains
