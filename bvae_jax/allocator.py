"""Keep the memory that a step frees for the next step, on Linux."""

import ctypes
import sys

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
