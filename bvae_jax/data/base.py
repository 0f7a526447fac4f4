"""What a data set is, how its images are reached on the device, and which of them are held out."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from bvae_jax.errors import UserError
from bvae_jax.types import Factors, Images, ImageShape, Indices, PRNGKey

SPLIT_SEED = 0
"""The same images are held out in every run, whatever its seed, so that runs can be compared."""


@dataclass(frozen=True)
class Dataset:
    """Binary images that are a pure function of their factors, one for each combination.

    Attributes:
        name: what `--dataset` calls it.
        version: raised whenever a pixel changes; part of the cache's name.
        image_shape: height, width, channels.
        factor_names: the ground-truth factors; the last one changes fastest with the index.
        factor_sizes: the number of values of each.
        render: [batch, factor] class indices -> images in [0, 1]; jittable.
        canonical: indices -> indices, which gives images that are equal by construction the same
            index, so that a split never parts them.
        licence: of the images.
        citation: of the data set.
    """

    name: str
    version: int
    image_shape: ImageShape
    factor_names: tuple[str, ...]
    factor_sizes: tuple[int, ...]
    render: Callable[[Factors], Images]
    canonical: Callable[[np.ndarray], np.ndarray]
    licence: str
    citation: str

    @property
    def size(self) -> int:
        """Number of images."""
        return math.prod(self.factor_sizes)

    def factors(self, indices: Indices) -> Factors:
        """[batch] -> [batch, factor]: which value of each factor an image has."""
        return jnp.stack(jnp.unravel_index(indices, self.factor_sizes), axis=-1)

    def indices(self, factors: Factors) -> Indices:
        """[batch, factor] -> [batch]: the inverse of `factors`."""
        return jnp.ravel_multi_index(tuple(factors.T), self.factor_sizes, mode="clip")


class Source(NamedTuple):
    """How images come to the device.

    `arrays` is passed to the compiled program as an argument, never closed over (a constant of
    that size would be copied into the program); `take(arrays, indices)` is pure and jittable.
    """

    arrays: Any
    take: Callable[[Any, Indices], Images]


class Split(NamedTuple):
    """Disjoint image indices; `train` is never empty."""

    train: Int[np.ndarray, " train"]
    holdout: Int[np.ndarray, " holdout"]


def rendered(dataset: Dataset) -> Source:
    """Images drawn when they are needed: no memory, little arithmetic on an accelerator."""
    return Source((), lambda _, indices: dataset.render(dataset.factors(indices)))


def resident(dataset: Dataset, packed: Array | np.ndarray) -> Source:
    """Images gathered from a bit-packed array [images, pixels / 8] that stays on the device."""

    def take(packed: Array, indices: Indices) -> Images:
        pixels = jnp.unpackbits(packed[indices], axis=1, count=math.prod(dataset.image_shape))
        return pixels.reshape(-1, *dataset.image_shape).astype(jnp.float32)

    return Source(jnp.asarray(packed), take)


def split(dataset: Dataset, holdout: float) -> Split:
    """Put the fraction `holdout` of the images aside, at random but the same in every run.

    Images that are equal by construction go to the same side.

    Raises:
        UserError: `holdout` leaves nothing to train on, or rounds to no image though positive.
    """
    canonical = dataset.canonical(np.arange(dataset.size))
    groups = np.unique(canonical)
    held = round(holdout * len(groups))
    if held >= len(groups) or (held == 0 and holdout > 0):
        raise UserError(
            f"--holdout {holdout} puts {held} of {len(groups)} images aside: wanted 0, or a "
            "fraction that leaves images on both sides."
        )
    # RandomState, because NumPy promises that its stream never changes.
    chosen = np.random.RandomState(SPLIT_SEED).permutation(groups)[:held]
    is_held = np.zeros(dataset.size, bool)
    is_held[chosen] = True
    is_held = is_held[canonical]
    train, held_out = np.flatnonzero(~is_held), np.flatnonzero(is_held)
    return Split(train.astype(np.int32), held_out.astype(np.int32))


def evaluation_batches(split: Split, images: int, batch: int) -> Int[np.ndarray, "batches batch"]:
    """Indices to evaluate on, at random but the same in every run, in whole batches.

    They are held out, or come from the training images where none is held out.

    Args:
        images: how many are wanted; fewer where there are not so many, or to fill whole batches.
        batch: size of a batch, made smaller where there are not so many images.
    """
    pool = split.holdout if len(split.holdout) else split.train
    images = min(images, len(pool))
    batch = min(images, batch)
    chosen = np.random.RandomState(SPLIT_SEED).permutation(pool)[: images - images % batch]
    return chosen.reshape(-1, batch)


Draw = Callable[[Any, PRNGKey], Images]
"""(data, key) -> a batch, on the device."""


def make_draw(source: Source, batch_size: int) -> Draw:
    """(data, key) -> a batch drawn uniformly and with replacement, on the device.

    `data` is (indices to draw from, `source.arrays`).
    """

    def draw(data: Any, key: PRNGKey) -> Images:
        indices, arrays = data
        picks = jax.random.randint(key, (batch_size,), 0, len(indices))
        return source.take(arrays, indices[picks])

    return draw


def make_pair_draw(dataset: Dataset, source: Source, batch_size: int, changes: int) -> Draw:
    """(data, key) -> batch_size / 2 pairs of images that share factors, on the device.

    The first half of the batch is drawn uniformly. Each image of the second half is one of the
    first with some factors, chosen at random, drawn anew (a value may stay what it was), as in
    Locatello et al., "Weakly-Supervised Disentanglement Without Compromises", 2020, section 5.
    `data` is (indices to draw from, [image] whether an image may be drawn, `source.arrays`).

    Args:
        changes: how many factors are drawn anew; 0 for a number from 1 to all but one, at random
            for each pair.

    Raises:
        UserError: the data set has fewer than two factors, or not so many as `changes`.
    """
    sizes = jnp.array(dataset.factor_sizes)
    most = len(dataset.factor_sizes) - 1
    if most < 1 or changes > most:
        raise UserError(
            f"--pair-changes: got {changes}, wanted 0 or a number up to {most}: {dataset.name} has "
            f"{most + 1} factors, and a pair shares at least one."
        )
    pairs = batch_size // 2

    def draw(data: Any, key: PRNGKey) -> Images:
        indices, allowed, arrays = data
        pick_key, count_key, which_key, value_key = jax.random.split(key, 4)
        first = indices[jax.random.randint(pick_key, (pairs,), 0, len(indices))]
        counts = jnp.full((pairs,), changes)
        if not changes:
            counts = jax.random.randint(count_key, (pairs,), 1, most + 1)
        # The ranks of random numbers are a random order of the factors: the first few change.
        order = jnp.argsort(jax.random.uniform(which_key, (pairs, most + 1)), axis=-1)
        changed = jnp.argsort(order, axis=-1) < counts[:, None]
        values = jax.random.randint(value_key, (TRIES, pairs, most + 1), 0, sizes[None, None])
        tried = jnp.where(changed[None], values, dataset.factors(first)[None])
        tried = dataset.indices(tried.reshape(-1, most + 1)).reshape(TRIES, pairs)
        # The first try that may be drawn: the others are held out.
        second = jnp.take_along_axis(tried, jnp.argmax(allowed[tried], axis=0)[None], axis=0)[0]
        second = jnp.where(allowed[second], second, first)
        return source.take(arrays, jnp.concatenate([first, second]))

    return draw


TRIES = 16
"""Draws of a pair's second image of which one is hoped not to be held out."""
