"""The network `burgess` with weights by He's rule, as disentangling-vae starts it; for --plugin."""

from bvae_jax import register
from bvae_jax.networks import NETWORKS, Network
from bvae_jax.networks.layers import HE


def burgess_he(latents, image_shape, outputs, dtype):
    """`burgess`, but weights uniform on ±√(6 / fan_in)."""
    network = NETWORKS["burgess"](latents, image_shape, outputs, dtype)
    return Network(network.encoder.clone(weights=HE), network.decoder.clone(weights=HE))


register(network={"burgess_he": burgess_he}, replace=True)
