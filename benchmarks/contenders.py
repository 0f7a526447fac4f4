"""Who takes part: for each part of the benchmark, the processes that take turns."""

import importlib.util
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from benchmarks.settings import STRATEGIES, Settings
from benchmarks.worker import Contender

OURS, MATMUL, COPY = "bvae_jax", "matrix product", "copy"


class Machine(NamedTuple):
    """Where it runs, as JAX sees it."""

    platform: str
    device: str
    devices: int


def available_cores() -> int:
    """That this process may use."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1


class Cast:
    """All contenders under the same settings.

    Args:
        layers: of the network, for PyTorch; None where it takes no part.
        image_shape: height, width, channels.
    """

    def __init__(
        self,
        settings: Settings,
        machine: Machine,
        layers: Mapping[str, Any] | None = None,
        image_shape: tuple[int, int, int] = (64, 64, 1),
    ):
        self._settings, self._layers, self._image_shape = settings, layers, image_shape
        self._on_cpu = machine.platform == "cpu"
        self._cores = settings.threads or available_cores()
        self._devices = self._cores if self._on_cpu else machine.devices
        self._chunk = settings.steps or (5 if self._on_cpu else 50)

    def parts(self) -> dict[str, list[Contender]]:
        """Part of the benchmark -> who takes turns in it."""
        makers = {
            "step": self._step, "batch": self._batch, "encode": self._encode, "sweep": self._sweep,
            "startup": self._startup,
        }  # fmt: skip
        return {part: make() for part, make in makers.items() if part in self._settings.parts}

    def _ours(self, name: str, task: str, unit: str, **options: Any) -> Contender:
        return Contender(name, f"tasks:{task}", unit, options, self._cores)

    def _train(self, name: str, members: int = 1, strategy: str = "sequential", **changes: Any):
        config = self._settings.config(**changes)
        options = {"chunk": self._chunk, "members": members, "strategy": strategy}
        return self._ours(name, "train", "step", config=config, **options)

    def _step(self) -> list[Contender]:
        side, megabytes = (2048, 256) if self._on_cpu else (8192, 2048)
        if self._settings.quick:
            side, megabytes = 512, 16
        precision = self._settings.precision
        ours = self._train(OURS)
        found = [
            self._ours(MATMUL, "matmul", "flop", side=side, precision=precision),
            self._ours(COPY, "copy", "byte", size=megabytes * 10**6),
            ours,
        ]
        if self._on_cpu:
            found.append(ours._replace(name=f"{OURS}, default malloc", keep_memory=False))
        return found + self._torch("train", "step")

    def _batch(self) -> list[Contender]:
        found = [
            self._ours(kind, "draw", "batch", config=self._settings.config(image_source=kind))
            for kind in ("resident", "rendered")
        ]
        kinds = ["resident", "streamed"] if importlib.util.find_spec("grain") else []
        return found + [self._train(f"a step, {kind}", image_source=kind) for kind in kinds]

    def _encode(self) -> list[Contender]:
        images = 256 if self._settings.quick else 8192 if self._on_cpu else 0
        ours = self._ours(OURS, "encode", "image", config=self._settings.config(), images=images)
        return [ours, *self._torch("encode", "image")]

    def _torch(self, task: str, unit: str) -> list[Contender]:
        """PyTorch as a user gets it, with our malloc, and as fast as it can be made."""
        if not self._layers:
            return []
        options = {
            "layers": self._layers,
            "image_shape": self._image_shape,
            "batch_size": self._settings.batch_size,
            "precision": self._settings.precision,
            "chunk": self._chunk,
            "cores": self._cores,
        }
        modes = ["eager", "compile"] if self._on_cpu else ["eager", "compile", "cudagraph"]
        found = [
            Contender(
                f"PyTorch {mode}", f"torch_peer:{task}", unit, {**options, "mode": mode},
                self._cores, keep_memory=False, beside=not self._on_cpu,
            )
            for mode in modes
        ]  # fmt: skip
        if self._on_cpu:
            found.insert(1, found[0]._replace(name="PyTorch eager, our malloc", keep_memory=True))
        return found

    def _startup(self) -> list[Contender]:
        config, found = self._settings.config(), []
        for name, empty in (("empty cache", True), ("filled cache", False)):
            options = {"config": config, "empty": empty}
            found.append(Contender(name, "starts:start", "start", options, self._cores))
        return found

    def _sweep(self) -> list[Contender]:
        strategies = self._settings.strategies or (STRATEGIES if self._on_cpu else ("vmap",))
        found = []
        if self._on_cpu and self._cores > 1:
            found.append(self._train("1 member on one core")._replace(cores=1))
        for members in self._settings.members:
            for strategy in strategies if members > 1 else ("sequential",):
                if strategy != "devices" or self._devices > 1:
                    found.append(self._member(members, strategy))
        return found

    def _member(self, members: int, strategy: str) -> Contender:
        if strategy != "devices":
            return self._train(f"{strategy}, {members}", members, strategy)
        one = self._train(f"devices ({self._devices}), {members}", members, strategy)
        devices = {"JAX_NUM_CPU_DEVICES": str(self._devices)} if self._on_cpu else {}
        return one._replace(environment=devices)
