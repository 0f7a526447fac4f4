"""The laboratory for beta-VAEs in JAX.

import bvae_jax as bvae

run = bvae.train(bvae.Config(beta=4), "runs/b4")
"""

import importlib
from typing import TYPE_CHECKING

from bvae_jax.beta_units import convert_beta
from bvae_jax.config import Config, ScoreConfig
from bvae_jax.errors import UserError
from bvae_jax.presets import preset

if TYPE_CHECKING:
    from bvae_jax import metrics
    from bvae_jax.comparison.compare import compare
    from bvae_jax.comparison.suggest import suggest
    from bvae_jax.evaluation.elbo import evaluate_elbo
    from bvae_jax.evaluation.evaluate import evaluate, score_file
    from bvae_jax.metrics.scoring import score
    from bvae_jax.registry import register
    from bvae_jax.runs.run import Run, load
    from bvae_jax.runs.sweep import Sweep, sweep
    from bvae_jax.runs.train import train

__all__ = [
    "Config",
    "Run",
    "ScoreConfig",
    "Sweep",
    "UserError",
    "compare",
    "convert_beta",
    "evaluate",
    "evaluate_elbo",
    "load",
    "metrics",
    "preset",
    "register",
    "score",
    "score_file",
    "suggest",
    "sweep",
    "train",
]


def __dir__():
    return __all__


_MODULES = {
    "Run": "runs.run",
    "Sweep": "runs.sweep",
    "compare": "comparison.compare",
    "evaluate": "evaluation.evaluate",
    "evaluate_elbo": "evaluation.elbo",
    "load": "runs.run",
    "register": "registry",
    "train": "runs.train",
    "score": "metrics.scoring",
    "score_file": "evaluation.evaluate",
    "suggest": "comparison.suggest",
    "sweep": "runs.sweep",
}


def __getattr__(name: str):
    # Importing JAX and Orbax takes seconds: only those wait who train.
    if name in _MODULES:
        return getattr(importlib.import_module(f"bvae_jax.{_MODULES[name]}"), name)
    if name == "metrics":
        return importlib.import_module("bvae_jax.metrics")
    if name == "__version__":
        from importlib.metadata import version

        return version("bvae_jax")
    raise AttributeError(f"module 'bvae_jax' has no attribute {name!r}")
