"""dSprites, rendered instead of downloaded.

The 737,280 binary 64x64 images of Matthey et al., "dSprites: Disentanglement testing Sprites
dataset", 2017: every combination of shape (square, ellipse, heart), scale (6 values), orientation
(40), x (32) and y (32), in the published order. **This is a re-rendering**, not the original
pixels: its geometry was recovered from frames of the original. Of 258 real frames it reproduces
257 to the pixel, and two pixels of the last are wrong.

Orientation runs from 0 to 2 pi with both ends, as in the original, so its first and last value
are the same angle and give the same images.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bvae_jax.data.base import Dataset, Rendered
from bvae_jax.types import Factors, Images

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
