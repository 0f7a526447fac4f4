"""The strided convolution against JAX's own, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import float64
from jax import lax

from bvae_jax import conv

STRIDE = 2
CASES = [(4, 1, 3), (4, 5, 2), (2, 3, 4)]  # side of the kernel, fine and coarse channels


def reference_down(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (STRIDE, STRIDE), "SAME", dimension_numbers=conv.LAYOUT
    )


def reference_up(y, kernel):
    return lax.conv_transpose(
        y, kernel, (STRIDE, STRIDE), "SAME", dimension_numbers=conv.LAYOUT, transpose_kernel=True
    )


def arrays(side, fine, coarse):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, 8, 12, fine), jnp.float64)
    y = jax.random.normal(keys[1], (2, 4, 6, coarse), jnp.float64)
    return x, y, jax.random.normal(keys[2], (side, side, fine, coarse), jnp.float64)


def cases(down):
    ours = conv.conv_down if down else conv.conv_up
    return functools.partial(lambda f, a, k: f(a, k, STRIDE), ours), (
        reference_down if down else reference_up
    )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("down", [True, False])
def test_values_and_gradients(case, down):
    with float64():
        x, y, kernel = arrays(*case)
        source, target = (x, y) if down else (y, x)
        ours, reference = cases(down)
        got, pull = jax.vjp(ours, source, kernel)
        wanted, reference_pull = jax.vjp(reference, source, kernel)
        assert got.shape == target.shape
        np.testing.assert_allclose(got, wanted, atol=1e-12)
        for a, b in zip(pull(target), reference_pull(target), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_all_forms_agree(case):
    with float64():
        x, y, kernel = arrays(*case)
        form = conv.Form(kernel.shape[0], STRIDE)
        for name, a, b in (("down", x, kernel), ("up", y, kernel), ("kernel_gradient", x, y)):
            wanted = getattr(conv, f"{name}_by_convolution")(form, a, b)
            for way in ("patches", "shifts"):
                got = getattr(conv, f"{name}_by_{way}")(form, a, b)
                np.testing.assert_allclose(got, wanted, atol=1e-12)
        blocks = conv.up_by_blocks(form, y, kernel)
        np.testing.assert_allclose(blocks, conv.up_by_patches(form, y, kernel), atol=1e-12)


@pytest.mark.once
@pytest.mark.parametrize("case", [(4, 1, 3), (2, 16, 20), (4, 32, 40)])  # the last: tap by tap
def test_kernels_of_a_gpu(case, monkeypatch):
    """Run as JAX operations, in float32."""
    kernels = pytest.importorskip("bvae_jax.conv_triton")
    if not hasattr(kernels.triton, "load"):
        pytest.skip("this JAX has no Triton for Pallas")
    monkeypatch.setattr(kernels, "INTERPRET", True)
    with float64():
        x, y, kernel = (array.astype(jnp.float32) for array in arrays(*case))
    form = conv.Form(kernel.shape[0], STRIDE, "float32")
    for name, a, b in (("down", x, kernel), ("up", y, kernel), ("kernel_gradient", x, y)):
        got = getattr(kernels, name)(form, a, b)
        wanted = getattr(conv, f"{name}_by_convolution")(form, a, b)
        np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-4)
    monkeypatch.setattr(kernels, "_parts", lambda tiles, programs: 2)  # several tiles in a part
    parted = kernels.kernel_gradient(form, x, y)
    np.testing.assert_allclose(parted, got, rtol=2e-5, atol=2e-4)


def test_a_part_of_a_gradient_has_a_tile_at_least():
    kernels = pytest.importorskip("bvae_jax.conv_triton")
    assert [kernels._parts(50, n) for n in (1, 4, 8, 64)] == [50, 50, 32, 16]
    assert [kernels._parts(tiles, 1) for tiles in (1, 300)] == [1, 256]


def test_kernels_are_for_batches_on_one_gpu(monkeypatch):
    kernels = pytest.importorskip("bvae_jax.conv_triton")
    monkeypatch.setattr(kernels, "here", lambda: True)
    x = jax.ShapeDtypeStruct((2, 8, 8, 32), jnp.float32)
    others = [
        ((2, 8, 8, 32), jnp.float64),
        ((2, 8, 8, 65), jnp.float32),
        ((2**26, 8, 8, 1), x.dtype),
    ]
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert not conv._has_kernels(x, 32)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert conv._has_kernels(x, 32)
    assert not conv.without_kernels(conv._has_kernels)(x, 32)
    for shape, dtype in others:
        assert not conv._has_kernels(jax.ShapeDtypeStruct(shape, dtype), 32)
    assert not conv._has_kernels(x, 128)


@pytest.mark.parametrize("wanted", ["convolution", "patches", "shifts"])
def test_a_form_can_be_asked_for(wanted):
    with float64():
        x, _, kernel = arrays(4, 5, 2)
        down = functools.partial(conv.conv_down, stride=STRIDE, written=wanted)
        text = jax.jit(down).lower(x, kernel).as_text()
        assert ("stablehlo.convolution" in text) == (wanted == "convolution")
        assert ("stablehlo.dot_general" in text) == (wanted != "convolution")


@pytest.mark.parametrize("down", [True, False])
def test_second_order(down):
    """A Hessian-vector product: reverse over reverse."""
    with float64():
        x, y, kernel = arrays(4, 2, 3)
        source = x if down else y

        def hessian_vector(f):
            def loss(source, kernel):
                return jnp.sum(jnp.sin(f(source, kernel)))

            def inner(source, kernel):
                gradients = jax.grad(loss, argnums=(0, 1))(source, kernel)
                return sum(jnp.vdot(g, jnp.cos(g)) for g in gradients)

            return jax.grad(inner, argnums=(0, 1))(source, kernel)

        ours, reference = cases(down)
        for a, b in zip(hessian_vector(ours), hessian_vector(reference), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-9)


@pytest.mark.parametrize("down", [True, False])
def test_vmap_over_models(down):
    with float64():
        x, y, kernel = arrays(4, 2, 3)
        source = x if down else y
        kernels = jnp.stack([kernel, 2 * kernel, -kernel])
        ours, _ = cases(down)

        @jax.jit
        def gradient(kernel):
            return jax.grad(lambda k: jnp.sum(ours(source, k) ** 2))(kernel)

        together = jax.jit(jax.vmap(gradient))(kernels)
        for got, kernel in zip(together, kernels, strict=True):
            np.testing.assert_allclose(got, gradient(kernel), atol=1e-10)


@pytest.mark.parametrize("down", [True, False])
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_vmap_over_either_argument(down, axes):
    with float64():
        x, y, kernel = arrays(4, 2, 3)
        ours, reference = cases(down)
        given = [
            jnp.stack([a, 2 * a, -a]) if axis == 0 else a
            for a, axis in zip((x if down else y, kernel), axes, strict=True)
        ]
        got, wanted = (jax.vmap(f, axes)(*given) for f in (ours, reference))
        np.testing.assert_allclose(got, wanted, atol=1e-12)
