"""Objectives, networks, likelihoods, metrics and data sets of one's own, from any script."""

import hashlib
import importlib.util
import re
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from bvae_jax import config
from bvae_jax.data import DATASETS
from bvae_jax.data.base import Dataset
from bvae_jax.data.published import PUBLISHED
from bvae_jax.errors import UserError
from bvae_jax.likelihoods import LIKELIHOODS, make_likelihood
from bvae_jax.metrics import METRICS
from bvae_jax.metrics.base import ARRAYS, Metric
from bvae_jax.networks import NETWORKS
from bvae_jax.objectives import OBJECTIVES
from bvae_jax.objectives.base import Objective, no_aux

NAME = r"\w[\w.-]*"
REGISTRIES: dict[str, tuple[dict[str, Any], type | None]] = {
    "objective": (OBJECTIVES, Objective),
    "network": (NETWORKS, None),
    "likelihood": (LIKELIHOODS, None),
    "metric": (METRICS, Metric),
    "dataset": (DATASETS, Dataset),
}
"""Kind -> what there is of it by name, and its class; None: functions."""
PLUGINS: dict[str, str] = {}
"""What was loaded -> its content or version: a script's path and SHA-256, or the module that a
package names in its entry points of the group `bvae_jax`, and that package's version."""


def register(*, replace: bool = False, **kinds: Any) -> None:
    """Make things of one's own known by name: in Python, and to commands with --plugin FILE.py.

    They then work in `train`, `sweep` and `compare` as those of the package do. An objective's
    hyperparameters may have names of their own, which need no field of `Config`: they are traced,
    so that a sweep varies them within one compiled program.

        import bvae_jax as bvae
        from bvae_jax.objectives.base import Inputs, Loss, Objective

        def loss(given: Inputs) -> Loss:
            return Loss(given.nll + given.hyper["tilt"] * given.mean_kl**2)

        formula = "NLL + tilt KL^2"
        bvae.register(objective={"tilted": Objective(loss, formula, "ours", {"tilt": 0.1})})
        config = bvae.Config(objective="tilted", hyper={"tilt": 0.5})

    With this in tilted.py: `bvae sweep --plugin tilted.py --objective tilted --grid tilt=0.1,0.5
    --sweep-dir sweeps/tilted`, and for one run `--hyper tilt=0.5`.

    Args:
        replace: what has the same name already; otherwise it is an error.
        kinds: name -> thing, by kind. `objective`: an `objectives.base.Objective`. `network`:
            (latents, image shape, numbers for a pixel, dtype) -> `networks.Network`. `likelihood`:
            sigma -> `likelihoods.Likelihood`. `metric`: a `metrics.base.Metric`. `dataset`: a
            `data.base.Dataset`.

    Raises:
        UserError: a kind is unknown, a name is taken, a thing is of another type, or a
            hyperparameter has the name of a field of `Config` that is none.
    """
    for kind, things in kinds.items():
        if kind not in REGISTRIES:
            raise UserError(f"register: got {kind!r}, wanted some of {', '.join(REGISTRIES)}.")
        known, wanted = REGISTRIES[kind]
        if not isinstance(things, Mapping):
            raise UserError(f"register: {kind}: got {things!r}, wanted {{name: {kind}}}.")
        for name, thing in things.items():
            if not isinstance(name, str) or not re.fullmatch(NAME, name):
                raise UserError(f"register: got the name {name!r}, wanted letters, digits, _ . -")
            if name in known and not replace:
                raise UserError(
                    f"register: the {kind} {name!r} is there already. Choose another name, or give "
                    "replace=True."
                )
            if not (isinstance(thing, wanted) if wanted else callable(thing)):
                what = wanted.__name__ if wanted else "function"
                raise UserError(f"register: {kind} {name!r}: got {thing!r}, wanted: {what}.")
            if isinstance(thing, Objective):
                _check_hyperparameters(name, thing)
            if isinstance(thing, Metric) and (strange := sorted(set(thing.takes) - set(ARRAYS))):
                raise UserError(
                    f"register: metric {name!r} takes {', '.join(strange)}, wanted some of "
                    f"{', '.join(ARRAYS)}; settings are keyword-only, with defaults."
                )
    for kind, things in kinds.items():
        REGISTRIES[kind][0].update(things)
    for objective in kinds.get("objective", {}).values():
        config.OWN_HYPERPARAMETERS.update(set(objective.hyper) - set(config.FIELDS))
    make_likelihood.cache_clear()


def _check_hyperparameters(objective: str, thing: Objective) -> None:
    numbers = [name for name in config.HYPERPARAMETERS if not name.endswith("_schedule")]
    for name in thing.hyper:
        taken = name == "hyper" or (name in config.FIELDS and name not in numbers)
        if taken or not name.isidentifier():
            raise UserError(
                f"register: objective {objective!r}: its hyperparameter {name!r} "
                + ("has the name of a setting of every run" if taken else "is no name of Python's")
                + ". Choose another name."
            )
    for name, value in (*thing.hyper.items(), *thing.memory.items()):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(
                f"register: objective {objective!r}: got {value!r} for {name}, wanted a number."
            )
    if thing.init_aux is not no_aux and "aux_learning_rate" not in thing.hyper:
        raise UserError(
            f"register: objective {objective!r} has parameters of its own (init_aux), wanted "
            "aux_learning_rate in hyper, as {'aux_learning_rate': 1e-4}: without it they stay "
            "as they are."
        )


def unknown_parts(config: config.Config) -> list[str]:
    """What a config names that no registry has, in words; stored data sets are not looked at."""
    parts = [(kind, getattr(config, kind)) for kind in ("objective", "network", "likelihood")]
    if re.fullmatch(NAME, config.dataset) and config.dataset not in PUBLISHED:
        parts.append(("dataset", config.dataset))
    return [f"{kind} {name}" for kind, name in parts if name not in REGISTRIES[kind][0]]


def load_installed() -> None:
    """Import the modules that installed packages name in their entry points, as in
    `[project.entry-points.bvae_jax]` `mine = "mine.parts"`."""
    for point in entry_points(group="bvae_jax"):
        point.load()
        PLUGINS[point.value] = point.dist.version if point.dist else ""


def load_plugin(path: Path) -> None:
    """Run a script that registers things, once in this process.

    Raises:
        UserError: there is no such file, or `register` refuses what is in it.
    """
    path = path.expanduser().resolve()
    name = f"bvae_plugin_{re.sub(r'[^0-9a-zA-Z]', '_', str(path))}"
    if name in sys.modules:
        return
    if not path.is_file() or path.suffix != ".py":
        what = "" if path.is_file() else ", which is no file"
        raise UserError(f"--plugin: got {path}{what}, wanted a Python file (.py).")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    PLUGINS[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
