"""Ctrl-C, SIGTERM and SIGHUP without losing anything."""

import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def fatal() -> Iterator[None]:
    """Ctrl-C ends the process at once: for imports, some of which swallow KeyboardInterrupt."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not (ours and threading.current_thread() is threading.main_thread()):
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupt(contextlib.AbstractContextManager):
    """Turns Ctrl-C, SIGTERM and SIGHUP into a wish inside `deferred()`, and an exception elsewhere.

    Where Python would swallow an exception, inside a callback of the garbage collector, it is a
    wish as well, which `check` turns into the exception at the next safe place. The second signal
    is an exception, unless it is SIGHUP. What the process was started to ignore, as SIGHUP under
    nohup, stays ignored. Outside the main thread, where Python delivers no signals, nothing
    changes.

    Attributes:
        requested: whether a signal came.
    """

    def __init__(self):
        self.requested = False
        self._depth = 0
        self._old = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._old.items():
            # None: it was not set from Python, and cannot be set back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """While inside, the first signal only sets `requested`. May be nested."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def check(self) -> None:
        """A safe place to end.

        Raises:
            KeyboardInterrupt: a signal came.
        """
        if self.requested:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first, self.requested = not self.requested, True
        # A terminal that is closed may say so twice: once itself, and once through its shell.
        wish = self._depth and (first or number == signal.SIGHUP)
        if wish and first:
            _tell("\nbvae: interrupted; finishing these steps and saving. Once more stops at once.")
        if not wish and not _in_garbage_collection(frame):
            raise KeyboardInterrupt


def _in_garbage_collection(frame: FrameType | None) -> bool:
    """Whether Python runs a callback of the garbage collector, which swallows exceptions."""
    callbacks = [getattr(callback, "__code__", None) for callback in gc.callbacks]
    while frame and frame.f_code not in callbacks:
        frame = frame.f_back
    return frame is not None


def _tell(line: str) -> None:
    """Write a line to stderr; a terminal that is gone is no reason to fail, now or later."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(null, stream)
