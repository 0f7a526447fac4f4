"""What the training loop reads, turn after turn: always the same, or streamed from the host."""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from bvae_jax.data.sampling import Pick, batch_keys
from bvae_jax.data.sources import Source
from bvae_jax.errors import needs
from bvae_jax.types import PRNGKey

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
