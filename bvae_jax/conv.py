"""A strided convolution and its transpose, fast on every platform.

XLA's CPU backend is several times slower on the gradient of a strided convolution with respect to
its input (and on a transposed convolution, which is that same operation) than on the convolution.
There it is computed as a dense convolution with stride 1 and a depth-to-space shuffle. On
accelerators it is the dilated convolution that their libraries have kernels for.

The two operations are each other's transpose in their first argument and share the gradient with
respect to the kernel, so each one's derivative is written with the other. Layout: images NHWC,
kernels HWIO in the orientation of the downward convolution for both.
"""

import functools

import jax
from jax import lax
from jaxtyping import Array, Float

Kernel = Float[Array, "side side fine coarse"]
Fine = Float[Array, "batch height width fine"]
Coarse = Float[Array, "batch small_height small_width coarse"]

LAYOUT = ("NHWC", "HWIO", "NHWC")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv_down(x: Fine, kernel: Kernel, stride: int) -> Coarse:
    """Convolution that divides the image's sides by `stride`, with "SAME" padding.

        y[i] = sum_k x[stride i + k - pad] kernel[k],    pad = (side - stride) / 2

    Args:
        x: [batch, height, width, fine]; height and width are multiples of `stride`.
        kernel: [side, side, fine, coarse]; side is a multiple of `stride`.
        stride: a static integer.

    Returns:
        [batch, height / stride, width / stride, coarse].
    """
    pad = _padding(kernel, stride)
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), (pad, pad), dimension_numbers=LAYOUT
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv_up(y: Coarse, kernel: Kernel, stride: int) -> Fine:
    """Transposed convolution: multiplies the image's sides by `stride`.

    It is the transpose of `conv_down` as a linear map of the image, with the same kernel.

    Args:
        y: [batch, height, width, coarse].
        kernel: [side, side, fine, coarse]; side is a multiple of `stride`.
        stride: a static integer.

    Returns:
        [batch, stride height, stride width, fine].
    """
    shuffle = functools.partial(_up_by_shuffle, stride=stride)
    dilation = functools.partial(_up_by_dilation, stride=stride)
    return lax.platform_dependent(y, kernel, cpu=shuffle, default=dilation)


def _up_by_dilation(y: Coarse, kernel: Kernel, *, stride: int) -> Fine:
    """The textbook form: zeros between the pixels, then a convolution with the flipped kernel."""
    low, high = _padding(kernel, stride)
    side = kernel.shape[0]
    pad = (side - 1 - low, side - 1 - high)
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    return lax.conv_general_dilated(
        y, flipped, (1, 1), (pad, pad), lhs_dilation=(stride, stride), dimension_numbers=LAYOUT
    )


def _up_by_shuffle(y: Coarse, kernel: Kernel, *, stride: int) -> Fine:
    """The same numbers without zeros: one dense convolution makes all stride^2 phases at once.

    Output pixel p of the uncropped image gets y[i] kernel[p - stride i]. With
    p = stride b + phase, that is a sum over the few taps t = b - i of
    y[b - t] kernel[stride t + phase]: a convolution with `taps` pixels a side, stride 1 and
    stride^2 * fine output channels, which depth-to-space turns into the image.
    """
    side, _, fine, coarse = kernel.shape
    taps = side // stride
    phases = kernel.reshape(taps, stride, taps, stride, fine, coarse)[::-1, :, ::-1]
    phases = phases.transpose(0, 2, 5, 1, 3, 4).reshape(taps, taps, coarse, stride**2 * fine)
    pad = (taps - 1, taps - 1)
    out = lax.conv_general_dilated(y, phases, (1, 1), (pad, pad), dimension_numbers=LAYOUT)
    batch, rows, columns, _ = out.shape
    out = out.reshape(batch, rows, columns, stride, stride, fine).swapaxes(2, 3)
    out = out.reshape(batch, rows * stride, columns * stride, fine)
    low, high = _padding(kernel, stride)
    return out[:, low : rows * stride - high, low : columns * stride - high]


def _padding(kernel: Kernel, stride: int) -> tuple[int, int]:
    total = kernel.shape[0] - stride
    return total // 2, total - total // 2


def _kernel_gradient(x: Fine, y: Coarse, kernel: Kernel, stride: int) -> Kernel:
    pad = _padding(kernel, stride)

    def conv(kernel: Kernel) -> Coarse:
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), (pad, pad), dimension_numbers=LAYOUT
        )

    (gradient,) = jax.linear_transpose(conv, kernel)(y)
    return gradient


def _conv_down_forward(x, kernel, stride):
    return conv_down(x, kernel, stride), (x, kernel)


def _conv_down_backward(stride, residuals, dy):
    x, kernel = residuals
    return conv_up(dy, kernel, stride), _kernel_gradient(x, dy, kernel, stride)


def _conv_up_forward(y, kernel, stride):
    return conv_up(y, kernel, stride), (y, kernel)


def _conv_up_backward(stride, residuals, dx):
    y, kernel = residuals
    return conv_down(dx, kernel, stride), _kernel_gradient(dx, y, kernel, stride)


conv_down.defvjp(_conv_down_forward, _conv_down_backward)
conv_up.defvjp(_conv_up_forward, _conv_up_backward)
