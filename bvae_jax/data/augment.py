"""Augmentation of training images: pure functions of images and a key."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bvae_jax.errors import UserError
from bvae_jax.types import Images, PRNGKey

Image = Float[Array, "height width channels"]
One = Callable[[Image, PRNGKey], Image]


def shift(image: Image, key: PRNGKey, *, pixels: float) -> Image:
    """Move an image by up to this number of whole pixels each way; its edge goes on outwards."""
    most = int(pixels)
    height, width, channels = image.shape
    wide = jnp.pad(image, ((most, most), (most, most), (0, 0)), mode="edge")
    top, left = jax.random.randint(key, (2,), 0, 2 * most + 1)
    return jax.lax.dynamic_slice(wide, (top, left, 0), (height, width, channels))


def flip(image: Image, key: PRNGKey) -> Image:
    """Mirror left and right, with probability 1/2."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def crop(image: Image, key: PRNGKey, *, area: float) -> Image:
    """A square part with at least this share of the area, at random, resized to the whole."""
    height, width, _ = image.shape
    size_key, place_key = jax.random.split(key)
    side = jax.random.uniform(size_key, (), minval=math.sqrt(area), maxval=1.0)
    corner = jax.random.uniform(place_key, (2,)) * (1 - side)
    scale = jnp.stack([1 / side, 1 / side])
    offset = -corner / side * jnp.array([height, width])
    bigger = jax.image.scale_and_translate(
        image, image.shape, (0, 1), scale, offset, method="linear", antialias=False
    )
    return jnp.clip(bigger, 0, 1)


def parse_augment(text: str, image_shape: tuple[int, int, int]) -> Callable | None:
    """(images, key) -> images; None for "". `text` is as `shift=4,flip,crop=0.8`, done in order.

    Raises:
        UserError: it cannot be read, or a number is out of range.
    """
    if not text:
        return None
    steps = [_parse(part.strip(), image_shape) for part in text.split(",")]

    def augment(images: Images, key: PRNGKey) -> Images:
        for number, step in enumerate(steps):
            keys = jax.random.split(jax.random.fold_in(key, number), len(images))
            images = jax.vmap(step)(images, keys)
        return images

    return augment


def _parse(text: str, image_shape: tuple[int, int, int]) -> One:
    name, _, number = text.partition("=")
    if text == "flip":
        return flip
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if name == "shift" and value.is_integer() and 1 <= value < min(image_shape[:2]):
        return functools.partial(shift, pixels=value)
    if name == "crop" and 0 < value < 1:
        return functools.partial(crop, area=value)
    raise UserError(
        f"--augment: got {text!r}, wanted some of shift=PIXELS, flip and crop=AREA, as "
        "shift=4,flip,crop=0.8: whole pixels less than a side, a share of the area below 1."
    )
