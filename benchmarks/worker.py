"""A process that builds one contender, and then works whenever the parent says so."""

import importlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from bvae_jax.runtime import keep_freed_memory

ROUND_SECONDS = 0.3
"""A turn lasts so long, or as long as the smallest piece of work."""


class Contender(NamedTuple):
    """What a process builds, and then does whenever it is told.

    Attributes:
        task: "module:function", called with `options`, gives a `Task`.
        unit: what its work is counted in: "step" of one model, "batch", "image", "flop", "byte".
        cores: that it may use.
        keep_memory: freed memory is kept, see `bvae_jax.runtime`.
        environment: its own variables.
        beside: it is built at the same time as others that are, for it takes long and its compiler
            measures nothing.
    """

    name: str
    task: str
    unit: str
    options: Mapping[str, Any]
    cores: int
    keep_memory: bool = True
    environment: Mapping[str, str] = {}
    beside: bool = False


class Task(NamedTuple):
    """Something that can be done again and again.

    Attributes:
        run: does some pieces of work and waits for them.
        amount: units in a piece.
        facts: what else is known; asked once, after the last round.
    """

    run: Callable[[int], None]
    amount: float = 1
    facts: Callable[[], dict[str, Any]] = dict


def work(pipe: Connection, contender: Contender) -> None:
    """Build the contender and warm up, then answer the commands that come through the pipe."""
    os.setsid()  # it is killed together with what it starts
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    os.environ.update(contender.environment, OMP_NUM_THREADS=str(contender.cores))
    if hasattr(os, "sched_setaffinity"):  # before anything counts cores to size its thread pool
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: contender.cores])
    if contender.keep_memory:
        keep_freed_memory()
    try:
        module, name = contender.task.split(":")
        build = getattr(importlib.import_module(f"benchmarks.{module}"), name)
        _answer(pipe, build(**contender.options))
    except EOFError:
        pass  # the parent is gone
    except Exception as error:
        pipe.send({"error": f"{type(error).__name__}: {error}"})


def _answer(pipe: Connection, task: Task) -> None:
    task.run(1)  # compiles
    pieces, seconds = 1, _seconds(task, 1)
    if seconds < ROUND_SECONDS:  # how much work a turn is
        pieces = max(1, round(ROUND_SECONDS / max(seconds, 1e-6)))
        pieces = max(1, round(ROUND_SECONDS / _seconds(task, pieces) * pieces))
    pipe.send({})
    while True:
        if pipe.recv() == "turn":
            pipe.send({"seconds": _seconds(task, pieces) / pieces / task.amount})
        else:  # memory first, for the task's facts may compile
            pipe.send({"peak_host_bytes": peak_host_bytes(), **task.facts()})


def _seconds(task: Task, pieces: int) -> float:
    begin = time.perf_counter()
    task.run(pieces)
    return time.perf_counter() - begin


def peak_host_bytes(whose: int = resource.RUSAGE_SELF) -> int:
    """Largest resident memory so far of this process, or of its largest child that has ended."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(whose).ru_maxrss
