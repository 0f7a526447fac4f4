"""What is measured. Imports no JAX."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from bvae_jax.config import Config
from bvae_jax.errors import UserError

PARTS = ("step", "batch", "encode", "sweep", "startup")
STRATEGIES = ("sequential", "devices", "vmap")


def _option(default: Any, help: str, **more: Any) -> Any:
    """A field, and what argparse is told of it."""
    return dataclasses.field(default=default, metadata={"help": help, **more})


@dataclass(frozen=True)
class Settings:
    """What is measured, how, and how often.

    Raises:
        UserError: a value is outside its range.
    """

    parts: tuple[str, ...] = _option(PARTS, "what to measure", choices=PARTS, nargs="+")
    dataset: str = _option("dsprites", "color_dsprites has three channels")
    network: str = _option("conv", "of all contenders: bvae train --help")
    batch_size: int = _option(64, "images in a batch")
    latents: int = _option(10, "number of latents")
    precision: str = _option("float32", "what networks compute in")
    image_source: str = _option("auto", "rendered, resident, streamed or auto")
    torch: bool = _option(False, "beside ours, the same network in PyTorch")
    members: tuple[int, ...] = _option((1, 2, 4), "sizes of sweeps", nargs="+")
    strategies: tuple[str, ...] = _option(
        (), "of sweeps; if not given, all on a CPU, else vmap", choices=STRATEGIES, nargs="+"
    )
    threads: int = _option(0, "cores that each contender may use; 0: all")
    steps: int = _option(0, "steps that are started together; 0: 5 on a CPU, 50 elsewhere")
    rounds: int = _option(15, "in each, every contender has its turn")
    patience: int = _option(300, "seconds; what is not built by then is left out")
    quick: bool = _option(False, "3 small rounds, to see whether it works")

    def __post_init__(self) -> None:
        least = {"rounds": 1, "patience": 1, "threads": 0, "steps": 0}
        counts = [(name, getattr(self, name), few) for name, few in least.items()]
        for name, value, few in (*counts, *(("members", count, 1) for count in self.members)):
            if value < few:
                raise UserError(f"--{name}: got {value}, wanted a whole number of at least {few}.")
        self.config()

    def config(self, **changes: Any) -> Config:
        """That of our runs."""
        names = ("dataset", "network", "batch_size", "latents", "precision", "image_source")
        return Config(**{name: getattr(self, name) for name in names} | changes)

    def quickened(self) -> "Settings":
        """With fewer rounds, if `quick`."""
        if not self.quick:
            return self
        rounds, steps = min(self.rounds, 3), self.steps or 2
        return dataclasses.replace(self, rounds=rounds, steps=steps, members=self.members[:2])
