"""Workers in turn: one process for each contender, of which one works at a time."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contenders import Contender

PACKAGE_ROOT = str(Path(__file__).parents[2])


Work = Callable[[Contender, "Process"], None]


class WorkerError(Exception):
    """A worker is dead, or does not answer."""


class Process(contextlib.AbstractContextManager):
    """A worker, which is ended with the context.

    Args:
        environment: variables beside those of this process and the contender's own.
        patience: seconds to wait for an answer.
    """

    def __init__(self, contender: Contender, environment: Mapping[str, str], patience: int):
        self._spec, self._patience = contender, patience
        self._environment = worker_environment({**environment, **contender.environment})
        self._environment["OMP_NUM_THREADS"] = str(contender.cores)

    def __enter__(self) -> "Process":
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            env=self._environment, start_new_session=True,  # Ctrl-C is for the parent
            bufsize=0,  # `select` does not see lines that a buffer has taken
        )  # fmt: skip
        return self

    def __exit__(self, *exception) -> None:
        self.end()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def begin_build(self) -> None:
        """Start to build the contender.

        Raises:
            WorkerError: the worker is dead already.
        """
        self._tell(self._spec._asdict())
        self._tell(["warm_up", None])

    def end_build(self) -> None:
        """Wait until it is built and warm.

        Raises:
            WorkerError: it failed.
        """
        self._answer()
        self._answer()

    def end(self) -> None:
        """Kill it, and what it has started."""
        end(self._process)

    def ask(self, command: str, argument: Any = None) -> dict[str, Any]:
        """What the worker answers to a command.

        Raises:
            WorkerError: it does not.
        """
        self._tell([command, argument])
        return self._answer()

    def _tell(self, message: Any) -> None:
        stdin = self._process.stdin
        assert stdin
        try:
            stdin.write(json.dumps(message).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._last_words()) from None

    def _answer(self) -> dict[str, Any]:
        stdout = self._process.stdout
        assert stdout
        if not select.select([stdout], [], [], self._patience)[0]:
            raise WorkerError(f"no answer in {self._patience} s")
        line = stdout.readline()
        if not line:
            raise WorkerError(self._last_words())
        return json.loads(line)

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it ended with exit code {code}"


def end(process: subprocess.Popen) -> None:
    """Kill a process that leads a session, and what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def worker_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Variables of a process that finds this package, and leaves an accelerator's memory to others
    until it needs it."""
    paths = [PACKAGE_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
    ours = {"PYTHONPATH": os.pathsep.join(paths), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return {**os.environ, **ours, **changes}


def take_turns(
    contenders: Sequence[Contender],
    rounds: int,
    found: dict[str, Any],
    *,
    environment: Mapping[str, str] = {},
    patience: int = 300,
    profile: bool = False,
    advance: Callable[[str], None] = lambda name: None,
) -> None:
    """Build all, then let each work in turn, round after round.

    Args:
        found: filled as it goes, so that an interruption leaves what was measured: name -> `unit`,
            `seconds_per_<unit>` of each round, and after the last its facts; or `error`.
        environment: of all workers.
        patience: seconds to wait for an answer; a worker that needs longer is ended.
        profile: at the end, profile those that are worth it.
        advance: called with a name so often as `turns` says.
    """
    for one in contenders:
        found[one.name] = {"unit": one.unit, "cores": one.cores, f"seconds_per_{one.unit}": []}
    with contextlib.ExitStack() as stack:
        processes = {
            one.name: stack.enter_context(Process(one, environment, patience)) for one in contenders
        }

        def each(work: Work, some: Sequence[Contender] = contenders, shown: bool = True) -> None:
            for one in some:
                if one.name in processes:
                    try:
                        work(one, processes[one.name])
                    except WorkerError as error:
                        found[one.name]["error"] = str(error)
                        processes.pop(one.name).end()
                if shown:
                    advance(one.name)

        def build(_: Contender, process: Process) -> None:
            process.begin_build()
            process.end_build()

        def turn(one: Contender, process: Process) -> None:
            seconds = process.ask("turn")["seconds"]
            found[one.name][f"seconds_per_{one.unit}"].append(seconds)

        def facts(one: Contender, process: Process) -> None:
            found[one.name] |= process.ask("facts")
            if profile and one.profiled:
                with tempfile.TemporaryDirectory() as directory:
                    found[one.name] |= process.ask("profile", directory)

        each(build, [one for one in contenders if not one.compiles_beside])
        others = [one for one in contenders if one.compiles_beside]
        each(lambda _, process: process.begin_build(), others, shown=False)
        each(lambda _, process: process.end_build(), others)
        for _ in range(rounds):
            each(turn)
        each(facts)


def turns(contenders: Sequence[Contender], rounds: int) -> int:
    """How often `take_turns` calls `advance`."""
    return (rounds + 2) * len(contenders)
