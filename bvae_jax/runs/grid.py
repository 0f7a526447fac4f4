"""From one Config and the values of some of its fields to the members of a sweep."""

import itertools
import json
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bvae_jax.config import (
    FIELDS,
    OWN_HYPERPARAMETERS,
    PACE,
    RESUMABLE,
    TRACED,
    Config,
    flag,
)
from bvae_jax.errors import UserError, unknown
from bvae_jax.runs.hyper import graph, resolved

Values = dict[str, tuple[Any, ...]]
"""Field of `Config`, or hyperparameter without one -> the values that it takes, of JSON's types."""
FIXED = tuple(name for name in PACE if name in RESUMABLE)
"""Fields in which members never differ: they are those that may change when a sweep goes on."""
WITH_COMMAS = ("only", "exclude", "correlate", "augment", "factor_keys", "eval_metrics")
"""Fields whose values have commas."""
SYMBOLS = {
    "alpha": "α",
    "beta": "β",
    "capacity": "C",
    "gamma": "γ",
    "lambda_commit": "λ_commit",
    "lambda_d_factor": "λ_d/λ_od",
    "lambda_l2": "λ",
    "lambda_mmd": "λ",
    "lambda_od": "λ_od",
    "lambda_quantize": "λ_quantize",
    "multi_rate": "multi-rate",
    "sigma": "σ",
}


class Member(NamedTuple):
    """A run of a sweep.

    Attributes:
        name: of its directory, as "beta=4,seed=0".
        config: resolved.
        values: of the fields that vary.
    """

    name: str
    config: Config
    values: dict[str, Any]


def parse_grid(texts: Sequence[str]) -> Values:
    """The values that texts such as "learning_rate=1e-4,5e-4" name.

    Values with commas of their own, as of schedules and `WITH_COMMAS`, are divided by semicolons;
    one of the latter may be empty, as in "exclude=;shape=2".

    Raises:
        UserError: a field is not known, is given twice, or a value does not fit.
    """
    found: Values = {}
    for text in texts:
        name, equals, rest = text.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        commas = name in WITH_COMMAS or name.endswith("_schedule")
        parts = rest.split(";" if commas else ",")
        empty = not all(part.strip() for part in parts)
        if not equals or (empty and (name not in WITH_COMMAS or len(parts) < 2)):
            raise UserError(f"--grid: got {text!r}, wanted FIELD=VALUE,VALUE,...")
        if name in found:
            raise UserError(f"--grid: got {name} twice.")
        found[name] = tuple(_parsed(name, part.strip()) for part in parts)
    return found


def _parsed(name: str, text: str) -> Any:
    _check_varied(name)
    kind = float if name in OWN_HYPERPARAMETERS else typing.get_type_hints(Config)[name]
    kinds = {kind, *typing.get_args(kind)}
    if bool in kinds:
        return {"true": True, "false": False}.get(text, text)
    if not {int, float} & kinds:
        return text
    try:
        return int(text) if int in kinds else float(text)
    except ValueError:
        wanted = "a whole number" if int in kinds else "a number"
        raise UserError(f"{flag(name)}: got {text!r}, wanted {wanted}.") from None


def _check_varied(name: str) -> None:
    known = [n for n in (*FIELDS, *sorted(OWN_HYPERPARAMETERS)) if n not in FIXED]
    if name not in known:
        raise unknown("field to vary", name, known)


def members(base: Config, values: Mapping[str, Sequence[Any]]) -> list[Member]:
    """All combinations, those that share a program next to each other, the seed fastest.

    Args:
        base: what all have in common.
        values: of the fields that vary, one of which may be `seed`.

    Raises:
        UserError: a field is not known, has no or equal values, or a combination does not fit.
    """
    for name, given in values.items():
        _check_varied(name)
        if not given or len(set(given)) < len(given):
            raise UserError(f"{flag(name)}: got {list(given)}, wanted values that differ.")
    names = sorted(values, key=_rank)
    found = []
    for combination in itertools.product(*(values[name] for name in names)):
        chosen = dict(zip(names, combination, strict=True))
        if "beta" in names and (chosen.get("multi_rate") or base.multi_rate):
            raise UserError("--betas: a run of --multi-rate has every β already: leave them out.")
        name = ",".join(f"{n}={text(v)}" for n, v in chosen.items())
        try:
            config = resolved(base.replace(**chosen))
        except UserError as error:
            raise UserError(f"Member {name}: {error}") from None
        directory = re.sub(r"[^\w.+=,-]", "_", name) or "member"
        found.append(Member(directory, config, {n: config.value(n) for n in names}))
    if len({member.name for member in found}) < len(found):
        raise UserError("Two members would have the same name: leave values out that look alike.")
    return found


def _rank(name: str) -> int:
    """0 for what changes the program, 1 for what may be traced, 2 for the seed."""
    return 2 if name == "seed" else int(name in TRACED or name in OWN_HYPERPARAMETERS)


def text(value: Any) -> str:
    """A value as short as it can be without a loss."""
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(float(value))


def symbol(field: str) -> str:
    """What a field of `Config` is called where people read it: a Greek letter, or words."""
    return SYMBOLS.get(field, field.replace("_", " "))


def label(values: Mapping[str, Any]) -> str:
    """What members with these values are called in tables and figures, without the seed. An
    objective is called by its name alone."""
    named = {name: value for name, value in values.items() if name != "seed"}
    parts = [text(v) if n == "objective" else f"{symbol(n)} = {text(v)}" for n, v in named.items()]
    return ", ".join(parts) or "all"


def groups(members: Sequence[Member]) -> list[list[Member]]:
    """Members that share a compiled program and may be trained side by side, in order."""
    found: dict[str, list[Member]] = {}
    for member in members:
        pace = {name: getattr(member.config, name) for name in PACE}
        key = json.dumps([graph(member.config), pace], sort_keys=True)
        found.setdefault(key, []).append(member)
    return list(found.values())
