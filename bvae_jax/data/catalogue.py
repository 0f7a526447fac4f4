"""What data sets there are, and which are on this machine, and how they look: `bvae data`."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from bvae_jax.config import OWN_FILES
from bvae_jax.data import DATASETS
from bvae_jax.data.base import Dataset, Rendered
from bvae_jax.data.published import NOT_STATED, PUBLISHED, published_place
from bvae_jax.data.sources import Source, cache_path
from bvae_jax.data.store import open_prepared
from bvae_jax.data.tfds import PREFIX, PUBLISHED_AS, tfds_place
from bvae_jax.errors import UserError
from bvae_jax.types import ImageShape, key_for


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
        arrays = (pixels.images, dataset.labels, dataset.values)
        size = sum(array.nbytes for array in arrays if array is not None)
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


# A look at a data set: images at random, and what its factors do.

COLUMNS = 10
RANDOM_ROWS, ALONE_ROWS = 2, 6
"""Rows of random images; and where there is nothing else to show."""
MOST_ROWS = 24
"""Rows that show factors."""
LONGEST = 24
"""Letters of a label."""

Images = Float[np.ndarray, "_ height width channels"]
Augment = Callable[[jax.Array, jax.Array], jax.Array]


class Preview(NamedTuple):
    """Rows of images, and what each shows.

    Attributes:
        images: in [0, 1]; rows are filled up with white.
        more: rows of factors that there was no room for.
    """

    images: Float[np.ndarray, "row column height width channels"]
    labels: list[str]
    more: int


class Row(NamedTuple):
    """Images beside each other, up to `COLUMNS`."""

    label: str
    indices: Int[np.ndarray, " column"]


def preview(dataset: Dataset, source: Source, augment: Augment | None = None) -> Preview:
    """Random images; with factors of a grid a row for each, from its first value to its last, the
    others fixed; with other factors a row of random images for each value.

    The same images each time.

    Args:
        augment: shown of the random images, below them.
    """
    random = np.random.RandomState(0)  # NumPy promises that its stream never changes
    below = factor_rows(dataset, random)
    count = RANDOM_ROWS if below else ALONE_ROWS
    chosen = random.permutation(dataset.size)[: count * COLUMNS]
    above = [
        Row("random", chosen[start : start + COLUMNS]) for start in range(0, len(chosen), COLUMNS)
    ]
    shown = [*above, *below[:MOST_ROWS]]
    images = _look(source, shown)
    labels = [row.label for row in shown]
    if augment is not None:
        changed = [
            np.asarray(augment(jnp.asarray(row), key_for("augmentation", number)))
            for number, row in enumerate(images[: len(above)])
        ]
        images[len(above) : len(above)] = changed
        labels[len(above) : len(above)] = ["augmented"] * len(above)
    return Preview(_filled(images), labels, max(0, len(below) - MOST_ROWS))


def factor_rows(dataset: Dataset, random: np.random.RandomState) -> list[Row]:
    """Traversals of a grid's factors, or images of each value of other factors.

    Factors with one value have no row.
    """
    sizes = dataset.factor_sizes
    varied = [k for k, size in enumerate(sizes) if size > 1]
    if not dataset.grid:
        return [row for k in varied for row in _value_rows(dataset, k, random)]
    start = np.array([random.randint(size) for size in sizes])
    return [_traversal(dataset, k, start) for k in varied]


def _traversal(dataset: Dataset, factor: int, start: Int[np.ndarray, " factor"]) -> Row:
    size = dataset.factor_sizes[factor]
    values = np.linspace(0, size - 1, min(size, COLUMNS)).round().astype(int)
    factors = np.tile(start, (len(values), 1))
    factors[:, factor] = values
    indices = np.asarray(np.ravel_multi_index(tuple(factors.T), dataset.factor_sizes))
    return Row(_label(f"{dataset.factor_names[factor]} ({size})"), indices)


def _value_rows(dataset: Dataset, factor: int, random: np.random.RandomState) -> list[Row]:
    assert dataset.labels is not None
    column, name = dataset.labels[:, factor], dataset.factor_names[factor]
    rows = []
    for value in range(dataset.factor_sizes[factor]):
        having = np.flatnonzero(column == value)
        if len(having):
            chosen = random.permutation(having)[:COLUMNS]
            called = dataset.classes[value] if dataset.classes else value
            rows.append(Row(_label(f"{name} = {called}"), chosen))
    return rows


def _label(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _look(source: Source, rows: Sequence[Row]) -> list[Images]:
    look, found = jax.jit(source.look), []
    for row in rows:
        # Filled up, so that all rows are of one shape and compiled once.
        indices = np.pad(row.indices, (0, COLUMNS - len(row.indices)), mode="edge")
        arrays = jax.device_put(source.reach(indices))
        found.append(np.asarray(look(arrays, jnp.asarray(indices)))[: len(row.indices)])
    return found


def _filled(rows: Sequence[Images]) -> Float[np.ndarray, "row column height width channels"]:
    """Rows of one length, with white."""
    filled = np.ones((len(rows), COLUMNS, *rows[0].shape[1:]), np.float32)
    for place, row in zip(filled, rows, strict=True):
        place[: len(row)] = row
    return filled
