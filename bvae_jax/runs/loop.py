"""The loop over chunks of steps: the device computes one while the host records the one before."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bvae_jax.runs.checks import NotFiniteError
from bvae_jax.config import Config
from bvae_jax.runtime import (
    Interrupt,
)
from bvae_jax.runs.lanes import Lanes
from bvae_jax.progress import TrainingProgress
from bvae_jax.runs.writer import Session, is_state_due


def train(
    sessions: Sequence[Session], lanes: Lanes, shown: TrainingProgress, interrupt: Interrupt
) -> None:
    """The loop over chunks of steps. A chunk ends wherever something is due, and leaves a record:
    so the records do not depend on where a run was interrupted.

    A session whose numbers are not finite any more is marked as failed, and the others go on.
    Processes that train a run together stop at the same step, whichever of them is interrupted.

    Args:
        sessions: begun, all at the same step, with the same settings but for what is traced.
        lanes: their states, in the same order.
    """
    config, team, step = sessions[0].config, sessions[0].team, int(lanes.state(0).step)
    stop = False
    live = {i: session for i, session in enumerate(sessions) if not session.failed}
    computed = None  # the last chunk, until its numbers are looked at
    while step < config.steps and live and not (stop := team.any(interrupt.requested)):
        if computed is None:
            for session in live.values():
                session.clock.begin_chunk()
        start, step = step, next_stop(config, step)
        chunk = Chunk(start, step, lanes.advance(step - start))
        if computed:  # while the device computes the next
            _record(computed, live, lanes, shown)
        computed = chunk
        if is_state_due(config, step):
            _record(computed, live, lanes, shown)
            computed = None
    if computed:
        _record(computed, live, lanes, shown)
    lanes.close()
    if stop:
        for i, session in live.items():
            session.save(lanes.state(i))


class Chunk(NamedTuple):
    """Steps that are being computed; `means` waits for their metrics, for each state."""

    start: int
    end: int
    means: Callable[[], list[dict[str, Any]]]


def _record(chunk: Chunk, live: dict[int, Session], lanes: Lanes, shown: TrainingProgress) -> None:
    """Keep what a chunk left; sessions that cannot go on are no longer among `live` then."""
    steps, means = chunk.end - chunk.start, chunk.means()
    for session in live.values():
        session.clock.end_chunk(steps)
    if live:
        rate = sum(s.clock.times()["images_per_second"] for s in live.values())
        shown.update(len(live) * steps, means[min(live)], rate)
    for i, session in list(live.items()):
        try:
            state = functools.partial(lanes.state, i)
            session.record(chunk.start, chunk.end, means[i], state)
        except NotFiniteError as error:
            session.failed = error
            del live[i]


def next_stop(config: Config, step: int) -> int:
    """The first step after `step` at which a record, an evaluation or a checkpoint is due."""
    everies = (config.log_every, config.eval_every, config.checkpoint_every)
    return min(config.steps, *(step - step % every + every for every in everies))
