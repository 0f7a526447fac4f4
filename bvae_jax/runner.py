"""The impure shell of a run: disk, signals, and the order in which things are done."""

import contextlib
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from bvae_jax import rundir
from bvae_jax.allocator import keep_freed_memory
from bvae_jax.checkpoint import Checkpoints
from bvae_jax.checks import check_finite, check_memory, check_same, make_config_check
from bvae_jax.config import Config
from bvae_jax.errors import UserError
from bvae_jax.figures import draw_figures
from bvae_jax.hyper import resolved
from bvae_jax.interrupt import Interrupt
from bvae_jax.loggers import METRICS, SCORES, Logger, check_installed, open_loggers, read_records
from bvae_jax.objectives import get_objective
from bvae_jax.program import Program, averaged, build
from bvae_jax.progress import TrainingProgress
from bvae_jax.summary import eval_split, summarise
from bvae_jax.train import weights
from bvae_jax.types import Params, TrainState
from bvae_jax.vae import VAE


class RunResult(NamedTuple):
    """A run: where it lies, and what it left in memory.

    Attributes:
        summary: the contents of summary.json; None when the run is not finished.
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
        """The VAE's parameters, or with --ema their average: for `vae.encode` and `vae.decode`."""
        return weights(self.state)


def run(
    config: Config,
    run_dir: str | Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    wandb: str | None = None,
    figures: bool = True,
    progress: bool = True,
) -> RunResult:
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

    Raises:
        UserError: a name is unknown, a package is missing, the directory is taken or missing, the
            stored config differs, no checkpoint can be read, or a metric is not finite any more.
    """
    config = resolved(config)
    directory = Path(run_dir or _default_dir(config)).expanduser()
    if resume and overwrite:
        raise UserError("Got both --resume and --overwrite: give one of them.")
    if resume:
        check_same(rundir.read_config(directory), config, directory)
    else:
        rundir.check_free(directory, overwrite=overwrite)
    check_installed(tensorboard=tensorboard, wandb=wandb)
    if config.eval_metrics:
        from bvae_jax.scoring import metric_names

        if metric_names(config.eval_metrics, "--eval-metrics") == ("udr",):
            raise UserError(
                "--eval-metrics udr: it compares runs. Train them, then use bvae evaluate RUN "
                "--metrics udr --udr-with OTHER_RUN."
            )
    if jax.default_backend() == "cpu":
        keep_freed_memory()
    with Interrupt() as interrupt:
        program = build(config, progress=progress)
        check_memory(program)
        # From here on a signal waits: a process that ends while JAX compiles may crash.
        with interrupt.deferred():
            state = None if resume else program.init()  # before anything is replaced
            if interrupt.requested:
                raise KeyboardInterrupt
            if not resume:
                rundir.create(directory, config, overwrite=overwrite)
            with rundir.lock(directory):
                loggers = functools.partial(open_loggers, tensorboard=tensorboard, wandb=wandb)
                return _run_in(directory, program, state, loggers, interrupt, figures, progress)


def _run_in(
    directory: Path,
    program: Program,
    state: TrainState | None,
    loggers: Callable[..., contextlib.AbstractContextManager[list[Logger]]],
    interrupt: Interrupt,
    figures: bool,
    progress: bool,
) -> RunResult:
    """Train and finish in a run directory that is there and locked; without a state, resume."""
    config, earlier = program.config, {}
    with Checkpoints(directory / "checkpoints", config.keep_checkpoints) as checkpoints:
        if state is None:
            state, earlier = _restore(directory, program, checkpoints)
        start = int(state.step)
        summary = _finished_summary(directory, start, config)
        if summary is not None:
            _say(f"{directory} is at step {start} already; --steps N goes on to N.", progress)
            return RunResult(directory, config, summary, state, program)
        rundir.write_json(directory / rundir.CONFIG, config.to_dict())
        rundir.add_session(directory, start)
        _say(_opening(program, state, start), progress)
        with (
            loggers(directory, start, config.to_dict()) as opened,
            TrainingProgress(config.steps, start, config.batch_size, earlier, progress) as shown,
        ):
            state = _train(program, state, checkpoints, opened, shown, interrupt)
        checkpoints.wait()
    step = int(state.step)
    rundir.end_session(directory, step, shown.times()["wall_seconds"])
    if step < config.steps:
        return RunResult(directory, config, None, state, program)
    records = read_records(directory / METRICS)
    summary = summarise(program, state, shown.times())
    if config.eval_metrics:
        scores = [r for r in records if r["split"] == SCORES and r["step"] == step]
        found = scores[-1] if scores else {}
        summary["scores"] = {k: v for k, v in found.items() if k not in ("step", "split")}
    if figures:
        draw_figures(directory / "figures", program, weights(state), records)
    rundir.write_json(directory / rundir.SUMMARY, summary)
    return RunResult(directory, config, summary, state, program)


def load(run_dir: str | Path, *, step: int | None = None, progress: bool = True) -> RunResult:
    """A run from its directory, as `run` returned it. Changes nothing there.

    Args:
        step: of the checkpoint to take; the newest if None.
        progress: show a bar if the data set has to be rendered first.

    Raises:
        UserError: there is no run, no checkpoint yet, or none can be read.
    """
    directory = Path(run_dir).expanduser()
    config = rundir.read_config(directory)
    program = build(config, progress=progress)
    restored = None
    if (directory / "checkpoints").is_dir():
        with Checkpoints(directory / "checkpoints", read_only=True) as checkpoints:
            restored = checkpoints.restore(
                jax.eval_shape(program.init), step=step, check=make_config_check(directory, config)
            )
    if restored is None:
        raise UserError(f"{directory} has no checkpoint yet: train it further with --resume.")
    summary = _finished_summary(directory, int(restored.state.step), config)
    return RunResult(directory, config, summary, restored.state, program)


def next_stop(config: Config, step: int) -> int:
    """The first step after `step` at which a record, an evaluation or a checkpoint is due."""
    everies = (config.log_every, config.eval_every, config.checkpoint_every)
    return min(config.steps, *(step - step % every + every for every in everies))


def _train(
    program: Program,
    state: TrainState,
    checkpoints: Checkpoints,
    loggers: Sequence[Logger],
    shown: TrainingProgress,
    interrupt: Interrupt,
) -> TrainState:
    """The loop over chunks of steps. A chunk ends wherever something is due, and leaves a record:
    so the records do not depend on where a run was interrupted."""
    config, step = program.config, int(state.step)
    while step < config.steps and not interrupt.requested:
        start, step = step, next_stop(config, step)
        shown.begin_chunk()
        state, metrics = program.train(state, program.train_data, step - start)
        means = averaged(metrics)
        shown.end_chunk(step - start, means)
        check_finite(means, start, step, config, checkpoints)
        _log(loggers, step, "train", means)
        last = step == config.steps
        if last or step % config.eval_every == 0:
            _log(loggers, step, eval_split(config), program.evaluate(state))
            if config.eval_metrics:
                from bvae_jax.representations import training_scores  # scikit-learn takes a second

                scores = training_scores(program, weights(state))
                if scores:
                    _log(loggers, step, SCORES, scores)
        if last or step % config.checkpoint_every == 0 or interrupt.requested:
            checkpoints.save(state, shown.times() | {"config": config.to_dict()})
    return state


def _restore(
    directory: Path, program: Program, checkpoints: Checkpoints
) -> tuple[TrainState, dict[str, Any]]:
    """The newest whole checkpoint and its JSON, with damaged newer ones moved out of the way.

    Where there is none yet, the state before the first step.
    """
    check = make_config_check(directory, program.config)
    restored = checkpoints.restore(jax.eval_shape(program.init), check=check)
    if restored is None:
        print(f"bvae: no checkpoint in {directory} yet: from step 0 again.", file=sys.stderr)
        return program.init(), {}
    step = int(restored.state.step)
    if step > program.config.steps:
        raise UserError(
            f"--steps: got {program.config.steps}, but the run is at step {step} already: "
            "wanted at least that."
        )
    checkpoints.set_aside_after(step)
    return restored


def _finished_summary(directory: Path, step: int, config: Config) -> dict[str, Any] | None:
    """The summary on disk, if the run ended at this step."""
    path = directory / rundir.SUMMARY
    if step < config.steps or not path.exists():
        return None
    summary = rundir.read_json(path)
    return summary if isinstance(summary, dict) and summary.get("step") == step else None


def _opening(program: Program, state: TrainState, start: int) -> str:
    parameters, others = (
        sum(x.size for x in jax.tree.leaves(state.params[part])) for part in ("vae", "aux")
    )
    others = f" and {others:,} of the objective's own" if others else ""
    device = jax.devices()[0]
    return (
        f"{program.config.network}, {parameters:,} parameters{others}, on {device.device_kind}; "
        f"{program.dataset.name}: {len(program.split.train):,} images to train on, "
        f"{len(program.split.holdout):,} held out; from step {start}"
    )


def _say(message: str, progress: bool) -> None:
    if progress:
        print(f"bvae: {message}", file=sys.stderr)


def _log(loggers: Sequence[Logger], step: int, split: str, means: dict[str, Any]) -> None:
    record = {"step": step, "split": split} | dict(sorted(means.items()))
    for logger in loggers:
        logger.log(record)


def _default_dir(config: Config) -> str:
    """The objective's first hyperparameter is the one that papers vary."""
    first = [f"{name}{getattr(config, name):g}" for name in get_objective(config.objective).hyper]
    parts = (config.dataset, config.objective, *first[:1], f"seed{config.seed}")
    return f"runs/{'-'.join(parts)}"
