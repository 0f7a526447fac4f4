"""Seconds from the start of a fresh `bvae train` to its first step."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.pool import end, worker_environment
from benchmarks.settings import Settings
from benchmarks.worker import peak_host_bytes

CASES = ("empty cache", "filled cache")


def measure(
    settings: Settings,
    rounds: int,
    found: dict[str, Any],
    *,
    advance: Callable[[str], None] = lambda name: None,
) -> None:
    """Start `bvae train` with an empty compilation cache, then with the one that it filled.

    Args:
        found: filled as it goes: case -> `seconds` of each round, or `error`.
    """
    for case in CASES:
        found[case] = {"seconds": [], "peak_host_bytes": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for case in CASES:
                _begin_once(settings, Path(folder), case, found[case])
                advance(case)


def _begin_once(settings: Settings, folder: Path, case: str, found: dict[str, Any]) -> None:
    run_dir, errors = folder / case, folder / "errors"
    with errors.open("wb") as stderr:
        begin = time.perf_counter()
        process = subprocess.Popen(
            [*_command(settings), "--run-dir", str(run_dir)],
            env=worker_environment({"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}),
            stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, start_new_session=True,
        )  # fmt: skip
        try:
            if _has_stepped(process, run_dir / "metrics.jsonl", begin + settings.patience):
                found["seconds"].append(time.perf_counter() - begin)
                found["peak_host_bytes"].append(peak_host_bytes(process.pid))
                return
        finally:
            end(process)
    lines = errors.read_text(errors="replace").strip().splitlines()
    found["error"] = lines[-1] if lines else f"no step in {settings.patience} s"


def _has_stepped(process: subprocess.Popen, records: Path, deadline: float) -> bool:
    """Wait for the first record; False if the process ends before, or time does."""
    while process.poll() is None and time.perf_counter() < deadline:
        if records.exists() and records.stat().st_size:
            return True
        time.sleep(0.005)
    return False


def _command(settings: Settings) -> list[str]:
    """A run that never ends by itself, and records each step."""
    config = settings.config()
    flags = {
        "network": config.network,
        "batch-size": config.batch_size,
        "latents": config.latents,
        "precision": config.precision,
        "image-source": config.image_source,
        "steps": 10**9,
        "log-every": 1,
        "eval-every": 10**9,
        "checkpoint-every": 10**9,
    }
    parts = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    return [sys.executable, "-m", "bvae_jax", "train", "--quiet", *parts]
