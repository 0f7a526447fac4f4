"""The BetaVAE score."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from bvae_jax.metrics.base import InvalidArrays, Metric, alone, checked, generator
from bvae_jax.metrics.matching import Matching, votes_in_parts
from bvae_jax.types import CodeMatrix, Factors, PRNGKey, Score


def beta_vae_score(
    codes: CodeMatrix,
    factors: Factors,
    key: PRNGKey,
    *,
    pairs: int = 64,
    train_votes: int = 10_000,
    test_votes: int = 5_000,
) -> Score:
    """Accuracy of naming the factor that pairs of points share, from how little codes differ.

    A vote: draw a factor and `pairs` pairs of points that share its value (each pair its own
    value), average |z1 - z2|. Logistic regression predicts the factor from it.

    Args:
        codes: [n, latent].
        factors: [n, factor] class indices. On a full factor grid, or points drawn uniformly from
            one, the votes are those of the paper.
        key: of the draws.
        pairs: in a vote.
        train_votes: to fit on.
        test_votes: to score on.

    Returns:
        `score` in [0, 1], accuracy on the test votes (chance: 1 / number of factors); `train`,
        that on the training votes; `accuracy_per_factor` [factor], nan for those left out;
        `notes`.

    Raises:
        ValueError: arrays that do not fit or are not finite, too few rows to share a value, or
            fewer than two factors that vary.

    Higgins et al., 2017, section 3; settings of Locatello et al., 2019.
    """
    codes, factors = checked(codes, factors)
    rng, matching = generator(key), Matching(factors)
    if why := alone(factors_to_hold=matching.held):
        raise InvalidArrays(why)
    x, y = _votes(rng, matching, codes, pairs, train_votes)
    x_test, y_test = _votes(rng, matching, codes, pairs, test_votes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression().fit(x, y)
    right_train, right = model.predict(x) == y, model.predict(x_test) == y_test
    per_factor = np.full(factors.shape[1], np.nan)
    for k in np.unique(y_test):
        per_factor[k] = right[y_test == k].mean()
    return {
        "score": float(right.mean()),
        "train": float(right_train.mean()),
        "accuracy_per_factor": per_factor,
        "notes": matching.notes,
    }


def _votes(
    rng: np.random.Generator, matching: Matching, codes: np.ndarray, pairs: int, votes: int
) -> tuple[np.ndarray, np.ndarray]:
    """[votes, latent] mean differences and [votes] factors."""
    differences, names = [], []
    for factor, count in votes_in_parts(rng, matching, votes, pairs * codes.shape[1]):
        first = matching.rows(rng, factor, count * pairs).reshape(count, pairs)
        second = matching.partners(rng, factor, first)
        differences.append(np.abs(codes[first] - codes[second]).mean(axis=1))
        names.append(np.full(count, factor))
    return np.concatenate(differences), np.concatenate(names)


BETA_VAE_SCORE = Metric(
    beta_vae_score,
    "accuracy of naming the factor that pairs of points share, from their codes' difference",
    "Higgins et al. 2017",
    others=("train",),
    fast=True,
    pool=True,
    pixels=True,
    invariant=("permute", "sign"),
)
