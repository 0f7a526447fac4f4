"""Scores of several representations at the same time, each in a process of its own."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import jax
import joblib

from bvae_jax.errors import UserError
from bvae_jax.metrics import METRICS
from bvae_jax.metrics.scoring import source_of

T = TypeVar("T")
R = TypeVar("R")

MOST = 16
"""Processes, each of which takes about 460 MB."""


def processes_for(metrics: Sequence[str]) -> int:
    """How many are worth their start: one for each processor, but 1 for `fast` metrics, and where
    one is the user's own, which other processes do not know.

    The environment's LOKY_MAX_CPU_COUNT is heeded.
    """
    slow = any(not METRICS[name].fast for name in metrics)
    own = any(source_of(name) for name in metrics)
    return min(joblib.cpu_count(), MOST) if slow and not own else 1


def in_processes(function: Callable[[T], R], items: Sequence[T], processes: int) -> Iterator[R]:
    """`function` of each item, in order, as each is done.

    Neither items nor results may hold JAX's arrays: the device belongs to this process.

    Raises:
        UserError: a process was killed.
    """
    count = min(processes, len(items))
    if count < 2:
        yield from map(function, items)
        return
    pool: Any = joblib.Parallel(count, return_as="generator")
    try:
        yield from pool(joblib.delayed(_on_cpu)(function, item) for item in items)
    except BrokenProcessPool:
        raise UserError(
            f"One of {count} processes that scored was killed, perhaps for want of memory: "
            "set LOKY_MAX_CPU_COUNT=1 in the environment, and call it again."
        ) from None


def _on_cpu(function: Callable[[T], R], item: T) -> R:
    jax.config.update("jax_platforms", "cpu")
    return function(item)
