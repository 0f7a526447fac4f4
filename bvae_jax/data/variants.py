"""Which images are trained on and which are held out; fewer values, correlated factors."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from bvae_jax.config import Config
from bvae_jax.continuous import BINS, periods
from bvae_jax.data import dsprites, shapes3d
from bvae_jax.data.base import Dataset
from bvae_jax.data.sampling import Pool, uniform_pool, weighted_pool
from bvae_jax.errors import UserError


class Split(NamedTuple):
    """Disjoint image indices, together all of them; `train` is never empty.

    Attributes:
        train: what training draws.
        holdout: for the evaluations while training.
        test: that no part of training looks at.
        excluded: whose factors `--exclude` names.
    """

    train: Int[np.ndarray, " train"]
    holdout: Int[np.ndarray, " holdout"]
    test: Int[np.ndarray, " test"]
    excluded: Int[np.ndarray, " excluded"]

    def named(self, name: str) -> Int[np.ndarray, " image"]:
        """The images of a split, or with "all" every image."""
        if name == "all":
            return np.sort(np.concatenate(self))
        if name not in self._fields:
            raise UserError(f"split: got {name!r}, wanted all, {', '.join(self._fields)}.")
        return getattr(self, name)


def parts_of(counts: Mapping[str, Any]) -> str:
    """As "900 to train on, 100 held out, 24 excluded", of numbers of images by name of the part."""
    told = {"train": "to train on", "holdout": "held out", "test": "for the test"}
    told["excluded"] = "excluded"
    return ", ".join(f"{counts[name]:,} {words}" for name, words in told.items() if counts[name])


def split(
    dataset: Dataset,
    holdout: float,
    test: float = 0.0,
    *,
    by: str = "random",
    seed: int = 0,
    excluded: Bool[np.ndarray, " image"] | None = None,
) -> Split:
    """Put fractions of the images aside: the same in every run, whatever the run's seed.

    Images that are equal by construction go to the same side.

    Args:
        holdout: fraction for evaluations while training.
        test: fraction that no part of training looks at.
        by: "random"; "index", the last images for the test and those before them held out; or
            "published", the test set of those who published the images, with `holdout` at random
            from the rest.
        seed: of what is random.
        excluded: [image] whether an image is to be drawn by nothing.

    Raises:
        UserError: nothing is left to train on, a fraction rounds to no image though positive, or
            there is no published test set.
    """
    everything = np.arange(dataset.size)
    canonical = dataset.canonical(everything) if dataset.canonical else everything
    out = np.zeros(dataset.size, bool) if excluded is None else excluded
    tested = np.zeros(dataset.size, bool)
    if by == "published":
        tested |= _published(dataset, test) & ~out
    groups = np.flatnonzero(_among(canonical[~out & ~tested], canonical))
    # RandomState, because NumPy promises that its stream never changes.
    order = groups[::-1] if by == "index" else np.random.RandomState(seed).permutation(groups)
    held = _count("--holdout", holdout, len(groups))
    test_count = 0 if by == "published" else _count("--test", test, len(groups))
    if held + test_count >= len(groups):
        raise UserError(
            f"--holdout {holdout} and --test {test} put {held + test_count} of {len(groups)} "
            "images aside: wanted fractions that leave images to train on."
        )
    if by == "index":  # the very last are the test
        sides = order[test_count : test_count + held], order[:test_count]
    else:
        sides = order[:held], order[held : held + test_count]
    is_held, is_tested = (~out & _among(side, canonical)[canonical] for side in sides)
    is_tested, is_held = is_tested | tested, is_held & ~tested
    train = ~(out | is_held | is_tested)
    return Split(*(np.flatnonzero(x).astype(np.int32) for x in (train, is_held, is_tested, out)))


def _among(
    some: Int[np.ndarray, " some"], numbers: Int[np.ndarray, " image"]
) -> Bool[np.ndarray, " number"]:
    """[number] whether it is one of some of the `numbers`: many times faster than sorting them."""
    found = np.zeros(numbers.max(initial=-1) + 1, bool)
    found[some] = True
    return found


def _published(dataset: Dataset, test: float) -> Bool[np.ndarray, " image"]:
    if dataset.published_test is None:
        raise UserError(
            f"--split-by published: {dataset.name} has no published test set: choose random or "
            "index."
        )
    if test:
        raise UserError(f"--test: got {test}, but --split-by published says what the test set is.")
    tested = np.zeros(dataset.size, bool)
    tested[dataset.published_test] = True
    return tested


def _count(flag: str, fraction: float, total: int) -> int:
    count = round(fraction * total)
    if (count == 0 and fraction > 0) or count >= total:
        raise UserError(
            f"{flag} {fraction} puts {count} of {total} images aside: wanted 0, or a fraction that "
            "leaves images on both sides."
        )
    return count


def evaluation_batches(split: Split, images: int, batch: int) -> Int[np.ndarray, "batches batch"]:
    """Indices to evaluate on, at random but the same in every run, in whole batches.

    They are held out, or come from the training images where none is held out.

    Args:
        images: how many are wanted; fewer where there are fewer, or to fill whole batches.
        batch: size of a batch, made smaller where there are fewer images.
    """
    return batches_of(split.holdout if len(split.holdout) else split.train, images, batch)


def batches_of(
    pool: Int[np.ndarray, " image"], images: int, batch: int
) -> Int[np.ndarray, "batches batch"]:
    """Some of these images, at random but the same in every run, in whole batches."""
    images = min(images, len(pool))
    batch = min(images, batch)
    chosen = np.random.RandomState(0).permutation(pool)[: images - images % batch]
    return chosen.reshape(-1, batch)


CONDITION = re.compile(r"\s*(.+?)\s*(!=|<=|>=|=|<|>)\s*(\S.*?)\s*$")
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
