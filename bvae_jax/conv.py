"""A strided convolution and its transpose, fast on every platform, for one model or many at once.

Both are written as XLA's convolution, as matrix products, and as kernels. Which is faster
depends on the platform, the channels and whether `vmap` runs over models:

- On a CPU, XLA is several times slower with few channels, and on a convolution whose input is
  dilated, which the transposed one is. With few channels there are products there; otherwise the
  transposed one is a dense convolution that makes all pixels of a block at once.
- On an NVIDIA GPU convolutions of few channels move more bytes than they compute: `conv_triton` has
  kernels that read and write each image once.
- On another accelerator one model's convolutions have library kernels, and are left to them. Those
  of many models, each with a kernel of its own, would become grouped convolutions, which hardly
  fill a device: there they are batched matrix products.

A convolution is linear in the image and in the kernel, so three operations are closed under
differentiation, to any order: down, up (its transpose in the image) and the kernel's gradient (its
transpose in the kernel). Layout: images NHWC, kernels HWIO in the orientation of `conv_down` for
all. Sources: Dumoulin & Visin 2016 ("A guide to convolution arithmetic"), sections 2.4 and 4.5.
"""

import contextvars
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float

Kernel = Float[Array, "side side fine coarse"]
Fine = Float[Array, "batch height width fine"]
Coarse = Float[Array, "batch small_height small_width coarse"]
Pixels = Float[Array, "_ _ _ _"]
"""[batch, rows, columns, numbers]."""

LAYOUT = ("NHWC", "HWIO", "NHWC")
FEW_CHANNELS = 4
"""Fine channels up to which products beat XLA's convolutions on a CPU (measured: 1 and 3)."""
T = TypeVar("T")
Written = Literal["fastest", "convolution", "patches", "shifts", "triton"]
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
    forms = Forms(down_by_convolution, down_by_patches, down_by_shifts, down_by_triton)
    cpu = forms.patches if kernel.shape[2] <= FEW_CHANNELS else forms.convolution
    return _chosen(form, x, kernel.shape[3], forms, cpu)(x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _up(form: Form, y: Coarse, kernel: Kernel) -> Fine:
    forms = Forms(up_by_convolution, up_by_patches, up_by_shifts, up_by_triton)
    cpu = forms.patches if kernel.shape[2] <= FEW_CHANNELS else up_by_blocks
    return _chosen(form, _fine(form, y, kernel), kernel.shape[3], forms, cpu)(y, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _kernel_gradient(form: Form, x: Fine, y: Coarse) -> Kernel:
    """sum over the batch of the products of x[stride i + k - pad] and y[i]."""
    forms = Forms(
        kernel_gradient_by_convolution,
        kernel_gradient_by_patches,
        kernel_gradient_by_shifts,
        kernel_gradient_by_triton,
    )
    cpu = forms.patches if x.shape[-1] <= FEW_CHANNELS else forms.convolution
    return _chosen(form, x, y.shape[-1], forms, cpu)(x, y)


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


class Forms(NamedTuple):
    """Four ways of one operation, each (form, a, b, models=how many at the same time) -> result."""

    convolution: Callable
    patches: Callable
    shifts: Callable
    triton: Callable


def _fine(form: Form, y: Coarse, kernel: Kernel) -> jax.ShapeDtypeStruct:
    """The image that `conv_up` makes."""
    batch, rows, columns, _ = y.shape
    sides = form.stride * rows, form.stride * columns
    return jax.ShapeDtypeStruct((batch, *sides, kernel.shape[2]), y.dtype)


def _chosen(form: Form, x: Any, coarse: int, forms: Forms, cpu: Callable) -> Callable:
    """(a, b) -> the operation in the form that is fastest where it runs.

    Args:
        x: the fine image, or its shape and type.
        coarse: channels of the other one.
        forms: to choose from, but on a CPU.
        cpu: that for a CPU.
    """
    if form.written != "fastest":
        one = many = cpu = getattr(forms, form.written)
    elif _has_kernels(x, coarse):
        one = many = forms.triton
    else:
        one = forms.convolution
        many = forms.patches if form.stride**2 * x.shape[-1] < coarse else forms.shifts

    @custom_vmap
    def operation(a, b):
        on_cpu, elsewhere = (functools.partial(way, form, models=1) for way in (cpu, one))
        return lax.platform_dependent(a, b, cpu=on_cpu, default=elsewhere)

    @operation.def_vmap
    def of_many_models(size, batched, a, b):
        axes = tuple(0 if is_batched else None for is_batched in batched)
        ways = (functools.partial(way, form, models=size) for way in (cpu, many))
        on_cpu, elsewhere = (jax.vmap(way, axes, axis_size=size) for way in ways)
        return lax.platform_dependent(a, b, cpu=on_cpu, default=elsewhere), True

    return operation


_general: contextvars.ContextVar[bool] = contextvars.ContextVar("general", default=False)


def without_kernels(function: Callable[..., T]) -> Callable[..., T]:
    """`function`, traced without the kernels of `conv_triton`, which are of one GPU.

    For batches whose images lie on several devices, each of which would do all of the work, and
    for programs that run elsewhere.
    """

    @functools.wraps(function)
    def general(*arguments: Any) -> T:
        token = _general.set(True)
        try:
            return function(*arguments)
        finally:
            _general.reset(token)

    return general


def _has_kernels(x: Any, coarse: int) -> bool:
    """Whether this process's device has kernels of `conv_triton` for this."""
    if jax.default_backend() != "gpu" or _general.get():
        return False
    from bvae_jax import conv_triton  # a third of a second, which only a GPU waits for

    return conv_triton.here() and conv_triton.takes(x, coarse)


# As convolutions


def down_by_convolution(form: Form, x: Fine, kernel: Kernel, **_: int) -> Coarse:
    """`conv_down` as it is written in textbooks."""
    strides = (form.stride, form.stride)
    return _convolve(form, x, kernel, strides, (form.pad, form.pad))


def up_by_convolution(form: Form, y: Coarse, kernel: Kernel, **_: int) -> Fine:
    """Zeros between the pixels, then a convolution with the flipped kernel."""
    low, high = form.pad
    pad = (form.side - 1 - low, form.side - 1 - high)
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    return _convolve(form, y, flipped, (1, 1), (pad, pad), lhs_dilation=(form.stride, form.stride))


def up_by_blocks(form: Form, y: Coarse, kernel: Kernel, **_: int) -> Fine:
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


def kernel_gradient_by_convolution(form: Form, x: Fine, y: Coarse, **_: int) -> Kernel:
    """What JAX derives: a convolution over the batch with dilated y."""
    kernel = jax.ShapeDtypeStruct((form.side, form.side, x.shape[-1], y.shape[-1]), x.dtype)
    (gradient,) = jax.linear_transpose(lambda k: down_by_convolution(form, x, k), kernel)(y)
    return gradient


def _convolve(form: Form, x, kernel, strides, pads, **dilation):
    return lax.conv_general_dilated(
        x, kernel, strides, pads, dimension_numbers=LAYOUT, precision=form.precision, **dilation
    )


# As kernels for a GPU


def down_by_triton(form: Form, x: Fine, kernel: Kernel, **_: int) -> Coarse:
    from bvae_jax import conv_triton

    return conv_triton.down(form, x, kernel)


def up_by_triton(form: Form, y: Coarse, kernel: Kernel, **_: int) -> Fine:
    from bvae_jax import conv_triton

    return conv_triton.up(form, y, kernel)


def kernel_gradient_by_triton(form: Form, x: Fine, y: Coarse, *, models: int) -> Kernel:
    from bvae_jax import conv_triton

    return conv_triton.kernel_gradient(form, x, y, models)


# As products of matrices. Blocks are stride x stride pixels of the zero-padded fine image; a pixel
# of the coarse one covers taps x taps of them. Either side can be spread over its counterparts:
# with few fine channels that costs least there (patches), otherwise on the coarse side (shifts).


def down_by_patches(form: Form, x: Fine, kernel: Kernel, **_: int) -> Coarse:
    """Patches times the kernel."""
    return _product(form, _patches(form, x), _matrix(form, kernel))


def up_by_patches(form: Form, y: Coarse, kernel: Kernel, **_: int) -> Fine:
    """Each pixel times the kernel; the patches that come out are added up where they overlap."""
    return _from_blocks(form, _unpatched(form, _product(form, y, _matrix(form, kernel).T)))


def kernel_gradient_by_patches(form: Form, x: Fine, y: Coarse, **_: int) -> Kernel:
    """Patches, transposed, times the pixels of y."""
    matrix = _product_over_pixels(form, _patches(form, x), y)
    return _kernel(form, matrix.reshape(form.taps, form.taps, -1, y.shape[-1]))


def down_by_shifts(form: Form, x: Fine, kernel: Kernel, **_: int) -> Coarse:
    """Each block times each tap of the kernel; the products are added up where they belong."""
    return _gathered(form, _product(form, _blocks(form, x), _taps_side_by_side(form, kernel)))


def up_by_shifts(form: Form, y: Coarse, kernel: Kernel, **_: int) -> Fine:
    """Over each block the pixels of y that reach it, times their taps of the kernel."""
    taps = _taps_side_by_side(form, kernel)
    return _from_blocks(form, _product(form, _spread(form, y), taps.T))


def kernel_gradient_by_shifts(form: Form, x: Fine, y: Coarse, **_: int) -> Kernel:
    """Blocks, transposed, times the pixels of y that reach them."""
    matrix = _product_over_pixels(form, _blocks(form, x), _spread(form, y))
    matrix = matrix.reshape(-1, form.taps, form.taps, y.shape[-1])
    return _kernel(form, matrix.transpose(1, 2, 0, 3))


def _product(form: Form, a: Pixels, matrix: Array) -> Pixels:
    """[batch, rows, columns, m] x [m, n]."""
    y = jnp.dot(a.reshape(-1, a.shape[-1]), matrix, precision=form.precision)
    return y.reshape(*a.shape[:-1], -1)


def _product_over_pixels(form: Form, a: Pixels, b: Pixels) -> Float[Array, "m n"]:
    """sum over batch, rows and columns of the products of a's m and b's n numbers."""
    a, b = (c.reshape(-1, c.shape[-1]) for c in (a, b))
    return jnp.dot(a.T, b, precision=form.precision)


def _taps(form: Form, kernel: Kernel) -> Float[Array, "tap tap number coarse"]:
    """The kernel by taps; the numbers of each are in the order of a block's."""
    taps, stride, fine, coarse = form.taps, form.stride, *kernel.shape[2:]
    blocks = kernel.reshape(taps, stride, taps, stride, fine, coarse).swapaxes(1, 2)
    return blocks.reshape(taps, taps, -1, coarse)


def _kernel(form: Form, taps: Float[Array, "tap tap number coarse"]) -> Kernel:
    """The inverse of `_taps`."""
    stride, coarse = form.stride, taps.shape[-1]
    kernel = taps.reshape(form.taps, form.taps, stride, stride, -1, coarse).swapaxes(1, 2)
    return kernel.reshape(form.side, form.side, -1, coarse)


def _matrix(form: Form, kernel: Kernel) -> Float[Array, "number coarse"]:
    """The taps below each other, in the order of a patch."""
    return _taps(form, kernel).reshape(-1, kernel.shape[-1])


def _taps_side_by_side(form: Form, kernel: Kernel) -> Float[Array, "number taps_coarse"]:
    """The taps in the order of what `_spread` puts over a block."""
    taps = _taps(form, kernel).transpose(2, 0, 1, 3)
    return taps.reshape(len(taps), -1)


def _blocks(form: Form, x: Fine) -> Pixels:
    """[batch, rows, columns, stride^2 fine]: the padded image by blocks of pixels."""
    batch, _, _, fine = x.shape
    stride = form.stride
    x = jnp.pad(x, ((0, 0), form.pad, form.pad, (0, 0)))
    rows, columns = x.shape[1] // stride, x.shape[2] // stride
    blocks = x.reshape(batch, rows, stride, columns, stride, fine).swapaxes(2, 3)
    return blocks.reshape(batch, rows, columns, stride**2 * fine)


def _from_blocks(form: Form, blocks: Pixels) -> Fine:
    """The transpose of `_blocks`: the image without what lies outside of it."""
    batch, rows, columns, _ = blocks.shape
    stride, (low, high) = form.stride, form.pad
    x = blocks.reshape(batch, rows, columns, stride, stride, -1).swapaxes(2, 3)
    x = x.reshape(batch, rows * stride, columns * stride, -1)
    return x[:, low : rows * stride - high, low : columns * stride - high]


def _patches(form: Form, x: Fine) -> Pixels:
    """[batch, small_height, small_width, taps^2 stride^2 fine]: the blocks under each pixel."""
    blocks = _blocks(form, x)
    rows, columns = (side // form.stride for side in x.shape[1:3])
    shifted = [blocks[:, i : i + rows, j : j + columns] for i, j in _shifts(form)]
    return jnp.concatenate(shifted, axis=-1)


def _unpatched(form: Form, patches: Pixels) -> Pixels:
    """The transpose of taking patches of blocks: they are added up where they overlap."""
    taps, last = _apart(form, patches), form.taps - 1
    return jnp.asarray(sum(
        jnp.pad(taps[:, :, :, i, j], ((0, 0), (i, last - i), (j, last - j), (0, 0)))
        for i, j in _shifts(form)
    ))  # fmt: skip


def _spread(form: Form, y: Coarse) -> Pixels:
    """[batch, rows, columns, taps^2 coarse]: the pixels that reach each block, zeros outside."""
    last = form.taps - 1
    shifted = [jnp.pad(y, ((0, 0), (i, last - i), (j, last - j), (0, 0))) for i, j in _shifts(form)]
    return jnp.concatenate(shifted, axis=-1)


def _gathered(form: Form, spread: Pixels) -> Coarse:
    """The transpose of `_spread`."""
    taps, last = _apart(form, spread), form.taps - 1
    rows, columns = (side - last for side in spread.shape[1:3])
    return jnp.asarray(sum(
        taps[:, i : i + rows, j : j + columns, i, j] for i, j in _shifts(form)
    ))  # fmt: skip


def _apart(form: Form, numbers: Pixels) -> Float[Array, "batch row column tap tap number"]:
    """The numbers of a pixel or block, tap by tap."""
    return numbers.reshape(*numbers.shape[:-1], form.taps, form.taps, -1)


def _shifts(form: Form) -> list[tuple[int, int]]:
    return [(i, j) for i in range(form.taps) for j in range(form.taps)]
