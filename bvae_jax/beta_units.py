"""What other codes call beta, in our units. Imports no JAX.

Ours: loss = NLL + beta KL, where NLL = -log p(x|z) is summed over the N = height width channels
pixels and KL over the M latents, in nats. Codes that minimise a squared error SE = sum d^2 mean the
Gaussian of standard deviation 1, for which NLL = SE / 2 up to a constant; pixels are in [0, 1].
A loss and its multiples have the same optimum, and the same steps of Adam but for its epsilon: what
counts is the weight of KL where NLL weighs 1, which is beta in our units.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from bvae_jax.errors import UserError, unknown


class Sizes(NamedTuple):
    """What conversions depend on.

    Attributes:
        pixels: N = height * width * channels.
        latents: M.
        kld_weight: the factor of KL that PyTorch-VAE has beside beta, batch size / data set's size.
    """

    pixels: int
    latents: int
    kld_weight: float


Conversion = Callable[[float, Sizes], float]


class Convention(NamedTuple):
    """How a code weighs the KL term.

    Attributes:
        loss: with NLL for any likelihood, or with SE where the code means a squared error.
        used_by: who minimises it.
        source: where the formula was read.
        to_ours: (value, sizes) -> beta in our units.
        from_ours: its inverse.
    """

    loss: str
    used_by: str
    source: str
    to_ours: Conversion
    from_ours: Conversion


def _times(factor: Callable[[Sizes], float]) -> tuple[Conversion, Conversion]:
    """Conversions of a value that is our beta but for a factor."""
    return (lambda value, s: value * factor(s)), (lambda beta, s: beta / factor(s))


CONVENTIONS: dict[str, Convention] = {
    "bvae_jax": Convention(
        "NLL + beta KL",
        "this package; pythae; disentanglement_lib, YannDubs, 1Konny (Bernoulli)",
        "Higgins et al. 2017, eq. 4; pythae 0.1.2: beta_vae_model.py, which has SE / 2",
        *_times(lambda s: 1.0),
    ),
    "beta_norm": Convention(
        "NLL + beta N/M KL",
        "Higgins et al. 2017, to compare data sets",
        "Higgins et al. 2017: beta_norm = beta M / N",
        *_times(lambda s: s.pixels / s.latents),
    ),
    "disent": Convention(
        "NLL/N + beta KL/M",
        "disent with a likelihood (bce, normal), reduction mean",
        "disent: _unsupervised__betavae.py, reductions.py",
        *_times(lambda s: s.pixels / s.latents),
    ),
    "disent_mse": Convention(
        "SE/N + beta KL/M",
        "disent as it comes (mse), reduction mean",
        "disent: _unsupervised__ae.py (defaults), reconstructions.py, which has no 1/2",
        *_times(lambda s: s.pixels / (2 * s.latents)),
    ),
    "yanndubs_gaussian": Convention(
        "255 SE + beta KL",
        "YannDubs (gaussian)",
        "YannDubs/disentangling-vae: losses.py, sum (255 d)^2 / 255",
        *_times(lambda s: 1 / 510),
    ),
    "sum_squares": Convention(
        "SE + beta KL",
        "1Konny (gaussian), artifex (mse), disentanglement_lib (l2_loss)",
        "1Konny/Beta-VAE: solver.py; artifex 0.1.3: losses/vae.py; disentanglement_lib: losses.py",
        *_times(lambda s: 1 / 2),
    ),
    "pytorch_vae": Convention(
        "SE/N + beta w KL",
        "PyTorch-VAE, w = kld_weight",
        "AntixK/PyTorch-VAE: beta_vae.py (loss_type H), bhvae.yaml",
        *_times(lambda s: s.kld_weight * s.pixels / 2),
    ),
    "sigma": Convention(
        "SE/(2 sigma^2) + KL",
        "Gaussian decoders of standard deviation sigma, beta 1",
        "Rybkin et al. 2021: SE/2 + beta KL is sigma^2 = beta",
        lambda sigma, s: sigma**2,
        lambda beta, s: math.sqrt(beta),
    ),
}

KLD_WEIGHT = 0.00025
"""That of PyTorch-VAE's configurations."""
_LARGEST = 1e30


def convert_beta(
    value: float,
    source: str,
    target: str,
    *,
    height: int,
    width: int,
    channels: int,
    latents: int,
    kld_weight: float = KLD_WEIGHT,
) -> float:
    """The value in the target's convention whose loss is a multiple of the source's at `value`.

    Args:
        value: beta (or sigma) in the source's convention.
        source: one of `CONVENTIONS`.
        target: one of `CONVENTIONS`.
        height: pixels in a column of an image.
        width: pixels in a row.
        channels: 1: grey, 3: RGB.
        latents: number of latents.
        kld_weight: PyTorch-VAE's second factor of KL.

    Raises:
        UserError: an unknown convention, a size below 1, a negative or infinite value.
    """
    for name in (source, target):
        if name not in CONVENTIONS:
            raise unknown("convention", name, CONVENTIONS)
    if not 0 <= value <= _LARGEST:
        raise UserError(f"--value: got {value}, wanted a number from 0 to {_LARGEST:g}.")
    if not 1 / _LARGEST <= kld_weight <= _LARGEST:
        wanted = f"a number from {1 / _LARGEST:g} to {_LARGEST:g}"
        raise UserError(f"--kld-weight: got {kld_weight}, wanted {wanted}.")
    sizes = {"height": height, "width": width, "channels": channels, "latents": latents}
    for name, size in sizes.items():
        if not 1 <= size <= 10**6:
            raise UserError(f"--{name}: got {size}, wanted a whole number from 1 to 1000000.")
    measures = Sizes(height * width * channels, latents, kld_weight)
    return CONVENTIONS[target].from_ours(CONVENTIONS[source].to_ours(value, measures), measures)
