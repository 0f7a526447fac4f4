"""The loop over chunks: what is computed and recorded, and in which order."""

import pytest

from bvae_jax.config import Config
from bvae_jax.data.sampling import Constant
from bvae_jax.runs.loop import Lane, train_chunks
from bvae_jax.runs.trainer import Trainer
from bvae_jax.runs.writer import NotFiniteError, Writer, is_state_due
from bvae_jax.runtime import (
    Clock,
    Interrupt,
    TrainingProgress,
)
from bvae_jax.types import TrainState

CONFIG = Config(steps=8, log_every=2, eval_every=6, checkpoint_every=100)
MEANS = {"nll": 1.0, "kl": 1.0}


def at_step(step):
    return TrainState(step, {}, {}, None, {}, {}, {})  # pyright: ignore


class Recorded(Trainer, Writer):
    """A trainer and a writer that only write down what happens to them."""

    def __init__(self, bad_at=None):
        self.events, self.step, self.bad_at = [], 0, bad_at
        self.config, self.clock, self.failed = CONFIG, Clock(64), None
        self.evaluation, self.faults = {}, {}
        self.members = 1
        self.at_advance = lambda step: None

    def feed(self, states):
        return Constant(None)

    def stack(self, states):
        return states[0]

    def member(self, states, i):
        return states

    def train(self, states, feed, steps):
        self.step += steps
        self.events.append(f"compute to {self.step}")
        self.at_advance(self.step)
        return at_step(self.step), lambda: [MEANS] * self.members

    def record(self, start, step, means, state):
        if step == self.bad_at:
            raise NotFiniteError("not finite")
        self.events.append(f"record {step}")
        if is_state_due(self.config, step):
            assert state().step == step
            self.events.append(f"evaluate {step}")

    def save(self, state):
        self.events.append(f"save {state.step}")


def trained(one, interrupt=None, *others):
    lanes = [Lane(place, each) for place, each in enumerate((one, *others))]
    one.members = len(lanes)
    with TrainingProgress(8, 0, visible=False) as shown:
        states = [at_step(0)] * len(lanes)
        train_chunks(one, lanes, states, shown, interrupt or Interrupt())
    return one.events


def test_the_next_chunk_is_computed_while_the_last_is_recorded():
    assert trained(Recorded()) == [
        "compute to 2", "compute to 4", "record 2", "compute to 6", "record 4",
        "record 6", "evaluate 6",  # needs the state of step 6: nothing goes on before
        "compute to 8", "record 8", "evaluate 8",
    ]  # fmt: skip


def test_the_speed_is_that_of_all_steps_after_the_first_chunk(monkeypatch):
    one, now = Recorded(), [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    one.clock = Clock(64)

    def two_seconds(step):
        now[0] += 2

    one.at_advance = two_seconds
    trained(one)
    # The first ends at 4 s, when the second is computed, too; the last at 8 s.
    assert one.clock.times() == {"images_per_second": 64 * 6 / 4, "wall_seconds": 8}


@pytest.mark.parametrize("bad_at", [2, 6])
def test_nothing_is_recorded_after_numbers_that_are_not_finite(bad_at):
    one = Recorded(bad_at)
    events = trained(one)
    assert isinstance(one.failed, NotFiniteError)
    assert [event for event in events if event.startswith("record")] == [
        f"record {step}" for step in range(2, bad_at, 2)
    ]


def test_what_was_computed_is_recorded_and_saved_when_interrupted():
    one, other, interrupt = Recorded(), Recorded(), Interrupt()

    def ask_at_four(step):
        interrupt.requested = step == 4

    one.at_advance = ask_at_four
    assert trained(one, interrupt, other)[-3:] == ["record 2", "record 4", "save 4"]
    assert other.events == ["record 2", "record 4", "save 4"]
