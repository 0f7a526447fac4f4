"""The table of objectives. A new one is a file here and a line below."""

from bvae_jax.errors import unknown
from bvae_jax.objectives import beta_vae
from bvae_jax.objectives.base import Objective

OBJECTIVES: dict[str, Objective] = {
    "beta_vae": beta_vae.OBJECTIVE,
}


def get_objective(name: str) -> Objective:
    """The named objective.

    Raises:
        UserError: the name is not known.
    """
    if name not in OBJECTIVES:
        raise unknown("objective", name, OBJECTIVES)
    return OBJECTIVES[name]
