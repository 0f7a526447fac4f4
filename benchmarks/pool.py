"""Contenders in turn: one process for each, of which one works at a time."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Sequence
from typing import Any

from benchmarks.worker import Contender, work


class Process:
    """A contender's process, and what is found out about it.

    Args:
        patience: seconds to wait for an answer; a process that needs longer is ended.

    Attributes:
        entry: `unit`, `cores`, `seconds_per_<unit>` of each round, and after the last its facts; or
            `error`.
    """

    def __init__(self, contender: Contender, patience: int):
        self.contender, self._patience = contender, patience
        self._rounds: list[float] = []
        self.entry: dict[str, Any] = {"unit": contender.unit, "cores": contender.cores}
        self.entry[f"seconds_per_{contender.unit}"] = self._rounds
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, contender))
        self._process.start()
        theirs.close()

    def ask(self, command: str | None = None) -> dict[str, Any]:
        """What it answers to a command, or once it is built; nothing from a process that failed."""
        if "error" in self.entry:
            return {}
        try:
            if command:
                self._pipe.send(command)
            ready = self._pipe.poll(self._patience)
            found = self._pipe.recv() if ready else {"error": f"no answer in {self._patience} s"}
        except (EOFError, ConnectionError):
            self._process.join()
            found = {"error": f"it ended with exit code {self._process.exitcode}"}
        if "error" in found:
            self.entry["error"] = found["error"]
            self.end()
            return {}
        return found

    def turn(self) -> None:
        """Let it work for a round."""
        self._rounds += self.ask("turn").values()

    def end(self) -> None:
        """End it, and what it has started; kill what does not end by itself."""
        self._pipe.close()
        self._process.join(0 if "error" in self.entry else 5)
        assert self._process.pid
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()  # where it did not come to lead a session of its own
        self._process.join()


def take_turns(
    contenders: Sequence[Contender], rounds: int, found: dict[str, Any], *, patience: int = 300
) -> None:
    """Build all, then let each work in turn, round after round.

    Args:
        found: name -> `Process.entry`, filled as it goes, so that an interruption leaves what was
            measured.
    """
    processes: list[Process] = []
    try:
        for one in contenders:
            processes.append(Process(one, patience))
            found[one.name] = processes[-1].entry
            if not one.beside:
                processes[-1].ask()
        for process in processes:
            if process.contender.beside:
                process.ask()
        for _ in range(rounds):
            for process in processes:
                process.turn()
        for process in processes:
            process.entry |= process.ask("facts")
    finally:
        for process in processes:
            process.end()
