"""The benchmark from beginning to end, from Python."""

import dataclasses
import importlib.util
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import startup
from benchmarks.architecture import architecture, least_work
from benchmarks.contenders import Cast, Contender, Machine, available_cores
from benchmarks.pool import Process, WorkerError, take_turns, turns
from benchmarks.settings import Settings
from bvae_jax.data import get_dataset
from bvae_jax.errors import UserError, unknown
from bvae_jax.networks import NETWORKS
from bvae_jax.progress import bar
from bvae_jax.runs import rundir
from bvae_jax.runtime import Interrupt, git_commit, versions

PACKAGES = (*rundir.PACKAGES, "torch")
STARTUP_ROUNDS = 2
DEFAULT = Settings()


def benchmark(
    settings: Settings = DEFAULT, *, json: str | Path | None = None, progress: bool = True
) -> dict[str, Any]:
    """Measure what `settings` says.

    Ctrl-C or SIGTERM ends it early, and what was measured so far is returned, with `interrupted`.

    Args:
        json: where the report goes too, after each part.
        progress: show a bar.

    Returns:
        The report: `machine`, `settings`, `least` (the work that a step cannot do without), and by
        part and contender the seconds of each round and what else is known; see `tables.markdown`.

    Raises:
        UserError: PyTorch is wanted but not installed, has no twin of the network, or JAX does not
            start.
    """
    settings = settings.quickened()
    image_shape = _image_shape(settings)
    layers = _layers(settings, image_shape)
    report: dict[str, Any] = {"settings": dataclasses.asdict(settings), "parts": {}}
    with Interrupt(), tempfile.TemporaryDirectory() as cache:
        # Contenders that run the same program compile it once; no time of a turn contains that.
        environment = {
            "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", cache)
        }
        try:
            machine = _machine(settings, environment)
            report["machine"] = _provenance(settings, machine)
            report["least"] = layers and least_work(
                layers, image_shape, settings.batch_size,
                activation_bytes=2 if settings.precision == "bfloat16" else 4,
            )._asdict()  # fmt: skip
            cast = Cast(settings, machine, layers and layers._asdict(), image_shape)
            _measure(settings, cast, report, environment, json, progress)
        except KeyboardInterrupt:
            report["interrupted"] = True
    add_medians(report)
    if json:
        rundir.write_json(Path(json), report)
    return report


def _measure(
    settings: Settings,
    cast: Cast,
    report: dict[str, Any],
    environment: dict[str, str],
    json: str | Path | None,
    progress: bool,
) -> None:
    parts = cast.parts()
    starts = (1 if settings.quick else STARTUP_ROUNDS) if "startup" in settings.parts else 0
    total = sum(turns(who, settings.rounds) for who in parts.values())
    total += starts * len(startup.CASES)
    with bar(total=total, desc="benchmark", unit="turn", disable=not progress) as shown:

        def advance(name: str) -> None:
            shown.set_postfix_str(name, refresh=False)
            shown.update()

        for part, contenders in parts.items():
            found = report["parts"][part] = {}
            take_turns(
                contenders, settings.rounds, found, environment=environment, advance=advance,
                profile=settings.profile, patience=settings.patience,
            )  # fmt: skip
            if json:
                rundir.write_json(Path(json), report)
        if starts:
            found = report["parts"]["startup"] = {}
            startup.measure(settings, starts, found, advance=advance)


def add_medians(report: dict[str, Any]) -> None:
    """Beside each contender's rounds: `median_seconds_per_<unit>`."""
    for part in report["parts"].values():
        for entry in part.values():
            for name in [name for name in entry if name.startswith("seconds")]:
                if entry[name]:
                    entry[f"median_{name}"] = statistics.median(entry[name])


def _image_shape(settings: Settings) -> tuple[int, int, int]:
    height, width, channels = get_dataset(settings.config().dataset).image_shape
    return height, width, settings.channels * channels


def _layers(settings: Settings, image_shape: tuple[int, int, int]):
    """The network's table, where it has one; PyTorch cannot do without."""
    if "torch" in settings.peer and importlib.util.find_spec("torch") is None:
        raise UserError(
            "--peer torch: got no PyTorch here, wanted version 2.6 or later: install the extra "
            "bench, or leave the flag out."
        )
    if settings.network not in NETWORKS:
        raise unknown("network", settings.network, NETWORKS)
    try:
        return architecture(settings.network, settings.latents, image_shape)
    except UserError:
        if "torch" in settings.peer:
            raise
        return None


def _machine(settings: Settings, environment: dict[str, str]) -> Machine:
    """What JAX finds here, by a process that is gone before anything is timed."""
    probe = Contender("machine", "machine", "", {}, settings.threads or available_cores())
    try:
        with Process(probe, environment, settings.patience) as process:
            process.begin_build()
            process.end_build()
            facts = process.ask("facts")
    except WorkerError as error:
        raise UserError(f"JAX does not start here: {error}.") from None
    return Machine(facts["platform"], facts["device"], facts["devices"])


def _provenance(settings: Settings, machine: Machine) -> dict[str, Any]:
    on_cpu = {"device": _cpu_model()} if machine.platform == "cpu" else {}
    return (
        machine._asdict()
        | on_cpu
        | {
            "cores": settings.threads or available_cores(),
            "cpu_count": os.cpu_count(),
            "load_average": os.getloadavg()[0],
            "machine": platform.platform(),
            "python": platform.python_version(),
            "versions": versions(PACKAGES),
            "git_commit": git_commit(),
            "command": sys.argv,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
    )


def _cpu_model() -> str:
    """As Linux names it, which JAX does not."""
    try:
        names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "CPU"
