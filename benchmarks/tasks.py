"""What JAX's contenders do: the package's own functions, and the machine's rates."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from benchmarks.worker import Task
from bvae_jax.config import Config
from bvae_jax.data.sampling import make_draw, make_pick
from bvae_jax.runs.encode import encode_points
from bvae_jax.runs.placement import batches
from bvae_jax.runs.trainer import Trainer
from bvae_jax.step import step_keys, weights
from bvae_jax.types import TrainState


def machine() -> Task:
    """Nothing to do, but facts to tell."""
    device = jax.devices()[0]
    seen = {"platform": device.platform, "device": device.device_kind}
    return Task(lambda pieces: None, facts=lambda: seen | {"devices": jax.device_count()})


def train(config: Config, chunk: int, members: int, strategy: str) -> Task:
    """Steps of one run or of a sweep's members, as `bvae train` and `bvae sweep` do them."""
    trainer = Trainer(config, progress=False)
    turns = in_turn(trainer, members, strategy)

    def run(pieces: int) -> None:
        waiting: list[Callable] = []
        for _ in range(pieces):
            for turn in turns:  # the next is started before the host waits for the last
                waiting.append(turn.advance(chunk))
                if len(waiting) > 1:
                    waiting.pop(0)()
        waiting.pop()()

    def facts() -> dict[str, Any]:
        data = sum(leaf.nbytes for leaf in jax.tree.leaves(trainer.source.arrays))
        parameters = sum(leaf.size for leaf in jax.tree.leaves(trainer.init().params["vae"]))
        found = {**_device_memory(), "data_bytes": data, "parameters": parameters}
        return found | (_cost(trainer) if members == 1 else {})

    return Task(run, chunk * members, facts)


class Turn:
    """Members that are trained at the same time."""

    def __init__(self, trainer: Trainer, states: list[TrainState]):
        filled = (states * trainer.members)[: trainer.members]
        self._trainer, self._count = trainer, len(states)
        self._feed, self._states = trainer.feed(filled), trainer.stack(filled)

    def advance(self, steps: int) -> Callable[[], Any]:
        """Start to train; what is returned waits for the metrics of each."""
        self._states, means = self._trainer.train(self._states, self._feed, steps)
        return lambda: means()[: self._count]


def in_turn(trainer: Trainer, members: int, strategy: str) -> list[Turn]:
    """Members that are trained at the same time, in turn; each has its own seed and beta."""
    configs = [trainer.config.replace(seed=i, beta=1.0 + i) for i in range(members)]
    states = [trainer.init(config) for config in configs]
    devices = jax.devices()
    at_once = {"sequential": 1, "devices": len(devices)}.get(strategy, members)
    trainer = trainer.spread(at_once, devices if at_once > 1 else devices[:1])
    return [Turn(trainer, some) for some in batches(states, at_once)]


def _cost(trainer: Trainer) -> dict[str, Any]:
    """What the compiler counts in one step of one model."""
    if trainer.source.read:
        return {}
    step = jax.jit(trainer.make_body(), donate_argnums=0)
    cost = step.lower(trainer.init(), trainer.train_data).compile().cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost or {}
    return {"compiled_flop": cost.get("flops"), "compiled_bytes": cost.get("bytes accessed")}


def draw(config: Config) -> Task:
    """Batches from the data set, rendered or gathered on the device."""
    trainer = Trainer(config, progress=False)
    pool, _ = trainer.train_data
    make = jax.jit(make_draw(trainer.source, make_pick(pool, config.batch_size)))
    state = trainer.init()
    key = step_keys(state.key, state.step).batch
    return Task(_repeated(lambda: make(trainer.train_data, key)), 1, _device_memory)


def encode(config: Config, images: int) -> Task:
    """The data set's posteriors, as `bvae evaluate` makes them."""
    trainer = Trainer(config, progress=False)
    params, count = weights(trainer.init()), images or trainer.dataset.size

    def run(pieces: int) -> None:
        for _ in range(pieces):
            encode_points(trainer, params, count)

    return Task(run, count, _device_memory)


def matmul(side: int, precision: str) -> Task:
    """Products of large square matrices, in the precision of the networks."""
    dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    wanted = {"bfloat16": None, "tensorfloat32": "tensorfloat32"}.get(precision, "highest")
    a = jax.random.normal(jax.random.key(0), (side, side), dtype)

    @jax.jit
    def product(a: Float[Array, "side side"]) -> Float[Array, "side side"]:
        return jnp.matmul(a, a, precision=wanted)

    return Task(_repeated(lambda: product(a)), 2 * side**3)


def copy(size: int) -> Task:
    """A large array of `size` bytes read, and as much written."""
    source = jnp.zeros(size // 4)
    add = jax.jit(lambda x: x + 1)
    return Task(_repeated(lambda: add(source)), 2 * source.nbytes)


def _repeated(function: Callable[[], jax.Array]) -> Callable[[int], None]:
    """Start them all, and wait for the last."""

    def run(pieces: int) -> None:
        for _ in range(pieces - 1):
            function()
        jax.block_until_ready(function())

    return run


def _device_memory() -> dict[str, Any]:
    """Most of the device's memory that was in use; nothing is known of a CPU's."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    return {"peak_device_bytes": max(s.get("peak_bytes_in_use", 0) for s in stats) or None}
