"""Every stored set that is known by name: what `bvae data list` shows."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bvae_jax.config import OWN_FILES
from bvae_jax.data import DATASETS
from bvae_jax.data.base import Dataset, Rendered
from bvae_jax.data.published import OF_DSPRITES, OF_SHAPES3D, PUBLISHED, published_place
from bvae_jax.data.sources import (
    cache_path,
)
from bvae_jax.data.store import (
    open_prepared,
)
from bvae_jax.data.tfds import PREFIX, tfds_place
from bvae_jax.errors import UserError
from bvae_jax.types import ImageShape


class Known(NamedTuple):
    """A stored set.

    Attributes:
        name: what `--dataset` calls it.
        images: how many.
        image_shape: height, width, channels.
        factors: their names, or those of groups of them.
        bytes: that its images take when it is prepared.
        source: URL.
        licence: of the images; empty where none is stated.
        citation: of the set.
    """

    name: str
    images: int
    image_shape: ImageShape
    factors: tuple[str, ...]
    bytes: int
    source: str
    licence: str
    citation: str

    def present(self, data_dir: Path) -> bool:
        """Whether it is prepared, in what `prepared.data_dir` gives."""
        if self.name in PUBLISHED:
            return published_place(self.name, data_dir).is_dir()
        return tfds_place(self.name, data_dir).is_dir()


def _of_published(name: str) -> Known:
    found = PUBLISHED[name]
    layout = found.layout
    return _known(
        name, layout.images, layout.shape, layout.names, found.file.url, found.licence,
        found.citation, packed=found.packed,
    )  # fmt: skip


def _known(
    name: str,
    images: int,
    shape: ImageShape,
    factors: tuple[str, ...],
    source: str,
    licence: str,
    citation: str,
    *,
    packed: bool = False,
) -> Known:
    size = math.prod(shape)
    total = images * (-(-size // 8) if packed else size)
    return Known(name, images, shape, factors, total, source, licence, citation)


LABEL = ("label",)
DIGIT = (28, 28, 1)
RESEARCH = "non-commercial research"
_SPRITES, _SHAPES = PUBLISHED["dsprites_hdf5"], PUBLISHED["shapes3d_h5"]

KNOWN: tuple[Known, ...] = (
    *(_of_published(name) for name in PUBLISHED),
    _known(f"{PREFIX}dsprites", _SPRITES.layout.images, _SPRITES.layout.shape,
           _SPRITES.layout.names, _SPRITES.file.url, *OF_DSPRITES, packed=True),
    _known(f"{PREFIX}shapes3d", _SHAPES.layout.images, _SHAPES.layout.shape,
           _SHAPES.layout.names, _SHAPES.file.url, *OF_SHAPES3D),
    _known(f"{PREFIX}smallnorb", 48_600, (96, 96, 1),
           ("category", "instance", "elevation", "azimuth", "lighting"),
           "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/", "research; not to be sold",
           "LeCun, Huang, Bottou: Learning Methods for Generic Object Recognition, 2004"),
    _known(f"{PREFIX}mnist", 70_000, DIGIT, LABEL, "http://yann.lecun.com/exdb/mnist/",
           "CC BY-SA 3.0", "LeCun, Cortes, Burges: MNIST handwritten digit database, 2010"),
    _known(f"{PREFIX}fashion_mnist", 70_000, DIGIT, LABEL,
           "https://github.com/zalandoresearch/fashion-mnist", "MIT",
           "Xiao, Rasul, Vollgraf: Fashion-MNIST, 2017"),
    _known(f"{PREFIX}kmnist", 70_000, DIGIT, LABEL,
           "http://codh.rois.ac.jp/kmnist/index.html.en", "CC BY-SA 4.0",
           "Clanuwat et al.: Deep Learning for Classical Japanese Literature, 2018"),
    _known(f"{PREFIX}emnist", 814_255, DIGIT, LABEL,
           "https://www.nist.gov/itl/products-and-services/emnist-dataset", "",
           "Cohen, Afshar, Tapson, van Schaik: EMNIST, 2017"),
    _known(f"{PREFIX}omniglot", 32_460, (105, 105, 3), ("alphabet", "alphabet_char_id", "label"),
           "https://github.com/brendenlake/omniglot/", "MIT",
           "Lake, Salakhutdinov, Tenenbaum: Human-level concept learning, 2015"),
    _known(f"{PREFIX}svhn_cropped", 99_289, (32, 32, 3), LABEL,
           "http://ufldl.stanford.edu/housenumbers/", "non-commercial",
           "Netzer et al.: Reading Digits in Natural Images with Unsupervised Learning, 2011"),
    _known(f"{PREFIX}cifar10", 60_000, (32, 32, 3), LABEL,
           "https://www.cs.toronto.edu/~kriz/cifar.html", "",
           "Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009"),
    _known(f"{PREFIX}celeb_a", 202_599, (218, 178, 3), ("attributes", "identity", "landmarks"),
           "http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html", RESEARCH,
           "Liu, Luo, Wang, Tang: Deep Learning Face Attributes in the Wild, 2015"),
)  # fmt: skip
"""All of them; any other image set of TFDS can be named, too."""


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
