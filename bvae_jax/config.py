"""What a run is, and how it is scored: frozen dataclasses, checked when made. Imports no JAX."""

import dataclasses
import math
import numbers
import os
import typing
from collections.abc import Mapping
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
    """Data set to train on: a name that bvae data list shows, folder:DIRECTORY or npz:FILE."""
    data_dir: str = ""
    """Where data sets lie that were fetched or prepared. Not given: $BVAE_DATA_DIR, or the user's
    cache directory."""
    image_source: Literal["auto", "rendered", "resident", "streamed"] = "auto"
    """How images come to the device: rendered in the step, gathered from an array that stays there,
    or streamed from the host. auto: what is fastest of what fits."""
    image_size: int = 0
    """folder, tfds: side of the images, to which pictures are cropped and resized. 0: 64 of a
    folder, as they are of tfds."""
    grey: bool = False
    """folder: grey images, of one channel."""
    background: str = ""
    """scream_dsprites: picture behind the sprites. Not given: a generated one."""
    image_key: str = ""
    """tfds: the feature that is the image. Not given: the builder's only one."""
    factor_keys: str = ""
    """tfds: features that are factors, with commas, or none. Not given: labels, whole numbers."""
    only: str = ""
    """Use the images for which conditions hold, as shape=2,x>20,orientation=0:40:5 (class indices;
    the values that are left are numbered anew)."""
    exclude: str = ""
    """Never train on combinations of factors, as shape=2,x>20;scale=0."""
    correlate: str = ""
    """Train with correlated factors, as shape,scale=0.2: the smaller the width, the stronger."""
    augment: str = ""
    """Change training images at random: some of shift=PIXELS,flip,crop=AREA."""
    holdout: float = 0.1
    """Fraction of the images that training never sees and evaluation uses. 0 trains on all, as
    the papers do, and evaluates on training images."""
    test: float = 0.0
    """Fraction of the images that neither training nor its evaluations see."""
    split_by: Literal["random", "index", "published"] = "random"
    """Which images are put aside: at random, the last ones, or the published test set."""
    split_seed: int = 0
    """Seed of what is random in that."""
    network: str = "conv"
    """Encoder and decoder: conv, mlp, locatello, burgess, conv128, spatial_broadcast or resnet."""
    latents: int = 10
    """Number of latents."""
    precision: Literal["float32", "tensorfloat32", "bfloat16"] = "float32"
    """What the networks compute in. tensorfloat32: float32 whose products a GPU rounds to 10 bits.
    Parameters, losses and KL are float32 always."""
    likelihood: str = "bernoulli"
    """p(x|z): bernoulli, continuous_bernoulli, gaussian, sigma_vae, optimal_sigma_vae, laplace or
    logistic_mixture."""
    sigma: float = 1.0
    """Standard deviation of a pixel under the Gaussian likelihood; scale of the Laplace one."""
    samples: int = 1
    """Draws of z for each image. The log-likelihood is their mean."""
    bound: Literal["elbo", "iwae"] = "elbo"
    """What vae and beta_vae maximise: the ELBO, or the importance-weighted bound of --samples."""
    objective: str = "beta_vae"
    """What is minimised: a name that bvae objectives lists, with its hyperparameters."""
    beta: float | None = None
    """Weight of the KL term, nats against nats (sums over pixels and latents). 1 is the ELBO. Like
    all hyperparameters without a value it is the objective's own default (beta_vae: 4)."""
    beta_schedule: str | None = None
    """How beta gets to its value, as linear:steps=1000 or cyclical-cosine:steps=10000,cycles=4."""
    alpha: float | None = None
    """beta_tcvae: weight of the mutual information. info_vae: 1 - weight of the KL."""
    gamma: float | None = None
    """annealed_vae: weight of |KL - C|. beta_tcvae: of the dimension-wise KL. factor_vae: of TC."""
    capacity: float | None = None
    """annealed_vae, control_vae: C, what the KL is held at, nats."""
    capacity_schedule: str | None = None
    """How C gets to its value, as linear:steps=100000 (annealed_vae's default)."""
    lambda_od: float | None = None
    """dip_vae_i, dip_vae_ii: weight of covariances between latents."""
    lambda_d_factor: float | None = None
    """dip_vae_i, dip_vae_ii: weight of variances, in multiples of --lambda-od."""
    lambda_mmd: float | None = None
    """info_vae: lambda; the MMD's weight is alpha + lambda - 1."""
    kp: float | None = None
    """control_vae: proportional gain."""
    ki: float | None = None
    """control_vae: integral gain."""
    beta_min: float | None = None
    """control_vae: smallest beta."""
    beta_max: float | None = None
    """control_vae: largest beta."""
    pair_changes: int = 0
    """ada_gvae, ada_mlvae: factors drawn anew for a pair. 0: a number from 1 to all but one."""
    batch_size: int = 64
    """Images in a batch."""
    learning_rate: float = 5e-4
    """Step size of the optimizer."""
    learning_rate_schedule: str = "constant"
    """How the step size changes, as cosine:steps=100000,start=1,end=0 (multiples of its value)."""
    aux_learning_rate: float | None = None
    """factor_vae: step size of the discriminator's Adam."""
    optimizer: str = "adam"
    """adam, adamw, adagrad or sgd."""
    adam_b1: float = 0.9
    """Adam's decay of the mean of gradients."""
    adam_b2: float = 0.999
    """Adam's decay of the mean of squared gradients."""
    momentum: float = 0.0
    """Momentum of sgd."""
    weight_decay: float = 1e-4
    """Weight decay of adamw."""
    clip_norm: float = 0.0
    """Largest global norm of the gradient; longer ones are shortened. 0: no limit."""
    ema: float = 0.0
    """Decay of a moving average of the parameters, which is then what is evaluated. 0: none."""
    steps: int = 3000
    """Updates to do in all."""
    seed: int = 0
    """Seed of the parameters, the batches and the noise."""
    batch_seed: int = -1
    """Seed of the batches, for runs with different seeds that see the same images. -1: --seed."""
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
    """Times to score, with different seeds: mean, standard deviation, 95 % interval."""
    train_points: int = 10_000
    """Points to compute a score from, or to fit on."""
    test_points: int = 5_000
    """Points to test fitted predictors on."""
    split: Literal["all", "train", "holdout", "test", "excluded"] = "all"
    """Which images of a run's data set the metrics see."""
    permutations: int = 20
    """Of the factors, for the null of scores that rest on mutual information. 0: none."""
    compat: bool = False
    """Where original implementations have known faults, give their scores."""
    seed: int = 0
    """Seed of the evaluation: which points are drawn, and what is random in metrics."""

    def __post_init__(self) -> None:
        _check(self)


HYPERPARAMETERS = tuple(f.name for f in dataclasses.fields(Config) if f.default is None)
"""Fields that have no value of their own: the objective gives them theirs."""

RESUMABLE = ("steps", "keep_checkpoints", "data_dir")
"""Fields that may change when a run is resumed: they do not change what it computes."""

IMAGES = (
    "dataset", "data_dir", "image_size", "grey", "background", "image_key", "factor_keys", "only",
    "image_source",
)  # fmt: skip
"""Fields that say which images there are, and how they come to the device."""
OWN_FILES = ("folder", "npz")
"""What stands before the colon in a `dataset` that is a path to somebody's own files."""
PLACES = ("dataset", "data_dir", "background")
"""Fields that say where files are, or may do so. Another place may hold the same images: those of a
run are compared by their content."""

_CHOICES = {
    "image_source": ("auto", "rendered", "resident", "streamed"),
    "split": ("all", "train", "holdout", "test", "excluded"),
    "split_by": ("random", "index", "published"),
    "precision": ("float32", "tensorfloat32", "bfloat16"),
    "bound": ("elbo", "iwae"),
}
LARGEST = 1e30
"""Numbers up to here survive as float32, with room for arithmetic."""
_POSITIVE = "a number above 0"
_NOT_NEGATIVE = "a number of at least 0"
_FRACTION = "a fraction from 0 up to, but not including, 1"
_COUNT = "a whole number of at least 1"
_RANGES: dict[str, tuple[Any, str]] = {
    "image_size": (lambda v: v == 0 or 8 <= v <= 4096, "0, or a whole number from 8 to 4096"),
    "holdout": (lambda v: 0 <= v < 1, _FRACTION),
    "test": (lambda v: 0 <= v < 1, _FRACTION),
    "split_seed": (lambda v: 0 <= v < 2**32, "a whole number from 0 to 4294967295"),
    "latents": (lambda v: 1 <= v <= 10**6, "a whole number from 1 to 1000000"),
    "sigma": (lambda v: v >= 1e-6, "a number of at least 1e-06"),
    "samples": (lambda v: 1 <= v <= 10**6, "a whole number from 1 to 1000000"),
    "beta": (lambda v: v >= 0, _NOT_NEGATIVE),
    "gamma": (lambda v: v >= 0, _NOT_NEGATIVE),
    "capacity": (lambda v: v >= 0, _NOT_NEGATIVE),
    "lambda_od": (lambda v: v >= 0, _NOT_NEGATIVE),
    "lambda_d_factor": (lambda v: v >= 0, _NOT_NEGATIVE),
    "kp": (lambda v: v >= 0, _NOT_NEGATIVE),
    "ki": (lambda v: v >= 0, _NOT_NEGATIVE),
    "beta_min": (lambda v: v >= 0, _NOT_NEGATIVE),
    "beta_max": (lambda v: v >= 0, _NOT_NEGATIVE),
    "pair_changes": (lambda v: v >= 0, "a whole number of at least 0"),
    "batch_size": (lambda v: 1 <= v <= 10**8, "a whole number from 1 to 100000000"),
    "learning_rate": (lambda v: v > 0, _POSITIVE),
    "aux_learning_rate": (lambda v: v > 0, _POSITIVE),
    "adam_b1": (lambda v: 0 <= v < 1, _FRACTION),
    "adam_b2": (lambda v: 0 <= v < 1, _FRACTION),
    "momentum": (lambda v: 0 <= v < 1, _FRACTION),
    "weight_decay": (lambda v: v >= 0, _NOT_NEGATIVE),
    "clip_norm": (lambda v: v >= 0, _NOT_NEGATIVE),
    "ema": (lambda v: 0 <= v < 1, _FRACTION),
    "steps": (lambda v: 1 <= v < 2**31, "a whole number from 1 to 2147483647"),
    "seed": (lambda v: 0 <= v < 2**32, "a whole number from 0 to 4294967295"),
    "batch_seed": (lambda v: -1 <= v < 2**32, "a whole number from -1 to 4294967295"),
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
        if old[name] != new[name] and name not in RESUMABLE and not _is_moved(name, stored, wanted)
    ]


def _is_moved(name: str, stored: Config, wanted: Config) -> bool:
    """Whether a field has the path of files both times, and of files of one kind."""
    if name not in PLACES:
        return False
    (kind, old), (other, new) = _place(stored, name), _place(wanted, name)
    return bool(old and new) and kind == other


def _place(config: Config, name: str) -> tuple[str, str]:
    """("folder:", "pictures"): what stands before the path in a field of `PLACES`, and the path,
    which is "" where the field holds none."""
    value = getattr(config, name)
    kind, colon, path = value.partition(":")
    if name != "dataset":
        return "", value
    return (kind + colon, path) if kind in OWN_FILES else ("", "")


def places(config: Config) -> dict[str, str]:
    """Fields that hold a path, with that path as it is found from any directory."""
    found = {name: _place(config, name) for name in PLACES}
    return {
        name: kind + os.path.abspath(os.path.expanduser(path))
        for name, (kind, path) in found.items()
        if path
    }


def with_places(config: Config, stored: Config, recorded: Mapping[str, str]) -> Config:
    """`config` with the recorded places of files that are not where it says.

    Args:
        stored: with other places than these, `config` means others than were recorded.
        recorded: what `places` gave when the files were there.
    """
    same = [n for n in PLACES if n in recorded and getattr(config, n) == getattr(stored, n)]
    there = dataclasses.replace(config, **{name: recorded[name] for name in same})
    lost = [n for n in same if not has_files(config, n) and has_files(there, n)]
    return dataclasses.replace(config, **{name: recorded[name] for name in lost})


def has_files(config: Config, name: str) -> bool:
    """Whether there is something in the place that a field of `PLACES` holds, if it holds one."""
    _, path = _place(config, name)
    return not path or os.path.exists(os.path.expanduser(path))


_TYPES = {
    float: (numbers.Real, "a number"),
    int: (numbers.Integral, "a whole number"),
    str: (str, "a name"),
    bool: (bool, "true or false"),
}


def _check(config: Any) -> None:
    """Check every field of a dataclass, and make its value of the plain Python type."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is None and field.default is None:
            continue
        value = _checked_type(field, value)
        object.__setattr__(config, field.name, value)
        _check_range(field.name, value)


def _checked_type(field: dataclasses.Field, value: Any) -> Any:
    """`value` as the plain Python type of the field; NumPy's scalars are welcome."""
    wanted = type(field.default)
    if field.default is None:  # the field's type is `float | None` or `str | None`
        wanted = typing.get_args(field.type)[0]
    accepted, name = _TYPES[wanted]
    if not isinstance(value, accepted) or isinstance(value, bool) != (wanted is bool):
        raise UserError(f"{flag(field.name)}: got {value!r}, wanted {name}.")
    return wanted(value)


def _check_range(name: str, value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{flag(name)}: got {value}, wanted a finite number.")
    if isinstance(value, float) and abs(value) > LARGEST:
        raise UserError(f"{flag(name)}: got {value}, wanted a number up to {LARGEST:g}.")
    if name in _CHOICES and value not in _CHOICES[name]:
        choices = ", ".join(_CHOICES[name])
        raise UserError(f"{flag(name)}: got {value!r}, wanted one of {choices}.")
    if name in _RANGES:
        fits, wanted = _RANGES[name]
        if not fits(value):
            raise UserError(f"{flag(name)}: got {value!r}, wanted {wanted}.")
