"""Codes of a run or of a file with what is true of them, and the points that are scored."""

import math
import os
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bvae_jax.data.archive import (
    Header,
    check_size,
    members,
    one_line,
    open_archive,
    read_blocks,
    read_header,
    reading,
    want,
)
from bvae_jax.elbo import ACTIVE_VARIANCE, gaussian_kl
from bvae_jax.errors import UserError
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

    def names(self) -> list[str]:
        """Of the factors; numbered where they have none."""
        if self.factor_names is not None:
            return [str(name) for name in self.factor_names]
        return [f"factor {k}" for k in range(self.factors.shape[1])]

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
    apart = ("codes_test", "factors_test", "factor_names")
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


# Codes in an .npz file, read without trusting a byte of it: all headers come first, and types,
# shapes and sizes are checked before any array is unpacked.

# What an array holds and its axes. Axes of one name are equally long; the first array sets it.
FIELDS = {
    "codes": ("real", ("n", "latent")),
    "factors": ("whole", ("n", "factor")),
    "logvars": ("real", ("n", "latent")),
    "kl": ("real", ("latent",)),
    "factor_sizes": ("whole", ("factor",)),
    "factor_names": ("text", ("factor",)),
    "codes_test": ("real", ("m", "latent")),
    "factors_test": ("whole", ("m", "factor")),
}
# NumPy's letters for the types of each kind. Floats pass as whole: `_whole` says what to do.
KINDS = {"real": "fiu", "whole": "iuf", "text": "U"}
WANTED = {
    "real": "float16, float32, float64 or integers",
    "whole": "whole numbers (class indices) of an integer type",
    "text": "unicode strings, as np.array(names, dtype=str)",
}
# In bytes: a quarter of the memory.
LIMIT = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4


def read_codes(path: Path) -> Codes:
    """Read the arrays of `FIELDS` that the file holds; name its other keys on stderr.

    Args:
        path: an .npz file with at least `codes` and `factors`, as `np.savez` writes it.

    Returns:
        Arrays in native byte order and C order: real ones as float32 (float64 stays), whole ones
        as int32, text as it is.

    Raises:
        UserError: the file is missing, damaged, too large, or does not hold what is wanted.
    """
    try:
        with open_archive(path, "np.savez(FILE, codes=codes, factors=factors)") as archive:
            found, unused = _members(archive)
            headers = {
                key: read_header(archive, key, info, WANTED[FIELDS[key][0]])
                for key, info in found.items()
            }
            _check_headers(headers)
            arrays = _read_arrays(archive, headers)
    except UserError as error:
        raise UserError(one_line(path, str(error))) from error
    if unused:
        print(one_line(f"bvae: {path}", f"keys not used: {', '.join(unused)}"), file=sys.stderr)
    return Codes(**arrays)


def _members(archive: zipfile.ZipFile) -> tuple[dict[str, zipfile.ZipInfo], list[str]]:
    """Members of known keys in the order of `FIELDS`, and the other keys."""
    found = members(archive)
    for key in ("codes", "factors"):
        keys = ", ".join(found) or "none"
        want(key in found, f"holds no {key}, wanted codes and factors. Its keys: {keys}.")
    both = ("codes_test" in found) == ("factors_test" in found)
    want(both, "holds only one of codes_test and factors_test, wanted both or neither.")
    return {k: found[k] for k in FIELDS if k in found}, [k for k in found if k not in FIELDS]


def _check_headers(headers: dict[str, Header]) -> None:
    first: dict[str, tuple[str, int]] = {}  # By axis: the key that set its length.
    for key, header in headers.items():
        shape, dtype = header.shape, header.dtype
        kind, names = FIELDS[key]
        axes, wanted = f"[{', '.join(names)}]", WANTED[kind]
        # "g" is long double.
        fits = dtype.kind in KINDS[kind] and dtype.itemsize > 0 and dtype.char != "g"
        want(fits, f"{key} is {dtype.name}, wanted {wanted}.")
        want(len(shape) == len(names), f"{key} has shape {shape}, wanted {axes}.")
        want(0 not in shape, f"{key} has shape {shape}, wanted {axes}, none of them 0.")
        check_size(header)
        for name, length in zip(names, shape, strict=True):
            other, same = first.setdefault(name, (key, length))
            told = f"{key} {axes} has {name} = {length}, but {other} has {name} = {same}"
            want(length == same, f"{told}: wanted the same.")
    # As they are returned: small types are widened to four bytes.
    total = sum(math.prod(h.shape) * max(h.dtype.itemsize, 4) for h in headers.values())
    sizes = f"{total / 1e9:.3g} GB, wanted at most {LIMIT / 1e9:.3g} GB (a quarter of the memory)"
    want(total <= LIMIT, f"its arrays take {sizes}. Save fewer rows.")


def _read_arrays(archive: zipfile.ZipFile, headers: dict[str, Header]) -> dict[str, Any]:
    points: dict[str, Any] = {}
    for key, header in headers.items():
        data = bytearray()  # Grows with what is really there, whatever was claimed.
        for block in read_blocks(archive, header, 1 << 20):
            data += block
        with reading(key):
            array = np.frombuffer(data, header.dtype)
            array = array.reshape(header.shape, order="F" if header.fortran else "C")
        points[key] = {"real": _real, "whole": _whole, "text": _text}[FIELDS[key][0]](key, array)
    for key in ("factors", "factors_test"):
        if key in points and "factor_sizes" in points:
            sizes, largest = points["factor_sizes"], points[key].max(axis=0)
            small = sizes <= largest
            least = f"{key} has values up to {largest[small]} in columns {np.flatnonzero(small)}"
            want(not small.any(), f"factor_sizes is {sizes}, but {least}: wanted more.")
    return points


def _refuse(key: str, bad: np.ndarray, what: str) -> None:
    """Raise an error if any value is bad: how many there are, and where the first one is."""
    count, row = np.count_nonzero(bad), np.unravel_index(bad.argmax(), bad.shape)[0]
    want(not count, f"{key} has {count} {what}; the first in row {row} (counted from 0).")


def _real(key: str, array: np.ndarray) -> np.ndarray:
    _refuse(key, ~np.isfinite(array), "NaN or inf values, wanted finite ones")
    if key == "kl":
        _refuse(key, array < 0, "negative values, wanted none")
    double = array.dtype.kind == "f" and array.dtype.itemsize == 8
    return np.ascontiguousarray(array, np.float64 if double else np.float32)


def _whole(key: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f":
        _refuse(key, ~np.isfinite(array), f"NaN or inf values, wanted {WANTED['whole']}")
        whole = (array == np.rint(array)).all()
        mend = f"save {key}.astype(int)" if whole else "bin the values, e.g. by np.digitize"
        raise UserError(f"{key} is {array.dtype.name}, wanted {WANTED['whole']}: {mend}.")
    _refuse(key, array < 0, "negative values, wanted 0 or more")
    most = np.iinfo(np.int32).max
    _refuse(key, array > most, f"values above {most}, wanted less")
    return np.ascontiguousarray(array, np.int32)


def _text(key: str, array: np.ndarray) -> np.ndarray:
    with reading(key):  # only here does NumPy find numbers that are no characters
        bad = np.array([not name.isprintable() for name in array.tolist()])
    _refuse(key, bad, "names with unprintable characters, wanted none")
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))
