"""Codes of a run or of a file with what is true of them, and the points that are scored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bvae_jax.continuous import (
    BINS,
    MOST_IN_A_BIN,
    Numbers,
    classes_together,
    in_words,
    periods,
)
from bvae_jax.continuous import remarks as of_numbers
from bvae_jax.elbo import ACTIVE_VARIANCE, gaussian_kl
from bvae_jax.files.codes_file import read_arrays
from bvae_jax.metrics.base import (
    InvalidArrays,
    Metric,
    checked,
    checked_kl,
    checked_logvars,
    checked_sizes,
    checked_split,
    discretize,
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


SCALE = "on the scale where the largest standard deviation of a latent is 1"
"""How codes without a posterior are scored, which have no unit: see `Codes.scaled`."""


@dataclass(frozen=True)
class Codes:
    """Points, what a model makes of them, and what is true of them.

    Attributes:
        codes: [n, latent].
        factors: [n, factor] class indices; before `declared`, of any real type.
        values: [n, factor] values of those factors that are numbers.
        continuous: which are numbers, as `continuous.py` says; "" for none.
        logvars: [n, latent] posterior log-variances; None where codes are points.
        codes_test: [m, latent] to test fitted predictors on; a part of the points is, if None.
        factors_test: [m, factor].
        values_test: [m, factor].
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
    values: np.ndarray | None = None
    values_test: np.ndarray | None = None
    continuous: str = ""

    def names(self) -> list[str]:
        """Of the factors; numbered where they have none."""
        if self.factor_names is not None:
            return [str(name) for name in self.factor_names]
        return [f"factor {k}" for k in range(self.factors.shape[1])]

    def periods(self) -> Float[np.ndarray, " factor"]:
        """nan of a class, 0 of a number, above 0 of a number with that period."""
        return periods(self.continuous, self.names())

    def known(self, test: bool = False) -> np.ndarray:
        """[n, factor] values of numbers, and class indices of all other factors."""
        factors, values = (
            (self.factors_test, self.values_test) if test else (self.factors, self.values)
        )
        assert factors is not None
        return factors if values is None else np.where(np.isnan(self.periods()), factors, values)

    def declared(self, continuous: str = "") -> "Codes":
        """With factors as numbers that are declared so, which become classes by bins as well.

        Args:
            continuous: the declaration, in place of the one that is there; "" leaves that.
                A factor whose values are not known has its class indices for values.

        Raises:
            UserError: there is no such factor, its values are no numbers, or there are not as many
                factors to test on.
        """
        text = continuous or self.continuous
        of = periods(text, self.names())
        if np.isnan(of).all():
            return replace(self, values=None, values_test=None, continuous="")
        changes: dict[str, Any] = {"continuous": in_words(of, self.names())}
        sets = ["factors"] if self.factors_test is None else ["factors", "factors_test"]
        raw = [np.asarray(getattr(self, name)) for name in sets]
        if any(array.dtype.kind not in "iuf" or array.ndim != 2 for array in raw):
            return self  # which `check` says
        first, last = raw[0].shape[1], raw[-1].shape[1]
        if first != last:
            raise InvalidArrays(f"factors has {first} columns and factors_test {last}.")
        own = [getattr(self, name.replace("factors", "values")) for name in sets]
        values = [
            np.asarray(a if v is None else v, np.float64) for a, v in zip(raw, own, strict=True)
        ]
        parts, sizes = classes_together(raw, values, of, self.names(), self.factor_sizes)
        for name, array, value in zip(sets, parts, values, strict=True):
            changes |= {name: array, name.replace("factors", "values"): value}
        return replace(self, **changes, factor_sizes=sizes)

    def frame(self) -> "pd.DataFrame":
        """A row for each point: its name (a file's) or index (in a data set), z0, ..., logvar0,
        ..., the factors."""
        import pandas as pd

        named = {"name": self.files, "index": self.indices}
        parts = [pd.DataFrame({name: of}) for name, of in named.items() if of is not None]
        for name, array in (("z", self.codes), ("logvar", self.logvars)):
            if array is not None:
                parts.append(pd.DataFrame(array).add_prefix(name))
        factors = pd.DataFrame(self.factors, columns=self.names())
        if self.values is not None:  # classes stay whole
            for k in np.flatnonzero(~np.isnan(self.periods())):
                factors.isetitem(k, self.values[:, k])
        return pd.concat([*parts, factors], axis=1)

    def with_kl(self) -> "Codes":
        """With the KL from the prior, where only log-variances say that there is a posterior."""
        if self.kl is not None or self.logvars is None:
            return self
        return replace(self, kl=mean_kl(self.codes, self.logvars))

    def scaled(self) -> "Codes":
        """All latents by one factor, so that the largest standard deviation is 1: for codes that
        have no unit, where metrics call a latent inactive that hardly varies beside a prior."""
        size = float(np.std(self.codes, axis=0, dtype=np.float64).max())
        return replace(self, codes=self.codes / self.codes.dtype.type(size)) if size else self

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
        if self.factor_sizes is not None:
            checked_sizes(self.factor_sizes, self.factors)

    def remarks(self, metrics: Sequence[str] = ("sap",)) -> list[str]:
        """What a reader of the scores of these metrics should know of the arrays, in words."""
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
                "latents for unused, and beta_vae_score and sap are low: scale codes that have "
                "another unit"
            )
        bins = [discretize(codes[:, [j]])[:, 0] for j in np.flatnonzero(keep)]
        if far := sum(np.bincount(one).max() > MOST_IN_A_BIN * len(codes) for one in bins):
            found.append(
                f"{far} of {len(keep)} latents have more than {MOST_IN_A_BIN:.0%} of their codes "
                f"in one of {BINS} bins of their range: metrics that count bins, as mig, learn "
                "little of them; look for outliers"
            )
        off = np.abs(mean) > FAR * std
        if off.any() and "sap" in metrics:
            found.append(
                f"{int(off.sum())} of {len(keep)} latents are not centred (means up to "
                f"{np.max(np.abs(mean) / std):.3g} standard deviations from 0): sap is low for "
                "such codes, subtract their means"
            )
        if self.continuous:
            found.append(
                f"numbers: {self.continuous}: metrics that have no form for numbers read them in "
                f"{BINS} bins"
            )
        names = self.names()
        if self.values is not None:
            found += of_numbers(self.values, self.periods(), names)
        for k in np.flatnonzero(np.ptp(self.known(), axis=0) == 0):
            found.append(f"{names[k]} has one value, and is left out")
        for k, (name, column) in enumerate(zip(names, self.factors.T, strict=True)):
            if (values := len(np.unique(column))) > max(MANY, len(column) / 2):
                found.append(
                    f"{name} has {values:,} values in {len(column):,} points, too few points "
                    "for each: scores that count classes are near their floor, and dci is slow: "
                    "if it is a number, say so by --continuous "
                    f"{k if self.factor_names is None else name}"
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
    apart = (
        "codes_test", "factors_test", "factor_names", "indices", "files", "values", "values_test",
        "continuous",
    )  # fmt: skip
    pool = {k: v for k, v in vars(points).items() if v is not None and k not in apart}
    pool["key"] = metric_key
    if points.values is not None:
        pool["numbers"] = Numbers(points.periods(), points.values)

    def rows(chosen: np.ndarray) -> dict[str, Any]:
        chosen = np.sort(chosen)
        by_point = [name for name in ("codes", "factors", "logvars") if name in pool]
        found = pool | {name: pool[name][chosen] for name in by_point}
        if "numbers" in pool:
            found["numbers"] = pool["numbers"]._replace(values=pool["numbers"].values[chosen])
        return found

    def tested(training: Mapping[str, Any], **arrays: Any) -> Mapping[str, Any]:
        values = arrays.pop("values_test")
        if values is None:
            return {**training, **arrays}
        return {**training, **arrays, "numbers": training["numbers"]._replace(values_test=values)}

    plain = rows(order[:count])
    names = ("codes_test", "factors_test", "values_test")
    if points.codes_test is not None:
        return Draw(plain, tested(plain, **{name: getattr(points, name) for name in names}), pool)
    most = max(1, min(test_points, n // 3))
    fit = order[: min(count, n - most)]
    held = np.sort(order[len(fit) : len(fit) + most])
    values = None if points.values is None else points.values[held]
    test = (points.codes[held], points.factors[held], values)
    fitted = plain if len(fit) == count else rows(fit)
    return Draw(plain, tested(fitted, **dict(zip(names, test, strict=True))), pool)


def read_codes(path: Path, continuous: str = "") -> Codes:
    """Codes from any framework: the arrays of `codes_file.FIELDS` that an .npz file holds.

    Args:
        continuous: which factors are numbers, in place of what the file says.

    Raises:
        UserError: the file is missing, damaged, too large, or does not hold what is wanted.
    """
    return Codes(**read_arrays(path, continuous)).declared(continuous).with_kl()
