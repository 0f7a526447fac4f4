"""Other data sets from one: fewer values, held-out combinations, correlated factors."""

import dataclasses
import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from bvae_jax.config import Config
from bvae_jax.data import dsprites, shapes3d
from bvae_jax.data.base import Dataset
from bvae_jax.data.continuous import BINS, periods
from bvae_jax.data.sampling import Pool, uniform_pool, weighted_pool
from bvae_jax.data.splits import Split, split
from bvae_jax.errors import UserError

CONDITION = re.compile(r"\s*([\w ]*\w)\s*(!=|<=|>=|=|<|>)\s*(\S.*?)\s*$")
COMPARISONS = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}
MOST_CELLS = 2**20
Grid = tuple[tuple[str, ...], tuple[int, ...]]
HELD_OUT: dict[Grid, dict[str, str]] = {
    (dsprites.FACTOR_NAMES, dsprites.FACTOR_SIZES): {
        "recombination_to_element": "shape=1,scale>1,orientation=14:26,x>20,y>20",
        "recombination_to_range": "shape=0,x>15",
        "extrapolation": "x>15",
    },
    (shapes3d.FACTOR_NAMES, shapes3d.FACTOR_SIZES): {
        "recombination_to_element": (
            "object_hue>7,wall_hue>7,floor_hue>7,scale>4,shape=1,orientation>11"
        ),
        "recombination_to_range": "shape=3,object_hue>4",
        "extrapolation": "floor_hue>4",
    },
}
"""Names and numbers of values of all factors -> combinations that have a name, as in the code of
Montero et al. ("The role of disentanglement in generalisation", ICLR 2021; "Lost in latent space",
NeurIPS 2022): some values of every factor, a value of one factor with half of another, and half of
a factor."""


class Condition(NamedTuple):
    """Which values of a factor are meant."""

    factor: int
    values: Bool[np.ndarray, " value"]


def parse_conditions(text: str, dataset: Dataset, flag: str) -> list[Condition]:
    """Conditions with commas between them, as `shape=2,x>20,scale=0|5,orientation=0:40:5`.

    Values are class indices, from 0. `a:b:step` is as in Python: without b.

    Raises:
        UserError: a condition cannot be read, names no factor, or holds for no value.
    """
    if not dataset.factor_names:
        raise UserError(f"{flag}: {dataset.name} has no factors.")
    return [_condition(part, dataset, flag) for part in text.split(",")]


def _condition(text: str, dataset: Dataset, flag: str) -> Condition:
    match = CONDITION.fullmatch(text)
    if match is None:
        raise UserError(
            f"{flag}: got {text!r}, wanted conditions as shape=2,x>20 or orientation=0:40:5."
        )
    name, comparison, wanted = match.groups()
    if name not in dataset.factor_names:
        known = ", ".join(dataset.factor_names)
        raise UserError(f"{flag}: got factor {name!r}, wanted one of {known}.")
    factor = dataset.factor_names.index(name)
    size = dataset.factor_sizes[factor]
    values = np.zeros(size, bool)
    try:
        if comparison in COMPARISONS:
            values = COMPARISONS[comparison](np.arange(size), int(wanted))
        else:
            for part in wanted.split("|"):
                values[_selection(part, size)] = True
            values = values if comparison == "=" else ~values
    except (ValueError, IndexError):
        values = np.zeros(size, bool)
    if not values.any():
        wanted = f"wanted class indices of {name}: 0 to {size - 1}"
        raise UserError(f"{flag}: got {text.strip()!r}, {wanted}{_of_bins(dataset, factor)}.")
    return Condition(factor, values)


def _of_bins(dataset: Dataset, factor: int) -> str:
    """What class indices of a factor are, where it is a number in bins; "" elsewhere."""
    if dataset.values is None:
        return ""
    period = periods(dataset.continuous, dataset.factor_names)[factor]
    value = np.asarray(dataset.values[:, factor])
    if np.isnan(period) or len(np.unique(value)) <= BINS:
        return ""
    low, high = (0.0, period) if period else (value.min(), value.max())
    return f", bins of the range from {low:g} to {high:g}"


def _selection(text: str, size: int) -> int | slice:
    """`3` or `0:40:5`.

    Raises:
        ValueError: it is neither, or begins below 0.
    """
    parts = [int(part) if part.strip() else None for part in text.split(":")]
    if any(part is not None and part < 0 for part in parts) or len(parts) > 3:
        raise ValueError(text)
    if len(parts) > 1:
        return slice(*parts)
    if parts[0] is None:
        raise ValueError(text)
    return parts[0]


def only(dataset: Dataset, text: str) -> Dataset:
    """The images for which all conditions hold, with the values that are left numbered anew.

    Raises:
        UserError: see `parse_conditions`; or no image is left.
    """
    kept = [np.ones(size, bool) for size in dataset.factor_sizes]
    for condition in parse_conditions(text, dataset, "--only"):
        kept[condition.factor] &= condition.values
    factors = all_factors(dataset)
    chosen = np.flatnonzero(np.all([k[factors[:, i]] for i, k in enumerate(kept)], axis=0))
    if len(chosen) < 3:
        raise UserError(f"--only: {text!r} leaves {len(chosen)} images: wanted at least 3.")
    labels = dataset.labels
    if labels is not None:
        number = [np.cumsum(k) - 1 for k in kept]
        labels = np.stack([number[i][labels[chosen, i]] for i in range(len(kept))], axis=1)
        labels = labels.astype(np.int32)
    rows = chosen if dataset.rows is None else dataset.rows[chosen]
    canonical = dataset.canonical
    published = dataset.published_test
    if published is not None:
        published = np.flatnonzero(np.isin(chosen, published))
    return dataclasses.replace(
        dataset,
        name=f"{dataset.name}[{text}]",
        kind=dataset.kind and f"{dataset.kind}[{text}]",
        factor_sizes=tuple(int(k.sum()) for k in kept),
        classes=tuple(n for n, k in zip(dataset.classes, kept[0], strict=False) if k),
        labels=labels,
        values=None if dataset.values is None else dataset.values[chosen],
        rows=rows.astype(np.int32),
        canonical=canonical and (lambda indices: canonical(chosen[indices])),
        published_test=published,
    )


def excluded(dataset: Dataset, text: str) -> Bool[np.ndarray, " image"]:
    """Whether an image is one of the combinations named: conditions that hold together, and
    others after a semicolon, as `shape=2,x>20;scale=0`; or a name of `HELD_OUT`.

    Raises:
        UserError: see `parse_conditions`; or the name is not one of this data set.
    """
    if text.strip().isidentifier():
        names = HELD_OUT.get((dataset.factor_names, dataset.factor_sizes), {})
        if text.strip() not in names:
            known = f"{', '.join(names)} or " if names else ""
            raise UserError(
                f"--exclude: got {text!r}, wanted {known}conditions as shape=2,x>20"
                + ("." if names else f": {dataset.name} has no combinations with a name.")
            )
        text = names[text.strip()]
    combinations = [parse_conditions(part, dataset, "--exclude") for part in text.split(";")]
    factors = all_factors(dataset)
    out = np.zeros(dataset.size, bool)
    for found in combinations:
        out |= np.all([c.values[factors[:, c.factor]] for c in found], axis=0)
    return out


def split_of(dataset: Dataset, config: Config) -> Split:
    """The split that a run's settings make.

    Raises:
        UserError: see `split` and `excluded`.
    """
    return split(
        dataset, config.holdout, config.test, by=config.split_by, seed=config.split_seed,
        excluded=excluded(dataset, config.exclude) if config.exclude else None,
    )  # fmt: skip


def training_pool(dataset: Dataset, train: Int[np.ndarray, " train"], correlate: str) -> Pool:
    """What training draws from: all its images alike, or with correlated factors.

    With `a,b=sigma` the probability of an image is proportional to
    exp(-(u_a - u_b)^2 / (2 sigma^2)), where u is a factor's class index divided by the largest:
    Traeuble et al., "On Disentangled Representations Learned from Correlated Data", 2021,
    equation 3. Several pairs have semicolons between them, and multiply.

    Raises:
        UserError: `correlate` cannot be read.
    """
    if not correlate:
        return uniform_pool(train)
    pairs = [_correlation(part, dataset) for part in correlate.split(";")]
    involved = sorted({factor for *two, _ in pairs for factor in two})
    sizes = [dataset.factor_sizes[k] for k in involved]
    if np.prod(sizes, dtype=float) > MOST_CELLS:
        raise UserError(
            f"--correlate: got factors with {np.prod(sizes, dtype=float):.0f} combinations, wanted "
            f"up to {MOST_CELLS}."
        )
    scaled = {
        k: values / (size - 1)
        for k, size, values in zip(involved, sizes, np.indices(sizes), strict=True)
    }
    weights = np.ones(sizes)
    for a, b, sigma in pairs:
        weights *= np.exp(-((scaled[a] - scaled[b]) ** 2) / (2 * sigma**2))
    factors = all_factors(dataset)[train]
    cells = np.ravel_multi_index(tuple(factors[:, k] for k in involved), sizes)
    return weighted_pool(train, cells, weights.ravel())


def _correlation(text: str, dataset: Dataset) -> tuple[int, int, float]:
    pair, _, sigma = text.partition("=")
    names = [name.strip() for name in pair.split(",")]
    known = [n for n, size in zip(dataset.factor_names, dataset.factor_sizes, strict=True)
             if size > 1]  # fmt: skip
    try:
        width = float(sigma)
    except ValueError:
        width = 0.0
    if len(set(names)) != 2 or not set(names) <= set(known) or not 1e-3 <= width <= 1e3:
        raise UserError(
            f"--correlate: got {text!r}, wanted two factors and a width from 0.001 to 1000, as "
            f"{','.join(known[:2]) or 'a,b'}=0.2. {dataset.name} has: {', '.join(known) or 'none'}."
        )
    a, b = (dataset.factor_names.index(name) for name in names)
    return a, b, width


def all_factors(dataset: Dataset) -> Int[np.ndarray, "image factor"]:
    """[image, factor] class indices of all images."""
    if dataset.labels is not None:
        return dataset.labels
    grid = np.unravel_index(np.arange(dataset.size), dataset.factor_sizes)
    return np.stack(grid, axis=1).astype(np.int32)
