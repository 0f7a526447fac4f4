"""Many states trained by one step: stacked along a first axis, vmapped, sharded over devices."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from bvae_jax.step import Body
from bvae_jax.types import Images, TrainState

RUN, DATA = "run", "data"
"""Axes of the mesh: members of a sweep, and images of a batch."""


def make_mesh(members: int, devices: Sequence[Any]) -> Mesh:
    """All devices: as many as can be for members, the others share the batches of each.

    Args:
        members: trained at once.
    """
    runs = math.gcd(members, len(devices))
    if jax.__version_info__ < (0, 10):  # which cannot divide batches in a part of a mesh
        devices = devices[:runs]
    return Mesh(np.array(devices).reshape(runs, -1), (RUN, DATA))


def make_stacked_body(body: Body, mesh: Mesh) -> Body:
    """`body` for stacked states: the same step for each, with the same data.

    Each device has its share of the states. A share of one is not vmapped, for a vmapped
    convolution is a grouped one, which is slow on a CPU.

    Args:
        body: one step of one state.
        mesh: axes RUN and DATA.
    """

    def share(states: TrainState, data: PyTree) -> tuple[TrainState, PyTree]:
        if len(states.step) > 1:
            return jax.vmap(body, in_axes=(0, None))(states, data)
        one = jax.tree.map(lambda leaf: leaf[0], states)
        return jax.tree.map(lambda leaf: leaf[None], body(one, data))

    specs = {"mesh": mesh, "in_specs": (P(RUN), P()), "out_specs": P(RUN)}
    return jax.shard_map(share, **specs, axis_names={RUN}, check_vma=False)


def over_data(images: Images) -> Images:
    """Divide a batch over the devices along DATA, in the body of a mesh that has them."""
    mesh = jax.sharding.get_abstract_mesh()
    return jax.lax.with_sharding_constraint(images, NamedSharding(mesh, P(DATA)))


def stack(states: Sequence[TrainState], mesh: Mesh | None = None) -> TrainState:
    """States as one, with a first axis that counts them.

    Args:
        mesh: where they go, a share for each place along RUN.
    """
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    return stacked if mesh is None else jax.device_put(stacked, NamedSharding(mesh, P(RUN)))


def lane(states: TrainState, i: int, device: Any) -> TrainState:
    """The i-th of sharded states, on one device: copied from where it is, with no program that
    spans devices, for which those of a CPU may wait on each other in vain."""

    def pick(leaf: Any) -> Any:
        for shard in leaf.addressable_shards:
            first, end, _ = shard.index[0].indices(len(leaf))
            if first <= i < end:
                return jax.device_put(shard.data[i - first], device)
        raise IndexError(f"There is no state {i} on this host.")

    return jax.tree.map(pick, states)


def member(states: TrainState | Sequence[TrainState], i: int) -> TrainState:
    """The i-th state of stacked ones, or of several stacks one after another.

    Raises:
        IndexError: there are not so many.
    """
    place = i
    for one in [states] if isinstance(states, TrainState) else states:
        if 0 <= place < len(one.step):
            return jax.tree.map(operator.itemgetter(place), one)
        place -= len(one.step)
    raise IndexError(f"There is no member {i}.")
