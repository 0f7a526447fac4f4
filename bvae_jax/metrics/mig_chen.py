"""Chen's MIG: sampled codes against the density of the aggregate posterior."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Array

from bvae_jax.metrics.base import (
    InvalidArrays,
    Metric,
    checked,
    checked_logvars,
    for_each,
    generator,
    mean,
    ratio,
    relabel,
    top_two,
)
from bvae_jax.types import CodeMatrix, Factors, PRNGKey, Score

MOST_LOGVAR = 60.0
DSPRITES = (3, 6, 40, 32, 32)
"""Values of its factors; the first is the shape."""
AT_ONCE = 500
"""Samples whose density is computed together."""


def mig_chen(
    codes: CodeMatrix,
    factors: Factors,
    logvars: CodeMatrix,
    key: PRNGKey,
    factor_sizes: Sequence[int] | Array | np.ndarray | None = None,
    *,
    samples: int = 10_000,
    leave_out: tuple[int, ...] | Literal["shape"] = (),
) -> Score:
    """MIG with I(z_j; v) of sampled codes: mean of log q(z_j | v) - log q(z_j) over samples.

    z is drawn from the posterior of a random point; q(z_j) is the mean of all points' posterior
    densities, q(z_j | v) that of the points with the same value. Normalised by the logarithm of
    the factor's size, which is its entropy on a full grid.

    Where it differs: the authors leave out the shape of dSprites, which has no order; here
    every factor counts.

    Args:
        codes: [n, latent] posterior means.
        factors: [n, factor] class indices.
        logvars: [n, latent] posterior log-variances.
        key: of the draws.
        factor_sizes: [factor] number of values of each; those that occur, if not given.
        samples: number of codes to draw.
        leave_out: factors that the mean leaves out; "shape" leaves out that of dSprites, which is
            recognised by its factors' sizes, as the paper does, and nothing of another data set.

    Returns:
        `score`; `per_factor` [factor]; `mutual_information` [latent, factor] in nats.

    Raises:
        ValueError: arrays that do not fit or are not finite.

    Chen, Li, Grosse & Duvenaud, 2018, equation 6 and appendix B.
    """
    codes, factors = checked(codes, factors)
    # A posterior this narrow is a point; single precision cannot represent a narrower one.
    logvars = np.clip(checked_logvars(logvars, codes), -MOST_LOGVAR, MOST_LOGVAR)
    rng = generator(key)
    drawn = rng.integers(len(codes), size=samples)
    noise = rng.standard_normal((samples, codes.shape[1]))
    z = codes[drawn] + np.exp(0.5 * logvars[drawn]) * noise
    labels = [relabel(column) for column in factors.T]
    sizes = np.array([n for _, n in labels] if factor_sizes is None else factor_sizes)
    if sizes.shape != (len(labels),):
        raise InvalidArrays(
            f"factor_sizes: got shape {sizes.shape}, wanted [factor] ({len(labels)},)."
        )
    one_hot = np.concatenate([np.eye(n, dtype=np.float32)[column] for column, n in labels], axis=1)
    first_column = np.cumsum([0] + [n for _, n in labels[:-1]])
    own = np.stack([column for column, _ in labels], axis=1) + first_column
    counts = one_hot.sum(axis=0, dtype=np.float64)

    def of_latent(j: int) -> np.ndarray:
        """[factor] information, in nats."""
        m, inverse = codes[:, j].astype(np.float32), np.exp(-0.5 * logvars[:, j])
        total = np.zeros(factors.shape[1])
        inverse = inverse.astype(np.float32)
        for start in range(0, samples, AT_ONCE):
            part = slice(start, start + AT_ONCE)
            density = (z[part, j, None].astype(np.float32) - m) * inverse
            np.multiply(density, density, out=density)
            density *= np.float32(-0.5)
            np.exp(density, out=density)
            density *= inverse
            sums = (density @ one_hot).astype(np.float64)
            columns = own[drawn[part]]
            inside = np.take_along_axis(sums, columns, axis=1) / counts[columns]
            everywhere = sums[:, : labels[0][1]].sum(axis=1) / len(codes)
            total += np.sum(np.log(inside) - np.log(everywhere)[:, None], axis=0)
        return total / samples

    matrix = np.array(for_each(of_latent, range(codes.shape[1])))
    first, second = top_two(matrix)
    per_factor = ratio(first - second, np.log(sizes))
    per_factor[[n == 1 for _, n in labels]] = np.nan
    if leave_out == "shape":
        several = np.flatnonzero(sizes > 1)  # the published file has a colour of one value
        leave_out = (int(several[0]),) if tuple(sizes[several]) == DSPRITES else ()
    kept = [k for k in range(len(sizes)) if k not in leave_out] or list(range(len(sizes)))
    return {
        "score": mean(per_factor[kept]),
        "per_factor": per_factor,
        "mutual_information": matrix,
    }


MIG_CHEN = Metric(
    mig_chen,
    "MIG of sampled codes by the density of the aggregate posterior",
    "Chen et al. 2018",
    invariant=("permute", "sign", "scale"),
    compat={"leave_out": "shape"},
)
