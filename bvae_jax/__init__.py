"""The laboratory for beta-VAEs in JAX.

from bvae_jax import Config, run
result = run(Config(beta=4))
"""

from typing import TYPE_CHECKING

from bvae_jax.beta_units import convert_beta
from bvae_jax.config import Config, ScoreConfig
from bvae_jax.errors import UserError

if TYPE_CHECKING:
    from bvae_jax.elbo_evaluation import evaluate_elbo
    from bvae_jax.evaluation import evaluate, score_file
    from bvae_jax.runner import RunResult, load, run

__all__ = [
    "Config",
    "RunResult",
    "ScoreConfig",
    "UserError",
    "convert_beta",
    "evaluate",
    "evaluate_elbo",
    "load",
    "run",
    "score_file",
]


def __dir__():
    return __all__


def __getattr__(name: str):
    # Importing JAX and Orbax takes seconds: only those wait who train.
    if name in ("evaluate", "score_file"):
        from bvae_jax import evaluation

        return getattr(evaluation, name)
    if name == "evaluate_elbo":
        from bvae_jax import elbo_evaluation

        return elbo_evaluation.evaluate_elbo
    if name in __all__:
        from bvae_jax import runner

        return getattr(runner, name)
    raise AttributeError(f"module 'bvae_jax' has no attribute {name!r}")
