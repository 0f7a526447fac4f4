"""The table of networks. A new one is a function here or in a file here, and a line below;
from any script, `bvae_jax.register`."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from bvae_jax.errors import UserError, unknown
from bvae_jax.networks import mlp, resnet, strided
from bvae_jax.networks.layers import Network
from bvae_jax.types import ImageShape

__all__ = ["NETWORKS", "Network", "make_network"]

NETWORKS: dict[str, Callable[[int, ImageShape, int, Any], Network]] = {
    "burgess": strided.burgess,
    "conv": strided.conv,
    "conv128": strided.conv128,
    "locatello": strided.locatello,
    "mlp": mlp.mlp,
    "resnet": resnet.resnet,
    "small": strided.small,
    "spatial_broadcast": strided.spatial_broadcast,
}
"""What `--network` may be: (latents, image shape, numbers for a pixel, dtype) -> Network."""


def make_network(
    name: str, latents: int, image_shape: ImageShape, outputs: int, dtype: Any = jnp.float32
) -> Network:
    """The named network for images of any [height, width, channels].

    Args:
        latents: dimensions of z.
        outputs: numbers that the decoder gives for each pixel; the likelihood decides.
        dtype: of activations and products. Parameters, and what the network returns, are float32.

    Raises:
        UserError: the name is not known, or stands for something else.
    """
    if name not in NETWORKS:
        raise unknown("network", name, NETWORKS)
    found = NETWORKS[name](latents, image_shape, outputs, dtype)
    if not isinstance(found, Network):
        raise UserError(
            f"network {name!r}: its function returned {found!r}, wanted Network(encoder, decoder)."
        )
    return found
