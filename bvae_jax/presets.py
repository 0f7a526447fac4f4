"""Settings of published experiments, by the name of the paper, and of one for a laptop.

Imports no JAX. What a paper does not say, or what is known from memory only, stands in
`Preset.unsure`.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from bvae_jax.config import FIELDS, HYPERPARAMETERS, OWN_HYPERPARAMETERS, RESUMABLE, Config, flag
from bvae_jax.errors import UserError, unknown


class Preset(NamedTuple):
    """Fields of `Config` and where they come from.

    Attributes:
        source: paper and section, or code.
        settings: name of a field -> value; the others keep their defaults.
        unsure: what of it was not read in the source.
    """

    source: str
    settings: dict[str, Any]
    unsure: str = ""


STUDY = {"holdout": 0.0, "latents": 10, "batch_size": 64, "learning_rate": 1e-4, "steps": 300_000}
"""Of the large study, Locatello et al. 2019, table 5: training on all images."""

PRESETS: dict[str, Preset] = {
    "higgins2017-dsprites": Preset(
        "Higgins et al., beta-VAE, 2017, table 1 (2D shapes)",
        STUDY
        | {"network": "mlp", "objective": "beta_vae", "beta": 4.0}
        | {"optimizer": "adagrad", "learning_rate": 1e-2},
        unsure="learning rate from memory; batch size and steps of the study of 2019",
    ),
    "burgess2018": Preset(
        "Burgess et al., Understanding disentangling in beta-VAE, 2018, section 5 and appendix A",
        STUDY
        | {"network": "burgess", "objective": "annealed_vae", "gamma": 1000.0, "capacity": 25.0}
        | {"capacity_schedule": "linear:steps=100000", "learning_rate": 5e-4, "steps": 100_000},
        unsure="batch size of the study of 2019",
    ),
    "dubois2019": Preset(
        "Dubois et al., Disentangling VAE, https://github.com/YannDubs/disentangling-vae, 2019",
        STUDY
        | {"network": "burgess", "objective": "beta_vae", "beta": 4.0, "learning_rate": 5e-4}
        | {"beta_schedule": "linear:steps=10000", "steps": 345_600},
        unsure="their weights start by He's rule, and each image is seen once in an epoch",
    ),
    "kim2018-dsprites": Preset(
        "Kim & Mnih, Disentangling by Factorising, 2018, appendix A",
        STUDY
        | {"network": "conv", "objective": "factor_vae", "gamma": 35.0, "aux_learning_rate": 1e-4}
        | {"batch_size": 128},
        unsure="two batches of 64, here halves of one; a layer of 256 where the paper may have 128",
    ),
    "chen2018": Preset(
        "Chen et al., Isolating Sources of Disentanglement in VAEs, 2018, appendix and code",
        STUDY
        | {"network": "mlp", "objective": "beta_tcvae", "beta": 6.0, "batch_size": 2048}
        | {"learning_rate": 1e-3, "steps": 18_000},
        unsure="50 epochs of 360 steps, from memory",
    ),
    "kumar2018-i": Preset(
        "Kumar et al., Variational Inference of Disentangled Latent Concepts, 2018",
        STUDY
        | {"network": "conv", "objective": "dip_vae_i", "lambda_od": 10.0}
        | {"lambda_d_factor": 10.0},
        unsure="network, batch size, learning rate and steps are not the paper's: study of 2019",
    ),
    "kumar2018-ii": Preset(
        "Kumar et al., Variational Inference of Disentangled Latent Concepts, 2018",
        STUDY
        | {"network": "conv", "objective": "dip_vae_ii", "lambda_od": 10.0}
        | {"lambda_d_factor": 1.0},
        unsure="network, batch size, learning rate and steps are not the paper's: study of 2019",
    ),
    "hsu2023": Preset(
        "Hsu et al., Disentanglement via Latent Quantization, 2023, "
        "https://github.com/kylehkhsu/latent_quantization",
        STUDY
        | {"network": "locatello", "objective": "qlae", "levels": 10, "batch_size": 128}
        | {"optimizer": "adamw", "weight_decay": 0.1, "learning_rate": 1e-3, "steps": 200_000},
        unsure="the network is that of the study of 2019, theirs is larger; trained on all images",
    ),
    "laptop": Preset(
        "no paper: latents that move one thing each within minutes on two CPU cores",
        {"network": "small", "objective": "beta_tcvae", "beta": 15.0, "learning_rate": 2e-3}
        | {"steps": 2000, "eval_every": 100},
    ),
    "locatello2019": Preset(
        "Locatello et al., Challenging Common Assumptions, 2019, tables 3 to 5 (beta-VAE)",
        STUDY | {"network": "locatello", "objective": "beta_vae", "beta": 4.0},
    ),
    "notebook128": Preset(
        "a notebook of beta-VAEs for 128x128 pictures: 5,400 animals, 100 epochs of 84 steps",
        # A sum of squares without 1/2 is the Gaussian of variance 1/2.
        {"holdout": 0.0, "network": "conv128", "latents": 128, "likelihood": "gaussian"}
        | {"sigma": math.sqrt(0.5), "objective": "beta_vae", "beta": 4.0, "samples": 10}
        | {"batch_size": 64, "learning_rate": 1e-3, "steps": 8_400},
    ),
}


def get_preset(name: str) -> Preset:
    """The named preset.

    Raises:
        UserError: the name is not known.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return PRESETS[name]


def preset(name: str, **changes: Any) -> Config:
    """The config of a preset, with other values of some fields or hyperparameters.

    `bvae_jax.preset("laptop", steps=500)` is `--preset laptop --steps 500`.

    Raises:
        UserError: the preset or a field is not known, or a value does not fit.
    """
    return settle(changes, name)


OWNED = {
    "objective": (*HYPERPARAMETERS, "levels"),
    "likelihood": ("sigma",),
    "optimizer": ("adam_b1", "adam_b2", "adam_eps", "momentum", "weight_decay"),
}
"""Fields that belong to the choice of another: where the choice changes, they are not kept."""


def settle(
    given: Mapping[str, Any],
    preset: str | None = None,
    base: Config | None = None,
    *,
    resumed: bool = False,
    varied: Collection[str] = (),
) -> Config:
    """What was given, over the settings of a preset, over those of another config.

    Where another objective, likelihood or optimizer is chosen than below, what is below says of its
    own is left out.

    Args:
        given: name of a field, or of a hyperparameter without one -> value.
        base: of a run that is resumed, or that this one starts from.
        resumed: the preset changes nothing that may change when a run is resumed.
        varied: names of the fields that a sweep gives values.

    Raises:
        UserError: a name is not known, or a value does not fit.
    """
    if twice := [name for name in varied if name in given]:
        named = f"as {flag(twice[0])} and as values of the sweep"
        raise UserError(f"Got {twice[0]} twice, {named}: leave one out.")
    settings = dict(get_preset(preset).settings) if preset else {}
    for choice in OWNED:
        if preset and choice in varied:
            raise UserError(
                f"--preset {preset} with --grid {choice}=...: what a preset says is for its own "
                f"{choice}. Leave one of them out, or sweep each {choice} by itself."
            )
    if resumed:
        settings = {name: value for name, value in settings.items() if name not in RESUMABLE}
    for choice, owned in OWNED.items():
        if choice in settings and given.get(choice, settings[choice]) != settings[choice]:
            settings = {n: v for n, v in settings.items() if n not in (choice, *owned)}
    below = base or Config()
    for choice, owned in OWNED.items():
        chosen = (settings | dict(given)).get(choice)
        if chosen not in (None, below.value(choice)):
            names = [*owned, *(OWN_HYPERPARAMETERS if choice == "objective" else ())]
            below = below.replace(**{n: getattr(Config, n) if n in FIELDS else None for n in names})
    return below.replace(**(settings | dict(given)))
