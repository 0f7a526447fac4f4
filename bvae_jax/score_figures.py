"""The pictures that scores get: entries made into arrays, arrays made into files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bvae_jax import score_plots
from bvae_jax.metrics.base import varying
from bvae_jax.points import Representation
from bvae_jax.program import ACTIVE_NATS
from bvae_jax.scoring import Entry

PAIRS = 6
"""Latents and factors that are drawn against each other, at most."""
MOST_DRAWN = 100_000
"""Points in a figure, at most."""


def draw_score_figures(
    directory: Path, entries: dict[str, Entry], points: Representation, names: Sequence[str]
) -> None:
    """Pictures of what `mig` and `dci` found, where they are among the entries."""
    dead = ~varying(points.codes) if points.kl is None else points.kl <= ACTIVE_NATS
    found = entries.get("mig", {})
    if "mutual_information" in found:
        matrix, entropy = np.array(found["mutual_information"]), np.array(found["entropy"])
        score_plots.save_matrix(
            directory / "mutual_information.png",
            matrix,
            names,
            dead=dead,
            label=f"I(z; v) (nats), n = {found['n']:,}",
        )
        score_plots.save_best_latents(directory / "best_latents.png", matrix, entropy, names)
        share = matrix / np.where(entropy > 0, entropy, np.inf)
        pairs = [(int(share[:, k].argmax()), k) for k in range(len(names))]
        pairs = sorted(pairs, key=lambda pair: -share[pair])[:PAIRS]
        rows = slice(0, MOST_DRAWN)
        score_plots.save_latent_against_factor(
            directory / "latent_against_factor.png",
            points.codes[rows],
            points.factors[rows],
            pairs,
            names,
        )
    found = entries.get("dci", {})
    if "importance" in found:
        matrix = np.array(found["importance"], np.float64)
        score_plots.save_matrix(
            directory / "dci_importance.png",
            matrix,
            names,
            dead=dead,
            label=f"importance (columns sum to 1), n = {found['n']:,}",
        )
