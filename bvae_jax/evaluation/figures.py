"""The pictures that scores get: entries made into arrays, arrays made into files."""

from pathlib import Path

import numpy as np

from bvae_jax.continuous import BINS
from bvae_jax.metrics.base import active, discretize, mutual_information, ratio
from bvae_jax.metrics.codes import Codes
from bvae_jax.metrics.scoring import Entry
from bvae_jax.plots import scores as score_plots

SHUFFLES = 5
PAIRS = 6
"""Latents and factors that are drawn against each other, at most."""
MOST_DRAWN = 100_000
"""Points in a figure, at most."""


def draw_score_figures(directory: Path, entries: dict[str, Entry], points: Codes) -> None:
    """Pictures of what `mig` and `dci` found, where they are among the entries, as PNG and PDF."""
    names, unused = points.names(), ~active(points.codes, points.kl)
    found = entries.get("mig", {})
    if "mutual_information" in found:
        matrix, entropy = np.array(found["mutual_information"]), np.array(found["entropy"])
        score_plots.save_matrix(
            directory / "mutual_information",
            np.maximum(matrix - _by_chance(points, found["n"]), 0),
            names,
            inactive=unused,
            label=f"I(z; v) above chance (nats), n = {found['n']:,}",
        )
        score_plots.save_best_latents(directory / "best_latents", matrix, entropy, names)
        share = np.nan_to_num(ratio(matrix, entropy))
        share[unused] = 0
        pairs = [(int(share[:, k].argmax()), k) for k in range(len(names))]
        pairs = sorted((p for p in pairs if share[p] > 0), key=lambda pair: -share[pair])[:PAIRS]
        rows, path = slice(0, MOST_DRAWN), directory / "latent_against_factor"
        for kind in ("png", "pdf"):  # that of earlier codes, where no latent is active now
            path.with_suffix(f".{kind}").unlink(missing_ok=True)
        if pairs:
            classes = np.isnan(points.periods())
            units = ["class index" if one else f"one of {BINS} bins" for one in classes]
            score_plots.save_latent_against_factor(
                path, points.codes[rows], points.factors[rows], pairs, names, units
            )
    found = entries.get("dci", {})
    if "importance" in found:
        matrix = np.array(found["importance"], np.float64)
        score_plots.save_matrix(
            directory / "dci_importance",
            matrix,
            names,
            inactive=unused,
            label=f"importance (columns sum to 1), n = {found['n']:,}",
        )


def _by_chance(points: Codes, n: int) -> np.ndarray:
    """[latent, factor] nats that counting finds in n points where there is nothing to be found."""
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(points.codes))[:n]
    codes, factors = discretize(points.codes[rows]), points.factors[rows]
    shuffled = [mutual_information(codes, rng.permutation(factors)) for _ in range(SHUFFLES)]
    return np.mean(shuffled, axis=0)
