"""Where randomness comes from: a seed has a key of its own for each purpose.

`jax.random.split(key)[i]` is `jax.random.fold_in(key, i)`, so a key is either split or folded into,
never both, and is not drawn from then. Keys of different purposes come from numbers that no step,
image or batch has.
"""

import zlib
from typing import Literal

import jax

from bvae_jax.types import PRNGKey

Purpose = Literal[
    "run", "evaluation", "decomposition", "log-likelihood", "samples", "augmentation", "scores"
]


def key_for(purpose: Purpose, seed: int) -> PRNGKey:
    """The key of a purpose.

    `jax.random.key(0)` itself is left to the images as evaluation sees them (`Source.look`): they
    are part of what a data set is.
    """
    return jax.random.fold_in(jax.random.key(seed), 2**31 | zlib.crc32(purpose.encode()))
