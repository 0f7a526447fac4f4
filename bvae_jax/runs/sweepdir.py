"""The files of a sweep: what it is, and how far each member is.

sweeps/NAME/  config.json  members/beta=4,seed=0/ (a run directory)  table.*  figures/  report.html
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

from bvae_jax.config import Config, differing_fields, with_places
from bvae_jax.errors import UserError
from bvae_jax.files import new_directory, read_json, write_json
from bvae_jax.runs import rundir
from bvae_jax.runs.grid import Member, Values, label, members, text

if TYPE_CHECKING:
    import pandas as pd

CONFIG, MEMBERS = "config.json", "members"
Status = Literal["done", "failed", "begun", "missing"]


class SweepConfig(NamedTuple):
    """What a sweep is.

    Attributes:
        base: what all members have in common.
        values: of the fields that vary.
    """

    base: Config
    values: Values

    def members(self) -> list[Member]:
        """As `grid.members`."""
        return members(self.base, self.values)


class Stored(TypedDict):
    """The contents of a sweep's config.json."""

    config: dict[str, Any]
    values: dict[str, list[str | float | bool | None]]


def open_sweep(sweep_dir: Path, wanted: SweepConfig) -> SweepConfig:
    """Make the directory of a sweep, or go on with that which is there and perhaps gets larger.

    Several processes may do so at the same time.

    Raises:
        UserError: it is no sweep, or another one.
    """
    if check_sweep(sweep_dir, wanted) is None and _create(sweep_dir, wanted):
        return wanted
    stored, grown = read_sweep(sweep_dir), check_sweep(sweep_dir, wanted) or wanted
    if grown != stored:
        write_json(sweep_dir / CONFIG, _json(grown))
        _move_members(sweep_dir, grown)
    return grown


def _move_members(sweep_dir: Path, sweep: SweepConfig) -> None:
    """Write down in each member where its images are now."""
    for one in sweep.members():
        directory = member_dir(sweep_dir, one)
        if (directory / rundir.CONFIG).exists():
            rundir.move(directory, one.config)


def placed(sweep_dir: Path, config: Config) -> Config:
    """The common config of a sweep with its images where they are now, as its members recorded it.

    Raises:
        UserError: the sweep that is there cannot be read.
    """
    if not (sweep_dir / CONFIG).exists():
        return config
    stored = read_sweep(sweep_dir)
    directories = [member_dir(sweep_dir, one) for one in stored.members()]
    begun = [directory for directory in directories if (directory / rundir.PROVENANCE).exists()]
    recorded = rundir.read_places(begun[0]) if begun else {}
    return with_places(config, stored.base, recorded)


def check_sweep(sweep_dir: Path, wanted: SweepConfig) -> SweepConfig | None:
    """What the sweep in a directory becomes by this one; None where there is none yet.

    Writes nothing.

    Raises:
        UserError: as `open_sweep`.
    """
    wanted.members()  # raises what is wrong with them
    if not (sweep_dir / CONFIG).exists():
        if sweep_dir.exists() and (not sweep_dir.is_dir() or any(sweep_dir.iterdir())):
            raise UserError(
                f"{sweep_dir} exists and is no sweep (it has no {CONFIG}): it is left alone. "
                "Choose another --sweep-dir."
            )
        return None
    stored = read_sweep(sweep_dir)
    if wanted.base.steps < stored.base.steps:
        raise UserError(
            f"--steps: got {wanted.base.steps}, but the sweep in {sweep_dir} is trained to "
            f"{stored.base.steps}: wanted at least that (--resume keeps it)."
        )
    grown = SweepConfig(wanted.base, _grown(sweep_dir, stored.values, wanted.values))
    differing = [
        line
        for line in differing_fields(stored.base, wanted.base)
        if line.split(":")[0] not in wanted.values
    ]
    if differing:
        raise UserError(
            f"{sweep_dir} holds a sweep with other settings ({'; '.join(differing)}). Go on with "
            "the old ones (--resume takes them from there), or choose another --sweep-dir."
        )
    return grown


def _create(sweep_dir: Path, sweep: SweepConfig) -> bool:
    """Whether the directory was made here: it appears whole, and only once."""
    if sweep_dir.is_symlink():  # a directory cannot take a link's place, but its target's
        sweep_dir = Path(os.path.realpath(sweep_dir))
    try:
        with new_directory(sweep_dir) as part:
            write_json(part / CONFIG, _json(sweep))
            (part / MEMBERS).mkdir()
    except OSError:
        if not (sweep_dir / CONFIG).exists():
            raise
        return False  # another process was faster
    return True


def _json(sweep: SweepConfig) -> dict[str, Any]:
    values = {name: list(given) for name, given in sweep.values.items()}
    return {"config": sweep.base.to_dict(), "values": values}


def read_sweep(sweep_dir: Path) -> SweepConfig:
    """The sweep in a directory.

    Raises:
        UserError: there is none, or its config is damaged.
    """
    path = sweep_dir / CONFIG
    if not path.is_file():
        why = f"it has no {CONFIG}" if sweep_dir.exists() else "there is no such file or directory"
        raise UserError(f"No sweep in {sweep_dir}: {why}. Give the directory of one.")
    found = read_json(path)
    if not {"config", "values"} <= set(found):
        raise UserError(f"{path} is that of no sweep: wanted config and values. Is it a run?")
    stored: Stored = read_json(path, Stored)
    values = {name: tuple(given) for name, given in stored["values"].items()}
    try:
        sweep = SweepConfig(rundir.parse_config(path, stored["config"]), values)
        sweep.members()
    except UserError as error:
        told = str(error) if str(path) in str(error) else f"{path}: {error}"
        begun = sorted((sweep_dir / MEMBERS).glob("*/"))
        lacking = filter(None, map(rundir.lacks_plugin, begun))
        raise next(lacking, UserError(told)) from None
    return sweep


def _grown(sweep_dir: Path, stored: Values, wanted: Mapping[str, Sequence[Any]]) -> Values:
    """The values of a sweep to which some are added."""
    if set(stored) != set(wanted):
        raise UserError(
            f"{sweep_dir} holds a sweep over {', '.join(stored)}, got one over "
            f"{', '.join(wanted)}: choose another --sweep-dir."
        )
    for name, given in stored.items():
        lost = [text(value) for value in given if value not in wanted[name]]
        if lost:
            raise UserError(
                f"{name}: the sweep in {sweep_dir} has {', '.join(lost)} too. Values can be "
                "added to a sweep, not taken away: name them all, or choose another --sweep-dir."
            )
    return {
        name: (*given, *(value for value in wanted[name] if value not in given))
        for name, given in stored.items()
    }


def member_dir(sweep_dir: Path, member: Member) -> Path:
    return sweep_dir / MEMBERS / member.name


def status(sweep_dir: Path, member: Member) -> Status:
    """How far a member is.

    Raises:
        UserError: what is in its directory is another run.
    """
    directory = member_dir(sweep_dir, member)
    if not (directory / rundir.CONFIG).exists():
        return "missing"
    differing = differing_fields(rundir.read_config(directory), member.config)
    if differing:
        raise UserError(
            f"{directory} holds another run than the sweep's ({'; '.join(differing)}): "
            "move it away."
        )
    if (directory / rundir.FAILED).exists():
        return "failed"
    summary = rundir.read_summary(directory)
    return "done" if summary and summary["step"] >= member.config.steps else "begun"


def write_failed(sweep_dir: Path, member: Member, reason: str) -> None:
    """A member cannot go on; `bvae sweep` passes it over from now on."""
    write_json(member_dir(sweep_dir, member) / rundir.FAILED, {"reason": reason})


def summary_table(sweep_dir: Path, members: Sequence[Member]) -> "pd.DataFrame":
    """A row for each member by its name: `setting`, what varies, `status`, its summary's numbers.

    Numbers of members that are not done are nan.
    """
    import pandas as pd

    rows = []
    for one in members:
        row: dict[str, Any] = {"member": one.name, "setting": label(one.values), **one.values}
        row["status"] = status(sweep_dir, one)
        if row["status"] == "done":
            row |= plain_numbers(read_json(member_dir(sweep_dir, one) / rundir.SUMMARY))
        rows.append(row)
    table = pd.DataFrame(rows).set_index("member")
    return table.assign(**{n: math.nan for n in ("nll", "kl", "elbo") if n not in table})


def plain_numbers(summary: dict[str, Any]) -> dict[str, float]:
    """The numbers of a summary, without lists, words and what is a setting."""
    return {
        name: float(value)
        for name, value in summary.items()
        if isinstance(value, int | float) and name != "beta"
    }
