"""The table of data sets that are drawn. A new one is a file here and a line below."""

from pathlib import Path

from bvae_jax.config import Config, flag
from bvae_jax.data import (
    color_dsprites,
    dsprites,
    noisy_dsprites,
    scream_dsprites,
    shapes3d_render,
    xy_squares,
)
from bvae_jax.data.base import Dataset
from bvae_jax.data.published import PUBLISHED
from bvae_jax.data.stored import open_stored
from bvae_jax.data.variants import only
from bvae_jax.errors import UserError, unknown

DATASETS: dict[str, Dataset] = {
    "dsprites": dsprites.DATASET,
    "color_dsprites": color_dsprites.DATASET,
    "noisy_dsprites": noisy_dsprites.DATASET,
    "scream_dsprites": scream_dsprites.DATASET,
    "shapes3d_render": shapes3d_render.DATASET,
    "xy_squares": xy_squares.DATASET,
}
"""What `--dataset` may be, beside published files and one's own."""

FORMS = ("folder:DIRECTORY", "npz:FILE", "tfds:NAME")
"""What is no name, but says where images are."""

USED_BY = {
    "image_size": ("folder", "tfds"),
    "grey": ("folder",),
    "background": ("scream_dsprites",),
    "image_key": ("tfds",),
    "factor_keys": ("tfds",),
}
"""Fields of `Config` that some sets alone use."""


def get_dataset(name: str) -> Dataset:
    """The named data set, of those that are drawn.

    Raises:
        UserError: the name is not known.
    """
    if name not in DATASETS:
        raise unknown("dataset", name, [*DATASETS, *PUBLISHED, *FORMS])
    return DATASETS[name]


def open_dataset(config: Config, *, progress: bool = True) -> Dataset:
    """The data set that a config names, with what it leaves out.

    Args:
        progress: show a bar where something has to be read for the first time.

    Raises:
        UserError: a name is unknown, a file is missing or damaged, or an option does not fit.
    """
    _check_used(config)
    dataset = open_stored(config, progress=progress) or get_dataset(config.dataset)
    if config.background:
        background = Path(config.background).expanduser()
        dataset = scream_dsprites.make(scream_dsprites.read_background(background))
    return only(dataset, config.only) if config.only else dataset


def _check_used(config: Config) -> None:
    """Refuse an option that nothing would read."""
    kind = config.dataset.partition(":")[0]
    for name, kinds in USED_BY.items():
        value = getattr(config, name)
        if value and kind not in kinds:
            raise UserError(
                f"{flag(name)}: got {value}, but --dataset {config.dataset} does not use it; "
                f"{' and '.join(kinds)} would. Leave it out."
            )
