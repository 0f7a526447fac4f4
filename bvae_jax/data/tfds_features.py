"""Which features of a builder are the image and the factors, and how an example is read."""

import io
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image, ImageOps

from bvae_jax.errors import UserError

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
IMAGE = "image"
NO_FACTORS = "none"


FACTORS = {
    "dsprites": "label_shape,label_scale,label_orientation,label_x_position,label_y_position",
    "shapes3d": "label_floor_hue,label_wall_hue,label_object_hue,label_scale,label_shape,"
    "label_orientation",
    "smallnorb": "label_category,instance,label_elevation,label_azimuth,label_lighting",
}
"""The factors of builders in their published order, which TFDS does not keep."""


class Wish(NamedTuple):
    """What is to be prepared.

    Attributes:
        name: what `--dataset` calls it: tfds:BUILDER, perhaps with /CONFIG and :VERSION.
        image_key: the feature that is the image; "" for the default.
        factor_keys: the features that are factors, with commas; "" for the default.
        image_size: side to which images are resized and cropped; 0 leaves them as they are.
    """

    name: str
    image_key: str = ""
    factor_keys: str = ""
    image_size: int = 0


class Chosen(NamedTuple):
    """What is read of an example.

    Attributes:
        image: key of the image; parts of nested keys have slashes between them.
        channels: of the image.
        factors: keys of the factors.
        features: of the factors.
    """

    image: str
    channels: int
    factors: tuple[str, ...]
    features: tuple[Any, ...]

    @property
    def names(self) -> list[str]:
        """Names of the factors: keys without what only says that they are labels."""
        keys = [key.rpartition("/")[2].removeprefix("label_") for key in self.factors]
        names = [key.removesuffix("_position") for key in keys]
        return names if len(set(names)) == len(names) else list(self.factors)


def choose(features: Any, wish: Wish, builder: str) -> Chosen:
    """What to read of an example.

    Not wished for, it is the only image, or that with the key "image"; and as factors class labels,
    booleans and whole numbers, or `FACTORS`.

    Args:
        features: of the builder.
        wish: its `factor_keys` may be "none".
        builder: its name.

    Raises:
        UserError: a key names no feature that could be that.
    """
    known, name, image_key = flat(features), wish.name, wish.image_key
    images = [key for key, feature in known.items() if type(feature) is tfds.features.Image]
    image = image_key or (IMAGE if IMAGE in images else images[0] if len(images) == 1 else "")
    if image not in images:
        raise UserError(
            f"{name}: --image-key: got {image_key!r}, wanted a feature that is an image: "
            f"{', '.join(images) or 'it has none'}."
        )
    if known[image].np_dtype != np.uint8 or known[image].shape[-1] not in MODES:
        raise UserError(
            f"{name}: --image-key: got {image}, {known[image].np_dtype}{list(known[image].shape)}, "
            "wanted uint8 with 1, 3 or 4 channels."
        )
    labels = [key for key, feature in known.items() if _is_factor(feature)]
    wanted = wish.factor_keys or FACTORS.get(builder, "") or ",".join(labels)
    factors = [key.strip() for key in wanted.split(",") if wanted not in ("", NO_FACTORS)]
    if not set(factors) <= set(labels) or len(set(factors)) != len(factors):
        raise UserError(
            f"{name}: --factor-keys: got {wish.factor_keys!r}, wanted some of: "
            f"{', '.join(labels) or 'it has none'}; or none."
        )
    return Chosen(image, known[image].shape[-1], tuple(factors), tuple(known[k] for k in factors))


def flat(features: Any, prefix: str = "") -> dict[str, Any]:
    """Features by key, with slashes in nested ones."""
    if not isinstance(features, tfds.features.FeaturesDict):
        return {prefix.removesuffix("/"): features}
    parts = [flat(feature, f"{prefix}{key}/") for key, feature in features.items()]
    return {key: feature for part in parts for key, feature in part.items()}


def _is_factor(feature: Any) -> bool:
    if isinstance(feature, tfds.features.ClassLabel):
        return True
    plain = isinstance(feature, tfds.features.Tensor) and feature.shape == ()
    return plain and np.dtype(feature.np_dtype).kind in "iub"  # pyright: ignore


def value(example: Mapping[str, Any], key: str) -> Any:
    """A feature of an example."""
    found: Any = example
    for part in key.split("/"):
        found = found[part]
    return found


def labels(example: Mapping[str, Any], chosen: Chosen) -> list[int]:
    """Values of the factors, whole numbers."""
    found = [value(example, key) for key in chosen.factors]
    return [
        int(feature.encode_example(v) if isinstance(v, str) else v)
        for feature, v in zip(chosen.features, found, strict=True)
    ]


def image(example: Mapping[str, Any], chosen: Chosen, size: int) -> np.ndarray:
    """The image, uint8 [height, width, channel].

    Args:
        size: side of a square to which it is resized and cropped; 0 leaves it as it is.

    Raises:
        OSError: it is no picture.
    """
    found = value(example, chosen.image)
    if isinstance(found, np.ndarray):
        if not size:
            return found
        picture = Image.fromarray(found[..., 0] if chosen.channels == 1 else found)
    else:
        picture = _picture(found)
    if picture.mode != MODES[chosen.channels]:
        picture = picture.convert(MODES[chosen.channels])
    if size:
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)
    pixels = np.asarray(picture)
    return pixels.reshape(*pixels.shape[:2], chosen.channels)


def _picture(found: Any) -> Image.Image:
    """What builders give for an image: a path, bytes, an open file or a picture."""
    if isinstance(found, Image.Image):
        return found
    if isinstance(found, str | os.PathLike):
        return Image.open(found)
    return Image.open(io.BytesIO(found if isinstance(found, bytes) else found.read()))


def classes(
    values: np.ndarray, features: Sequence[Any], keys: Sequence[str], name: str
) -> tuple[np.ndarray, list[int]]:
    """Class indices from the values of factors, and the number of classes of each.

    A class label is its index. Other whole numbers are numbered in their order.

    Args:
        values: [image, factor].
        features: of the factors.
        keys: of the factors.
        name: what `--dataset` calls the set.

    Raises:
        UserError: a class label is none, as -1 is where labels are secret.
    """
    columns, sizes = [], []
    for column, feature, key in zip(values.T, features, keys, strict=True):
        size = getattr(feature, "num_classes", None)
        if size is None:
            kept, column = np.unique(column, return_inverse=True)
            size = len(kept)
        elif column.min() < 0 or column.max() >= size:
            raise UserError(
                f"{name}: got a {key} of {column.min() if column.min() < 0 else column.max()}, "
                f"wanted 0 to {size - 1}: leave it out with --factor-keys."
            )
        columns.append(column)
        sizes.append(int(size))
    return np.stack(columns, axis=1).astype(np.int32), sizes
