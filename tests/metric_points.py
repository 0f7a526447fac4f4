"""Small synthetic representations of three factors, and one way to score them by any metric."""

from typing import Any, NamedTuple

import jax
import numpy as np
from threadpoolctl import threadpool_limits

from bvae_jax.metrics import METRICS

SIZES = (3, 4, 6)
TRAIN, TEST = 600, 300
NOISE_STD = 0.1
CHEAP: dict[str, dict[str, Any]] = {
    "beta_vae_score": {"pairs": 5, "train_votes": 2_000, "test_votes": 2_000},
    "factor_vae_score": {"points": 5, "train_votes": 2_000, "test_votes": 2_000},
    "mig_chen": {"samples": 2_000},
    "dci": {"max_bins": 32},
    "downstream": {"labels": (30, 200)},
}
"""Settings that make costly metrics fast."""


class Points(NamedTuple):
    """Points of one run, the first `train` of them to fit on, and codes of two other runs."""

    codes: np.ndarray
    factors: np.ndarray
    others: tuple[np.ndarray, ...]
    std: np.ndarray | None = None
    train: int = TRAIN

    def latents(self, shift: float = 0.0, scale: Any = 1.0, order: Any = slice(None)) -> "Points":
        """The same with the latents in another order, then scaled, then shifted."""
        codes = self.codes[:, order] * scale + shift
        return self._replace(codes=codes, std=self.stds()[order] * np.abs(scale))

    def with_latent(self, column):
        """The same with one more latent."""
        column = np.broadcast_to(column, len(self.codes))[:, None]
        codes = np.concatenate([self.codes, column], axis=1)
        return self._replace(codes=codes, std=np.append(self.stds(), NOISE_STD))

    def stds(self) -> np.ndarray:
        """[latent] standard deviations of the posterior."""
        return np.full(self.codes.shape[1], NOISE_STD) if self.std is None else self.std

    def rows(self, rows):
        """The same with other points."""
        others = tuple(codes[rows] for codes in self.others)
        return self._replace(codes=self.codes[rows], factors=self.factors[rows], others=others)


def standardise(array: np.ndarray) -> np.ndarray:
    return (array - array.mean(axis=0)) / array.std(axis=0)


def arrays(points: Points, seed: int = 0) -> dict[str, Any]:
    """Everything that a metric can take, by name."""
    codes, n = points.codes, points.train
    runs = [codes[:n], *(other[:n] for other in points.others)]
    return {
        "codes": codes[:n],
        "factors": points.factors[:n],
        "codes_test": codes[n:],
        "factors_test": points.factors[n:],
        "logvars": np.tile(2 * np.log(points.stds()), (n, 1)),
        "factor_sizes": np.array([len(np.unique(column)) for column in points.factors.T]),
        "kl": np.ones(codes.shape[1]),
        "key": jax.random.key(seed),
        "codes_of_runs": runs,
        "kl_of_runs": [np.ones(run.shape[1]) for run in runs],
        "numbers": None,
    }


def score(name: str, given: Points | dict[str, Any], seed: int = 0, **settings) -> dict[str, Any]:
    """What a metric says of points, or of the arrays that `arrays` makes."""
    metric = METRICS[name]
    values = arrays(given, seed) if isinstance(given, Points) else given
    settings = CHEAP.get(name, {}) | settings
    # As the package scores: threads of BLAS wait for each other, and change the last bit.
    with threadpool_limits(1):
        return metric.function(*(values[key] for key in metric.takes), **settings)


def headline(name: str, points: Points | dict[str, Any], seed: int = 0, **settings) -> float:
    return score(name, points, seed, **settings)[METRICS[name].headline]


_RNG = np.random.default_rng(0)
FACTORS = _RNG.integers(SIZES, size=(TRAIN + TEST, 3))
_TRUE = standardise(FACTORS)
_OTHERS = tuple(
    np.concatenate([_TRUE[:, order] * sign, 0.1 * _RNG.standard_normal((len(_TRUE), 1))], axis=1)
    for order, sign in (([1, 0, 2], [1, -1, 1]), ([2, 1, 0], [-1, -1, 1]))
)
_ROTATION = np.linalg.qr(_RNG.standard_normal((3, 3)))[0]
_NOISE = _RNG.standard_normal((len(_TRUE), 5))

TRUE = Points(_TRUE, FACTORS, _OTHERS)
"""Latents are the factors."""
ROTATED = TRUE._replace(codes=_TRUE @ _ROTATION)
"""Every latent mixes all factors."""
RANDOM = TRUE._replace(codes=_NOISE[:, :3])
"""Latents know nothing."""
MIXED = TRUE._replace(
    codes=np.concatenate(
        [
            _TRUE @ (np.eye(3) + 0.5 * _ROTATION) + 0.2 * _NOISE[:, :3],
            _NOISE[:, 3:] * [0.2, 0.5],
        ],
        axis=1,
    )
)
"""Five latents: three lean to one factor each, two are noise."""


def all_headlines() -> dict[str, str]:
    """Of every metric, exactly."""
    return {name: float(headline(name, MIXED)).hex() for name in METRICS}
