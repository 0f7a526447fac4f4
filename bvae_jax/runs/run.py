"""The impure shell of a run: disk, signals, and the order in which things are done."""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from bvae_jax.runs import rundir
from bvae_jax.runtime import (
    keep_freed_memory,
)
from bvae_jax.runs.checkpoint import Checkpoints, check_path
from bvae_jax.runs.checks import check_memory, check_same, make_config_check
from bvae_jax.config import Config, has_files, with_places
from bvae_jax.data.store import check_content
from bvae_jax.runs.divided import choose_devices, divide
from bvae_jax.errors import UserError
from bvae_jax.runs.hyper import resolved
from bvae_jax.runtime import (
    Interrupt,
)
from bvae_jax.runs.lanes import OneLane
from bvae_jax.runs.loggers import check_installed, open_loggers
from bvae_jax.objectives import get_objective
from bvae_jax.runs.distributed import ALONE, check_agreed, join
from bvae_jax.runs.program import Program, build, build_model
from bvae_jax.progress import TrainingProgress
from bvae_jax.runs.writer import Session, finished_summary
from bvae_jax.step import weights
from bvae_jax.runs import loop
from bvae_jax.types import Params, TrainState
from bvae_jax.vae import VAE


class Run(NamedTuple):
    """A run: where it lies, and what it left in memory.

    Attributes:
        summary: the contents of summary.json; None when the run is not finished.
        program: data set, split and compiled functions; None where it was loaded without data.
        model: encoder, decoder and likelihood.
    """

    run_dir: Path
    config: Config
    summary: dict[str, Any] | None
    state: TrainState
    program: Program
    model: VAE

    @property
    def params(self) -> Params:
        """The VAE's parameters, or with --ema their average: for `vae.encode` and `vae.decode`."""
        return weights(self.state)


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
    distributed: bool = False,
) -> Run:
    """Train what `config` says, and leave checkpoints, metrics, a summary and figures.

    Ctrl-C or SIGTERM while training saves a checkpoint and returns with `summary=None`.

    Args:
        run_dir: where everything goes; if None, below `runs` and named after the config.
        resume: go on with the run that is there. It ends bit for bit as if never interrupted.
        overwrite: replace the run that is there.
        tensorboard: also log to run_dir/tensorboard.
        wandb: also log to this project of Weights & Biases.
        figures: draw figures at the end.
        progress: show progress bars.
        devices: over how many of this process's devices each batch is divided, or "all"; if None,
            1, or as many as the run that is resumed had.
        distributed: train together with other processes that call this with the same arguments, on
            all their devices. The first of them alone reads and writes files.

    Raises:
        UserError: a name is unknown, a package is missing, the directory is taken or missing, the
            stored config differs, no checkpoint can be read, a metric is not finite any more, or
            the devices or processes do not fit.
    """
    team = join() if distributed else ALONE
    progress = progress and team.index == 0
    config = resolved(config)
    directory = Path(run_dir or _default_dir(config)).expanduser()
    if resume and overwrite:
        raise UserError("Got both --resume and --overwrite: give one of them.")
    check_agreed(team, [config.to_dict(), resume, overwrite])
    checked = team.first(lambda: _checked(directory, config, resume, overwrite).to_dict())
    config = Config.from_dict(checked)
    team.each(lambda: check_installed(tensorboard=tensorboard, wandb=wandb))
    team.each(lambda: check_config(config))
    if jax.default_backend() == "cpu":
        keep_freed_memory()
    with Interrupt() as interrupt, contextlib.ExitStack() as deferring:
        if team is not ALONE:  # a signal to one process is a wish to all
            deferring.enter_context(interrupt.deferred())
        earlier = team.first(lambda: rundir.earlier_devices(directory)) if resume else 1
        used = team.each(lambda: choose_devices(devices, earlier, distributed=distributed))
        if resume and len(used) != earlier:
            _say(f"{len(used)} device(s), before {earlier}: roundings will differ.", progress)
        program = team.each(lambda: _program(config, used, progress))
        if resume:
            team.each(lambda: check_content(program.dataset, progress=progress))
        # From here on a signal waits: a process that ends while JAX compiles may crash.
        with interrupt.deferred():
            state = None if resume else program.init()  # before anything is replaced
            if team.any(interrupt.requested):
                raise KeyboardInterrupt
            if not resume:
                team.first(lambda: rundir.create(directory, config, overwrite=overwrite))
            loggers = functools.partial(open_loggers, tensorboard=tensorboard, wandb=wandb)
            with Session(directory, program, loggers, team=team) as session:
                return _run_in(session, state, interrupt, figures, progress, used)


def _checked(directory: Path, config: Config, resume: bool, overwrite: bool) -> Config:
    """The config of a run that may be begun, or gone on with: with its images where they are."""
    check_path(directory)
    if not resume:
        rundir.check_free(directory, overwrite=overwrite)
        return config
    return placed(directory, config)


def _program(config: Config, devices: Sequence[Any], progress: bool) -> Program:
    program = build(config, progress=progress)
    check_memory(program)
    return divide(program, devices) if len(devices) > 1 else program


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


def _run_in(
    session: Session,
    state: TrainState | None,
    interrupt: Interrupt,
    figures: bool,
    progress: bool,
    devices: Sequence[Any],
) -> Run:
    """Train and finish; without a state, resume."""
    directory, config, program = session.directory, session.config, session.program
    if state is None:
        session.team.first(lambda: rundir.check_data(directory, program.dataset))
    state = session.restore() if state is None else session.team.share(state)
    start = int(state.step)
    summary = session.summary_at(start)
    if summary is not None:
        _say(f"{directory} is at step {start} already; --steps N goes on to N.", progress)
        session.move()
        return Run(directory, config, summary, state, program, program.model)
    session.begin(start, devices=len(devices), processes=session.team.count)
    _say(_opening(program, state, start, devices), progress)
    lane = OneLane(program, state)
    with TrainingProgress(config.steps, start, progress) as shown:
        loop.train([session], lane, shown, interrupt)
    if session.failed:
        raise session.failed
    state = lane.state(0)
    summary = session.end(state, figures=figures)
    return Run(directory, config, summary, state, program, program.model)


def load(
    run_dir: str | Path,
    *,
    step: int | None = None,
    dataset: str | None = None,
    data: bool = True,
    program: Program | None = None,
    progress: bool = True,
) -> Run:
    """A run from its directory, as `run` returned it. Changes nothing there.

    Args:
        step: of the checkpoint to take; the newest if None.
        dataset: where its images are now, as folder:DIRECTORY or npz:FILE; where they were when it
            was trained if None.
        data: open them; without, `program` is None, and `vae.encode` and `vae.decode` are what can
            be done with `model` and `params`.
        program: of a run that differs in what is traced only, to compile nothing again.
        progress: show a bar if the data set has to be rendered first.

    Raises:
        UserError: there is no run, no checkpoint yet, none can be read, or its data are others now.
    """
    directory = Path(run_dir).expanduser()
    config = rundir.read_config(directory)
    if data:
        config = placed(directory, config, dataset)
        program = program.of(config) if program else build(config, progress=progress)
        rundir.check_data(directory, program.dataset)
        model, states = program.model, jax.eval_shape(program.init)
    else:
        model, states = build_model(config, rundir.read_image_shape(directory))
    restored = None
    if (directory / "checkpoints").is_dir():
        with Checkpoints(directory / "checkpoints", read_only=True) as checkpoints:
            restored = checkpoints.restore(
                states, step=step, check=make_config_check(directory, config)
            )
    if restored is None:
        raise UserError(f"{directory} has no checkpoint yet: train it further with --resume.")
    summary = finished_summary(directory, int(restored.state.step), config)
    opened: Any = program if data else None
    return Run(directory, config, summary, restored.state, opened, model)


def placed(directory: Path, config: Config, dataset: str | None = None) -> Config:
    """A run's config with its images where they are now.

    Args:
        config: of the run, but for what may change.
        dataset: their new place; that of the config if None, or that which it was when the run was
            trained.

    Raises:
        UserError: they are in neither, or the config is not the run's.
    """
    config = config if dataset is None else dataclasses.replace(config, dataset=dataset)
    stored = rundir.read_config(directory)
    check_same(stored, config, directory)
    found = with_places(config, stored, rundir.read_places(directory))
    if config.dataset == stored.dataset and not has_files(found, "dataset"):
        form = config.dataset.partition(":")[0]
        raise UserError(
            f"{directory}: its images are not in {config.dataset} any more. Give their new place, "
            f"as --dataset {form}:PATH; bvae_jax.load(..., data=False) decodes without them."
        )
    return found


def _opening(program: Program, state: TrainState, start: int, devices: Sequence[Any]) -> str:
    parameters, others = (
        sum(x.size for x in jax.tree.leaves(state.params[part])) for part in ("vae", "aux")
    )
    others = f" and {others:,} of the objective's own" if others else ""
    number = f"{len(devices)} x " if len(devices) > 1 else ""
    return (
        f"{program.config.network}, {parameters:,} parameters{others}, on {number}"
        f"{devices[0].device_kind}; "
        f"{program.dataset.name}: {len(program.split.train):,} images to train on, "
        f"{len(program.split.holdout):,} held out; from step {start}"
    )


def _say(message: str, progress: bool) -> None:
    if progress:
        print(f"bvae: {message}", file=sys.stderr)


def _default_dir(config: Config) -> str:
    """The objective's first hyperparameter is the one that papers vary."""
    first = [f"{name}{config.value(name):g}" for name in get_objective(config.objective).hyper]
    parts = (config.dataset, config.objective, *first[:1], f"seed{config.seed}")
    return f"runs/{'-'.join(parts)}"
