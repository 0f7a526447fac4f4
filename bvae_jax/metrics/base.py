"""What the metrics share: checked arrays, counting, and the record that the registry holds.

Everywhere codes are [n, latent], factors [n, factor], matrices [latent, factor], information in
nats. A latent or a factor that does not vary (`varying`) carries no information, exactly, and
never divides by zero: its entry is nan, and means leave nan out.
"""

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Integral
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Shaped
from scipy.special import ndtr
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from bvae_jax.elbo import is_active
from bvae_jax.errors import UserError
from bvae_jax.types import PRNGKey, Score

T = TypeVar("T")
R = TypeVar("R")

LARGEST = 1e15
"""Of a code, in size: solvers and squares lose what is much larger."""
BINS = 20
"""Bins of a latent, as in Locatello et al. (2019)."""
POINTS = "without log-variances codes count as points: the deterministic form"
"""What is said where a metric of posteriors is given none."""
Matrix = Float[np.ndarray, "latent factor"]
CodeArray = Float[np.ndarray, "n latent"]
FactorArray = Int[np.ndarray, "n factor"]
CodesTest = Float[Array | np.ndarray, "m latent"]
"""Codes of other points."""
FactorsTest = Int[Array | np.ndarray, "m factor"]
LatentKL = Float[Array | np.ndarray, " latent"]
"""Mean KL of the posteriors from the prior, in nats."""


ARRAYS = (
    *("codes", "factors", "codes_test", "factors_test", "logvars", "factor_sizes", "kl", "key"),
    *("codes_of_runs", "kl_of_runs", "numbers"),
)
"""What a metric may take, by the names of its positional parameters."""


class InvalidArrays(UserError, ValueError):
    """Arrays, or settings, by which a metric cannot score: one line says why."""


class Metric(NamedTuple):
    """An entry of the registry.

    Attributes:
        function: arrays in, `Score` out. Its positional parameters are what it needs, of `ARRAYS`;
            its keyword-only ones are settings.
        definition: in one line.
        reference: paper.
        headline: the entry of the score that is reported first.
        others: further entries that are one number each.
        best: of the headline, for a representation that is the true factors.
        range: the smallest and the largest value that the headline can have.
        fast: takes part in `--metrics fast`.
        pool: draws its own points, so that it is given all there are.
        pixels: can be scored on thousands of latents.
        null: rests on mutual information by counting, so that a permutation null makes sense.
        invariant: "permute", "sign", "scale" of latents, "order" of points: the headline stays.
        compat: settings that give the original implementation's score where ours differs.
    """

    function: Callable[..., Score]
    definition: str
    reference: str
    headline: str = "score"
    others: tuple[str, ...] = ()
    best: str = "high"
    range: tuple[float, float] = (0.0, 1.0)
    fast: bool = False
    pool: bool = False
    pixels: bool = False
    null: bool = False
    invariant: tuple[str, ...] = ("permute", "sign", "scale", "order")
    compat: Mapping[str, Any] = {}

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the arrays that it must be given."""
        return tuple(p.name for p in self._parameters() if p.default is p.empty)

    @property
    def takes(self) -> tuple[str, ...]:
        """Names of all arrays that it reads."""
        return tuple(p.name for p in self._parameters())

    @property
    def settings(self) -> dict[str, Any]:
        """Its keyword-only parameters with their defaults."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def _parameters(self) -> list[inspect.Parameter]:
        parameters = inspect.signature(self.function).parameters.values()
        return [p for p in parameters if p.kind is not p.KEYWORD_ONLY]


def checked_codes(
    codes: Any, name: str = "codes", dtype: type = np.float64, *, largest: float = LARGEST
) -> np.ndarray:
    """[n, latent] in this type; what is so already is not copied.

    Args:
        largest: that a number may be, in size.

    Raises:
        InvalidArrays: another shape, no row, no real numbers, or one that is not finite or too
            large.
    """
    try:
        given = np.asarray(codes)
        if given.dtype.kind in "cmMSU":  # which NumPy would take for real numbers
            raise TypeError(f"got {given.dtype}")
        with np.errstate(over="ignore"):  # to infinity, which is named below
            array = given.astype(dtype, copy=False)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise InvalidArrays(f"{name}: {reason}: wanted real numbers, [n, latent].") from None
    if array.ndim != 2 or 0 in array.shape:
        raise InvalidArrays(f"{name}: got shape {array.shape}, wanted [n, latent], neither 0.")
    bad = ~np.isfinite(array)
    if bad.any():
        row = int(np.flatnonzero(bad.any(axis=1))[0])
        raise InvalidArrays(
            f"{name}: {int(bad.sum())} of {array.size} numbers are not finite (nan or inf), the "
            f"first in row {row}: wanted finite numbers."
        )
    if (size := max(array.max(), -array.min())) > largest:
        raise InvalidArrays(
            f"{name}: got numbers up to {size:.3g} in size, wanted at most {largest:g}: choose "
            "another unit."
        )
    return array


def checked(codes: Any, factors: Any, suffix: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Codes in float64 and factors in int64, with the same number of rows.

    Args:
        suffix: of the names in error messages, "" or "_test".

    Raises:
        InvalidArrays: wrong shapes, lengths or types; codes that are not finite; factors of which
            none has two values.
    """
    array, name = checked_codes(codes, f"codes{suffix}"), f"factors{suffix}"
    classes = np.asarray(factors)
    if classes.ndim != 2 or classes.shape[1] == 0:
        raise InvalidArrays(f"{name}: got shape {classes.shape}, wanted [n, factor].")
    if classes.dtype.kind not in "iu":
        mend = "number the values of a column by np.unique(column, return_inverse=True)[1]"
        if classes.dtype.kind == "f":
            mend = (
                f"{name}.astype(int), where they are classes, or declare which are numbers by "
                "score(..., metrics=ScoreConfig('fast', continuous='0,2=360'))"
            )
        raise InvalidArrays(
            f"{name}: got {classes.dtype}, wanted whole numbers (class indices): {mend}."
        )
    if len(classes) != len(array):
        raise InvalidArrays(f"codes{suffix} has {len(array)} rows and {name} {len(classes)}.")
    if not suffix and (classes == classes[0]).all():
        raise InvalidArrays(f"{name}: every factor has one value only: there is nothing to score.")
    return array, classes.astype(np.int64)


def checked_split(
    codes: Any, factors: Any, codes_test: Any, factors_test: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`checked` for training and test points, which have the same latents and factors.

    Raises:
        InvalidArrays: as `checked`, or the two do not fit each other.
    """
    codes, factors = checked(codes, factors)
    codes_test, factors_test = checked(codes_test, factors_test, "_test")
    for name, a, b in (("codes", codes, codes_test), ("factors", factors, factors_test)):
        if a.shape[1] != b.shape[1]:
            raise InvalidArrays(f"{name} has {a.shape[1]} columns and {name}_test {b.shape[1]}.")
    return codes, factors, codes_test, factors_test


def checked_counts(least: int = 1, **counts: Any) -> None:
    """Settings that count something, by name.

    Raises:
        InvalidArrays: one that is no whole number, or less than `least`.
    """
    for name, count in counts.items():
        if not isinstance(count, Integral) or count < least:
            wanted = f"wanted a whole number of at least {least}"
            raise InvalidArrays(f"{name}: got {count!r}, {wanted}.")


def varying(columns: Shaped[np.ndarray, "n column"]) -> np.ndarray:
    """[column] bool: which latents, or factors, are not constant.

    Nor so small that their variance underflows.
    """
    # The difference of the two may be too large for the type of class indices.
    return (columns.max(axis=0) > columns.min(axis=0)) & (columns.std(axis=0) > 0)


def active(codes: CodeArray, kl: Any = None) -> np.ndarray:
    """[latent] bool: which latents are active, as `elbo.is_active` says.

    Of codes without a posterior, which have a scale of their own: those that vary at all.

    Args:
        kl: [latent] mean KL from the prior, in nats; None where there is no posterior.

    Raises:
        InvalidArrays: a KL for another number of latents.
    """
    keep = varying(codes)
    if kl is None:
        return keep
    checked_kl(kl, codes.shape[1])
    return keep & is_active(codes.var(axis=0))


def checked_kl(kl: Any, latents: int) -> np.ndarray:
    """[latent] in float64.

    Raises:
        InvalidArrays: another shape.
    """
    kl = np.asarray(kl, np.float64)
    if kl.shape != (latents,):
        raise InvalidArrays(f"kl: got shape {kl.shape}, wanted [latent], ({latents},).")
    return kl


def checked_sizes(sizes: Any, factors: np.ndarray) -> np.ndarray:
    """[factor] number of values of each.

    Raises:
        InvalidArrays: another shape or type, or fewer than occur.
    """
    sizes, occur = np.asarray(sizes), [relabel(column)[1] for column in factors.T]
    known = sizes.dtype.kind in "iu" and sizes.shape == (len(occur),)
    if not known or (sizes < occur).any():
        raise InvalidArrays(
            f"factor_sizes: got {sizes.tolist()}, wanted a whole number for each factor, no less "
            f"than occur: {occur}."
        )
    return sizes


def alone(**counted: np.ndarray) -> str:
    """Why a number is not computed that any codes would have alike; "" where it means something.

    Args:
        counted: by what it is, as `varying_factors`, bool of each. A single one cannot be told
            from another; codes without any know nothing, and score 0.
    """
    for what, which in counted.items():
        if which.sum() == 1:
            return f"it needs two {what.replace('_', ' ')}, got 1 of {len(which)}"
    return ""


def standardised(codes: CodeArray, *others: Float[np.ndarray, "_ latent"]) -> list[np.ndarray]:
    """Codes with mean 0 and standard deviation 1, and others by the same shift and scale.

    Constant latents are left out.
    """
    keep = varying(codes)
    mean, std = codes[:, keep].mean(axis=0), codes[:, keep].std(axis=0)
    return [(array[:, keep] - mean) / std for array in (codes, *others)]


def discretize(codes: CodeArray, bins: int = BINS) -> Int[np.ndarray, "n latent"]:
    """Index of each code among `bins` intervals of equal width over its latent's range.

    Raises:
        InvalidArrays: fewer than two bins.
    """
    checked_counts(2, bins=bins)
    low, high = codes.min(axis=0), codes.max(axis=0)
    edges = np.linspace(low, high, bins + 1)[1:-1]
    columns = [np.searchsorted(e, c, side="right") for e, c in zip(edges.T, codes.T, strict=True)]
    return np.stack(columns, axis=1)


def bin_masses(
    codes: CodeArray, logvars: Any | None, bins: int = BINS
) -> Iterator[Float[np.ndarray, "n bins"]]:
    """For each latent how much of a point's posterior lies in each of its bins.

    The bins are those of `discretize`, the outer ones open. Without log-variances a posterior is a
    point, and all of it lies in one bin.

    Args:
        logvars: [n, latent] of N(code, exp(logvar)); None for points.

    Raises:
        InvalidArrays: log-variances of another shape or not finite, or fewer than two bins.
    """
    checked_counts(2, bins=bins)
    if logvars is None:
        yield from (np.eye(bins)[column] for column in discretize(codes, bins).T)
        return
    stds = np.exp(0.5 * checked_logvars(logvars, codes))
    for means, std in zip(codes.T, stds.T, strict=True):
        edges = np.linspace(means.min(), means.max(), bins + 1)[1:-1]
        below = ndtr((edges - means[:, None]) / np.maximum(std, 1e-30)[:, None])
        yield np.diff(below, axis=1, prepend=0.0, append=1.0)


def checked_logvars(logvars: Any, codes: CodeArray) -> np.ndarray:
    """[n, latent] in float64.

    Raises:
        InvalidArrays: another shape than that of codes, or a number that is not finite.
    """
    logvars = checked_codes(logvars, "logvars", largest=np.inf)
    if logvars.shape != codes.shape:
        raise InvalidArrays(f"logvars: got shape {logvars.shape}, wanted {codes.shape}.")
    return logvars


def relabel(column: Int[np.ndarray, " n"]) -> tuple[np.ndarray, int]:
    """The same classes as 0, 1, ..., in their order, and their number."""
    if len(column) and int(column.max()) - int(column.min()) < len(column):
        # Counted, which is several times faster than sorted; in int8, 127 - -128 would overflow.
        above = column.astype(np.int64) - column.min().astype(np.int64)
        there = np.bincount(above) > 0
        return (np.cumsum(there) - 1)[above], int(there.sum())
    values, labels = np.unique(column, return_inverse=True)
    return labels, len(values)


def entropy(column: Int[np.ndarray, " n"]) -> float:
    """Of the empirical distribution of a column of classes, in nats."""
    return entropy_of(np.bincount(relabel(column)[0]) / len(column))


def entropy_of(p: Float[np.ndarray, " outcome"]) -> float:
    """Of probabilities, in nats."""
    some = p[p > 0]
    return float(-np.sum(some * np.log(some)))


def entropies(columns: Int[np.ndarray, "n column"]) -> np.ndarray:
    """[column], in nats."""
    return np.array([entropy(column) for column in columns.T])


def information(joint: Float[np.ndarray, "a b"]) -> float:
    """Mutual information of a joint table of counts or masses, in nats.

    Products of counts are exact, so that the information of independent columns, and of a constant
    one, is 0 and not what rounding leaves.
    """
    rows, columns = joint.sum(axis=1, keepdims=True), joint.sum(axis=0, keepdims=True)
    total, some = rows.sum(), joint > 0
    ratios = (joint * total)[some] / (rows * columns)[some]
    return max(0.0, float(np.sum(joint[some] * np.log(ratios)) / total))


def mutual_information(
    a: Int[np.ndarray, "n latent"], b: Int[np.ndarray, "n factor"]
) -> Float[np.ndarray, "latent factor"]:
    """MI of every column of `a` with every column of `b` by counting, in nats."""
    firsts = [relabel(column) for column in a.T]
    seconds = [relabel(column) for column in b.T]
    result = np.zeros((len(firsts), len(seconds)))
    for i, (x, nx) in enumerate(firsts):
        for j, (y, ny) in enumerate(seconds):
            counts = np.bincount(x * ny + y, minlength=nx * ny)
            result[i, j] = information(counts.reshape(nx, ny).astype(np.float64))
    return result


def information_of_masses(
    masses: Iterable[Float[np.ndarray, "n bins"]], factors: FactorArray
) -> tuple[Float[np.ndarray, "latent factor"], Float[np.ndarray, " latent"]]:
    """Nats that each latent, spread over bins, tells of each factor; and the latents' entropies."""
    classes = [relabel(column) for column in factors.T]
    rows, entropy = [], []
    for mass in masses:
        rows.append([information(_by_class(mass, *of_factor)) for of_factor in classes])
        entropy.append(entropy_of(mass.mean(axis=0)))
    return np.array(rows), np.array(entropy)


def _by_class(
    mass: Float[np.ndarray, "n bins"], labels: Int[np.ndarray, " n"], size: int
) -> Float[np.ndarray, "class bins"]:
    """Sums over the points of each class, of which there may be as many as points."""
    return np.stack([np.bincount(labels, column, size) for column in mass.T], axis=1)


def top_two(matrix: Float[np.ndarray, "row column"]) -> tuple[np.ndarray, np.ndarray]:
    """The largest and the second largest of each column; a lone row's second is 0."""
    ordered = np.sort(matrix, axis=0)
    return ordered[-1], ordered[-2] if len(ordered) > 1 else np.zeros_like(ordered[-1])


def ratio(a: Any, b: Any) -> np.ndarray:
    """a / b, nan where b is 0."""
    a, b = np.broadcast_arrays(np.asarray(a, np.float64), np.asarray(b, np.float64))
    return np.divide(a, b, out=np.full(a.shape, np.nan), where=b != 0)


def mean(values: Any, empty: float = float("nan")) -> float:
    """Mean of those that are not nan; `empty` if all are."""
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else empty


def sample_variance(codes: CodeArray) -> np.ndarray:
    """[latent] unbiased variance."""
    return codes.var(axis=0, ddof=1)


def generator(key: PRNGKey) -> np.random.Generator:
    """NumPy's generator from a JAX key: the same numbers on every platform."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


@contextlib.contextmanager
def fitting() -> Iterator[None]:
    """Inside, linear algebra has one thread, and scikit-learn does not warn of what is meant so.

    Scores then do not depend on the number of processors, to the last bit; and small problems
    as these are slower on several threads.
    """
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", FutureWarning)  # of settings that it renames
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        yield


def for_each(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`function` of each item, in order, `fitting`.

    One after another: in a pool of threads, with the oldest supported versions, scores were wrong
    now and then, for a reason that was not found.
    """
    with fitting():
        return [function(item) for item in items]
