"""A process that builds one contender, and then works whenever the parent says so.

Lines of JSON: the contender on stdin, then a command on each line; an answer to each on stdout.
While it waits for a line it uses no CPU; how much its thread pools do is part of its facts.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bvae_jax.runtime import (
    keep_freed_memory,
)

TASKS = {
    "matmul": "tasks", "copy": "tasks", "train": "tasks", "draw": "tasks", "encode": "tasks",
    "machine": "tasks", "torch_train": "torch_peer", "torch_encode": "torch_peer",
}  # fmt: skip
"""Task -> the module that has a function of that name, imported only where it is wanted."""
ROUND_SECONDS = 0.3
"""A turn lasts so long, or as long as the smallest piece of work."""


class Task(NamedTuple):
    """Something that can be done again and again.

    Attributes:
        run: does so many pieces of work and waits for them.
        amount: units in a piece.
        facts: what else is known; asked once, after the last round.
        profile: (directory for a trace) -> the operations that took the most time.
    """

    run: Callable[[int], None]
    amount: float
    facts: Callable[[], dict[str, Any]] = dict
    profile: Callable[[Path], list[dict[str, Any]]] | None = None


class Worker:
    """Answers the parent's commands.

    Args:
        spec: a `Contender`, as a dictionary.
    """

    def __init__(self, spec: Mapping[str, Any]):
        usable = getattr(os, "sched_getaffinity", None)
        if usable:  # before anything counts cores to size its thread pool
            os.sched_setaffinity(0, sorted(usable(0))[: spec["cores"]])
        if spec["keep_memory"]:
            keep_freed_memory()
        module = importlib.import_module(f"benchmarks.{TASKS[spec['task']]}")
        self._task: Task = getattr(module, spec["task"])(spec["options"])
        self._pieces = 1
        self._idle_cpu = self._idle_wall = 0.0
        self._before = (time.process_time(), time.perf_counter())

    def answer(self, command: str, argument: Any) -> dict[str, Any]:
        cpu, wall = time.process_time(), time.perf_counter()
        self._idle_cpu += cpu - self._before[0]
        self._idle_wall += wall - self._before[1]
        found = getattr(self, command)(argument)
        self._before = (time.process_time(), time.perf_counter())
        return found

    def warm_up(self, _: Any) -> dict[str, Any]:
        """Compile, and choose how much work a turn is."""
        self._task.run(1)
        for _ in range(2):
            seconds = self._seconds(self._pieces)
            self._pieces = max(1, round(ROUND_SECONDS / max(seconds, 1e-6) * self._pieces))
        self._idle_cpu = self._idle_wall = 0.0
        return {}

    def turn(self, _: Any) -> dict[str, Any]:
        """Work, and say how long a unit takes."""
        seconds = self._seconds(self._pieces)
        return {"seconds": seconds / self._pieces / self._task.amount}

    def facts(self, _: Any) -> dict[str, Any]:
        """Memory first, for what comes then may compile."""
        found: dict[str, Any] = {"peak_host_bytes": peak_host_bytes()}
        found["waiting_cpu_share"] = self._idle_cpu / max(self._idle_wall, 1e-9)
        found["units_in_a_turn"] = self._pieces * self._task.amount
        return found | self._task.facts()

    def profile(self, directory: str) -> dict[str, Any]:
        return {"profile": self._task.profile(Path(directory)) if self._task.profile else []}

    def _seconds(self, pieces: int) -> float:
        begin = time.perf_counter()
        self._task.run(pieces)
        return time.perf_counter() - begin


def peak_host_bytes(process: int | str = "self") -> int | None:
    """Largest resident memory of a process so far; None where nobody counts."""
    try:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    return None


def main() -> None:
    """Answer until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    worker = Worker(json.loads(sys.stdin.readline()))
    print(json.dumps({}), file=answers, flush=True)
    for line in sys.stdin:
        found = worker.answer(*json.loads(line))
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
