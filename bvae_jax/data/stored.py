"""Which stored set a config names, by the form of its name."""

from pathlib import Path

from bvae_jax.config import Config
from bvae_jax.data.base import Dataset
from bvae_jax.data.folder import open_folder
from bvae_jax.data.npz import open_npz
from bvae_jax.data.prepared import data_dir
from bvae_jax.data.published import PUBLISHED, open_published
from bvae_jax.data.tfds import PREFIX, open_tfds, prepare_tfds
from bvae_jax.errors import UserError


def open_stored(config: Config, *, progress: bool = True, fetch: bool = False) -> Dataset | None:
    """The stored set that a config names; None where it names none.

    Args:
        progress: show bars where something has to be read for the first time.
        fetch: download what can be.

    Raises:
        UserError: something is missing or damaged, or an option does not fit.
    """
    name, where = config.dataset, data_dir(config.data_dir)
    kind, colon, rest = name.partition(":")
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
    if name.startswith(PREFIX):
        keys = config.image_key, config.factor_keys
        opener = prepare_tfds if fetch else open_tfds
        return opener(name, where, *keys, image_size=config.image_size, progress=progress)
    if name in PUBLISHED:
        return open_published(name, where, progress=progress)
    return None
