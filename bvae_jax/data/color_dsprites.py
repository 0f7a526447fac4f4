"""Color dSprites: each sprite in a random colour, on black.

Of Locatello et al., "Challenging Common Assumptions in the Unsupervised Learning of Disentangled
Representations", 2019, section 5 and their disentanglement_lib, on re-rendered sprites (see
`dsprites.py`). The colour is no factor: it is drawn when an image is looked at.
"""

import dataclasses

import jax

import bvae_jax.data.dsprites as dsprites
from bvae_jax.types import PRNGKey

DARKEST = 0.5


def finish(sprite: dsprites.Sprite, key: PRNGKey) -> dsprites.Coated:
    """Colour a sprite: red, green and blue uniform in [0.5, 1).

    Args:
        sprite: [64, 64, 1] in {0, 1}.
        key: of the colour.

    Returns:
        [64, 64, 3] in [0, 1).
    """
    return sprite * jax.random.uniform(key, (1, 1, 3), minval=DARKEST)


DATASET = dataclasses.replace(
    dsprites.DATASET,
    name="color_dsprites",
    image_shape=(dsprites.SIDE, dsprites.SIDE, 3),
    finish=finish,
    citation=f"{dsprites.DATASET.citation}; Locatello et al. 2019",
)
