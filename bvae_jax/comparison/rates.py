"""Runs for many β beside sweeps: what counts as their members, and how far they are from these."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bvae_jax.comparison.base import Comparison
from bvae_jax.comparison.statistics import interval
from bvae_jax.config import Config
from bvae_jax.errors import UserError
from bvae_jax.files import read_json
from bvae_jax.runs import rundir
from bvae_jax.runs.figures import betas_of
from bvae_jax.runs.grid import Member, text
from bvae_jax.runs.hyper import many_rates, resolved
from bvae_jax.runs.sweepdir import (
    CONFIG,
    Status,
    SweepConfig,
    member_dir,
    read_sweep,
    status,
)

TITLE = "One run for many β against the sweep"


class Candidate(NamedTuple):
    """A member of one of the sweeps that are compared.

    Attributes:
        reason: why it failed, or why its directory cannot be read.
        setting: the label of its setting.
    """

    sweep_dir: Path
    sweep: SweepConfig
    member: Member
    run_dir: Path
    status: Status
    reason: str = ""
    setting: str = ""

    @property
    def config(self) -> Config:
        return self.member.config


def sweep_of(path: Path, betas: Iterable[float] = ()) -> SweepConfig:
    """The sweep in a directory. A run for many β is a sweep over β, and so is one over its seeds.

    Args:
        betas: to look at such runs at; where none is in their range, those of their curve.

    Raises:
        UserError: it holds neither.
    """
    is_run = (path / CONFIG).is_file() and not (path / "members").is_dir()
    if not is_run or "values" in read_json(path / CONFIG):
        sweep = read_sweep(path)
    else:
        config = rundir.read_config(path)
        if not config.multi_rate:
            raise UserError(
                f"{path} is a run for one β, wanted a sweep, or a run of --multi-rate LOW:HIGH."
            )
        sweep = SweepConfig(config, {"seed": (config.seed,)})
    rates = many_rates(resolved(sweep.base))
    if rates is None:
        return sweep
    inside = tuple(sorted({beta for beta in betas if rates.low <= beta <= rates.high}))
    return sweep._replace(values=sweep.values | {"beta": inside or tuple(betas_of(rates))})


def common_betas(sweep_dirs: Iterable[Path]) -> list[float]:
    """The β of sweeps whose runs have one each."""
    sweeps = [sweep_of(path) for path in sweep_dirs]
    plain = [sweep for sweep in sweeps if not sweep.base.multi_rate]
    found = {member.config.value("beta") for sweep in plain for member in sweep.members()}
    return sorted(found - {None})


def candidates(path: Path, sweep: SweepConfig) -> list[Candidate]:
    """Members of `sweep_of`: of runs for many β, each at each."""
    if not sweep.base.multi_rate:
        return [_candidate(path, sweep, member) for member in sweep.members()]
    values = dict(sweep.values)
    betas = values.pop("beta")
    members = SweepConfig(sweep.base, values).members()
    if (path / "members").is_dir():
        whole = [_candidate(path, sweep, member) for member in members]
    else:
        summary, whole = rundir.read_summary(path), []
        for member in members:
            done = summary and summary["step"] >= member.config.steps
            whole.append(Candidate(path, sweep, member, path, "done" if done else "begun"))
    return [
        one._replace(
            member=Member(
                f"beta={text(beta)},{one.member.name}",
                one.config.replace(beta=beta),
                one.member.values | {"beta": beta},
            ),
            run_dir=rundir.at_beta(one.run_dir, beta) if one.status == "done" else one.run_dir,
        )
        for beta in betas
        for one in whole
    ]


def _candidate(path: Path, sweep: SweepConfig, member: Member) -> Candidate:
    """A member that cannot be read counts as failed: the rest is compared without it."""
    directory = member_dir(path, member)
    try:
        found = status(path, member)
        reason = rundir.read_failed(directory) if found == "failed" else ""
    except UserError as error:
        found, reason = "failed", str(error)
    return Candidate(path, sweep, member, directory, found, reason)


class Difference(NamedTuple):
    """A run for many β at one of them against runs that were trained for it; nats per image.

    Attributes:
        loss: mean of D + β R over the sweep's seeds; `low` and `high`: its 95 % interval, nan of
            one seed.
        more: by how much that of the runs for many β is larger.
        rate, distortion: by how much these are.
    """

    beta: float
    loss: float
    low: float
    high: float
    more: float
    rate: float
    distortion: float

    @property
    def told_apart(self) -> bool:
        """Whether the loss is outside the sweep's interval."""
        return not self.low <= self.loss + self.more <= self.high and not math.isnan(self.low)


def differences(comparison: Comparison) -> list[Difference]:
    """At each β that both have; none where there are no such runs, or other fields vary as well."""
    rows: Any = comparison.members
    if set(comparison.varied) != {"beta", "multi_rate"} or not {"kl", "nll"} <= set(rows):
        return []
    many, found = rows[rows["multi_rate"] != ""], []
    for beta in sorted(set(many["beta"])):
        one, all_of = (_points(of[of["beta"] == beta]) for of in (rows.drop(many.index), many))
        if not len(one):
            continue
        weights = np.array([beta, 1.0])
        seen = interval(one @ weights)
        rate, distortion = all_of.mean(axis=0) - one.mean(axis=0)
        more = float((all_of @ weights).mean() - seen.center)
        numbers = (seen.center, seen.low, seen.high, more, float(rate), float(distortion))
        found.append(Difference(beta, *numbers))
    return found


def more_varied(comparison: Comparison) -> list[str]:
    """Why there are no `differences` though there are runs for many β and others: what varies
    beside β."""
    plain = {"beta", "multi_rate"}
    found = [name for name in comparison.varied if name not in plain]
    return found if plain < set(comparison.varied) else []


def _points(rows: pd.DataFrame) -> np.ndarray:
    """[run, 2]: rate and distortion."""
    return rows[["kl", "nll"]].to_numpy(np.float64)


COLUMNS = ("β", "sweep: D + β R", "95 %", "one run: more by", "rate", "distortion")


def cells(found: Sequence[Difference]) -> list[list[str]]:
    """Rows of a table under `COLUMNS`; a star where the loss is outside the sweep's interval."""
    return [
        [
            text(one.beta),
            f"{one.loss:.2f}",
            "-" if math.isnan(one.low) else f"{one.low:.2f} to {one.high:.2f}",
            _signed(one.more) + " *" * one.told_apart,
            _signed(one.rate),
            _signed(one.distortion),
        ]
        for one in found
    ]


def differences_text(found: Sequence[Difference]) -> str:
    """As Markdown, nats per image; "" of none."""
    if not found:
        return ""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *cells(found)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"## {TITLE}\n\nNats per image; {NOTE}.\n\n{table}\n"


NOTE = "* outside the sweep's 95 % interval of the mean over its seeds"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
