import functools

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import changed
from PIL import Image

from bvae_jax.config import Config, TraversalSettings
from bvae_jax.errors import UserError
from bvae_jax.runs import traversals
from bvae_jax.runs.figures import MOST_FRAMES, is_due
from bvae_jax.runs.trainer import Trainer
from bvae_jax.runs.traversals import (
    Latents,
    best_start,
    by_size,
    central,
    chosen_rows,
    draw_traversals,
    image_of,
    interpolate,
    look,
    rows_of,
    spans_of,
    traverse,
    values_of,
    with_source,
)
from bvae_jax.types import Posterior
from bvae_jax.vae import CODEBOOK


@functools.cache
def trainer(objective):
    config = Config(
        network="mlp", objective=objective, image_source="rendered", eval_images=5, latents=3,
        levels=4 if objective == "qlae" else 10,
    )  # fmt: skip
    return Trainer(config, progress=False)


def show_code(z):
    """A decoder whose image is the code itself."""
    return z[:, None, :, None]


def test_traverse_varies_one_latent_in_each_row():
    code = jnp.array([10.0, 20.0, 30.0])
    values = jnp.array([-1.0, 0.0, 1.0, 2.0])
    grid = np.asarray(traverse(show_code, code, jnp.array([2, 0]), values))
    assert grid.shape == (2, 4, 1, 3, 1)
    for column, value in enumerate(values):
        np.testing.assert_array_equal(grid[0, column, 0, :, 0], [10, 20, value])
        np.testing.assert_array_equal(grid[1, column, 0, :, 0], [value, 20, 30])


def test_interpolate_goes_straight_from_end_to_end():
    start, end = jnp.array([[0.0, 0.0], [1.0, 1.0]]), jnp.array([[4.0, 8.0], [1.0, 5.0]])
    grid = np.asarray(interpolate(show_code, start, end, 5))[:, :, 0, :, 0]
    np.testing.assert_allclose(grid[0], [[0, 0], [1, 2], [2, 4], [3, 6], [4, 8]])
    np.testing.assert_allclose(grid[1], [[1, 1], [1, 2], [1, 3], [1, 4], [1, 5]])


def test_by_kl_puts_the_most_informative_first_and_ties_in_order():
    order = by_size(jnp.array([0.5, 2.0, 0.5, 3.0]))
    np.testing.assert_array_equal(order, [3, 1, 0, 2])


def test_it_starts_from_a_central_code_of_what_is_well_reconstructed():
    """A dot that is lost altogether costs little, and is no good start."""
    images, decoded = np.zeros((5, 16, 16, 1)), np.zeros((5, 16, 16, 1))
    images[0, 8, 8] = 1  # the dot: decoded as nothing
    for number, (side, grey) in enumerate(((3, 0.9), (4, 0.8), (5, 0.7), (6, 0.2)), 1):
        place = number, slice(-side, None) if number % 2 else slice(side), slice(side)
        place = (*place[:2], slice(-side, None)) if number > 2 else place
        images[place], decoded[place] = 1, grey
    codes = np.array([[0.0, 0.0], [3.0, 0.0], [0.5, -1.0], [1.0, 0.4], [0.1, 0.0]])
    assert best_start(images, decoded, codes) == 3
    assert best_start(images, decoded, codes + np.array([5.0, 0.0])) == 3


def test_an_autoencoders_latents_count_by_their_spread():
    """A constant one is not active; one of large numbers is no further from the centre."""
    codes = np.zeros((5, 3), np.float32)
    codes[:, 0] = [-2, -0.1, 0.1, 0.2, 1.8]
    codes[:, 1] = [1, -900, 300, -301, 900]
    posterior = Posterior(jnp.asarray(codes), jnp.zeros((5, 3)))
    points = changed(trainer("ae"), encode=lambda *_: posterior)
    latents = look(points, {}, points.eval_indices)
    assert latents.active.tolist() == [True, True, False]
    np.testing.assert_allclose(latents.size, codes.std(axis=0), rtol=1e-6)
    start = central(points, latents, np.asarray(latents.images))
    np.testing.assert_array_equal(start.code, codes[2])
    assert start.number == points.eval_indices[0, 2]


def test_the_size_of_a_latent_is_its_mean_kl_over_all_images():
    def encode(params, indices):
        column = indices.astype(np.float32)[:, None]
        return Posterior(jnp.asarray(column * [0, 1, 2]), jnp.zeros((len(indices), 3)))

    latents = look(changed(trainer("beta_vae"), encode=encode), {}, np.array([[0, 2], [3, 3]]))
    np.testing.assert_allclose(latents.size, [0, 22 / 4 / 2, 4 * 22 / 4 / 2])  # mean² / 2
    assert latents.active.tolist() == [False, True, True]
    np.testing.assert_array_equal(latents.codes, [[0, 0, 0], [0, 2, 4]])  # of the first batch


def test_what_latents_are_set_to():
    """Numbers of the prior, of each latent's own spread, or the values of its codebook in order."""
    settings, order = TraversalSettings(range=2.0, columns=3), np.array([2, 0])
    latents = known([0.1] * 3, [True] * 3)._replace(
        mean=np.array([1.0, 2.0, 3.0]), spread=np.array([0.1, 0.2, 0.3])
    )
    for objective, wanted in (
        ("beta_vae", [-2, 0, 2]),
        ("ae", [[2.4, 3, 3.6], [0.8, 1, 1.2]]),
    ):
        values, *_ = values_of(trainer(objective), latents, order, spans_of(settings, latents))
        np.testing.assert_allclose(values, wanted, rtol=1e-6)

    def encode(params, indices):
        return Posterior(jnp.zeros((len(indices), 3)), jnp.zeros((len(indices), 3)))

    book = jnp.array([[3.0, 0.0, 1.0, 2.0], [0.0, 1.0, 2.0, 3.0], [8.0, 5.0, 6.0, 7.0]])
    quantised = changed(trainer("qlae"), encode=encode)
    latents = look(quantised, {CODEBOOK: book}, np.array([[0, 1]]))
    for columns, places in ((3, [0, 2, 3]), (11, [0, 1, 2, 3])):
        spans = spans_of(TraversalSettings(columns=columns), latents)
        np.testing.assert_array_equal(spans, places)
        values, *_ = values_of(quantised, latents, order, spans)
        np.testing.assert_array_equal(values, [[5 + p for p in places], places])


def test_above_the_rows_are_the_image_and_then_its_reconstruction():
    one = np.ones((2, 2, 1))
    grid = with_source(one, 2 * one, np.full((1, 3, 2, 2, 1), 3.0))
    np.testing.assert_array_equal(grid[:, :, 0, 0, 0], [[1, 2, np.nan], [3, 3, 3]])


def test_a_picture_is_read_as_it_is(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.b.png")
    start = image_of(trainer("ae"), str(tmp_path / "a.b.png"))
    np.testing.assert_allclose(start.image[..., 0], pixels / 255, rtol=1e-6)
    assert (start.number, start.stem) == (-1, "traversal-a_b")
    Image.new("L", (100, 70)).save(tmp_path / "wide.png")  # height before width, as of the image
    wide = image_of(trainer("ae"), str(tmp_path / "wide.png"))
    assert wide.title == "wide.png (70×100)\nas 64×64×1"


def test_each_image_that_is_given_has_files_of_its_own(tmp_path, monkeypatch):
    drawn = []
    nothing = known([0.1] * 3, [True] * 3)

    def encode(images):
        mean = images.sum(axis=(1, 2, 3))[:, None] * jnp.arange(3)[None]
        return Posterior(mean, mean)

    monkeypatch.setattr(traversals, "fixed_coders", lambda *_: (encode, show_code))
    monkeypatch.setattr(traversals, "look", lambda *_: nothing)
    monkeypatch.setattr(traversals, "draw_traversal", lambda *args: drawn.append(args[-1]) or [])
    draw_traversals(tmp_path, trainer("ae"), {}, TraversalSettings(images=(7, 737279, 7)))
    stems = ["traversal-7", "traversal-737279", "traversal-7-3"]
    assert [start.stem for start in drawn] == stems
    for start in drawn:
        np.testing.assert_allclose(start.code, start.image.sum() * np.arange(3), rtol=1e-5)

    paths = [tmp_path / name for name in ("a.png", "other/a.png", "a-2.png")]
    paths[1].parent.mkdir()
    for path in paths:
        Image.new("L", (64, 64)).save(path)
    drawn.clear()
    draw_traversals(tmp_path, trainer("ae"), {}, TraversalSettings(images=tuple(map(str, paths))))
    assert [start.stem for start in drawn] == ["traversal-a", "traversal-a-2", "traversal-a-2-3"]


def known(size, active):
    none = np.zeros(len(size))
    codes = np.zeros((1, len(size)))
    return Latents(jnp.zeros((1, 8, 8, 1)), codes, np.array(size), np.array(active), none, none)


@pytest.mark.parametrize(
    ("settings", "rows", "said"),
    [
        ({}, [3, 1], "not shown: 2 not active (variance of the mean ≤ 0.01)"),
        ({"all_latents": True}, [3, 1, 2, 0], ""),
        ({"latents": "2, 3,2"}, [2, 3], ""),
    ],
)
def test_active_latents_are_shown_and_how_many_are_not_is_said(settings, rows, said):
    latents = known([0.1, 2.0, 0.5, 3.0], [False, True, False, True])
    found, told = rows_of(trainer("beta_vae"), TraversalSettings(**settings), latents)
    assert (found.tolist(), told) == (rows, said)


def test_rows_where_no_latent_is_active_or_very_many_are():
    found, told = rows_of(
        trainer("beta_vae"), TraversalSettings(), known([0.1, 0.2], [False, False])
    )
    assert (found.tolist(), told) == ([1, 0], "no latent is active (variance of the mean > 0.01)")
    many = known(np.arange(50.0, 0, -1), [True] * 45 + [False] * 5)
    found, told = rows_of(trainer("beta_vae"), TraversalSettings(), many)
    assert found.tolist() == list(range(20))
    assert told == "not shown: 5 not active (variance of the mean ≤ 0.01), 25 of a smaller KL"
    found, told = rows_of(trainer("ae"), TraversalSettings(), many)
    assert found.tolist() == list(range(20))
    assert told == "not shown: 5 not active (one value), 25 of a smaller standard deviation"
    found, told = rows_of(trainer("ae"), TraversalSettings(), known([0.0, 0.0], [False, False]))
    assert (found.tolist(), told) == ([0, 1], "no latent is active (more than one value)")


@pytest.mark.parametrize("latents", ["3,10", "x", "-1", "1,,2"])
def test_latents_that_are_none(latents):
    with pytest.raises(UserError, match="wanted numbers from 0 to 9 with commas"):
        chosen_rows(TraversalSettings(latents=latents), 10)


@pytest.mark.parametrize(("steps", "due"), [(12, 3), (3000, 500), (100_000, 10), (10_000, 7)])
def test_a_run_keeps_so_many_frames_however_often_it_could(steps, due):
    kept = []
    for step in [*range(due, steps, due), steps]:
        kept += [step] if is_due(step, steps, kept) else []
    assert kept[-1] == steps
    possible = -(-steps // due)
    assert min(possible, 0.8 * MOST_FRAMES) <= len(kept) <= MOST_FRAMES + 1
