"""States that are trained at the same time: one, or many stacked."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from bvae_jax.program import Program, averaged
from bvae_jax.stacked import DATA, make_mesh, make_stacked_body, member, over_data, stack
from bvae_jax.train import make_loop
from bvae_jax.types import TrainState


@runtime_checkable
class Lanes(Protocol):
    """States that are trained together, each by its own run's settings."""

    def advance(self, steps: int) -> list[dict[str, Any]]:
        """Train all states; their metrics, averaged over the steps."""
        ...

    def state(self, i: int) -> TrainState: ...


class OneLane:
    """A run by itself."""

    def __init__(self, program: Program, state: TrainState):
        self._program, self._state = program, state

    def advance(self, steps: int) -> list[dict[str, Any]]:
        self._state, metrics = self._program.train(self._state, self._program.train_data, steps)
        return [averaged(metrics)]

    def state(self, i: int) -> TrainState:
        return self._state


class StackedLanes:
    """Members that are trained together in one program.

    Args:
        states: of the members, at the same step.
        places: which lanes they have; the other lanes are trained for nothing, so that a member
            keeps its lane, and the program its shape, when others are done.
        lanes: in all.
    """

    def __init__(
        self, program: Program, states: Sequence[TrainState], places: Sequence[int], lanes: int
    ):
        devices = jax.devices()
        mesh = make_mesh(lanes, devices)
        place = {"place": over_data} if mesh.shape[DATA] > 1 else {}
        body = make_stacked_body(program.make_body(**place), mesh)
        self._loop = make_loop(body, devices[0].platform)
        by_lane = dict(zip(places, states, strict=True))
        self._states = stack([by_lane.get(i, states[0]) for i in range(lanes)], mesh)
        self._data = jax.device_put(program.train_data, NamedSharding(mesh, P()))
        self._places, self._home = places, devices[0]

    def advance(self, steps: int) -> list[dict[str, Any]]:
        self._states, metrics = self._loop(self._states, self._data, steps)
        return [averaged({name: v[:, i] for name, v in metrics.items()}) for i in self._places]

    def state(self, i: int) -> TrainState:
        return jax.device_put(member(self._states, self._places[i]), self._home)
