"""States that are trained at the same time: one, or many stacked."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from bvae_jax.data.feed import Constant
from bvae_jax.runs.divided import on_one_device
from bvae_jax.runs.program import Program, averaged
from bvae_jax.runs.mesh import DATA, lane, make_mesh, make_stacked_body, over_data, stack
from bvae_jax.step import Fetch, make_loop
from bvae_jax.types import TrainState


@runtime_checkable
class Lanes(Protocol):
    """States that are trained together, each by its own run's settings."""

    def advance(self, steps: int) -> Callable[[], list[dict[str, Any]]]:
        """Start to train all states; what is returned waits, and gives each one's metrics, averaged
        over the steps."""
        ...

    def state(self, i: int) -> TrainState: ...

    def close(self) -> None:
        """They are not trained further."""
        ...


class OneLane:
    """A run by itself, perhaps with its batches divided over devices."""

    def __init__(self, program: Program, state: TrainState):
        self._program, self._state = program, state
        self._feed = program.feed([state])

    def advance(self, steps: int) -> Callable[[], list[dict[str, Any]]]:
        fetches = []
        for some, data in self._feed.parts(steps):
            self._state, fetch = self._program.train(self._state, data, some)
            fetches.append(fetch)
        return lambda: [averaged(joined(fetches))]

    def state(self, i: int) -> TrainState:
        return on_one_device(self._state)

    def close(self) -> None:
        self._feed.close()

    @property
    def waited(self) -> float:
        """Seconds that training waited for images so far."""
        return self._feed.waited


class Together:
    """One program for several members at the same time, compiled once for all who take turns.

    Args:
        lanes: members at the same time.
        devices: that they are divided over.
    """

    def __init__(self, program: Program, lanes: int, devices: Sequence[Any]):
        self.mesh = make_mesh(lanes, devices)
        place = {"place": over_data} if self.mesh.shape[DATA] > 1 else {}
        body = make_stacked_body(program.make_body(**place), self.mesh)
        self.loop = make_loop(body, devices[0].platform)
        self.place = functools.partial(jax.device_put, device=NamedSharding(self.mesh, P()))
        if program.stream:
            self.feed = functools.partial(program.stream, place=self.place)
        else:
            data = self.place(program.train_data)
            self.feed = lambda states: Constant(data)
        self.lanes, self.home = lanes, devices[0]

    def start(self, states: Sequence[TrainState], places: Sequence[int]) -> "StackedLanes":
        """Take these members' turn.

        Args:
            states: of the members, at the same step.
            places: which lanes they have; the other lanes are trained for nothing, so that a
                member keeps its lane, and the program its shape, when others are done.
        """
        return StackedLanes(self, states, places)


class StackedLanes:
    """Members that are trained together. See `Together.start`."""

    def __init__(self, together: Together, states: Sequence[TrainState], places: Sequence[int]):
        by_lane = dict(zip(places, states, strict=True))
        lanes = [by_lane.get(i, states[0]) for i in range(together.lanes)]
        self._feed = together.feed(lanes)
        self._states = stack(lanes, together.mesh)
        self._together, self._places = together, places

    def advance(self, steps: int) -> Callable[[], list[dict[str, Any]]]:
        fetches = []
        for some, data in self._feed.parts(steps):
            self._states, fetch = self._together.loop(self._states, data, some)
            fetches.append(fetch)

        def means() -> list[dict[str, Any]]:
            metrics = joined(fetches)
            return [averaged({name: v[:, i] for name, v in metrics.items()}) for i in self._places]

        return means

    def state(self, i: int) -> TrainState:
        return lane(self._states, self._places[i], self._together.home)

    def close(self) -> None:
        self._feed.close()


def joined(fetches: Sequence[Fetch]) -> dict[str, np.ndarray]:
    """The metrics of turns that were taken one after another."""
    parts = [fetch() for fetch in fetches]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
