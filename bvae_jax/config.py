"""What a run is, and how it is scored: frozen dataclasses, checked when made. Imports no JAX."""

import dataclasses
import enum
import math
import numbers
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

from bvae_jax.errors import HOW_TO_REGISTER, UserError

LARGEST = 1e30
"""Numbers up to here survive as float32, with room for arithmetic."""


class Role(enum.Flag):
    """What a field is for. Fields without `TRACED` and `UNCOMPILED` are compiled into a program."""

    NONE = 0
    IMAGES = enum.auto()
    """Says which images there are, and how they come to the device."""
    PLACE = enum.auto()
    """Says where files are, or may do so. Another place may hold the same images: those of a run
    are compared by their content."""
    TRACED = enum.auto()
    """A number that a sweep may vary within one compiled program, or the numbers of a schedule."""
    OWNED = enum.auto()
    """Has no value of its own: the objective gives it one."""
    UNCOMPILED = enum.auto()
    """A program does not depend on it."""
    PACE = enum.auto()
    """How long a run goes on, and when it does what."""
    RESUMABLE = enum.auto()
    """May change when a run is resumed: it does not change what the run computes."""
    NO_SETTING = enum.auto()
    """Runs that differ in it have the same setting when they are compared."""


class Check(NamedTuple):
    """Which values a field takes, and how a message says so."""

    fits: Callable[[Any], bool]
    wanted: str


NOT_NEGATIVE = Check(lambda v: v >= 0, "a number of at least 0")
POSITIVE = Check(lambda v: v > 0, "a number above 0")
FRACTION = Check(lambda v: 0 <= v < 1, "a fraction from 0 up to, but not including, 1")
SIDE = Check(lambda v: v == 0 or 8 <= v <= 4096, "0, or a whole number from 8 to 4096")


def whole(low: int, high: int | None = None) -> Check:
    """A whole number from `low` to `high`, or of at least `low`."""
    if high is None:
        return Check(lambda v: v >= low, f"a whole number of at least {low}")
    return Check(lambda v: low <= v <= high, f"a whole number from {low} to {high}")


SEED = whole(0, 2**32 - 1)
T = TypeVar("T")


def option(default: T, check: Check | None = None, *, role: Role = Role.NONE) -> T:
    """A field with its default, its check, and what it is for."""
    metadata = {"check": check, "role": role}
    return dataclasses.field(default=default, metadata=metadata)  # pyright: ignore


def owned(check: Check | None = None) -> Any:
    """A hyperparameter, to which the objective gives its value where the config gives none."""
    return option(None, check, role=Role.TRACED | Role.OWNED)


HOW_OFTEN = Role.PACE | Role.UNCOMPILED | Role.NO_SETTING


@dataclass(frozen=True)
class Config:
    """Everything that determines a run, with the defaults of the whole package.

    Raises:
        UserError: a value is of the wrong type or outside its range.
    """

    dataset: str = option("dsprites", role=Role.IMAGES | Role.PLACE)
    """Data set to train on: a name that bvae data list shows, a folder of pictures (DIRECTORY/ or
    folder:DIRECTORY), an .npz file (FILE.npz or npz:FILE), or hf:USER/NAME of the Hub."""
    data_dir: str = option(
        "", role=Role.IMAGES | Role.PLACE | Role.RESUMABLE | Role.UNCOMPILED | Role.NO_SETTING
    )
    """Where data sets lie that were fetched or prepared. Not given: $BVAE_DATA_DIR, or the user's
    cache directory."""
    image_source: Literal["auto", "rendered", "resident", "streamed"] = option(
        "auto", role=Role.IMAGES | Role.NO_SETTING
    )
    """How images come to the device: rendered in the step, gathered from an array that stays there,
    or streamed from the host. auto: what is fastest of what fits."""
    image_size: int | None = option(None, SIDE, role=Role.IMAGES)
    """folder, hf, tfds: side of the images, to which pictures are cropped and resized. Not given:
    tfds keeps its own; folder and hf keep theirs if all have the same shorter side of 8 to 64
    pixels, and are 64 otherwise."""
    grey: bool | None = option(None, role=Role.IMAGES)
    """folder, hf: images of one channel; --no-grey: of three. Not given: of one where all pictures
    are grey."""
    background: str = option("", role=Role.IMAGES | Role.PLACE)
    """scream_dsprites: picture behind the sprites. Not given: a generated one."""
    image_key: str = option("", role=Role.IMAGES)
    """hf, tfds: the column that is the image. Not given: the only one."""
    factor_keys: str = option("", role=Role.IMAGES)
    """hf, tfds: columns that are factors, with commas; or none. Not given: class labels, booleans
    and whole numbers."""
    only: str = option("", role=Role.IMAGES)
    """Use the images for which conditions hold, as shape=2,x>20,orientation=0:40:5 (class indices;
    the values that are left are numbered anew)."""
    exclude: str = ""
    """Never train on combinations of factors, as shape=2,x>20;scale=0. Of dSprites and 3D Shapes
    also recombination_to_element, recombination_to_range, extrapolation (Montero et al. 2021)."""
    correlate: str = ""
    """Train with correlated factors, as shape,scale=0.2: the smaller the width, the stronger."""
    augment: str = ""
    """Change training images at random: some of shift=PIXELS,flip,crop=AREA."""
    holdout: float = option(0.1, FRACTION)
    """Fraction of the images that training never sees and evaluation uses. 0 trains on all, as
    the papers do, and evaluates on training images."""
    test: float = option(0.0, FRACTION)
    """Fraction of the images that neither training nor its evaluations see."""
    split_by: Literal["random", "index", "published"] = "random"
    """Which images are put aside: at random, the last ones, or the published test set."""
    split_seed: int = option(0, SEED)
    """Seed of the random choice of the images that are put aside."""
    network: str = "conv"
    """Encoder and decoder: conv, mlp, locatello, burgess, conv128, spatial_broadcast, small or
    resnet."""
    latents: int = option(10, whole(1, 10**6))
    """Number of latents."""
    precision: Literal["float32", "tensorfloat32", "bfloat16"] = "float32"
    """What the networks compute in. tensorfloat32: float32 whose products a GPU rounds to 10 bits.
    Parameters, losses and KL are float32 always."""
    likelihood: str = "bernoulli"
    """p(x|z): bernoulli, continuous_bernoulli, gaussian, sigma_vae, optimal_sigma_vae, laplace or
    logistic_mixture."""
    sigma: float = option(1.0, Check(lambda v: v >= 1e-6, "a number of at least 1e-06"))
    """Standard deviation of a pixel under the Gaussian likelihood; scale of the Laplace one."""
    samples: int = option(1, whole(1, 10**6))
    """Draws of z for each image. The log-likelihood is their mean."""
    bound: Literal["elbo", "iwae"] = "elbo"
    """What vae and beta_vae maximise: the ELBO, or the importance-weighted bound of --samples."""
    objective: str = "beta_vae"
    """What is minimised: a name that bvae list objectives shows, with its hyperparameters."""
    beta: float | None = owned(NOT_NEGATIVE)
    """Weight of the KL term, nats against nats (sums over pixels and latents). 1 is the ELBO. Like
    all hyperparameters without a value it is the objective's own default (beta_vae: 4)."""
    beta_schedule: str | None = owned()
    """How beta gets to its value, as linear:steps=1000 or cyclical-cosine:steps=10000,cycles=4."""
    multi_rate: str = ""
    """Train one network for every beta of a range, as 0.5:16; each image of a batch has a beta of
    its own then, and --beta says at which the run is evaluated (Run.at: at any other)."""
    multi_rate_decoder: Literal["sqrt", "sigmoid"] = "sqrt"
    """Function of the gates by which the decoder depends on beta; the encoder's is the sigmoid."""
    alpha: float | None = owned()
    """beta_tcvae: weight of the mutual information. info_vae: 1 - weight of the KL."""
    gamma: float | None = owned(NOT_NEGATIVE)
    """annealed_vae: weight of |KL - C|. beta_tcvae: of the dimension-wise KL. factor_vae: of TC.
    hfs_vae: of the distance from a factorised support."""
    capacity: float | None = owned(NOT_NEGATIVE)
    """annealed_vae, control_vae: C, what the KL is held at, nats."""
    capacity_schedule: str | None = owned()
    """How C gets to its value, as linear:steps=100000 (annealed_vae's default)."""
    lambda_od: float | None = owned(NOT_NEGATIVE)
    """dip_vae_i, dip_vae_ii: weight of covariances between latents."""
    lambda_d_factor: float | None = owned(NOT_NEGATIVE)
    """dip_vae_i, dip_vae_ii: weight of variances, in multiples of --lambda-od."""
    lambda_mmd: float | None = owned()
    """info_vae: lambda; the MMD's weight is alpha + lambda - 1."""
    lambda_l2: float | None = owned(NOT_NEGATIVE)
    """lambda_beta_vae: weight of the squared error, a sum over pixels."""
    lambda_quantize: float | None = owned(NOT_NEGATIVE)
    """qlae: weight of the codebook's squared distance from codes, a sum over latents. With Adam its
    size does not matter."""
    lambda_commit: float | None = owned(NOT_NEGATIVE)
    """qlae: weight of the codes' squared distance from their values, a sum over latents."""
    levels: int = option(10, whole(2, 1000))
    """qlae: values of each latent."""
    kp: float | None = owned(NOT_NEGATIVE)
    """control_vae: proportional gain."""
    ki: float | None = owned(NOT_NEGATIVE)
    """control_vae: integral gain."""
    beta_min: float | None = owned(NOT_NEGATIVE)
    """control_vae: smallest beta."""
    beta_max: float | None = owned(NOT_NEGATIVE)
    """control_vae: largest beta."""
    pair_changes: int = option(0, whole(0))
    """ada_gvae, ada_mlvae: factors drawn anew for a pair. 0: a number from 1 to all but one."""
    batch_size: int = option(64, whole(1, 10**8))
    """Images in a batch."""
    learning_rate: float = option(5e-4, POSITIVE, role=Role.TRACED)
    """Step size of the optimizer."""
    learning_rate_schedule: str = "constant"
    """How the step size changes, as cosine:steps=100000,start=1,end=0 (multiples of its value)."""
    aux_learning_rate: float | None = owned(POSITIVE)
    """factor_vae: step size of the discriminator's Adam."""
    optimizer: str = "adam"
    """adam, adamw, adagrad or sgd."""
    adam_b1: float = option(0.9, FRACTION)
    """Adam's decay of the mean of gradients."""
    adam_b2: float = option(0.999, FRACTION)
    """Adam's decay of the mean of squared gradients."""
    adam_eps: float = option(1e-8, POSITIVE)
    """What Adam adds to the root of that mean."""
    momentum: float = option(0.0, FRACTION)
    """Momentum of sgd."""
    weight_decay: float = option(1e-4, NOT_NEGATIVE)
    """Weight decay of adamw."""
    clip_norm: float = option(0.0, NOT_NEGATIVE)
    """Largest global norm of the gradient; longer ones are shortened. 0: no limit."""
    ema: float = option(0.0, FRACTION)
    """Decay of a moving average of the parameters, which is then what is evaluated. 0: none."""
    steps: int = option(
        3000, whole(1, 2**31 - 1), role=Role.PACE | Role.UNCOMPILED | Role.RESUMABLE
    )
    """Updates to do in all."""
    seed: int = option(0, SEED, role=Role.UNCOMPILED | Role.NO_SETTING)
    """Seed of the parameters, the batches and the noise."""
    batch_seed: int = option(-1, whole(-1, 2**32 - 1))
    """Seed of the batches, for runs with different seeds that see the same images. -1: --seed."""
    log_every: int = option(50, whole(1), role=HOW_OFTEN)
    """Steps between records in metrics.jsonl; each is the mean over the steps since the last."""
    eval_every: int = option(1000, whole(1), role=HOW_OFTEN)
    """Steps between evaluations on held-out images. The last step is always evaluated."""
    eval_images: int = option(8192, whole(1), role=Role.NO_SETTING)
    """Held-out images to evaluate on (as many as there are, if fewer; whole batches of 256)."""
    eval_metrics: str = option("", role=HOW_OFTEN)
    """Disentanglement metrics to log at each evaluation: fast, or names with commas, as mig,irs."""
    checkpoint_every: int = option(500, whole(1), role=HOW_OFTEN)
    """Steps between checkpoints. The last step is always saved."""
    keep_checkpoints: int = option(3, whole(1), role=HOW_OFTEN | Role.RESUMABLE)
    """Number of newest checkpoints to keep."""

    hyper: Mapping[str, float] = dataclasses.field(
        default_factory=dict, hash=False, metadata={"check": None, "role": Role.TRACED}
    )
    """Hyperparameters of the objective that have no field of their own here, by name: those of an
    objective that `bvae_jax.register` made known."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "dataset", _in_full(self.dataset))
        _check(self)
        if not self.dataset.startswith(
            ("folder:", "hf:")
        ):  # elsewhere earlier versions wrote 0 and false
            for name in OF_PICTURES:
                object.__setattr__(self, name, getattr(self, name) or None)

    def value(self, name: str) -> Any:
        """Of a field, or of a hyperparameter that has none; None where the latter is not given."""
        return getattr(self, name) if name in FIELDS else self.hyper.get(name)

    def replace(self, **values: Any) -> "Config":
        """With other values of fields, and of hyperparameters that have none (None: not given).

        Raises:
            UserError: a name is not known, or its value does not fit.
        """
        return Config.from_dict(self.to_dict() | values)

    def to_dict(self) -> dict[str, Any]:
        """A flat dict of JSON's types."""
        return {name: getattr(self, name) for name in FIELDS} | dict(self.hyper)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """The inverse of `to_dict`.

        Raises:
            UserError: a field is unknown, or its value does not fit.
        """
        strange = [
            name for name in values if name not in FIELDS and name not in OWN_HYPERPARAMETERS
        ]
        if strange:
            raise UserError(
                f"Unknown config fields {strange}. Known: {', '.join(FIELDS)}. Those of an "
                f"objective of your own are known once it is registered: {HOW_TO_REGISTER}."
            )
        hyper = {n: v for n, v in values.items() if n not in FIELDS and v is not None}
        return cls(**{n: v for n, v in values.items() if n in FIELDS}, hyper=hyper)


SplitName = Literal["all", "train", "holdout", "test", "excluded", "correlated"]
"""Which images of a run's data set are scored."""


@dataclass(frozen=True)
class ScoreConfig:
    """How a representation is scored by disentanglement metrics.

    Raises:
        UserError: a value is of the wrong type or outside its range.
    """

    metrics: str = "all"
    """all, fast, or names with commas, as mig,dci."""
    repeats: int = option(1, whole(1, 10_000))
    """Times to score, with different seeds: mean, standard deviation, 95 % interval."""
    train_points: int = option(10_000, whole(2))
    """Points to compute a score from, or to fit on."""
    test_points: int = option(5_000, whole(1))
    """Points to test fitted predictors on."""
    split: SplitName = "all"
    """Which images of a run's data set the metrics see; correlated: all, as --correlate draws."""
    permutations: int = option(20, whole(0, 10**6))
    """Of the factors, for the null of scores that rest on mutual information. 0: none."""
    continuous: str = ""
    """Factors that are numbers, as x,y,orientation=40: with a period, in units of their values (of
    class indices where the data do not declare values). none: all are classes. Not given: as the
    data say."""
    compat: bool = False
    """Where original implementations have known faults, give their scores."""
    seed: int = option(0, SEED)
    """Seed of the evaluation: which points are drawn, and what is random in metrics."""

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def of(cls, given: "ScoreConfig | str | Sequence[str]") -> "ScoreConfig":
        """One as it is; names of metrics, in a list or with commas, as one with them.

        Raises:
            UserError: it is neither.
        """
        if isinstance(given, ScoreConfig):
            return given
        names = [given] if isinstance(given, str) else given
        if not isinstance(names, Sequence) or not names or {*map(type, names)} != {str}:
            raise UserError(
                f"metrics: got {given!r}, wanted names, as 'mig,sap' or ['mig', 'sap'], or a "
                "ScoreConfig."
            )
        return cls(",".join(names))


@dataclass(frozen=True)
class TraversalSettings:
    """What latent traversals of a run show.

    Raises:
        UserError: a value is outside its range.
    """

    range: float = option(3.0, Check(lambda v: 0 < v <= 1000, "a number above 0 and up to 1000"))
    """Latents run from -RANGE to RANGE, in standard deviations of the prior (of an autoencoder's
    codes, around their mean; of qlae's not used: a column is a value of the codebook)."""
    columns: int = option(11, whole(2, 101))
    """Number of values for each latent."""
    images: tuple[int | str, ...] = ()
    """Images to start from: data set indices, or picture files (PNG, JPEG, WebP), of which the
    central square is resized. Not given: a held-out image that is well reconstructed."""
    latents: str = ""
    """Numbers of the latents to show, with commas, as 3,1. Not given: those that are active, that
    of the largest KL first."""
    all_latents: bool = False
    """Show latents that are not active, too."""

    def __post_init__(self) -> None:
        _check(self)


def _fields_of(role: Role) -> tuple[str, ...]:
    """Names of the fields of `Config` that have a role."""
    fields = dataclasses.fields(Config)
    return tuple(f.name for f in fields if role in f.metadata.get("role", Role.NONE))


FIELDS = tuple(field.name for field in dataclasses.fields(Config) if field.name != "hyper")
"""What a config.json holds, beside hyperparameters that have no field."""
HYPERPARAMETERS = _fields_of(Role.OWNED)
TRACED = _fields_of(Role.TRACED)
UNCOMPILED = _fields_of(Role.UNCOMPILED)
PACE = _fields_of(Role.PACE)
RESUMABLE = _fields_of(Role.RESUMABLE)
IMAGES = _fields_of(Role.IMAGES)
PLACES = _fields_of(Role.PLACE)
NO_SETTING = _fields_of(Role.NO_SETTING)

OWN_HYPERPARAMETERS: set[str] = set()
"""Names of hyperparameters that have no field: those of registered objectives."""
OWN_FILES = ("folder", "npz")
"""What stands before the colon in a `dataset` that is a path to somebody's own files."""
OF_PICTURES = ("image_size", "grey")
"""Fields that pictures decide where they are not given."""


def flag(name: str) -> str:
    """The command line's name of a field: batch_size -> --batch-size."""
    return "--" + name.replace("_", "-")


def differing_fields(stored: Config, wanted: Config) -> list[str]:
    """`name: stored -> wanted` for the fields that differ and may not when a run is resumed."""
    return [
        f"{name}: {stored.value(name)} -> {wanted.value(name)}"
        for name in stored.to_dict() | wanted.to_dict()
        if stored.value(name) != wanted.value(name)
        and name not in RESUMABLE
        and not (name in OF_PICTURES and wanted.value(name) is None)
        and not _is_moved(name, stored, wanted)
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
    own = kind in OWN_FILES or (kind == "hf" and is_here(path))
    return (kind + colon, path) if own else ("", "")


def places(config: Config) -> dict[str, str]:
    """Fields that hold a path, with that path as it is found from any directory."""
    found = {name: _place(config, name) for name in PLACES}
    return {
        name: kind + os.path.abspath(os.path.expanduser(path))
        for name, (kind, path) in found.items()
        if path
    }


def with_places(config: Config, stored: Config, recorded: Mapping[str, str]) -> Config:
    """`config` with the recorded places of files that are not where it says, and the stored form
    of pictures where it says nothing of that.

    Args:
        stored: with other places than these, `config` means others than were recorded.
        recorded: what `places` gave when the files were there.
    """
    form = {n: getattr(stored, n) for n in OF_PICTURES if getattr(config, n) is None}
    config = dataclasses.replace(config, **form)
    same = [n for n in PLACES if n in recorded and getattr(config, n) == getattr(stored, n)]
    there = dataclasses.replace(config, **{name: recorded[name] for name in same})
    lost = [n for n in same if not has_files(config, n) and has_files(there, n)]
    return dataclasses.replace(config, **{name: recorded[name] for name in lost})


def is_path(dataset: str) -> bool:
    """Whether a name of a data set can only be that of a folder or a file."""
    return "/" in dataset or dataset.startswith((".", "~")) or dataset.endswith(".npz")


def is_here(path: str) -> bool:
    """Whether what stands after hf: is a path of this machine."""
    return path.startswith(("/", ".", "~"))


def _in_full(dataset: Any) -> Any:
    """The path of a folder or an .npz file that is there, with what it is before the colon."""
    if hasattr(dataset, "__array__"):
        raise UserError(
            "dataset: got an array, wanted a name. np.savez('mine.npz', images=images), with "
            "factors=... if you have them, then Config(dataset='mine.npz')."
        )
    path = os.fspath(dataset) if isinstance(dataset, os.PathLike) else dataset
    if not isinstance(path, str) or (path is dataset and not is_path(path)):
        return dataset
    if path.partition(":")[0] in (*OWN_FILES, "hf", "tfds"):
        return path
    there = os.path.expanduser(path)
    if os.path.isdir(there):
        return f"folder:{path.rstrip('/') or '/'}"
    return f"npz:{path}" if there.endswith(".npz") and os.path.isfile(there) else path


def has_files(config: Config, name: str) -> bool:
    """Whether there is something in the place that a field of `PLACES` holds, if it holds one."""
    kind, path = _place(config, name)
    found = [path, path.rpartition(":")[0]] if kind == "hf:" else [path]  # as DIRECTORY:SPLIT
    return not path or any(os.path.exists(os.path.expanduser(p)) for p in found if p)


_TYPES = {
    float: (numbers.Real, "a number"),
    int: (numbers.Integral, "a whole number"),
    str: (str, "a text"),
    bool: (bool, "true or false"),
}


def _check(config: Any) -> None:
    """Check every field of a dataclass, and make its value of the plain Python type."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == "hyper":
            if not isinstance(value, Mapping):
                raise UserError(f"hyper: got {value!r}, wanted {{name: number}}.")
            plain: Any = {n: _checked(n, v, float, None) for n, v in value.items()}
        elif (value is None and field.default is None) or isinstance(field.default, tuple):
            continue
        else:
            plain = _checked(field.name, value, field.type, field.metadata.get("check"))
        object.__setattr__(config, field.name, plain)


def _checked(name: str, value: Any, kind: Any, check: Check | None) -> Any:
    """`value` as the plain Python type of a field; NumPy's scalars are welcome."""
    choices = typing.get_args(kind)
    if type(None) in choices:  # `float | None` or `str | None`
        kind, choices = choices[0], ()
    wanted = str if choices else kind
    accepted, what = _TYPES[wanted]
    if not isinstance(value, accepted) or isinstance(value, bool) != (wanted is bool):
        raise UserError(f"{flag(name)}: got {value!r}, wanted {what}.")
    value = wanted(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{flag(name)}: got {value}, wanted a finite number.")
    if isinstance(value, float) and abs(value) > LARGEST:
        raise UserError(f"{flag(name)}: got {value}, wanted a number up to {LARGEST:g}.")
    if choices and value not in choices:
        raise UserError(f"{flag(name)}: got {value!r}, wanted one of {', '.join(choices)}.")
    if check and not check.fits(value):
        raise UserError(f"{flag(name)}: got {value!r}, wanted {check.wanted}.")
    return value
