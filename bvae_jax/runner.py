"""The impure shell of a run: disk, clock, signals, progress bar."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from tqdm.auto import tqdm

from bvae_jax import rundir
from bvae_jax.allocator import keep_freed_memory
from bvae_jax.checkpoint import Checkpoints, fingerprint
from bvae_jax.config import Config, differing_fields
from bvae_jax.errors import UserError
from bvae_jax.figures import draw_figures
from bvae_jax.loggers import JsonLines, Logger, TensorBoard, WeightsAndBiases, read_records
from bvae_jax.program import Program, averaged, build
from bvae_jax.types import Params, TrainState
from bvae_jax.vae import VAE


class RunResult(NamedTuple):
    """A run: where it lies, and what it left in memory.

    Attributes:
        summary: the contents of summary.json; None when the run was interrupted.
        program: data set, split and compiled functions.
    """

    run_dir: Path
    config: Config
    summary: dict[str, Any] | None
    state: TrainState
    program: Program

    @property
    def model(self) -> VAE:
        return self.program.model

    @property
    def params(self) -> Params:
        """The VAE's parameters, for `bvae_jax.vae.encode` and `decode`."""
        return self.state.params["vae"]


class Clock:
    """Seconds of training over all sessions of a run, and images per second in this one."""

    def __init__(self, earlier_seconds: float, batch_size: int):
        self._earlier, self._start = earlier_seconds, time.monotonic()
        self._batch_size, self._chunks = batch_size, []

    def wall_seconds(self) -> float:
        return self._earlier + time.monotonic() - self._start

    def add(self, steps: int, seconds: float) -> None:
        self._chunks.append((steps, seconds))

    def images_per_second(self) -> float | None:
        """Over all chunks but the first, which holds the compilation, if there are others."""
        counted = self._chunks[1:] or self._chunks
        seconds = sum(seconds for _, seconds in counted)
        return self._batch_size * sum(n for n, _ in counted) / seconds if counted else None


def run(
    config: Config,
    run_dir: str | Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    wandb: str | None = None,
    progress: bool = True,
) -> RunResult:
    """Train what `config` says, and leave checkpoints, metrics, a summary and figures.

    Ctrl-C or SIGTERM saves a checkpoint and returns with `summary=None`.

    Args:
        run_dir: where everything goes; `runs/<dataset>-<objective>-beta<beta>-seed<seed>` if None.
        resume: go on with the run that is there. It ends bit for bit as if never interrupted.
        overwrite: replace the run that is there.
        tensorboard: also log to run_dir/tensorboard.
        wandb: also log to this project of Weights & Biases.
        progress: show a progress bar.

    Raises:
        UserError: a name is unknown, the directory is taken or missing, the stored config
            differs, no checkpoint can be read, or the loss is not finite any more.
    """
    directory = Path(run_dir or _default_dir(config)).expanduser()
    if resume and overwrite:
        raise UserError("Got --resume and --overwrite: wanted one of them, or none.")
    if resume:
        _check_same(rundir.read_config(directory), config, directory)
    if jax.default_backend() == "cpu":
        keep_freed_memory()
    program = build(config, progress=progress)
    if not resume:
        rundir.create(directory, config, overwrite=overwrite)
    with rundir.lock(directory), Interrupt() as interrupt:
        rundir.write_json(directory / rundir.CONFIG, config.to_dict())
        with Checkpoints(directory / "checkpoints", config.keep_checkpoints) as checkpoints:
            state, clock = _start(program, checkpoints, resume)
            start = int(state.step)
            rundir.add_session(directory, start)
            with _loggers(directory, start, config, tensorboard, wandb) as loggers:
                state = _train(program, state, checkpoints, loggers, clock, interrupt, progress)
            checkpoints.wait()
        if int(state.step) < config.steps:
            return RunResult(directory, config, None, state, program)
        summary = _finish(directory, program, state, clock)
    return RunResult(directory, config, summary, state, program)


def load(run_dir: str | Path, *, step: int | None = None, progress: bool = True) -> RunResult:
    """A run from its directory, as `run` returned it.

    Args:
        step: of the checkpoint to take; the newest if None.

    Raises:
        UserError: there is no run, no checkpoint yet, or none can be read.
    """
    directory = Path(run_dir).expanduser()
    config = rundir.read_config(directory)
    program = build(config, progress=progress)
    if not (directory / "checkpoints").is_dir():
        raise UserError(f"{directory} has no checkpoint yet: train it further with --resume.")
    with Checkpoints(directory / "checkpoints", config.keep_checkpoints) as checkpoints:
        restored = checkpoints.restore(jax.eval_shape(program.init), step=step)
    if restored is None:
        raise UserError(f"{directory} has no checkpoint yet: train it further with --resume.")
    path = directory / rundir.SUMMARY
    summary = rundir.read_json(path) if path.exists() else None
    return RunResult(directory, config, summary, restored.state, program)


class Interrupt(contextlib.AbstractContextManager):
    """Turns SIGINT and SIGTERM into a request while a chunk runs, and an exception elsewhere.

    A second signal is an exception anywhere.
    """

    def __init__(self):
        self.requested = self.deferred = False
        self._old = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _handle(self, number, frame) -> None:
        if not self.deferred or self.requested:
            raise KeyboardInterrupt
        self.requested = True
        tqdm.write("Interrupted: finishing these steps and saving. Once more stops at once.")


def _train(
    program: Program,
    state: TrainState,
    checkpoints: Checkpoints,
    loggers: Sequence[Logger],
    clock: Clock,
    interrupt: Interrupt,
    progress: bool,
) -> TrainState:
    """The loop over chunks of steps. A chunk ends wherever something is due."""
    config, step = program.config, int(state.step)
    interrupt.deferred = True
    with _bar(config, step, progress) as bar:
        while step < config.steps and not interrupt.requested:
            stop = next_stop(config, step)
            begin = time.monotonic()
            state, metrics = program.train(state, program.train_data, stop - step)
            clock.add(stop - step, time.monotonic() - begin)
            means = averaged(metrics)
            _check_finite(means, step, stop, config, checkpoints)
            _log(loggers, stop, "train", means)
            bar.set_postfix(_postfix(means, clock), refresh=False)
            bar.update(stop - step)
            last, step = stop == config.steps, stop
            if last or step % config.eval_every == 0:
                _log(loggers, step, _eval_split(config), program.evaluate(state))
            if last or step % config.checkpoint_every == 0 or interrupt.requested:
                checkpoints.save(state, {"wall_seconds": clock.wall_seconds()})
    interrupt.deferred = False
    return state


def next_stop(config: Config, step: int) -> int:
    """The first step after `step` at which a record, an evaluation or a checkpoint is due."""
    everies = (config.log_every, config.eval_every, config.checkpoint_every)
    return min(config.steps, *(step - step % every + every for every in everies))


def _start(
    program: Program, checkpoints: Checkpoints, resume: bool
) -> tuple[TrainState, Clock]:
    """The state to go on from: a fresh one, or the newest checkpoint's."""
    batch_size = program.config.batch_size
    restored = checkpoints.restore(jax.eval_shape(program.init)) if resume else None
    if restored is None:
        return program.init(), Clock(0.0, batch_size)
    state, meta = restored
    step = int(state.step)
    if step > program.config.steps:
        raise UserError(
            f"The run is at step {step}: got --steps {program.config.steps}, wanted at least that."
        )
    checkpoints.set_aside_after(step)
    return state, Clock(meta["wall_seconds"], batch_size)


def _check_same(stored: Config, wanted: Config, directory: Path) -> None:
    differing = differing_fields(stored, wanted)
    if differing:
        raise UserError(
            f"{directory} was begun with another config ({'; '.join(differing)}). Resume with the "
            "old values, or start another --run-dir."
        )


def _check_finite(
    means: dict[str, Any], start: int, stop: int, config: Config, checkpoints: Checkpoints
) -> None:
    bad = [
        name
        for name, value in means.items()
        if not all(map(math.isfinite, value if isinstance(value, list) else [value]))
    ]
    if bad:
        checkpoints.wait()
        steps = checkpoints.steps()
        kept = f"the checkpoint of step {steps[-1]} is kept" if steps else "none was saved before"
        raise UserError(
            f"Not finite between steps {start} and {stop}: {', '.join(bad)} (learning rate "
            f"{config.learning_rate}, beta {config.beta}); {kept}. Try a lower --learning-rate."
        )


def _eval_split(config: Config) -> str:
    return "holdout" if config.holdout else "train_eval"


def _log(loggers: Sequence[Logger], step: int, split: str, means: dict[str, Any]) -> None:
    record = {"step": step, "split": split} | dict(sorted(means.items()))
    for logger in loggers:
        logger.log(record)


@contextlib.contextmanager
def _loggers(
    directory: Path, step: int, config: Config, tensorboard: bool, wandb: str | None
) -> Iterator[list[Logger]]:
    with contextlib.ExitStack() as stack:
        loggers: list[Logger] = [JsonLines(directory / rundir.METRICS, step)]
        if tensorboard:
            loggers.append(TensorBoard(directory / "tensorboard", step))
        if wandb:
            loggers.append(WeightsAndBiases(wandb, directory, config.to_dict()))
        for logger in loggers:
            stack.callback(logger.close)
        yield loggers


def _bar(config: Config, step: int, progress: bool) -> tqdm:
    return tqdm(total=config.steps, initial=step, unit="step", disable=not progress, desc="train")


def _postfix(means: dict[str, Any], clock: Clock) -> dict[str, str]:
    return {
        "images/s": f"{clock.images_per_second():.0f}",
        "nll": f"{means['nll']:.1f}",
        "kl": f"{means['kl']:.2f}",
        "active": str(means["active_latents"]),
    }


def _finish(
    directory: Path, program: Program, state: TrainState, clock: Clock
) -> dict[str, Any]:
    """Evaluate the last state, write the summary, draw the figures."""
    config = program.config
    height, width, channels = program.dataset.image_shape
    evaluation = program.evaluate(state)
    summary = {
        "step": int(state.step),
        **{name: evaluation[name] for name in ("loss", "nll", "kl", "elbo")},
        "beta": config.beta,
        "beta_norm": config.beta * config.latents / (height * width * channels),
        "kl_per_latent": evaluation["kl_per_latent"],
        "active_latents": evaluation["active_latents"],
        "split": _eval_split(config),
        "eval_images": int(program.eval_indices.size),
        "images_per_second": clock.images_per_second(),
        "wall_seconds": clock.wall_seconds(),
        "params_sha256": fingerprint(state.params["vae"]),
    }
    rundir.write_json(directory / rundir.SUMMARY, summary)
    records = read_records(directory / rundir.METRICS)
    draw_figures(directory / "figures", program, state.params["vae"], records)
    return summary


def _default_dir(config: Config) -> str:
    return f"runs/{config.dataset}-{config.objective}-beta{config.beta:g}-seed{config.seed}"
