"""What a run is, and how it is scored: frozen dataclasses, checked when made. Imports no JAX."""

import dataclasses
import math
import numbers
from dataclasses import dataclass
from typing import Any, Literal

from bvae_jax.errors import UserError


@dataclass(frozen=True)
class Config:
    """Everything that determines a run, with the defaults of the whole package.

    Raises:
        UserError: a value is of the wrong type or outside its range.
    """

    dataset: str = "dsprites"
    """Data set to train on."""
    image_source: Literal["auto", "rendered", "resident"] = "auto"
    """How images come to the device: rendered in the step, or gathered from a packed array that
    stays there. auto: resident on a CPU, rendered on an accelerator."""
    holdout: float = 0.1
    """Fraction of the images that training never sees and evaluation uses. 0 trains on all, as
    the papers do, and evaluates on training images."""
    network: str = "conv"
    """Encoder and decoder: conv or mlp."""
    latents: int = 10
    """Number of latents."""
    likelihood: str = "bernoulli"
    """p(x|z): bernoulli or gaussian."""
    sigma: float = 1.0
    """Standard deviation of a pixel under the Gaussian likelihood."""
    objective: str = "beta_vae"
    """What is minimised."""
    beta: float = 4.0
    """Weight of the KL term, nats against nats (sums over pixels and latents). 1 is the ELBO."""
    batch_size: int = 64
    """Images in a batch."""
    learning_rate: float = 5e-4
    """Adam's step size."""
    steps: int = 3000
    """Updates to do in all."""
    seed: int = 0
    """Seed of the parameters, the batches and the noise."""
    log_every: int = 50
    """Steps between records in metrics.jsonl; each is the mean over the steps since the last."""
    eval_every: int = 1000
    """Steps between evaluations on held-out images. The last step is always evaluated."""
    eval_images: int = 8192
    """Held-out images to evaluate on (as many as there are, if fewer; whole batches of 256)."""
    eval_metrics: str = ""
    """Disentanglement metrics to log at each evaluation: fast, or names with commas, as mig,irs."""
    checkpoint_every: int = 500
    """Steps between checkpoints. The last step is always saved."""
    keep_checkpoints: int = 3
    """Number of newest checkpoints to keep."""

    def __post_init__(self) -> None:
        _check(self)

    def to_dict(self) -> dict[str, Any]:
        """A dict of JSON's types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Config":
        """The inverse of `to_dict`.

        Raises:
            UserError: a field is unknown, or its value does not fit.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        strange = [name for name in values if name not in known]
        if strange:
            raise UserError(f"Unknown config fields {strange}. Known: {', '.join(known)}.")
        return cls(**values)


@dataclass(frozen=True)
class ScoreConfig:
    """How a representation is scored by disentanglement metrics.

    Raises:
        UserError: a value is of the wrong type or outside its range.
    """

    metrics: str = "all"
    """all, fast, or names with commas, as mig,dci."""
    repeats: int = 1
    """Score so often, with other seeds: mean, standard deviation, 95 % interval."""
    train_points: int = 10_000
    """Points to compute a score from, or to fit on."""
    test_points: int = 5_000
    """Points to test fitted predictors on."""
    permutations: int = 20
    """Of the factors, for the null of scores that rest on mutual information. 0: none."""
    compat: bool = False
    """Where original implementations have known faults, give their scores."""
    seed: int = 0
    """Seed of the evaluation: which points are drawn, and what is random in metrics."""

    def __post_init__(self) -> None:
        _check(self)


RESUMABLE = ("steps", "keep_checkpoints")
"""Fields that may change when a run is resumed: they do not change what it computes."""

_SOURCES = ("auto", "rendered", "resident")
LARGEST = 1e30
"""Numbers up to here survive as float32, with room for arithmetic."""
_POSITIVE = "a number above 0"
_COUNT = "a whole number of at least 1"
_RANGES: dict[str, tuple[Any, str]] = {
    "image_source": (lambda v: v in _SOURCES, f"one of {', '.join(_SOURCES)}"),
    "holdout": (lambda v: 0 <= v < 1, "a fraction from 0 up to, but not including, 1"),
    "latents": (lambda v: 1 <= v <= 10**6, "a whole number from 1 to 1000000"),
    "sigma": (lambda v: v >= 1e-6, "a number of at least 1e-06"),
    "beta": (lambda v: v >= 0, "a number of at least 0"),
    "batch_size": (lambda v: 1 <= v <= 10**8, "a whole number from 1 to 100000000"),
    "learning_rate": (lambda v: v > 0, _POSITIVE),
    "steps": (lambda v: 1 <= v < 2**31, "a whole number from 1 to 2147483647"),
    "seed": (lambda v: 0 <= v < 2**32, "a whole number from 0 to 4294967295"),
    "log_every": (lambda v: v >= 1, _COUNT),
    "eval_every": (lambda v: v >= 1, _COUNT),
    "eval_images": (lambda v: v >= 1, _COUNT),
    "checkpoint_every": (lambda v: v >= 1, _COUNT),
    "keep_checkpoints": (lambda v: v >= 1, _COUNT),
    "repeats": (lambda v: 1 <= v <= 10_000, "a whole number from 1 to 10000"),
    "train_points": (lambda v: v >= 2, "a whole number of at least 2"),
    "test_points": (lambda v: v >= 1, _COUNT),
    "permutations": (lambda v: 0 <= v <= 10**6, "a whole number from 0 to 1000000"),
}


def flag(name: str) -> str:
    """The command line's name of a field: batch_size -> --batch-size."""
    return "--" + name.replace("_", "-")


def differing_fields(stored: Config, wanted: Config) -> list[str]:
    """`name: stored -> wanted` for the fields that differ and may not when a run is resumed."""
    old, new = stored.to_dict(), wanted.to_dict()
    return [
        f"{name}: {old[name]} -> {new[name]}"
        for name in old
        if old[name] != new[name] and name not in RESUMABLE
    ]


_TYPES = {
    float: (numbers.Real, "a number"),
    int: (numbers.Integral, "a whole number"),
    str: (str, "a name"),
    bool: (bool, "true or false"),
}


def _check(config: Any) -> None:
    """Check every field of a dataclass, and make its value of the plain Python type."""
    for field in dataclasses.fields(config):
        value = _checked_type(field, getattr(config, field.name))
        object.__setattr__(config, field.name, value)
        _check_range(field.name, value)


def _checked_type(field: dataclasses.Field, value: Any) -> Any:
    """`value` as the plain Python type of the field's default; NumPy's scalars are welcome."""
    wanted = type(field.default)
    accepted, name = _TYPES[wanted]
    if not isinstance(value, accepted) or isinstance(value, bool) != (wanted is bool):
        raise UserError(f"{flag(field.name)}: got {value!r}, wanted {name}.")
    return wanted(value)


def _check_range(name: str, value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{flag(name)}: got {value}, wanted a finite number.")
    if isinstance(value, float) and abs(value) > LARGEST:
        raise UserError(f"{flag(name)}: got {value}, wanted a number up to {LARGEST:g}.")
    if name in _RANGES:
        fits, wanted = _RANGES[name]
        if not fits(value):
            raise UserError(f"{flag(name)}: got {value!r}, wanted {wanted}.")
