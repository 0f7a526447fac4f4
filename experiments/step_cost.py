"""What a training step costs here, and what part of it is making the batch.

python experiments/step_cost.py [--network conv] [--batch-size 64] [--rounds 30] [--default-malloc]

Things are timed in turn, round after round, and medians are printed: on a shared machine only
ratios of things timed together mean something.
"""

import argparse
import time
from dataclasses import replace
from unittest import mock

import jax
import numpy as np

from bvae_jax import conv
from bvae_jax.allocator import keep_freed_memory
from bvae_jax.config import Config
from bvae_jax.data.base import make_draw
from bvae_jax.networks import layers
from bvae_jax.program import build
from bvae_jax.train import step_keys


def plain_down(x, kernel, stride):
    """XLA's own convolution, with the gradients that JAX derives."""
    return conv.down_by_convolution(conv._form(kernel, stride), x, kernel)


def plain_up(y, kernel, stride):
    return conv.up_by_convolution(conv._form(kernel, stride), y, kernel)


def training(config):
    """A function that does one step and waits for it."""
    program = build(config)
    state = program.init()

    def step():
        nonlocal state
        state, fetch = program.train(state, program.train_data, 1)
        fetch()

    return step


def drawing(config):
    """A function that makes one batch and waits for it."""
    program = build(config)
    draw = jax.jit(make_draw(program.source, config.batch_size))
    key = step_keys(program.init()).batch
    return lambda: jax.block_until_ready(draw(program.train_data, key))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="conv")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--default-malloc", action="store_true", help="leave malloc as it is")
    args = parser.parse_args()
    if jax.default_backend() == "cpu" and not args.default_malloc:
        keep_freed_memory()
    config = Config(network=args.network, batch_size=args.batch_size)
    with mock.patch.multiple(layers, conv_down=plain_down, conv_up=plain_up):
        plain = training(config)
        plain()  # traced while the plain convolutions are in place
    tasks = {
        "training step": training(config),
        "  the same with XLA's own convolution gradients": plain,
        "making the batch, gathered": drawing(replace(config, image_source="resident")),
        "making the batch, rendered": drawing(replace(config, image_source="rendered")),
    }
    seconds = {name: [] for name in tasks}
    for round_ in range(args.rounds + 2):
        for name, task in tasks.items():
            begin = time.perf_counter()
            task()
            if round_ >= 2:  # the first two compile
                seconds[name].append(time.perf_counter() - begin)
    whole = np.median(seconds["training step"])
    device = jax.devices()[0].device_kind
    print(f"{args.network}, batch {args.batch_size}, on {device}, median of {args.rounds} rounds:")
    for name, values in seconds.items():
        median = np.median(values)
        print(f"{name:50s} {1e3 * median:8.2f} ms  {median / whole:7.1%} of a step")
    print(f"{args.batch_size / whole:.0f} images/s")


if __name__ == "__main__":
    main()
