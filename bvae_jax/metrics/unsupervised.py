"""Unsupervised scores: how far the codes are from independent latents, and how many are active."""

import numpy as np

from bvae_jax.elbo import ACTIVE_VARIANCE
from bvae_jax.metrics.base import (
    BINS,
    InvalidArrays,
    LatentKL,
    Metric,
    active,
    checked_codes,
    discretize,
    mutual_information,
    varying,
)
from bvae_jax.types import CodeMatrix, Score

SINGULAR = 1e-12
"""A correlation matrix with an eigenvalue up to this has lost a dimension to rounding."""


def unsupervised(
    codes: CodeMatrix,
    kl: LatentKL | None = None,
    *,
    bins: int = BINS,
    keep_constant: bool = False,
) -> Score:
    """Gaussian total correlation, Wasserstein correlation, mutual information between codes.

    - total correlation of a Gaussian of the codes' covariance C: -1/2 log det of its correlation
      matrix; inf if a latent is a linear function of others.
    - Wasserstein correlation: squared 2-Wasserstein distance between that Gaussian and the one of
      independent latents, tr C + tr D - 2 tr (D^1/2 C D^1/2)^1/2 with D = diag C; normalised by
      tr C.
    - mutual information of two latents by counting, mean over all pairs of different latents that
      are active (`metrics.base.active`).

    Constant latents are left out of the total correlation (they add nothing to the others). Low is
    independent, which is not the same as disentangled.

    Where it differs: disentanglement_lib counts constant latents, so that the total correlation
    is nan where there is one; here they are left out.

    Args:
        codes: [n, latent].
        kl: [latent] mean KL from the prior, in nats.
        bins: for each latent.
        keep_constant: average the mutual information over all latents, and give nan for the total
            correlation if one is constant, as disentanglement_lib does.

    Returns:
        `gaussian_total_correlation` and `mutual_information` in nats, `wasserstein_correlation` in
        squared units of the codes, `wasserstein_correlation_norm`; `mutual_information_matrix`
        [latent, latent] with 0 on its diagonal.

    Raises:
        ValueError: codes that are not finite, or fewer than two latents that vary.

    Locatello et al., 2019, appendix; the originals of its Figure 2.
    """
    codes = checked_codes(codes)
    keep = varying(codes)
    if keep.sum() < 2:
        raise InvalidArrays(f"it needs two varying latents, got {keep.sum()} of {len(keep)}")
    used = np.ones_like(keep) if keep_constant else active(codes, kl)
    covariance = np.cov(codes.T, ddof=1)
    matrix = mutual_information(*[discretize(codes, bins)] * 2)
    np.fill_diagonal(matrix, 0)
    pairs = matrix[np.ix_(used, used)]
    std = np.sqrt(np.diag(covariance))
    both = std[:, None] * covariance * std
    distance = 2 * np.trace(covariance) - 2 * np.sqrt(_eigenvalues(both)).sum()
    total = np.trace(covariance)
    return {
        "gaussian_total_correlation": (
            float("nan")
            if keep_constant and not keep.all()
            else _total_correlation(covariance[np.ix_(keep, keep)])
        ),
        "wasserstein_correlation": max(0.0, float(distance)),
        "wasserstein_correlation_norm": max(0.0, float(distance / total)),
        "mutual_information": float(pairs.sum() / max(1, len(pairs) * (len(pairs) - 1))),
        "mutual_information_matrix": matrix,
    }


def _total_correlation(covariance: np.ndarray) -> float:
    std = np.sqrt(np.diag(covariance))
    values = np.linalg.eigvalsh(covariance / np.outer(std, std))
    return float("inf") if values[0] <= SINGULAR else float(-0.5 * np.log(values).sum())


def _eigenvalues(symmetric: np.ndarray) -> np.ndarray:
    return np.maximum(np.linalg.eigvalsh(symmetric), 0)


UNSUPERVISED = Metric(
    unsupervised,
    "Gaussian total correlation, Wasserstein correlation, mutual information between latents",
    "Locatello et al. 2019",
    headline="gaussian_total_correlation",
    others=("wasserstein_correlation", "wasserstein_correlation_norm", "mutual_information"),
    best="low",
    range=(0.0, np.inf),
    fast=True,
    compat={"keep_constant": True},
)


# Active units: how many latents are active.


def active_units(codes: CodeMatrix, *, variance: float = ACTIVE_VARIANCE) -> Score:
    """Number of latents whose posterior mean varies over images.

    Args:
        codes: [n, latent] posterior means.
        variance: a latent is active if the variance of its mean exceeds this; 0.01 in the paper,
            for a prior of variance 1.

    Returns:
        `score`, how many; `constant`, how many do not vary at all; `variance_per_latent`
        [latent]; `active` [latent] bool.

    Raises:
        ValueError: codes that are not finite.

    Burda, Grosse & Salakhutdinov, 2016, "Importance weighted autoencoders", section 5.2.
    """
    codes = checked_codes(codes)
    spread = codes.var(axis=0)
    found = spread > variance
    return {
        "score": int(found.sum()),
        "constant": int((~varying(codes)).sum()),
        "variance_per_latent": spread,
        "active": found,
    }


ACTIVE_UNITS = Metric(
    active_units,
    "number of latents whose posterior mean varies",
    "Burda et al. 2016",
    others=("constant",),
    best="none",
    range=(0.0, np.inf),
    fast=True,
    invariant=("permute", "sign", "order"),
)
