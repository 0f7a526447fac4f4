"""Variants that are there to be measured only: colour images, XLA's own convolution gradients.

They change tables of the process that they are called in, which is a worker's.
"""

import dataclasses

import jax.numpy as jnp
from jax import lax

from bvae_jax import data
from bvae_jax.conv import Coarse, Fine, Kernel
from bvae_jax.data.base import Finished, Image
from bvae_jax.networks import layers
from bvae_jax.types import PRNGKey

LAYOUT = ("NHWC", "HWIO", "NHWC")


def in_colour(dataset: str, channels: int) -> str:
    """Enter the data set with every image repeated in all channels.

    Returns:
        Its name.
    """
    grey = data.get_dataset(dataset)

    def colour(image: Image, _: PRNGKey) -> Finished:
        return jnp.repeat(image, channels, axis=-1)

    name, shape = f"{dataset}-{channels}", (*grey.image_shape[:2], channels)
    data.DATASETS[name] = dataclasses.replace(grey, name=name, image_shape=shape, finish=colour)
    return name


def with_plain_convolutions() -> None:
    """Build networks from XLA's convolutions, with the gradients that JAX derives."""
    layers.conv_down, layers.conv_up = plain_down, plain_up


def plain_down(x: Fine, kernel: Kernel, stride: int) -> Coarse:
    """`conv.conv_down` in one operation."""
    low, high = _padding(kernel, stride)
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), ((low, high),) * 2, dimension_numbers=LAYOUT
    )


def plain_up(y: Coarse, kernel: Kernel, stride: int) -> Fine:
    """`conv.conv_up` in one operation: zeros between the pixels, and the flipped kernel."""
    low, high = _padding(kernel, stride)
    last = kernel.shape[0] - 1
    return lax.conv_general_dilated(
        y, kernel[::-1, ::-1].swapaxes(2, 3), (1, 1), ((last - low, last - high),) * 2,
        lhs_dilation=(stride, stride), dimension_numbers=LAYOUT,
    )  # fmt: skip


def _padding(kernel: Kernel, stride: int) -> tuple[int, int]:
    total = kernel.shape[0] - stride
    return total // 2, total - total // 2
