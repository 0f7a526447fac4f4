"""Noisy dSprites: white sprites on coloured noise.

Of Locatello et al., "Challenging Common Assumptions in the Unsupervised Learning of Disentangled
Representations", 2019, section 5 and their disentanglement_lib, on re-rendered sprites (see
`dsprites.py`). The noise is no factor: it is drawn when an image is looked at.
"""

import dataclasses

import jax
import jax.numpy as jnp

import bvae_jax.data.dsprites as dsprites
from bvae_jax.types import PRNGKey


def finish(sprite: dsprites.Sprite, key: PRNGKey) -> dsprites.Coated:
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


DATASET = dataclasses.replace(
    dsprites.DATASET,
    name="noisy_dsprites",
    image_shape=(dsprites.SIDE, dsprites.SIDE, 3),
    finish=finish,
    citation=f"{dsprites.DATASET.citation}; Locatello et al. 2019",
)
