"""A run's directory while it is written to: its checkpoints, its records, its clock, its end."""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from bvae_jax.runs import encode, rundir
from bvae_jax.runs.checkpoint import Checkpoints, Restored
from bvae_jax.runs.checks import NotFiniteError, check_finite, make_config_check
from bvae_jax.config import Config, places
from bvae_jax.errors import UserError
from bvae_jax.runs.figures import draw_figures
from bvae_jax.runs.loggers import METRICS, SCORES, Logger, read_records
from bvae_jax.runs.distributed import ALONE, Team
from bvae_jax.runs.program import Program, eval_split
from bvae_jax.progress import Clock
from bvae_jax.runs.summary import describe, summarise
from bvae_jax.step import weights
from bvae_jax.types import TrainState

OpenLoggers = Callable[..., contextlib.AbstractContextManager[list[Logger]]]


class Session(contextlib.AbstractContextManager):
    """One run's directory, which is there already; locked as long as the context lasts.

    First `restore`, unless the run is new; then `begin`, `record` after each chunk of steps, and
    `end`.

    Args:
        open_loggers: `loggers.open_loggers`, told which loggers.
        keep: newest checkpoints; as the config says if None.
        team: the processes that train this run: all compute, and the first one has the directory.

    Attributes:
        failed: why the run cannot go on, if its numbers are not finite any more.
        clock: tells `times` of all the run's sessions.
    """

    def __init__(
        self,
        directory: Path,
        program: Program,
        open_loggers: OpenLoggers,
        *,
        keep: int | None = None,
        team: Team = ALONE,
    ):
        self.directory = directory
        self.program = program
        self.config = program.config
        self.team = team
        self.failed: NotFiniteError | None = None
        self.clock = Clock(self.config.batch_size)
        self._open_loggers = open_loggers
        self._keep = keep or self.config.keep_checkpoints
        self._loggers: list[Logger] = []
        self._open = contextlib.ExitStack()
        self._closing = contextlib.ExitStack()
        self._saved = 0

    def __enter__(self) -> "Session":
        self.team.first(self._open_directory)
        return self

    def _open_directory(self) -> None:
        with contextlib.ExitStack() as opening:
            opening.enter_context(rundir.lock(self.directory))
            checkpoints = Checkpoints(self.directory / "checkpoints", self._keep)
            self._checkpoints = opening.enter_context(checkpoints)
            self._open = opening.pop_all()

    def __exit__(self, *exception) -> bool | None:
        aside = rundir.replaced(self.directory)
        if self.team.index == 0 and aside.exists():
            print(f"bvae: no checkpoint yet: the previous run is kept in {aside}.", file=sys.stderr)
        return self._open.__exit__(*exception)

    def restore(self, *, step: int | None = None) -> TrainState:
        """The newest whole checkpoint, or that of a step; later ones are out of the way then.

        Where there is none yet, the state before the first step.

        Raises:
            UserError: there is none of this step, none can be read, or the run is further than its
                number of steps.
        """
        found = []
        self.team.first(lambda: found.append(self._restored(step)))
        return self.team.share(found[0] if found else self.program.init())

    def _restored(self, step: int | None) -> TrainState:
        if step == 0:
            self._checkpoints.drop_after(0)
            return self.program.init()
        restored = self._checkpoints.restore(
            jax.eval_shape(self.program.init),
            step=step,
            check=make_config_check(self.directory, self.config),
        )
        if restored is None:
            if (self.directory / rundir.PROVENANCE).exists():  # somebody has begun it
                again = f"bvae: no checkpoint in {self.directory} yet: from step 0 again."
                print(again, file=sys.stderr)
            return self.program.init()
        return self._go_on_from(restored, newest=step is None)

    def _go_on_from(self, restored: Restored, *, newest: bool) -> TrainState:
        step = int(restored.state.step)
        if step > self.config.steps:
            raise UserError(
                f"--steps: got {self.config.steps}, but the run is at step {step} already: "
                "wanted at least that."
            )
        if newest:  # what is newer could not be read
            self._checkpoints.set_aside_after(step)
        else:
            self._checkpoints.drop_after(step)
        self.clock = Clock(self.config.batch_size, restored.meta)
        return restored.state

    def summary_at(self, step: int) -> dict[str, Any] | None:
        """The summary on disk, if the run is finished with this step."""
        return self.team.first(lambda: finished_summary(self.directory, step, self.config))

    def move(self) -> None:
        """Write down where the images of a run that is finished are now, if that changed."""
        self.team.first(lambda: rundir.move(self.directory, self.config))

    def begin(self, start: int, **remarks: Any) -> None:
        """Write down who trains on from step `start`, on which data, and open the loggers.

        Args:
            remarks: for provenance.json.

        Raises:
            UserError: the data are not those of before.
        """
        self._saved = start
        remarks |= {"data": describe(self.program), "places": places(self.config)}
        self.team.first(lambda: self._begin(start, remarks))

    def _begin(self, start: int, remarks: dict[str, Any]) -> None:
        rundir.check_data(self.directory, self.program.dataset)
        rundir.write_json(self.directory / rundir.CONFIG, self.config.to_dict())
        rundir.add_session(self.directory, start, **remarks)
        opened = self._open_loggers(self.directory, start, self.config.to_dict())
        self._loggers = self._closing.enter_context(opened)
        self._open.push(self._closing)

    def record(
        self, start: int, step: int, means: dict[str, Any], state: Callable[[], TrainState]
    ) -> None:
        """Keep what is due after the steps from `start` to `step`.

        Args:
            means: metrics of the steps.
            state: gives the state after them; called only where `is_state_due`.

        Raises:
            NotFiniteError: a number is not finite; nothing was kept then.
            UserError: a checkpoint could not be written.
        """
        self._check_finite(means, f"between steps {start} and {step}")
        evaluations = {}
        if _is_due(self.config, step, self.config.eval_every):
            evaluations = self._evaluated(state())
        self.team.first(lambda: self._write(step, means, evaluations, state))
        if _is_due(self.config, step, self.config.checkpoint_every):
            self.save(state())

    def _evaluated(self, state: TrainState, *splits: str) -> dict[str, dict[str, Any]]:
        evaluations = self.program.evaluate(state, *splits)
        for split, means in evaluations.items():
            self._check_finite(means, f"in the evaluation ({split}) at step {int(state.step)}")
        return evaluations

    def _check_finite(self, means: dict[str, Any], where: str) -> None:
        check_finite(means, where, self.config, self._steps_saved)

    def _steps_saved(self) -> list[int]:
        def steps() -> list[int]:
            self._checkpoints.wait()
            return self._checkpoints.steps()

        return self.team.first(steps)

    def _write(
        self,
        step: int,
        means: dict[str, Any],
        evaluations: dict[str, dict[str, Any]],
        state: Callable[[], TrainState],
    ) -> None:
        self._log(step, "train", means)
        for split, found in evaluations.items():
            self._log(step, split, found)
        if evaluations and self.config.eval_metrics:
            scores = encode.training_scores(self.program, weights(state()))
            if scores:
                self._log(step, SCORES, scores)

    def save(self, state: TrainState) -> None:
        """Write a checkpoint, unless that of this step is written already.

        Raises:
            UserError: it could not be written.
        """
        step = int(state.step)
        if step != self._saved:
            meta = self.clock.times() | {"config": self.config.to_dict()}
            self.team.first(lambda: self._save(state, meta))
        self._saved = step

    def _save(self, state: TrainState, meta: dict[str, Any]) -> None:
        self._checkpoints.save(state, meta)
        if rundir.replaced(self.directory).exists():
            self._checkpoints.wait()
            rundir.remove_replaced(self.directory)

    def end(self, state: TrainState, *, figures: bool) -> dict[str, Any] | None:
        """Close the loggers; write the summary and draw the figures of a run that is finished.

        Returns:
            The summary; None for a run that has steps left.

        Raises:
            NotFiniteError: a number of the evaluation is not finite.
        """
        times = self.team.first(lambda: self._close(int(state.step)))
        if int(state.step) < self.config.steps:
            return None
        split = eval_split(self.config)
        evaluation = self._evaluated(state, split)[split]
        return self.team.first(lambda: self._finish(state, evaluation, times, figures))

    def _close(self, step: int) -> dict[str, Any]:
        self._closing.close()
        self._checkpoints.wait()
        times = self.clock.times()
        rundir.end_session(self.directory, step, times["wall_seconds"])
        return times

    def _finish(
        self, state: TrainState, evaluation: dict[str, Any], times: dict[str, Any], figures: bool
    ) -> dict[str, Any]:
        step, records = int(state.step), read_records(self.directory / METRICS)
        summary = summarise(self.program, state, evaluation, times)
        if self.config.eval_metrics:
            scores = [r for r in records if r["split"] == SCORES and r["step"] == step]
            found = scores[-1] if scores else {}
            summary["scores"] = {k: v for k, v in found.items() if k not in ("step", "split")}
        if figures:
            draw_figures(self.directory / "figures", self.program, weights(state), records)
        rundir.write_json(self.directory / rundir.SUMMARY, summary, checksum=True)
        return summary

    def _log(self, step: int, split: str, means: dict[str, Any]) -> None:
        record = {"step": step, "split": split} | dict(sorted(means.items()))
        for logger in self._loggers:
            logger.log(record)


def is_state_due(config: Config, step: int) -> bool:
    """Whether a run's state is evaluated or saved after this step."""
    return any(_is_due(config, step, n) for n in (config.eval_every, config.checkpoint_every))


def _is_due(config: Config, step: int, every: int) -> bool:
    return step == config.steps or step % every == 0


def finished_summary(directory: Path, step: int, config: Config) -> dict[str, Any] | None:
    """The summary on disk, if the run ended at this step."""
    summary = rundir.read_summary(directory) if step >= config.steps else None
    return dict(summary) if summary and summary["step"] == step else None
