"""What the process has of its surroundings: memory, signals, compiled programs kept on disk,
installed versions, and what the user sees while it runs."""

import _thread
import contextlib
import ctypes
import hashlib
import importlib.metadata
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from bvae_jax.errors import printable

if TYPE_CHECKING:
    from tqdm import tqdm

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to give no freed memory back to the system, for this whole process.

    A training step on a CPU makes and frees large temporaries. By default each is mapped and
    unmapped, and the page faults cost about a quarter of the step. The price is that the process
    keeps its peak memory. Elsewhere than on glibc nothing happens.

    Returns:
        Whether all settings were taken.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_ARENA_MAX, 1))
    taken = [mallopt(name, value) == 1 for name, value in settings]
    return all(taken)


CACHE_DIRECTORY = "JAX_COMPILATION_CACHE_DIR"
CACHE_LEAST_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


def set_compile_cache_default(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let JAX, which is not imported yet, use the user's cache, if it is told nothing else."""
    environment.setdefault(CACHE_DIRECTORY, str(compile_cache_directory()))
    environment.setdefault(CACHE_LEAST_SECONDS, "0")


def use_compile_cache(where: str | None) -> None:
    """Use another directory from now on.

    Args:
        where: its path; "off" for none; None leaves all as it is.
    """
    if where is None:
        return
    import jax

    directory = None if where == "off" else str(Path(where).expanduser().absolute())
    jax.config.update("jax_compilation_cache_dir", directory)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def compile_cache_directory() -> Path:
    """In the user's cache directory, apart for each kind of processor: programs for a CPU use the
    instructions of the one on which they were compiled."""
    return user_cache() / f"compiled-{_processor()}"


def user_cache() -> Path:
    """`$BVAE_CACHE_DIR`, or bvae_jax in `$XDG_CACHE_HOME`, or in ~/.cache."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return Path(os.environ.get("BVAE_CACHE_DIR") or caches / "bvae_jax").expanduser()


def _processor() -> str:
    """A short name for what instructions this machine has."""
    described = [platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        described += sorted({line for line in lines if line.startswith(("flags", "Features"))})
    except OSError:
        pass  # not on Linux
    return hashlib.sha256("\n".join(described).encode()).hexdigest()[:8]


def versions(packages: Sequence[str]) -> dict[str, str | None]:
    """Of installed packages; None for one that is not installed."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def git_commit() -> str | None:
    """The commit of the package's own checkout, with `+changes` when it was edited since."""
    checkout = Path(__file__).parents[1]
    if not (checkout / ".git").exists():  # installed, perhaps inside somebody else's repository
        return None
    describe = ["describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"]
    try:
        described = subprocess.run(
            ["git", "-C", str(checkout), *describe],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()


@contextlib.contextmanager
def fatal() -> Iterator[None]:
    """Ctrl-C ends the process at once: for imports, some of which swallow KeyboardInterrupt."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in SIGNALS}
    raising = (signal.default_int_handler, Interrupt._handle)
    ours = {n: h for n, h in before.items() if getattr(h, "__func__", h) in raising}
    for number in ours:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN = 0.05
"""Seconds after which a signal comes again that would have been swallowed."""


class Interrupt(contextlib.AbstractContextManager):
    """Turns Ctrl-C, SIGTERM and SIGHUP into a wish inside `deferred()`, and an exception elsewhere.

    Where Python swallows an exception, as in callbacks of the garbage collector, the signal comes
    again a little later, and `check` need not wait for that. The second signal is an exception,
    unless it is SIGHUP. What the process was started to ignore, as SIGHUP under nohup, stays
    ignored. Outside the main thread, where Python delivers no signals, nothing changes.

    Attributes:
        requested: whether a signal came.
    """

    def __init__(self):
        self.requested = False
        self._depth = 0
        self._number = 0
        self._old = {}
        self._again = 0
        """A signal that comes again, for it was swallowed."""
        self._hook = sys.unraisablehook

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._old[number] = signal.signal(number, self._handle)
            self._hook, sys.unraisablehook = sys.unraisablehook, self._swallowed
        return self

    def __exit__(self, *exception) -> None:
        self._again = 0
        if sys.unraisablehook == self._swallowed:  # else somebody's that calls it, who stays
            sys.unraisablehook = self._hook
        for number, handler in self._old.items():
            # None: it was not set from Python, and cannot be set back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._old = {}

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
        first, self.requested = not self.requested or self._again == number, True
        self._number, self._again = number, 0
        # A terminal that is closed may say so twice: once itself, and once through its shell.
        wish = self._depth and (first or number == signal.SIGHUP)
        if wish and first:
            _tell("\nbvae: interrupted; finishing these steps and saving. Once more stops at once.")
        if not wish:
            raise KeyboardInterrupt

    def _swallowed(self, ignored: Any) -> None:
        """What Python calls with an exception that it swallows."""
        if not issubclass(ignored.exc_type, KeyboardInterrupt):
            self._hook(ignored)
        elif self.requested and self._old:
            self._again = self._number
            _thread.start_new_thread(self._send_again, ())  # no locks: any of them may be held

    def _send_again(self) -> None:
        time.sleep(AGAIN)
        if self._again:
            signal.pthread_kill(threading.main_thread().ident or 0, self._again)


def _tell(line: str) -> None:
    """Write a line to stderr; a terminal that is gone is no reason to fail, now or later."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(null, stream)


QUIET_SECONDS = 30
"""Between lines of progress where the output is a file and not a terminal."""


def bar(**options: Any) -> "tqdm":
    """A progress bar, which speaks seldom where nobody watches."""
    from tqdm.auto import tqdm  # not all commands show one

    watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    return tqdm(mininterval=0.2 if watched else QUIET_SECONDS, dynamic_ncols=True, **options)


class Clock:
    """How long a run took.

    Args:
        batch_size: images in a step.
        earlier: what `times` gave when the run was last saved.
    """

    def __init__(self, batch_size: int, earlier: Mapping[str, Any] = {}):
        self._batch_size = batch_size
        self._earlier = earlier
        self._begin = self._chunk_begin = time.monotonic()
        self._chunks: list[tuple[int, float]] = []

    def times(self) -> dict[str, Any]:
        """`wall_seconds` over all sessions of the run, and `images_per_second` of the last.

        The latter is of training alone, without the first chunk, which compiles, if there are
        others.
        """
        counted = self._chunks[1:] or self._chunks
        seconds = sum(seconds for _, seconds in counted)
        rate = self._batch_size * sum(n for n, _ in counted) / seconds if counted else None
        return {
            "images_per_second": rate or self._earlier.get("images_per_second"),
            "wall_seconds": self._earlier.get("wall_seconds", 0.0) + time.monotonic() - self._begin,
        }

    def begin_chunk(self) -> None:
        """Training starts, or goes on after an evaluation or a save."""
        self._chunk_begin = time.monotonic()

    def end_chunk(self, steps: int) -> None:
        """`steps` more are done, and the next are being computed."""
        begin, self._chunk_begin = self._chunk_begin, time.monotonic()
        self._chunks.append((steps, self._chunk_begin - begin))


class TrainingProgress(contextlib.AbstractContextManager):
    """A bar over steps.

    Args:
        steps: in all.
        start: steps done before.
        visible: show the bar.
    """

    def __init__(self, steps: int, start: int, visible: bool):
        self._known: dict[str, str] = {}
        self._bar = bar(total=steps, initial=start, unit="step", desc="train", disable=not visible)

    def __exit__(self, *exception) -> None:
        self._bar.close()

    def update(self, steps: int, means: Mapping[str, Any], rate: float) -> None:
        """`steps` more are done.

        Args:
            means: their metrics.
            rate: images per second.
        """
        numbers = {
            "images/s": f"{rate:.0f}",
            "nll": f"{means['nll']:.1f}",
        }
        if "kl" in means:
            numbers["kl"] = f"{means['kl']:.2f}"
        self._known |= numbers
        self._bar.set_postfix(self._known, refresh=False)
        self._bar.update(steps)

    def evaluated(self, evaluation: Mapping[str, Any], faults: Iterable[str] = ()) -> None:
        """Show how many latents are active, which one evaluation after another says, and faults.

        Args:
            evaluation: the newest; empty before the first.
            faults: in a few words each.
        """
        known = dict(self._known)
        if "active_latents" in evaluation:
            latents = len(evaluation["kl_per_latent"])
            known["active"] = f"{evaluation['active_latents']}/{latents} at {evaluation['step']}"
        if faults := ", ".join(faults):
            known["warning"] = faults
        if known != self._known:
            self._known = known
            self._bar.set_postfix(known)


class SweepProgress(TrainingProgress):
    """A bar over the steps of all members, and once a line that says how long it will take.

    Args:
        steps: of all members that are to be trained.
    """

    def __init__(self, steps: int, *, visible: bool):
        super().__init__(steps, 0, visible)
        self._left, self._chunks, self._since = steps, 0, time.monotonic()

    def begin(self, names: Sequence[str], start: int) -> None:
        """These members are trained next, from step `start`."""
        others = f" and {len(names) - 1} others" if len(names) > 1 else ""
        self._bar.set_description_str(f"{names[0]}{others}", refresh=False)
        self._known = {}
        self._bar.total -= start * len(names)
        self._left -= start * len(names)

    def update(self, steps: int, means: Mapping[str, Any], rate: float) -> None:
        super().update(steps, means, rate)
        self._left -= steps
        self._chunks += 1
        if self._chunks == 1:  # it compiled: the next one tells how long steps take
            self._since = time.monotonic()
        elif self._chunks == 2:
            seconds = self._left / steps * (time.monotonic() - self._since)
            left = f"the {self._left:,} steps left, evaluations apart"
            self.say(f"about {_duration(seconds)} for {left}")

    def say(self, message: str) -> None:
        """A line above the bar."""
        if not self._bar.disable:
            self._bar.write(printable(f"bvae: {message}"), file=sys.stderr)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
