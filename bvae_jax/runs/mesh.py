"""The devices that train: members along one axis of a mesh, the images of a batch along the other.

A run by itself is one member, and its state has no member axis: with one of length 1 the compiler
would round otherwise, and copy the state on the way in and out.
"""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from bvae_jax.errors import UserError
from bvae_jax.step import Body
from bvae_jax.types import Images, TrainState

RUN, DATA = "run", "data"
"""Axes of the mesh: members, and images of a batch."""


def make_mesh(members: int, devices: Sequence[Any]) -> Mesh:
    """All devices: as many as possible for members, the others share the batches of each.

    Args:
        members: trained at once.
    """
    runs = math.gcd(members, len(devices))
    # JAX before 0.10 has no batches on a part of a mesh.
    if members > 1 and jax.__version_info__ < (0, 10):
        devices = devices[:runs]
    return Mesh(np.array(devices).reshape(runs, -1), (RUN, DATA))


def over_members(body: Body, mesh: Mesh, members: int) -> Body:
    """`body` for the states of all members: the same step for each, with the same data.

    Each device along RUN has its share of the states. A share of one is not vmapped, for a vmapped
    convolution is a grouped one, which is slow on a CPU.

    Args:
        body: one step of one state.
    """

    def share(states: TrainState, data: PyTree) -> tuple[TrainState, PyTree]:
        if len(states.step) > 1:
            return jax.vmap(body, in_axes=(0, None))(states, data)
        one = jax.tree.map(lambda leaf: leaf[0], states)
        return jax.tree.map(lambda leaf: leaf[None], body(one, data))

    def whole(state: TrainState, data: PyTree) -> tuple[TrainState, PyTree]:
        """Results are whole on each device, as the next turn wants them."""
        return jax.lax.with_sharding_constraint(body(state, data), NamedSharding(mesh, P()))

    if members == 1:
        return whole if mesh.size > 1 else body
    specs: dict[str, Any] = {"mesh": mesh, "in_specs": (P(RUN), P()), "out_specs": P(RUN)}
    return jax.shard_map(share, **specs, axis_names={RUN}, check_vma=False)


def over_images(mesh: Mesh) -> Callable[[Images], Images]:
    """Divides the images of a batch along DATA, inside a body that runs on `mesh`."""

    def place(images: Images) -> Images:
        part = jax.sharding.get_abstract_mesh()  # inside `shard_map`
        where = NamedSharding(mesh if part.empty else part, P(DATA))
        return jax.lax.with_sharding_constraint(images, where)

    return place if mesh.shape[DATA] > 1 else lambda images: images


def on_each(mesh: Mesh, tree: PyTree) -> PyTree:
    """Arrays, whole on each device of a mesh; an array that occurs twice is copied once."""
    everywhere, known = NamedSharding(mesh, P()), {}

    def put(leaf: jax.Array | np.ndarray) -> jax.Array:
        if mesh.size == 1:  # where all is that is on a device, and nothing needs a sharding
            return leaf if isinstance(leaf, jax.Array) else jax.device_put(leaf)
        if id(leaf) not in known:
            known[id(leaf)] = jax.device_put(leaf, everywhere)
        return known[id(leaf)]

    return jax.tree.map(put, tree)


def stack(states: Sequence[TrainState], mesh: Mesh) -> TrainState:
    """States of all members as one, a share for each device along RUN."""
    if len(states) == 1:
        return on_each(mesh, states[0])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    return jax.device_put(stacked, NamedSharding(mesh, P(RUN)))


def member(states: TrainState, i: int) -> TrainState:
    """The i-th of stacked states, on the first device: copied from where it is, by no program that
    spans devices, for which those of a CPU may wait on each other in vain."""
    if states.step.ndim == 0:
        return jax.tree.map(lambda leaf: leaf.addressable_data(0), states)

    def pick(leaf: Any) -> Any:
        for shard in leaf.addressable_shards:
            first, end, _ = shard.index[0].indices(len(leaf))
            if first <= i < end:
                return jax.device_put(shard.data[i - first], jax.local_devices()[0])
        raise IndexError(f"There is no state {i} on this host.")

    return jax.tree.map(pick, states)


def memory_of_device(device: Any) -> float:
    """Bytes; infinity where nobody knows."""
    if device.platform == "cpu":
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return float((device.memory_stats() or {}).get("bytes_limit", math.inf))


def choose_devices(given: int | str | None, earlier: int) -> list[Any]:
    """Those that train a run.

    Args:
        given: how many of this process's devices, "all", or None for as many as before.
        earlier: on how many the run was trained so far.

    Raises:
        UserError: there are fewer.
    """
    here = jax.local_devices()
    if given == "all":
        return here
    if given is None and earlier > len(here):
        raise UserError(
            f"The run was divided over {earlier} devices, here are {len(here)}: choose --devices "
            "(roundings will differ)."
        )
    wanted = earlier if given is None else given
    if not str(wanted).isdigit() or not 1 <= int(wanted) <= len(here):
        raise UserError(f"--devices: got {wanted}, wanted all or a number from 1 to {len(here)}.")
    return here[: int(wanted)]
