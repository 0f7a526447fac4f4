"""Sets that are drawn: the laws that all obey, and each against something independent."""

import colorsys
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import real_data
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bvae_jax.data import (
    DATASETS,
    dsprites,
    shapes3d,
    sources,
    xy_squares,
)
from bvae_jax.errors import UserError

ON_SPRITES = [DATASETS[f"{kind}_dsprites"] for kind in ("color", "noisy", "scream")]
SETS = {d.name: d for d in (*ON_SPRITES, shapes3d.DATASET, xy_squares.DATASET)}
COUNT = 24


@functools.cache
def drawn(name, seed=0):
    """Indices, and their images under two keys; the second time in the opposite order."""
    source = sources.rendered(SETS[name])
    indices = jax.random.randint(jax.random.key(seed), (COUNT,), 0, SETS[name].size)

    @jax.jit
    def take(arrays, key, order):
        return source.take(arrays, indices[order], jax.random.split(key, COUNT)[order])

    order = jnp.arange(COUNT)
    again = take(source.arrays, jax.random.key(1), order[::-1])[::-1]
    one, other = (take(source.arrays, jax.random.key(seed), order) for seed in (1, 2))
    return indices, one, again, other


@pytest.mark.parametrize("name", SETS)
def test_images_are_in_range_and_a_pure_function_of_index_and_key(name):
    dataset = SETS[name]
    _, images, again, other = drawn(name)
    assert images.shape == (COUNT, *dataset.image_shape)
    assert images.dtype == jnp.float32
    assert images.min() >= 0
    assert images.max() <= 1
    np.testing.assert_array_equal(images, again)
    differs = np.asarray(images != other).any((1, 2, 3))
    np.testing.assert_array_equal(differs, dataset.finish is not None)


def sprites(indices):
    """[image, 64, 64, 1] bool."""
    dataset = dsprites.DATASET
    return np.asarray(dsprites.render(dataset.factors(indices))) > 0


@pytest.mark.parametrize("dataset", ON_SPRITES)
def test_sets_on_sprites_keep_their_factors_and_equal_images(dataset):
    assert dataset.factor_names == dsprites.FACTOR_NAMES
    assert dataset.pixels is dsprites.SPRITES
    assert dataset.canonical is dsprites.canonical
    assert dataset.identity != dsprites.DATASET.identity


def test_color_dsprites_is_the_sprite_in_one_colour():
    indices, images, *_ = drawn("color_dsprites")
    inside, images = sprites(indices), np.asarray(images)
    np.testing.assert_array_equal((images > 0).all(-1), inside[..., 0])
    np.testing.assert_array_equal((images > 0).any(-1), inside[..., 0])
    colours = images.max((1, 2))
    np.testing.assert_array_equal(images, inside * colours[:, None, None])
    assert colours.min() >= 0.5
    assert len(np.unique(colours)) == 3 * COUNT


def test_colours_are_uniform_from_one_half_to_one():
    keys = jax.random.split(jax.random.key(0), 2000)
    colours = jax.jit(jax.vmap(lambda key: dsprites.colour(jnp.ones((1, 1, 1)), key)))(keys)
    colours = np.sort(np.asarray(colours).reshape(2000, 3), axis=0)
    even = np.linspace(0.5, 1, 2000)[:, None]
    assert np.abs(colours - even).max() < 0.5 * 1.95 / np.sqrt(2000)  # Kolmogorov, p = 0.001


def test_noisy_dsprites_is_a_white_sprite_on_uniform_noise():
    indices, images, *_ = drawn("noisy_dsprites")
    inside, images = np.broadcast_to(sprites(indices), images.shape), np.asarray(images)
    np.testing.assert_array_equal(images[inside], 1)
    noise = np.sort(images[~inside])
    assert np.abs(noise - np.linspace(0, 1, len(noise))).max() < 1.95 / np.sqrt(len(noise))
    channels = images[0][~inside[0, ..., 0]]
    assert np.abs(np.corrcoef(channels.T) - np.eye(3)).max() < 0.08


PICTURE = np.random.RandomState(5).randint(0, 256, (67, 70, 3)) / np.float32(255)


def place_and_colour(background):
    """Where a part of PICTURE was cut, and the colour it was averaged with, by trying all."""
    for top, left in itertools.product(range(4), range(7)):
        colour = 2 * background - PICTURE[top : top + 64, left : left + 64]
        if np.ptp(colour, axis=(0, 1)).max() < 1e-5:
            return (top, left), colour[0, 0]
    raise AssertionError("no part of the picture")


def test_scream_dsprites_inverts_a_part_of_the_picture():
    dataset = dsprites.scream_dsprites(PICTURE)
    assert dataset.finish
    indices = jax.random.randint(jax.random.key(0), (300,), 0, dataset.size)
    keys = jax.random.split(jax.random.key(1), 300)
    images = np.asarray(
        jax.jit(jax.vmap(dataset.finish))(jnp.zeros((300, 64, 64, 1)), jax.random.clone(keys))
    )
    places, colours = zip(*(place_and_colour(image) for image in images), strict=True)
    assert set(places) == set(itertools.product(range(4), range(7)))
    colours = np.array(colours)
    assert colours.min() > -1e-5
    assert colours.max() < 1 + 1e-5
    np.testing.assert_allclose(colours.mean(0), 0.5, atol=0.07)
    inside = sprites(indices[:9])
    with_sprite = jax.jit(jax.vmap(dataset.finish))(jnp.asarray(inside, jnp.float32), keys[:9])
    expected = np.where(inside, 1 - images[:9], images[:9])
    np.testing.assert_array_equal(with_sprite, expected)


def test_scream_dsprites_version_is_that_of_its_picture():
    versions = {
        dsprites.scream_dsprites(picture).version
        for picture in (
            PICTURE,
            PICTURE.copy(),
            1 - PICTURE,
            PICTURE[:-1],
            PICTURE.reshape(70, 67, 3),
        )
    }
    assert len(versions) == 4
    assert dsprites.SCREAM_DSPRITES.version not in versions


def test_generated_picture_has_structure_at_several_scales():
    picture = dsprites.generate()
    assert picture.shape == (274, 350, 3)
    np.testing.assert_array_equal(picture, dsprites.generate())
    np.testing.assert_allclose([picture.min((0, 1)), picture.max((0, 1))], [[0] * 3, [1] * 3])
    for size in (4, 8, 16, 32, 64):
        cut = picture[: 274 // size * size, : 350 // size * size]
        blocks = cut.reshape(274 // size, size, 350 // size, size, 3)
        within = blocks.mean((1, 3)).std((0, 1))
        assert within.min() > 0.05, size
        assert blocks.std((1, 3)).mean() > 0.01, size


@pytest.mark.parametrize(("mode", "name"), [("L", "a.png"), ("RGBA", "b.png"), ("RGB", "c.bmp")])
def test_pictures_are_read_in_colour(tmp_path, mode, name):
    levels = np.random.RandomState(0).randint(0, 256, (64, 80, 3), np.uint8)
    picture = Image.fromarray(levels).convert(mode)
    picture.save(tmp_path / name)
    read = dsprites.read_background(tmp_path / name)
    np.testing.assert_array_equal(np.rint(read * 255), np.asarray(picture.convert("RGB")))
    dsprites.scream_dsprites(read)


def test_large_pictures_are_shrunk(tmp_path):
    Image.new("RGB", (700, 1096), (255, 0, 0)).save(tmp_path / "a.png")
    read = dsprites.read_background(str(tmp_path / "a.png"))
    assert read.shape == (274, 175, 3)


def test_pictures_that_cannot_be_used(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    Image.new("RGB", (200, 63)).save(tmp_path / "low.png")
    Image.new("RGB", (2000, 300)).save(tmp_path / "wide.png")
    whole = (tmp_path / "low.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    notes = PngInfo()  # of which Pillow bears no more than a megabyte
    notes.add_text("notes", "x" * 2**21, zip=True)
    Image.new("RGB", (64, 64)).save(tmp_path / "notes.png", pnginfo=notes)
    for name in ("text.png", "low.png", "wide.png", "cut.png", "notes.png", "absent.png", "."):
        with pytest.raises(UserError, match=r"--background: got .*wanted a picture of") as caught:
            dsprites.read_background(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_xy_squares_against_a_loop():
    dataset = xy_squares.DATASET
    indices, images, *_ = drawn("xy_squares")
    for index, image in zip(np.asarray(indices), np.asarray(images), strict=True):
        expected = np.zeros((64, 64, 3))
        for channel in (2, 1, 0):
            ((index, y),) = [divmod(index, 8)]
            ((index, x),) = [divmod(index, 8)]
            expected[8 * y : 8 * y + 8, 8 * x : 8 * x + 8, channel] = 1
        np.testing.assert_array_equal(image, expected)
    assert dataset.size == 262_144


def test_xy_squares_are_equally_far_apart():
    """64 pixels vanish and 64 appear for each square that moves, wherever it goes."""
    places = np.array(list(itertools.product(range(8), range(8))))
    for channel in range(3):
        factors = np.full((64, 6), 3)
        factors[:, 2 * channel : 2 * channel + 2] = places
        flat = np.asarray(xy_squares.render(jnp.asarray(factors))).reshape(64, -1)
        distances = np.abs(flat[:, None] - flat[None]).sum(-1)
        np.testing.assert_array_equal(distances, 128 * (1 - np.eye(64)))


def tables():
    """[scale, shape, orientation, row, column, layer] weights."""
    return shapes3d.arrays()[0] / shapes3d.LEVELS


def test_shapes3d_is_the_sum_of_its_layers():
    indices, images, *_ = drawn("shapes3d_render")
    for index, image in zip(np.asarray(indices), np.asarray(images), strict=True):
        floor, wall, thing, scale, shape, orientation = np.unravel_index(
            index, (10, 10, 10, 8, 4, 15)
        )
        colours = [colorsys.hsv_to_rgb(hue / 10, 1, 1) for hue in (floor, wall, thing)]
        colours += [(0.6, 226 / 255, 249 / 255), (1, 1, 1)]
        expected = np.minimum(tables()[scale, shape, orientation] @ np.array(colours), 1)
        np.testing.assert_allclose(image, expected, atol=1e-5)


def distances(shape, size, p):
    """Signed distances of points [..., 3] from the object."""
    x, y, z = np.moveaxis(p / size, -1, 0)
    across = np.hypot(x, y)

    def box(*q):
        q = np.stack(q)
        return np.linalg.norm(np.maximum(q, 0), axis=0) + np.minimum(q.max(0), 0)

    if shape == 0:
        half = shapes3d.CUBE_HEIGHT / 2
        d = box(
            abs(x) - shapes3d.CUBE_HALF_WIDTH,
            abs(y) - shapes3d.CUBE_HALF_WIDTH,
            abs(z - half) - half,
        )
    elif shape == 1:
        half = shapes3d.CYLINDER_HEIGHT / 2
        d = box(across - shapes3d.CYLINDER_RADIUS, abs(z - half) - half)
    elif shape == 2:
        d = np.hypot(across, z - shapes3d.SPHERE_RADIUS) - shapes3d.SPHERE_RADIUS
    else:
        low = shapes3d.CAPSULE_RADIUS
        nearest = np.clip(z, low, low + shapes3d.CAPSULE_BODY)
        d = np.hypot(across, z - nearest) - shapes3d.CAPSULE_RADIUS
    return d * size


def march(shape, size, start, step):
    """How far rays [..., 3] of unit length go to the object, in strides that cannot cross it."""
    t = np.zeros(step.shape[:-1])
    for _ in range(100):
        t = np.minimum(t + distances(shape, size, start + t[..., None] * step), 1e3)
    return np.where(t < 100, t, np.inf)


def pinhole(orientation):
    """A camera by matrices: it is tilted, then carried around the room."""
    angle = (2 * orientation / 14 - 1) * shapes3d.LARGEST_ANGLE
    tilt = np.arctan2(shapes3d.LOOK_AT_HEIGHT - shapes3d.CAMERA_HEIGHT, shapes3d.CAMERA_DISTANCE)
    turned = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    tilted = np.array(
        [[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]
    )
    centres = (np.arange(64) - 31.5) / 32 / shapes3d.FOCAL_LENGTH
    x, z = np.meshgrid(centres, -centres)
    rays = np.stack([x, np.ones_like(x), z], -1) @ (turned @ tilted).T
    eye = turned @ [0, -shapes3d.CAMERA_DISTANCE, shapes3d.CAMERA_HEIGHT]
    return eye, rays / np.linalg.norm(rays, axis=-1, keepdims=True)


@pytest.mark.parametrize("shape", range(4))
@pytest.mark.parametrize(("scale", "orientation"), [(7, 0), (3, 12)])
def test_shapes3d_against_marching_rays(shape, scale, orientation):
    """What is at the centre of a pixel, found by another method, is what most of it shows."""
    size = 0.75 + scale / 14
    eye, rays = pinhole(orientation)
    with np.errstate(divide="ignore"):
        to_object = march(shape, size, eye, rays)
        half, limits = shapes3d.ROOM_HALF_WIDTH, np.array([[-1], [1]])
        to_planes = [(limits * half - eye[k]) / rays[..., k].reshape(1, -1) for k in (0, 1)]
        exits = np.min([np.where(t > 0, t, np.inf).min(0) for t in to_planes], axis=0)
        to_wall = exits.reshape(64, 64)
        to_floor = np.where(rays[..., 2] < 0, -eye[2] / rays[..., 2], np.inf)
    above = (eye + to_wall[..., None] * rays)[..., 2] > shapes3d.ROOM_HEIGHT
    kind = np.where(to_floor < to_wall, 0, np.where(above, 3, 1))
    kind = np.where(to_object < np.minimum(to_floor, to_wall), 2, kind)

    weights = tables()[scale, shape, orientation]
    agree = weights[..., :4].argmax(-1) == kind
    assert agree.mean() > 0.98
    whole = (weights[..., :4] > 0).sum(-1) == 1
    assert agree[whole].all()

    # The lamp: where a ray from a point of the floor towards it meets the object, there is shadow.
    floor = (kind == 0) & whole
    points = eye + to_floor[floor][:, None] * rays[floor]
    towards = shapes3d.LAMP - points
    dark = march(shape, size, points, towards / np.linalg.norm(towards, axis=1, keepdims=True))
    drawn_dark = np.isclose(weights[floor][:, 0], shapes3d.SHADOW, atol=0.003)
    assert (np.isfinite(dark) == drawn_dark).mean() > 0.97
    fall = np.linalg.norm(towards, axis=1) / shapes3d.LAMP[2]
    lit = (shapes3d.FLOOR_LIGHT / fall**shapes3d.FLOOR_FALLOFF)[~drawn_dark]
    assert np.quantile(np.abs(weights[floor][~drawn_dark, 0] - lit), 0.9) < 0.004
    # Walls are told apart by what they face.
    points = eye + to_wall[..., None] * rays
    for axis, sign, middle, slope in (
        (0, -1, shapes3d.LEFT_WALL, shapes3d.SIDE_WALL_SLOPE),
        (0, 1, shapes3d.RIGHT_WALL, shapes3d.SIDE_WALL_SLOPE),
        (1, 1, shapes3d.BACK_WALL, shapes3d.BACK_WALL_SLOPE),
    ):
        seen = (kind == 1) & whole & np.isclose(points[..., axis], sign * half)
        expected = middle + slope * points[seen][:, 1 - axis]
        close = np.abs(weights[seen][:, 1] - expected) < 0.01
        assert close.sum() >= 0.9 * len(close)
    # The object: normals are gradients of distance.
    thing = (kind == 2) & whole
    points = eye + to_object[thing][:, None] * rays[thing]
    nudges = 1e-4 * np.eye(3)
    normal = [
        (distances(shape, size, points + e) - distances(shape, size, points - e)) for e in nudges
    ]
    normal = np.stack(normal, -1) / 2e-4
    towards = shapes3d.LAMP - points
    cosine = (normal * towards).sum(-1) / np.linalg.norm(towards, axis=-1)
    lit = shapes3d.AMBIENT - shapes3d.HEADLIGHT * (normal * rays[thing]).sum(-1)
    lit += shapes3d.LAMP_DIFFUSE * np.maximum(cosine, 0)
    error = np.abs(np.minimum(lit, 255 / shapes3d.LEVELS) - weights[thing][:, 2])
    assert np.median(error) < 0.005
    assert np.quantile(error, 0.9) < 0.04


def test_shapes3d_hues_move_no_edge():
    """A hue changes the pixels in which its layer has weight, and no other."""
    view = (2, 3, 11)
    weights = tables()[view]
    arrays = shapes3d.arrays()
    for layer in range(3):
        factors = np.tile([4, 4, 4, *view], (10, 1))
        factors[:, layer] = np.arange(10)
        images = np.asarray(shapes3d.render(jnp.asarray(factors), *arrays))
        changed = np.ptp(images, axis=0).max(-1) > 1e-6
        np.testing.assert_array_equal(changed, weights[..., layer] > 0)
        assert len(np.unique(images.reshape(10, -1), axis=0)) == 10


def test_shapes3d_views_all_differ():
    stored = shapes3d.arrays()[0]
    assert len(np.unique(stored.reshape(480, -1), axis=0)) == 480


def test_shapes3d_objects_grow_with_scale_and_mirror_with_orientation():
    thing = tables()[..., 2] > 0
    areas = thing.sum((-2, -1))
    assert (np.diff(areas, axis=0) > 0).all()
    wall = tables()[..., 3] > 0
    np.testing.assert_array_equal(thing, thing[:, :, ::-1, :, ::-1])
    np.testing.assert_array_equal(wall, wall[:, :, ::-1, :, ::-1])


def test_shapes3d_against_real_frames():
    with np.load(real_data("shapes3d_frames.npz")) as archive:
        frames = archive["images"] / np.float32(255)
    views = tables().reshape(480, 64 * 64, 5).astype(np.float32)
    absolute, squared = [], []
    for frame in frames:
        parts = frame[58:, :20], frame[22:30, [0, 1, 2, 61, 62, 63]], frame[42:48, 31:34]
        colours = [nearest_hue(part) for part in parts]
        colours = np.array([*colours, (0.6, 226 / 255, 249 / 255), (1, 1, 1)], np.float32)
        error = np.minimum(views @ colours, 1) - frame.reshape(-1, 3)
        best = np.abs(error).mean((1, 2)).argmin()
        absolute.append(np.abs(error[best]).mean())
        squared.append(np.square(error[best]).mean())
    psnr = -10 * np.log10(squared)
    print(f"\nmean absolute difference {np.mean(absolute):.4f}, PSNR {psnr.mean():.1f} dB")
    assert np.mean(absolute) < 0.013
    assert psnr.mean() > 27


def nearest_hue(pixels):
    """Of the ten hues the one that pixels, but for their brightness, are nearest to."""
    pixels = pixels.reshape(-1, 3)
    pixels = pixels[pixels.max(1) > 0.35]
    seen = np.median(pixels / pixels.max(1, keepdims=True), axis=0)
    hues = [colorsys.hsv_to_rgb(k / 10, 1, 1) for k in range(10)]
    return min(hues, key=lambda hue: np.square(np.array(hue) - seen).sum())
