"""XY-squares: three squares that move by whole widths, so that pixels say nothing of distance.

Of Michlo, Klein and James, "Overlooked Implications of the Reconstruction Loss for VAE
Disentanglement", 2023 (arXiv:2202.13341): a red, a green and a blue square of 8 x 8 pixels, each at
any of the 8 x 8 places of a grid whose spacing is a square's width. Positions of one square never
overlap, so that each change of a square's place is the same distance in any loss that adds over
pixels: the loss sees no order in x or y. A square is one channel, so that squares at one place do
not hide each other: red and green make yellow. The pixels are the published ones, in the published
order (that of the authors' package `disent`).
"""

import jax.numpy as jnp

from bvae_jax.data.base import Dataset, Rendered
from bvae_jax.types import Factors, Images

SIDE = 64
PLACES = 8
FACTOR_NAMES = ("x_R", "y_R", "x_G", "y_G", "x_B", "y_B")
FACTOR_SIZES = (PLACES,) * 6


def render(factors: Factors) -> Images:
    """Draw images from their factors; pure and jittable.

    Args:
        factors: [batch, 6] class indices in the order of `FACTOR_NAMES`; x grows to the right, y
            downwards.

    Returns:
        [batch, 64, 64, 3], float32 in {0, 1}.
    """
    place = jnp.arange(SIDE) // (SIDE // PLACES)
    x, y = factors[:, None, None, 0::2], factors[:, None, None, 1::2]
    inside = (place[None, None, :, None] == x) & (place[None, :, None, None] == y)
    return inside.astype(jnp.float32)


DATASET = Dataset(
    name="xy_squares",
    version=1,
    image_shape=(SIDE, SIDE, 3),
    pixels=Rendered(render, (SIDE, SIDE, 3), FACTOR_SIZES),
    factor_names=FACTOR_NAMES,
    factor_sizes=FACTOR_SIZES,
    source="rendered",
    licence="free to use: nothing of the original's files is contained",
    citation="Michlo, Klein, James: Overlooked Implications of the Reconstruction Loss for VAE "
    "Disentanglement, 2023",
)
