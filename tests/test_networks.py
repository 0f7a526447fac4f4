"""Laws that every registered network obeys, and the published ones against NumPy."""

import functools
import itertools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close

from bvae_jax.errors import UserError
from bvae_jax.networks import NETWORKS, make_network
from bvae_jax.networks import layers as made_of

LATENTS = 3
SMALL = (13, 22, 2)  # sides 13, 7, 4, 2, 1 and 22, 11, 6, 3, 2: odd and even at every level
SHAPES = [(1, 3, 1), (28, 28, 1), (32, 48, 3), (45, 37, 2), (100, 128, 3)]
EXPECTED_PARAMETERS = {
    # (latents, image, parameters). conv: 544 + 16,416 + 32,832 + 65,600 (convolutions), 262,400
    # (hidden), 5,140 (head), and the decoder's 2,816 + 263,168 + 65,600 + 32,800 + 16,416 + 513.
    "conv": (10, (64, 64, 1), 764_245),
    # As conv, but 8,256 + 16,448 for the third and fourth convolutions.
    "locatello": (10, (64, 64, 1), 690_517),
    # 544 + 3 * 16,416, 131,328 + 65,792 (hidden), 5,140 (head), and the decoder's
    # 2,816 + 65,792 + 131,584 + 3 * 16,416 + 513.
    "burgess": (10, (64, 64, 1), 502_005),
    # 1,568 + 32,832 + 131,200 + 524,544 + 2,097,664, 2 * 1,048,704 (head), and the decoder's
    # 1,056,768 + 2,097,408 + 524,416 + 131,136 + 32,800 + 1,539.
    "conv128": (128, (128, 128, 3), 8_729_283),
    # 4,916,400 + 1,441,200 + 24,020 and 13,200 + 2 * 1,441,200 + 4,919,296.
    "mlp": (10, (64, 64, 1), 14_196_516),
    # 1,088 + 3 * 65,600, 262,400 (hidden), 5,140 (head), and the decoder's 6,976 + 36,928 + 577.
    "spatial_broadcast": (10, (64, 64, 1), 509_909),
    # 136 + 2,064 + 8,224 + 16,416, 131,328 (hidden), 5,140 (head), and the decoder's
    # 1,664 + 8,256 (cells) + 32,800 + 8,208 + 257.
    "small": (10, (64, 64, 1), 214_493),
    # 320 (stem), 16,416 + 16,416 + 32,832 + 65,600 (strided), 2 * 18,624 + 2 * 74,112 (blocks),
    # 128 (norm), 262,400 (hidden), 5,140 (head), and the decoder's 2,816 + 263,168,
    # 2 * 74,112 + 2 * 18,624 (blocks), 65,600 + 32,800 + 2 * 16,416 (strided), 64 (norm), 289.
    "resnet": (10, (64, 64, 1), 1_167_765),
}

each_network = pytest.mark.parametrize("name", sorted(NETWORKS))


def functions(name, shape=SMALL, outputs=None, dtype=jnp.float32, latents=LATENTS):
    """(init(key) -> parameters, apply(parameters, images, z) -> (posterior, decoded))."""
    network = make_network(name, latents, shape, outputs or shape[-1], dtype)

    def init(key):
        keys = jax.random.split(key)
        encoder = network.encoder.init(keys[0], jnp.zeros((1, *shape)))["params"]
        decoder = network.decoder.init(keys[1], jnp.zeros((1, latents)))["params"]
        return {"encoder": encoder, "decoder": decoder}

    def apply(params, images, z):
        posterior = network.encoder.apply({"params": params["encoder"]}, images)
        return posterior, network.decoder.apply({"params": params["decoder"]}, z)

    return init, apply


def inputs(shape=SMALL):
    keys = jax.random.split(jax.random.key(1))
    return jax.random.uniform(keys[0], (2, *shape)), jax.random.normal(keys[1], (2, LATENTS))


@functools.cache
def fresh(name):
    """Parameters for images of shape SMALL."""
    return jax.jit(functions(name)[0])(jax.random.key(0))


def objective(apply):
    """A loss that no parameter leaves alone, and what it is of."""

    def loss(params, images, z):
        found = apply(params, images, z)
        return sum(jnp.sum(jnp.sin(3 * leaf + 1)) for leaf in jax.tree.leaves(found)), found

    return loss


@each_network
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(name, shape):
    """Any side, and any number of outputs for a pixel."""
    outputs = shape[-1] + 1
    init, apply = functions(name, shape, outputs)
    params = jax.eval_shape(init, jax.random.key(0))
    posterior, decoded = jax.eval_shape(apply, params, *inputs(shape))
    assert posterior.mean.shape == posterior.logvar.shape == (2, LATENTS)
    assert decoded.shape == (2, *shape[:2], outputs)


@each_network
def test_number_of_parameters(name):
    latents, shape, expected = EXPECTED_PARAMETERS[name]
    params = jax.eval_shape(functions(name, shape, latents=latents)[0], jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


@each_network
def test_initial_parameters(name):
    """Weights uniform on the family's interval; biases zero; scales one."""
    for path, leaf in jax.tree.leaves_with_path(jax.tree.map(np.asarray, fresh(name))):
        if path[-1].key == "kernel":
            fan_in = np.prod(leaf.shape[:-1])
            fan_out = leaf.size / leaf.shape[-2]
            bound = {
                "locatello": np.sqrt(6 / (fan_in + fan_out)),
                "small": np.sqrt(6 / fan_in),
            }.get(name, fan_in**-0.5)
            assert 0.9 * bound < abs(leaf).max() <= 1.0001 * bound
            assert abs(leaf.mean()) < 0.2 * bound
        else:
            assert np.all(leaf == {"bias": 0, "scale": 1}[path[-1].key])


@each_network
def test_bfloat16_is_close_and_every_parameter_counts(name):
    params, arrays = fresh(name), inputs()

    def evaluated(dtype):
        _, apply = functions(name, dtype=dtype)
        gradient, found = jax.jit(jax.grad(objective(apply), has_aux=True))(params, *arrays)
        return jax.tree.map(np.asarray, (found, gradient))

    exact, rounded = evaluated(jnp.float32), evaluated(jnp.bfloat16)
    for gradient in (exact[1], rounded[1]):
        for path, leaf in jax.tree.leaves_with_path(gradient):
            assert leaf.dtype == jnp.float32, path
            assert np.isfinite(leaf).all(), path
            assert leaf.any(), path
    for a, b in zip(jax.tree.leaves(rounded[0]), jax.tree.leaves(exact[0]), strict=True):
        assert 0 < np.linalg.norm(a - b) < 0.05 * np.linalg.norm(b)


@each_network
def test_types_of_bfloat16(name):
    """Every product is bfloat16, forwards and backwards; parameters and results are float32."""
    init, apply = functions(name, dtype=jnp.bfloat16)
    params = jax.eval_shape(init, jax.random.key(0))
    results = jax.eval_shape(apply, params, *inputs())
    assert {leaf.dtype for leaf in jax.tree.leaves((params, results))} == {jnp.dtype("float32")}
    text = jax.jit(jax.grad(objective(apply), has_aux=True)).lower(params, *inputs()).as_text()
    types = re.findall(r"stablehlo\.(?:convolution|dot_general).*-> tensor<.*x(\w+)>", text)
    assert set(types) == {"bf16"}


@pytest.mark.once
@pytest.mark.parametrize("name", ["conv", "resnet", "spatial_broadcast"])
def test_parts_of_a_batch_change_nothing(name, monkeypatch):
    """On a CPU convolutions run on parts of the batch: the numbers are those of the whole."""
    network = make_network(name, LATENTS, (16, 16, 1), 1)
    images = jax.random.uniform(jax.random.key(0), (4, 16, 16, 1))
    z = jax.random.normal(jax.random.key(1), (4, LATENTS))
    params = jax.jit(network.encoder.init)(jax.random.key(2), images)
    decoder = jax.jit(network.decoder.init)(jax.random.key(3), z)
    found, split = [], jnp.split
    for smallest in (1, 100):
        seen = []
        monkeypatch.setattr(made_of, "SMALLEST_PART", smallest)
        monkeypatch.setattr(jnp, "split", lambda x, n, seen=seen: seen.append(n) or split(x, n))
        encoded = jax.jit(lambda *args: network.encoder.apply(*args))(params, images)
        decoded = jax.jit(lambda *args: network.decoder.apply(*args))(decoder, z)
        found.append((encoded, decoded))
        monkeypatch.undo()
        assert set(seen) == ({4} if smallest == 1 else set())
    assert_close(*found, rtol=1e-4, atol=1e-5)


def test_a_dense_layer_is_flaxs():
    ours, theirs = made_of.Dense(5), nn.Dense(5)
    h = jax.random.normal(jax.random.key(0), (7, 3))
    params = ours.init(jax.random.key(1), h)
    assert_close(ours.apply(params, h), theirs.apply(params, h), rtol=1e-6, atol=1e-6)

    def gradient(layer):
        return jax.grad(lambda p, h: jnp.sum(jnp.sin(layer.apply(p, h))), argnums=(0, 1))(params, h)

    assert_close(gradient(ours), gradient(theirs), rtol=1e-5, atol=1e-6)


def test_unknown_network_is_named():
    known = ", ".join(sorted(NETWORKS))
    with pytest.raises(UserError, match=rf"Unknown network 'vgg'\. Known: {known}\."):
        make_network("vgg", LATENTS, (64, 64, 1), 1)


# The networks once more, in NumPy and float64, from the papers' descriptions.


def layers(params, kind):
    """The layers of a kind in their order, as (kernel, bias)."""
    names = itertools.takewhile(params.__contains__, (f"{kind}_{i}" for i in itertools.count()))
    return [(params[name]["kernel"], params[name]["bias"]) for name in names]


def relu(x):
    return np.maximum(x, 0)


def affine(x, kernel, bias):
    return x.reshape(len(x), -1) @ kernel + bias


def convolve(x, kernel, bias, stride=1):
    """TensorFlow's "SAME": ceil(n / stride) outputs, the odd one of the zeros at the end."""
    side, pads = len(kernel), []
    for n in x.shape[1:3]:
        total = max((-(-n // stride) - 1) * stride + side - n, 0)
        pads.append((total // 2, total - total // 2))
    x = np.pad(x, ((0, 0), *pads, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), (1, 2))
    return np.einsum("bhwckl,klco->bhwo", windows[:, ::stride, ::stride], kernel) + bias


def spread(y, kernel, bias, sides):
    """The transpose of `convolve` with stride 2 from images of `sides`: pixel i goes to 2i + k."""
    batch, rows, columns, _ = y.shape
    out = np.zeros((batch, 2 * rows + 2, 2 * columns + 2, kernel.shape[2]))
    for i, j in np.ndindex(4, 4):
        out[:, i : i + 2 * rows : 2, j : j + 2 * columns : 2] += y @ kernel[i, j].T
    return out[:, 1 : 1 + sides[0], 1 : 1 + sides[1]] + bias


def sides_before(times):
    """Those of the image after `times`, ..., 1, 0 halvings."""
    return [tuple(-(-side // 2**i) for side in SMALL[:2]) for i in range(times, -1, -1)]


def head(params, h):
    return [affine(h, **params["head"][name]) for name in ("mean", "logvar")]


def strided_encoder(params, h):
    for layer in layers(params, "ConvDown"):
        h = relu(convolve(h, *layer, stride=2))
    for layer in layers(params, "Dense"):
        h = relu(affine(h, *layer))
    return head(params, h)


def strided_decoder(params, h, activation=relu):
    *hidden, first = layers(params, "Dense")
    for layer in hidden:
        h = relu(affine(h, *layer))
    ups = layers(params, "ConvUp")
    small, *larger = sides_before(len(ups))
    h = activation(affine(h, *first)).reshape(len(h), *small, -1)
    for layer, sides in zip(ups, larger, strict=True):
        h = spread(h, *layer, sides)
        h = h if sides == SMALL[:2] else relu(h)
    return h


def mlp_encoder(params, h):
    for layer in layers(params, "Dense"):
        h = relu(affine(h, *layer))
    return head(params, h)


def mlp_decoder(params, h):
    *hidden, last = layers(params, "Dense")
    for layer in hidden:
        h = np.tanh(affine(h, *layer))
    return affine(h, *last).reshape(len(h), *SMALL)


def broadcast(z, height, width):
    h = np.empty((len(z), height, width, LATENTS + 2))
    for i, j in np.ndindex(height, width):
        h[:, i, j, :LATENTS] = z
        h[:, i, j, LATENTS:] = 2 * j / (width - 1) - 1, 2 * i / (height - 1) - 1
    return h


def coarse_broadcast_decoder(params, z):
    cells, *larger = sides_before(3)
    h = broadcast(z, *cells)
    for kernel, bias in layers(params, "Dense"):
        h = relu(h @ kernel + bias)
    for layer, sides in zip(layers(params, "ConvUp"), larger, strict=True):
        h = spread(h, *layer, sides)
        h = h if sides == SMALL[:2] else relu(h)
    return h


def broadcast_decoder(params, z):
    h = broadcast(z, *SMALL[:2])
    *hidden, last = layers(params, "Conv")
    for layer in hidden:
        h = relu(convolve(h, *layer))
    return convolve(h, *last)


def norm_relu(params, x):
    groups = x.reshape(len(x), -1, 8, x.shape[-1] // 8)
    mean, variance = groups.mean((1, 3), keepdims=True), groups.var((1, 3), keepdims=True)
    normal = ((groups - mean) / np.sqrt(variance + 1e-6)).reshape(x.shape)
    return relu(normal * params["norm"]["scale"] + params["norm"]["bias"])


def block(params, x):
    h = x
    for i, layer in enumerate(layers(params, "Conv")):
        h = convolve(norm_relu(params[f"NormRelu_{i}"], h), *layer)
    return x + h


def resnet_encoder(params, h):
    h = convolve(h, *layers(params, "Conv")[0])
    for i, layer in enumerate(layers(params, "ConvDown")):
        h = block(params[f"ResidualBlock_{i}"], convolve(h, *layer, stride=2))
    h = norm_relu(params["NormRelu_0"], h)
    return head(params, relu(affine(h, *layers(params, "Dense")[0])))


def resnet_decoder(params, h):
    hidden, first = layers(params, "Dense")
    small, *larger = sides_before(4)
    h = affine(relu(affine(h, *hidden)), *first).reshape(len(h), *small, -1)
    for i, (layer, sides) in enumerate(zip(layers(params, "ConvUp"), larger, strict=True)):
        h = spread(block(params[f"ResidualBlock_{i}"], h), *layer, sides)
    return convolve(norm_relu(params["NormRelu_0"], h), *layers(params, "Conv")[0])


linear_start = functools.partial(strided_decoder, activation=lambda x: x)
REFERENCES = {
    "conv": (strided_encoder, strided_decoder),
    "locatello": (strided_encoder, strided_decoder),
    "burgess": (strided_encoder, strided_decoder),
    "conv128": (strided_encoder, linear_start),
    "mlp": (mlp_encoder, mlp_decoder),
    "spatial_broadcast": (strided_encoder, broadcast_decoder),
    "small": (strided_encoder, coarse_broadcast_decoder),
    "resnet": (resnet_encoder, resnet_decoder),
}


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_against_numpy(name):
    """On odd and even sides, with biases that are not zero and weights that keep the scale."""
    rng = np.random.default_rng(0)

    def changed(leaf):
        leaf = 2.4 * leaf if leaf.ndim > 1 else leaf + 0.1 * rng.normal(size=leaf.shape)
        return np.float32(leaf)

    params, (images, z) = jax.tree.map(changed, fresh(name)), inputs()
    posterior, decoded = jax.jit(functions(name)[1])(params, images, z)
    params = jax.tree.map(np.float64, params)
    encoder, decoder = REFERENCES[name]
    got = [posterior.mean, posterior.logvar, decoded]
    wanted = [*encoder(params["encoder"], np.float64(images))]
    wanted += [decoder(params["decoder"], np.float64(z))]
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)
