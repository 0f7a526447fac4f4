"""A network as a plain table of layers, for others to build the same, and the work that it is."""

import math
from typing import NamedTuple

from bvae_jax.errors import UserError
from bvae_jax.networks import make_network
from bvae_jax.networks.layers import GLOROT, halvings
from bvae_jax.networks.mlp import MLPDecoder, MLPEncoder
from bvae_jax.networks.strided import StridedDecoder, StridedEncoder
from bvae_jax.types import ImageShape

Layer = tuple[str, list[int]]
"""("conv" or "up", [channels in, channels out, kernel's side]), a strided layer; ("dense", [in,
out]); ("relu" or "tanh" or "flatten", []); ("unflatten", [channels, height, width])."""


class Architecture(NamedTuple):
    """Encoder and decoder as layers; the last of the encoder gives means, then log-variances.

    Attributes:
        glorot: weights start by Glorot & Bengio, else uniform on +-1/sqrt(fan_in).
    """

    encoder: list[Layer]
    decoder: list[Layer]
    glorot: bool


def architecture(network: str, latents: int, image_shape: ImageShape) -> Architecture:
    """The layers of a network for the Bernoulli likelihood.

    Raises:
        UserError: the network has layers of other kinds, or sides that do not halve evenly.
    """
    encoder, decoder = make_network(network, latents, image_shape, image_shape[-1])
    if isinstance(encoder, MLPEncoder) and isinstance(decoder, MLPDecoder):
        return _fully_connected(encoder, decoder, image_shape)
    if not (isinstance(encoder, StridedEncoder) and isinstance(decoder, StridedDecoder)):
        raise UserError(
            f"--network: got {network}, of which there is no PyTorch twin: take one of strided "
            "convolutions, or mlp."
        )
    if any(side % 2 ** len(encoder.channels) for side in image_shape[:2]):
        raise UserError(f"--network: got {network}, whose twin wants sides that halve evenly.")
    return _strided(encoder, decoder, image_shape)


def _strided(
    encoder: StridedEncoder, decoder: StridedDecoder, image_shape: ImageShape
) -> Architecture:
    *_, (height, width) = halvings(image_shape[:2], len(encoder.channels))
    down, channels = [], image_shape[-1]
    for features, side in zip(encoder.channels, encoder.kernels, strict=True):
        down += [("conv", [channels, features, side]), ("relu", [])]
        channels = features
    down += [("flatten", [])]
    size = height * width * channels
    for features in encoder.hidden:
        down += [("dense", [size, features]), ("relu", [])]
        size = features
    down += [("dense", [size, 2 * encoder.latents])]
    up, size = [], encoder.latents
    for features in reversed(decoder.hidden):
        up += [("dense", [size, features]), ("relu", [])]
        size = features
    small = [decoder.channels[-1], height, width]
    up += [("dense", [size, math.prod(small)])]
    up += [] if decoder.linear_start else [("relu", [])]
    up += [("unflatten", small)]
    for inner, outer in zip(decoder.channels[:0:-1], decoder.channels[-2::-1], strict=True):
        up += [("up", [inner, outer, 4]), ("relu", [])]
    up += [("up", [decoder.channels[0], decoder.outputs, 4])]
    return Architecture(down, up, encoder.weights is GLOROT)


def _fully_connected(
    encoder: MLPEncoder, decoder: MLPDecoder, image_shape: ImageShape
) -> Architecture:
    height, width, channels = image_shape
    down, size = [("flatten", [])], math.prod(image_shape)
    for features in encoder.hidden:
        down += [("dense", [size, features]), ("relu", [])]
        size = features
    down += [("dense", [size, 2 * encoder.latents])]
    up, size = [], encoder.latents
    for features in decoder.hidden:
        up += [("dense", [size, features]), ("tanh", [])]
        size = features
    up += [("dense", [size, math.prod(image_shape)]), ("unflatten", [channels, height, width])]
    return Architecture(down, up, glorot=False)


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
    products = parameters = outputs = 0
    for part, (channels, height, width) in (
        (layers.encoder, (image_shape[2], *image_shape[:2])),
        (layers.decoder, (0, 1, 1)),
    ):
        outputs += channels * height * width
        for kind, numbers in part:
            if kind == "unflatten":
                _, height, width = numbers
            if kind not in ("conv", "up", "dense"):
                continue
            inputs, features, *sides = numbers
            taps = inputs * math.prod(sides * 2)
            parameters += taps * features + features
            small = height * width
            if kind == "conv":
                height, width = height // 2, width // 2
                small = height * width
            elif kind == "up":
                height, width = 2 * height, 2 * width
            else:
                height = width = small = 1
            products += small * taps * features
            outputs += height * width * features
    traffic = 5 * batch_size * outputs * activation_bytes + 8 * parameters * 4
    return Work(3 * 2 * batch_size * products, traffic, parameters)
