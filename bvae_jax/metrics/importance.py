"""Disentanglement and completeness of a matrix of importances, for DCI and MED."""

import numpy as np

from bvae_jax.metrics.base import Matrix, ratio


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
