"""Presets: whole, resolvable, and what their papers say."""

import dataclasses

import jax
import pytest

from bvae_jax.cli.flags import parse
from bvae_jax.cli.run import train_flags
from bvae_jax.config import Config
from bvae_jax.errors import UserError
from bvae_jax.objectives import OBJECTIVES
from bvae_jax.presets import PRESETS, get_preset, settle
from bvae_jax.runs.hyper import hyperparameters, resolved
from bvae_jax.runs.trainer import Trainer
from bvae_jax.vae import CODEBOOK

PARAMETERS = {"mlp": 14_196_516, "locatello": 690_517, "burgess": 502_005, "conv": 764_245}
PARAMETERS |= {"small": 214_493}


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_can_be_built(name):
    preset = PRESETS[name]
    config = resolved(Config(**preset.settings))
    program = Trainer(dataclasses.replace(config, image_source="rendered"))
    assert program.config.objective == config.objective
    assert (len(program.split.holdout) == 0) == (name != "laptop")  # papers train on all images
    state = jax.eval_shape(program.init)
    networks = {name: of for name, of in state.params["vae"].items() if name != CODEBOOK}
    count = sum(x.size for x in jax.tree.leaves(networks))
    assert config.network == "conv128" or count == PARAMETERS[config.network]
    assert set(state.hyper) == set(hyperparameters(config))


def test_presets_say_what_the_papers_say():
    def of(name, *fields):
        config = resolved(Config(**PRESETS[name].settings))
        return tuple(getattr(config, field) for field in fields)

    assert of("higgins2017-dsprites", "beta", "optimizer", "latents") == (4.0, "adagrad", 10)
    assert of("burgess2018", "gamma", "capacity", "capacity_schedule") == (
        1000.0, 25.0, "linear:steps=100000"
    )  # fmt: skip
    assert of("kim2018-dsprites", "gamma", "learning_rate", "aux_learning_rate") == (
        35.0, 1e-4, 1e-4
    )  # fmt: skip
    assert of("chen2018", "beta", "batch_size", "learning_rate") == (6.0, 2048, 1e-3)
    assert of("kumar2018-i", "lambda_d_factor") == (10.0,)
    assert of("kumar2018-ii", "lambda_d_factor") == (1.0,)
    assert of("hsu2023", "optimizer", "weight_decay", "levels") == ("adamw", 0.1, 10)
    assert of("locatello2019", "batch_size", "steps", "learning_rate") == (64, 300_000, 1e-4)
    # A sum of squares without 1/2: half of it is the nll in units of which beta counts double.
    sigma, beta = of("notebook128", "sigma", "beta")
    assert (1 / (2 * sigma**2), beta) == pytest.approx((1.0, 4.0))


def test_presets_use_many_objectives():
    used = {preset.settings["objective"] for preset in PRESETS.values()}
    assert len(used) >= 6
    assert used <= set(OBJECTIVES)


@pytest.mark.parametrize(
    ("given", "stored", "wanted"),
    [
        ("--objective beta_tcvae --beta 4", {}, {"beta": 4.0}),  # the preset's beta_vae has 4, too
        ("--objective beta_tcvae", {}, {"beta": None}),
        ("--objective beta_vae --beta 4", {}, {"beta": 4.0}),
        ("--objective beta_tcvae", {"objective": "beta_tcvae", "beta": 9.0}, {"beta": 9.0}),
        (
            "--objective beta_tcvae --beta 4",
            {"objective": "beta_tcvae", "beta": 9.0},
            {"beta": 4.0},
        ),
        ("--grey", {"grey": True}, {"grey": True}),
        ("--steps 3000", {}, {"steps": 3000, "beta": 4.0}),  # 3000 is the default of steps
    ],
)
def test_what_flags_say_goes_before_the_preset_and_the_run(given, stored, wanted):
    typed = parse(["--run-dir", "r", *given.split()], "t", "", train_flags)["settings"]
    config = settle(typed, "locatello2019", Config(**stored) if stored else None)
    assert {name: getattr(config, name) for name in wanted} == wanted
    assert config.learning_rate == 1e-4


def test_a_preset_keeps_what_is_of_its_own_likelihood():
    config = settle({"likelihood": "bernoulli"}, "notebook128")
    assert resolved(config).sigma == Config.sigma


def test_settings_of_another_run_are_kept_but_for_those_of_another_choice():
    """A run's config is resolved: its hyperparameters are its own objective's."""
    base = resolved(Config(objective="dip_vae_i", lambda_od=9.0, likelihood="laplace", sigma=0.5))
    config = settle({"objective": "beta_vae", "latents": 3}, base=base)
    assert resolved(config) == resolved(Config(likelihood="laplace", sigma=0.5, latents=3))
    assert settle({"objective": "dip_vae_i", "latents": 3}, base=base) == base.replace(latents=3)
    assert resolved(settle({"likelihood": "bernoulli"}, base=base)).sigma == Config.sigma


def test_unknown_preset_is_named():
    with pytest.raises(UserError, match=r"Unknown preset 'higgins'\. Known: burgess2018, "):
        get_preset("higgins")
