"""Who takes part: for each part of the benchmark, the processes that take turns."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from benchmarks.settings import Settings


class Contender(NamedTuple):
    """A process that builds something and then does it whenever it is told.

    Attributes:
        task: a name in `worker.TASKS`, called with `options`, which are JSON.
        unit: what its work is counted in: "step" of one model, "batch", "image", "flop", "byte".
        cores: that it may use.
        keep_memory: freed memory is kept, see `bvae_jax.runtime`.
        environment: its own variables.
        compiles_beside: it is built at the same time as others that are, for it takes long and its
            compiler measures nothing.
        profiled: worth a profile.
    """

    name: str
    task: str
    unit: str
    options: Mapping[str, Any]
    cores: int
    keep_memory: bool = True
    environment: Mapping[str, str] = {}
    compiles_beside: bool = False
    profiled: bool = False


class Machine(NamedTuple):
    """Where it runs, as JAX sees it."""

    platform: str
    device: str
    devices: int


OURS = "bvae_jax"
MATMUL, COPY = "matrix product", "copy"


class Cast:
    """All contenders under the same settings.

    Args:
        layers: of the network, for PyTorch; None if it takes no part.
        image_shape: height, width, channels.
    """

    def __init__(
        self,
        settings: Settings,
        machine: Machine,
        layers: Mapping[str, Any] | None,
        image_shape: tuple[int, int, int],
    ):
        self._settings, self._layers = settings, layers
        height, width, channels = image_shape
        self._image = [channels, height, width]
        self._on_cpu = machine.platform == "cpu"
        self._cores = settings.threads or available_cores()
        self._devices = self._cores if self._on_cpu else machine.devices
        self._options = {
            "config": settings.config().to_dict(),
            "channels": settings.channels,
            "chunk": settings.steps or (5 if self._on_cpu else 50),
        }

    def parts(self) -> dict[str, list[Contender]]:
        """Part of the benchmark -> who takes turns in it."""
        found = {
            "step": [*self._machine_rates(), *self._training(), *self._peers("train", "step")],
            "batch": [self._ours(kind, "draw", "batch", source=kind) for kind in self._sources()],
            "encode": [self._encode(), *self._peers("encode", "image")],
            "sweep": self._sweeps(),
        }
        return {part: who for part, who in found.items() if part in self._settings.parts}

    def _ours(self, name: str, task: str, unit: str, **options: Any) -> Contender:
        return Contender(name, task, unit, {**self._options, **options}, self._cores)

    def _machine_rates(self) -> list[Contender]:
        side, megabytes = (2048, 256) if self._on_cpu else (8192, 2048)
        if self._settings.quick:
            side, megabytes = 512, 16
        return [
            self._ours(MATMUL, "matmul", "flop", side=side),
            self._ours(COPY, "copy", "byte", bytes=megabytes * 10**6),
        ]

    def _training(self) -> list[Contender]:
        ours = self._ours(OURS, "train", "step", members=1, strategy="sequential")
        found = [ours._replace(profiled=True)]
        if self._on_cpu:
            found.append(ours._replace(name=f"{OURS}, default malloc", keep_memory=False))
        if "xla" in self._settings.peer:
            options = {**ours.options, "plain": True}
            found.append(ours._replace(name=f"{OURS}, XLA's gradients", options=options))
        return found

    def _encode(self) -> Contender:
        images = 256 if self._settings.quick else 8192 if self._on_cpu else 0
        return self._ours(OURS, "encode", "image", images=images)

    def _peers(self, task: str, unit: str) -> list[Contender]:
        """PyTorch as a user gets it, with our malloc, and as fast as it can be made."""
        if "torch" not in self._settings.peer:
            return []
        settings = self._settings
        options = {
            "layers": self._layers,
            "batch_size": settings.batch_size,
            "image": self._image,
            "precision": settings.precision,
            "learning_rate": settings.config().learning_rate,
            "chunk": self._options["chunk"],
            "cores": self._cores,
        }
        modes = ["eager", "compile"] if self._on_cpu else ["eager", "compile", "cudagraph"]
        if task == "train" and not self._on_cpu:
            modes.append("reduce-overhead")
        found = [
            Contender(
                f"PyTorch {mode}", f"torch_{task}", unit, {**options, "mode": mode}, self._cores,
                keep_memory=False, compiles_beside=not self._on_cpu,
            )
            for mode in modes
        ]  # fmt: skip
        if self._on_cpu:
            found.insert(1, found[0]._replace(name="PyTorch eager, our malloc", keep_memory=True))
        return found

    def _sources(self) -> list[str]:
        return ["resident", "rendered"]

    def _sweeps(self) -> list[Contender]:
        chosen = self._settings.strategies
        chosen = chosen or (("sequential", "devices", "vmap") if self._on_cpu else ("vmap",))
        found = []
        if self._on_cpu and self._cores > 1:
            one = self._ours("1 member on one core", "train", "step")
            options = {**one.options, "members": 1, "strategy": "sequential"}
            found.append(one._replace(options=options, cores=1))
        for members in self._settings.members:
            for strategy in chosen if members > 1 else ("sequential",):
                if strategy != "devices" or self._devices > 1:
                    found.append(self._sweep(members, strategy))
        return found

    def _sweep(self, members: int, strategy: str) -> Contender:
        on = f" ({self._devices})" if strategy == "devices" else ""
        one = self._ours(
            f"{strategy}{on}, {members}", "train", "step", members=members, strategy=strategy
        )
        if strategy == "devices" and self._on_cpu:
            return one._replace(environment={"JAX_NUM_CPU_DEVICES": str(self._devices)})
        return one._replace(profiled=strategy == "vmap")


def available_cores() -> int:
    """That this process may use."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1
