"""Which latent of one run is which of another."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata

from bvae_jax.metrics.base import checked_codes, varying
from bvae_jax.types import Codes

Kind = Literal["pearson", "spearman"]
OtherCodes = Float[Array | np.ndarray, "n other"]
"""Codes of another run for the same points, with as many latents or others."""


class Match(NamedTuple):
    """For each latent of a reference, the one of another run that follows it.

    Attributes:
        partner: index of the other run's latent, -1 where there is none.
        sign: +1 or -1; sign * the partner goes the same way as the reference.
        correlation: its magnitude, 0 where there is no partner.
    """

    partner: Int[np.ndarray, " latent"]
    sign: Int[np.ndarray, " latent"]
    correlation: Float[np.ndarray, " latent"]


def correlations(
    a: Codes, b: OtherCodes, kind: Kind = "pearson"
) -> Float[np.ndarray, "latent other"]:
    """Correlation of each latent of one run with each of another, 0 where one is constant.

    Args:
        a: [n, latent].
        b: [n, other], for the same points in the same order.

    Raises:
        ValueError: other numbers of points, or codes that are not finite.
    """
    first, second = checked_codes(a, "codes of the first run"), checked_codes(b, "of the second")
    if kind == "spearman":
        first, second = rankdata(first, axis=0), rankdata(second, axis=0)
    return np.clip(_standardised(first).T @ _standardised(second) / len(first), -1, 1)


def match(
    reference: Codes,
    other: OtherCodes,
    *,
    usable_reference: Bool[np.ndarray, " latent"] | None = None,
    usable_other: Bool[np.ndarray, " other"] | None = None,
    kind: Kind = "pearson",
) -> Match:
    """Pair latents one to one so that the sum of |correlation| is largest (Hungarian method).

    Constant latents get no partner, nor do those for which none is left.

    Args:
        reference: [n, latent].
        other: [n, other], for the same points in the same order.
        usable_reference: latents that may be paired, by default all; false for dead ones.
        usable_other: the same of the other run.

    Raises:
        ValueError: other numbers of points, or codes that are not finite.

    Kuhn, 1955, "The Hungarian method for the assignment problem".
    """
    r = correlations(reference, other, kind)
    rows, columns = _usable(reference, usable_reference), _usable(other, usable_other)
    first, second = linear_sum_assignment(np.abs(r[np.ix_(rows, columns)]), maximize=True)
    partner, correlation = np.full(len(r), -1), np.zeros(len(r))
    paired = rows[first]
    partner[paired] = columns[second]
    correlation[paired] = r[paired, partner[paired]]
    return Match(partner, np.where(correlation < 0, -1, 1), np.abs(correlation))


def _usable(codes: Codes, mask: np.ndarray | None) -> Int[np.ndarray, " usable"]:
    """Indices of latents that may be paired."""
    keep = varying(np.asarray(codes, np.float64))
    return np.flatnonzero(keep if mask is None else keep & mask)


def _standardised(codes: np.ndarray) -> np.ndarray:
    """Mean 0 and standard deviation 1; constant latents are 0."""
    spread = np.where(varying(codes), codes.std(axis=0), np.inf)
    return (codes - codes.mean(axis=0)) / spread
