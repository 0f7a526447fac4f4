"""What is seen of a GPU within minutes: one answer for each call, as a line of JSON.

python -m benchmarks.gpu OUT rates
python -m benchmarks.gpu OUT time --network locatello --precision bfloat16 --members 64 [--profile]
python -m benchmarks.gpu OUT time --torch cudagraph
python -m benchmarks.gpu OUT losses | resume | quality | encode

Processes may run at the same time: they compile beside each other, and time under a lock.
"""

import argparse
import contextlib
import fcntl
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS, SECONDS = 7, 0.3
STEPS = 200


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Nobody else times at the same time."""
    with (Path(tempfile.gettempdir()) / "bvae-gpu.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def timed(run: Callable[[int], None], amount: float) -> dict[str, float]:
    """Microseconds for a unit: the median of rounds, the least and the most.

    Args:
        run: does some pieces of work, and waits for them; called before, so that it is compiled.
        amount: units in a piece.
    """

    def seconds(pieces: int) -> float:
        begin = time.perf_counter()
        run(pieces)
        return time.perf_counter() - begin

    with alone():
        seconds(1)
        pieces = max(1, round(SECONDS / seconds(1)))
        each = sorted(1e6 * seconds(pieces) / pieces / amount for _ in range(ROUNDS))
    return {"us": statistics.median(each), "least": each[0], "most": each[-1]}


def rates(args: argparse.Namespace) -> dict[str, Any]:
    """Products of large matrices, and a copy."""
    from benchmarks.tasks import copy, matmul

    found = {}
    for precision in ("float32", "tensorfloat32", "bfloat16"):
        task = matmul(8192, precision)
        task.run(1)
        found[f"{precision}_tflops"] = task.amount / timed(task.run, 1)["us"] / 1e6
    task = copy(2**30)
    task.run(1)
    return found | {"copy_tb_per_s": task.amount / timed(task.run, 1)["us"] / 1e6}


def step_time(args: argparse.Namespace) -> dict[str, Any]:
    """Microseconds for a step of a model, ours or PyTorch's."""
    if args.torch:
        from benchmarks import torch_peer
        from benchmarks.architecture import architecture

        shape = (64, 64, 1)
        layers = architecture(args.network, 10, shape)._asdict()
        cores = os.cpu_count() or 1
        settings = {"image_shape": shape, "precision": args.precision, "cores": cores}
        task = torch_peer.train(layers, 64, 50, args.torch, **settings)
    else:
        from benchmarks import tasks
        from bvae_jax.config import Config

        config = Config(network=args.network, precision=args.precision, image_source=args.images)
        chunk = 20 if args.members > 100 else 50
        task = tasks.train(config, chunk, args.members, "vmap")
    begin = time.perf_counter()
    task.run(1)
    found = {"built_s": time.perf_counter() - begin, **timed(task.run, task.amount)}
    if args.profile:
        with alone():
            profile(args, task.run, task.amount)
    facts = task.facts() if args.members > 1 or args.torch else {}
    return found | {"peak_device_bytes": facts.get("peak_device_bytes")}


def profile(args: argparse.Namespace, run: Callable[[int], None], amount: float) -> None:
    """The largest kernels, to a text file."""
    import jax

    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            run(1)
        (path,) = Path(directory).rglob("*.xplane.pb")
        kernels: dict[str, list[float]] = {}
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            for line in plane.lines if "GPU" in plane.name else ():
                for event in line.events if line.name.startswith("Stream") else ():
                    kernels.setdefault(event.name, []).append(event.duration_ns / 1e3)
    rows = sorted(((sum(us) / amount, len(us), name) for name, us in kernels.items()), reverse=True)
    text = [f"{sum(us for us, _, _ in rows):9.2f} us of kernels for a step of a model, calls, name"]
    text += [f"{us:9.3f} {calls:6} {name[:120]}" for us, calls, name in rows]
    (args.out / f"kernels-{tag(args)}.txt").write_text("\n".join(text) + "\n")


def losses(args: argparse.Namespace) -> dict[str, Any]:
    """The loss of each of the first steps, to a file, to compare with those of another device."""
    from benchmarks.tasks import in_turn
    from bvae_jax.config import Config
    from bvae_jax.runs.trainer import Trainer

    config = Config(network=args.network, precision=args.precision, image_source="rendered")
    (turn,) = in_turn(Trainer(config, progress=False), 1, "sequential")
    found = [turn.advance(1)()[0]["loss"] for _ in range(STEPS)]
    np.save(args.out / f"losses-{tag(args)}-{platform()}.npy", found)
    return {"first": float(found[0]), "last": float(found[-1])}


def resume(args: argparse.Namespace) -> dict[str, Any]:
    """A run in two parts ends with the bits of one in one part; each part compiles for itself."""
    import jax

    from bvae_jax import Config, load

    half = args.steps // 2
    config = Config(
        network=args.network, precision=args.precision, image_source="rendered", steps=args.steps,
        eval_every=half, checkpoint_every=half, eval_images=512,
    )  # fmt: skip
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as directory:
        for name, steps in (("whole", args.steps), ("parts", half), ("parts", args.steps)):
            part = (config.replace(steps=steps), f"{directory}/{name}")
            process = context.Process(target=train_on, args=part)
            process.start()
            process.join()
        whole, parts = (load(f"{directory}/{name}").params for name in ("whole", "parts"))
        same = jax.tree.map(lambda a, b: bool((a == b).all()), whole, parts)
        apart = jax.tree.map(lambda a, b: float(abs(a - b).max()), whole, parts)
    return {"bit_for_bit": all(jax.tree.leaves(same)), "apart": max(jax.tree.leaves(apart))}


def train_on(config: Any, directory: str) -> None:
    """To the end of its steps."""
    from bvae_jax import train

    there = (Path(directory) / "config.json").exists()
    train(config, directory, resume=there, figures=False, progress=False)


def quality(args: argparse.Namespace) -> dict[str, Any]:
    """nll of held-out images after some steps, of four seeds; their runs are kept in OUT."""
    from bvae_jax import Config, sweep

    config = Config(
        network=args.network, precision=args.precision, image_source="rendered",
        steps=args.steps, eval_every=args.steps, checkpoint_every=args.steps, log_every=500,
    )  # fmt: skip
    begin = time.perf_counter()
    directory = args.out / f"quality-{args.precision}"
    runs = sweep(config, directory, seeds=4, strategy="vmap", members_at_once=4, progress=False)
    summaries = [runs[name].summary or {} for name in runs]
    seconds = time.perf_counter() - begin
    return {name: [one[name] for one in summaries] for name in ("nll", "kl")} | {"seconds": seconds}


def encode(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds to encode the data set, and to score it by the fast metrics, of a kept run."""
    from bvae_jax import ScoreConfig, load
    from bvae_jax.metrics.scoring import score_all
    from bvae_jax.runs.encode import codes_of, encode_points

    run = load(next((args.out / f"quality-{args.precision}" / "members").iterdir()))
    count = args.points or run.dataset.size
    found: dict[str, Any] = {"images": count}
    for name in ("compiled", "again"):
        begin = time.perf_counter()
        encoded = encode_points(run.trainer, run.params, count)
        found[f"encode_{name}_s"] = time.perf_counter() - begin
    begin = time.perf_counter()
    scores = dict(score_all(codes_of(run.trainer, encoded, "all"), ScoreConfig("fast")))
    found["fast_metrics_s"] = time.perf_counter() - begin
    return found | {"metrics": {name: "skipped" not in entry for name, entry in scores.items()}}


def platform() -> str:
    import jax

    return jax.default_backend()


def device(args: argparse.Namespace) -> str:
    if args.torch:
        import torch  # pyright: ignore[reportMissingImports]

        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    import jax

    return f"{jax.devices()[0].device_kind}, jax {jax.__version__}"


def tag(args: argparse.Namespace) -> str:
    return f"{args.network}-{args.precision}-{args.members}"


TASKS = {
    "rates": rates, "time": step_time, "losses": losses, "resume": resume, "quality": quality,
    "encode": encode,
}  # fmt: skip


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--network", default="locatello")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--members", type=int, default=1)
    parser.add_argument("--images", default="rendered")
    parser.add_argument("--steps", type=int, default=3000, help="of quality and resume")
    parser.add_argument("--points", type=int, default=0, help="to encode; 0: all")
    parser.add_argument("--torch", default="", choices=("", "eager", "compile", "cudagraph"))
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--xla-flags", default="", help="as --xla-flags=--xla_gpu_autotune_level=0")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    args = parse(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.xla_flags:  # JAX is not imported yet
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {args.xla_flags}"
    given = {name: value for name, value in vars(args).items() if name != "out"}
    try:
        found = TASKS[args.task](args)
    except Exception as error:  # the others go on
        found = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    line = json.dumps(given | found | {"device": device(args)})
    with (args.out / "results.jsonl").open("a") as file:
        file.write(line + "\n")
    print(line)
    return "error" in found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
