"""How long training waits for streamed images: a set of 64x64x3 on disk, conv, batch 64.

    python experiments/streaming_cost.py [IMAGES] [STEPS]

Steps with resident and with streamed images in turn, and the share of time that streaming waited.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bvae_jax import data
from bvae_jax.config import Config
from bvae_jax.data.base import Dataset, Stored
from bvae_jax.runs.lanes import OneLane
from bvae_jax.runs.program import build
from bvae_jax.runtime import (
    keep_freed_memory,
)

SHAPE, ROUNDS = (64, 64, 3), 7


def main(images: int, steps: int) -> None:
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "images.npy"
        file = np.lib.format.open_memmap(path, "w+", np.uint8, (images, *SHAPE))
        rng = np.random.default_rng(0)
        for start in range(0, images, 1000):
            file[start : start + 1000] = rng.integers(0, 256, file[start : start + 1000].shape)
        file.flush()
        stored = np.load(path, mmap_mode="r")
        data.DATASETS["on_disk"] = Dataset("on_disk", 1, SHAPE, Stored(stored, SHAPE))
        lanes = {}
        for kind in ("resident", "streamed"):
            program = build(Config(dataset="on_disk", image_source=kind), progress=False)
            lanes[kind] = OneLane(program, program.init())
            lanes[kind].advance(steps)()
        seconds: dict[str, list[float]] = {kind: [] for kind in lanes}
        waited = lanes["streamed"].waited
        for _ in range(ROUNDS):
            for kind, lane in lanes.items():
                began = time.perf_counter()
                lane.advance(steps)()
                seconds[kind].append((time.perf_counter() - began) / steps)
        waited = (lanes["streamed"].waited - waited) / (ROUNDS * steps)
        for lane in lanes.values():
            lane.close()
    resident, streamed = (statistics.median(seconds[kind]) for kind in ("resident", "streamed"))
    print(f"{images} images, {images * np.prod(SHAPE) / 1e6:.0f} MB, {ROUNDS} x {steps} steps each")
    print(f"resident {1e3 * resident:.1f} ms a step; streamed {1e3 * streamed:.1f} ms: "
          f"{streamed / resident:.3f} of it")  # fmt: skip
    print(f"waiting for images: {1e3 * waited:.2f} ms a step, {100 * waited / streamed:.1f} %")


if __name__ == "__main__":
    main(*(int(x) for x in [*sys.argv[1:], *(50_000, 100)[len(sys.argv) - 1 :]]))
