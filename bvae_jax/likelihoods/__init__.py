"""What a decoder's numbers say about an image: p(x|z), by name.

Every log-likelihood is in nats, summed over pixels and channels, with its normalising constant.
A new one is a file here and a line below; from any script, `bvae_jax.register`.
"""

import functools
import math
from collections.abc import Callable

from bvae_jax.errors import UserError, unknown
from bvae_jax.likelihoods import logistic_mixture, pixelwise
from bvae_jax.likelihoods.base import Likelihood, Own, bits_per_dim

__all__ = ["LIKELIHOODS", "Likelihood", "Own", "bits_per_dim", "make_likelihood"]

LIKELIHOODS: dict[str, Callable[[float], Likelihood]] = {
    "bernoulli": lambda sigma: pixelwise.BERNOULLI,
    "continuous_bernoulli": lambda sigma: pixelwise.CONTINUOUS,
    "gaussian": lambda sigma: pixelwise.gaussian(math.log(sigma)),
    "sigma_vae": lambda sigma: pixelwise.SIGMA_VAE,
    "optimal_sigma_vae": lambda sigma: pixelwise.OPTIMAL_SIGMA_VAE,
    "laplace": pixelwise.laplace,
    "logistic_mixture": lambda sigma: logistic_mixture.LIKELIHOOD,
}
"""What `--likelihood` may be: `--sigma` -> Likelihood."""


@functools.cache
def make_likelihood(name: str, sigma: float) -> Likelihood:
    """The named likelihood, the same object each time, so that what is compiled for it is reused.

    Args:
        name: a key of `LIKELIHOODS`.
        sigma: the standard deviation of a pixel for `gaussian`, the width b for `laplace`.

    Raises:
        UserError: the name is not known, or stands for something else.
    """
    if name not in LIKELIHOODS:
        raise unknown("likelihood", name, LIKELIHOODS)
    found = LIKELIHOODS[name](sigma)
    if not isinstance(found, Likelihood):
        raise UserError(f"likelihood {name!r}: its function returned {found!r}, wanted Likelihood.")
    return found
