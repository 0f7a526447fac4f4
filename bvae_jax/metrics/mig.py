"""Mutual information gaps, by counting: MIG, MIG-sup, RMIG, JEMMIG, DCIMIG."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Array

from bvae_jax.elbo import ACTIVE_VARIANCE, MOST_LOGVAR
from bvae_jax.metrics.base import (
    BINS,
    POINTS,
    Metric,
    bin_masses,
    checked,
    checked_counts,
    checked_logvars,
    checked_sizes,
    discretize,
    entropies,
    for_each,
    generator,
    information_of_masses,
    mean,
    mutual_information,
    ratio,
    relabel,
    sample_variance,
    top_two,
    varying,
)
from bvae_jax.types import CodeMatrix, Factors, PRNGKey, Score


def mig(codes: CodeMatrix, factors: Factors, *, bins: int = BINS) -> Score:
    """MIG: mean over factors of (I1 - I2) / H(v), I1 and I2 the two largest I(z_j; v) of latents.

    As in Locatello et al. (2019): posterior means, cut into bins of equal width over each latent's
    range. It falls below 1 even for perfect codes whose factor has more values than there are
    bins, and is biased upwards by few points. `mig_chen` is the density form of the paper.

    Where it differs: the paper takes sampled codes by their density, over the logarithm of the
    factor's size (`mig_chen`); here, as in disentanglement_lib, means are counted in bins, over
    the factor's entropy.

    Args:
        codes: [n, latent].
        factors: [n, factor] class indices.
        bins: for each latent.

    Returns:
        `score` in [0, 1]; `per_factor` [factor]; `mutual_information` [latent, factor] and
        `entropy` [factor] in nats.

    Raises:
        ValueError: arrays that do not fit or are not finite, or no samples.

    Chen, Li, Grosse & Duvenaud, 2018, equation 6.
    """
    codes, factors = checked(codes, factors)
    matrix = mutual_information(discretize(codes, bins), factors)
    entropy = entropies(factors)
    first, second = top_two(matrix)
    per_factor = ratio(first - second, entropy)
    return {
        "score": mean(per_factor),
        "per_factor": per_factor,
        "mutual_information": matrix,
        "entropy": entropy,
    }


MIG = Metric(
    mig,
    "gap between the two latents that know most of a factor, over the factor's entropy",
    "Chen et al. 2018; Locatello et al. 2019",
    fast=True,
    pixels=True,
    null=True,
)


# MIG-sup: the mutual information gap with the roles of latents and factors swapped.


def mig_sup(
    codes: CodeMatrix, factors: Factors, *, bins: int = BINS, variance: float = ACTIVE_VARIANCE
) -> Score:
    """Mean over active latents of the gap between the two largest I(z; v_k) / H(v_k) of factors.

    It falls when one latent mixes factors, which MIG does not see. Latents whose mean hardly varies
    are left out, as by the authors; without any other the score is 0.

    Where it differs: the authors estimate information from samples of the posterior; here means
    are counted in bins.

    Args:
        codes: [n, latent].
        factors: [n, factor] class indices.
        bins: for each latent.
        variance: a latent is active if the variance of its codes exceeds this. It supposes codes on
            the scale of a prior of variance 1.

    Returns:
        `score` in [0, 1]; `per_latent` [latent], nan for those left out;
        `normalised_information` [latent, factor].

    Raises:
        ValueError: arrays that do not fit or are not finite.

    Li, Murkute, Gyawali & Wang, 2020, "Progressive learning and disentanglement of hierarchical
    representations", equation 9, and their code.
    """
    codes, factors = checked(codes, factors)
    matrix = mutual_information(discretize(codes, bins), factors)
    matrix = ratio(matrix, entropies(factors))
    known = matrix[:, ~(matrix != matrix).any(axis=0)]
    first, second = top_two(known.T)
    per_latent = first - second
    per_latent[~(sample_variance(codes) > variance)] = float("nan")
    return {
        "score": mean(per_latent, empty=0.0),
        "per_latent": per_latent,
        "normalised_information": matrix,
    }


MIG_SUP = Metric(
    mig_sup,
    "gap between the two factors of which a latent knows most",
    "Li et al. 2020",
    fast=True,
    null=True,
    # One common scale changes the score, too: what is active is judged by the variance.
    invariant=("permute", "sign", "order"),
)


# Robust MIG: the gap under the posterior itself, not under its mean.


def rmig(
    codes: CodeMatrix, factors: Factors, logvars: CodeMatrix | None = None, *, bins: int = BINS
) -> Score:
    """RMIG: the gap of I(z_j; v) where each point spreads over the bins as its posterior does.

    Bins have equal width over the range of the posterior means, the outer ones are open. A point
    gives each bin the mass of N(mean, exp(logvar)) there. Without log-variances the posterior is a
    point, and the score is that of `mig`. Factors with one value are left out.

    Args:
        codes: [n, latent] posterior means.
        factors: [n, factor] class indices.
        logvars: [n, latent] posterior log-variances.
        bins: for each latent.

    Returns:
        `score`, over the factors' entropies, in [0, 1]; `rmig`, the paper's, in nats;
        `per_factor` [factor]; `mutual_information` [latent, factor]; `notes`.

    Raises:
        ValueError: arrays that do not fit or are not finite.

    Do & Tran, 2020, "Theory and evaluation metrics for learning disentangled representations",
    section 3.
    """
    codes, factors = checked(codes, factors)
    matrix, _ = information_of_masses(bin_masses(codes, logvars, bins), factors)
    first, second = top_two(matrix)
    per_factor = ratio(first - second, entropies(factors))
    return {
        "score": mean(per_factor),
        "rmig": mean((first - second)[varying(factors)]),
        "per_factor": per_factor,
        "mutual_information": matrix,
        "notes": [POINTS] if logvars is None else [],
    }


RMIG = Metric(
    rmig,
    "MIG with each point spread over the bins by its posterior",
    "Do & Tran 2020",
    others=("rmig",),
    fast=True,
    null=True,
)


# JEMMIG: joint entropy minus mutual information gap.


def jemmig(
    codes: CodeMatrix, factors: Factors, logvars: CodeMatrix | None = None, *, bins: int = BINS
) -> Score:
    """1 - (H(z*, v) - I1 + I2) / (H(v) + log bins), mean over factors.

    z* is the latent that knows most of v, I1 and I2 are the two largest I(z_j; v), where each point
    spreads over the bins as its posterior does (see `rmig`); without log-variances it is a point.
    Unlike MIG it also asks that z* knows nothing else. The numerator, in nats and better when low,
    is JEMMIG as the paper defines it, of bins: the authors' code takes the entropy of a density,
    which is less by the logarithm of a bin's width where bins are narrow and reach as far as the
    posteriors. Over its largest value and from 1 it becomes better when high. Constant points have
    no entropy, and so no joint entropy to speak of: there collapse scores well. Factors with one
    value are left out.

    Where it differs: the paper's number is in nats and better when low (`jemmig`), and its
    entropies are those of densities; here it is normalised, better when high, and of bins.

    Args:
        codes: [n, latent] posterior means.
        factors: [n, factor] class indices.
        logvars: [n, latent] posterior log-variances.
        bins: for each latent.

    Returns:
        `score` in [0, 1]; `jemmig` in nats; `per_factor` (as score) and `nats_per_factor` [factor];
        `notes`.

    Raises:
        ValueError: arrays that do not fit or are not finite.

    Do & Tran, 2020, "Theory and evaluation metrics for learning disentangled representations",
    section 3.
    """
    codes, factors = checked(codes, factors)
    matrix, of_latent = information_of_masses(bin_masses(codes, logvars, bins), factors)
    of_factor = entropies(factors)
    first, second = top_two(matrix)
    joint = of_latent[matrix.argmax(axis=0)] + of_factor - first
    nats = np.where(varying(factors), joint - first + second, np.nan)
    per_factor = 1 - nats / (of_factor + np.log(bins))
    return {
        "score": mean(per_factor),
        "jemmig": mean(nats),
        "per_factor": per_factor,
        "nats_per_factor": nats,
        "notes": [POINTS] if logvars is None else [],
    }


JEMMIG = Metric(
    jemmig,
    "joint entropy of a factor and its best latent minus the gap, normalised",
    "Do & Tran 2020",
    others=("jemmig",),
    fast=True,
    null=True,
)


# DCIMIG (3CharM): a gap for each factor, of the latent that is most its own.


def dcimig(codes: CodeMatrix, factors: Factors, *, bins: int = BINS) -> Score:
    """Sum over factors of the gap of their latent, over the sum of their entropies.

    A latent belongs to the factor of which it knows most; its gap is I(z; v) of that factor less
    that of the next. A factor takes the largest gap among its latents, and 0 if it has none.

    Args:
        codes: [n, latent].
        factors: [n, factor] class indices.
        bins: for each latent.

    Returns:
        `score` in [0, 1]; `per_factor` [factor], over each one's entropy (nan for a factor with
        one value); `latent` [factor], which latent it took, -1 for none.

    Raises:
        ValueError: arrays that do not fit or are not finite.

    Sepliarskaia, Kiseleva & de Rijke, 2019, "How to not measure disentanglement", section 4.
    """
    codes, factors = checked(codes, factors)
    matrix = mutual_information(discretize(codes, bins), factors)
    entropy = entropies(factors)
    first, second = top_two(matrix.T)
    gaps, owners = first - second, matrix.argmax(axis=1)
    best, latent = np.zeros(len(entropy)), np.full(len(entropy), -1)
    for j, (gap, k) in enumerate(zip(gaps, owners, strict=True)):
        if gap > best[k]:
            best[k], latent[k] = gap, j
    per_factor = ratio(best, entropy)
    return {
        "score": float(best.sum() / entropy.sum()),
        "per_factor": per_factor,
        "latent": latent,
    }


DCIMIG = Metric(
    dcimig,
    "sum of the gaps of each factor's own latent, over the sum of the factors' entropies",
    "Sepliarskaia et al. 2019",
    null=True,
)


# Chen's MIG: sampled codes against the density of the aggregate posterior.

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
        ValueError: arrays that do not fit or are not finite, or no samples.

    Chen, Li, Grosse & Duvenaud, 2018, equation 6 and appendix B.
    """
    checked_counts(samples=samples)
    codes, factors = checked(codes, factors)
    logvars = np.clip(checked_logvars(logvars, codes), -MOST_LOGVAR, MOST_LOGVAR)
    rng = generator(key)
    drawn = rng.integers(len(codes), size=samples)
    noise = rng.standard_normal((samples, codes.shape[1]))
    # Kept apart, mean and offset lose nothing of a narrow posterior in single precision.
    offset = (np.exp(0.5 * logvars[drawn]) * noise).astype(np.float32)
    means = (codes - codes.mean(axis=0)).astype(np.float32)
    labels = [relabel(column) for column in factors.T]
    sizes = np.array([n for _, n in labels])
    if factor_sizes is not None:
        sizes = checked_sizes(factor_sizes, factors)
    one_hot = np.concatenate([np.eye(n, dtype=np.float32)[column] for column, n in labels], axis=1)
    first_column = np.cumsum([0] + [n for _, n in labels[:-1]])
    own = np.stack([column for column, _ in labels], axis=1) + first_column
    counts = one_hot.sum(axis=0, dtype=np.float64)

    def of_latent(j: int) -> np.ndarray:
        """[factor] information, in nats."""
        m, inverse = means[:, j], np.exp(-0.5 * logvars[:, j]).astype(np.float32)
        total = np.zeros(factors.shape[1])
        for start in range(0, samples, AT_ONCE):
            part = slice(start, start + AT_ONCE)
            density = m[drawn[part], None] - m
            density += offset[part, j, None]
            density *= inverse
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
