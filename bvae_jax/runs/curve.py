"""The rate–distortion curve of one run: what a network for many β is at each of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from bvae_jax.gates import Rates
from bvae_jax.runs.grid import label
from bvae_jax.runs.trainer import Trainer, eval_split
from bvae_jax.types import TrainState

POINTS = 9
"""Of the curve."""
NUMBERS = ("nll", "nll_error", "kl", "kl_error", "elbo", "active_latents")


def betas_of(rates: Rates) -> list[float]:
    """Values over the range, at equal distances on a logarithmic scale; its ends are among them."""
    inner = [float(f"{beta:.3g}") for beta in np.geomspace(rates.low, rates.high, POINTS)[1:-1]]
    return sorted({rates.low, *(b for b in inner if rates.low < b < rates.high), rates.high})


def rate_distortion(trainer: Trainer, state: TrainState, rates: Rates) -> list[dict[str, Any]]:
    """Evaluations at `betas_of`: `beta`, and of the evaluation images those of `NUMBERS`."""
    split, points = eval_split(trainer.config), []
    for beta in betas_of(rates):
        at = state._replace(hyper=state.hyper | {"beta": jnp.float32(beta)})
        found = trainer.evaluate(at, split)[split]
        points.append({"beta": beta} | {name: found[name] for name in NUMBERS if name in found})
    return points


def draw_rate_distortion(path: Path, points: Sequence[Mapping[str, Any]]) -> None:
    """The figure of `rate_distortion`."""
    import pandas as pd

    from bvae_jax.plots.comparison import Setting, save_rate_distortion

    settings = [Setting(label({"beta": point["beta"]}), point["beta"]) for point in points]
    members = pd.DataFrame(points).assign(setting=[setting.label for setting in settings])
    save_rate_distortion(path, members, settings)
