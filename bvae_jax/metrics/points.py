"""A representation, and the points of it that an evaluation draws."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bvae_jax.elbo import ACTIVE_VARIANCE
from bvae_jax.errors import UserError
from bvae_jax.metrics.base import (
    InvalidArrays,
    Metric,
    checked,
    checked_codes,
    checked_split,
    generator,
    varying,
)
from bvae_jax.types import PRNGKey

FEW = 1000
"""Points below which it is said."""
FAR = 3.0
"""Standard deviations from 0 of a latent's mean above which it is said."""
MANY = 20
"""Values that a factor may have in any number of points."""


@dataclass(frozen=True)
class Representation:
    """Points, what a model makes of them, and what is true of them.

    Attributes:
        codes: [n, latent].
        factors: [n, factor] class indices; None where nothing is known.
        logvars: [n, latent] posterior log-variances; None where codes are points.
        codes_test: [m, latent] to test fitted predictors on; a part of the points is, if None.
        factors_test: [m, factor].
        factor_sizes: [factor] number of values.
        kl: [latent] mean KL from the prior, in nats.
        codes_of_runs: of this and other runs, for the same points in the same order.
        kl_of_runs: of the same, where it is known.
    """

    codes: np.ndarray
    factors: np.ndarray
    logvars: np.ndarray | None = None
    codes_test: np.ndarray | None = None
    factors_test: np.ndarray | None = None
    factor_sizes: np.ndarray | None = None
    kl: np.ndarray | None = None
    codes_of_runs: Sequence[np.ndarray] | None = None
    kl_of_runs: Sequence[np.ndarray | None] | None = None

    def check(self) -> None:
        """Raise what is wrong with the arrays.

        Raises:
            UserError: in words.
        """
        try:
            if self.codes_test is None:
                checked(self.codes, self.factors)
            else:
                checked_split(self.codes, self.factors, self.codes_test, self.factors_test)
            if self.logvars is not None:
                checked_codes(self.logvars, "logvars")
        except InvalidArrays as error:
            raise UserError(str(error)) from error

    def remarks(self) -> list[str]:
        """What a reader of the scores should know of the arrays, in words."""
        found = []
        codes = np.asarray(self.codes, np.float64)
        keep = varying(codes)
        if not keep.all():
            found.append(f"{int((~keep).sum())} of {len(keep)} latents are constant")
        mean, std = codes[:, keep].mean(axis=0), codes[:, keep].std(axis=0)
        if keep.any() and (std**2 <= ACTIVE_VARIANCE).all():
            found.append(
                f"codes have standard deviations up to {std.max():.2g} only: factor_vae_score, "
                "mig_sup and active_units assume a prior of standard deviation 1, and take such "
                "latents for unused: scale codes that have another unit"
            )
        off = np.abs(mean) > FAR * std
        if off.any():
            found.append(
                f"{int(off.sum())} of {len(keep)} latents are not centred (means up to "
                f"{np.max(np.abs(mean) / std):.3g} standard deviations from 0): sap is low for "
                "such codes, subtract their means"
            )
        for k in np.flatnonzero(~varying(self.factors)):
            found.append(f"factor {k} has one value, and is left out")
        for k, column in enumerate(self.factors.T):
            if (values := len(np.unique(column))) > max(MANY, len(column) / 2):
                found.append(
                    f"factor {k} has {values:,} values in {len(column):,} points, too few points "
                    "for each: scores that count classes are near their floor, and dci is slow: "
                    "bin it, or trust only sap_r2 and dci_es, which read it as a continuous number"
                )
        if len(self.codes) < FEW:
            found.append(f"{len(self.codes)} points are few: scores are biased and noisy")
        return found


@dataclass(frozen=True)
class Draw:
    """The arrays that one evaluation gives to the metrics, by the names of their parameters."""

    plain: Mapping[str, Any]
    """Without test points."""
    fitted: Mapping[str, Any]
    """With test points, which no plain array shares where there are points enough."""
    pool: Mapping[str, Any] = field(repr=False)
    """All points, for metrics that draw their own."""

    def for_metric(self, metric: Metric) -> Mapping[str, Any]:
        if metric.pool:
            return self.pool
        return self.fitted if "codes_test" in metric.takes else self.plain


def draw(points: Representation, train_points: int, test_points: int, key: PRNGKey) -> Draw:
    """Choose points: `train_points` and as many others as `test_points`, without replacement.

    With fewer points than that, those without test take up to `train_points` of them, and fitted
    predictors take a third for their test. Test points that are given stay as they are.
    """
    n = len(points.codes)
    order = generator(key).permutation(n)
    count = min(train_points, n)
    pool = _given(
        {
            "codes": points.codes,
            "factors": points.factors,
            "logvars": points.logvars,
            "factor_sizes": points.factor_sizes,
            "kl": points.kl,
            "codes_of_runs": points.codes_of_runs,
            "kl_of_runs": points.kl_of_runs,
        }
    )

    def rows(chosen: np.ndarray) -> dict[str, Any]:
        chosen = np.sort(chosen)
        by_point = [name for name in ("codes", "factors", "logvars") if name in pool]
        return pool | {name: pool[name][chosen] for name in by_point}

    plain = rows(order[:count])
    if points.codes_test is not None:
        test = {"codes_test": points.codes_test, "factors_test": points.factors_test}
        return Draw(plain, plain | test, pool)
    tested = max(1, min(test_points, n // 3))
    fit = order[: min(count, n - tested)]
    held = np.sort(order[len(fit) : len(fit) + tested])
    test = {"codes_test": points.codes[held], "factors_test": points.factors[held]}
    return Draw(plain, (plain if len(fit) == count else rows(fit)) | test, pool)


def _given(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arrays.items() if value is not None}
