"""A grid of runs, its members, trained together: each in its directory, as if trained alone."""

import collections
import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import jax
import numpy as np

from bvae_jax.config import Config
from bvae_jax.data import open_dataset
from bvae_jax.data.store import check_content
from bvae_jax.errors import UserError, say, unknown
from bvae_jax.runs import loop, rundir, sweepdir
from bvae_jax.runs.checkpoint import check_path
from bvae_jax.runs.grid import Member, Values, groups
from bvae_jax.runs.loggers import check_installed, open_loggers
from bvae_jax.runs.placement import (
    Plan,
    batches,
    check_memory,
    check_strategy,
    make_plan,
    parse_shard,
    shard_of_process,
)
from bvae_jax.runs.run import Run, load_shared
from bvae_jax.runs.sweepdir import (
    Status,
    SweepConfig,
    check_sweep,
    member_dir,
    open_sweep,
    read_sweep,
    status,
    summary_table,
)
from bvae_jax.runs.train import check_config
from bvae_jax.runs.trainer import Trainer, Trainers, check_jax, images_of, pieces
from bvae_jax.runs.writer import NotFiniteError, OpenLoggers, Writer, open_writer
from bvae_jax.runtime import Interrupt, SweepProgress, keep_freed_memory
from bvae_jax.types import TrainState

if TYPE_CHECKING:
    import pandas as pd

    from bvae_jax.explore.page import Explorer

    Runs = Mapping[str, Run]
else:  # a checker of types at run time would load a run to see what it is
    Runs = Mapping


class UnknownMember(UserError, KeyError):
    """A sweep has no such member."""

    __str__ = Exception.__str__  # a KeyError's is in quotes


class Sweep(Runs):
    """A sweep: member's name, as "beta=4,seed=0" -> its run, which is loaded when it is asked for.

    Members that can share what is compiled and the data do.

    Args:
        sweep_dir: its directory.

    Attributes:
        config: what the members have in common.
        members: those of all shards, by name.

    Raises:
        UserError: there is no sweep. From `sweep[name]`: an `UnknownMember`, which is a KeyError
            too, or the member has no checkpoint yet.
    """

    def __init__(self, sweep_dir: str | Path):
        self.sweep_dir = Path(sweep_dir).expanduser()
        found = read_sweep(self.sweep_dir)
        self.config = found.base
        self.members: dict[str, Member] = {one.name: one for one in found.members()}
        self._trainers = Trainers()

    def __getitem__(self, name: str) -> Run:
        if name not in self.members:
            raise UnknownMember(str(unknown("member", name, self.members)))
        return load_shared(member_dir(self.sweep_dir, self.members[name]), self._trainers)

    def __contains__(self, name: object) -> bool:
        return name in self.members

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    def __repr__(self) -> str:
        names, counts = [*self.members], collections.Counter()
        with contextlib.suppress(UserError):  # what is wrong with a member, others say
            counts.update(self.statuses.values())
        far = ", ".join(f"{counts[one]} {one}" for one in get_args(Status) if counts[one])
        shown = names if len(names) <= 4 else [*names[:3], "...", names[-1]]
        return f"Sweep({str(self.sweep_dir)!r}): {len(names)} members ({far}): {'; '.join(shown)}"

    @property
    def statuses(self) -> dict[str, Status]:
        """Member's name -> "done", "failed" (a number was not finite), "begun" or "missing"."""
        return {name: status(self.sweep_dir, one) for name, one in self.members.items()}

    def left(self, shard: str | None = None) -> list[str]:
        """Names of members that are neither done nor failed, of a shard or of all.

        Raises:
            UserError: it is no shard.
        """
        i, n = parse_shard(shard)
        mine = [*self.statuses.items()][i - 1 :: n]
        return [name for name, status in mine if status in ("begun", "missing")]

    @property
    def table(self) -> "pd.DataFrame":
        """A row for each member, with what varies and its summary's numbers."""
        return summary_table(self.sweep_dir, list(self.members.values()))

    def explore(self, *, seed: int | None = None, float32: bool = False) -> "Explorer":
        """A page that moves the latents of a run of each setting together, as `Run.explore`.

        Args:
            seed: the runs of this seed; if None, those nearest to the mean of their setting.
            float32: keep all digits of the weights.

        Raises:
            UserError: no member is done, or as `Run.explore`.
        """
        from bvae_jax.explore.export import of_sweep

        return of_sweep(self.sweep_dir, seed=seed, float32=float32)


def sweep(
    config: Config = Config(),
    sweep_dir: str | Path = "sweeps/sweep",
    *,
    betas: Iterable[float] | None = None,
    seeds: int | Iterable[int] = 1,
    grid: Mapping[str, Iterable[Any]] = {},
    shared_batches: bool = False,
    shard: str | None = None,
    strategy: str = "auto",
    members_at_once: int | None = None,
    tensorboard: bool = False,
    wandb: str | None = None,
    figures: bool = False,
    progress: bool = True,
    distributed: bool = False,
) -> Sweep:
    """Train a member for each combination of values; go on with what is there already.

    Members that are done are passed over, as are those whose numbers were not finite any more.
    Ctrl-C or SIGTERM saves a checkpoint of all that are being trained, and returns.

    Args:
        config: what all members have in common.
        sweep_dir: where everything goes.
        betas: values of `Config.beta`.
        seeds: as many, counted from `config.seed`; or which.
        grid: field of `Config` -> its values, for other fields.
        shared_batches: members with different seeds see the same batches.
        shard: "i/n", train the i-th of n parts here; "slurm", as the job array says.
        strategy: "sequential", one member after another; "devices", one on each device; "vmap",
            many in one program; "auto", by the machine.
        members_at_once: in one program, for "vmap"; as many as fit if None.
        tensorboard: as for `train`.
        wandb: as for `train`.
        figures: as for `train`.
        progress: as for `train`.
        distributed: each process that the cluster started trains its part, on its own devices.

    Raises:
        UserError: a setting does not fit, the directory holds another sweep, or a checkpoint cannot
            be read or written.
    """
    check_jax()
    if distributed and shard is not None:
        raise UserError("Got both --shard and --distributed: give one of them.")
    i, n = shard_of_process() if distributed else parse_shard(shard)
    wanted = make_sweep(config, betas, seeds, grid, shared_batches)
    check_strategy(strategy, members_at_once, jax.default_backend())
    check_installed(tensorboard=tensorboard, wandb=wandb)
    directory = Path(sweep_dir).expanduser()
    wanted = wanted._replace(base=sweepdir.placed(directory, wanted.base))
    for one in wanted.members():
        check_config(one.config)
    if jax.default_backend() == "cpu":
        keep_freed_memory()
    logged = {"tensorboard": tensorboard, "wandb": wandb, "group": directory.resolve().name}
    loggers = functools.partial(open_loggers, **logged)
    with Interrupt() as interrupt:
        # Whatever can be wrong is found before anything is written.
        check_path(directory)
        check_sweep(directory, wanted)
        trainers = Trainers(progress=progress)
        first = wanted.members()[0]
        trainer = trainers.of(first.config)
        check_memory(trainer)
        _check_all_fit(wanted.members(), trainer, progress)
        if member_dir(directory, first).is_dir():
            rundir.check_data(member_dir(directory, first), trainer.dataset)
            check_content(trainer.dataset, progress=progress)
        with interrupt.deferred():
            interrupt.check()
            mine = open_sweep(directory, wanted).members()[i - 1 :: n]
            runner = _Runner(directory, trainers, loggers, interrupt, figures, progress, wandb)
            runner.train(mine, strategy, members_at_once)
    return Sweep(directory)


def _check_all_fit(members: Sequence[Member], first: Trainer, progress: bool) -> None:
    """Raise what training would raise when it comes to a later member.

    Args:
        first: the trainer of the first member.
    """
    opened = {images_of(first.config): first.dataset}
    for alike in groups(members)[1:]:
        config = alike[0].config
        try:
            if (images := images_of(config)) not in opened:
                opened[images] = open_dataset(config, progress=progress)
            pieces(config, opened[images])
        except UserError as error:
            raise UserError(f"Member {alike[0].name}: {error}") from None


def make_sweep(
    config: Config,
    betas: Any,
    seeds: Any,
    grid: Mapping[str, Any],
    shared_batches: bool,
) -> SweepConfig:
    """The sweep that these arguments of `sweep` describe, whatever they are.

    Raises:
        UserError: a field is given twice, something is no list of values, or the number of seeds is
            not positive.
    """
    if isinstance(seeds, Integral):
        if seeds < 1:
            raise UserError(f"--seeds: got {seeds}, wanted at least 1.")
        seeds = range(config.seed, config.seed + int(seeds))
    lists = {"seeds": seeds, **grid} | ({} if betas is None else {"betas": betas})
    for name, given in lists.items():
        alone = isinstance(given, str) or getattr(given, "ndim", 1) == 0
        if alone or not isinstance(given, Iterable):
            raise UserError(f"{name}: got {given!r}, wanted a list of values, as [{given!r}].")
    values: Values = {name: _plain(given) for name, given in grid.items()}
    if betas is not None:
        if "beta" in values:
            raise UserError("Got beta twice: as --betas and in --grid.")
        betas = _plain(betas)
        values["beta"] = tuple(float(beta) if isinstance(beta, int) else beta for beta in betas)
    if "seed" not in values:
        values["seed"] = _plain(seeds)
    if shared_batches:
        config = config.replace(batch_seed=max(config.batch_seed, 0))
    return SweepConfig(config, values)


def _plain(values: Iterable[Any]) -> tuple[Any, ...]:
    """As a sweep's config.json has them: NumPy's numbers as those of Python."""
    return tuple(map(_plain_number, values))


def _plain_number(value: Any) -> Any:
    if isinstance(value, np.floating):
        return float(str(value))  # .001 of float32 is .001
    return value.item() if hasattr(value, "item") else value


@dataclass(frozen=True)
class _Runner:
    """Trains members of the sweep in a directory.

    Attributes:
        trainers: those that are built already need not be again.
        interrupt: asked between members; the others are left as they are then.
        figures: draw each member's figures at its end.
        wandb: the project of W&B that the loggers write to, for the record.
    """

    sweep_dir: Path
    trainers: Trainers
    loggers: OpenLoggers
    interrupt: Interrupt
    figures: bool
    progress: bool
    wandb: str | None

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
        with SweepProgress(total, visible=self.progress) as shown:
            for group in grouped:
                if not any(map(self._is_left, group)) or self.interrupt.requested:
                    continue
                self._train_group(group, strategy, at_once, shown)

    def _train_group(
        self, group: list[Member], strategy: str, at_once: int | None, shown: SweepProgress
    ) -> None:
        """Train members that share a trainer; its copies of the data are gone afterwards."""
        trainer = self.trainers.of(group[0].config)
        earlier = None if at_once or strategy != "auto" else self._earlier_plan(group)
        plan = earlier or make_plan(trainer, len(group), strategy, at_once, jax.default_backend())
        shown.say(_announced(plan, len(group)))
        devices = jax.local_devices()
        trainer = trainer.spread(plan.at_once, devices if plan.at_once > 1 else devices[:1])
        for batch in batches(group, plan.at_once):
            if not self.interrupt.requested:
                self._train_batch(batch, trainer, plan, shown)

    def _train_batch(
        self, batch: list[Member], trainer: Trainer, plan: Plan, shown: SweepProgress
    ) -> None:
        """Train the members of one batch, at the same time, from where they are."""
        with contextlib.ExitStack() as opened:
            writers = [self._opened(one, trainer, plan, opened) for one in batch]
            lanes = [loop.Lane(i, writer) for i, writer in enumerate(writers) if writer]
            if not lanes:
                return
            states = restored_together([lane.writer for lane in lanes])
            start = int(states[0].step)
            shown.begin([batch[lane.place].name for lane in lanes], start)
            remarks = {"strategy": plan.strategy, "members_at_once": plan.at_once}
            remarks |= {"wandb": self.wandb} if self.wandb else {}
            for lane in lanes:
                lane.writer.begin(start, sweep=remarks)
            states = loop.train_chunks(trainer, lanes, states, shown, self.interrupt)
            for lane, state in zip(lanes, states, strict=True):
                self._finish(batch[lane.place], lane.writer, state, shown)

    def _finish(self, one: Member, writer: Writer, state: TrainState, shown: SweepProgress) -> None:
        if not writer.failed:
            try:
                for line in (writer.end(state) or {}).get("warnings", {}).values():
                    shown.say(f"warning: {one.name}: {line}")
            except NotFiniteError as error:
                writer.failed = error
        if writer.failed:
            sweepdir.write_failed(self.sweep_dir, one, str(writer.failed))
            shown.say(f"{one.name} is left out from here on: {writer.failed}")

    def _opened(
        self, one: Member, trainer: Trainer, plan: Plan, opened: contextlib.ExitStack
    ) -> Writer | None:
        """The writer of a member that is not done, and that no one else is training."""
        directory = member_dir(self.sweep_dir, one)
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
        writer = open_writer(
            directory, one.config, trainer, self.loggers, figures=self.figures, keep=keep
        )
        try:
            found = opened.enter_context(writer)
        except rundir.BusyError:
            say(f"{one.name} is being trained by another process: it is left to that.")
            return None
        # Now that it is ours: the other process may just have finished it.
        return found if self._is_left(one) else None

    def _is_left(self, one: Member) -> bool:
        return status(self.sweep_dir, one) in ("missing", "begun")

    def _earlier_plan(self, group: list[Member]) -> Plan | None:
        """The plan by which a vmapped group was begun: other sizes would give other roundings."""
        for one in group:
            for session in reversed(rundir.read_sessions(member_dir(self.sweep_dir, one))):
                found = session.get("sweep")
                if found and found["strategy"] == "vmap":
                    return Plan("vmap", found["members_at_once"], 0)
        return None

    def _say(self, message: str) -> None:
        if self.progress:
            say(message)


def restored_together(writers: Sequence[Writer]) -> list[TrainState]:
    """The states of runs at the newest step that all of them have."""
    states = [writer.restore() for writer in writers]
    steps = [int(state.step) for state in states]
    if len(set(steps)) == 1:
        return states
    try:
        return [
            state if step == min(steps) else writer.restore(step=min(steps))
            for writer, state, step in zip(writers, states, steps, strict=True)
        ]
    except UserError:  # one of them has none of that step
        return [writer.restore(step=0) for writer in writers]


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
