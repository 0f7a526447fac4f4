"""The variational autoencoder: a pure function of parameters, images and a key."""

from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bvae_jax.errors import UserError
from bvae_jax.likelihoods import Likelihood
from bvae_jax.networks.gates import Rates, gates_of
from bvae_jax.types import (
    Decoded,
    Images,
    ImageShape,
    Latents,
    Params,
    PerImage,
    Posterior,
    PRNGKey,
    Samples,
    Snapped,
    VAEOutput,
)

CODEBOOK = "codebook"
"""Name of the parameter."""


class VAE(nn.Module):
    """q(z|x) = N(encoder(x)), z ~ q by reparameterisation, p(x|z) from decoder(z).

    Kingma & Welling, 2014. The modules come from `bvae_jax.networks`, the likelihood from
    `bvae_jax.likelihoods`; its own parameters stand beside the encoder's and the decoder's. Linen
    keeps modules stateless: parameters are an argument, so that a sweep is a `vmap` over them.

    Attributes:
        products: precision of matrix products of float32, gradients included, as
            `jax.default_matmul_precision` names it; left to itself, a GPU rounds to 10 bits.
        rates: the range of β of a network with gates, whose methods want a β for each image; None
            of one without.
        codebook: how many latents, and values of each, where means are snapped to the nearest value
            of their latent: a parameter [latent, value], from -.5 to .5 at first. None: they stay.
    """

    encoder: nn.Module
    decoder: nn.Module
    likelihood: Likelihood
    products: str = "float32"
    rates: Rates | None = None
    codebook: tuple[int, int] | None = None

    def setup(self):
        self.own = {
            name: self.param(name, nn.initializers.constant(value), ())
            for name, value in self.likelihood.own
        }
        if self.codebook:
            latents, levels = self.codebook
            even = jnp.linspace(-0.5, 0.5, levels)
            self.values = self.param(CODEBOOK, lambda _: jnp.tile(even, (latents, 1)))

    def encode(self, images: Images, beta: PerImage | None = None) -> Posterior:
        return self._encoded(images, beta)[0]

    def _encoded(self, images: Images, beta: PerImage | None) -> tuple[Posterior, Snapped | None]:
        """q(z|x), whose means have gone through the codebook if there is one, and how."""
        gates = gates_of(self.rates, "encoder", beta)
        with jax.default_matmul_precision(self.products), gates:
            posterior = _checked_posterior(self.encoder(images), len(images))
        if not self.codebook:
            return posterior, None
        snapped = Snapped(posterior.mean, snap(posterior.mean, self.values))
        return posterior._replace(mean=straight_through(snapped)), snapped

    def decode(self, z: Latents, beta: PerImage | None = None) -> Decoded:
        gates = gates_of(self.rates, "decoder", beta)
        with jax.default_matmul_precision(self.products), gates:
            decoded = self.decoder(z)
        if jnp.ndim(decoded) != 4 or len(decoded) != len(z):
            raise UserError(
                f"The network's decoder returned {_described(decoded)}, wanted "
                f"[{len(z)}, height, width, numbers for a pixel]."
            )
        return decoded.astype(jnp.float32)

    def log_likelihood(self, z: Samples, images: Images) -> Float[Array, "sample batch"]:
        """log p(x|z) of every sample, nats."""
        return self._compared(z, images, None)[0]

    def _compared(
        self, z: Samples, images: Images, beta: PerImage | None
    ) -> tuple[Float[Array, "sample batch"], Float[Array, "sample batch height width channels"]]:
        """log p(x|z) of every sample in nats, and its mean image."""
        samples, batch, _ = z.shape
        betas = None if beta is None else jnp.tile(beta, samples)
        decoded = self.decode(z.reshape(samples * batch, -1), betas)
        repeated = jnp.broadcast_to(images[None], (samples, *images.shape))
        repeated = repeated.reshape(decoded.shape[0], *images.shape[1:])
        if decoded.shape[:3] != repeated.shape[:3]:
            height, width = images.shape[1:3]
            raise UserError(
                f"The network's decoder returned {_described(decoded)}, wanted images of "
                f"{height}x{width} pixels."
            )
        log_prob = self.likelihood.log_prob(decoded, repeated, dict(self.own))
        if jnp.shape(log_prob) != (samples * batch,):
            raise UserError(
                f"The likelihood's log_prob returned {_described(log_prob)}, wanted "
                f"[{samples * batch}]: one number for each image, the sum over its pixels."
            )
        mean = self.likelihood.mean(decoded)
        return log_prob.reshape(samples, batch), mean.reshape(samples, *images.shape)

    def __call__(
        self,
        images: Images,
        key: PRNGKey,
        samples: int = 1,
        adapt: Callable[[Posterior], Posterior] | None = None,
        noise: bool = True,
        beta: PerImage | None = None,
    ) -> VAEOutput:
        posterior, snapped = self._encoded(images, beta)
        if adapt is not None:
            posterior = adapt(posterior)
        z = reparameterize(posterior, key, samples) if noise else posterior.mean[None]
        log_likelihood, reconstruction = self._compared(z, images, beta)
        return VAEOutput(posterior, z, log_likelihood, images, reconstruction, snapped)


def _described(value: Any) -> str:
    """A network's output, in a message."""
    return f"an array {list(value.shape)}" if hasattr(value, "shape") else f"{type(value)}"


def _checked_posterior(found: Any, batch: int) -> Posterior:
    """What an encoder returned, as float32.

    Raises:
        UserError: it is no posterior of the batch.
    """
    if not isinstance(found, Posterior):
        got = _described(found)
    elif jnp.ndim(found.mean) != 2 or len(found.mean) != batch:
        got = f"a mean {list(jnp.shape(found.mean))}"
    elif jnp.shape(found.mean) != jnp.shape(found.logvar):
        got = f"a mean {list(found.mean.shape)} and a logvar {list(jnp.shape(found.logvar))}"
    else:
        return Posterior(found.mean.astype(jnp.float32), found.logvar.astype(jnp.float32))
    raise UserError(
        f"The network's encoder returned {got}, wanted types.Posterior(mean, logvar), both "
        f"[{batch}, latent]."
    )


def snap(codes: Latents, values: Float[Array, "latent value"]) -> Latents:
    """Of each code the nearest value of its latent, the first of equally near ones."""
    nearest = jnp.abs(codes[..., None] - values[None]).argmin(axis=-1)
    return values[jnp.arange(len(values)), nearest]


def straight_through(snapped: Snapped) -> Latents:
    """The values, to the last bit, with the gradient of the codes. Bengio et al., 2013."""
    codes, values = snapped
    return jax.lax.stop_gradient(values) + (codes - jax.lax.stop_gradient(codes))


def reparameterize(posterior: Posterior, key: PRNGKey, samples: int = 1) -> Samples:
    """z = mean + exp(logvar / 2) * eps, eps ~ N(0, I). Shape [sample, batch, latent]."""
    mean, logvar = posterior
    eps = jax.random.normal(key, (samples, *mean.shape), mean.dtype)
    return mean[None] + jnp.exp(0.5 * logvar)[None] * eps


def init_params(
    model: VAE, image_shape: ImageShape, key: PRNGKey, latents: int | None = None
) -> Params:
    """Fresh parameters for images of [height, width, channels].

    Args:
        latents: how many the encoder is to have; not looked at if None.

    Raises:
        UserError: the network's outputs have other shapes than they should.
    """
    params_key, noise_key = jax.random.split(key)
    beta = jnp.ones(1) if model.rates else None
    images = jnp.zeros((1, *image_shape))
    output, found = model.init_with_output(params_key, images, noise_key, beta=beta)
    got = cast(VAEOutput, output).posterior.mean.shape[1]
    if latents not in (None, got):
        raise UserError(f"The network's encoder returned {got} latents, wanted {latents}.")
    if strange := sorted(set(found) - {"params"}):
        raise UserError(
            f"The network keeps {', '.join(strange)} beside its parameters, wanted a network "
            "without a state: as LayerNorm or GroupNorm in place of BatchNorm."
        )
    return found.get("params", {})


def forward(
    model: VAE,
    params: Params,
    images: Images,
    key: PRNGKey,
    *,
    samples: int = 1,
    adapt: Callable[[Posterior], Posterior] | None = None,
    noise: bool = True,
    beta: PerImage | None = None,
) -> VAEOutput:
    """Encode, draw z for each image, decode, and compare with the images.

    Args:
        samples: draws of z for each image.
        adapt: changes the posteriors of the batch before z is drawn.
        noise: draw z; otherwise z is the posterior mean, once.
        beta: of each image; what gates depend on.
    """
    output = model.apply({"params": params}, images, key, samples, adapt, noise, beta)
    return cast(VAEOutput, output)


def encode(model: VAE, params: Params, images: Images) -> Posterior:
    """q(z|x): mean and log-variance, [batch, latent] each."""
    return cast(Posterior, model.apply({"params": params}, images, method="encode"))


def decode(model: VAE, params: Params, z: Latents) -> Images:
    """The mean image of p(x|z), [batch, height, width, channels] in [0, 1]."""
    return model.likelihood.mean(decode_raw(model, params, z))


def decode_raw(model: VAE, params: Params, z: Latents) -> Decoded:
    """What the decoder says of each pixel, for the likelihood to understand."""
    return cast(Decoded, model.apply({"params": params}, z, method="decode"))


def log_likelihood(
    model: VAE, params: Params, z: Samples, images: Images
) -> Float[Array, "sample batch"]:
    """log p(x|z) of every sample, nats."""
    found = model.apply({"params": params}, z, images, method="log_likelihood")
    return cast(jax.Array, found)
