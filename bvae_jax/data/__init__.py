"""The table of data sets. A new one is a file here and a line below."""

from bvae_jax.config import Config
from bvae_jax.data import dsprites
from bvae_jax.data.base import Dataset
from bvae_jax.data.variants import only
from bvae_jax.errors import unknown

DATASETS: dict[str, Dataset] = {
    "dsprites": dsprites.DATASET,
}


def get_dataset(name: str) -> Dataset:
    """The named data set.

    Raises:
        UserError: the name is not known.
    """
    if name not in DATASETS:
        raise unknown("dataset", name, DATASETS)
    return DATASETS[name]


def open_dataset(config: Config, *, progress: bool = True) -> Dataset:
    """The data set that a config names, with what it leaves out.

    Args:
        progress: show a bar where something has to be read for the first time.

    Raises:
        UserError: a name is unknown, a file is missing or damaged, or an option does not fit.
    """
    dataset = get_dataset(config.dataset)
    return only(dataset, config.only) if config.only else dataset
