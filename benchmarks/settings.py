"""What to measure. Imports no JAX."""

import dataclasses
from dataclasses import dataclass

from bvae_jax.config import Config
from bvae_jax.errors import UserError, unknown

PARTS = ("step", "batch", "encode", "sweep", "startup")
PEERS = ("torch", "xla")
STRATEGIES = ("sequential", "devices", "vmap")


@dataclass(frozen=True)
class Settings:
    """What is measured, how, and how often.

    Raises:
        UserError: a value is outside its range, or unknown.
    """

    network: str = "conv"
    """Network of all contenders: see bvae train --help."""
    batch_size: int = 64
    """Images in a batch."""
    latents: int = 10
    """Number of latents."""
    channels: int = 1
    """Channels of an image; with more than one each shows the same sprite."""
    precision: str = "float32"
    """What networks compute in."""
    image_source: str = "auto"
    """How images come to the device: rendered, resident or auto."""
    parts: tuple[str, ...] = PARTS
    """What to measure: step, batch, encode, sweep, startup."""
    peer: tuple[str, ...] = ()
    """Beside ours: torch (the same network in PyTorch), xla (XLA's own convolution gradients)."""
    members: tuple[int, ...] = (1, 2, 4)
    """Sizes of sweeps."""
    strategies: tuple[str, ...] = ()
    """Of sweeps: sequential, devices, vmap. If not given: all on a CPU, else vmap."""
    threads: int = 0
    """Cores that each contender may use. 0: all."""
    steps: int = 0
    """Steps that are started together. 0: 5 on a CPU, 50 (a record's) elsewhere."""
    rounds: int = 15
    """In each, every contender has its turn."""
    patience: int = 300
    """Seconds to wait for an answer: a contender that is not built by then is left out."""
    quick: bool = False
    """Few and small rounds, to see whether it works; its figures mean little."""
    profile: bool = False
    """Also list the ten operations of our step, and of vmapped ones, that take the most time."""

    def __post_init__(self) -> None:
        for name, value, known in (
            *(("part", part, PARTS) for part in self.parts),
            *(("peer", peer, PEERS) for peer in self.peer),
            *(("strategy", strategy, STRATEGIES) for strategy in self.strategies),
        ):
            if value not in known:
                raise unknown(name, value, known)
        names = ("channels", "rounds", "patience")
        counts = [(name, getattr(self, name)) for name in names]
        for name, value in (*counts, *(("members", count) for count in self.members)):
            if value < 1:
                raise UserError(f"--{name}: got {value}, wanted a whole number of at least 1.")
        for name in ("threads", "steps"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name}: got {getattr(self, name)}, wanted 0 or more.")
        self.config()

    def config(self) -> Config:
        """That of our runs."""
        names = ("network", "batch_size", "latents", "precision", "image_source")
        values = {name: getattr(self, name) for name in names}
        return Config(**values)

    def quickened(self) -> "Settings":
        """With fewer rounds, if `quick`."""
        if not self.quick:
            return self
        return dataclasses.replace(
            self, rounds=min(self.rounds, 3), steps=self.steps or 2, members=self.members[:2]
        )
