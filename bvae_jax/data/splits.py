"""Which images are trained on, and which are held out."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from bvae_jax.data.base import Dataset
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
