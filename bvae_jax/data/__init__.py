"""The table of data sets. A new one is a file here and a line below."""

from bvae_jax.data import dsprites
from bvae_jax.data.base import Dataset, Source, rendered, resident
from bvae_jax.data.cache import load_packed
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


def make_source(dataset: Dataset, kind: str, platform: str, *, progress: bool = True) -> Source:
    """How the images of `dataset` come to the device.

    Args:
        kind: "rendered" (drawn in the step), "resident" (gathered from an array on the device)
            or "auto": rendered on an accelerator, resident on a CPU, where gathering costs nothing
            and drawing would cost a tenth of a step.
        platform: `jax.default_backend()`.
        progress: show a bar while the resident array is made for the first time.
    """
    if kind == "rendered" or (kind == "auto" and platform != "cpu"):
        return rendered(dataset)
    return resident(dataset, load_packed(dataset, progress=progress))
