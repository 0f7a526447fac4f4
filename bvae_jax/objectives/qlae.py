"""loss = -log p(x|z) + lambda_quantize |sg(c) - q|^2 + lambda_commit |c - sg(q)|^2, z = q.

Hsu, Dorrell, Whittington, Wu & Finn, "Disentanglement via Latent Quantization", NeurIPS 2023. Each
latent of the encoder's c is snapped to the nearest of `--levels` values of its own, its codebook.
Only the first distance moves the codebook: z has the gradient of c, z = c + sg(q - c), where sg
stops gradients. The other half of the method is a high weight decay, of all but the codebook and
biases: `--preset hsu2023`, or `--optimizer adamw --weight-decay 0.1 --learning-rate 1e-3`.

Settings are from the authors' code; the paper's tables were not read. They take means over pixels
and latents where these are sums: their weights of .001 to .01, times pixels / latents, are .4 to 4
here for 64 x 64 x 1 pixels and 10 latents. Their networks are larger, with a decoder that z
modulates at every layer, and they clip each element of the gradient at 1; neither is here.
"""

import jax
import jax.numpy as jnp

from bvae_jax.objectives.base import Inputs, Loss, Objective
from bvae_jax.types import Latents, Scalar


def values_used(values: Latents) -> Scalar:
    """exp of the entropy of each latent's values in the batch, averaged over latents.

    As many as there were if all were equally frequent: 1 where all codes are alike.
    """
    share = (values[:, None] == values[None]).mean(axis=1)  # of the batch, [batch, latent]
    return jnp.exp(-jnp.log(share).mean(axis=0)).mean()


def loss(inputs: Inputs) -> Loss:
    """Mean over the batch, nats per image."""
    assert inputs.out.snapped is not None
    hyper, (codes, values) = inputs.hyper, inputs.out.snapped
    fixed_codes, fixed_values = jax.lax.stop_gradient((codes, values))
    quantize = jnp.square(fixed_codes - values).sum(axis=-1).mean()
    commit = jnp.square(codes - fixed_values).sum(axis=-1).mean()
    distances = hyper["lambda_quantize"] * quantize + hyper["lambda_commit"] * commit
    reported = {"quantisation": commit, "values_used": values_used(fixed_values)}
    return Loss(inputs.nll + distances, reported)


OBJECTIVE = Objective(
    loss=loss,
    formula="−log p(x|z) + λ_quantize |sg(c) − q|² + λ_commit |c − sg(q)|², z = c + sg(q − c)",
    reference="Hsu et al., Disentanglement via Latent Quantization, 2023",
    hyper={"lambda_commit": 4.0, "lambda_quantize": 4.0},
    noise=False,
    codebook=True,
)
