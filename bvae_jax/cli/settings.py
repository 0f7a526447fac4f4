"""What holds where no flag says otherwise."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

from bvae_jax.cli.parsing import parse
from bvae_jax.config import HYPERPARAMETERS, RESUMABLE, Config
from bvae_jax.presets import get_preset

OWNED = {
    "objective": HYPERPARAMETERS,
    "likelihood": ("sigma",),
    "optimizer": ("adam_b1", "adam_b2", "momentum", "weight_decay"),
}
"""Fields that belong to the choice of another: a preset's values of them are for its own choice."""


@runtime_checkable
class Args(Protocol):
    """Of a command that takes a config and --preset."""

    @property
    def config(self) -> Config: ...

    @property
    def preset(self) -> str | None: ...


T = TypeVar("T", bound=Args)


def parse_onto(stored: Config | None, args: T, argv: Sequence[str], prog: str) -> T:
    """The arguments of `argv` once more, on top of a run's own settings and those of --preset.

    Where a flag chooses another objective, likelihood or optimizer than the preset, what the preset
    says of its own is left out.

    Args:
        stored: config of the run or sweep that is resumed.
        args: what `argv` says by itself.
    """
    settings = dict(get_preset(args.preset).settings) if args.preset else {}
    if stored is not None:  # it keeps its number of steps, whatever the preset says
        settings = {name: value for name, value in settings.items() if name not in RESUMABLE}

    def parsed() -> T:
        config = stored or Config()
        if config.objective != settings.get("objective", config.objective):
            config = dataclasses.replace(config, **dict.fromkeys(HYPERPARAMETERS))
        start = dataclasses.replace(cast(Any, args), config=dataclasses.replace(config, **settings))
        return parse(type(args), argv, prog, default=start)

    found = parsed()
    chosen = {name: getattr(found.config, name) for name in OWNED if name in settings}
    other = [name for name in chosen if chosen[name] != settings[name]]
    for name in other:
        for lost in (name, *OWNED[name]):
            settings.pop(lost, None)
    return parsed() if other else found
