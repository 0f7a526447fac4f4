"""What stops a run: each of these raises a UserError, or does nothing."""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from bvae_jax.runs import rundir
from bvae_jax.config import Config, differing_fields
from bvae_jax.errors import UserError
from bvae_jax.runs.program import Program


class NotFiniteError(UserError):
    """A number of a run is not finite any more: it cannot go on."""


def check_same(stored: Config, wanted: Config, directory: Path) -> None:
    """Refuse to resume with another config than the run's own."""
    differing = differing_fields(stored, wanted)
    if differing:
        raise UserError(
            f"{directory} was begun with another config ({'; '.join(differing)}). Resume with the "
            "old values, or start another --run-dir."
        )


def make_config_check(directory: Path, config: Config) -> Callable[[dict[str, Any]], None]:
    """Refuses a checkpoint of another config than config.json: somebody has edited that file."""

    def check(meta: dict[str, Any]) -> None:
        differing = differing_fields(Config.from_dict(meta["config"]), config)
        if differing:
            raise UserError(
                f"{directory / rundir.CONFIG} was edited: the checkpoint was made with other "
                f"values ({'; '.join(differing)}). Put the old values back."
            )

    return check


def check_memory(program: Program) -> None:
    """Refuse what cannot fit, by a lower bound: the data that are on the device already,
    parameters, gradient, Adam's moments, one batch."""
    config, device = program.config, jax.local_devices()[0]
    have = memory_of_device(device)
    parameters = sum(x.size for x in jax.tree.leaves(jax.eval_shape(program.init).params))
    need = 4 * (4 * parameters + config.batch_size * math.prod(program.dataset.image_shape))
    need += program.data_bytes
    if need > have:
        raise UserError(
            f"Not enough memory: {parameters:,} parameters, batches of {config.batch_size:,} and "
            f"the data need more than {need / 1e9:,.0f} GB, {device.device_kind} has "
            f"{have / 1e9:,.0f} GB. Lower --latents or --batch-size."
        )


def memory_of_device(device: Any) -> float:
    """Bytes; infinity where nobody knows."""
    if device.platform == "cpu":
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return float((device.memory_stats() or {}).get("bytes_limit", math.inf))


def check_finite(
    means: dict[str, Any], where: str, config: Config, saved: Callable[[], Sequence[int]]
) -> None:
    """Stop before anything that is not finite is saved.

    Args:
        means: of steps, or of an evaluation.
        where: which, in words.
        saved: gives the steps of the checkpoints that are kept.

    Raises:
        NotFiniteError: some of `means` are not.
    """
    values = {k: v if isinstance(v, list) else [v] for k, v in means.items()}
    bad = [name for name, numbers in values.items() if not all(map(math.isfinite, numbers))]
    if bad:
        steps = saved()
        kept = f"the checkpoint of step {steps[-1]} is kept" if steps else "none was saved yet"
        raise NotFiniteError(
            f"Not finite {where}: {', '.join(bad)} (learning rate "
            f"{config.learning_rate}); {kept}. Try a lower --learning-rate."
        )
