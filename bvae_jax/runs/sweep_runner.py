"""Trains the members of a sweep: each in its own directory, as if it had been trained alone."""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from bvae_jax.runs import rundir, sweepdir
from bvae_jax.runs.checks import NotFiniteError
from bvae_jax.errors import UserError
from bvae_jax.runs.grid import Member, groups
from bvae_jax.runtime import (
    Interrupt,
)
from bvae_jax.runs.lanes import OneLane, Together
from bvae_jax.runs.program import Program
from bvae_jax.runs.programs import Programs
from bvae_jax.progress import SweepProgress
from bvae_jax.runs.writer import OpenLoggers, Session
from bvae_jax.runs.placement import Plan, batches, make_plan
from bvae_jax.runs.sweepdir import member_dir, status
from bvae_jax.runs import loop
from bvae_jax.types import TrainState


class SweepRunner:
    """Trains members of the sweep in a directory.

    Args:
        programs: those that are built already need not be again.
        interrupt: asked between members; the others are left as they are then.
        figures: draw each member's figures at its end.
    """

    def __init__(
        self,
        sweep_dir: Path,
        programs: Programs,
        loggers: OpenLoggers,
        interrupt: Interrupt,
        figures: bool,
        progress: bool,
    ):
        self._sweep_dir, self._loggers, self._interrupt = sweep_dir, loggers, interrupt
        self._programs, self._figures, self._progress = programs, figures, progress

    def train(self, members: list[Member], strategy: str, at_once: int | None) -> None:
        """Train those that are not done."""
        left = [one for one in members if self._is_left(one)]
        grouped = groups(members)
        total = sum(one.config.steps for one in left)
        self._say(
            f"{len(members)} members in {_count(len(grouped), 'compile group')}, "
            f"{len(left)} of them to train, {total:,} steps in all"
        )
        if not left:
            return
        with SweepProgress(total, visible=self._progress) as shown:
            for group in grouped:
                if not any(map(self._is_left, group)) or self._interrupt.requested:
                    continue
                self._train_group(group, strategy, at_once, shown)

    def _train_group(
        self, group: list[Member], strategy: str, at_once: int | None, shown: SweepProgress
    ) -> None:
        """Train members that share a program; its copies of the data are gone afterwards."""
        program = self._programs.of(group[0].config)
        earlier = None if at_once or strategy != "auto" else self._earlier_plan(group)
        plan = earlier or make_plan(program, len(group), strategy, at_once, jax.default_backend())
        shown.say(_announced(plan, len(group)))
        several = plan.at_once > 1
        together = Together(program, plan.at_once, jax.local_devices()) if several else None
        for batch in batches(group, plan.at_once):
            if not self._interrupt.requested:
                self._train_batch(batch, program, plan, together, shown)

    def _train_batch(
        self,
        batch: list[Member],
        program: Program,
        plan: Plan,
        together: Together | None,
        shown: SweepProgress,
    ) -> None:
        """Train the members of one batch, at the same time, from where they are."""
        with contextlib.ExitStack() as opened:
            sessions = [self._session(one, program, plan, opened) for one in batch]
            places = [i for i, session in enumerate(sessions) if session]
            live = [session for session in sessions if session]
            if not live:
                return
            states = restored_together(live)
            start = int(states[0].step)
            shown.begin([batch[i].name for i in places], start)
            remarks = {"strategy": plan.strategy, "members_at_once": plan.at_once}
            for session in live:
                session.begin(start, sweep=remarks)
            if together is None:
                lanes = OneLane(program, states[0])
            else:
                lanes = together.start(states, places)
            loop.train(live, lanes, shown, self._interrupt)
            for i, (place, session) in enumerate(zip(places, live, strict=True)):
                if not session.failed:
                    try:
                        session.end(lanes.state(i), figures=self._figures)
                    except NotFiniteError as error:
                        session.failed = error
                if session.failed:
                    sweepdir.write_failed(self._sweep_dir, batch[place], str(session.failed))
                    shown.say(f"{batch[place].name} is left out from here on: {session.failed}")

    def _session(
        self, one: Member, program: Program, plan: Plan, opened: contextlib.ExitStack
    ) -> Session | None:
        """The open directory of a member that is not done, and that no one else is training."""
        directory = member_dir(self._sweep_dir, one)
        if not self._is_left(one):
            return None
        try:
            rundir.create(directory, one.config, overwrite=False)
        except (UserError, OSError):
            if not (directory / rundir.CONFIG).exists():
                raise  # it is not that the run is there already
        keep = one.config.keep_checkpoints
        # Members that are trained together go on from the same step, after a kill between the
        # saves of two of them from the one before.
        keep = keep if plan.at_once == 1 else max(2, keep)
        session = Session(directory, program.of(one.config), self._loggers, keep=keep)
        try:
            opened.enter_context(session)
        except rundir.BusyError:
            print(
                f"bvae: {one.name} is being trained by another process: it is left to that.",
                file=sys.stderr,
            )
            return None
        # Now that it is ours: the other process may just have finished it.
        return session if self._is_left(one) else None

    def _is_left(self, one: Member) -> bool:
        return status(self._sweep_dir, one) in ("missing", "begun")

    def _earlier_plan(self, group: list[Member]) -> Plan | None:
        """The plan by which a vmapped group was begun: other sizes would give other roundings."""
        for one in group:
            for session in reversed(rundir.read_sessions(member_dir(self._sweep_dir, one))):
                found = session.get("sweep")
                if found and found["strategy"] == "vmap":
                    return Plan("vmap", found["members_at_once"], 0)
        return None

    def _say(self, message: str) -> None:
        if self._progress:
            print(f"bvae: {message}", file=sys.stderr)


def restored_together(sessions: Sequence[Session]) -> list[TrainState]:
    """The states of runs at the newest step that all of them have."""
    states = [session.restore() for session in sessions]
    steps = [int(state.step) for state in states]
    if len(set(steps)) == 1:
        return states
    try:
        return [
            state if step == min(steps) else session.restore(step=min(steps))
            for session, state, step in zip(sessions, states, steps, strict=True)
        ]
    except UserError:  # one of them has none of that step
        return [session.restore(step=0) for session in sessions]


def _announced(plan: Plan, members: int) -> str:
    device = jax.local_devices()[0]
    manner = {
        "sequential": "one after another",
        "devices": f"{plan.at_once} at once, one on each device",
        "vmap": f"{plan.at_once} at once in one program",
    }[plan.strategy]
    memory = f", at least {plan.bytes_each / 1e6:,.0f} MB each" if plan.bytes_each else ""
    return (
        f"{_count(members, 'member')} by one program on {jax.local_device_count()} x "
        f"{device.device_kind}: {manner}{memory}"
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
