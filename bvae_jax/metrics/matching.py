"""Rows that share the value of a factor, by which sampling metrics intervene on an encoded data
set: the BetaVAE and the FactorVAE score."""

from collections.abc import Iterator

import numpy as np
from sklearn.linear_model import LogisticRegression

from bvae_jax.metrics.base import (
    FactorArray,
    InvalidArrays,
    Metric,
    alone,
    checked,
    checked_counts,
    fitting,
    generator,
    relabel,
    sample_variance,
    varying,
)
from bvae_jax.types import CodeMatrix, Factors, PRNGKey, Score

FLOATS_AT_ONCE = 4_000_000


class Matching:
    """Draws rows by the value of a factor.

    A row is drawn uniformly and gives the value, its partners are drawn uniformly among the rows
    of the same value. On a full factor grid that is what the papers do: one factor held, all
    others uniform. Elsewhere the others are distributed as in the rows.

    Factors with one value are left out, as are values with a single row: nothing varies there.

    Args:
        factors: [n, factor] class indices.

    Attributes:
        factors: indices of those that can be held.
        held: [factor] bool, the same.
        notes: what was left out, in words.

    Raises:
        ValueError: no factor has two values with two rows or more.
    """

    def __init__(self, factors: FactorArray):
        self.factors: list[int] = []
        self.notes: list[str] = []
        self._groups = {}
        for k, column in enumerate(factors.T):
            labels, size = relabel(column)
            counts = np.bincount(labels)
            enough = counts >= 2
            if not enough.all():
                self.notes.append(
                    f"factor {k}: {int((~enough).sum())} of {size} values have a single row and "
                    "are left out"
                )
            if size == 1 or enough.sum() < 2:
                continue
            self.factors.append(k)
            order = np.argsort(labels, kind="stable")
            starts = np.cumsum(counts) - counts
            self._groups[k] = (np.flatnonzero(enough[labels]), labels, order, starts, counts)
        self.held = np.isin(np.arange(factors.shape[1]), self.factors)
        if not self.factors:
            raise InvalidArrays(
                f"factors: got {len(factors)} rows, wanted two values of a factor with two rows "
                "each at least: give more points."
            )

    def rows(self, rng: np.random.Generator, factor: int, count: int) -> np.ndarray:
        """[count] rows, drawn uniformly."""
        usable = self._groups[factor][0]
        return usable[rng.integers(len(usable), size=count)]

    def partners(self, rng: np.random.Generator, factor: int, rows: np.ndarray) -> np.ndarray:
        """For each row (any shape) one of the same value of the factor."""
        _, labels, order, starts, counts = self._groups[factor]
        values = labels[rows]
        return order[starts[values] + rng.integers(counts[values])]


def votes_in_parts(
    rng: np.random.Generator, matching: Matching, votes: int, size: int
) -> Iterator[tuple[int, int]]:
    """(factor, number of votes): which factor is held, uniformly, in parts that fit in memory.

    Args:
        size: of the numbers that one vote reads.
    """
    chosen = np.bincount(rng.integers(len(matching.factors), size=votes))
    most = max(1, FLOATS_AT_ONCE // size)
    for factor, count in zip(matching.factors, chosen, strict=False):
        for start in range(0, count, most):
            yield factor, int(min(most, count - start))


# The BetaVAE score.


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
        ValueError: arrays that do not fit or are not finite, too few rows to share a value, fewer
            than two factors that vary, or a count below 1.

    Higgins et al., 2017, section 3; settings of Locatello et al., 2019.
    """
    checked_counts(pairs=pairs, train_votes=train_votes, test_votes=test_votes)
    codes, factors = checked(codes, factors)
    rng, matching = generator(key), Matching(factors)
    if why := alone(factors_to_hold=matching.held):
        raise InvalidArrays(why)
    x, y = _votes(rng, matching, codes, pairs, train_votes)
    x_test, y_test = _votes(rng, matching, codes, pairs, test_votes)
    with fitting():
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


# The FactorVAE score.


def factor_vae_score(
    codes: CodeMatrix,
    factors: Factors,
    key: PRNGKey,
    *,
    points: int = 64,
    train_votes: int = 10_000,
    test_votes: int = 5_000,
    prune_std: float = 0.05,
) -> Score:
    """Accuracy of naming the factor that points share, from the latent that varies least.

    A vote: draw a factor and a value, and `points` points that have it; the latent whose variance
    over them is smallest, relative to its variance over all points, votes for the factor. Each
    latent stands for the factor of most of its training votes.

    Args:
        codes: [n, latent].
        factors: [n, factor] class indices. On a full factor grid, or points drawn uniformly from
            one, the votes are those of the paper.
        key: of the draws.
        points: in a vote.
        train_votes: to choose each latent's factor by.
        test_votes: to score on.
        prune_std: latents whose standard deviation is below this do not vote. It supposes codes on
            the scale of a prior of variance 1.

    Returns:
        `score` in [0, 1], accuracy on the test votes (chance: 1 / number of factors, which one
        latent that is left has, too), 0 if none is left; `train`, that on the training votes;
        `votes` [latent, factor] of training; `active` [latent] bool; `notes`.

    Raises:
        ValueError: arrays that do not fit or are not finite, too few rows to share a value, fewer
            than two factors that vary, one latent that does, whose votes are all alike, or a
            count below 1.

    Kim & Mnih, 2018, section 4; settings of Locatello et al., 2019.
    """
    checked_counts(points=points, train_votes=train_votes, test_votes=test_votes)
    codes, factors = checked(codes, factors)
    rng, matching = generator(key), Matching(factors)
    variance = sample_variance(codes)
    active = np.sqrt(variance) >= max(prune_std, 1e-12)
    if why := alone(factors_to_hold=matching.held, varying_latents=varying(codes)):
        raise InvalidArrays(why)
    votes = np.zeros((2, codes.shape[1], factors.shape[1]), np.int64)
    if active.any():
        scaled = codes[:, active] / np.sqrt(variance[active])
        for table, count in zip(votes, (train_votes, test_votes), strict=True):
            for factor, part in votes_in_parts(rng, matching, count, points * scaled.shape[1]):
                first = matching.rows(rng, factor, part)
                rows = matching.partners(rng, factor, np.repeat(first[:, None], points, axis=1))
                quietest = np.flatnonzero(active)[scaled[rows].var(axis=1).argmin(axis=1)]
                np.add.at(table[:, factor], quietest, 1)
    notes = list(matching.notes)
    if not active.any() and varying(codes).any():
        notes.append(
            f"no latent has a standard deviation of {prune_std:g}: all are pruned, and 0 says "
            "nothing of the codes"
        )
    elif active.sum() == 1:
        notes.append(
            f"one latent alone has a standard deviation of {prune_std:g}: all votes are its, and "
            "the score is chance"
        )
    train, test = votes
    chosen = train.argmax(axis=1)
    latents = np.arange(len(train))
    return {
        "score": float(test[latents, chosen].sum() / test_votes),
        "train": float(train[latents, chosen].sum() / train_votes),
        "votes": train,
        "active": active,
        "notes": notes,
    }


FACTOR_VAE_SCORE = Metric(
    factor_vae_score,
    "accuracy of naming the factor that points share, from the latent that varies least",
    "Kim & Mnih 2018",
    others=("train",),
    fast=True,
    pool=True,
    invariant=("permute", "sign"),
)
