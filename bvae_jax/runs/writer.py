"""A run's directory while it is written to: its checkpoints, its records, its clock, its end."""

import contextlib
import functools
import hashlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bvae_jax.config import Config, places
from bvae_jax.errors import UserError, say
from bvae_jax.files import write_json
from bvae_jax.runs import encode, health, rundir
from bvae_jax.runs.checkpoint import Checkpoints, Restored, fingerprint
from bvae_jax.runs.figures import draw_figures, draw_rate_distortion, keep_frame, rate_distortion
from bvae_jax.runs.hyper import many_rates
from bvae_jax.runs.loggers import METRICS, SCORES, Logger, read_records
from bvae_jax.runs.trainer import Trainer, calibrated, eval_split, weights_of
from bvae_jax.runtime import Clock
from bvae_jax.types import TrainState

OpenLoggers = Callable[..., contextlib.AbstractContextManager[list[Logger]]]
FIGURES = "figures"
REPORTED = (
    "loss",
    "nll",
    "nll_error",
    "kl",
    "kl_error",
    "mse",
    "mse_error",
    "elbo",
    "bits_per_dim",
    "iwae",
)
"""Numbers of an evaluation that are in summary.json."""
OF_CODES = ("information", "kl_per_latent", "variance_per_latent", "active_latents", "values_used")
"""And what it says of codes."""


class NotFiniteError(UserError):
    """A number of a run is not finite any more: it cannot go on."""


@contextlib.contextmanager
def open_writer(
    directory: Path,
    config: Config,
    trainer: Trainer,
    open_loggers: OpenLoggers,
    *,
    figures: bool = False,
    keep: int | None = None,
) -> Iterator["Writer"]:
    """The writer of a run's directory, which is there already; locked as long as this lasts.

    Args:
        config: of the run, with the objective's own values.
        open_loggers: `loggers.open_loggers`, told which loggers.
        figures: draw figures at the end, and keep what an animation of the training needs.
        keep: newest checkpoints; as the config says if None.

    Raises:
        rundir.BusyError: another process is writing to it.
    """
    keep = keep or config.keep_checkpoints
    with rundir.lock(directory), Checkpoints(directory / "checkpoints", keep) as checkpoints:
        writer = Writer(directory, config, trainer, checkpoints, open_loggers, figures)
        try:
            yield writer
        finally:
            aside = rundir.replaced(directory)
            if aside.exists():
                say(f"no checkpoint yet: the previous run is kept in {aside}.")
            writer.close_loggers()


class Writer:
    """Writes to a run's directory; from `open_writer`.

    First `restore`, unless the run is new; then `begin`, `record` after each chunk of steps, and
    `end`.

    Attributes:
        failed: why the run cannot go on, if its numbers are not finite any more.
        evaluation: the newest, of the images of `eval_split`, with its step; empty before.
        faults: of a run that is finished, see `health`.
        clock: tells `times` of all the run's sessions.
    """

    def __init__(
        self,
        directory: Path,
        config: Config,
        trainer: Trainer,
        checkpoints: Checkpoints,
        open_loggers: OpenLoggers,
        figures: bool,
    ):
        self.directory, self.config = directory, config
        self.failed: NotFiniteError | None = None
        self.evaluation: dict[str, Any] = {}
        self.faults: health.Faults = {}
        self.clock = Clock(config.batch_size)
        self._trainer, self._checkpoints = trainer, checkpoints
        self._open_loggers, self._figures = open_loggers, figures
        self._loggers: list[Logger] = []
        self._closing = contextlib.ExitStack()
        self._saved = 0

    def restore(self, *, step: int | None = None) -> TrainState:
        """The newest whole checkpoint, or that of a step; later ones are out of the way then.

        Where there is none yet, the state before the first step.

        Raises:
            UserError: there is none of this step, none can be read, or the run is further than its
                number of steps.
        """
        fresh = functools.partial(self._trainer.init, self.config)
        if step == 0:
            self._checkpoints.drop_after(0)
            return fresh()
        restored = self._checkpoints.restore(
            jax.eval_shape(fresh),
            step=step,
            check=rundir.make_config_check(self.directory, self.config),
        )
        if restored is None:
            if summary := rundir.read_summary(self.directory):
                raise UserError(
                    f"--resume: {self.directory} was trained to step {summary['step']}, and its "
                    "checkpoints are gone: put them back, or begin anew with --overwrite."
                )
            if (self.directory / rundir.PROVENANCE).exists():  # somebody has begun it
                say(f"no checkpoint in {self.directory} yet: from step 0 again.")
            return fresh()
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

    def begin(self, start: int, **remarks: Any) -> None:
        """Write down who trains on from step `start`, on which data, and open the loggers.

        Args:
            remarks: for provenance.json.

        Raises:
            UserError: the data are not those of before.
        """
        self._saved = start
        rundir.check_data(self.directory, self._trainer.dataset)
        write_json(self.directory / rundir.CONFIG, self.config.to_dict())
        remarks |= {"data": describe(self._trainer), "places": places(self.config)}
        rundir.add_session(self.directory, start, **remarks)
        opened = self._open_loggers(self.directory, start, self.config.to_dict())
        self._loggers = self._closing.enter_context(opened)

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
        found, used = {"train": means}, self._trainer.weights
        evaluated = _is_due(self.config, step, self.config.eval_every)
        saved = _is_due(self.config, step, self.config.checkpoint_every)
        now = state() if evaluated or saved else None
        if now and evaluated:
            found |= self._evaluated(now)
        for split, numbers in found.items():
            self._log(step, split, numbers)
        if now and evaluated:
            self._keep(now, found[eval_split(self.config)])
        if now and evaluated and self.config.eval_metrics:
            wanted = self.config.eval_metrics
            scores = encode.training_scores(self._trainer, used(now), wanted)
            if scores:
                self._log(step, SCORES, scores)
        if now and self._figures:
            directory = self.directory / FIGURES
            keep_frame(directory, self._trainer, used(now), step, self.config.steps)
        if now and saved:
            self.save(now)

    def _evaluated(self, state: TrainState, *splits: str) -> dict[str, dict[str, Any]]:
        evaluations = self._trainer.evaluate(state, *splits)
        for split, means in evaluations.items():
            self._check_finite(means, f"in the evaluation ({split}) at step {int(state.step)}")
        return evaluations

    def _keep(self, state: TrainState, evaluation: dict[str, Any]) -> None:
        """What was found of a state; at the end of a run, what is wrong with it, too."""
        step = int(state.step)
        self.evaluation = {"step": step} | evaluation
        if step == self.config.steps:
            self.faults = health.find_faults(
                evaluation,
                self._trainer.eval_indices.shape[1],
                health.look_at_mean_picture(self._trainer, self._trainer.weights(state)),
                read_records(self.directory / METRICS),
            )

    def _check_finite(self, means: dict[str, Any], where: str) -> None:
        """Stop before anything that is not finite is saved.

        Args:
            means: of steps, or of an evaluation.
            where: which, in words.
        """
        values = {k: v if isinstance(v, list) else [v] for k, v in means.items()}
        bad = [name for name, numbers in values.items() if not all(map(math.isfinite, numbers))]
        if bad:
            self._checkpoints.wait()
            steps = self._checkpoints.steps()
            kept = f"the checkpoint of step {steps[-1]} is kept" if steps else "none was saved yet"
            raise NotFiniteError(
                f"Not finite {where}: {', '.join(bad)} (learning rate "
                f"{self.config.learning_rate}); {kept}. Try a lower --learning-rate."
            )

    def save(self, state: TrainState) -> None:
        """Write a checkpoint, unless that of this step is written already.

        Raises:
            UserError: it could not be written.
        """
        step = int(state.step)
        if step != self._saved:
            self._checkpoints.save(state, self.clock.times() | {"config": self.config.to_dict()})
            if rundir.replaced(self.directory).exists():
                self._checkpoints.wait()
                rundir.remove_replaced(self.directory)
        self._saved = step

    def end(self, state: TrainState) -> dict[str, Any] | None:
        """Close the loggers; write the summary and draw the figures of a run that is finished.

        Returns:
            The summary; None for a run that has steps left.

        Raises:
            NotFiniteError: a number of the evaluation is not finite.
        """
        self.close_loggers()
        self._checkpoints.wait()
        step, times = int(state.step), self.clock.times()
        rundir.end_session(self.directory, step, times["wall_seconds"])
        if step < self.config.steps:
            return None
        if self.evaluation.get("step") != step:
            split = eval_split(self.config)
            self._keep(state, self._evaluated(state, split)[split])
        summary = summarise(self._trainer, state, self.evaluation, times)
        summary["warnings"] = self.faults
        if rates := many_rates(self.config):
            summary["rates"] = rate_distortion(self._trainer, state, rates)
        records = read_records(self.directory / METRICS)
        if self.config.eval_metrics:
            scores = [r for r in records if r["split"] == SCORES and r["step"] == step]
            found = scores[-1] if scores else {}
            summary["scores"] = {k: v for k, v in found.items() if k not in ("step", "split")}
        if self._figures:
            directory = self.directory / FIGURES
            draw_figures(directory, self._trainer, self._trainer.weights(state), records, step)
            if "rates" in summary:
                draw_rate_distortion(directory / "rate_distortion", summary["rates"])
        write_json(self.directory / rundir.SUMMARY, summary, checksum=True)
        return summary

    def close_loggers(self) -> None:
        """No more is recorded."""
        self._closing.close()

    def _log(self, step: int, split: str, means: dict[str, Any]) -> None:
        record = {"step": step, "split": split} | dict(sorted(means.items()))
        for logger in self._loggers:
            logger.log(record)


def is_state_due(config: Config, step: int) -> bool:
    """Whether a run's state is evaluated or saved after this step."""
    return any(_is_due(config, step, n) for n in (config.eval_every, config.checkpoint_every))


def _is_due(config: Config, step: int, every: int) -> bool:
    return step == config.steps or step % every == 0


def finished_summary(
    directory: Path, step: int, config: Config, state: TrainState | None = None
) -> dict[str, Any] | None:
    """The summary on disk, if the run ended at this step.

    Args:
        state: of the run, where it is known.

    Raises:
        UserError: the summary is of other parameters than those of the state.
    """
    summary = rundir.read_summary(directory) if step >= config.steps else None
    if not summary or summary["step"] != step:
        return None
    # At one β of many the parameters are computed, which another kind of device rounds otherwise.
    known = None if state is None or many_rates(config) else fingerprint(weights_of(config, state))
    if known not in (None, summary["params_sha256"]):
        raise UserError(
            f"{directory / rundir.SUMMARY} is of other parameters than the checkpoint of step "
            f"{step}: one of the two is another run's. Put back the one that belongs here; a "
            "summary that is deleted is made again by bvae train --resume."
        )
    return dict(summary)


def summarise(
    trainer: Trainer, state: TrainState, evaluation: dict[str, Any], times: dict[str, float]
) -> dict[str, Any]:
    """The contents of summary.json.

    Args:
        evaluation: of this state: the numbers of the evaluation images.
        times: how long it took, by name.
    """
    return {
        "step": int(state.step),
        **{name: evaluation[name] for name in REPORTED if name in evaluation},
        **meaning_of_beta(trainer, state, evaluation.get("beta")),
        **{name: evaluation[name] for name in OF_CODES if name in evaluation},
        "split": eval_split(trainer.config),
        "eval_images": int(trainer.eval_indices.size),
        **times,
        "params_sha256": fingerprint(trainer.weights(state)),
    }


def describe(trainer: Trainer) -> dict[str, Any]:
    """The data of a run, for provenance.json: which images, and how they are divided."""
    dataset, split = trainer.dataset, trainer.split
    return {
        "identity": dataset.identity,
        "source": dataset.source,
        "licence": dataset.licence,
        "citation": dataset.citation,
        "image_shape": list(dataset.image_shape),
        "images": dataset.size,
        **{name: len(indices) for name, indices in split._asdict().items()},
        "split_sha256": hashlib.sha256(b"".join(map(np.ndarray.tobytes, split))).hexdigest(),
    }


def meaning_of_beta(
    trainer: Trainer, state: TrainState, beta: float | None
) -> dict[str, float | None]:
    """The weight of the KL in three units; None where an objective weighs it otherwise.

    Args:
        beta: what the objective reports as its weight of the KL, after schedules.

    Returns:
        `beta`; `beta_norm`, beta times latents over pixels (Higgins et al. 2017); `beta_effective`,
        beta times the likelihood's scale, such as sigma^2: what would be beta with the same
        likelihood unscaled, such as a Gaussian of sigma 1.
    """
    names = ("beta", "beta_norm", "beta_effective")
    if beta is None:
        return dict.fromkeys(names)
    beta = float(f"{beta:.6g}")  # without the digits that float32 adds
    params = trainer.weights(state)
    likelihood = calibrated(trainer, params)
    own = {name: params[name] for name, _ in likelihood.own}
    pixels = math.prod(trainer.dataset.image_shape)
    scale = float(likelihood.scale(own))
    return dict(
        zip(names, (beta, beta * trainer.config.latents / pixels, beta * scale), strict=True)
    )
