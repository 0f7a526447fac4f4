"""dSprites, rendered instead of downloaded, and its variants with colour, noise or a picture.

The 737,280 binary 64x64 images of Matthey et al., "dSprites: Disentanglement testing Sprites
dataset", 2017: every combination of shape (square, ellipse, heart), scale (6 values), orientation
(40), x (32) and y (32), in the published order. **This is a re-rendering**, not the original
pixels: its geometry was recovered from frames of the original. Of 258 real frames it reproduces
257 to the pixel, and two pixels of the last are wrong.

Orientation runs from 0 to 2 pi with both ends, as in the original, so its first and last value
are the same angle and give the same images.
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

from bvae_jax.data.base import Dataset, Rendered
from bvae_jax.errors import UserError
from bvae_jax.types import Factors, Images, PRNGKey

SIDE = 64
FACTOR_NAMES = ("shape", "scale", "orientation", "x", "y")
FACTOR_SIZES = (3, 6, 40, 32, 32)

# One table for each factor, in float64 until the end: the same on every platform.
SCALES = np.linspace(0.5, 1.0, 6).astype(np.float32)
ANGLES = 2 * np.pi * (np.arange(40) % 39) / 39
COSINES, SINES = np.cos(ANGLES).astype(np.float32), np.sin(ANGLES).astype(np.float32)
CENTRES = (16 + 32 * np.linspace(0.0, 1.0, 32)).astype(np.float32)
PIXELS = (np.arange(SIDE) + 0.5).astype(np.float32)

# Sizes at scale 1, in pixels.
SQUARE_HALF_SIDE = 9.597
ELLIPSE_HALF_AXES = (12.766, 7.214)
HEART_HALF_WIDTH, HEART_HEIGHT, HEART_TOP = 9.5938, 0.6622, -1.4363

Plane = Float[Array, "batch side side"]
Sprite = Float[Array, "height width 1"]
Coated = Float[Array, "height width 3"]
"""What the sets that are made of sprites make of one."""


def render(factors: Factors) -> Images:
    """Draw images from their factors; pure and jittable.

    A pixel is 1 where its centre lies inside the sprite: no anti-aliasing. x grows to the right, y
    downwards, and the orientation turns counter-clockwise on the screen.

    Args:
        factors: [batch, 5] class indices in the order of `FACTOR_NAMES`.

    Returns:
        [batch, 64, 64, 1], float32 in {0, 1}.
    """
    shape, scale, orientation, x, y = (factors[:, i, None, None] for i in range(5))
    right = jnp.asarray(PIXELS)[None, None, :] - jnp.asarray(CENTRES)[x]
    down = jnp.asarray(PIXELS)[None, :, None] - jnp.asarray(CENTRES)[y]
    cos, sin = jnp.asarray(COSINES)[orientation], jnp.asarray(SINES)[orientation]
    size = jnp.asarray(SCALES)[scale]
    u = (right * cos - down * sin) / size
    v = (right * sin + down * cos) / size
    inside = jnp.where(shape == 0, square(u, v), jnp.where(shape == 1, ellipse(u, v), heart(u, v)))
    return inside[..., None].astype(jnp.float32)


def square(u: Plane, v: Plane) -> Array:
    """Inside the square, in the sprite's own coordinates at scale 1."""
    return jnp.maximum(jnp.abs(u), jnp.abs(v)) < SQUARE_HALF_SIDE


def ellipse(u: Plane, v: Plane) -> Array:
    """Inside the ellipse, whose long axis lies along u."""
    a, b = ELLIPSE_HALF_AXES
    return jnp.square(u / a) + jnp.square(v / b) < 1


def heart(u: Plane, v: Plane) -> Array:
    """Inside the heart curve, tip towards +v.

    The curve is u = A sin^3 t, v = T - H (13 cos t - 5 cos 2t - 2 cos 3t - cos 4t). At one u it has
    two branches, cos t = +-k with k = sqrt(1 - (|u| / A)^(2/3)); the inside lies between them.
    """
    a = jnp.abs(u) / HEART_HALF_WIDTH
    k = jnp.sqrt(jnp.maximum(1 - jnp.cbrt(jnp.square(a)), 0))
    # In powers of k: the even powers are common to both branches, the odd ones change sign.
    even = 4 - 2 * k**2 - 8 * k**4
    odd = 19 * k - 8 * k**3
    above = v > HEART_TOP - HEART_HEIGHT * (even + odd)
    below = v < HEART_TOP - HEART_HEIGHT * (even - odd)
    return (a < 1) & above & below


def canonical(indices: np.ndarray) -> np.ndarray:
    """Indices with the last orientation, a full turn, put back to the first."""
    factors = list(np.unravel_index(indices, FACTOR_SIZES))
    factors[2] = factors[2] % 39
    return np.ravel_multi_index(tuple(factors), FACTOR_SIZES)


SPRITES = Rendered(render, (SIDE, SIDE, 1), FACTOR_SIZES, cache="dsprites-v1")
"""Shared by all sets that are made of these images."""

DATASET = Dataset(
    name="dsprites",
    version=1,
    image_shape=(SIDE, SIDE, 1),
    pixels=SPRITES,
    factor_names=FACTOR_NAMES,
    factor_sizes=FACTOR_SIZES,
    canonical=canonical,
    source="rendered",
    licence="the original is Apache-2.0; this re-rendering contains none of its pixels",
    citation="Matthey, Higgins, Hassabis, Lerchner: dSprites, 2017",
)


# Scream dSprites: sprites that invert a random part of a picture.
#
# Of Locatello et al., "Challenging Common Assumptions in the Unsupervised Learning of Disentangled
# Representations", 2019, section 5 and their disentanglement_lib, on re-rendered sprites. Where
# the picture is cut and how it is tinted are no factors: they are drawn when an image is looked
# at. The original's picture is Munch's "The Scream". None comes with this package:
# without `--background` a generated one takes its place, so name a picture to compare with papers.

DARKEST = 0.5


def colour(sprite: Sprite, key: PRNGKey) -> Coated:
    """Colour a sprite: red, green and blue uniform in [0.5, 1).

    Args:
        sprite: [64, 64, 1] in {0, 1}.
        key: of the colour.

    Returns:
        [64, 64, 3] in [0, 1).
    """
    return sprite * jax.random.uniform(key, (1, 1, 3), minval=DARKEST)


COLOR_DSPRITES = dataclasses.replace(
    DATASET,
    name="color_dsprites",
    image_shape=(SIDE, SIDE, 3),
    finish=colour,
    citation=f"{DATASET.citation}; Locatello et al. 2019",
)


def add_noise(sprite: Sprite, key: PRNGKey) -> Coated:
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
    DATASET,
    name="noisy_dsprites",
    image_shape=(SIDE, SIDE, 3),
    finish=add_noise,
    citation=f"{DATASET.citation}; Locatello et al. 2019",
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

    def finish(sprite: Sprite, key: PRNGKey) -> Coated:
        return invert(sprite, cut(jnp.asarray(levels()), key))

    return dataclasses.replace(
        DATASET,
        name="scream_dsprites",
        version=f"{DATASET.version}-{picture}",
        image_shape=(SIDE, SIDE, 3),
        finish=finish,
        source="rendered, on a picture",
        citation=f"{DATASET.citation}; Locatello et al. 2019",
    )


def cut(levels: UInt8[Array, "rows columns 3"], key: PRNGKey) -> Coated:
    """A part of a picture at random, averaged with a random colour, uniform in [0, 1)^3.

    Args:
        levels: of the picture, 0 to 255.
        key: of the place and the colour.

    Returns:
        [64, 64, 3] in [0, 1].
    """
    place_key, colour_key = jax.random.split(key)
    side = SIDE
    most = jnp.array(levels.shape[:2]) - side
    top, left = jax.random.randint(place_key, (2,), 0, most + 1)
    part = jax.lax.dynamic_slice(levels, (top, left, 0), (side, side, 3)).astype(jnp.float32) / 255
    return (part + jax.random.uniform(colour_key, (1, 1, 3))) / 2


def invert(sprite: Sprite, background: Coated) -> Coated:
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
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises a dozen types for damaged files
        reason = getattr(error, "strerror", None) or "no picture that can be read"
        raise UserError(f"--background: got {path} ({reason}), {wanted}.") from error
    shrunk.thumbnail(MOST)
    if min(shrunk.size) < SIDE:
        width, height = shrunk.size
        raise UserError(
            f"--background: got {path}, {width} x {height} pixels when made to fit in "
            f"{MOST[0]} x {MOST[1]}, {wanted} then."
        )
    return np.asarray(shrunk, np.float32) / 255


def generate() -> Picture:
    """A picture with structure from coarse to fine: noise, smoothed at several scales and added.

    The same on every machine: NumPy promises that the stream of `RandomState` never changes.
    """
    width, height = MOST
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
