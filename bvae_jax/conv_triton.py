"""The three operations of `conv` on an NVIDIA GPU, each one kernel whatever the number of models.

A strided convolution of few channels moves more bytes than it computes. As products of patches or
of shifts it writes and reads its images four times over; here the numbers of a tile are gathered as
they are needed (an implicit product), so that each image is read and written once. `vmap` over
models adds an axis to the grid. Written with Pallas, which compiles for a GPU through Triton.

Sums are in float32, in an order that does not change from call to call. Indices are of flat
arrays; a padded tile's numbers are masked. Source: Chetlur et al. 2014 ("cuDNN: efficient
primitives for deep learning"), section 3.
"""

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array

try:
    from jax.experimental.pallas import triton
except ImportError:  # deprecated since JAX 0.11: without it, `conv` has other ways
    triton: Any = None

if TYPE_CHECKING:
    from bvae_jax.conv import Coarse, Fine, Form, Kernel

MOST_CHANNELS = 64
"""Beyond, tiles do not fit, and XLA's products are efficient."""
FEW_CHANNELS = 16
"""Below, a tile has all numbers of a patch instead of the channels of a pixel."""
LEAST = 16
"""Sides of a product are at least that, and powers of two."""
INTERPRET = False
"""Run the kernels as JAX operations, which any device can: for tests."""


@functools.cache
def here() -> bool:
    """Whether this process computes on a GPU that Triton has matrix products for (Ampere on)."""
    if jax.default_backend() != "gpu" or not hasattr(triton, "load"):  # JAX 0.7 has none
        return False
    capability = str(getattr(jax.devices()[0], "compute_capability", ""))
    return capability.replace(".", "").isdigit() and float(capability) >= 8


def takes(x: Any, coarse: int) -> bool:
    """Whether there are kernels for this fine image (or shape and type) and coarse channels."""
    small = max(x.shape[-1], coarse) <= MOST_CHANNELS and math.prod(x.shape) < 2**31  # indices
    return small and x.dtype in (jnp.float32, jnp.bfloat16)


def down(form: "Form", x: "Fine", kernel: "Kernel") -> "Coarse":
    """`conv.conv_down`: a program makes all channels of some pixels."""
    batch, height, width, fine = x.shape
    coarse, (low, _) = kernel.shape[-1], form.pad
    rows, columns = height // form.stride, width // form.stride
    pixels, tile = batch * rows * columns, 128
    numbers = form.side**2 * fine

    def down_program(x_ref: Any, kernel_ref: Any, y_ref: Any) -> None:
        pixel = pl.program_id(0) * tile + jnp.arange(tile)
        image, i, j = _digits(pixel, rows, columns)
        channel = jnp.arange(_padded(coarse))
        real = pixel < pixels

        def pixel_of_kernel(t: Array, total: Array) -> Array:
            n = jnp.arange(_padded(fine))
            r = form.stride * i + _quotient(t, form.side) - low
            c = form.stride * j + _remainder(t, form.side) - low
            inside = _within(r, height) & _within(c, width) & real
            a = _load(
                x_ref, _sum(((image * height + r) * width + c) * fine, n), _both(inside, n < fine)
            )
            b = _load(kernel_ref, _sum((t * fine + n) * coarse, channel),
                      _both(n < fine, channel < coarse))  # fmt: skip
            return total + _product(form, a, b)

        if fine < FEW_CHANNELS:
            a, n = _patches(form, x.shape, x_ref, image, i, j, real)
            b = _load(kernel_ref, _sum(n * coarse, channel), _both(n < numbers, channel < coarse))
            y = _product(form, a, b)
        else:
            zeros = jnp.zeros((tile, len(channel)), jnp.float32)
            y = lax.fori_loop(0, form.side**2, pixel_of_kernel, zeros)
        _store(y_ref, _sum(pixel * coarse, channel), y, _both(real, channel < coarse))

    y = _call(down_program, pixels * coarse, x.dtype, (pl.cdiv(pixels, tile),), 4, x, kernel)
    return y.reshape(batch, rows, columns, coarse)


def up(form: "Form", y: "Coarse", kernel: "Kernel") -> "Fine":
    """`conv.conv_up`: a program makes all pixels of some blocks of stride x stride."""
    batch, rows, columns, coarse = y.shape
    fine, taps, stride, (low, _) = kernel.shape[2], form.taps, form.stride, form.pad
    height, width = stride * rows, stride * columns
    down_blocks, right_blocks = rows + taps - 1, columns + taps - 1
    blocks, tile = batch * down_blocks * right_blocks, 128 // y.dtype.itemsize
    numbers = stride**2 * fine
    # [tap, tap, coarse, number of a block]
    by_taps = kernel.reshape(taps, stride, taps, stride, fine, coarse).transpose(0, 2, 5, 1, 3, 4)

    def up_program(y_ref: Any, kernel_ref: Any, x_ref: Any) -> None:
        block = pl.program_id(0) * tile + jnp.arange(tile)
        image, i, j = _digits(block, down_blocks, right_blocks)
        number, n = jnp.arange(_padded(numbers)), jnp.arange(_padded(coarse))

        def tap(t: Array, total: Array) -> Array:
            r, c = i - _quotient(t, taps), j - _remainder(t, taps)
            inside = _within(r, rows) & _within(c, columns) & (block < blocks)
            a = _load(y_ref, _sum(((image * rows + r) * columns + c) * coarse, n),
                      _both(inside, n < coarse))  # fmt: skip
            b = _load(kernel_ref, _sum((t * coarse + n) * numbers, number),
                      _both(n < coarse, number < numbers))  # fmt: skip
            return total + _product(form, a, b)

        zeros = jnp.zeros((tile, len(number)), jnp.float32)
        x = lax.fori_loop(0, taps**2, tap, zeros)
        p, q, channel = _digits(number, stride, fine)
        r, c = _sum(stride * i - low, p), _sum(stride * j - low, q)
        inside = _within(r, height) & _within(c, width) & _both(block < blocks, number < numbers)
        _store(x_ref, ((image[:, None] * height + r) * width + c) * fine + channel[None], x, inside)

    size = batch * height * width * fine
    x = _call(up_program, size, y.dtype, (pl.cdiv(blocks, tile),), 4, y, by_taps)
    return x.reshape(batch, height, width, fine)


def kernel_gradient(form: "Form", x: "Fine", y: "Coarse", models: int = 1) -> "Kernel":
    """`conv`'s gradient of the kernel: programs sum over parts of the pixels.

    Args:
        models: at the same time.
    """
    few = x.shape[-1] < FEW_CHANNELS
    gradient = _gradient_of_few if few else _gradient_by_taps
    return gradient(form, x, y, models).astype(x.dtype)


def _parts(tiles: int, programs: int) -> int:
    """How many parts of the pixels, each a sum that is written, read and added to the others.

    Args:
        tiles: there are, at least one for a part.
        programs: for each part, of all models: the fewer, the more parts fill the device.
    """
    return min(tiles, max(16, 256 // programs))


def _gradient_of_few(form: "Form", x: "Fine", y: "Coarse", models: int) -> "Kernel":
    """Patches, transposed, times the pixels of y."""
    batch, rows, columns, coarse = y.shape
    fine, pixels, tile = x.shape[-1], batch * rows * columns, 128
    numbers = form.side**2 * fine
    tiles = pl.cdiv(pixels, tile)
    parts = _parts(tiles, models)
    turns = pl.cdiv(tiles, parts)
    shape = (_padded(numbers), _padded(coarse))

    def gradient_of_few_program(x_ref: Any, y_ref: Any, sum_ref: Any) -> None:
        part, channel = pl.program_id(0), jnp.arange(shape[1])

        def turn(k: Array, total: Array) -> Array:
            pixel = (part * turns + k) * tile + jnp.arange(tile)
            image, i, j = _digits(pixel, rows, columns)
            a, _ = _patches(form, x.shape, x_ref, image, i, j, pixel < pixels)
            b = _load(y_ref, _sum(pixel * coarse, channel),
                      _both(pixel < pixels, channel < coarse))  # fmt: skip
            return total + _product(form, a.T, b)

        total = lax.fori_loop(0, turns, turn, jnp.zeros(shape, jnp.float32))
        _store_whole(sum_ref, part, total)

    sums = _call(gradient_of_few_program, parts * math.prod(shape), jnp.float32, (parts,), 4, x, y)
    total = sums.reshape(parts, *shape).sum(axis=0)[:numbers, :coarse]
    return total.reshape(form.side, form.side, fine, coarse)


def _gradient_by_taps(form: "Form", x: "Fine", y: "Coarse", models: int) -> "Kernel":
    """Blocks of x, transposed, times the pixels of y that reach them: of all taps, or of one."""
    batch, height, width, fine = x.shape
    _, rows, columns, coarse = y.shape
    taps, stride, (low, _) = form.taps, form.stride, form.pad
    down_blocks, right_blocks = rows + taps - 1, columns + taps - 1
    blocks, tile = batch * down_blocks * right_blocks, 32
    some = taps**2 if (stride * taps) ** 2 * fine * coarse <= 128**2 else 1  # taps in a program
    groups, tiles = taps**2 // some, pl.cdiv(blocks, tile)
    parts = _parts(tiles, models * groups)
    turns = pl.cdiv(tiles, parts)
    sides = stride**2, _padded(fine), some, _padded(coarse)
    shape = sides[0] * sides[1], sides[2] * sides[3]

    def gradient_by_taps_program(x_ref: Any, y_ref: Any, sum_ref: Any) -> None:
        part, group = pl.program_id(0), pl.program_id(1)
        phase, n, channel = (jnp.arange(side) for side in (sides[0], sides[1], sides[3]))
        tap = group * some + jnp.arange(some)

        def turn(k: Array, total: Array) -> Array:
            block = (part * turns + k) * tile + jnp.arange(tile)
            image, i, j = _digits(block, down_blocks, right_blocks)
            image, real = image[:, None], (block < blocks)[:, None]
            r = _sum(stride * i - low, _quotient(phase, stride))
            c = _sum(stride * j - low, _remainder(phase, stride))
            at = ((image * height + r) * width + c) * fine
            a = _load(x_ref, _sum(at, n), _both(
                _within(r, height) & _within(c, width) & real, n < fine))  # fmt: skip
            r, c = _sum(i, -_quotient(tap, taps)), _sum(j, -_remainder(tap, taps))
            at = ((image * rows + r) * columns + c) * coarse
            b = _load(y_ref, _sum(at, channel), _both(
                _within(r, rows) & _within(c, columns) & real, channel < coarse))  # fmt: skip
            return total + _product(form, a.reshape(tile, -1).T, b.reshape(tile, -1))

        total = lax.fori_loop(0, turns, turn, jnp.zeros(shape, jnp.float32))
        _store_whole(sum_ref, part * groups + group, total)

    warps = 4 if some > 1 and x.dtype.itemsize == 4 else 8
    size = parts * groups * math.prod(shape)
    sums = _call(gradient_by_taps_program, size, jnp.float32, (parts, groups), warps, x, y)
    total = sums.reshape(parts, groups, stride, stride, sides[1], some, sides[3]).sum(axis=0)
    total = total[..., :fine, :, :coarse].transpose(0, 4, 1, 2, 3, 5)  # groups and taps first
    total = total.reshape(taps, taps, stride, stride, fine, coarse).swapaxes(1, 2)
    return total.reshape(form.side, form.side, fine, coarse)


def _patches(
    form: "Form", shape: tuple[int, ...], x_ref: Any, image: Array, i: Array, j: Array, real: Array
) -> tuple[Array, Array]:
    """(those under the pixels [i, j] of y, the numbers of a patch, padded)."""
    _, height, width, fine = shape
    n = jnp.arange(_padded(form.side**2 * fine))
    p, q, channel = _digits(n, form.side, fine)
    r = _sum(form.stride * i - form.pad[0], p)
    c = _sum(form.stride * j - form.pad[0], q)
    inside = _within(r, height) & _within(c, width) & _both(real, n < form.side**2 * fine)
    at = ((image[:, None] * height + r) * width + c) * fine + channel[None]
    return _load(x_ref, at, inside), n


def _call(
    program: Callable[..., None], size: int, dtype: Any, grid: tuple[int, ...], warps: int,
    *arrays: Array,
) -> Array:  # fmt: skip
    """Run the programs of a grid on flat arrays; they write `size` numbers."""
    return pl.pallas_call(
        program,
        out_shape=jax.ShapeDtypeStruct((size,), dtype),
        grid=grid,
        compiler_params=triton.CompilerParams(num_warps=warps, num_stages=3),
        interpret=INTERPRET,
    )(*(array.reshape(-1) for array in arrays))


def _product(form: "Form", a: Array, b: Array) -> Array:
    precision: Any = lax.Precision.DEFAULT
    if INTERPRET:
        precision = lax.Precision.HIGHEST
    elif a.dtype == jnp.float32:
        preset = lax.DotAlgorithmPreset
        tf32 = form.precision == "tensorfloat32"
        precision = preset.TF32_TF32_F32 if tf32 else preset.TF32_TF32_F32_X3
    sides = (((1,), (0,)), ((), ()))
    return lax.dot_general(a, b, sides, precision=precision, preferred_element_type=jnp.float32)


def _load(ref: Any, at: Array, mask: Array) -> Array:
    return triton.load(ref.at[at], mask=jnp.broadcast_to(mask, at.shape), other=0.0)


def _store(ref: Any, at: Array, values: Array, mask: Array) -> None:
    if INTERPRET:  # which writes old values where the mask is False
        at = jnp.where(mask, at, ref.shape[0])
    triton.store(ref.at[at], values.astype(ref.dtype), mask=mask)


def _store_whole(ref: Any, which: Array, values: Array) -> None:
    """A matrix that is the `which`-th of `ref`."""
    rows, columns = values.shape
    at = _sum((which * rows + jnp.arange(rows)) * columns, jnp.arange(columns))
    triton.store(ref.at[at], values)


def _padded(n: int) -> int:
    return max(LEAST, 1 << (n - 1).bit_length())


def _sum(a: Array, b: Array) -> Array:
    """[..., 1] + [1, ..., m]."""
    return a[..., None] + jnp.expand_dims(b, tuple(range(a.ndim)))


def _both(a: Array, b: Array) -> Array:
    return a[..., None] & jnp.expand_dims(b, tuple(range(a.ndim)))


def _within(i: Array, side: int) -> Array:
    return (i >= 0) & (i < side)


def _quotient(n: Array, by: int) -> Array:
    """Of numbers that are not negative: `//` would look at signs."""
    return lax.div(n, jnp.full_like(n, by))


def _remainder(n: Array, by: int) -> Array:
    return lax.rem(n, jnp.full_like(n, by))


def _digits(n: Array, *sides: int) -> tuple[Array, Array, Array]:
    """(n over both sides, digit of the first, digit of the second)."""
    first, second = sides
    rest = _quotient(n, second)
    return _quotient(rest, first), _remainder(rest, first), _remainder(n, second)
