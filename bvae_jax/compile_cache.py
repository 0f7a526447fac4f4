"""Compiled programs kept on disk: the next process that needs one does not compile it again."""

import hashlib
import os
import platform
from collections.abc import MutableMapping
from pathlib import Path

DIRECTORY = "JAX_COMPILATION_CACHE_DIR"
LEAST_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


def set_default(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let JAX, which is not imported yet, use the user's cache, if it is told nothing else."""
    environment.setdefault(DIRECTORY, str(default_directory()))
    environment.setdefault(LEAST_SECONDS, "0")


def use(where: str | None) -> None:
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


def default_directory() -> Path:
    """In the user's cache directory, apart for each kind of processor: programs for a CPU use the
    instructions of the one on which they were compiled."""
    return user_cache() / f"compiled-{_processor()}"


def user_cache() -> Path:
    """`$BVAE_CACHE_DIR`, or the user's cache directory."""
    root = os.environ.get("BVAE_CACHE_DIR")
    if not root:
        import platformdirs  # of all packages the only one that this needs, so only where it does

        root = platformdirs.user_cache_dir("bvae_jax")
    return Path(root).expanduser()


def _processor() -> str:
    """A short name for what instructions this machine has."""
    described = [platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        described += sorted({line for line in lines if line.startswith(("flags", "Features"))})
    except OSError:
        pass  # not on Linux
    return hashlib.sha256("\n".join(described).encode()).hexdigest()[:8]
