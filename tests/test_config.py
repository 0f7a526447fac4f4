import ast
import inspect
import itertools
import subprocess
import sys

import numpy as np
import pytest

from bvae_jax import config as config_module
from bvae_jax.config import Config, ScoreConfig, differing_fields, with_places
from bvae_jax.errors import UserError


def test_round_trip():
    config = Config(beta=7.5, steps=10, dataset="x", holdout=0)
    assert Config.from_dict(config.to_dict()) == config


def test_numbers_become_plain():
    config = Config(beta=np.float32(2), steps=np.int64(5))  # pyright: ignore
    assert type(config.beta) is float
    assert type(config.steps) is int
    assert Config(beta=2).beta == 2.0


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("beta", -1.0, "wanted a number of at least 0"),
        ("beta", float("nan"), "wanted a finite number"),
        ("beta", float("inf"), "wanted a finite number"),
        ("beta", "4", "wanted a number"),
        ("beta", True, "wanted a number"),
        ("beta_schedule", 3, "wanted a text"),
        ("precision", "float16", "wanted one of float32, tensorfloat32, bfloat16"),
        ("bound", "tight", "wanted one of elbo, iwae"),
        ("gamma", -1.0, "wanted a number of at least 0"),
        ("ema", 1.0, "wanted a fraction"),
        ("latents", 0, "wanted a whole number from 1 to 1000000"),
        ("latents", 2.5, "wanted a whole number"),
        ("holdout", 1.0, "wanted a fraction"),
        ("holdout", -0.1, "wanted a fraction"),
        ("image_source", "lazy", "wanted one of auto, rendered, resident"),
        ("seed", -1, "wanted a whole number from 0"),
        ("steps", 2**31, "wanted a whole number from 1 to 2147483647"),
        ("dataset", 3, "wanted a text"),
        ("learning_rate", 0.0, "wanted a number above 0"),
    ],
)
def test_bad_values_say_what_was_got_and_wanted(field, value, wanted):
    with pytest.raises(UserError) as error:
        Config(**{field: value})
    message = str(error.value)
    assert message.startswith("--" + field.replace("_", "-") + ": got ")
    assert wanted in message
    assert "\n" not in message


def test_unknown_fields_are_named():
    with pytest.raises(UserError, match=r"Unknown config fields \['gama'\]\. Known: dataset, "):
        Config.from_dict({"gama": 1})


def test_only_what_changes_the_computation_differs():
    stored = Config()
    assert differing_fields(stored, Config(steps=9, keep_checkpoints=1)) == []
    differing = differing_fields(stored, Config(beta=8, seed=1))
    assert differing == ["beta: None -> 8.0", "seed: 0 -> 1"]


def test_what_is_not_said_of_pictures_is_as_stored():
    """Earlier versions stored 0 and false, of a folder for 64×64×3, elsewhere for nothing."""
    stored = Config.from_dict({"dataset": "folder:a", "image_size": 0, "grey": False})
    assert (stored.image_size, stored.grey) == (0, False)
    wanted = Config(dataset="folder:b", steps=9)
    assert differing_fields(stored, wanted) == []
    assert with_places(wanted, stored, {}) == Config(
        dataset="folder:b", steps=9, image_size=0, grey=False
    )
    differing = differing_fields(stored, wanted.replace(image_size=8))
    assert differing == ["image_size: 0 -> 8"]
    assert Config.from_dict({"image_size": 0, "grey": False}) == Config()


def test_a_path_as_a_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "dsprites").mkdir()
    np.savez(tmp_path / "a.npz", images=np.zeros((3, 8, 8)))
    known = {
        "pictures/": "folder:pictures",
        "/": "folder:/",
        "./pictures": "folder:./pictures",
        f"{tmp_path}/pictures": f"folder:{tmp_path}/pictures",
        "a.npz": "npz:a.npz",
        tmp_path / "a.npz": f"npz:{tmp_path}/a.npz",
        "folder:pictures": "folder:pictures",
        "npz:b.npz": "npz:b.npz",
        "dsprites": "dsprites",
        "b.npz": "b.npz",
        "nowhere/": "nowhere/",
    }
    for given, full in known.items():
        assert Config(dataset=given).dataset == full  # pyright: ignore
    with pytest.raises(UserError, match=r"got an array, wanted a name\. np\.savez\('mine.npz'"):
        Config(dataset=np.zeros((3, 8, 8)))  # pyright: ignore


def test_a_hyperparameter_without_a_field(monkeypatch):
    monkeypatch.setattr(config_module, "OWN_HYPERPARAMETERS", {"tilt"})
    config = Config(hyper={"tilt": np.float32(2)})  # pyright: ignore
    assert config.to_dict() == Config().to_dict() | {"tilt": 2.0}  # flat
    assert Config.from_dict(config.to_dict()) == config
    assert hash(config) == hash(Config.from_dict(config.to_dict()))
    assert config.replace(tilt=3, beta=1.0).value("tilt") == 3.0
    assert config.replace(tilt=None) == Config()
    assert Config().value("tilt") is None
    assert differing_fields(config, Config(steps=9)) == ["tilt: 2.0 -> None"]
    with pytest.raises(UserError, match="--tilt: got nan, wanted a finite number"):
        config.replace(tilt=float("nan"))
    with pytest.raises(UserError, match="hyper: got None, wanted"):
        Config(hyper=None)  # pyright: ignore


def test_names_of_metrics_are_a_list_or_a_text():
    assert ScoreConfig.of(["mig", "sap"]) == ScoreConfig.of("mig,sap") == ScoreConfig("mig,sap")
    given = ScoreConfig("mig", repeats=3)
    assert ScoreConfig.of(given) is given
    for wrong in (None, 3, [], ["mig", 3]):
        with pytest.raises(UserError, match=r"metrics: got .* wanted names"):
            ScoreConfig.of(wrong)  # pyright: ignore


def test_every_field_has_a_help_text():
    """The command line shows the string below each field."""
    (body,) = ast.parse(inspect.getsource(Config)).body
    assert isinstance(body, ast.ClassDef)
    for field, after in itertools.pairwise(body.body):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(after, ast.Expr), ast.unparse(field)
            assert isinstance(after.value, ast.Constant), ast.unparse(field)


def test_importing_the_package_is_quick():
    """Neither JAX nor Orbax is loaded before something is run."""
    code = "import sys, bvae_jax; print([m for m in ('jax', 'orbax', 'flax') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("repeats", 0, "--repeats: got 0, wanted a whole number from 1"),
        ("train_points", 1, "--train-points: got 1, wanted a whole number of at least 2"),
        ("compat", 1, "--compat: got 1, wanted true or false"),
        ("seed", True, "--seed: got True, wanted a whole number"),
        ("metrics", None, "--metrics: got None, wanted a text"),
    ],
)
def test_how_to_score_is_checked_too(field, value, wanted):
    with pytest.raises(UserError, match=wanted):
        ScoreConfig(**{field: value})
