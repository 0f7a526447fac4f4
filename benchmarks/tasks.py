"""What JAX's workers do: the package's own functions, and the machine's rates."""

import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from benchmarks.variants import in_colour, with_plain_convolutions
from benchmarks.worker import Task
from bvae_jax.config import Config
from bvae_jax.data.sampling import make_draw, make_pick
from bvae_jax.runs.encode import encode_points
from bvae_jax.runs.lanes import Lanes, OneLane, Together
from bvae_jax.runs.placement import batches
from bvae_jax.runs.program import Program, build
from bvae_jax.step import step_keys, weights

Options = Mapping[str, Any]


def machine(options: Options) -> Task:
    """Nothing to do, but facts to tell."""
    device = jax.devices()[0]
    seen = {"platform": device.platform, "device": device.device_kind}
    return Task(lambda pieces: None, 1, lambda: seen | {"devices": jax.device_count()})


def train(options: Options) -> Task:
    """Steps of one run or of a sweep's members, as `bvae train` and `bvae sweep` do them."""
    if options.get("plain"):
        with_plain_convolutions()
    program = _program(options)
    turns, chunk = _turns(program, options["members"], options["strategy"]), options["chunk"]

    def run(pieces: int) -> None:
        waiting: list[Callable] = []
        for _ in range(pieces):
            for lanes in turns:  # the next is started before the host waits for the last
                waiting.append(lanes.advance(chunk))
                if len(waiting) > 1:
                    waiting.pop(0)()
        waiting.pop()()

    def facts() -> dict[str, Any]:
        data = sum(leaf.nbytes for leaf in jax.tree.leaves(program.source.arrays))
        parameters = sum(leaf.size for leaf in jax.tree.leaves(program.init().params["vae"]))
        found = _device_memory() | {"data_bytes": data, "parameters": parameters}
        return found | (_cost(program) if options["members"] == 1 else {})

    def profile(directory: Path) -> list[dict[str, Any]]:
        # Read here: the profiler's modules take a while to import, which nobody else waits for.
        from benchmarks import traces

        traces.trace(directory, lambda: run(1))
        alone = options["members"] == 1  # else the program that runs is another
        names = traces.origins(_compiled_step(program).as_text()) if alone else {}
        return traces.largest(traces.read_events(directory), names)

    return Task(run, chunk * options["members"], facts, profile)


def draw(options: Options) -> Task:
    """Batches from the data set, rendered or gathered on the device."""
    config = options["config"] | {"image_source": options["source"]}
    program = _program({**options, "config": config})
    pool, _ = program.train_data
    make = jax.jit(make_draw(program.source, make_pick(pool, program.config.batch_size)))
    state = program.init()
    key = step_keys(state.key, state.step).batch

    return Task(_repeated(lambda: make(program.train_data, key)), 1, _device_memory)


def encode(options: Options) -> Task:
    """The data set's posteriors, as `bvae evaluate` makes them."""
    program = _program(options)
    params, count = weights(program.init()), options["images"] or program.dataset.size

    def run(pieces: int) -> None:
        for _ in range(pieces):
            encode_points(program, params, count)

    return Task(run, count, _device_memory)


def matmul(options: Options) -> Task:
    """Products of large square matrices, in the precision of the networks."""
    side, precision = options["side"], options["config"]["precision"]
    dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    a = jax.random.normal(jax.random.key(0), (side, side), dtype)

    @jax.jit
    def product(a: Float[Array, "side side"]) -> Float[Array, "side side"]:
        wanted = precision if precision == "tensorfloat32" else "highest"
        return jnp.matmul(a, a, precision=None if dtype == jnp.bfloat16 else wanted)

    return Task(_repeated(lambda: product(a)), 2 * side**3)


def copy(options: Options) -> Task:
    """A large array read, and as much written."""
    source = jnp.zeros(options["bytes"] // 4)
    add = jax.jit(lambda x: x + 1)
    return Task(_repeated(lambda: add(source)), 2 * source.nbytes)


def _repeated(function: Callable[[], jax.Array]) -> Callable[[int], None]:
    """Start them all, and wait for the last."""

    def run(pieces: int) -> None:
        for _ in range(pieces - 1):
            function()
        jax.block_until_ready(function())

    return run


def _program(options: Options) -> Program:
    config = dict(options["config"])
    if options["channels"] > 1:
        config["dataset"] = in_colour(config["dataset"], options["channels"])
    return build(Config(**config), progress=False)


def _turns(program: Program, members: int, strategy: str) -> list[Lanes]:
    """Members that are trained at the same time, in turn."""
    configs = [{"seed": seed, "beta": 1.0 + seed} for seed in range(members)]
    states = [program.of(Config(**program.config.to_dict() | c)).init() for c in configs]
    if strategy == "sequential":
        return [OneLane(program, state) for state in states]
    devices = jax.devices()
    at_once = len(devices) if strategy == "devices" else members
    together = Together(program, at_once, devices)
    return [together.start(some, range(len(some))) for some in batches(states, at_once)]


def _compiled_step(program: Program) -> Any:
    step = jax.jit(program.make_body(), donate_argnums=0)
    return step.lower(program.init(), program.train_data).compile()


def _cost(program: Program) -> dict[str, Any]:
    """What the compiler counts in one step of one model."""
    cost = _compiled_step(program).cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost or {}
    return {"compiled_flop": cost.get("flops"), "compiled_bytes": cost.get("bytes accessed")}


def _device_memory() -> dict[str, Any]:
    """Most of the device's memory that was in use; nothing is known of a CPU's."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = list(map(operator.methodcaller("get", "peak_bytes_in_use"), stats))
    known = [peak for peak in peaks if peak is not None]
    return {"peak_device_bytes": max(known, default=None)}
