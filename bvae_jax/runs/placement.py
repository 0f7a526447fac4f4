"""How the members of a sweep are run: which part of them here, which at once, in what manner."""

import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from bvae_jax.errors import UserError
from bvae_jax.runs.checkpoint import is_key
from bvae_jax.runs.mesh import memory_of_device
from bvae_jax.runs.trainer import Trainer

STRATEGIES = ("auto", "sequential", "devices", "vmap")
MEMORY_SHARE = 0.8
"""Of a device's memory that a sweep may fill, its data included."""


class Plan(NamedTuple):
    """How to run members that share a program.

    Attributes:
        at_once: members in one program.
        bytes_each: memory that a member takes while it is trained; at least so much on a CPU.
    """

    strategy: str
    at_once: int
    bytes_each: int


def parse_shard(given: str | None, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """(i, n) of "i/n", counted from 1; of "slurm", from the variables of a SLURM job array.

    Raises:
        UserError: it is neither, or there is no job array.
    """
    if given is None:
        return 1, 1
    if given == "slurm":
        names = [f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "MAX", "STEP")]
        try:
            task, first, last = (int(environment[name]) for name in names[:3])
        except (KeyError, ValueError):
            raise UserError(
                f"--shard slurm: got no numbers in {', '.join(names[:3])}: start it by "
                "sbatch --array=1-N."
            ) from None
        step = int(environment.get(names[3], 1))
        return (task - first) // step + 1, (last - first) // step + 1
    i, _, n = str(given).partition("/")
    if not (i.isdigit() and n.isdigit() and 1 <= int(i) <= int(n)):
        raise UserError(f"--shard: got {given!r}, wanted i/n with 1 <= i <= n, as 1/4, or slurm.")
    return int(i), int(n)


LAUNCHERS = (
    ("JAX_PROCESS_ID", "JAX_NUM_PROCESSES", None),
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
)
"""Variables that tell a process its number, of how many, and its number on its host."""


def shard_of_process(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """(i, n): this is the i-th of n processes that a cluster started, counted from 1.

    Members share nothing, so the processes do not join each other, and none ends with another.
    Like `jax.distributed.initialize`, a process takes the GPUs in JAX_LOCAL_DEVICE_IDS; else, of
    several on a host, that of its own number.

    Raises:
        UserError: nothing tells which process this is.
    """
    for index, count, local in LAUNCHERS:
        if environment.get(index, "").isdigit() and environment.get(count, "").isdigit():
            gpus = environment.get("JAX_LOCAL_DEVICE_IDS") or environment.get(local or "")
            if gpus:
                jax.config.update("jax_cuda_visible_devices", gpus)
                jax.config.update("jax_rocm_visible_devices", gpus)
            return int(environment[index]) + 1, int(environment[count])
    if jax.default_backend() != "tpu":  # which knows the other hosts of a pod
        raise UserError(
            "--distributed: found no other processes: start them by srun, mpirun or on all workers "
            f"of a TPU pod, or set {LAUNCHERS[0][0]} (from 0) and {LAUNCHERS[0][1]} for each."
        )
    return jax.process_index() + 1, jax.process_count()


def check_strategy(strategy: str, at_once: int | None, platform: str) -> None:
    """Raise what `make_plan` would raise.

    Raises:
        UserError: the strategy is unknown, or does not go with the number.
    """
    if strategy not in STRATEGIES:
        raise UserError(f"--strategy: got {strategy!r}, wanted one of {', '.join(STRATEGIES)}.")
    if at_once is None:
        return
    if at_once < 1:
        raise UserError(f"--members-at-once: got {at_once}, wanted 1 or more.")
    vmapped = strategy == "vmap" or (strategy == "auto" and platform != "cpu")
    if at_once > 1 and not vmapped:
        raise UserError(
            f"--members-at-once: got {at_once}, but --strategy {strategy} runs one member on each "
            "device here. Leave it out, or choose --strategy vmap."
        )


def make_plan(
    trainer: Trainer, members: int, strategy: str, at_once: int | None, platform: str
) -> Plan:
    """Choose what is left open, by the machine.

    On a CPU members run one after another, or one on each CPU device where there are several:
    vmapped convolutions are many times slower there. On an accelerator as many as the memory
    takes are vmapped.

    Args:
        members: that share the trainer.
        strategy: "auto", or what the user wants.
        at_once: how many in one program; None leaves it open.
        platform: `jax.default_backend()`.

    Raises:
        UserError: the strategy is unknown, or does not go with the number.
    """
    check_strategy(strategy, at_once, platform)
    devices = jax.local_device_count()
    if strategy == "auto":
        strategy = "vmap" if platform != "cpu" else "devices" if devices > 1 else "sequential"
        strategy = "sequential" if at_once == 1 or members == 1 else strategy
    if strategy in ("sequential", "devices"):
        return Plan(strategy, devices if strategy == "devices" else 1, state_bytes(trainer))
    if at_once or platform == "cpu":
        return Plan("vmap", min(int(at_once or members), members), state_bytes(trainer))
    each = compiled_bytes(trainer)
    have = memory_of_device(jax.local_devices()[0])
    left = MEMORY_SHARE * have - trainer.data_bytes
    fits = members if math.isinf(have) else max(1, int(left / each)) * devices
    return Plan("vmap", evenly(members, fits), each)


def evenly(members: int, most: int) -> int:
    """Members at once, so that rounds of no more than `most` are of nearly equal size."""
    rounds = math.ceil(members / most)
    return math.ceil(members / rounds)


def batches(members: Sequence[Any], at_once: int) -> list[list[Any]]:
    """Members in rounds; the last may be short."""
    return [list(members[i : i + at_once]) for i in range(0, len(members), at_once)]


def state_bytes(trainer: Trainer) -> int:
    """Of one member's state and of one batch: less than what training takes."""
    state = jax.eval_shape(trainer.init)
    leaves = [leaf for leaf in jax.tree.leaves(state) if not is_key(leaf)]
    batch = 4 * trainer.config.batch_size * math.prod(trainer.dataset.image_shape)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves) + batch


def compiled_bytes(trainer: Trainer) -> int:
    """Of one member's step, as the compiler counts: states and temporaries, without the data."""
    state = trainer.init()
    step = jax.jit(trainer.make_body(), donate_argnums=0)
    with contextlib.closing(trainer.feed([state])) as feed:
        _, data = next(feed.parts(1))
        analysis = step.lower(trainer.stack([state]), data).compile().memory_analysis()
    if analysis is None:
        return state_bytes(trainer)
    return max(int(analysis.temp_size_in_bytes), 0) + state_bytes(trainer)


def check_memory(trainer: Trainer) -> None:
    """Refuse what cannot fit, by a lower bound: the data that are on the device already,
    parameters, gradient, Adam's moments, one batch."""
    config, device = trainer.config, jax.local_devices()[0]
    have = memory_of_device(device)
    parameters = sum(x.size for x in jax.tree.leaves(jax.eval_shape(trainer.init).params))
    need = 4 * (4 * parameters + config.batch_size * math.prod(trainer.dataset.image_shape))
    need += trainer.data_bytes
    if need > have:
        raise UserError(
            f"Not enough memory: {parameters:,} parameters, batches of {config.batch_size:,} and "
            f"the data need more than {need / 1e9:,.0f} GB, {device.device_kind} has "
            f"{have / 1e9:,.0f} GB. Lower --latents or --batch-size."
        )
