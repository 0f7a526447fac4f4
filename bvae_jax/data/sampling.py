"""Which images a training batch has: a pure function of a key, exact, on the device.

All that chooses is arithmetic of integers, so that every platform chooses the same images.
"""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from bvae_jax.data.base import Dataset
from bvae_jax.data.sources import Source
from bvae_jax.errors import UserError, needs
from bvae_jax.types import Images, Indices, PRNGKey

Pick = Callable[[Any, PRNGKey], Indices]
"""(pool, key) -> indices of a batch's images."""
Draw = Callable[[Any, PRNGKey], Images]
"""((pool, arrays of the source), key) -> a batch, on the device."""
Augment = Callable[[Images, PRNGKey], Images]

TRIES = 16
"""Draws of a pair's second image of which one is hoped not to be held out."""
WHOLE = 2**30
"""Weights are multiples of 1 / WHOLE."""


class BatchKeys(NamedTuple):
    """The randomness of one batch: which images, what is random in them, their augmentation."""

    pick: PRNGKey
    finish: PRNGKey
    augment: PRNGKey


def batch_keys(key: PRNGKey) -> BatchKeys:
    """Of the batch whose key this is."""
    return BatchKeys(*jax.random.split(key, 3))


class Pool(NamedTuple):
    """What is drawn from: images in cells; all images of a cell are equally likely.

    Attributes:
        indices: of images, cell by cell.
        starts: where each cell begins.
        counts: images of each cell.
        ends: the cells' weights, added up; the last is the whole.
    """

    indices: Int[Array | np.ndarray, " image"]
    starts: Int[Array | np.ndarray, " cell"]
    counts: Int[Array | np.ndarray, " cell"]
    ends: Int[Array | np.ndarray, " cell"]


def uniform_pool(indices: Int[np.ndarray, " image"]) -> Pool:
    """All images equally likely."""
    return Pool(indices, *(np.array([n], np.int32) for n in (0, len(indices), len(indices))))


def weighted_pool(
    indices: Int[np.ndarray, " image"],
    cells: Int[np.ndarray, " image"],
    weights: Float[np.ndarray, " cell"],
) -> Pool:
    """An image's probability is proportional to the weight of its cell.

    Args:
        indices: of the images.
        cells: which cell each image is in.
        weights: of an image of each cell, not negative.

    Raises:
        UserError: no image has a weight above 0.
    """
    counts = np.bincount(cells, minlength=len(weights))
    mass = counts * weights
    if not mass.sum() > 0:
        raise UserError("--correlate: no image is left whose probability is above 0.")
    # Whole numbers whose sum is WHOLE: rounding the sums, not the parts, adds up no error.
    ends = np.rint(np.cumsum(mass) / mass.sum() * WHOLE).astype(np.int32)
    order = np.argsort(cells, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return Pool(indices[order], starts.astype(np.int32), counts.astype(np.int32), ends)


def make_pick(pool: Pool, batch_size: int) -> Pick:
    """Draw images with replacement."""
    many = len(pool.counts) > 1

    def pick(pool: Pool, key: PRNGKey) -> Indices:
        if not many:
            places = jax.random.randint(key, (batch_size,), 0, len(pool.indices))
            return pool.indices[places]
        cell_key, place_key = jax.random.split(key)
        drawn = jax.random.randint(cell_key, (batch_size,), 0, WHOLE)
        cells = jnp.searchsorted(pool.ends, drawn, side="right")
        places = jax.random.randint(place_key, (batch_size,), 0, pool.counts[cells])
        return pool.indices[pool.starts[cells] + places]

    return pick


def make_pair_pick(dataset: Dataset, pool: Pool, batch_size: int, changes: int) -> Pick:
    """Draw batch_size / 2 pairs of images that share factors.

    The first half of the batch is drawn from the pool. Each image of the second half is one of the
    first with some factors, chosen at random, drawn anew (a value may stay what it was), as in
    Locatello et al., "Weakly-Supervised Disentanglement Without Compromises", 2020, section 5.
    The pool that the pick wants is (pool, [image] whether an image may be drawn).

    Args:
        changes: how many factors are drawn anew; 0 for a number from 1 to all but one, at random
            for each pair.

    Raises:
        UserError: the data set has not one image for each combination of factors, or fewer than
            two factors, or fewer than `changes`.
    """
    if not dataset.grid:
        raise UserError(
            f"--dataset: got {dataset.name}, wanted one with an image for each combination of "
            "factors, such as dsprites: the objective trains on pairs that share factors."
        )
    sizes = jnp.array(dataset.factor_sizes)
    most = len(dataset.factor_sizes) - 1
    if most < 1 or changes > most:
        raise UserError(
            f"--pair-changes: got {changes}, wanted 0 or a number up to {most}: {dataset.name} has "
            f"{most + 1} factors, and a pair shares at least one."
        )
    pairs = batch_size // 2
    pick_first = make_pick(pool, pairs)

    def pick(data: tuple[Pool, Array], key: PRNGKey) -> Indices:
        pool, allowed = data
        pick_key, count_key, which_key, value_key = jax.random.split(key, 4)
        first = pick_first(pool, pick_key)
        counts = jnp.full((pairs,), changes)
        if not changes:
            counts = jax.random.randint(count_key, (pairs,), 1, most + 1)
        # The ranks of random numbers are a random order of the factors: the first few change.
        order = jnp.argsort(jax.random.bits(which_key, (pairs, most + 1)), axis=-1)
        changed = jnp.argsort(order, axis=-1) < counts[:, None]
        values = jax.random.randint(value_key, (TRIES, pairs, most + 1), 0, sizes[None, None])
        tried = jnp.where(changed[None], values, dataset.factors(first)[None])
        tried = dataset.indices(tried.reshape(-1, most + 1)).reshape(TRIES, pairs)
        # The first try that may be drawn: the others are held out.
        second = jnp.take_along_axis(tried, jnp.argmax(allowed[tried], axis=0)[None], axis=0)[0]
        second = jnp.where(allowed[second], second, first)
        return jnp.concatenate([first, second])

    return pick


def make_draw(source: Source, pick: Pick, augment: Augment | None = None) -> Draw:
    """Draw a training batch: its images, what is random in them, and how they are augmented."""

    def draw(data: Any, key: PRNGKey) -> Images:
        pool, arrays = data
        keys = batch_keys(key)
        indices = pick(pool, keys.pick)
        images = source.take(arrays, indices, jax.random.split(keys.finish, len(indices)))
        return images if augment is None else augment(images, keys.augment)

    return draw


# What the training loop reads, turn after turn: always the same, or streamed from the host.

WINDOW_BYTES = 2**25
"""Images that go to the device at once."""
MOST_STEPS = 64
AHEAD = 4
"""Windows that are read before they are needed."""
THREADS = 2

Keys = Callable[[PRNGKey, jax.Array], PRNGKey]
"""(`TrainState.key` of a run, step) -> key of its batch."""


@runtime_checkable
class Feed(Protocol):
    """The data of a run's steps, or of several runs' that take their steps together.

    Attributes:
        waited: seconds that training waited for data so far.
    """

    waited: float

    def parts(self, steps: int) -> Iterator[tuple[int, Any]]:
        """(number of steps, their data) for the next `steps` steps."""
        ...

    def close(self) -> None:
        """No more are wanted."""
        ...


class Constant:
    """The same for all steps: whatever they want is on the device.

    Args:
        data: what the loop's draw reads.
    """

    def __init__(self, data: Any):
        self._data = data
        self.waited = 0.0

    def parts(self, steps: int) -> Iterator[tuple[int, Any]]:
        yield steps, self._data

    def close(self) -> None:
        pass


class Streamed:
    """Windows on the images that the next steps draw, read ahead by threads of Grain.

    The host draws as the device will, so that it knows which images are wanted. The order of
    images is that of the same run with resident ones, to the bit.

    Args:
        source: which reads images.
        pool: what is drawn from.
        pick: (pool, key of a batch) -> indices.
        key_of: of a run's steps.
        keys: of the runs that take their steps together.
        start: the first step.
        place: puts data where the runs' states are.
    """

    def __init__(
        self,
        source: Source,
        pool: Any,
        pick: Pick,
        key_of: Keys,
        keys: Sequence[PRNGKey],
        start: int,
        place: Callable[[Any], Any] = jax.device_put,
    ):
        cpu = jax.local_devices(backend="cpu")[0]
        self._pool, self._place = place(pool), place
        numbers = np.stack([jax.random.key_data(key) for key in keys])
        here = jax.device_put((pool, numbers), cpu)
        planned = _make_plan(pick, key_of, jax.random.key_impl(keys[0]))
        shape = jax.eval_shape(pick, pool, keys[0]).shape
        batch = len(keys) * shape[0] * source.image_bytes
        self.steps_at_once = max(1, min(MOST_STEPS, WINDOW_BYTES // batch))
        self._left, self._window = 0, None
        self.waited = 0.0

        def window(number: int) -> Any:
            with jax.default_device(cpu):
                first = jnp.int32(start + number * self.steps_at_once)
                indices = np.asarray(planned(*here, first, self.steps_at_once))
            return source.reach(indices)

        self._windows = _read_ahead(window)

    def parts(self, steps: int) -> Iterator[tuple[int, Any]]:
        while steps:
            if not self._left:
                began = time.perf_counter()
                self._window = self._place(next(self._windows))
                self.waited += time.perf_counter() - began
                self._left = self.steps_at_once
            now = min(steps, self._left)
            yield now, (self._pool, self._window)
            steps, self._left = steps - now, self._left - now

    def close(self) -> None:
        self._windows.close()


def _make_plan(pick: Pick, key_of: Keys, kind: Any) -> Callable[..., jax.Array]:
    """(pool, the runs' keys as numbers, step, n) -> [n, run, batch], what n steps draw."""

    @functools.partial(jax.jit, static_argnums=3)
    def planned(pool: Any, numbers: jax.Array, first: jax.Array, steps: int) -> jax.Array:
        keys = jax.random.wrap_key_data(numbers, impl=kind)

        def one(step: jax.Array) -> jax.Array:
            return jax.vmap(lambda key: pick(pool, batch_keys(key_of(key, step)).pick))(keys)

        return jax.vmap(one)(first + jnp.arange(steps))

    return planned


def _read_ahead(window: Callable[[int], Any]) -> Any:
    needs("grain", "data", "--image-source streamed")
    import grain.python as grain  # a second, which only streaming waits for

    class Windows(grain.RandomAccessDataSource):
        def __len__(self) -> int:
            return 2**31

        def __getitem__(self, number: int) -> Any:  # pyright: ignore
            return window(int(number))

    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=AHEAD)
    return iter(grain.MapDataset.source(Windows()).to_iter_dataset(options))
