"""Ctrl-C and SIGTERM without losing anything."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator


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


class Interrupt(contextlib.AbstractContextManager):
    """Turns SIGINT and SIGTERM into a wish inside `deferred()`, and an exception elsewhere.

    The second signal is an exception anywhere: KeyboardInterrupt. Outside the main thread, where
    Python delivers no signals, nothing changes.

    Attributes:
        requested: whether a signal came while deferred.
    """

    def __init__(self):
        self.requested = False
        self._deferred = False
        self._old = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._old.items():
            # None: it was not set from Python, and cannot be set back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """While inside, the first signal only sets `requested`."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def _handle(self, number, frame) -> None:
        if not self._deferred or self.requested:
            raise KeyboardInterrupt
        self.requested = True
        print(
            "\nbvae: interrupted; finishing these steps and saving. Once more stops at once.",
            file=sys.stderr,
        )
