"""Sets of TensorFlow Datasets, read without TensorFlow.

TFDS prepares its sets with TensorFlow, in any environment that has it, as array_record:

    tfds.builder("mnist", data_dir=DIRECTORY, file_format="array_record").download_and_prepare()

What it prepared is found, and written once as a prepared set (`store.py`), which is all that
training reads. dSprites and 3D Shapes need no TensorFlow: `bvae data prepare tfds:dsprites` fetches
the published file. They have the published order of their factors however they came here; other
builders' factors are class labels, booleans and whole numbers, in alphabetical order.
"""

import dataclasses
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bvae_jax.data.base import Dataset
from bvae_jax.data.columns import classes, grid_order, in_one_line, pick_factors, pick_image
from bvae_jax.data.dsprites import FACTOR_NAMES, FACTOR_SIZES, canonical
from bvae_jax.data.published import PUBLISHED, convert, find
from bvae_jax.data.store import Writer, open_prepared, place
from bvae_jax.errors import UserError, needs
from bvae_jax.runtime import bar

PREFIX = "tfds:"
NAME = re.compile(r"[a-zA-Z]\w*(/\w[\w+.-]*)?(:\d+\.\d+\.\d+)?")
VERSION = re.compile(r"\d+\.\d+\.\d+")
PUBLISHED_AS = {"dsprites": "dsprites_hdf5", "shapes3d": "shapes3d_h5"}
"""Builders that read one published file."""
BINARY = ("dsprites", "binarized_mnist")
"""Builders whose pixels are 0 and 1, and not 0 and 255."""
LEFT_OUT = {"omniglot": ("small1", "small2"), "svhn_cropped": ("extra",)}
"""Splits that repeat images of others, or that nobody means by the name of the set."""
FACTORS = {
    "dsprites": "label_shape,label_scale,label_orientation,label_x_position,label_y_position",
    "shapes3d": "label_floor_hue,label_wall_hue,label_object_hue,label_scale,label_shape,"
    "label_orientation",
    "smallnorb": "label_category,instance,label_elevation,label_azimuth,label_lighting",
}
"""The factors of builders in their published order, which TFDS does not keep."""
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's names of colours, by the number of channels."""
CHUNK = 256

Example = Mapping[str, Any]


class Chosen(NamedTuple):
    """What is read of an example.

    Attributes:
        image: key of the image; parts of nested keys have slashes between them.
        channels: of the image.
        factors: keys of the factors.
        features: of the factors.
        side: of a square to which images are resized and cropped; 0 leaves them as they are.
    """

    image: str
    channels: int
    factors: tuple[str, ...]
    features: tuple[Any, ...]
    side: int = 0

    @property
    def names(self) -> list[str]:
        """Names of the factors: keys without what only says that they are labels."""
        keys = [key.rpartition("/")[2].removeprefix("label_") for key in self.factors]
        names = [key.removesuffix("_position") for key in keys]
        return names if len(set(names)) == len(names) else list(self.factors)

    def pixels(self, example: Example) -> np.ndarray:
        """The image of an example that nobody has decoded: uint8 [height, width, channel].

        Raises:
            OSError: it is no picture.
        """
        from PIL import Image, ImageOps

        picture = Image.open(io.BytesIO(_value(example, self.image)))
        if picture.mode != MODES[self.channels]:
            picture = picture.convert(MODES[self.channels])
        if self.side:
            picture = ImageOps.fit(picture, (self.side, self.side), Image.Resampling.LANCZOS)
        pixels = np.asarray(picture)
        return pixels.reshape(*pixels.shape[:2], self.channels)

    def labels(self, example: Example) -> list[int]:
        """Values of the factors, whole numbers."""
        return [int(_value(example, key)) for key in self.factors]


def open_tfds(
    name: str,
    data_dir: Path,
    image_key: str = "",
    factor_keys: str = "",
    *,
    image_size: int = 0,
    progress: bool = True,
    fetch: bool = False,
) -> Dataset:
    """A set of TFDS, read from what TFDS prepared when it is opened for the first time.

    Args:
        name: BUILDER, perhaps with /CONFIG and :VERSION, with or without "tfds:" before it.
        data_dir: what `store.data_dir` gives.
        image_key: the feature that is the image. Not given: the only one, or `image`.
        factor_keys: features that are factors, with commas; "none" for none. Not given: class
            labels, booleans and whole numbers.
        image_size: side to which images are resized and cropped; 0 leaves them as they are.
        progress: show bars.
        fetch: download dSprites or 3D Shapes.

    Raises:
        UserError: it was not prepared, or is damaged, or a key names no feature.
    """
    bare = name.removeprefix(PREFIX)
    name = PREFIX + bare
    if not NAME.fullmatch(bare):
        raise UserError(f"{name}: wanted tfds:BUILDER, perhaps with /CONFIG and :VERSION (1.0.0).")
    directory = tfds_place(bare, data_dir, image_key, factor_keys, image_size)
    if not directory.exists():
        found = find_directory(bare, data_dir)
        if found is not None or bare not in PUBLISHED_AS:
            needs("tensorflow_datasets", "data", name)
        if found is not None:
            with in_one_line(f"{name}: {found} cannot be read", "delete it, and prepare it again"):
                builder = _open_builder(found, bare, data_dir)
                chosen = choose(builder.info.features, builder.name, name, image_key, factor_keys)
                _write(builder, chosen._replace(side=image_size), directory, name, progress)
        elif bare not in PUBLISHED_AS or image_key or factor_keys or image_size:
            raise UserError(f"{name}: it is not in {data_dir}. {_command(bare, data_dir)}")
        elif fetch:
            published = PUBLISHED[PUBLISHED_AS[bare]]
            path = find(published.file, data_dir, name, fetch=True, progress=progress)
            convert(path, published, directory, name, progress=progress)
        else:
            raise UserError(f"{name}: it is not in {data_dir}: bvae data prepare {name}.")
    dataset = open_prepared(directory, name=name, progress=progress)
    factors = dataset.factor_names, dataset.factor_sizes
    if dataset.grid and factors == (FACTOR_NAMES, FACTOR_SIZES):
        return dataclasses.replace(dataset, canonical=canonical)
    return dataset


def tfds_place(name: str, data_dir: Path, *options: str | int) -> Path:
    """Where a set is kept; `options` are image_key, factor_keys and image_size."""
    return place(data_dir, PREFIX + name.removeprefix(PREFIX), *(options or ("", "", 0)))


def find_directory(name: str, data_dir: Path) -> Path | None:
    """Where TFDS prepared a set: below the data directory, `$TFDS_DATA_DIR`, its own default.

    Args:
        name: BUILDER, BUILDER/CONFIG, and perhaps :VERSION.

    Returns:
        The directory of the newest version.

    Raises:
        UserError: several configurations are there, and the name says none.
    """
    plain, _, version = name.partition(":")
    given = os.environ.get("TFDS_DATA_DIR")
    roots = [data_dir, *([Path(given).expanduser()] if given else [])]
    for root in [*roots, Path.home() / "tensorflow_datasets"]:
        found = _versions(root / plain, "*", version) or _versions(root / plain, "*/*", version)
        configs = sorted({path.parent.name for path in found})
        if len(configs) > 1:
            known = ", ".join(f"tfds:{plain}/{config}" for config in configs)
            raise UserError(f"tfds:{name}: got no configuration, wanted one of {known}.")
        if found:
            return max(found, key=lambda path: [int(part) for part in path.name.split(".")])
    return None


def _versions(root: Path, pattern: str, version: str) -> list[Path]:
    """Directories of whole versions; TFDS writes under another name until they are."""
    found = [info.parent for info in root.glob(f"{pattern}/dataset_info.json")]
    return [p for p in found if VERSION.fullmatch(p.name) and version in ("", p.name)]


def _command(bare: str, data_dir: Path) -> str:
    """What to do about a set that only TensorFlow can prepare."""
    return (
        'Prepare it where TensorFlow is installed: python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('{bare}', data_dir='{data_dir}', file_format='array_record')"
        '.download_and_prepare()"'
    )


def _open_builder(directory: Path, bare: str, data_dir: Path) -> Any:
    """The builder of a prepared set, which needs no code of the set's own."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(directory)
    kind = builder.info.file_format.value  # pyright: ignore
    if kind != "array_record":
        away = "Move that away. " if directory.is_relative_to(data_dir) else ""
        raise UserError(
            f"{PREFIX}{bare}: got {kind} in {directory}, wanted array_record. {away}"
            f"{_command(bare, data_dir)}"
        )
    return builder


def choose(
    features: Any, builder: str, name: str, image_key: str = "", factor_keys: str = ""
) -> Chosen:
    """What to read of an example.

    Not given, the image is the only one, or that with the key "image"; and factors are class
    labels, booleans and whole numbers, or `FACTORS`.

    Args:
        features: of the builder.
        builder: its name.
        name: what `--dataset` calls the set.

    Raises:
        UserError: a key names no feature that could be that.
    """
    import tensorflow_datasets as tfds

    known = dict(sorted(_flat(features).items()))  # TFDS keeps no order on the disk
    images = [key for key, feature in known.items() if type(feature) is tfds.features.Image]
    image = pick_image(name, image_key, images)
    kind, shape = known[image].np_dtype, known[image].shape
    if kind != np.uint8 or shape[-1] not in MODES:
        raise UserError(
            f"{name}: --image-key: got {image}, {kind}{list(shape)}, wanted uint8 with 1, 3 or 4 "
            "channels."
        )
    labels = [key for key, feature in known.items() if _is_factor(feature)]
    usual = FACTORS[builder].split(",") if builder in FACTORS else labels
    factors = pick_factors(name, factor_keys, usual, labels)
    return Chosen(image, shape[-1], factors, tuple(known[key] for key in factors))


def _flat(features: Any, prefix: str = "") -> dict[str, Any]:
    """Features by key, with slashes in nested ones."""
    if not hasattr(features, "items"):
        return {prefix.removesuffix("/"): features}
    parts = [_flat(feature, f"{prefix}{key}/") for key, feature in features.items()]
    return {key: feature for part in parts for key, feature in part.items()}


def _is_factor(feature: Any) -> bool:
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.ClassLabel):
        return True
    plain = isinstance(feature, tfds.features.Tensor) and feature.shape == ()
    return plain and np.dtype(feature.np_dtype).kind in "iub"  # pyright: ignore


def _value(example: Example, key: str) -> Any:
    found: Any = example
    for part in key.split("/"):
        found = found[part]
    return found


def _write(builder: Any, chosen: Chosen, directory: Path, name: str, progress: bool) -> None:
    """Write a prepared set. The split "test" is the published test set.

    Where there is exactly one image for each combination of factors and no test set, images are
    put in the order of the combinations.

    Raises:
        UserError: images have different sizes, labels are no classes, or there are no images.
    """
    import tensorflow_datasets as tfds

    decoders: Any = tfds.decode.SkipDecoding()
    for part in reversed(chosen.image.split("/")):
        decoders = {part: decoders}
    splits = in_order(builder.info.splits, builder.name)
    sources = {split: builder.as_data_source(split, decoders=decoders) for split in splits}
    total = sum(len(source) for source in sources.values())
    if not total:
        raise UserError(f"{name}: got no images: prepare it anew.")
    shape = chosen.pixels(next(source[0] for source in sources.values() if len(source))).shape
    labels = np.zeros((total, len(chosen.factors)), np.int64)
    published_test = None
    with (
        Writer(
            directory, shape, images=total, packed=builder.name in BINARY and not chosen.side
        ) as writer,
        bar(total=total, desc=f"preparing {name} (once)", unit=" images", unit_scale=True,
            disable=not progress) as shown,
    ):  # fmt: skip
        for split, source in sources.items():
            begin = writer.rows
            for start in range(0, len(source), CHUNK):
                examples = source.__getitems__(range(start, min(start + CHUNK, len(source))))
                for row, example in enumerate(examples, writer.rows):
                    labels[row] = chosen.labels(example)
                images = [chosen.pixels(example) for example in examples]
                _check_shapes(images, shape, name)
                writer.add(np.stack(images))
                shown.update(len(images))
            if split == "test":
                published_test = range(begin, writer.rows)
        meta = _meta(builder, name) | {"published_test": published_test}
        if not chosen.factors:
            writer.finish(meta)
            return
        found, sizes = classes(labels, chosen.features, chosen.factors, name)
        meta |= {"factor_names": chosen.names, "factor_sizes": sizes}
        order = None if published_test else grid_order(found, sizes)
        if order is not None:
            writer.reorder(order)
        writer.finish(meta, found if order is None else None)


def in_order(names: Iterable[str], builder: str) -> list[str]:
    """Which splits are read, and in which order: train, test, others."""
    kept = [name for name in names if name not in LEFT_OUT.get(builder, ())]
    return sorted(kept, key=lambda name: {"train": 0, "test": 1}.get(name, 2))


def _check_shapes(images: Sequence[np.ndarray], shape: tuple[int, ...], name: str) -> None:
    other = next((image.shape for image in images if image.shape != shape), None)
    if other is not None:
        got, wanted = ("x".join(map(str, s)) for s in (other, shape))
        raise UserError(
            f"{name}: got images of {got} and {wanted}, wanted one size: choose --image-size."
        )


def _meta(builder: Any, name: str) -> dict[str, Any]:
    info = builder.info
    return {
        "name": name,
        "builder": info.name,
        "source": f"{info.homepage} (TensorFlow Datasets {info.full_name})",
        "licence": str(info.redistribution_info.license),
        "citation": " ".join(info.citation.split()),
        "made_from": str(builder.data_dir),
    }
