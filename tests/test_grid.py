"""The members of a sweep: their order, their names, and which share a program."""

import numpy as np
import pytest

from bvae_jax.config import Config
from bvae_jax.errors import UserError
from bvae_jax.runs.grid import groups, label, members, parse_grid, text


def test_values_have_the_type_of_their_field():
    texts = ["learning_rate=1e-4, 5e-4", "latents=5,10", "objective=beta_vae,beta_tcvae"]
    texts += ["--beta-schedule=constant;linear:steps=10,delay=5", "gamma=3"]
    texts += ["correlate=x,y=0.2;x,y=0.5", "only=shape=0,x=3", "augment=flip,shift=2;flip"]
    texts += ["exclude=;shape=2,x>20", "factor_keys=a,b;a", "eval_metrics=mig,irs;mig"]
    texts += ["grey=true,false"]
    assert parse_grid(texts) == {
        "learning_rate": (1e-4, 5e-4),
        "latents": (5, 10),
        "objective": ("beta_vae", "beta_tcvae"),
        "beta_schedule": ("constant", "linear:steps=10,delay=5"),
        "gamma": (3.0,),
        "correlate": ("x,y=0.2", "x,y=0.5"),
        "only": ("shape=0,x=3",),
        "augment": ("flip,shift=2", "flip"),
        "exclude": ("", "shape=2,x>20"),
        "factor_keys": ("a,b", "a"),
        "eval_metrics": ("mig,irs", "mig"),
        "grey": (True, False),
    }


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("beta", "wanted FIELD=VALUE"),
        ("beta=1,,2", "wanted FIELD=VALUE"),
        ("beta=one", "--beta: got 'one', wanted a number"),
        ("latents=2.5", "wanted a whole number"),
        ("bta=1", "Unknown field to vary 'bta'"),
        ("steps=10,20", "Unknown field to vary 'steps'"),
    ],
)
def test_values_that_do_not_fit(given, wanted):
    with pytest.raises(UserError, match=wanted):
        parse_grid([given])
    with pytest.raises(UserError, match="twice"):
        parse_grid(["beta=1", "beta=2"])


def test_all_combinations_with_the_seed_fastest_and_programs_together():
    values = {"seed": (0, 1), "beta": (1.0, 0.1), "objective": ("beta_vae", "beta_tcvae")}
    found = members(Config(), values)
    assert [member.name for member in found] == [
        f"objective={objective},beta={beta},seed={seed}"
        for objective in ("beta_vae", "beta_tcvae")
        for beta in ("1", "0.1")
        for seed in (0, 1)
    ]
    assert found[3].values == {"objective": "beta_vae", "beta": 0.1, "seed": 1}
    assert (found[3].config.beta, found[3].config.seed) == (0.1, 1)
    assert found[7].config.alpha == 1.0  # resolved
    assert [len(group) for group in groups(found)] == [4, 4]


@pytest.mark.parametrize(
    ("values", "programs"),
    [
        ({"beta": (1.0, 4.0), "learning_rate": (1e-3, 1e-4), "seed": (0, 1, 2)}, 1),
        ({"beta_schedule": ("linear:steps=10", "linear:steps=20,delay=3", "cosine:steps=9")}, 2),
        ({"beta_schedule": ("piecewise:0=0,10=1", "piecewise:0=0,20=1")}, 2),
        ({"latents": (3, 4)}, 2),
        ({"objective": ("vae", "beta_vae")}, 2),
        ({"batch_seed": (0, 1)}, 2),
        ({"log_every": (5, 9)}, 2),  # by one program, but not side by side
    ],
)
def test_what_is_traced_shares_a_program(values, programs):
    assert len(groups(members(Config(), values))) == programs


def test_what_is_varied_must_fit():
    with pytest.raises(UserError, match=r"--beta: got \[1.0, 1.0\]"):
        members(Config(), {"beta": (1.0, 1.0)})
    with pytest.raises(UserError, match="--beta: got"):
        members(Config(), {"beta": ()})
    with pytest.raises(UserError, match="Unknown field to vary 'keep_checkpoints'"):
        members(Config(), {"keep_checkpoints": (1, 2)})
    with pytest.raises(UserError, match=r"Member objective=ae,beta=1: --beta: .*no such"):
        members(Config(), {"objective": ("ae",), "beta": (1.0,)})
    every = {"multi_rate": ("", "0.5:8")}
    for base, values in ((Config(), every), (Config(multi_rate="0.5:8"), {})):
        with pytest.raises(UserError, match="has every β already"):
            members(base, {"beta": (1.0, 4.0)} | values)
    with pytest.raises(UserError, match="Two members would have the same name"):
        members(Config(), {"dataset": ("npz:my pictures.npz", "npz:my_pictures.npz")})


def test_labels_and_texts_are_short_and_lose_nothing():
    assert label({"objective": "beta_vae", "beta": 4.0, "seed": 1}) == "beta_vae, β = 4"
    assert label({"seed": 1}) == "all"
    for value in (4.0, 1e-5, 0.1 + 0.2, 1e30, 123456789.0):
        assert float(text(value)) == value
        assert text(np.float64(value)) == text(value)
