"""What holds where no flag says otherwise."""

import dataclasses

from bvae_jax.config import HYPERPARAMETERS, RESUMABLE, Config
from bvae_jax.presets import get_preset


def start_config(stored: Config | None, preset: str | None) -> Config:
    """What holds where no flag says otherwise: the preset's values, and then the run's own.

    A run that is resumed keeps its number of steps, whatever the preset says.
    """
    config = stored or Config()
    if preset is None:
        return config
    settings = dict(get_preset(preset).settings)
    if stored is not None:
        settings = {name: value for name, value in settings.items() if name not in RESUMABLE}
    if config.objective != settings["objective"]:
        settings = dict.fromkeys(HYPERPARAMETERS) | settings
    return dataclasses.replace(config, **settings)


def without_other_objectives(config: Config, preset: str | None) -> Config:
    """Without the preset's hyperparameters, where a flag chose another objective than it has."""
    settings = get_preset(preset).settings if preset else {}
    if config.objective == settings.get("objective", config.objective):
        return config
    dropped = [n for n in HYPERPARAMETERS if n in settings and getattr(config, n) == settings[n]]
    return dataclasses.replace(config, **dict.fromkeys(dropped))
