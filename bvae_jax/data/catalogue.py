"""What data sets there are, and which of them are on this machine."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from bvae_jax.data import DATASETS
from bvae_jax.data.base import Dataset, Rendered
from bvae_jax.data.cache import cache_path
from bvae_jax.data.own import KINDS
from bvae_jax.data.prepared import open_prepared
from bvae_jax.errors import UserError
from bvae_jax.types import ImageShape


class Known(Protocol):
    """A stored set that somebody publishes, whether or not it is here."""

    @property
    def name(self) -> str: ...
    @property
    def images(self) -> int: ...
    @property
    def image_shape(self) -> ImageShape: ...
    @property
    def factor_names(self) -> tuple[str, ...]: ...
    @property
    def factor_sizes(self) -> tuple[int, ...]: ...
    @property
    def bytes(self) -> int: ...
    @property
    def source(self) -> str: ...
    @property
    def licence(self) -> str: ...
    def present(self, data_dir: Path) -> bool: ...


class Entry(NamedTuple):
    """What a list says of a data set.

    Attributes:
        name: what `--dataset` calls it.
        factors: names and numbers of values.
        size: bytes on disk, once it is prepared; 0 where it needs none.
        present: whether it can be used now, with nothing to fetch.
    """

    name: str
    images: int
    shape: ImageShape
    factors: tuple[tuple[str, int], ...]
    size: int
    source: str
    licence: str
    present: bool


def catalogue(data_dir: Path, stored: Iterable[Known] = ()) -> list[Entry]:
    """Rendered sets, stored ones, and those of the user's own that were prepared.

    Args:
        data_dir: where prepared sets lie.
        stored: sets that are published.
    """
    rendered = [describe(dataset) for dataset in DATASETS.values()]
    known = [
        Entry(
            one.name,
            one.images,
            one.image_shape,
            tuple(zip(one.factor_names, one.factor_sizes, strict=True)),
            one.bytes,
            one.source,
            one.licence,
            one.present(data_dir),
        )
        for one in stored
    ]
    return rendered + known + [describe(dataset) for dataset in _own(data_dir)]


def describe(dataset: Dataset) -> Entry:
    """The entry of a data set that is open."""
    pixels = dataset.pixels
    if isinstance(pixels, Rendered):
        path = cache_path(pixels)
        size = path.stat().st_size if pixels.cache and path.exists() else 0
    else:
        size = pixels.images.nbytes + (0 if dataset.labels is None else dataset.labels.nbytes)
    factors = tuple(zip(dataset.factor_names, dataset.factor_sizes, strict=True))
    shape, source, licence = dataset.image_shape, dataset.source, dataset.licence
    return Entry(dataset.name, dataset.size, shape, factors, size, source, licence, True)


def _own(data_dir: Path) -> Iterator[Dataset]:
    for directory in sorted(data_dir.glob("*")):
        kind = directory.name.partition("-")[0]
        if kind not in KINDS:
            continue
        try:
            source = json.loads((directory / "meta.json").read_bytes())["source"]
            yield open_prepared(directory, name=f"{kind}:{source}")
        except (OSError, ValueError, KeyError, TypeError, UserError):
            continue  # whoever uses it will be told
