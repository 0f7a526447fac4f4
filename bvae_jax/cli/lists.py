"""`bvae objectives` and `bvae presets`: what there is, from the registries."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from bvae_jax.cli.parsing import parse
from bvae_jax.config import flag
from bvae_jax.runtime import (
    fatal,
)

WIDTH = 100


@dataclass(frozen=True)
class ObjectivesArgs:
    """List the objectives: what is minimised, hyperparameters with their defaults, reference."""


@dataclass(frozen=True)
class PresetsArgs:
    """List the presets for bvae train --preset: where they come from, and their settings."""


def objectives(argv: Sequence[str]) -> int:
    """`bvae objectives`."""
    parse(ObjectivesArgs, argv, "bvae objectives")
    with fatal():
        from bvae_jax.objectives import OBJECTIVES

    for name, objective in OBJECTIVES.items():
        hyper = {n: f"{v:g}" for n, v in objective.hyper.items()} | {
            f"{n}_schedule": schedule for n, schedule in objective.schedules.items()
        }
        _show(name, objective.formula, _flags(hyper), objective.reference)
    return 0


def presets(argv: Sequence[str]) -> int:
    """`bvae presets`."""
    parse(PresetsArgs, argv, "bvae presets")
    from bvae_jax.presets import PRESETS

    for name, preset in PRESETS.items():
        unsure = f"Not sure: {preset.unsure}." if preset.unsure else ""
        settings = {
            n: f"{v:g}" if isinstance(v, float) else str(v) for n, v in preset.settings.items()
        }
        _show(name, preset.source, _flags(settings), unsure)
    return 0


def _flags(values: dict[str, str]) -> str:
    return " ".join(f"{flag(name)} {value}" for name, value in values.items())


def _show(name: str, *paragraphs: str) -> None:
    indent = " " * 4
    print(name)
    for text in filter(None, paragraphs):
        lines = textwrap.wrap(text, WIDTH - len(indent), break_on_hyphens=False)
        print(textwrap.indent("\n".join(lines), indent))
