"""Mean correlation coefficient of factors and latents that are matched one to one.

And what these latents know of the factors."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata

from bvae_jax.continuous import Numbers, Targets, targets
from bvae_jax.metrics.base import (
    BINS,
    CodeArray,
    CodesTest,
    FactorsTest,
    Matrix,
    Metric,
    checked,
    checked_split,
    discretize,
    entropies,
    mean,
    mutual_information,
    ratio,
    varying,
)
from bvae_jax.metrics.regression import explained
from bvae_jax.types import CodeMatrix, Factors, Score

FEWEST = 30
"""Points to test on below which it is said: of 30, noise has correlations of .15 on average."""


def mcc(
    codes: CodeMatrix,
    factors: Factors,
    codes_test: CodesTest,
    factors_test: FactorsTest,
    numbers: Numbers | None = None,
) -> Score:
    """Mean over factors of the size of the correlation with a latent of its own, on test points.

    Each factor gets one latent, so that the correlations of training points have the largest sum; a
    factor for which none is left has 0. `score` is of Pearson's correlations, `spearman` of those
    of ranks, which ask for an order instead of a line. Class indices are taken as numbers, so that
    it makes sense for ordered factors. On the points that latents are matched by, chance alone has
    more than 0.

    A number: its values; with a period the multiple correlation of the latent with the angle's
    cosine and sine, whose weights come from the training points. The cosine of an angle has 1, the
    angle itself .78; `spearman` takes ranks of the latent alone.

    Where it differs: many codes score on the points by which they match; here on others.

    Args:
        codes: [n, latent] to match by.
        factors: [n, factor] class indices.
        codes_test: [m, latent] to score on.
        factors_test: [m, factor].
        numbers: values of factors that are numbers, in place of their classes.

    Returns:
        `score` and `spearman` in [0, 1]; `per_factor` [factor] of `score`, nan of those with one
        value; `latent` [factor], its number, -1 for none; `correlations` [latent, factor] of the
        training points, in size.

    Raises:
        ValueError: arrays that do not fit or are not finite.

    Hyvärinen & Morioka, 2016, "Unsupervised feature extraction by time-contrastive learning",
    section 6; Khemakhem et al., 2020, "Variational autoencoders and nonlinear ICA", section 5.
    """
    x, y, x_test, y_test = checked_split(codes, factors, codes_test, factors_test)
    pairs = {k: (number, targets(numbers, test=True)[k]) for k, number in targets(numbers).items()}
    circles = {k: pair for k, pair in pairs.items() if pair[0].shape[1] == 2}
    if pairs:
        y, y_test = y.astype(np.float64), y_test.astype(np.float64)
        for k in set(pairs) - set(circles):
            y[:, k], y_test[:, k] = (number[:, 0] for number in pairs[k])
    by_rank, *_ = _matched_scores(
        *(rankdata(a, axis=0) for a in (x, y, x_test, y_test)), circles=circles
    )
    alike = np.flatnonzero(varying(y) & ~varying(y_test)).tolist()
    notes = [f"factor {k} has one value among the points to test on: left out" for k in alike]
    per_factor, latent, matrix = _matched_scores(x, y, x_test, y_test, circles)
    if len(x_test) < FEWEST:
        notes.append(f"{len(x_test)} points to test on: correlations of so few are large by chance")
    return {
        "score": mean(per_factor),
        "spearman": mean(by_rank),
        "per_factor": per_factor,
        "latent": latent,
        "correlations": matrix,
        "notes": notes,
    }


def _matched_scores(
    codes: CodeArray,
    factors: Shaped[np.ndarray, "n factor"],
    codes_test: Float[np.ndarray, "m latent"],
    factors_test: Shaped[np.ndarray, "m factor"],
    circles: Mapping[int, tuple[Targets, np.ndarray]],
) -> tuple[Float[np.ndarray, " factor"], Int[np.ndarray, " factor"], Matrix]:
    """Of test points by factor; each factor's latent; correlations of the training points."""
    matrix, some = correlations(codes, factors), varying(codes)
    for k, (angle, _) in circles.items():
        matrix[:, k] = np.where(some, np.sqrt(explained(codes, angle)), np.nan)
    latent = matched(matrix)
    for k, (angle, angle_test) in circles.items():
        if some[latent[k]]:
            code = codes[:, latent[k]]
            weights = np.linalg.lstsq(angle - angle.mean(axis=0), code - code.mean())[0]
            factors_test[:, k] = angle_test @ weights
    return _of(latent, codes_test, factors_test), latent, matrix


def correlations(codes: CodeArray, factors: Shaped[np.ndarray, "n factor"]) -> Matrix:
    """Sizes of Pearson's correlations; nan where one of the two is constant."""
    a, b = codes, factors
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    vary = np.outer(varying(a), varying(b))
    found = np.abs(ratio(a.T @ b / len(a), np.outer(a.std(axis=0), b.std(axis=0))))
    return np.where(vary, np.minimum(found, 1), np.nan)


def matched(matrix: Matrix) -> Int[np.ndarray, " factor"]:
    """For each factor a latent of its own, so that the sum is largest; -1 for none. Kuhn 1955."""
    latents, factors = linear_sum_assignment(np.nan_to_num(matrix), maximize=True)
    found = np.full(matrix.shape[1], -1)
    found[factors] = latents
    return found


def _of(
    latent: Int[np.ndarray, " factor"], codes: CodeArray, factors: Shaped[np.ndarray, "n factor"]
) -> Float[np.ndarray, " factor"]:
    """What each factor has with its latent: 0 where that is none or constant."""
    found = np.nan_to_num(correlations(codes, factors)[latent, np.arange(len(latent))])
    return np.where(varying(factors), found * (latent >= 0), np.nan)


MCC = Metric(
    mcc,
    "mean correlation of each factor with a latent of its own, on held-out points",
    "Hyvärinen & Morioka 2016",
    others=("spearman",),
    fast=True,
)


# What latents that are matched one to one with the factors know of them.


def matched_information(codes: CodeMatrix, factors: Factors, *, bins: int = BINS) -> Score:
    """Sum of I(z_j; v_k) over pairs of a factor and a latent of its own, over the sum of H(v_k).

    Pairs are chosen so that the sum is largest. Unlike MIG it does not mind a second latent that
    knows the factor too, so that it tells how much is lost and not how it is shared out; a latent
    that knows all factors counts once.

    Where it differs: the paper's number is the sum in nats (`nats`); here it is divided by the
    entropy of all factors.

    Args:
        codes: [n, latent].
        factors: [n, factor] class indices.
        bins: for each latent, of equal width over its range.

    Returns:
        `score` in [0, 1]; `nats`, the sum; `per_factor` [factor], I / H; `latent` [factor], its
        number, -1 for none; `mutual_information` [latent, factor] in nats.

    Raises:
        ValueError: arrays that do not fit or are not finite.

    I_m of "Mutual information collapse explains disentanglement failure in beta-VAEs",
    arXiv 2602.09277, 2026.
    """
    codes, factors = checked(codes, factors)
    matrix, entropy = mutual_information(discretize(codes, bins), factors), entropies(factors)
    latent = matched(matrix)
    known = np.where(latent >= 0, matrix[latent, np.arange(len(latent))], 0.0)
    share = np.divide(known, entropy, out=np.full(len(known), np.nan), where=varying(factors))
    return {
        "score": min(1.0, float(known.sum() / entropy.sum())),
        "nats": float(known.sum()),
        "per_factor": share,
        "latent": latent,
        "mutual_information": matrix,
    }


MATCHED_INFORMATION = Metric(
    matched_information,
    "what a latent of its own knows of each factor, over the entropy of all",
    "arXiv 2602.09277, 2026",
    others=("nats",),
    pixels=True,
    null=True,
)
