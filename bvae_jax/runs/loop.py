"""The loop over chunks of steps; `step.make_loop` has the loop over the steps of one.

The device computes a chunk while the host records the one before.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bvae_jax.config import Config
from bvae_jax.runs.trainer import Means, Trainer
from bvae_jax.runs.writer import NotFiniteError, Writer, is_state_due
from bvae_jax.runtime import Interrupt, TrainingProgress
from bvae_jax.types import TrainState


class Lane(NamedTuple):
    """A member that is being trained.

    Attributes:
        place: which of the trainer's members it is.
    """

    place: int
    writer: Writer


class Chunk(NamedTuple):
    """Steps that are being computed; `means` waits for their metrics, for each member."""

    start: int
    end: int
    means: Callable[[], Means]


def train_chunks(
    trainer: Trainer,
    lanes: Sequence[Lane],
    states: Sequence[TrainState],
    shown: TrainingProgress,
    interrupt: Interrupt,
) -> list[TrainState]:
    """Train members together, to the end of their steps or until an interrupt is requested.

    A chunk ends wherever something is due, and leaves a record: so the records do not depend on
    where a run was interrupted. A member whose numbers are not finite any more is marked as failed
    in its writer, and the others go on.

    Args:
        trainer: perhaps for more members than there are lanes: the other places are trained for
            nothing, so that a member keeps its place, and the program its shape, when others are
            done.
        lanes: with writers that have begun, of runs that differ in what is traced only.
        states: their states, all at the same step.

    Returns:
        Their states, in order.
    """
    config, step, stop = lanes[0].writer.config, int(states[0].step), False
    by_place = dict(zip((lane.place for lane in lanes), states, strict=True))
    filled = [by_place.get(i, states[0]) for i in range(trainer.members)]
    feed, stacked = trainer.feed(filled), trainer.stack(filled)
    live = [lane for lane in lanes if not lane.writer.failed]
    computed = None  # the last chunk, until its numbers are looked at
    while step < config.steps and live and not (stop := interrupt.requested):
        if computed is None:
            for lane in live:
                lane.writer.clock.begin_chunk()
        start, step = step, next_stop(config, step)
        stacked, means = trainer.train(stacked, feed, step - start)
        if computed:  # while the device computes the next
            live = _record(computed, live, trainer, stacked, shown)
        computed = Chunk(start, step, means)
        if is_state_due(config, step):
            live = _record(computed, live, trainer, stacked, shown)
            computed = None
    if computed:
        live = _record(computed, live, trainer, stacked, shown)
    feed.close()
    if stop:
        for lane in live:
            lane.writer.save(trainer.member(stacked, lane.place))
    return [trainer.member(stacked, lane.place) for lane in lanes]


def _record(
    chunk: Chunk,
    live: list[Lane],
    trainer: Trainer,
    states: TrainState,
    shown: TrainingProgress,
) -> list[Lane]:
    """Keep what a chunk left; returns the members that can go on.

    Args:
        states: after the chunk wherever they are evaluated or saved; else perhaps later ones.
    """
    steps, means = chunk.end - chunk.start, chunk.means()
    for lane in live:
        lane.writer.clock.end_chunk(steps)
    if live:
        rate = sum(lane.writer.clock.times()["images_per_second"] for lane in live)
        shown.update(len(live) * steps, means[live[0].place], rate)
    left = []
    for lane in live:
        try:
            state = functools.partial(trainer.member, states, lane.place)
            lane.writer.record(chunk.start, chunk.end, means[lane.place], state)
            left.append(lane)
        except NotFiniteError as error:
            lane.writer.failed = error
    if left:
        shown.evaluated(left[0].writer.evaluation, left[0].writer.faults)
    return left


def next_stop(config: Config, step: int) -> int:
    """The first step after `step` at which a record, an evaluation or a checkpoint is due."""
    everies = (config.log_every, config.eval_every, config.checkpoint_every)
    return min(config.steps, *(step - step % every + every for every in everies))
