"""`bvae sweep` from Python: a grid of members trained together."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from bvae_jax.runtime import (
    keep_freed_memory,
)
from bvae_jax.runs.checkpoint import check_path
from bvae_jax.runs.checks import check_memory
from bvae_jax.config import Config
from bvae_jax.data.store import check_content
from bvae_jax.errors import UserError
from bvae_jax.runs.grid import Values, groups
from bvae_jax.runtime import (
    Interrupt,
)
from bvae_jax.runs.loggers import check_installed, open_loggers
from bvae_jax.runs.programs import Programs
from bvae_jax.runs.rundir import check_data
from bvae_jax.runs.run import check_config
from bvae_jax.runs.mesh import stack
from bvae_jax.runs.placement import check_strategy, parse_shard, shard_of_process
from bvae_jax.runs.sweep_runner import SweepRunner
from bvae_jax.runs.sweepdir import (
    Status,
    SweepConfig,
    check_sweep,
    member_dir,
    open_sweep,
    placed,
    read_sweep,
    status,
    summary_table,
)
from bvae_jax.types import TrainState


class Sweep(NamedTuple):
    """A sweep, and how far its members are.

    Attributes:
        sweep: its members, also those of other shards.
        statuses: member's name -> "done", "failed" (a number was not finite), "begun" or
            "missing".
    """

    sweep_dir: Path
    sweep: SweepConfig
    statuses: dict[str, Status]

    @property
    def table(self):
        """A pandas.DataFrame: a row for each member, with what varies and its summary's numbers."""
        return summary_table(self.sweep_dir, self.sweep.members())

    @property
    def states(self) -> list[TrainState]:
        """A stack of states for each group of members that share a program, from checkpoints.

        `bvae_jax.member(result.states, i)` is that of the i-th row of the table.

        Raises:
            UserError: a member has no checkpoint.
        """
        stacks, programs = [], Programs()
        for group in groups(self.sweep.members()):
            runs = [programs.load(member_dir(self.sweep_dir, one)) for one in group]
            stacks.append(stack([run.state for run in runs]))
        return stacks


def sweep(
    config: Config = Config(),
    sweep_dir: str | Path = "sweeps/sweep",
    *,
    betas: Sequence[float] | None = None,
    seeds: int | Sequence[int] = 1,
    grid: Mapping[str, Sequence[Any]] = {},
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
        tensorboard: as for `run`.
        wandb: as for `run`.
        figures: as for `run`.
        progress: as for `run`.
        distributed: each process that the cluster started trains its part, on its own devices.

    Raises:
        UserError: a setting does not fit, the directory holds another sweep, or a checkpoint cannot
            be read or written.
    """
    if distributed and shard is not None:
        raise UserError("Got both --shard and --distributed: give one of them.")
    i, n = shard_of_process() if distributed else parse_shard(shard)
    wanted = make_sweep(config, betas, seeds, grid, shared_batches)
    check_strategy(strategy, members_at_once, jax.default_backend())
    check_installed(tensorboard=tensorboard, wandb=wandb)
    directory = Path(sweep_dir).expanduser()
    wanted = wanted._replace(base=placed(directory, wanted.base))
    for one in wanted.members():
        check_config(one.config)
    if jax.default_backend() == "cpu":
        keep_freed_memory()
    loggers = functools.partial(open_loggers, tensorboard=tensorboard, wandb=wandb)
    with Interrupt() as interrupt:
        # Whatever can be wrong is found before anything is written.
        check_path(directory)
        check_sweep(directory, wanted)
        programs = Programs(progress=progress)
        first = wanted.members()[0]
        program = programs.of(first.config)
        check_memory(program)
        if member_dir(directory, first).is_dir():
            check_data(member_dir(directory, first), program.dataset)
            check_content(program.dataset, progress=progress)
        with interrupt.deferred():
            interrupt.check()
            mine = open_sweep(directory, wanted).members()[i - 1 :: n]
            runner = SweepRunner(directory, programs, loggers, interrupt, figures, progress)
            runner.train(mine, strategy, members_at_once)
    return result(directory)


def make_sweep(
    config: Config,
    betas: Sequence[float] | None,
    seeds: int | Sequence[int],
    grid: Mapping[str, Sequence[Any]],
    shared_batches: bool,
) -> SweepConfig:
    """The sweep that these arguments describe.

    Raises:
        UserError: a field is given twice, or the number of seeds is not positive.
    """
    values: Values = {name: tuple(given) for name, given in grid.items()}
    if betas is not None:
        if "beta" in values:
            raise UserError("Got beta twice: as --betas and in --grid.")
        values["beta"] = tuple(float(beta) for beta in betas)
    if "seed" not in values:
        if isinstance(seeds, int):
            if seeds < 1:
                raise UserError(f"--seeds: got {seeds}, wanted at least 1.")
            seeds = range(config.seed, config.seed + seeds)
        values["seed"] = tuple(seeds)
    if shared_batches:
        config = dataclasses.replace(config, batch_seed=max(config.batch_seed, 0))
    return SweepConfig(config, values)


def result(sweep_dir: Path) -> Sweep:
    """What is in the directory of a sweep.

    Raises:
        UserError: there is none.
    """
    found = read_sweep(sweep_dir)
    statuses: dict[str, Status] = {one.name: status(sweep_dir, one) for one in found.members()}
    return Sweep(sweep_dir, found, statuses)
