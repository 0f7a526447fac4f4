"""The variational autoencoder: a pure function of parameters, images and a key."""

from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from bvae_jax.elbo import expected_image
from bvae_jax.types import Images, Latents, Params, Posterior, PRNGKey, VAEOutput


class VAE(nn.Module):
    """q(z|x) = N(encoder(x)), z ~ q by reparameterisation, p(x|z) from decoder(z).

    Kingma & Welling, 2014. The modules come from `bvae_jax.networks`. Linen keeps modules
    stateless: parameters are an argument, so that a sweep is a `vmap` over them.
    """

    encoder: nn.Module
    decoder: nn.Module

    def encode(self, images: Images) -> Posterior:
        return self.encoder(images)

    def decode(self, z: Latents) -> Images:
        return self.decoder(z)

    def __call__(self, images: Images, key: PRNGKey) -> VAEOutput:
        posterior = self.encode(images)
        z = reparameterize(posterior, key)
        return VAEOutput(self.decode(z), posterior, z)


def reparameterize(posterior: Posterior, key: PRNGKey) -> Latents:
    """z = mean + exp(logvar / 2) * eps, eps ~ N(0, I). Shape [batch, latent]."""
    eps = jax.random.normal(key, posterior.mean.shape, posterior.mean.dtype)
    return posterior.mean + jnp.exp(0.5 * posterior.logvar) * eps


def init_params(model: VAE, image_shape: tuple[int, int, int], key: PRNGKey) -> Params:
    """Fresh parameters for images of [height, width, channels]."""
    params_key, noise_key = jax.random.split(key)
    return model.init(params_key, jnp.zeros((1, *image_shape)), noise_key)["params"]


def forward(model: VAE, params: Params, images: Images, key: PRNGKey) -> VAEOutput:
    """Encode, draw one z for each image, decode to logits."""
    return cast(VAEOutput, model.apply({"params": params}, images, key))


def encode(model: VAE, params: Params, images: Images) -> Posterior:
    """q(z|x): mean and log-variance, [batch, latent] each."""
    return cast(Posterior, model.apply({"params": params}, images, method="encode"))


def decode(model: VAE, params: Params, z: Latents) -> Images:
    """The mean image of p(x|z), [batch, height, width, channels] in (0, 1)."""
    return expected_image(cast(Images, model.apply({"params": params}, z, method="decode")))
