"""A fresh process until the first record of its run."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.worker import Task, peak_host_bytes
from bvae_jax.config import Config

COMMAND = """
import json, sys, bvae_jax
bvae_jax.train(bvae_jax.Config(**json.loads(sys.argv[1])), sys.argv[2], progress=False)
"""
FOREVER = {"steps": 10**9, "log_every": 1, "eval_every": 10**9, "checkpoint_every": 10**9}
"""A run that records each step, and never ends by itself."""


def start(config: Config, empty: bool, command: str = COMMAND) -> Task:
    """Start a run, and end it when it has recorded its first step.

    Args:
        empty: with an empty compilation cache, else with this process's.
    """
    values = json.dumps(config.to_dict() | FOREVER)

    def run(pieces: int) -> None:
        for _ in range(pieces):
            with tempfile.TemporaryDirectory() as folder:
                cache = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"} if empty else {}
                _begin([sys.executable, "-c", command, values, f"{folder}/run"], cache)

    return Task(run, facts=lambda: {"peak_host_bytes": peak_host_bytes(resource.RUSAGE_CHILDREN)})


def _begin(command: list[str], environment: dict[str, str]) -> None:
    records, errors = Path(command[-1]) / "metrics.jsonl", Path(command[-1] + ".err")
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=stderr, stderr=stderr
        )
    try:
        while not (records.exists() and records.stat().st_size):
            if process.poll() is not None:
                raise RuntimeError((errors.read_text().strip().splitlines() or ["no record"])[-1])
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
