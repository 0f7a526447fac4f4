"""Annealing: a number that changes with the step and multiplies a hyperparameter's target.

`linear:steps=1000,delay=100` and its like serve beta, capacity and learning rate alike. Numbers in
such a text are traced, so that a sweep over them compiles once; only the kind and the points of
`piecewise` are static. Cycles: Fu et al., "Cyclical Annealing Schedule", NAACL 2019.
"""

import itertools
import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bvae_jax.errors import UserError
from bvae_jax.types import Hyper, Scalar

SCHEDULES: dict[str, str] = {
    "constant": "1",
    "delayed": "start before step delay, end from there on",
    "linear": "start + (end - start) x, where x = (step - delay) / steps, kept within [0, 1]",
    "sigmoid": "as linear, with 1/2 + tanh(6x - 3) / (2 tanh 3) for x: a sigmoid, rescaled",
    "cosine": "as linear, with (1 - cos(pi x)) / 2 for x",
    "cyclical-linear": "cycles (4) in steps; in each, linear over the first ratio (0.5), then end",
    "cyclical-sigmoid": "as cyclical-linear, with sigmoid for linear",
    "cyclical-cosine": "as cyclical-linear, with cosine for linear",
    "piecewise": "straight lines between points step=value, constant before and after them",
}
"""What the target is multiplied by. Defaults: start=0, end=1, delay=0; after `steps` it is end."""


class Schedule(NamedTuple):
    """A parsed schedule.

    Attributes:
        kind: one of `SCHEDULES`.
        numbers: its parameters by name; `multiple` takes them again, traced.
        points: (step, multiple) of `piecewise`, in the order of steps.
    """

    kind: str
    numbers: dict[str, float]
    points: tuple[tuple[float, float], ...] = ()


_LAST_STEP = 2_000_000_000  # the same number as int32 and as float32
_LARGEST = 1e6  # times any hyperparameter this is a float32
_RAMP: dict[str, float | None] = {"steps": None, "start": 0.0, "end": 1.0, "delay": 0.0}
_CYCLES = _RAMP | {"cycles": 4.0, "ratio": 0.5}
# Parameters with their defaults; None must be given.
_PARAMETERS: dict[str, dict[str, float | None]] = {
    "constant": {},
    "delayed": {"delay": None, "start": 0.0, "end": 1.0},
    "linear": _RAMP,
    "sigmoid": _RAMP,
    "cosine": _RAMP,
    "cyclical-linear": _CYCLES,
    "cyclical-sigmoid": _CYCLES,
    "cyclical-cosine": _CYCLES,
}
_STEP = (0, _LAST_STEP, True)
_MULTIPLE = (0, _LARGEST, False)
# Least and largest value, and whether it is a whole number.
_RANGES: dict[str, tuple[float, float, bool]] = {
    "steps": (1, _LAST_STEP, True),
    "delay": _STEP,
    "start": _MULTIPLE,
    "end": _MULTIPLE,
    "cycles": (1, 10_000, True),  # more overflow int32 in `_phase`
    "ratio": (1e-6, 1, False),
    "step": _STEP,
    "value": _MULTIPLE,
}


def parse_schedule(spec: str, flag: str) -> Schedule:
    """The schedule that a text such as `cosine:steps=100000,start=1,end=0` describes.

    Args:
        flag: what gave the text, as `--beta-schedule`; named in errors.

    Raises:
        UserError: the kind or a parameter is unknown, missing or outside its range.
    """
    kind, _, rest = spec.strip().partition(":")
    if kind not in SCHEDULES:
        raise UserError(f"{flag}: got {kind!r}, wanted a schedule: {', '.join(SCHEDULES)}.")
    form = "STEP=VALUE" if kind == "piecewise" else "NAME=NUMBER"
    pairs = []
    for item in rest.split(",") if rest else ():
        name, _, text = (part.strip() for part in item.partition("="))
        if not name or not text:
            raise UserError(f"{flag}: got {item!r} in {spec!r}, wanted {form}.")
        pairs.append((name, text))
    if kind == "piecewise":
        return Schedule(kind, {}, _points(pairs, flag))
    return Schedule(kind, _numbers(kind, pairs, flag))


def multiple(schedule: Schedule, step: Int[Array, ""], numbers: Hyper) -> Scalar:
    """What the target is multiplied by at a step; `SCHEDULES` has the formulas.

    Steps are counted in int32, so the result is as exact at step 2^31 as at step 1. `numbers` are
    float32: a `delay` or `steps` above 2^24 = 16,777,216 is rounded to its 24 leading bits.

    Args:
        numbers: `schedule.numbers`, or others of the same names, as traced scalars.

    Returns:
        float32. Exactly start at the start of a ramp, exactly end at its end and after it.
    """
    if schedule.kind == "constant":
        return jnp.ones((), jnp.float32)
    if schedule.kind == "piecewise":
        return _piecewise(schedule.points, step)
    since = step - _whole(numbers["delay"])
    if schedule.kind == "delayed":
        risen = jnp.where(since >= 0, 1.0, 0.0)
    else:
        *cyclical, curve = schedule.kind.split("-")
        total = _whole(numbers["steps"])
        elapsed = jnp.clip(since, 0, total)
        if cyclical:
            x = _phase(elapsed, total, _whole(numbers["cycles"])) / numbers["ratio"]
        else:
            x = elapsed / total
        risen = _rise(curve, jnp.where(since >= total, 1.0, jnp.minimum(x, 1.0)))
    return _between(numbers["start"], numbers["end"], risen)


def _rise(curve: str, x: Scalar) -> Scalar:
    """The curve, from exactly 0 at x = 0 to exactly 1 at x = 1."""
    if curve == "sigmoid":  # (s(12x - 6) - s(-6)) / (s(6) - s(-6)), as s(u) = (1 + tanh(u/2)) / 2
        y = 0.5 + 0.5 * jnp.tanh(6 * x - 3) / math.tanh(3)
    elif curve == "cosine":
        y = 0.5 - 0.5 * jnp.cos(math.pi * x)
    else:
        y = x
    return jnp.where((x > 0) & (x < 1), jnp.clip(y, 0.0, 1.0), x)


def _phase(elapsed: Int[Array, ""], total: Int[Array, ""], cycles: Int[Array, ""]) -> Scalar:
    """Position in a cycle, in [0, 1). Cycle c begins at step floor(c total / cycles).

    Whole numbers throughout: rounding must not let a cycle begin a step early or late.
    """
    length, rest = total // cycles, total % cycles

    def begin(cycle: Int[Array, ""]) -> Int[Array, ""]:
        return cycle * length + cycle * rest // cycles

    guess = jnp.floor(elapsed * (cycles / total)).astype(jnp.int32)
    guess = jnp.minimum(guess, cycles - 1)
    cycle = guess + (elapsed >= begin(guess + 1)) - (elapsed < begin(guess))
    return (elapsed - begin(cycle)) / (total / cycles)


def _piecewise(points: tuple[tuple[float, float], ...], step: Int[Array, ""]) -> Scalar:
    steps = jnp.array([int(at) for at, _ in points], jnp.int32)
    values = jnp.array([value for _, value in points], jnp.float32)
    passed = jnp.sum(steps <= step)
    left, right = jnp.maximum(passed - 1, 0), jnp.minimum(passed, len(points) - 1)
    length = jnp.maximum(steps[right] - steps[left], 1)  # 0 outside the points
    x = jnp.clip((step - steps[left]) / length, 0.0, 1.0)
    return _between(values[left], values[right], x)


def _between(start: Scalar, end: Scalar, share: Float[Array, ""]) -> Scalar:
    """Exactly start at 0 and exactly end at 1, which start + (end - start) share is not."""
    return (start * (1 - share) + end * share).astype(jnp.float32)


def _whole(number: Scalar) -> Int[Array, ""]:
    return jnp.round(number).astype(jnp.int32)


def _numbers(kind: str, pairs: list[tuple[str, str]], flag: str) -> dict[str, float]:
    """Every parameter of the kind, given or default."""
    parameters = _PARAMETERS[kind]
    known = f"Parameters of {kind}: {', '.join(parameters) or 'none'}."
    numbers = dict(parameters)
    for place, (name, text) in enumerate(pairs):
        if name not in parameters:
            raise UserError(f"{flag}: got {name}={text}, unknown. {known}")
        if name in dict(pairs[:place]):
            raise UserError(f"{flag}: got {name} twice, wanted it once.")
        numbers[name] = _number(name, text, f"{name}={text}", flag)
    missing = [name for name, value in numbers.items() if value is None]
    if missing:
        raise UserError(f"{flag}: got {kind} without {missing[0]}=NUMBER. {known}")
    return {name: value for name, value in numbers.items() if value is not None}


def _points(pairs: list[tuple[str, str]], flag: str) -> tuple[tuple[float, float], ...]:
    if not pairs:
        raise UserError(f"{flag}: got no points, wanted piecewise:STEP=VALUE,STEP=VALUE,...")
    points = []
    for at, value in pairs:
        got = f"{at}={value}"
        points.append((_number("step", at, got, flag), _number("value", value, got, flag)))
    for (before, _), (after, _) in itertools.pairwise(points):
        if before >= after:
            got = f"step {after:.0f} after step {before:.0f}"
            raise UserError(f"{flag}: got {got}, wanted steps in increasing order.")
    return tuple(points)


def _number(name: str, text: str, got: str, flag: str) -> float:
    """The number that a text spells, if it fits what `name` wants."""
    low, high, whole = _RANGES[name]
    try:
        number = float(text)
    except ValueError:
        number = math.nan  # fits nothing
    if not low <= number <= high or (whole and not number.is_integer()):
        wanted = f"{'a whole' if whole else 'a'} number from {low:.10g} to {high:.10g}"
        raise UserError(f"{flag}: got {got}, wanted {name} to be {wanted}.")
    return number
