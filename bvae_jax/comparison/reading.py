"""From the directories of sweeps to what is known of their members."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bvae_jax import rundir
from bvae_jax.grid import Member, label
from bvae_jax.sweepdir import member_dir, status


def summary_table(sweep_dir: Path, members: Sequence[Member]) -> pd.DataFrame:
    """A row for each member by its name: `setting`, what varies, `status`, its summary's numbers.

    Numbers of members that are not done are nan.
    """
    rows = []
    for one in members:
        row: dict[str, Any] = {"member": one.name, "setting": label(one.values), **one.values}
        row["status"] = status(sweep_dir, one)
        if row["status"] == "done":
            row |= plain_numbers(rundir.read_json(member_dir(sweep_dir, one) / rundir.SUMMARY))
        rows.append(row)
    table = pd.DataFrame(rows).set_index("member")
    return table.assign(**{n: float("nan") for n in ("nll", "kl", "elbo") if n not in table})


def plain_numbers(summary: dict[str, Any]) -> dict[str, float]:
    """The numbers of a summary, without lists, words and what is a setting."""
    return {
        name: float(value)
        for name, value in summary.items()
        if isinstance(value, int | float) and name != "beta"
    }
