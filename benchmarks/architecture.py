"""A network as a plain table of layers, for PyTorch to build the same, and the work that it is."""

import itertools
import math
from typing import NamedTuple

from bvae_jax.errors import UserError
from bvae_jax.networks import make_network
from bvae_jax.networks.strided import StridedDecoder, StridedEncoder
from bvae_jax.types import ImageShape

Layer = tuple[str, list[int]]
"""("conv" or "up", [channels in, channels out, kernel's side]), a strided layer; ("dense", [in,
out]); ("relu" or "flatten", []); ("unflatten", [channels, height, width])."""


class Architecture(NamedTuple):
    """Encoder and decoder; the last layer of the encoder gives means, then log-variances."""

    encoder: list[Layer]
    decoder: list[Layer]


def architecture(network: str, latents: int, image_shape: ImageShape) -> Architecture:
    """The layers of a network for the Bernoulli likelihood.

    Raises:
        UserError: the network is unknown, has layers of other kinds, or sides that do not halve.
    """
    encoder, decoder = make_network(network, latents, image_shape, image_shape[-1])
    if not (isinstance(encoder, StridedEncoder) and isinstance(decoder, StridedDecoder)):
        raise UserError(
            f"--network: got {network}, of which there is no PyTorch twin: take one of strided "
            "convolutions."
        )
    halved = 2 ** len(encoder.channels)
    if any(side % halved for side in image_shape[:2]):
        raise UserError(f"--network: got {network}, whose twin wants sides that halve evenly.")
    small = [encoder.channels[-1], image_shape[0] // halved, image_shape[1] // halved]
    inputs = (image_shape[-1], *encoder.channels[:-1])
    down: list[Layer] = []
    for channels, features, side in zip(inputs, encoder.channels, encoder.kernels, strict=True):
        down += [("conv", [channels, features, side]), ("relu", [])]
    sizes = (math.prod(small), *encoder.hidden)
    down += [("flatten", []), *_hidden(sizes), ("dense", [sizes[-1], 2 * encoder.latents])]
    sizes = (encoder.latents, *reversed(decoder.hidden))
    up = [*_hidden(sizes), ("dense", [sizes[-1], math.prod(small)])]
    up += [] if decoder.linear_start else [("relu", [])]
    up += [("unflatten", small)]
    for inner, outer in zip(decoder.channels[:0:-1], decoder.channels[-2::-1], strict=True):
        up += [("up", [inner, outer, 4]), ("relu", [])]
    return Architecture(down, [*up, ("up", [decoder.channels[0], decoder.outputs, 4])])


def _hidden(sizes: tuple[int, ...]) -> list[Layer]:
    pairs = itertools.pairwise(sizes)
    return [layer for pair in pairs for layer in (("dense", list(pair)), ("relu", []))]


class Work(NamedTuple):
    """What a training step cannot do without, counted by hand."""

    flop: int
    bytes: int
    parameters: int


def least_work(
    layers: Architecture, image_shape: ImageShape, batch_size: int, activation_bytes: int = 4
) -> Work:
    """Of one training step with everything fused that can be.

    Each product is done three times: forward, for the gradient of its input and for that of its
    weights. Each layer's output passes through memory five times: written and read, read again for
    the gradient; and its gradient written and read. Parameters pass eight times, for Adam reads
    parameter, gradient and two moments, and writes as many (the gradient once).

    Args:
        activation_bytes: of a number in an activation; parameters and moments have 4.
    """
    products = parameters = 0
    outputs = math.prod(image_shape)
    height, width = image_shape[:2]
    for kind, numbers in (*layers.encoder, *layers.decoder):
        if kind == "unflatten":
            _, height, width = numbers
        if kind not in ("conv", "up", "dense"):
            continue
        inputs, features, *sides = numbers
        taps = inputs * math.prod(sides * 2)
        parameters += taps * features + features
        small = 1 if kind == "dense" else height * width
        if kind == "conv":
            height, width = height // 2, width // 2
            small = height * width
        elif kind == "up":
            height, width = 2 * height, 2 * width
        products += small * taps * features
        outputs += features * (1 if kind == "dense" else height * width)
    traffic = 5 * batch_size * outputs * activation_bytes + 8 * parameters * 4
    return Work(3 * 2 * batch_size * products, traffic, parameters)
