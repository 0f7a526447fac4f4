"""What data sets there are, and which of them are on this machine."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bvae_jax.config import OWN_FILES
from bvae_jax.data import DATASETS
from bvae_jax.data.base import Dataset, Rendered
from bvae_jax.data.cache import cache_path
from bvae_jax.data.catalogue import KNOWN, Known
from bvae_jax.data.prepared import open_prepared
from bvae_jax.data.published import PUBLISHED
from bvae_jax.errors import UserError
from bvae_jax.types import ImageShape


class Entry(NamedTuple):
    """What a list says of a data set.

    Attributes:
        name: what `--dataset` calls it.
        factors: names, and numbers of values where they are known.
        size: bytes on disk once it is prepared; 0 where it needs none.
        present: whether it can be used now, with nothing to fetch.
    """

    name: str
    images: int
    shape: ImageShape
    factors: tuple[str, ...]
    size: int
    source: str
    licence: str
    present: bool


def all_entries(data_dir: Path) -> list[Entry]:
    """Rendered sets, published ones, and those of the user's own that were prepared.

    Args:
        data_dir: what `prepared.data_dir` gives.
    """
    rendered = [describe(dataset) for dataset in DATASETS.values()]
    published = [_published(known, data_dir) for known in KNOWN]
    return rendered + published + [describe(dataset) for dataset in _own(data_dir)]


def describe(dataset: Dataset) -> Entry:
    """The entry of a data set that is open."""
    pixels = dataset.pixels
    if isinstance(pixels, Rendered):
        path = cache_path(pixels)
        size = path.stat().st_size if pixels.cache and path.exists() else 0
    else:
        size = pixels.images.nbytes + (0 if dataset.labels is None else dataset.labels.nbytes)
    return Entry(
        dataset.name,
        dataset.size,
        dataset.image_shape,
        _with_sizes(dataset.factor_names, dataset.factor_sizes),
        size,
        dataset.source,
        dataset.licence,
        present=True,
    )


def _published(known: Known, data_dir: Path) -> Entry:
    factors = known.factors
    if known.name in PUBLISHED:
        factors = _with_sizes(factors, PUBLISHED[known.name].layout.sizes)
    shape, size, here = known.image_shape, known.bytes, known.present(data_dir)
    return Entry(known.name, known.images, shape, factors, size, known.source, known.licence, here)


def _with_sizes(names: tuple[str, ...], sizes: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"{name} {size}" for name, size in zip(names, sizes, strict=True))


def _own(data_dir: Path) -> Iterator[Dataset]:
    for directory in sorted(data_dir.glob("*")):
        kind = directory.name.partition("-")[0]
        if kind not in OWN_FILES:
            continue
        try:
            source = json.loads((directory / "meta.json").read_bytes())["source"]
            yield open_prepared(directory, name=f"{kind}:{source}", check=False)
        except (OSError, ValueError, KeyError, TypeError, UserError):
            continue  # whoever uses it will be told
