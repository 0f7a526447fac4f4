"""The FactorVAE score."""

import numpy as np

from bvae_jax.metrics.base import (
    InvalidArrays,
    Metric,
    alone,
    checked,
    generator,
    sample_variance,
    varying,
)
from bvae_jax.metrics.matching import Matching, votes_in_parts
from bvae_jax.types import CodeMatrix, Factors, PRNGKey, Score


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
        `score` in [0, 1], accuracy on the test votes (chance: 1 / number of factors), 0 if no
        latent is left; `train`, that on the training votes; `votes` [latent, factor] of training;
        `active` [latent] bool; `notes`.

    Raises:
        ValueError: arrays that do not fit or are not finite, too few rows to share a value, fewer
            than two factors that vary, or one active latent, whose votes are all alike.

    Kim & Mnih, 2018, section 4; settings of Locatello et al., 2019.
    """
    codes, factors = checked(codes, factors)
    rng, matching = generator(key), Matching(factors)
    variance = sample_variance(codes)
    active = np.sqrt(variance) >= max(prune_std, 1e-12)
    if why := alone(factors_to_hold=matching.held, active_latents=active):
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
