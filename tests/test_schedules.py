"""Schedules agree with closed forms and with Fu et al.'s loop; lengths are traced; bad texts."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bvae_jax.errors import UserError
from bvae_jax.objectives.schedules import SCHEDULES, multiple, parse_schedule

EXAMPLES = {
    "constant": "constant",
    "delayed": "delayed:delay=40",
    "linear": "linear:steps=80,delay=10",
    "sigmoid": "sigmoid:steps=80,delay=10,start=0.1,end=0.7",
    "cosine": "cosine:steps=80,start=1,end=0",
    "cyclical-linear": "cyclical-linear:steps=80",
    "cyclical-sigmoid": "cyclical-sigmoid:steps=80,cycles=3,ratio=0.8",
    "cyclical-cosine": "cyclical-cosine:steps=80,cycles=7,ratio=1,delay=5",
    "piecewise": "piecewise:10=0.5,20=1,60=0.1",
}


def numbers_of(schedule):
    return {name: jnp.asarray(value, jnp.float32) for name, value in schedule.numbers.items()}


def values(spec, steps):
    """The multiple at each step, as NumPy."""
    schedule = parse_schedule(spec, "--beta-schedule")
    numbers = numbers_of(schedule)
    at = jax.jit(jax.vmap(lambda step: multiple(schedule, step, numbers)))
    return np.asarray(at(jnp.asarray(np.asarray(steps, np.int32))))


def value(spec, step):
    return float(values(spec, [step])[0])


def fu_loop(total, cycles, ratio):
    """Each step's position x in its ramp, counted one step after another; 1 where there is none."""
    x = np.ones(total)
    period = total / cycles
    for cycle in range(cycles):
        begin = math.floor(cycle * period)
        for i in range(math.ceil(period)):
            if begin + i < total:
                x[begin + i] = min(i / (period * ratio), 1.0)
    return x


def fu_sigmoid(x):
    """Fu et al.'s 1 / (1 + exp(-12 (x - 1/2))), stretched from (0.0025, 0.9975) to (0, 1)."""
    low, high = 1 / (1 + np.exp(6)), 1 / (1 + np.exp(-6))
    return (1 / (1 + np.exp(-12 * (x - 0.5))) - low) / (high - low)


CURVES = {
    "linear": lambda x: x,
    "sigmoid": fu_sigmoid,
    "cosine": lambda x: (1 - np.cos(np.pi * x)) / 2,
}


def test_every_kind_is_described_and_has_an_example():
    assert set(EXAMPLES) == set(SCHEDULES)
    for kind, spec in EXAMPLES.items():
        assert parse_schedule(spec, "--x").kind == kind


# (schedule, step, multiple)
CLOSED_FORMS = [
    ("constant", 0, 1.0),
    ("constant", 2_000_000_000, 1.0),
    ("delayed:delay=500", 499, 0.0),
    ("delayed:delay=500", 500, 1.0),
    ("delayed:delay=500,start=0.25,end=0.5", 499, 0.25),
    ("delayed:delay=500,start=0.25,end=0.5", 500, 0.5),
    ("linear:steps=1000", 0, 0.0),
    ("linear:steps=1000", 250, 0.25),
    ("linear:steps=1000", 1000, 1.0),
    ("linear:steps=1000", 5000, 1.0),
    ("linear:steps=1000,delay=100", 100, 0.0),
    ("linear:steps=1000,delay=100", 350, 0.25),
    # Burgess et al. 2018: a capacity of 25 nats from 0.5 on.
    ("linear:steps=100000,start=0.02", 0, 0.5 / 25),
    ("linear:steps=100000,start=0.02", 50_000, 12.75 / 25),
    ("linear:steps=400000", 300_000, 0.75),
    ("linear:steps=2,delay=20000000", 20_000_001, 0.5),
    ("linear:steps=2000000000", 500_000_000, 0.25),
    ("linear:steps=1", 0, 0.0),
    ("linear:steps=1", 1, 1.0),
    ("cosine:steps=100000,start=1,end=0", 25_000, (1 + math.sqrt(0.5)) / 2),
    ("cosine:steps=100000,start=1,end=0", 50_000, 0.5),
    ("sigmoid:steps=100", 50, 0.5),
    ("sigmoid:steps=100", 25, 0.5 - math.tanh(1.5) / math.tanh(3) / 2),
    ("cyclical-linear:steps=300000", 75_000 - 1, 1.0),
    ("cyclical-linear:steps=300000", 75_000, 0.0),
    ("cyclical-linear:steps=300000", 75_000 + 18_750, 0.5),
    ("cyclical-linear:steps=300000", 225_000, 0.0),
    ("cyclical-linear:steps=300000", 300_000, 1.0),
    ("cyclical-linear:steps=80000000,ratio=1", 20_000_001, 1 / 20_000_000),
    ("cyclical-linear:steps=2000000000,cycles=1,ratio=1", 1_999_999_999, 1.0),
    ("piecewise:0=0,1000=1,10000=0.1", 500, 0.5),
    ("piecewise:0=0,1000=1,10000=0.1", 1000, 1.0),
    ("piecewise:0=0,1000=1,10000=0.1", 5500, 0.55),
    ("piecewise:0=0,1000=1,10000=0.1", 2_000_000_000, 0.1),
    ("piecewise:100=0.5", 0, 0.5),
    ("piecewise:100=0.5", 200, 0.5),
    ("piecewise:20000000=0,20000004=1", 20_000_001, 0.25),
]


@pytest.mark.parametrize(("spec", "step", "wanted"), CLOSED_FORMS)
def test_closed_forms(spec, step, wanted):
    assert value(spec, step) == pytest.approx(wanted, rel=3e-6, abs=1e-12)


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize(
    ("total", "cycles", "ratio"), [(80, 4, 0.5), (1000, 7, 0.3), (101, 10, 1.0), (60, 1, 0.25)]
)
def test_cycles_are_those_of_fu_et_al(curve, total, cycles, ratio):
    spec = f"cyclical-{curve}:steps={total},cycles={cycles},ratio={ratio}"
    wanted = CURVES[curve](fu_loop(total, cycles, ratio))
    np.testing.assert_allclose(values(spec, range(total)), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(values(spec, range(total, total + 50)), 1)


@pytest.mark.parametrize("total", [300_000, 299_999, 20_000_004])
@pytest.mark.parametrize("cycles", [4, 7, 1000])
def test_no_cycle_begins_early_or_late(total, cycles):
    begins = np.arange(1, cycles) * total // cycles
    spec = f"cyclical-linear:steps={total},cycles={cycles},ratio=0.99"
    np.testing.assert_array_equal(values(spec, begins), 0)
    np.testing.assert_allclose(values(spec, begins - 1), 1, atol=0.02)


@pytest.mark.parametrize("prefix", ["", "cyclical-"])
@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("steps", [3, 700, 99_991])
def test_start_and_end_are_exact(prefix, curve, steps):
    got = values(
        f"{prefix}{curve}:steps={steps},delay=9,start=0.1,end=0.7", [0, 9, 9 + steps, 10**9]
    )
    np.testing.assert_array_equal(got, np.array([0.1, 0.1, 0.7, 0.7], np.float32))


@pytest.mark.parametrize("curve", CURVES)
def test_a_ramp_never_turns(curve):
    rising = np.diff(values(f"{curve}:steps=20000", range(-1, 20_002)))
    assert rising.min() >= -1e-7  # a rounding of tanh
    falling = np.diff(values(f"{curve}:steps=500,start=1,end=0.2", range(502)))
    assert falling.max() <= 0
    cycle = np.diff(values(f"cyclical-{curve}:steps=4000", range(1000)))
    assert cycle.min() >= 0


@pytest.mark.parametrize("kind", SCHEDULES)
def test_jit_or_not(kind):
    schedule = parse_schedule(EXAMPLES[kind], "--x")
    for step in (0, 5, 11, 37, 60, 85, 100):
        got = multiple(schedule, jnp.int32(step), numbers_of(schedule))
        assert got.dtype == jnp.float32
        assert float(got) == pytest.approx(value(EXAMPLES[kind], step), rel=1e-6, abs=1e-7)


def test_numbers_are_traced():
    """One trace serves every length, delay, start and end."""
    traces = 0
    schedule = parse_schedule("cyclical-cosine:steps=1", "--x")

    @jax.jit
    @jax.vmap
    def sweep(numbers):
        nonlocal traces
        traces += 1
        return multiple(schedule, jnp.int32(57), numbers)

    for scale in (1, 3):
        lengths = [60 * scale, 70 * scale, 200 * scale]
        others = {"start": 0.1, "end": 0.9, "delay": 2.0 * scale, "cycles": 3.0, "ratio": 0.7}
        numbers = {name: jnp.full(3, number) for name, number in others.items()}
        got = sweep(numbers | {"steps": jnp.asarray(lengths, jnp.float32)})
        rest = ",".join(f"{name}={number}" for name, number in others.items())
        wanted = [value(f"cyclical-cosine:steps={length},{rest}", 57) for length in lengths]
        np.testing.assert_allclose(got, wanted, rtol=1e-6)
    assert traces == 1


def test_defaults_are_filled_in():
    schedule = parse_schedule(" cyclical-linear: steps = 1e5 , ratio=.25", "--x")
    assert schedule.numbers == {
        "steps": 1e5, "start": 0, "end": 1, "delay": 0, "cycles": 4, "ratio": 0.25,
    }  # fmt: skip
    assert parse_schedule("piecewise:0=0,7=2", "--x").points == ((0, 0), (7, 2))


RAMP = "Parameters of linear: steps, start, end, delay."
STEP = "a whole number from 0 to 2000000000."
# (text, the line)
MISTAKES = [
    ("", "got '', wanted a schedule: constant, delayed, linear, sigmoid, cosine, cyclical-linear,"),
    ("lin:steps=5", "got 'lin', wanted a schedule: constant"),
    ("linear", f"got linear without steps=NUMBER. {RAMP}"),
    ("linear:", f"got linear without steps=NUMBER. {RAMP}"),
    ("delayed", "got delayed without delay=NUMBER. Parameters of delayed: delay, start, end."),
    ("linear:length=5", f"got length=5, unknown. {RAMP}"),
    ("linear:steps=5,cycles=2", f"got cycles=2, unknown. {RAMP}"),
    ("constant:steps=5", "got steps=5, unknown. Parameters of constant: none."),
    ("linear:steps=5,steps=6", "got steps twice, wanted it once."),
    ("linear:steps", "got 'steps' in 'linear:steps', wanted NAME=NUMBER."),
    ("linear:steps=", "got 'steps=' in 'linear:steps=', wanted NAME=NUMBER."),
    ("linear:steps=5,", "got '' in 'linear:steps=5,', wanted NAME=NUMBER."),
    (
        "linear:steps=many",
        "got steps=many, wanted steps to be a whole number from 1 to 2000000000.",
    ),
    ("linear:steps=0", "got steps=0, wanted steps to be a whole number from 1 to 2000000000."),
    ("linear:steps=2.5", "got steps=2.5, wanted steps to be a whole number"),
    ("linear:steps=inf", "got steps=inf, wanted steps to be a whole number"),
    ("linear:steps=3e9", "got steps=3e9, wanted steps to be a whole number"),
    ("linear:steps=5,delay=-1", f"got delay=-1, wanted delay to be {STEP}"),
    ("linear:steps=5,delay=nan", f"got delay=nan, wanted delay to be {STEP}"),
    ("linear:steps=5,start=nan", "got start=nan, wanted start to be a number from 0 to 1000000."),
    ("linear:steps=5,end=-1", "got end=-1, wanted end to be a number from 0 to 1000000."),
    ("cyclical-linear:steps=5,ratio=0", "wanted ratio to be a number from 1e-06 to 1."),
    ("cyclical-linear:steps=5,ratio=1.5", "got ratio=1.5, wanted ratio"),
    ("cyclical-cosine:steps=5,cycles=0", "wanted cycles to be a whole number from 1 to 10000."),
    ("piecewise", "got no points, wanted piecewise:STEP=VALUE,STEP=VALUE,..."),
    ("piecewise:5", "got '5' in 'piecewise:5', wanted STEP=VALUE."),
    ("piecewise:5=x", "got 5=x, wanted value to be a number from 0 to 1000000."),
    ("piecewise:5.5=1", f"got 5.5=1, wanted step to be {STEP}"),
    ("piecewise:steps=5", f"got steps=5, wanted step to be {STEP}"),
    ("piecewise:5=1,5=2", "got step 5 after step 5, wanted steps in increasing order."),
    ("piecewise:9=1,5=2", "got step 5 after step 9, wanted steps in increasing order."),
]


@pytest.mark.parametrize(("spec", "line"), MISTAKES)
def test_a_bad_text_is_one_clear_line(spec, line):
    with pytest.raises(UserError) as error:
        parse_schedule(spec, "--beta-schedule")
    assert str(error.value).startswith("--beta-schedule: ")
    assert line in str(error.value)
    assert "\n" not in str(error.value)
