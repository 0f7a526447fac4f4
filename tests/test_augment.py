"""Augmentation, against slices of the same images by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bvae_jax.data.augment import parse_augment
from bvae_jax.errors import UserError

IMAGES = jax.random.uniform(jax.random.key(7), (64, 8, 10, 3))


def augmented(text, key=0, images=IMAGES):
    _, height, width, channels = images.shape
    function = parse_augment(text, (height, width, channels))
    assert function is not None
    return np.asarray(jax.jit(function)(images, jax.random.key(key)))


def test_none():
    assert parse_augment("", (8, 8, 1)) is None


@pytest.mark.parametrize("text", ["shift=2", "flip", "crop=0.5", "shift=1,flip,crop=0.9"])
def test_a_pure_function_of_images_and_key(text):
    a, b, c = (augmented(text, key) for key in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()
    assert a.shape == IMAGES.shape
    assert a.dtype == np.float32
    assert a.min() >= 0
    assert a.max() <= 1
    alone = augmented(text, images=jnp.broadcast_to(IMAGES[:1], IMAGES.shape))
    assert len(np.unique(alone, axis=0)) > 1, "each image has its own randomness"


def test_flip_mirrors_about_half():
    found, plain = augmented("flip"), np.asarray(IMAGES)
    mirrored = (found == plain[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (mirrored | (found == plain).all(axis=(1, 2, 3))).all()
    assert 16 < mirrored.sum() < 48


def test_shift_moves_by_whole_pixels_and_repeats_the_edge():
    found, seen = augmented("shift=2"), set()
    wide = np.pad(np.asarray(IMAGES), ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    for image, padded in zip(found, wide, strict=True):
        places = [
            (i, j) for i in range(5) for j in range(5)
            if (image == padded[i : i + 8, j : j + 10]).all()
        ]  # fmt: skip
        assert len(places) == 1
        seen |= set(places)
    assert len(seen) > 15
    assert {i for i, _ in seen} == {j for _, j in seen} == set(range(5))


def test_crop_keeps_a_ramp_a_ramp():
    """A linear picture stays linear when a part of it is stretched: the slope is the part's side,
    the ends stay inside."""
    ramp = jnp.broadcast_to(jnp.linspace(0, 1, 64)[None, None, :, None], (256, 64, 64, 1))
    found = augmented("crop=0.25", images=ramp)[:, 20, 8:-8, 0]
    slopes = np.diff(found, axis=1)
    np.testing.assert_allclose(slopes, slopes.mean(axis=1, keepdims=True) * np.ones(47), atol=1e-5)
    side = slopes.mean(axis=1) * 63
    assert 0.5 <= side.min() < 0.53
    assert 0.97 < side.max() <= 1.0001
    # From one end to the other: the part's left edge, of what is left beside the part.
    place = (found[:, 0] - 8 * slopes.mean(axis=1))[side < 0.8] / (1 - side[side < 0.8])
    assert -0.01 < place.min() < 0.1
    assert 0.9 < place.max() < 1.02


@pytest.mark.parametrize(
    "text", ["turn", "shift", "shift=0", "shift=1.5", "shift=8", "crop", "crop=1", "crop=0",
             "flip=1", "shift=a", "shift=nan", "flip,,", "crop=-1"],
)  # fmt: skip
def test_what_cannot_be_read(text):
    with pytest.raises(UserError, match=r"--augment: got .*wanted") as error:
        parse_augment(text, (8, 10, 3))
    assert "\n" not in str(error.value)
