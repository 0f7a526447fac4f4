"""Images of a user's .npz file come back as they were saved; whatever else it is, one line says."""

import contextlib
import io
import os
import pickle
import tracemalloc
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import real_data

from bvae_jax.data import npz as npz_file
from bvae_jax.data.columns import in_grid_order
from bvae_jax.data.npz import open_npz
from bvae_jax.data.sources import resident
from bvae_jax.errors import UserError

N = 12
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (N, 9, 7), np.uint8)
COLOUR = RNG.integers(0, 256, (N, 9, 7, 3), np.uint8)
BITS = RNG.integers(0, 2, (N, 9, 7), np.uint8)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "my file.npz"


def opened(path, save=np.savez, progress=False, **arrays):
    if arrays:
        save(path, **arrays)
    return open_npz(path, data_dir=path.parent / "data", progress=progress)


def stored(dataset):
    return dataset.pixels.images


def looked_at(dataset):
    """All images as evaluation sees them."""
    source = resident(dataset, dataset.pixels)
    return np.asarray(source.look(source.arrays, jnp.arange(dataset.size)))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    ("images", "wanted", "packed"),
    [
        (GREY, GREY / 255, False),
        (COLOUR, COLOUR / 255, False),
        (RNG.integers(0, 256, (N, 4, 4, 5), np.uint8), None, False),
        (BITS, BITS, True),
        (255 * BITS, BITS, True),
        (127 * BITS, 127 * BITS / 255, False),
        (BITS.astype(bool), BITS, True),
        (BITS.astype(np.float32), BITS, True),
        (np.zeros((3, 9, 7), np.uint8), np.zeros((3, 9, 7)), True),
        (GREY / 255, GREY / 255, False),
        ((GREY / 255).astype(np.float32).byteswap().view(">f4"), GREY / 255, False),
        ((GREY / 255).astype(np.float16), None, False),
    ],
)
def test_images_come_back(path, images, wanted, packed, save):
    dataset = opened(path, save, images=images)
    wanted = (
        images.astype(float) / (255 if images.dtype == np.uint8 else 1)
        if wanted is None
        else wanted
    )
    wanted = wanted.reshape(*wanted.shape, 1) if wanted.ndim == 3 else wanted
    assert dataset.image_shape == wanted.shape[1:]
    assert (stored(dataset).ndim == 2) == packed
    np.testing.assert_allclose(
        looked_at(dataset), wanted, atol=0.51 / 255 if images.dtype == np.float16 else 1e-6
    )
    assert (dataset.name, dataset.factor_names, dataset.labels) == (f"npz:{path}", (), None)


def test_two_values_must_be_the_same_two_in_all_blocks(path, monkeypatch):
    monkeypatch.setattr(npz_file, "BLOCK_BYTES", 1)
    images = np.concatenate([BITS, 255 * BITS])
    dataset = opened(path, images=images)
    np.testing.assert_array_equal(stored(dataset)[..., 0], images)
    dark_first = np.concatenate([np.zeros((2, 9, 7), np.uint8), 255 * BITS])
    os.utime(path, ns=(1, 1))
    dataset = opened(path, images=dark_first)
    np.testing.assert_array_equal(looked_at(dataset)[..., 0], dark_first / 255)
    assert stored(dataset).ndim == 2


def test_factors_of_any_values_become_class_indices(path):
    shape = RNG.permutation([7, 7, 7, 9, 9, 9, -2, -2, -2, 40, 40, 40])
    scale = RNG.permutation(np.repeat([0.5, 0.75, 1.0], 4))
    dataset = opened(path, images=GREY, factors=np.stack([shape, scale], axis=1),
                     factor_names=np.array(["shape", "scale"]))  # fmt: skip
    assert (dataset.factor_names, dataset.factor_sizes) == (("shape", "scale"), (4, 3))
    labels = np.asarray(dataset.labels)
    np.testing.assert_array_equal(np.array([-2, 7, 9, 40])[labels[:, 0]], shape)
    np.testing.assert_array_equal(np.array([0.5, 0.75, 1.0])[labels[:, 1]], scale)
    assert not dataset.grid


@pytest.mark.parametrize(
    ("arrays", "names", "sizes"),
    [
        ({"factors": np.arange(N) % 5}, ("factor",), (5,)),
        ({"labels": np.arange(N) % 5}, ("label",), (5,)),
        ({"labels": np.array(["cat", "dog", "cat", "bird"] * 3)}, ("label",), (3,)),
        ({"labels": np.arange(2 * N).reshape(N, 2) % 3}, ("factor0", "factor1"), (3, 3)),
        ({"factors": (np.arange(N) % 4).astype(float)}, ("factor",), (4,)),
        ({"factors": np.arange(N) % 2 == 1}, ("factor",), (2,)),
        ({"factors": np.asfortranarray(np.stack([np.arange(N) % 2, np.arange(N) % 4], 1))},
         ("factor0", "factor1"), (2, 4)),
        ({"labels": np.zeros(N, int), "factors": np.arange(N) % 3}, ("factor",), (3,)),
    ],
)  # fmt: skip
def test_names_and_sizes(path, arrays, names, sizes):
    dataset = opened(path, images=GREY, **arrays)
    assert (dataset.factor_names, dataset.factor_sizes) == (names, sizes)
    values = next(arrays[key] for key in ("factors", "labels") if key in arrays).reshape(N, -1)
    for k, column in enumerate(values.T):
        known = sorted(set(column.tolist()))
        assert [known.index(v) for v in column.tolist()] == np.asarray(dataset.labels)[
            :, k
        ].tolist()


def test_texts_are_in_the_order_of_their_numbers(path):
    values = [str(10 * k) for k in range(N)]
    for texts in (np.array(values), np.array(values, "S")):
        dataset = opened(path, images=GREY, labels=texts)
        assert dataset.grid  # one image for each value, in their order
        shuffled = opened(path, images=GREY, labels=texts[::-1])
        assert np.asarray(shuffled.labels)[:, 0].tolist() == list(range(N))[::-1]


def test_a_grid_is_found_and_nothing_else_is_one(path):
    grid = np.stack(np.unravel_index(np.arange(N), (2, 3, 2)), axis=1)
    dataset = opened(path, images=GREY, factors=10 * grid - 3)
    assert dataset.grid
    assert (dataset.labels, dataset.factor_sizes) == (None, (2, 3, 2))
    np.testing.assert_array_equal(dataset.factors(jnp.arange(N)), grid)
    assert in_grid_order(grid, (2, 3, 2))
    assert not in_grid_order(grid[:, ::-1], (2, 3, 2))  # first fastest
    assert not in_grid_order(grid[[1, 0, *range(2, N)]], (2, 3, 2))
    assert not in_grid_order(grid[:6], (2, 3, 1))
    twice = grid.copy()
    twice[0] = twice[1]
    assert not in_grid_order(twice, (2, 3, 2))


def test_mnist(path):
    with np.load(real_data("mnist_t10k.npz")) as file:
        images, labels = file["images"], file["labels"]
    dataset = opened(path, images=images, labels=labels)
    np.testing.assert_array_equal(stored(dataset)[..., 0], images)
    np.testing.assert_array_equal(np.asarray(dataset.labels)[:, 0], labels)
    assert dataset.factor_sizes == (10,)


def test_read_once_until_it_changes(path, monkeypatch):
    first = opened(path, images=GREY)
    os.utime(path, ns=(1, 1))
    with monkeypatch.context() as patch:
        patch.setattr(npz_file, "read_blocks", None)  # must not be called
        assert opened(path).version == first.version
    other = GREY.copy()
    other[3, 2, 1] ^= 255
    size = path.stat().st_size
    np.savez(path, images=other)
    os.utime(path, ns=(1, 1))
    second = opened(path)
    assert path.stat().st_size == size
    assert second.version != first.version
    assert len(list((path.parent / "data").iterdir())) == 1


def test_memory_is_bounded(path):
    """64 MB of images, in a few blocks of 4 MB."""
    images = np.zeros((4096, 128, 128), np.uint8)
    images[:, 5, 7] = np.arange(4096) % 256
    np.savez_compressed(path, images=images)
    del images
    tracemalloc.start()
    dataset = opened(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6
    np.testing.assert_array_equal(stored(dataset)[:, 5, 7, 0], np.arange(4096) % 256)


def test_the_bar_shows_images(path, capsys):
    opened(path, progress=True, images=GREY)
    told = capsys.readouterr().err
    assert "reading" in told
    assert "12/12" in told


def test_ctrl_c_leaves_nothing_half(path, monkeypatch):
    np.savez(path, images=GREY)
    monkeypatch.setattr(npz_file, "BLOCK_BYTES", 200)

    def interrupted(values, seen=[]):  # noqa: B006
        seen.append(1)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return values

    with monkeypatch.context() as patch:
        patch.setattr(npz_file, "to_levels", interrupted)
        with pytest.raises(KeyboardInterrupt):
            opened(path)
    assert list((path.parent / "data").iterdir()) == []
    assert opened(path).size == N


NAN = np.full((N, 4, 4), np.nan, np.float32)
REFUSED = {
    "no images": ({"pictures": GREY}, r"holds no images, wanted uint8.* Its keys: pictures"),
    "objects": ({"images": np.full((N, 4, 4), None)}, "holds objects, which are never loaded"),
    "object factors": ({"images": GREY, "factors": np.full(N, None)}, "factors holds objects"),
    "object names": ({"images": GREY, "factors": np.zeros(N), "factor_names": np.array([None])},
                     "factor_names holds objects"),
    "flat": ({"images": GREY.reshape(N, -1)}, r"has shape \(12, 63\), wanted \[image, height"),
    "five axes": ({"images": GREY[..., None, None]}, "images has shape"),
    "one number": ({"images": np.uint8(3)}, r"images has shape \(\), wanted"),
    "no rows": ({"images": GREY[:0]}, "none of them 0"),
    "no pixels": ({"images": GREY[:, :0]}, "none of them 0"),
    "two": ({"images": GREY[:2]}, "2 images, wanted at least 3"),
    "NaN": ({"images": NAN}, "images holds NaN"),
    "bytes as float": ({"images": GREY.astype(np.float32)},
                       r"images has values from 0 to 255 as float32, wanted uint8, bool"),
    "minus one": ({"images": 2 * BITS.astype(np.float32) - 1}, "from -1 to 1 as float32"),
    "infinite": ({"images": np.full((N, 4, 4), np.inf)},
                 "from inf to inf as float64"),
    "integers": ({"images": GREY.astype(int)}, "images is int64, wanted uint8"),
    "complex": ({"images": GREY * 1j}, "images is complex128, wanted uint8"),
    "texts": ({"images": np.full((N, 4, 4), "a")}, "images is <U1, wanted uint8"),
    "fields": ({"images": np.zeros((N, 4, 4), [("a", "u1")])}, "wanted uint8"),
    "Fortran": ({"images": np.asfortranarray(GREY)}, "np.ascontiguousarray"),
    "too wide": ({"images": np.zeros((3, 2, 4097), np.uint8)}, "wanted sides up to 4096"),
    "too high": ({"images": np.zeros((3, 4097, 2), np.uint8)}, "wanted sides up to 4096"),
    "too deep": ({"images": np.zeros((3, 8, 8, 65), np.uint8)}, "up to 64 channels"),
    "channels first": ({"images": np.zeros((3, 3, 64, 64), np.uint8)}, "wanted channels last"),
    "four first": ({"images": np.zeros((3, 4, 64, 64), np.uint8)}, "wanted channels last"),
    "many first": ({"images": np.zeros((3, 16, 32, 64), np.uint8)}, "wanted channels last"),
    "levels of four bits": ({"images": GREY // 16}, "lightest pixel is 15 of 255"),
    "scaled twice": ({"images": GREY / 255**2}, "lightest pixel is 1 of 255"),
    "short factors": ({"images": GREY, "factors": np.zeros(N - 1)},
                      "factors has 11 rows, but there are 12 images"),
    "factor cube": ({"images": GREY, "factors": np.zeros((N, 2, 2))}, "factors has shape"),
    "no columns": ({"images": GREY, "factors": np.zeros((N, 0))}, "0 columns, wanted 1 to 1024"),
    "NaN factor": ({"images": GREY, "labels": np.full(N, np.nan)}, "label has 12 .* NaN"),
    "fractions": ({"images": np.zeros((500, 2, 2), np.uint8), "factors": RNG.random((500, 1))},
                  "factor0 has 500 different fractions, wanted classes"),
    "few names": ({"images": GREY, "factors": np.zeros((N, 2)), "factor_names": np.array(["a"])},
                  "1 names, but factors has 2 columns"),
    "same names": ({"images": GREY, "factors": np.zeros((N, 2)),
                    "factor_names": np.array(["a", "a"])}, "has a name twice"),
    "numbered names": ({"images": GREY, "factors": np.zeros(N), "factor_names": np.arange(1)},
                       "factor_names is int64"),
    "strange names": ({"images": GREY, "factors": np.zeros(N), "factor_names": np.array(["\n"])},
                      "cannot be printed"),
}  # fmt: skip


def refused(path, match):
    with pytest.raises(UserError, match=match) as caught:
        opened(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    data = path.parent / "data"
    assert not data.exists() or list(data.iterdir()) == []


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_arrays(path, name):
    arrays, match = REFUSED[name]
    np.savez(path, **arrays)
    refused(path, match)


def test_wrong_files(path, tmp_path):
    refused(path, "no such file, wanted an .npz file")
    path.mkdir()
    refused(path, "is a directory or a device")
    path.rmdir()
    path.write_bytes(b"")
    refused(path, "is no .npz file, wanted what np.savez")
    path.write_text("hello")
    refused(path, "is no .npz file")
    with path.open("wb") as file:
        np.save(file, GREY)
    refused(path, r"is a single array \(.npy\)")
    path.write_bytes(pickle.dumps({"images": GREY}))
    refused(path, "is no .npz file")


def test_a_published_file_is_known_by_its_name(tmp_path, capsys):
    sprites = tmp_path / "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
    np.savez(sprites, imgs=GREY, latents_classes=np.zeros((N, 6)))
    place = tmp_path / "data" / "downloads" / "manual"
    refused(sprites, f"holds no images.* put it into {place}, and choose --dataset dsprites_npz")
    shapes = tmp_path / "3dshapes.h5"
    shapes.write_bytes(b"\x89HDF")
    refused(shapes, "no .npz file.* choose --dataset shapes3d_h5")
    assert not capsys.readouterr().err
    opened(tmp_path / "mpi3d_toy.npz", images=COLOUR)  # can be read, but for its factors
    assert "choose --dataset mpi3d_toy" in capsys.readouterr().err


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_anywhere(path, save):
    """Cut or changed anywhere, a file is refused, or still gives the very same images."""
    file = io.BytesIO()
    save(file, images=COLOUR, labels=np.arange(N) % 3)
    content = file.getvalue()
    for end in range(0, len(content), 97):
        path.write_bytes(content[:end])
        refused(path, "Is the file whole|no .npz file|holds no images")
    whole, places = 0, range(0, len(content), 61)
    for place in places:
        path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        os.utime(path, ns=(place, place))
        with contextlib.suppress(UserError):
            dataset = opened(path)
            whole += 1
            np.testing.assert_array_equal(stored(dataset), COLOUR)
            if dataset.factor_names:  # a key's own name may be what changed
                np.testing.assert_array_equal(np.asarray(dataset.labels)[:, 0], np.arange(N) % 3)
    assert whole < len(places) / 4


def test_headers_that_lie(path):
    def write(claimed, data, **changes):
        header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {claimed}, }}\n".encode()
        body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("images.npy", body)

    lies = [((10, 4, 4), bytes(100)), ((3, 4, 4), bytes(100)), ((4 * 10**7, 9, 9), b"")]
    for claimed, data in lies:
        write(claimed, data)
        refused(path, "bytes of data, but shape")
    write((50_000_001, 1, 1), b"")
    refused(path, "50000001 images of 1 x 1 pixels, wanted at most 50000000")
    write((-3, 4, 4), bytes(48))
    refused(path, "negative or impossible")
