"""The benchmark from beginning to end, from Python."""

import dataclasses
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.architecture import Architecture, architecture, least_work
from benchmarks.contenders import Cast, Contender, Machine, available_cores
from benchmarks.pool import take_turns
from benchmarks.settings import Settings
from bvae_jax.data import get_dataset
from bvae_jax.errors import UserError, needs
from bvae_jax.files import write_json
from bvae_jax.runs.rundir import PACKAGES
from bvae_jax.runtime import Interrupt, git_commit, versions
from bvae_jax.types import ImageShape

STARTS = 3
"""Rounds of start-up at most: one takes many seconds."""


def benchmark(
    settings: Settings | None = None, *, json: str | Path | None = None
) -> dict[str, Any]:
    """Measure what `settings` says; what is being measured is said on stderr.

    Ctrl-C or SIGTERM ends it early, and what was measured so far is returned, with `interrupted`.

    Args:
        json: where the report goes too, after each part.

    Returns:
        The report: `machine`, `settings`, `least` (the work that a step cannot do without), and by
        part and contender the seconds of each round and what else is known; see `tables.markdown`.

    Raises:
        UserError: PyTorch is wanted but not installed, has no twin of the network, or JAX does not
            start.
    """
    settings = (settings or Settings()).quickened()
    image_shape = get_dataset(settings.dataset).image_shape
    layers = _layers(settings, image_shape)
    report: dict[str, Any] = {"settings": dataclasses.asdict(settings), "parts": {}}
    # Contenders that run the same program compile it once; no time of a turn contains that.
    with Interrupt(), tempfile.TemporaryDirectory() as cache:
        shared = {
            "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", cache),
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # they share an accelerator
        }
        try:
            machine = _machine(settings)
            report["machine"] = _provenance(settings, machine)
            report["least"] = layers and least_work(
                layers, image_shape, settings.batch_size,
                activation_bytes=2 if settings.precision == "bfloat16" else 4,
            )._asdict()  # fmt: skip
            peer = layers._asdict() if layers and settings.torch else None
            cast = Cast(settings, machine, peer, image_shape)
            for part, contenders in cast.parts().items():
                print(f"{part}: {', '.join(one.name for one in contenders)}", file=sys.stderr)
                found = report["parts"][part] = {}
                rounds = min(settings.rounds, STARTS) if part == "startup" else settings.rounds
                contenders = [
                    one._replace(environment={**shared, **one.environment}) for one in contenders
                ]
                take_turns(contenders, rounds, found, patience=settings.patience)
                _keep(report, json)
        except KeyboardInterrupt:
            report["interrupted"] = True
    add_medians(report)
    _keep(report, json)
    return report


def _keep(report: dict[str, Any], path: str | Path | None) -> None:
    if path:
        write_json(Path(path).expanduser(), report)


def add_medians(report: dict[str, Any]) -> None:
    """Beside each contender's rounds: `median_seconds_per_<unit>`."""
    for part in report["parts"].values():
        for entry in part.values():
            for name in [name for name in entry if name.startswith("seconds")]:
                if entry[name]:
                    entry[f"median_{name}"] = statistics.median(entry[name])


def _layers(settings: Settings, image_shape: ImageShape) -> Architecture | None:
    """The network's table, where it has one; PyTorch cannot do without."""
    if settings.torch:
        needs("torch", "bench", "--torch")
    try:
        return architecture(settings.network, settings.latents, image_shape)
    except UserError as error:
        if settings.torch or "twin" not in str(error):
            raise
        return None


def _machine(settings: Settings) -> Machine:
    """What JAX finds here, by a process that is gone before anything is timed."""
    cores, found = settings.threads or available_cores(), {}
    probe = Contender("machine", "tasks:machine", "", {}, cores)
    take_turns([probe], 0, found, patience=settings.patience)
    if "error" in found["machine"]:
        raise UserError(f"JAX does not start here: {found['machine']['error']}.")
    return Machine(*(found["machine"][name] for name in Machine._fields))


def _provenance(settings: Settings, machine: Machine) -> dict[str, Any]:
    names = []
    if machine.platform == "cpu" and Path("/proc/cpuinfo").exists():  # which JAX does not name
        names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return machine._asdict() | {
        "device": names[0] if names else machine.device,
        "cores": settings.threads or available_cores(),
        "cpu_count": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "machine": platform.platform(),
        "python": platform.python_version(),
        "versions": versions((*PACKAGES, "torch")),
        "git_commit": git_commit(),
        "command": sys.argv,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
