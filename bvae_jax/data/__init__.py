"""The data sets there are, by name, and how the one that a config names is opened."""

from pathlib import Path

from bvae_jax.config import Config, flag, is_path
from bvae_jax.data import dsprites, shapes3d, xy_squares
from bvae_jax.data.base import Dataset
from bvae_jax.data.dsprites import (
    COLOR_DSPRITES,
    NOISY_DSPRITES,
    SCREAM_DSPRITES,
    read_background,
    scream_dsprites,
)
from bvae_jax.data.folder import open_folder
from bvae_jax.data.hf import open_hf
from bvae_jax.data.npz import open_npz
from bvae_jax.data.published import PUBLISHED, open_published
from bvae_jax.data.store import data_dir
from bvae_jax.data.tfds import PREFIX, open_tfds
from bvae_jax.data.variants import only
from bvae_jax.errors import UserError, unknown

DATASETS: dict[str, Dataset] = {
    "dsprites": dsprites.DATASET,
    "color_dsprites": COLOR_DSPRITES,
    "noisy_dsprites": NOISY_DSPRITES,
    "scream_dsprites": SCREAM_DSPRITES,
    "shapes3d_render": shapes3d.DATASET,
    "xy_squares": xy_squares.DATASET,
}
"""What `--dataset` may be, besides published files and the forms below. A script may add its own
set (`base.from_arrays`): whatever takes a `Config` then knows it."""

FORMS = ("folder:DIRECTORY", "npz:FILE", "hf:NAME", "tfds:NAME")
"""Forms of `--dataset` that say where images are."""

USED_BY = {
    "image_size": ("folder", "hf", "tfds"),
    "grey": ("folder", "hf"),
    "background": ("scream_dsprites",),
    "image_key": ("hf", "tfds"),
    "factor_keys": ("hf", "tfds"),
}
"""Fields of `Config` that only some sets use."""


def get_dataset(name: str) -> Dataset:
    """The named data set, of those in `DATASETS`.

    Raises:
        UserError: the name is not known.
    """
    if name in DATASETS:
        return DATASETS[name]
    there = Path(name).expanduser()
    if there.is_dir():
        raise UserError(f"--dataset: got {name!r}, a folder: wanted {name}/, or folder:{name}.")
    if is_path(name) or there.exists():
        got = "a file that is no .npz" if there.exists() else "nothing there"
        raise UserError(
            f"--dataset {name}: got {got}, wanted a folder of pictures, an .npz file, or a name "
            "that bvae data list shows."
        )
    raise unknown("dataset", name, [*DATASETS, *PUBLISHED, *FORMS])


def open_dataset(config: Config, *, progress: bool = True, fetch: bool = False) -> Dataset:
    """The data set that a config names, with what it leaves out.

    Args:
        progress: show a bar where something has to be read for the first time.
        fetch: download what can be.

    Raises:
        UserError: a name is unknown, a file is missing or damaged, or an option does not fit.
    """
    _check_used(config)
    if config.background:
        dataset = scream_dsprites(read_background(Path(config.background).expanduser()))
    else:
        dataset = _open_stored(config, progress, fetch) or get_dataset(config.dataset)
    return only(dataset, config.only) if config.only else dataset


def _check_used(config: Config) -> None:
    """Refuse an option that the data set does not use."""
    kind = config.dataset.partition(":")[0]
    for name, kinds in USED_BY.items():
        value = getattr(config, name)
        if value and kind not in kinds:
            raise UserError(
                f"{flag(name)}: got {value}, but --dataset {config.dataset} does not use it; "
                f"{' and '.join(kinds)} would. Leave it out."
            )


def _open_stored(config: Config, progress: bool, fetch: bool) -> Dataset | None:
    """The stored set that a config names, by the form of its name; None where it names none."""
    name, where = config.dataset, data_dir(config.data_dir)
    kind, colon, rest = name.partition(":")
    if name in DATASETS:
        return None
    if colon and not rest:
        raise UserError(f"--dataset: got {name!r}, wanted something after the colon.")
    if kind == "folder" and colon:
        return open_folder(
            Path(rest).expanduser(),
            image_size=config.image_size,
            grey=config.grey,
            data_dir=where,
            progress=progress,
        )
    if kind == "npz" and colon:
        return open_npz(Path(rest).expanduser(), data_dir=where, progress=progress)
    keys = config.image_key, config.factor_keys
    if kind == "hf" and colon:
        form = {"image_size": config.image_size, "grey": config.grey}
        return open_hf(name, where, *keys, **form, progress=progress, fetch=fetch)
    if name.startswith(PREFIX):
        return open_tfds(
            name, where, *keys, image_size=config.image_size or 0, progress=progress, fetch=fetch
        )
    if name in PUBLISHED:
        return open_published(name, where, progress=progress, fetch=fetch)
    return None
