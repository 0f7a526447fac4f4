"""The table of objectives. A new one is a file here and a line below; from any
script, `bvae_jax.register`."""

from bvae_jax.errors import unknown
from bvae_jax.objectives import (
    ada,
    beta_tcvae,
    beta_vae,
    dip_vae,
    factor_vae,
    hfs_vae,
    info_vae,
    qlae,
)
from bvae_jax.objectives.base import Objective

OBJECTIVES: dict[str, Objective] = {
    "vae": beta_vae.VAE,
    "ae": beta_vae.AE,
    "beta_vae": beta_vae.BETA_VAE,
    "annealed_vae": beta_vae.ANNEALED_VAE,
    "beta_tcvae": beta_tcvae.OBJECTIVE,
    "beta_tcvae_mss": beta_tcvae.STRATIFIED,
    "factor_vae": factor_vae.OBJECTIVE,
    "dip_vae_i": dip_vae.FIRST,
    "dip_vae_ii": dip_vae.SECOND,
    "info_vae": info_vae.OBJECTIVE,
    "control_vae": beta_vae.CONTROL_VAE,
    "lambda_beta_vae": beta_vae.LAMBDA_BETA_VAE,
    "hfs_vae": hfs_vae.OBJECTIVE,
    "qlae": qlae.OBJECTIVE,
    "ada_gvae": ada.GVAE,
    "ada_mlvae": ada.MLVAE,
}
"""What `--objective` may be."""


def get_objective(name: str) -> Objective:
    """The named objective.

    Raises:
        UserError: the name is not known.
    """
    if name not in OBJECTIVES:
        raise unknown("objective", name, OBJECTIVES)
    return OBJECTIVES[name]
