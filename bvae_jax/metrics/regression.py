"""Factors that are numbers, predicted: what latents explain of them, and how much information."""

import numpy as np
from jaxtyping import Float
from scipy.spatial import KDTree
from scipy.special import digamma

from bvae_jax.continuous import Targets
from bvae_jax.metrics.base import CodeArray, standardised

ROUNDING = 1e-14
"""Of distances among numbers of standard deviation 1: a neighbour at the distance is not nearer."""


def explained(codes: CodeArray, targets: Targets) -> Float[np.ndarray, " latent"]:
    """R² of each latent with a factor: the squared correlation, or with two targets the squared
    multiple correlation with both.

    Of a latent that is constant 0; nan where the factor is.
    """
    x, y = codes - codes.mean(axis=0), targets - targets.mean(axis=0)
    if np.abs(y).max() < 1e-12:
        return np.full(codes.shape[1], np.nan)
    basis, sizes, _ = np.linalg.svd(y, full_matrices=False)
    inside = basis[:, sizes > 1e-9 * sizes.max()].T @ x
    total = np.sum(x**2, axis=0)
    found = np.divide(np.sum(inside**2, axis=0), total, out=np.zeros(len(total)), where=total > 0)
    return np.minimum(found, 1.0)


def upright(
    x: CodeArray, target: Targets, test: Float[np.ndarray, "m target"]
) -> tuple[Targets, Float[np.ndarray, "m target"]]:
    """Cosine and sine turned to where the latents lie, for what is fitted to each by itself.

    So no origin of the angle is another one. A single target stays as it is.
    """
    if target.shape[1] == 1:
        return target, test
    (z,) = standardised(x)
    axes = np.linalg.svd(z.T @ (target - target.mean(axis=0)))[2].T
    return target @ axes, test @ axes


def explained_variance(predicted: Targets, targets: Targets) -> float:
    """1 - sum of squared errors over that of the mean, over all targets; 0 if it is negative.

    nan where no target varies.
    """
    total = float(np.sum((targets - targets.mean(axis=0)) ** 2))
    error = float(np.sum((predicted - targets) ** 2))
    varies = np.ptp(targets, axis=0).any()  # of equal numbers the mean may differ, by rounding
    return max(0.0, 1 - error / total) if varies and total > 0 else float("nan")


def nearest_information(
    code: Float[np.ndarray, " n"], target: Targets, neighbours: int, rng: np.random.Generator
) -> float:
    """I(z; v) of a latent and a number from nearest neighbours, in nats; at least 0.

    The larger of both distances counts; that of numbers with a period is measured round the circle.
    All are scaled to standard deviation 1 (a circle to that of its uniform distribution), and a
    tiny noise breaks ties.

    Args:
        neighbours: which neighbour sets the distance.

    Kraskov, Stögbauer & Grassberger, 2004, "Estimating mutual information", equation 8.
    """
    n = len(code)
    neighbours = min(neighbours, n - 1)
    circle = np.sqrt(12) if target.shape[1] == 2 else 0.0
    z, v = (code - code.mean()) / code.std(), target[:, 0]
    if circle:
        v = np.arctan2(target[:, 1], v) * (circle / (2 * np.pi))
    z, v = (a + 1e-10 * rng.standard_normal(n) for a in (z, v))
    if circle:
        v = np.minimum(v % circle, np.nextafter(circle, 0))
    z -= z.min()  # a tree with a circle wants no negative numbers
    tree = KDTree(np.stack([z, v], axis=1), boxsize=[0, circle] if circle else None)
    distance = tree.query(tree.data, neighbours + 1, p=np.inf)[0][:, -1]
    near = np.maximum(distance - ROUNDING, 0)
    inside = [_within(z, near, 0.0), _within(v, near, circle)]
    both = [float(np.mean(digamma(count))) for count in inside]
    return max(0.0, float(digamma(n) + digamma(neighbours)) - sum(both))


def _within(values: np.ndarray, radius: np.ndarray, circle: float) -> np.ndarray:
    """[n] how many values lie within a point's radius of its value, itself among them."""
    if circle:
        turns = [values - circle, values, values + circle]
        ordered = np.sort(np.concatenate(turns))
    else:
        ordered = np.sort(values)
    high = np.searchsorted(ordered, values + radius, side="right")
    return np.minimum(high - np.searchsorted(ordered, values - radius, side="left"), len(values))
