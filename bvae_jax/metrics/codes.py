"""Codes of a run or of a file with what is true of them, and the points that are scored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bvae_jax.codes_file import read_arrays
from bvae_jax.elbo import ACTIVE_VARIANCE, gaussian_kl
from bvae_jax.metrics.base import (
    Metric,
    checked,
    checked_kl,
    checked_logvars,
    checked_split,
    generator,
    varying,
)
from bvae_jax.types import Posterior, PRNGKey

if TYPE_CHECKING:
    import pandas as pd

FEW = 1000
"""Points below which it is said."""
FAR = 3.0
"""Standard deviations from 0 of a latent's mean above which it is said."""
MANY = 20
"""Values that a factor may have in any number of points."""


@dataclass(frozen=True)
class Codes:
    """Points, what a model makes of them, and what is true of them.

    Attributes:
        codes: [n, latent].
        factors: [n, factor] class indices.
        logvars: [n, latent] posterior log-variances; None where codes are points.
        codes_test: [m, latent] to test fitted predictors on; a part of the points is, if None.
        factors_test: [m, factor].
        factor_sizes: [factor] number of values.
        factor_names: [factor].
        kl: [latent] mean KL from the prior, in nats.
        codes_of_runs: of this and other runs, for the same points in the same order.
        kl_of_runs: of the same, where it is known.
        indices: [n] of the images in their data set.
        files: [n] names of the pictures, where they are of a folder.
    """

    codes: np.ndarray
    factors: np.ndarray
    logvars: np.ndarray | None = None
    codes_test: np.ndarray | None = None
    factors_test: np.ndarray | None = None
    factor_sizes: np.ndarray | None = None
    factor_names: Sequence[str] | np.ndarray | None = None
    kl: np.ndarray | None = None
    codes_of_runs: Sequence[np.ndarray] | None = None
    kl_of_runs: Sequence[np.ndarray | None] | None = None
    indices: np.ndarray | None = None
    files: Sequence[str] | None = None

    def names(self) -> list[str]:
        """Of the factors; numbered where they have none."""
        if self.factor_names is not None:
            return [str(name) for name in self.factor_names]
        return [f"factor {k}" for k in range(self.factors.shape[1])]

    def frame(self) -> "pd.DataFrame":
        """A row for each point: its name (a file's) or index (in a data set), z0, ..., logvar0,
        ..., the factors."""
        import pandas as pd

        named = {"name": self.files, "index": self.indices}
        parts = [pd.DataFrame({name: of}) for name, of in named.items() if of is not None]
        for name, array in (("z", self.codes), ("logvar", self.logvars)):
            if array is not None:
                parts.append(pd.DataFrame(array).add_prefix(name))
        return pd.concat([*parts, pd.DataFrame(self.factors, columns=self.names())], axis=1)

    def check(self) -> None:
        """Raise what is wrong with the arrays.

        Raises:
            UserError: in words.
        """
        codes, _ = checked(self.codes, self.factors)
        if self.codes_test is not None:
            checked_split(codes, self.factors, self.codes_test, self.factors_test)
        if self.logvars is not None:
            checked_logvars(self.logvars, codes)
        if self.kl is not None:
            checked_kl(self.kl, codes.shape[1])

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


def mean_kl(
    means: Float[np.ndarray, "n latent"], logvars: Float[np.ndarray, "n latent"]
) -> Float[np.ndarray, " latent"]:
    """Mean KL of the posteriors N(mean, exp(logvar)) from N(0, 1), in nats."""
    posterior = Posterior(jnp.asarray(means), jnp.asarray(logvars))
    return np.asarray(gaussian_kl(posterior), np.float64).mean(axis=0)


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


def draw(points: Codes, train_points: int, test_points: int, key: PRNGKey) -> Draw:
    """Choose points: `train_points` and as many others as `test_points`, without replacement.

    With fewer points than that, those without test take up to `train_points` of them, and fitted
    predictors take a third for their test. Test points that are given stay as they are.

    Args:
        key: of the choice, and of the `key` that metrics get.
    """
    draw_key, metric_key = jax.random.split(key)
    n = len(points.codes)
    order = generator(draw_key).permutation(n)
    count = min(train_points, n)
    apart = ("codes_test", "factors_test", "factor_names", "indices", "files")
    pool = {k: v for k, v in vars(points).items() if v is not None and k not in apart}
    pool["key"] = metric_key

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


def read_codes(path: Path) -> Codes:
    """Codes from any framework: the arrays of `codes_file.FIELDS` that an .npz file holds.

    Raises:
        UserError: the file is missing, damaged, too large, or does not hold what is wanted.
    """
    arrays: dict[str, Any] = {**read_arrays(path)}
    return Codes(**arrays)
