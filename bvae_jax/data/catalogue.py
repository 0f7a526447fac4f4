"""What data sets there are, and which of them are on this machine: what `bvae data list` shows."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bvae_jax.config import OWN_FILES
from bvae_jax.data import DATASETS
from bvae_jax.data.base import Dataset, Rendered
from bvae_jax.data.published import NOT_STATED, PUBLISHED, published_place
from bvae_jax.data.sources import cache_path
from bvae_jax.data.store import open_prepared
from bvae_jax.data.tfds import PREFIX, PUBLISHED_AS, tfds_place
from bvae_jax.errors import UserError
from bvae_jax.types import ImageShape


class Entry(NamedTuple):
    """What is known of a data set without opening it.

    Attributes:
        name: what `--dataset` calls it.
        images: how many.
        shape: of an image: height, width, channels.
        factors: their names with their numbers of values, or those of groups of them.
        size: bytes on disk once it is prepared; 0 where it needs none.
        source: URL, or words.
        licence: of the images, as their owner states it; empty for the user's own.
        citation: of the set.
        present: whether it can be used now, with nothing to fetch.
    """

    name: str
    images: int
    shape: ImageShape
    factors: tuple[str, ...]
    size: int
    source: str
    licence: str
    citation: str
    present: bool = False


def _published(name: str, called: str = "") -> Entry:
    found = PUBLISHED[name]
    layout, pixels = found.layout, math.prod(found.layout.shape)
    return Entry(
        called or name,
        layout.images,
        layout.shape,
        _with_sizes(layout.names, layout.sizes),
        layout.images * (-(-pixels // 8) if found.packed else pixels),
        found.file.url,
        found.licence,
        found.citation,
    )


def _of_tfds(
    name: str,
    images: int,
    shape: ImageShape,
    factors: tuple[str, ...],
    source: str,
    licence: str,
    citation: str,
) -> Entry:
    size = images * math.prod(shape)
    return Entry(PREFIX + name, images, shape, factors, size, source, licence, citation)


def _with_sizes(names: tuple[str, ...], sizes: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"{name} {size}" for name, size in zip(names, sizes, strict=True))


LABEL = ("label",)
DIGIT = (28, 28, 1)
RESEARCH = "non-commercial research"
KNOWN: tuple[Entry, ...] = (
    *(_published(name) for name in PUBLISHED),
    *(_published(source, f"{PREFIX}{name}") for name, source in PUBLISHED_AS.items()),
    _of_tfds("smallnorb", 48_600, (96, 96, 1),
           ("category", "instance", "elevation", "azimuth", "lighting"),
           "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/", "research; not to be sold",
           "LeCun, Huang, Bottou: Learning Methods for Generic Object Recognition, 2004"),
    _of_tfds("mnist", 70_000, DIGIT, LABEL, "http://yann.lecun.com/exdb/mnist/",
           "CC BY-SA 3.0", "LeCun, Cortes, Burges: MNIST handwritten digit database, 2010"),
    _of_tfds("fashion_mnist", 70_000, DIGIT, LABEL,
           "https://github.com/zalandoresearch/fashion-mnist", "MIT",
           "Xiao, Rasul, Vollgraf: Fashion-MNIST, 2017"),
    _of_tfds("kmnist", 70_000, DIGIT, LABEL,
           "http://codh.rois.ac.jp/kmnist/index.html.en", "CC BY-SA 4.0",
           "Clanuwat et al.: Deep Learning for Classical Japanese Literature, 2018"),
    _of_tfds("emnist", 814_255, DIGIT, LABEL,
           "https://www.nist.gov/itl/products-and-services/emnist-dataset", NOT_STATED,
           "Cohen, Afshar, Tapson, van Schaik: EMNIST, 2017"),
    _of_tfds("omniglot", 32_460, (105, 105, 3), ("alphabet", "alphabet_char_id", "label"),
           "https://github.com/brendenlake/omniglot/", "MIT",
           "Lake, Salakhutdinov, Tenenbaum: Human-level concept learning, 2015"),
    _of_tfds("svhn_cropped", 99_289, (32, 32, 3), LABEL,
           "http://ufldl.stanford.edu/housenumbers/", "non-commercial",
           "Netzer et al.: Reading Digits in Natural Images with Unsupervised Learning, 2011"),
    _of_tfds("cifar10", 60_000, (32, 32, 3), LABEL,
           "https://www.cs.toronto.edu/~kriz/cifar.html", NOT_STATED,
           "Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009"),
    _of_tfds("celeb_a", 202_599, (218, 178, 3), ("attributes", "identity", "landmarks"),
           "http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html", RESEARCH,
           "Liu, Luo, Wang, Tang: Deep Learning Face Attributes in the Wild, 2015"),
)  # fmt: skip
"""All of them; any other image set of TFDS can be named, too."""


def all_entries(data_dir: Path) -> list[Entry]:
    """Rendered sets, published ones, and those of the user's own that were prepared.

    Args:
        data_dir: what `store.data_dir` gives.
    """
    known = [entry._replace(present=is_prepared(entry.name, data_dir)) for entry in KNOWN]
    return [
        *(describe(dataset) for dataset in DATASETS.values()),
        *known,
        *(describe(dataset) for dataset in _own(data_dir)),
    ]


def is_prepared(name: str, data_dir: Path) -> bool:
    """Whether a published set, or one of TFDS, is there."""
    place = published_place if name in PUBLISHED else tfds_place
    return place(name, data_dir).is_dir()


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
        dataset.citation,
        present=True,
    )


def _own(data_dir: Path) -> Iterator[Dataset]:
    for directory in sorted(data_dir.glob("*")):
        kind = directory.name.partition("-")[0]
        if kind not in (*OWN_FILES, "hf"):
            continue
        try:
            meta = json.loads((directory / "meta.json").read_bytes())
            name = meta.get("name") or f"{kind}:{meta['source']}"
            yield open_prepared(directory, name=name, check=False)
        except (OSError, ValueError, KeyError, TypeError, UserError):
            continue  # whoever uses it will be told
