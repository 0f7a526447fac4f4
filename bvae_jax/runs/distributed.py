"""Processes that train one run together: all compute the same, and the first one has the disk."""

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from bvae_jax.runs.checkpoint import keys_as_data, keys_as_in
from bvae_jax.errors import UserError

T = TypeVar("T")
WAIT_SECONDS = 10
COORDINATOR, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


class Team:
    """The processes that train a run; here a single one. All call the same methods in order.

    Attributes:
        index: which of them this one is.
        count: how many they are.
    """

    index, count = 0, 1

    def first(self, action: Callable[[], Any]) -> Any:
        """What `action` returns in the first process, as JSON keeps it; the others do not call it.

        Raises:
            UserError: it failed there; all raise then.
        """
        return action()

    def each(self, action: Callable[[], T]) -> T:
        """What `action` returns here.

        Raises:
            UserError: it failed in some process; all raise then.
        """
        return action()

    def any(self, wish: bool) -> bool:
        """Whether some process has it true."""
        return wish

    def share(self, tree: PyTree) -> PyTree:
        """The first process's arrays, bit for bit; the others give some of the same shapes."""
        return tree


ALONE = Team()


class _Together(Team):
    """All processes of `jax.distributed`."""

    def __init__(self):
        self.index, self.count = jax.process_index(), jax.process_count()

    def first(self, action: Callable[[], Any]) -> Any:
        found, said = self._run(action if self.index == 0 else lambda: None, tell=True)
        return found if self.index == 0 else said[0]

    def each(self, action: Callable[[], T]) -> T:
        return self._run(action, tell=False)[0]

    def any(self, wish: bool) -> bool:
        return bool(_gather(np.int32(wish)).any())

    def share(self, tree: PyTree) -> PyTree:
        from jax.experimental import multihost_utils

        arrays = jax.tree.map(np.array, keys_as_data(tree))
        # As bytes, for what is sent is a sum over processes, which turns -0.0 into 0.0.
        sent = jax.tree.map(lambda x: x.reshape(-1).view(np.uint8), arrays)
        got = multihost_utils.broadcast_one_to_all(sent)
        shaped = jax.tree.map(
            lambda x, like: jnp.asarray(np.array(x).view(like.dtype).reshape(like.shape)),
            got,
            arrays,
        )
        return keys_as_in(shaped, tree)

    def _run(self, action: Callable[[], T], *, tell: bool) -> tuple[T, list[Any]]:
        """What `action` returns here and, with `tell`, in each process."""
        found, failure, reply = None, None, {}
        try:
            found = action()
            reply = {"value": found} if tell else {}
        except KeyboardInterrupt as error:
            failure, reply = error, {"interrupted": True}
        except Exception as error:
            told = error if isinstance(error, UserError) else f"Process {self.index}: {error!r}"
            failure, reply = error, {"error": " ".join(str(told).split())}
        replies = [json.loads(text) for text in _exchange(json.dumps(reply))]
        if failure is not None:
            raise failure
        for other in replies:
            if "error" in other:
                raise UserError(other["error"])
            if "interrupted" in other:
                raise KeyboardInterrupt
        return found, [other.get("value") for other in replies]  # pyright: ignore[reportReturnType]


def check_agreed(team: Team, asked: Any) -> None:
    """Refuse to train together what was asked for differently: the processes would hang.

    Args:
        asked: of this process; JSON.

    Raises:
        UserError: another was asked for something else.
    """
    here = json.dumps(asked)
    if team.any(team.first(lambda: here) != here):
        raise UserError("--distributed: start all processes with the same flags; these differ.")


def _gather(value: np.ndarray | np.int32) -> np.ndarray:
    """[process, ...] the values of all processes, which have the same shape."""
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(value))


def _exchange(text: str) -> list[str]:
    """The texts of all processes, in their order."""
    mine = np.frombuffer(text.encode(), np.uint8)
    sizes = _gather(np.int32(mine.size))
    room = 1 << int(sizes.max()).bit_length()  # few sizes, for each is compiled once
    rows = _gather(np.pad(mine, (0, room - mine.size)))
    return [bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)]


def join(environment: Mapping[str, str] = os.environ) -> Team:
    """Find the other processes; before anything is computed.

    JAX finds those of SLURM, Open MPI and Cloud TPU by itself. Others are told of by the variables
    JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Returns:
        All of them; that of a single one where there are no others.

    Raises:
        UserError: there is nothing to find, or it cannot be reached.
    """
    if not jax.distributed.is_initialized():
        given = _given(environment)
        try:
            _leave_signals_alone()
            with _saying_that_it_waits():
                jax.distributed.initialize(**given)
        except Exception as error:
            reason = str(error).strip().split("\n")[0].rstrip(".")
            raise UserError(
                f"--distributed: JAX cannot join the processes: {reason}. Start them by srun, "
                f"mpirun or on all workers of a TPU pod, or set {COORDINATOR} (host:port of the "
                f"first), {COUNT} and {INDEX} (from 0) for each."
            ) from None
        sys.excepthook = _end_at_once
    return _Together() if jax.process_count() > 1 else ALONE


def _given(environment: Mapping[str, str]) -> dict[str, Any]:
    """Arguments of `jax.distributed.initialize`; none where it has to find out."""
    if COUNT not in environment and INDEX not in environment:
        return {}
    address = environment.get(COORDINATOR, "")
    count, index = environment.get(COUNT, ""), environment.get(INDEX, "")
    if ":" not in address or not (count.isdigit() and index.isdigit() and int(index) < int(count)):
        raise UserError(
            f"--distributed: got {COORDINATOR}={address!r}, {COUNT}={count!r} and {INDEX}="
            f"{index!r}, wanted host:port, a number n, and one from 0 to n - 1."
        )
    return {"coordinator_address": address, "num_processes": int(count), "process_id": int(index)}


@contextlib.contextmanager
def _saying_that_it_waits() -> Iterator[None]:
    """A line when the others do not come: JAX aborts the process in the end, without one."""
    line = "bvae: waiting for the other processes; after five minutes JAX ends this one."
    timer = threading.Timer(WAIT_SECONDS, print, (line,), {"file": sys.stderr})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _leave_signals_alone() -> None:
    """SIGTERM is ours to handle: see `interrupt`."""
    if hasattr(jax.config, "jax_enable_preemption_service"):
        jax.config.update("jax_enable_preemption_service", False)


def _end_at_once(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """The end of a process by an error that nobody caught: the others are told by that.

    At a regular end JAX waits minutes for the others, who wait for us.
    """
    sys.__excepthook__(kind, error, traceback)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
