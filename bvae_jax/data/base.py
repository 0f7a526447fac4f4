"""What a data set is. How its images come to the device: `sources.py`."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from bvae_jax.continuous import classes, in_words, periods
from bvae_jax.errors import UserError
from bvae_jax.types import Factors, Images, ImageShape, Indices, PRNGKey

Image = Float[Array, "height width channels"]
Finished = Float[Array, "height width colours"]


class Rendered(NamedTuple):
    """Pixels that are a pure function of factors, one image for each combination.

    Attributes:
        render: ([batch, factor] class indices, *arrays) -> images in [0, 1]; jittable.
        shape: of an image: height, width, channels.
        sizes: number of values of each factor; the last one changes fastest with the index.
        cache: set where all pixels are 0 or 1 and drawing them costs more than a few per cent of a
            training step on a CPU: the name of the file that keeps them, eight to a byte. Raise
            its version whenever a pixel changes.
        arrays: () -> what `render` takes after the factors, which is too large to be a constant of
            a compiled program.
    """

    render: Callable[..., Images]
    shape: ImageShape
    sizes: tuple[int, ...]
    cache: str = ""
    arrays: Callable[[], tuple] = tuple


class Stored(NamedTuple):
    """Pixels that are there.

    Attributes:
        images: [image, height, width, channel] uint8 in 0..255, or [image, byte] uint8 with eight
            pixels of 0 or 1 to a byte (`np.packbits`). Perhaps a memory map.
        shape: of an image: height, width, channels.
    """

    images: np.ndarray
    shape: ImageShape


@dataclass(frozen=True)
class Dataset:
    """Images, and what is known of them.

    Attributes:
        name: what `--dataset` calls it.
        version: differs whenever a pixel does; part of the name of what is cached.
        image_shape: height, width, channels of an image after `finish`.
        pixels: where images come from.
        factor_names: the ground-truth factors; () where none are known.
        factor_sizes: the number of values of each.
        labels: [image, factor] class indices. None where there is one image for each combination
            of factors, and the last factor changes fastest with the index.
        values: [image, factor] float64, of those factors that are numbers; None where none is.
        continuous: which are numbers, as `continuous.py` says.
        rows: [image] which images of `pixels` these are; None for all.
        finish: (image [height, width, channel], key) -> image, what is done to one image when it is
            looked at; pure and jittable. Training draws a new key each time; elsewhere the key
            depends on the image's index alone.
        canonical: indices -> numbers from 0 (no larger than need be) that are equal where images
            are equal by construction, so that a split never parts them. None where no two images
            are.
        published_test: indices of the images that those who published the set test on.
        classes: names of the values of the only factor; () where they have none.
        pictures: what they were before they became images, as "28×28 grey"; empty where they are
            kept as they were.
        kind: its name without the place of somebody's own files; empty where the name has none.
        source: where it comes from, in words.
        licence: of the images.
        citation: of the data set.
    """

    name: str
    version: int | str
    image_shape: ImageShape
    pixels: Rendered | Stored
    factor_names: tuple[str, ...] = ()
    factor_sizes: tuple[int, ...] = ()
    labels: np.ndarray | None = None
    values: np.ndarray | None = None
    continuous: str = ""
    rows: np.ndarray | None = None
    finish: Callable[[Image, PRNGKey], Finished] | None = None
    canonical: Callable[[np.ndarray], np.ndarray] | None = None
    published_test: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    pictures: str = ""
    kind: str = ""
    source: str = ""
    licence: str = ""
    citation: str = ""

    @property
    def size(self) -> int:
        """Number of images."""
        if self.rows is not None:
            return len(self.rows)
        if isinstance(self.pixels, Stored):
            return len(self.pixels.images)
        return math.prod(self.pixels.sizes)

    @property
    def identity(self) -> str:
        """Differs whenever an image does; the same wherever the images are."""
        return f"{self.kind or self.name}-v{self.version}"

    @property
    def grid(self) -> bool:
        """Whether there is exactly one image for each combination of factors."""
        return bool(self.factor_names) and self.labels is None

    def factors(self, indices: Indices | np.ndarray) -> Factors:
        """[batch] -> [batch, factor]: which value of each factor an image has.

        Raises:
            UserError: there is no such image, or these are no whole numbers; not inside jit.
        """
        if not isinstance(indices, Tracer):
            indices = np.asarray(indices)
            self.check_indices(indices)
        if not self.factor_names:
            return jnp.zeros((len(indices), 0), jnp.int32)
        if self.labels is not None:
            return jnp.asarray(self.labels)[indices]
        return jnp.stack(jnp.unravel_index(indices, self.factor_sizes), axis=-1)

    def check_indices(self, indices: np.ndarray) -> None:
        """Refuse indices that no image has: JAX would take the nearest one; and masks.

        Raises:
            UserError: there is one, or they are no whole numbers.
        """
        if indices.dtype.kind not in "iu":
            raise UserError(
                f"Got indices of {indices.dtype}, wanted whole numbers: of a mask, "
                "np.flatnonzero(mask)."
            )
        strange = indices[(indices < 0) | (indices >= self.size)]
        if len(strange):
            raise UserError(
                f"Got the index {strange[0]}, wanted 0 to {self.size - 1}: {self.name} has "
                f"{self.size:,} images here."
            )

    def indices(self, factors: Factors) -> Indices:
        """[batch, factor] -> [batch]: the inverse of `factors`, of a grid."""
        return jnp.ravel_multi_index(tuple(factors.T), self.factor_sizes, mode="clip")


def from_arrays(
    name: str,
    images: np.ndarray,
    factors: np.ndarray | None = None,
    factor_names: Sequence[str] = (),
    continuous: str = "",
) -> Dataset:
    """A data set of arrays in memory, as `DATASETS` wants it.

    Args:
        images: uint8 [image, height, width, channel], in 0..255.
        factors: int [image, factor] class indices, from 0; None where none are known. Of any real
            type where some are numbers: they become classes as `continuous.classes` says.
        factor_names: of the factors. Not given: factor0, factor1 and so on.
        continuous: which factors are numbers, as "x,angle=360" (see `continuous.py`).

    Raises:
        UserError: an array has another type or shape, or a factor is neither class indices nor
            declared to be a number.
    """
    images = np.ascontiguousarray(images)
    if images.dtype != np.uint8 or images.ndim != 4:
        raise UserError(
            f"{name}: got images {images.dtype}{list(images.shape)}, wanted uint8 [image, height, "
            "width, channel]."
        )
    digest = hashlib.sha256(f"{images.shape}".encode() + images.tobytes())
    shape: ImageShape = images.shape[1:]
    if factors is None:
        return Dataset(name, digest.hexdigest()[:16], shape, Stored(images, shape))
    given = np.asarray(factors)
    width = given.shape[1] if given.ndim == 2 else 1
    names = tuple(factor_names) or tuple(f"factor{k}" for k in range(width))
    if given.shape != (len(images), len(names)) or given.dtype.kind not in "biuf":
        raise UserError(
            f"{name}: got factors {given.dtype}{list(given.shape)}, wanted class indices from 0, "
            f"{[len(images), len(names)]}."
        )
    if len(set(names)) < len(names):
        raise UserError(f"{name}: got the factor names {', '.join(names)}, wanted different ones.")
    of, values = periods(continuous, names), np.ascontiguousarray(given, np.float64)
    labels = classes(given, values, of, [f"{name}: {factor}" for factor in names])
    if np.isnan(of).all():
        values = None
    else:
        digest.update(values.tobytes())
    digest.update(labels.tobytes())
    sizes = tuple(int(size) for size in labels.max(axis=0) + 1)
    pixels, version = Stored(images, shape), digest.hexdigest()[:16]
    told = in_words(of, names)
    return Dataset(
        name, version, shape, pixels, names, sizes, labels=labels, values=values, continuous=told
    )
