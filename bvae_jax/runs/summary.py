"""The end of a run in numbers."""

import hashlib
import math
from typing import Any

import numpy as np

from bvae_jax.runs.checkpoint import fingerprint
from bvae_jax.runs.program import Program, calibrated, eval_split
from bvae_jax.step import weights
from bvae_jax.types import TrainState


def summarise(
    program: Program, state: TrainState, evaluation: dict[str, Any], times: dict[str, float]
) -> dict[str, Any]:
    """The contents of summary.json.

    Args:
        evaluation: of this state: the numbers of the evaluation images.
        times: how long it took, by name.
    """
    return {
        "step": int(state.step),
        **{name: evaluation[name] for name in REPORTED if name in evaluation},
        **meaning_of_beta(program, state, evaluation.get("beta")),
        **{n: evaluation[n] for n in ("kl_per_latent", "active_latents") if n in evaluation},
        "split": eval_split(program.config),
        "eval_images": int(program.eval_indices.size),
        **times,
        "params_sha256": fingerprint(weights(state)),
    }


def describe(program: Program) -> dict[str, Any]:
    """The data of a run, for provenance.json: which images, and how they are divided."""
    dataset, split = program.dataset, program.split
    return {
        "identity": dataset.identity,
        "source": dataset.source,
        "licence": dataset.licence,
        "citation": dataset.citation,
        "image_shape": list(dataset.image_shape),
        "images": dataset.size,
        **{name: len(indices) for name, indices in split._asdict().items()},
        "split_sha256": hashlib.sha256(b"".join(map(np.ndarray.tobytes, split))).hexdigest(),
    }


REPORTED = ("loss", "nll", "nll_error", "kl", "kl_error", "elbo", "bits_per_dim", "iwae")
"""Numbers of an evaluation that stand in summary.json."""


def meaning_of_beta(
    program: Program, state: TrainState, beta: float | None
) -> dict[str, float | None]:
    """The weight of the KL in three units; None where an objective weighs it otherwise.

    Args:
        beta: what the objective reports as its weight of the KL, after schedules.

    Returns:
        `beta`; `beta_norm`, beta times latents over pixels (Higgins et al. 2017); `beta_effective`,
        beta times the likelihood's scale, such as sigma^2: what would be beta with the same
        likelihood unscaled, such as a Gaussian of sigma 1.
    """
    names = ("beta", "beta_norm", "beta_effective")
    if beta is None:
        return dict.fromkeys(names)
    beta = float(f"{beta:.6g}")  # without the digits that float32 adds
    likelihood = calibrated(program, weights(state))
    own = {name: weights(state)[name] for name, _ in likelihood.own}
    pixels = math.prod(program.dataset.image_shape)
    scale = float(likelihood.scale(own))
    return dict(
        zip(names, (beta, beta * program.config.latents / pixels, beta * scale), strict=True)
    )
