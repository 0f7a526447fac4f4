"""From a Config to hyperparameters: which the objective has, their values and their schedules."""

from collections.abc import Sequence
from typing import Any

from bvae_jax.config import UNCOMPILED, Config, flag
from bvae_jax.errors import UserError, unknown
from bvae_jax.networks.gates import Rates, rates_of
from bvae_jax.objectives import OBJECTIVES, get_objective
from bvae_jax.objectives.base import Objective
from bvae_jax.objectives.schedules import Schedule, parse_schedule

SCHEDULED = ("beta", "capacity")
"""Hyperparameters of objectives that have a field for their schedule; the learning rate has too."""


def resolved(config: Config) -> Config:
    """`config` with the objective's own values where it gives none for a hyperparameter.

    Raises:
        UserError: it is no `Config`, the objective is not known, has no hyperparameter for a value
            that is given, or values do not fit each other.
    """
    if not isinstance(config, Config):
        raise UserError(
            f"config: got {type(config).__name__}, wanted a Config, as bvae_jax.Config(beta=4) or "
            "bvae_jax.Config.from_dict({'beta': 4})."
        )
    objective = get_objective(config.objective)
    known = {name for other in OBJECTIVES.values() for name in other.hyper} | set(config.hyper)
    for name in sorted(known - set(objective.hyper)):
        if config.value(name) is not None:
            has = ", ".join(map(flag, objective.hyper)) or "none"
            typed = f"--hyper {name}" if name in config.hyper else flag(name)
            raise UserError(
                f"{typed}: objective {config.objective} has no such hyperparameter; it has: "
                f"{has}. Leave it out, or choose another --objective."
            )
    _check_used(config, objective)
    missing = {n: v for n, v in objective.hyper.items() if config.value(n) is None}
    if (rates := many_rates(config)) and "beta" in missing:
        missing["beta"] = min(max(missing["beta"], rates.low), rates.high)
    schedules = {}
    for name in SCHEDULED:
        field = f"{name}_schedule"
        given = getattr(config, field)
        if name in objective.hyper and given is None:
            schedules[field] = objective.schedules.get(name, "constant")
        elif name not in objective.hyper and given is not None:
            raise UserError(
                f"{flag(field)}: objective {config.objective} has no {flag(name)} to schedule."
            )
    found = config.replace(**missing, **schedules)
    low, high = found.beta_min, found.beta_max
    if low is not None and high is not None and low > high:
        raise UserError(f"--beta-min: got {low:g}, wanted no more than --beta-max, {high:g}.")
    return found


def many_rates(config: Config) -> Rates | None:
    """The range of β that one network is trained for; None where that is a single one.

    Raises:
        UserError: there is no such range, or something of the config does not go with it.
    """
    rates = rates_of(config.multi_rate, config.multi_rate_decoder)
    if rates is None:
        return None
    if get_objective(config.objective).multi_rate is None:
        known = ", ".join(name for name, other in OBJECTIVES.items() if other.multi_rate)
        raise UserError(
            f"--multi-rate: objective {config.objective} has no loss with a β for each image; "
            f"wanted --objective {known}."
        )
    if config.bound != "elbo":
        raise UserError(f"--multi-rate: got --bound {config.bound} as well, wanted elbo.")
    if config.beta_schedule not in (None, "constant"):
        raise UserError(
            f"--multi-rate: got --beta-schedule {config.beta_schedule} as well, but every β of the "
            "range is trained all the time: leave it out."
        )
    if config.beta is not None:
        rates.check(config.beta, "--beta")
    return rates


def _check_used(config: Config, objective: Objective) -> None:
    """Refuse a value that nothing would read."""
    adam = ("optimizer", config.optimizer in ("adam", "adamw"))
    uses = {
        "sigma": ("likelihood", config.likelihood in ("gaussian", "laplace")),
        "momentum": ("optimizer", config.optimizer == "sgd"),
        "weight_decay": ("optimizer", config.optimizer == "adamw"),
        "adam_b1": adam,
        "adam_b2": adam,
        "adam_eps": adam,
        "pair_changes": ("objective", objective.pairs),
        "levels": ("objective", objective.codebook),
        "multi_rate_decoder": ("multi_rate", bool(config.multi_rate)),
    }
    for name, (chosen, used) in uses.items():
        value = getattr(config, name)
        if not used and value != getattr(Config, name):
            if not getattr(config, chosen):
                raise UserError(
                    f"{flag(name)}: got {value}, but nothing uses it without {flag(chosen)}. Leave "
                    f"it out, or give {flag(chosen)} as well."
                )
            raise UserError(
                f"{flag(name)}: got {value}, but {flag(chosen)} {getattr(config, chosen)} does not "
                f"use it. Leave it out, or choose another {flag(chosen)}."
            )


def parse_hyper(texts: Sequence[str]) -> dict[str, float]:
    """Hyperparameters as "tilt=0.5": those that have no flag of their own, or any.

    Raises:
        UserError: one is not known, or a value is no number.
    """
    found = {}
    names = {name for objective in OBJECTIVES.values() for name in objective.hyper}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.replace("-", "_")
        if not equals or name in found:
            raise UserError(f"--hyper: got {text!r}, wanted NAME=VALUE, each name once.")
        if name not in names:
            raise unknown("hyperparameter", name, names)
        try:
            found[name] = float(value)
        except ValueError:
            raise UserError(f"{flag(name)}: got {value!r}, wanted a number.") from None
    return found


def schedules(config: Config) -> dict[str, Schedule]:
    """Name of a hyperparameter -> how it gets to its value, where it is not constant.

    Raises:
        UserError: a schedule cannot be read.
    """
    found = {}
    for name in (*SCHEDULED, "learning_rate"):
        field = f"{name}_schedule"
        schedule = parse_schedule(getattr(config, field) or "constant", flag(field))
        if schedule.kind != "constant":
            found[name] = schedule
    return found


def hyperparameters(config: Config) -> dict[str, float]:
    """What of a resolved config is traced, by name: a sweep may vary it in one program."""
    names = ("learning_rate", *get_objective(config.objective).hyper)
    numbers = {
        f"{name}_schedule.{number}": value
        for name, schedule in schedules(config).items()
        for number, value in schedule.numbers.items()
    }
    return {name: config.value(name) for name in names} | numbers


def graph(config: Config) -> dict[str, Any]:
    """What of a resolved config is compiled: configs with equal graphs share one program.

    It lacks the seed, what is traced, the run's pace, and where data sets lie; of schedules it has
    the kinds.
    """
    other = {*UNCOMPILED, *hyperparameters(config)}
    left = {name: value for name, value in config.to_dict().items() if name not in other}
    kinds = {f"{n}_schedule": (s.kind, s.points) for n, s in schedules(config).items()}
    return left | kinds
