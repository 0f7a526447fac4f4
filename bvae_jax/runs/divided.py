"""One run on several devices: the same step, with each batch divided over them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from bvae_jax.errors import UserError
from bvae_jax.runs.program import Program
from bvae_jax.runs.mesh import DATA
from bvae_jax.step import Body, make_loop
from bvae_jax.types import Images, TrainState


def divide(program: Program, devices: Sequence[Any]) -> Program:
    """The same program, which trains and evaluates on all of the devices.

    Each has the whole state and data, and computes its share of each batch. `train` and `evaluate`
    take a state that is on one device; `train` returns one that is on all: see `on_one_device`.

    Args:
        devices: of all processes; their number divides the batch size.

    Raises:
        UserError: it does not.
    """
    config = program.config
    if config.batch_size % len(devices):
        raise UserError(
            f"--batch-size: got {config.batch_size}, wanted a multiple of {len(devices)}: each "
            "batch is divided equally over the devices (--devices)."
        )
    mesh = Mesh(np.array(devices), (DATA,))
    place = _placing(mesh)
    loop = make_loop(_everywhere(program.make_body(place=place), mesh), devices[0].platform)
    train_data, eval_data = on_all(mesh, (program.train_data, program.eval_data))
    stream = program.stream and functools.partial(
        program.stream, place=functools.partial(on_all, mesh)
    )
    # Batches of evaluation are smaller where there are few images.
    sizes = [indices.shape[1] for _, indices, _ in program.eval_data.values()]
    even = not any(size % len(devices) for size in sizes)
    evaluate = program.make_evaluate(eval_data, **({"place": place} if even else {}))
    return program._replace(
        train=lambda state, data, steps: loop(on_all(mesh, state), data, steps),
        train_data=train_data,
        stream=stream,
        evaluate=lambda state, *splits: evaluate(on_all(mesh, state), *splits),
    )


def _placing(mesh: Mesh) -> Callable[[Images], Images]:
    def place(images: Images) -> Images:
        return jax.lax.with_sharding_constraint(images, NamedSharding(mesh, P(DATA)))

    return place


def _everywhere(body: Body, mesh: Mesh) -> Body:
    """`body`, whose results are whole on each device, as the next turn wants them."""

    def whole(state: TrainState, data: PyTree) -> tuple[TrainState, PyTree]:
        return jax.lax.with_sharding_constraint(body(state, data), NamedSharding(mesh, P()))

    return whole


def on_all(mesh: Mesh, tree: PyTree) -> PyTree:
    """Arrays on each device of a mesh: they must be the same in all processes."""
    everywhere, known = NamedSharding(mesh, P()), {}

    def put(leaf: jax.Array | np.ndarray) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding == everywhere:
            return leaf
        if id(leaf) not in known:  # images are large: not twice for training and evaluation
            copies = [jax.device_put(leaf, device) for device in mesh.local_devices]
            known[id(leaf)] = jax.make_array_from_single_device_arrays(
                leaf.shape, everywhere, copies
            )
        return known[id(leaf)]

    return jax.tree.map(put, tree)


def on_one_device(tree: PyTree) -> PyTree:
    """Arrays that are whole on each device, on one of this process."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def choose_devices(given: int | str | None, earlier: int, *, distributed: bool) -> list[Any]:
    """Those that train a run.

    Args:
        given: how many of this process's devices, "all", or None for as many as before.
        earlier: on how many the run was trained so far.
        distributed: take all, of all processes.

    Raises:
        UserError: there are not so many.
    """
    if distributed:
        if given not in (None, "all"):
            raise UserError(f"--devices: got {given}, but --distributed takes all: leave it out.")
        return jax.devices()
    here = jax.local_devices()
    if given == "all":
        return here
    if given is None and earlier > len(here):
        raise UserError(
            f"The run was divided over {earlier} devices, here are {len(here)}: choose --devices "
            "(roundings will differ), or start as many processes again (--distributed)."
        )
    wanted = earlier if given is None else given
    if not str(wanted).isdigit() or not 1 <= int(wanted) <= len(here):
        raise UserError(f"--devices: got {wanted}, wanted all or a number from 1 to {len(here)}.")
    return here[: int(wanted)]
