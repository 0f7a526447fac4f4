"""Scream dSprites: sprites that invert a random part of a picture.

Of Locatello et al., "Challenging Common Assumptions in the Unsupervised Learning of Disentangled
Representations", 2019, section 5 and their disentanglement_lib, on re-rendered sprites (see
`dsprites.py`). Where the picture is cut and how it is tinted are no factors: they are drawn when an
image is looked at. The original's picture is Munch's "The Scream". None comes with this package:
without `--background` a generated one takes its place, so name a picture to compare with papers.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

import bvae_jax.data.dsprites as dsprites
from bvae_jax.data.base import Dataset
from bvae_jax.errors import UserError
from bvae_jax.types import PRNGKey

DARKEST = 0.5


def colour(sprite: dsprites.Sprite, key: PRNGKey) -> dsprites.Coated:
    """Colour a sprite: red, green and blue uniform in [0.5, 1).

    Args:
        sprite: [64, 64, 1] in {0, 1}.
        key: of the colour.

    Returns:
        [64, 64, 3] in [0, 1).
    """
    return sprite * jax.random.uniform(key, (1, 1, 3), minval=DARKEST)


COLOR_DSPRITES = dataclasses.replace(
    dsprites.DATASET,
    name="color_dsprites",
    image_shape=(dsprites.SIDE, dsprites.SIDE, 3),
    finish=colour,
    citation=f"{dsprites.DATASET.citation}; Locatello et al. 2019",
)


def add_noise(sprite: dsprites.Sprite, key: PRNGKey) -> dsprites.Coated:
    """min(sprite + noise, 1), with noise uniform in [0, 1) in each channel of each pixel.

    Args:
        sprite: [64, 64, 1] in {0, 1}.
        key: of the noise.

    Returns:
        [64, 64, 3] in [0, 1], 1 where the sprite is.
    """
    # 65,536 levels, two numbers from each random word: half the cost, which a CPU would feel.
    height, width, _ = sprite.shape
    words = jax.random.bits(key, (height * width * 3 // 2,), jnp.uint32)
    levels = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(height, width, 3)
    return jnp.minimum(sprite + levels / jnp.float32(2**16), 1)


NOISY_DSPRITES = dataclasses.replace(
    dsprites.DATASET,
    name="noisy_dsprites",
    image_shape=(dsprites.SIDE, dsprites.SIDE, 3),
    finish=add_noise,
    citation=f"{dsprites.DATASET.citation}; Locatello et al. 2019",
)


Picture = Float[np.ndarray, "height width 3"]
MOST = (350, 274)
"""Width and height that larger pictures are shrunk to fit in, as disentanglement_lib does."""
OCTAVES = {3: 1.0, 6: 0.9, 12: 0.8, 24: 0.7, 48: 0.6, 96: 0.4}
"""Of the generated background, from its coarsest detail to its finest: cells across, and weight."""


def scream_dsprites(background: Picture) -> Dataset:
    """Scream dSprites on a picture.

    Args:
        background: [height, width, 3] in [0, 1], each side at least 64.
    """
    levels = np.rint(background * 255).astype(np.uint8)  # a quarter of the bytes in the program
    content = hashlib.sha256(f"{levels.shape}".encode() + levels.tobytes()).hexdigest()[:12]
    return _scream_dsprites(lambda: levels, content)


def _scream_dsprites(levels: Callable[[], np.ndarray], picture: str) -> Dataset:
    """On the picture with these levels; `picture` differs whenever they do."""

    def finish(sprite: dsprites.Sprite, key: PRNGKey) -> dsprites.Coated:
        return invert(sprite, cut(jnp.asarray(levels()), key))

    return dataclasses.replace(
        dsprites.DATASET,
        name="scream_dsprites",
        version=f"{dsprites.DATASET.version}-{picture}",
        image_shape=(dsprites.SIDE, dsprites.SIDE, 3),
        finish=finish,
        source="rendered, on a picture",
        citation=f"{dsprites.DATASET.citation}; Locatello et al. 2019",
    )


def cut(levels: UInt8[Array, "rows columns 3"], key: PRNGKey) -> dsprites.Coated:
    """A part of a picture at random, averaged with a random colour, uniform in [0, 1)^3.

    Args:
        levels: of the picture, 0 to 255.
        key: of the place and the colour.

    Returns:
        [64, 64, 3] in [0, 1].
    """
    place_key, colour_key = jax.random.split(key)
    side = dsprites.SIDE
    most = jnp.array(levels.shape[:2]) - side
    top, left = jax.random.randint(place_key, (2,), 0, most + 1)
    part = jax.lax.dynamic_slice(levels, (top, left, 0), (side, side, 3)).astype(jnp.float32) / 255
    return (part + jax.random.uniform(colour_key, (1, 1, 3))) / 2


def invert(sprite: dsprites.Sprite, background: dsprites.Coated) -> dsprites.Coated:
    """The background, and 1 - background where the sprite is."""
    return jnp.where(sprite > 0.5, 1 - background, background)


def read_background(path: str | Path) -> Picture:
    """Read a picture, shrunk to fit in 350 x 274 where it is larger.

    Returns:
        [height, width, 3] in [0, 1].

    Raises:
        UserError: it is missing, no picture, or less than 64 pixels high or wide.
    """
    from PIL import Image as Pillow  # 8 ms that only this needs

    wanted = "wanted a picture of at least 64 x 64 pixels"
    try:
        with Pillow.open(path) as picture:
            shrunk = picture.convert("RGB")
    except (OSError, Pillow.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or "no picture that can be read"
        raise UserError(f"--background: got {path} ({reason}), {wanted}.") from error
    shrunk.thumbnail(MOST)
    if min(shrunk.size) < dsprites.SIDE:
        width, height = shrunk.size
        raise UserError(
            f"--background: got {path}, {width} x {height} pixels when made to fit in "
            f"{MOST[0]} x {MOST[1]}, {wanted} then."
        )
    return np.asarray(shrunk, np.float32) / 255


def generate(height: int = MOST[1], width: int = MOST[0]) -> Picture:
    """A picture with structure from coarse to fine: noise, smoothed at several scales and added.

    The same on every machine: NumPy promises that the stream of `RandomState` never changes.
    """
    random = np.random.RandomState(0)
    total = np.zeros((height, width, 3))
    for cells, weight in OCTAVES.items():
        noise = random.uniform(-1, 1, (cells + 1, cells + 1, 3))
        total += weight * _stretched(noise, height, width)
    low, high = total.min((0, 1)), total.max((0, 1))
    return ((total - low) / (high - low)).astype(np.float32)


def _stretched(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Interpolate between values at the corners of a grid's cells, linearly."""
    for axis, length in enumerate((height, width)):
        place = np.linspace(0, values.shape[axis] - 1, length)
        low = np.minimum(place.astype(int), values.shape[axis] - 2)
        share = np.expand_dims(place - low, tuple({0, 1, 2} - {axis}))
        values = values.take(low, axis) * (1 - share) + values.take(low + 1, axis) * share
    return values


@functools.cache
def _generated_levels() -> np.ndarray:
    return np.rint(generate() * 255).astype(np.uint8)


# The picture is made when it is first looked at: importing costs nothing. Count the version up
# whenever it changes.
SCREAM_DSPRITES = _scream_dsprites(_generated_levels, "generated1")
