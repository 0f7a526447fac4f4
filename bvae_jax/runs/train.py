"""`train`: from a config to a run in its directory."""

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from bvae_jax.config import OWN_FILES, Config
from bvae_jax.data.store import check_content
from bvae_jax.data.variants import parts_of
from bvae_jax.errors import UserError, say
from bvae_jax.objectives import get_objective
from bvae_jax.runs import loop, rundir
from bvae_jax.runs.checkpoint import check_path
from bvae_jax.runs.hyper import resolved
from bvae_jax.runs.loggers import check_installed, open_loggers
from bvae_jax.runs.mesh import choose_devices
from bvae_jax.runs.placement import check_memory
from bvae_jax.runs.run import Run, placed
from bvae_jax.runs.trainer import Trainer, check_jax
from bvae_jax.runs.writer import OpenLoggers, finished_summary, open_writer
from bvae_jax.runtime import Interrupt, TrainingProgress, keep_freed_memory
from bvae_jax.types import TrainState


def train(
    config: Config,
    run_dir: str | Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    wandb: str | None = None,
    figures: bool = True,
    progress: bool = True,
    devices: int | str | None = None,
) -> Run:
    """Train what `config` says, and leave checkpoints, metrics, a summary and figures.

    Ctrl-C or SIGTERM while training saves a checkpoint and returns with `summary=None`.

    Args:
        run_dir: where everything goes; if None, below `runs` and named after the config.
        resume: go on with the run that is there. It ends bit for bit as if never interrupted.
        overwrite: replace the run that is there.
        tensorboard: also log to run_dir/tensorboard.
        wandb: also log to this project of Weights & Biases.
        figures: draw figures at the end, and training as an animation.
        progress: show progress bars.
        devices: over how many of this process's devices each batch is divided, or "all"; if None,
            1, or as many as the run that is resumed had.

    Raises:
        UserError: a name is unknown, a package is missing, the directory is taken or missing, the
            stored config differs, no checkpoint can be read, a metric is not finite any more, or
            the devices do not fit.
    """
    check_jax()
    config = resolved(config)
    directory = Path(run_dir or _default_dir(config)).expanduser()
    if resume and overwrite:
        raise UserError("Got both --resume and --overwrite: give one of them.")
    check_path(directory)
    if resume:
        rundir.check_resumable(directory)
        config = placed(directory, config)
    else:
        rundir.check_free(directory, overwrite=overwrite)
    check_installed(tensorboard=tensorboard, wandb=wandb)
    check_config(config)
    if jax.default_backend() == "cpu":
        keep_freed_memory()
    with Interrupt() as interrupt:
        earlier = rundir.earlier_devices(directory) if resume else 1
        used = choose_devices(devices, earlier)
        if resume and len(used) != earlier:
            _say(f"{len(used)} device(s), before {earlier}: roundings will differ.", progress)
        trainer = Trainer(config, progress=progress)
        check_memory(trainer)
        trainer = trainer.spread(1, used)
        if resume:
            check_content(trainer.dataset, progress=progress)
        # From here on a signal waits: a process that ends while JAX compiles may crash.
        with interrupt.deferred():
            state = None if resume else trainer.init()  # before anything is replaced
            interrupt.check()
            if not resume:
                rundir.create(directory, config, overwrite=overwrite)
            loggers = functools.partial(open_loggers, tensorboard=tensorboard, wandb=wandb)
            return _train_in(directory, trainer, loggers, state, interrupt, figures, progress)


def _train_in(
    directory: Path,
    trainer: Trainer,
    loggers: OpenLoggers,
    state: TrainState | None,
    interrupt: Interrupt,
    figures: bool,
    progress: bool,
) -> Run:
    """Train and finish; without a state, resume."""
    config, shape = trainer.config, trainer.dataset.image_shape
    with open_writer(directory, config, trainer, loggers, figures=figures) as writer:
        if state is None:
            rundir.check_data(directory, trainer.dataset)
            state = writer.restore()
        start = int(state.step)
        summary = finished_summary(directory, start, config, state)
        if summary is not None:
            _say(f"{directory} is at step {start} already; --steps N goes on to N.", progress)
            rundir.move(directory, config)
            _warn(summary)
            return Run(directory, config, summary, state, trainer.model, shape, trainer)
        writer.begin(start, devices=trainer.mesh.size)
        for line in _opening(trainer, state):
            _say(line, progress)
        with TrainingProgress(config.steps, start, progress) as shown:
            lane = loop.Lane(0, writer)
            [state] = loop.train_chunks(trainer, [lane], [state], shown, interrupt)
        if writer.failed:
            raise writer.failed
        summary = writer.end(state)
    _warn(summary)
    return Run(directory, config, summary, state, trainer.model, shape, trainer)


def _warn(summary: Mapping[str, Any] | None) -> None:
    """Say on stderr what is wrong with a finished run, however quiet."""
    for line in (summary or {}).get("warnings", {}).values():
        say(f"warning: {line}")


def check_config(config: Config) -> None:
    """Refuse metrics that cannot be scored while training.

    Raises:
        UserError: a metric is not known, or compares runs.
    """
    if config.eval_metrics:
        from bvae_jax.metrics.scoring import metric_names

        if metric_names(config.eval_metrics, "--eval-metrics") == ("udr",):
            raise UserError(
                "--eval-metrics udr: it compares runs. Train them, then use bvae evaluate RUN "
                "--metrics udr --udr-with OTHER_RUN."
            )


def _opening(trainer: Trainer, state: TrainState) -> list[str]:
    """What is trained on what, in two lines."""
    parameters, others = (
        sum(x.size for x in jax.tree.leaves(state.params[part])) for part in ("vae", "aux")
    )
    others = f" and {others:,} of the objective's own" if others else ""
    devices = trainer.mesh.devices.ravel()
    number = f"{len(devices)} x " if len(devices) > 1 else ""
    data, beta, split = trainer.dataset, trainer.config.beta, trainer.split
    shape = "×".join(map(str, data.image_shape))
    shape = f", {data.pictures}, as {shape}" if data.pictures else f" of {shape}"
    norm = ""
    if beta is not None:
        value = beta * trainer.config.latents / math.prod(data.image_shape)
        norm = f"; β = {beta:g} is beta_norm {value:.2g} here"
    return [
        f"{data.name}: {data.size:,} images{shape}; "
        f"{parts_of({name: len(part) for name, part in split._asdict().items()})}{norm}",
        f"{trainer.config.network}, {parameters:,} parameters{others}, on {number}"
        f"{devices[0].device_kind}; from step {int(state.step)}",
    ]


def _say(message: str, progress: bool) -> None:
    if progress:
        say(message)


def _default_dir(config: Config) -> str:
    """The objective's first hyperparameter is the one that papers vary."""
    first = [f"{name}{config.value(name):g}" for name in get_objective(config.objective).hyper]
    kind, _, rest = config.dataset.partition(":")
    name = f"{kind}-{Path(rest).stem}" if kind in (*OWN_FILES, "hf") else config.dataset
    parts = (name, config.objective, *first[:1], f"seed{config.seed}")
    return f"runs/{'-'.join(parts)}"
