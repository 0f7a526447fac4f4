"""A strided convolution and its transpose, fast on every platform, for one model or many at once.

Both are written twice: as XLA's convolution, and as matrix products of patches. Which is faster
depends on the platform, the channels and whether `vmap` runs over models:

- On a CPU, XLA is several times slower with few channels, and on a convolution whose input is
  dilated, which the transposed one is. With few channels there are products there; otherwise the
  transposed one is a dense convolution that makes all pixels of a block at once.
- On an accelerator one model's convolutions have library kernels, and are left to them. Those of
  many models, each with a kernel of its own, would become grouped convolutions, which hardly fill
  a device: there they are batched matrix products.

A convolution is linear in the image and in the kernel, so three operations are closed under
differentiation, to any order: down, up (its transpose in the image) and the kernel's gradient (its
transpose in the kernel). Layout: images NHWC, kernels HWIO in the orientation of `conv_down` for
all. Sources: Dumoulin & Visin 2016 ("A guide to convolution arithmetic"), sections 2.4 and 4.5.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float

Kernel = Float[Array, "side side fine coarse"]
Fine = Float[Array, "batch height width fine"]
Coarse = Float[Array, "batch small_height small_width coarse"]

LAYOUT = ("NHWC", "HWIO", "NHWC")
FEW_CHANNELS = 4
"""Fine channels up to which products beat XLA's convolutions on a CPU (measured: 1 and 3)."""
Written = Literal["fastest", "convolution", "product"]
"""How an operation is computed; "fastest" depends on where it runs."""


class Form(NamedTuple):
    """What is static in a convolution.

    Attributes:
        side: of the kernel, a multiple of `stride`.
        precision: of products, as `jax.default_matmul_precision` has it.
        written: how every operation is computed, gradients too.
    """

    side: int
    stride: int
    precision: str | None = None
    written: Written = "fastest"

    @property
    def taps(self) -> int:
        """Blocks of stride x stride pixels along a side of the kernel."""
        return self.side // self.stride

    @property
    def pad(self) -> tuple[int, int]:
        """Zeros before and after a side of the fine image."""
        total = self.side - self.stride
        return total // 2, total - total // 2


def conv_down(
    x: Fine,
    kernel: Kernel,
    stride: int,
    *,
    precision: str | None = None,
    written: Written = "fastest",
) -> Coarse:
    """Convolution that divides the image's sides by `stride`, with "SAME" padding.

        y[i] = sum_k x[stride i + k - pad] kernel[k],    pad = (side - stride) / 2

    Args:
        x: [batch, height, width, fine]; height and width are multiples of `stride`.
        kernel: [side, side, fine, coarse]; side is a multiple of `stride`.
        stride: a static integer.
        precision: of products, gradients included, as `jax.default_matmul_precision` names it.
        written: how it is computed, gradients included.

    Returns:
        [batch, height / stride, width / stride, coarse].
    """
    return _down(Form(kernel.shape[0], stride, precision, written), x, kernel)


def conv_up(
    y: Coarse,
    kernel: Kernel,
    stride: int,
    *,
    precision: str | None = None,
    written: Written = "fastest",
) -> Fine:
    """Transposed convolution: multiplies the image's sides by `stride`.

    It is the transpose of `conv_down` as a linear map of the image, with the same kernel.

    Args:
        y: [batch, height, width, coarse].
        kernel: [side, side, fine, coarse]; side is a multiple of `stride`.
        stride: a static integer.
        precision: as of `conv_down`.
        written: as of `conv_down`.

    Returns:
        [batch, stride height, stride width, fine].
    """
    return _up(Form(kernel.shape[0], stride, precision, written), y, kernel)


# Derivatives: each operation is bilinear, and its two transposes are the other two.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _down(form: Form, x: Fine, kernel: Kernel) -> Coarse:
    forms = down_by_convolution, down_by_product
    return _chosen(form, *forms, cpu=forms[x.shape[-1] <= FEW_CHANNELS])(x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _up(form: Form, y: Coarse, kernel: Kernel) -> Fine:
    few = kernel.shape[2] <= FEW_CHANNELS
    cpu = up_by_product if few else up_by_blocks
    return _chosen(form, up_by_convolution, up_by_product, cpu)(y, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _kernel_gradient(form: Form, x: Fine, y: Coarse) -> Kernel:
    """sum over the batch of the products of x[stride i + k - pad] and y[i]."""
    forms = kernel_gradient_by_convolution, kernel_gradient_by_product
    return _chosen(form, *forms, cpu=forms[x.shape[-1] <= FEW_CHANNELS])(x, y)


def _define(operation: Any, first: Callable, second: Callable) -> None:
    """Give a bilinear operation its gradient.

    Args:
        first, second: (form, a, b, cotangent) -> cotangent of a, of b.
    """

    def forward(form, a, b):
        return operation(form, a, b), (a, b)

    def backward(form, arguments, cotangent):
        return first(form, *arguments, cotangent), second(form, *arguments, cotangent)

    operation.defvjp(forward, backward)


_define(_down, lambda f, x, k, dy: _up(f, dy, k), lambda f, x, k, dy: _kernel_gradient(f, x, dy))
_define(_up, lambda f, y, k, dx: _down(f, dx, k), lambda f, y, k, dx: _kernel_gradient(f, dx, y))
_define(_kernel_gradient, lambda f, x, y, dk: _up(f, y, dk), lambda f, x, y, dk: _down(f, x, dk))


# Which form


def _chosen(form: Form, convolution: Callable, product: Callable, cpu: Callable) -> Callable:
    """(a, b) -> the operation in the form that is fastest where it runs.

    Args:
        convolution, product, cpu: (form, a, b) -> result; `cpu` is that for a CPU.
    """
    one, many, cpu = (functools.partial(f, form) for f in (convolution, product, cpu))
    if form.written != "fastest":
        one = many = cpu = {"convolution": one, "product": many}[form.written]

    @custom_vmap
    def operation(a, b):
        return lax.platform_dependent(a, b, cpu=cpu, default=one)

    @operation.def_vmap
    def of_many_models(size, batched, a, b):
        axes = tuple(0 if is_batched else None for is_batched in batched)
        on_cpu, elsewhere = (jax.vmap(f, axes, axis_size=size) for f in (cpu, many))
        return lax.platform_dependent(a, b, cpu=on_cpu, default=elsewhere), True

    return operation


# As convolutions


def down_by_convolution(form: Form, x: Fine, kernel: Kernel) -> Coarse:
    """`conv_down` as it is written in textbooks."""
    strides = (form.stride, form.stride)
    return _convolve(form, x, kernel, strides, (form.pad, form.pad))


def up_by_convolution(form: Form, y: Coarse, kernel: Kernel) -> Fine:
    """Zeros between the pixels, then a convolution with the flipped kernel."""
    low, high = form.pad
    pad = (form.side - 1 - low, form.side - 1 - high)
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    return _convolve(form, y, flipped, (1, 1), (pad, pad), lhs_dilation=(form.stride, form.stride))


def up_by_blocks(form: Form, y: Coarse, kernel: Kernel) -> Fine:
    """Without zeros: one dense convolution makes all stride^2 pixels of a block at once.

    Pixel p of the uncropped image gets y[i] kernel[p - stride i]. With p = stride b + phase, that
    is a sum over the few taps t = b - i of y[b - t] kernel[stride t + phase]: a convolution with
    `taps` pixels a side and stride^2 * fine output channels, which are the pixels of block b.
    """
    taps, stride, fine, coarse = form.taps, form.stride, *kernel.shape[2:]
    phases = kernel.reshape(taps, stride, taps, stride, fine, coarse)[::-1, :, ::-1]
    phases = phases.transpose(0, 2, 5, 1, 3, 4).reshape(taps, taps, coarse, stride**2 * fine)
    blocks = _convolve(form, y, phases, (1, 1), ((taps - 1, taps - 1),) * 2)
    return _from_blocks(form, blocks)


def kernel_gradient_by_convolution(form: Form, x: Fine, y: Coarse) -> Kernel:
    """What JAX derives: a convolution over the batch with dilated y."""
    kernel = jax.ShapeDtypeStruct((form.side, form.side, x.shape[-1], y.shape[-1]), x.dtype)
    (gradient,) = jax.linear_transpose(lambda k: down_by_convolution(form, x, k), kernel)(y)
    return gradient


def _convolve(form: Form, x, kernel, strides, pads, **dilation):
    return lax.conv_general_dilated(
        x, kernel, strides, pads, dimension_numbers=LAYOUT, precision=form.precision, **dilation
    )


# As products of matrices: [images and pixels, numbers in a patch] x [numbers in a patch, coarse]


def down_by_product(form: Form, x: Fine, kernel: Kernel) -> Coarse:
    """Patches times the kernel."""
    patches = _patches(form, x)
    batch, rows, columns, numbers = patches.shape
    y = _product(form, patches.reshape(-1, numbers), _matrix(form, kernel))
    return y.reshape(batch, rows, columns, -1)


def up_by_product(form: Form, y: Coarse, kernel: Kernel) -> Fine:
    """Each pixel times the kernel; the patches that come out are added up where they overlap."""
    batch, rows, columns, coarse = y.shape
    patches = _product(form, y.reshape(-1, coarse), _matrix(form, kernel).T)
    return _add_up(form, patches.reshape(batch, rows, columns, -1))


def kernel_gradient_by_product(form: Form, x: Fine, y: Coarse) -> Kernel:
    """Patches, transposed, times the pixels of y."""
    patches = _patches(form, x)
    coarse = y.shape[-1]
    matrix = _product(form, patches.reshape(-1, patches.shape[-1]).T, y.reshape(-1, coarse))
    taps, stride = form.taps, form.stride
    kernel = matrix.reshape(taps, taps, stride, stride, x.shape[-1], coarse).swapaxes(1, 2)
    return kernel.reshape(form.side, form.side, x.shape[-1], coarse)


def _product(form: Form, a: Array, b: Array) -> Array:
    return jnp.dot(a, b, precision=form.precision)


def _matrix(form: Form, kernel: Kernel) -> Float[Array, "number coarse"]:
    """The kernel with its pixels in the order of a patch: blocks, then pixels of a block."""
    taps, stride = form.taps, form.stride
    blocks = kernel.reshape(taps, stride, taps, stride, *kernel.shape[2:]).swapaxes(1, 2)
    return blocks.reshape(-1, kernel.shape[-1])


def _patches(form: Form, x: Fine) -> Float[Array, "batch small_height small_width number"]:
    """Under each pixel of the coarse image the fine pixels that the kernel covers."""
    batch, height, width, fine = x.shape
    stride, (low, high) = form.stride, form.pad
    x = jnp.pad(x, ((0, 0), (low, high), (low, high), (0, 0)))
    rows, columns = x.shape[1] // stride, x.shape[2] // stride
    blocks = x.reshape(batch, rows, stride, columns, stride, fine).swapaxes(2, 3)
    blocks = blocks.reshape(batch, rows, columns, stride**2 * fine)
    high, wide = height // stride, width // stride
    shifts = [(i, j) for i in range(form.taps) for j in range(form.taps)]
    return jnp.concatenate([blocks[:, i : i + high, j : j + wide] for i, j in shifts], axis=-1)


def _add_up(form: Form, patches: Float[Array, "batch rows columns number"]) -> Fine:
    """The transpose of `_patches`."""
    batch, rows, columns, _ = patches.shape
    taps = form.taps
    patches = patches.reshape(batch, rows, columns, taps, taps, -1)
    blocks = sum(
        jnp.pad(patches[:, :, :, i, j], ((0, 0), (i, taps - 1 - i), (j, taps - 1 - j), (0, 0)))
        for i in range(taps)
        for j in range(taps)
    )
    return _from_blocks(form, jnp.asarray(blocks))


def _from_blocks(form: Form, blocks: Float[Array, "batch rows columns number"]) -> Fine:
    """The image whose blocks of pixels these are, without what lies outside of it."""
    batch, rows, columns, _ = blocks.shape
    stride, (low, high) = form.stride, form.pad
    x = blocks.reshape(batch, rows, columns, stride, stride, -1).swapaxes(2, 3)
    x = x.reshape(batch, rows * stride, columns * stride, -1)
    return x[:, low : rows * stride - high, low : columns * stride - high]
