"""Laws that every registered data set obeys, and what is known of dSprites."""

import dataclasses
import functools
import json
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_equal, real_data
from PIL import Image

from bvae_jax.config import Config, ScoreConfig
from bvae_jax.data import (
    DATASETS,
    base,
    dsprites,
    get_dataset,
    open_dataset,
    sampling,
    sources,
    variants,
)
from bvae_jax.data.sources import make_source
from bvae_jax.errors import UserError
from bvae_jax.evaluation.evaluate import evaluate
from bvae_jax.runs.run import load
from bvae_jax.runs.sweep import sweep
from bvae_jax.runs.train import train
from bvae_jax.vae import decode

NAMES = sorted(DATASETS)
NONE = np.arange(0)
CACHED = [name for name in NAMES if getattr(DATASETS[name].pixels, "cache", "") == f"{name}-v1"]


@functools.cache
def packed(name):
    pixels = DATASETS[name].pixels
    assert isinstance(pixels, base.Rendered)
    return sources.load_packed(pixels, progress=False)


@functools.cache
def rows(name):
    """Each image as one opaque value, for counting."""
    array = packed(name)
    return array.view(f"V{array.shape[1]}").ravel()


@pytest.mark.parametrize("name", NAMES)
def test_index_and_factors_are_a_bijection(name):
    dataset = DATASETS[name]
    indices = jnp.arange(dataset.size)
    factors = jax.jit(dataset.factors)(indices)
    assert factors.shape == (dataset.size, len(dataset.factor_names))
    np.testing.assert_array_equal(factors.max(axis=0) + 1, dataset.factor_sizes)
    np.testing.assert_array_equal(jax.jit(dataset.indices)(factors), indices)


def test_an_index_that_no_image_has_is_refused():
    """JAX would take the nearest."""
    dataset = DATASETS["dsprites"]
    with pytest.raises(UserError, match=r"index 737280, wanted 0 to 737279: dsprites has 737,280"):
        dataset.factors(np.array([0, 737_280]))
    with pytest.raises(UserError, match=r"index -1, wanted"):
        dataset.factors(jnp.array([-1]))
    for strange in (np.ones(3, bool), np.array([1.5])):
        with pytest.raises(UserError, match=f"indices of {strange.dtype}, wanted whole numbers"):
            dataset.factors(strange)


@pytest.mark.parametrize("name", CACHED)
def test_resident_and_rendered_images_agree(name):
    """But for ties on an edge, which two compilations may break differently."""
    dataset = DATASETS[name]
    indices = jax.random.randint(jax.random.key(0), (2048,), 0, dataset.size)
    kept = sources.resident(dataset, base.Stored(packed(name), dataset.pixels.shape))
    drawn = sources.rendered(dataset)
    a = jax.jit(kept.look)(kept.arrays, indices)
    b = jax.jit(drawn.look)(drawn.arrays, indices)
    assert a.shape == b.shape == (2048, *dataset.image_shape)
    assert a.dtype == b.dtype == jnp.float32
    assert set(np.unique(a)) == {0.0, 1.0}
    assert np.sum(np.asarray(a != b)) <= 2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("holdout", [0.0, 0.1, 0.5])
def test_split_is_disjoint_and_parts_no_equal_images(name, holdout):
    dataset = DATASETS[name]
    parts = variants.split(dataset, holdout)
    assert len(np.intersect1d(parts.train, parts.holdout)) == 0
    assert len(parts.train) + len(parts.holdout) == dataset.size
    assert len(parts.holdout) == pytest.approx(holdout * dataset.size, rel=0.01)
    canonical = dataset.canonical or (lambda indices: indices)
    assert not set(canonical(parts.train)) & set(canonical(parts.holdout))
    again = variants.split(dataset, holdout)
    np.testing.assert_array_equal(parts.train, again.train)


@pytest.mark.parametrize("holdout", [1e-9, 1 - 1e-9])
def test_split_that_leaves_a_side_empty(holdout):
    with pytest.raises(UserError, match="--holdout"):
        variants.split(DATASETS["dsprites"], holdout)


def test_training_draws_every_training_image_equally_and_no_other():
    train = np.array([3, 5, 8, 13])
    numbered = jnp.arange(20.0).reshape(20, 1, 1, 1)
    source = sources.Source(numbered, lambda arrays, indices, _: arrays[indices])
    pool = sampling.uniform_pool(train)
    draw = jax.jit(sampling.make_draw(source, sampling.make_pick(pool, 4000)))
    drawn = np.asarray(draw((pool, source.arrays), jax.random.key(0)))
    values, counts = np.unique(drawn, return_counts=True)
    np.testing.assert_array_equal(values, train)
    assert np.sum((counts - 1000) ** 2 / 1000) < 16.3  # chi-squared, 3 degrees, p = 0.001


def test_a_batch_is_a_pure_function_of_the_key():
    source = make_source(DATASETS["dsprites"], "rendered", "cpu")
    pool = sampling.uniform_pool(np.arange(1000))
    draw = jax.jit(sampling.make_draw(source, sampling.make_pick(pool, 8)))
    data = (pool, source.arrays)
    a, b, c = (draw(data, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


@pytest.mark.once
@pytest.mark.usefixtures("tiny_network")
@pytest.mark.parametrize("name", ["noisy_dsprites", "shapes3d_render"])
def test_a_run_on_it_resumes_bit_for_bit(name, tmp_path):
    config = Config(dataset=name, network="tiny", batch_size=4, latents=2, steps=4,
                    eval_images=8, checkpoint_every=2, log_every=1)  # fmt: skip
    options: dict[str, Any] = {"figures": False, "progress": False}
    whole = train(config, tmp_path / "whole", **options)
    train(dataclasses.replace(config, steps=2), tmp_path / "parts", **options)
    resumed = train(config, tmp_path / "parts", resume=True, **options)
    assert_equal(resumed.state, whole.state)
    provenance = json.loads((tmp_path / "whole" / "provenance.json").read_text())
    data = provenance["sessions"][0]["data"]
    assert data["identity"] == DATASETS[name].identity
    assert data["train"] + data["holdout"] == data["images"] == DATASETS[name].size


OPTIONS: dict[str, Any] = {"figures": False, "progress": False}


def pictures(path, seed=0):
    random = np.random.default_rng(seed)
    for name in ("0/a.png", "10/b.png", "10/c.png", "2/d.png", "2/e.png", "2/f.png"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8), np.uint8)).save(path / name)


def on(dataset, **changes):
    return Config(dataset=str(dataset), network="tiny", batch_size=2, latents=2, eval_images=2,
                  checkpoint_every=2, log_every=1, holdout=0.34, **changes)  # fmt: skip


@pytest.fixture
def elsewhere(tmp_path, monkeypatch, tiny_network):
    """A run on a folder, seen from another directory."""
    monkeypatch.setenv("BVAE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "pictures")
    config = on("folder:pictures", image_size=8, grey=True, steps=2)
    train(config, tmp_path / "run", **OPTIONS)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    return tmp_path / "run", config


def test_a_run_is_used_from_another_directory(elsewhere):
    directory, _ = elsewhere
    loaded = load(directory, progress=False)
    assert loaded.trainer.dataset.size == 6
    resumed = train(on("folder:pictures", steps=4), directory, resume=True, **OPTIONS)
    assert int(resumed.state.step) == 4
    assert resumed.config == load(directory, progress=False).config
    assert (resumed.config.image_size, resumed.config.grey) == (8, True)


def test_a_run_whose_images_were_moved(elsewhere, tmp_path, monkeypatch):
    directory, config = elsewhere
    (tmp_path / "pictures").rename(tmp_path / "moved")
    match = r"run: its images are not in folder:pictures any more.*--dataset folder:PATH"
    with pytest.raises(UserError, match=match):
        load(directory, progress=False)
    with pytest.raises(UserError, match=match):
        train(config, directory, resume=True, **OPTIONS)

    moved = f"folder:{tmp_path / 'moved'}"
    loaded, bare = load(directory, dataset=moved, progress=False), load(directory, data=False)
    assert_equal(bare.state, loaded.state)
    z = jnp.ones((3, 2))
    images = decode(bare.model, bare.params, z)
    np.testing.assert_array_equal(images, decode(loaded.model, loaded.params, z))
    assert set(evaluate(directory, ScoreConfig("mig"), dataset=moved, **OPTIONS)) == {"mig"}

    pictures(tmp_path / "others", seed=1)
    others = f"folder:{tmp_path / 'others'}"
    for refused in (lambda: load(directory, dataset=others, progress=False),
                    lambda: train(on(others, image_size=8, grey=True, steps=4), directory,
                                resume=True, **OPTIONS)):  # fmt: skip
        with pytest.raises(UserError, match="its images changed"):
            refused()
    with pytest.raises(UserError, match=r"another config \(dataset: folder:pictures -> dsprites"):
        load(directory, dataset="dsprites", progress=False)

    # A run that is resumed remembers the new place, though it is finished.
    train(dataclasses.replace(config, dataset=moved), directory, resume=True, **OPTIONS)
    assert load(directory, progress=False).config.dataset == moved


def test_a_run_does_not_go_on_from_damaged_images(elsewhere, tmp_path):
    directory, config = elsewhere
    (path,) = (tmp_path / "data").glob("*/images.npy")
    before, times = path.read_bytes(), path.stat()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    config = dataclasses.replace(config, steps=4)
    with pytest.raises(UserError, match="is not what was written"):
        train(config, directory, resume=True, **OPTIONS)
    assert int(load(directory, progress=False).state.step) == 2


def test_a_sweep_whose_images_were_moved(elsewhere, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = on("folder:pictures", image_size=8, grey=True, steps=2)
    options: dict[str, Any] = {"progress": False, "strategy": "sequential"}
    sweep(config, tmp_path / "sweep", seeds=1, **options)
    monkeypatch.chdir(tmp_path / "other")
    again = sweep(config, tmp_path / "sweep", seeds=1, **options)
    assert list(again.statuses.values()) == ["done"]
    (tmp_path / "pictures").rename(tmp_path / "moved")
    pictures(tmp_path / "others", seed=1)
    others = dataclasses.replace(config, dataset=f"folder:{tmp_path / 'others'}")
    with pytest.raises(UserError, match="its images changed"):
        sweep(others, tmp_path / "sweep", seeds=2, **options)
    moved = dataclasses.replace(config, dataset=f"folder:{tmp_path / 'moved'}")
    again = sweep(moved, tmp_path / "sweep", seeds=2, **options)
    assert list(again.statuses.values()) == ["done"] * 2
    assert [int(run.state.step) for run in again.values()] == [config.steps] * 2


def drawn_pairs(changes, allowed=None):
    """Factors of both images of 3,000 pairs of dSprites, and what was allowed."""
    dataset = DATASETS["dsprites"]
    mask = np.ones(dataset.size, bool) if allowed is None else allowed
    pool = sampling.uniform_pool(np.flatnonzero(mask))
    pick = jax.jit(sampling.make_pair_pick(dataset, pool, 6000, changes))
    indices = np.asarray(pick((pool, jnp.asarray(mask)), jax.random.key(0)))
    factors = np.asarray(dataset.factors(jnp.asarray(indices)))
    return indices, factors[:3000], factors[3000:]


@pytest.mark.parametrize("changes", [1, 4])
def test_pairs_differ_in_so_many_factors_at_most(changes):
    _, first, second = drawn_pairs(changes)
    differing = (first != second).sum(axis=1)
    assert differing.max() == changes
    # A factor that is drawn anew stays what it was with probability 1 / its number of values.
    stays = np.mean(1 / np.array(DATASETS["dsprites"].factor_sizes))
    assert differing.mean() == pytest.approx(changes * (1 - stays), rel=0.05)
    # Each factor is as likely to be chosen as any other.
    changed = (first != second).mean(axis=0) / (1 - 1 / np.array(dsprites.FACTOR_SIZES))
    np.testing.assert_allclose(changed, changes / 5, rtol=0.15)


def test_pairs_that_share_nothing_are_refused():
    with pytest.raises(UserError, match="--pair-changes: got 5, wanted 0 or a number up to 4"):
        drawn_pairs(5)


def test_pairs_share_any_number_of_factors_but_all_by_default():
    _, first, second = drawn_pairs(0)
    assert set((first != second).sum(axis=1)) == {0, 1, 2, 3, 4}
    assert np.ptp(second, axis=0).tolist() == [size - 1 for size in dsprites.FACTOR_SIZES]


def test_pairs_hold_no_image_that_is_held_out():
    allowed = np.random.default_rng(0).random(DATASETS["dsprites"].size) < 0.5
    indices, first, second = drawn_pairs(0, allowed)
    assert allowed[indices].all()
    assert ((first != second).sum(axis=1) > 0).mean() > 0.8


def test_evaluation_uses_held_out_images_in_whole_batches():
    parts = variants.Split(np.arange(10, 100), np.arange(10), NONE, NONE)
    chosen = variants.evaluation_batches(parts, images=8, batch=3)
    assert chosen.shape == (2, 3)
    assert len(set(chosen.ravel())) == 6
    assert set(chosen.ravel()) <= set(range(10))
    assert variants.evaluation_batches(parts, images=8192, batch=256).shape == (1, 10)
    without = variants.Split(np.arange(100), NONE, NONE, NONE)
    assert variants.evaluation_batches(without, images=50, batch=25).shape == (2, 25)


def test_auto_is_resident_on_a_cpu_and_rendered_elsewhere():
    dataset = DATASETS["dsprites"]
    packed("dsprites")
    assert make_source(dataset, "auto", "cpu", progress=False).arrays.nbytes == 377_487_360
    assert make_source(dataset, "auto", "gpu").arrays == ()
    assert make_source(dataset, "auto", "tpu").arrays == ()


def test_arrays_in_memory():
    images = np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4, 1)
    factors = np.array([[0, 2], [1, 0], [0, 1], [1, 1], [0, 0], [0, 2]])
    mine = base.from_arrays("mine", images, factors, ["a", "b"])
    assert (mine.size, mine.image_shape, mine.factor_names) == (6, (4, 4, 1), ("a", "b"))
    assert (mine.factor_sizes, mine.grid) == ((2, 3), False)
    source = make_source(mine, "resident", "cpu")
    indices = jnp.array([5, 0])
    np.testing.assert_allclose(source.look(source.arrays, indices), images[[5, 0]] / 255, rtol=1e-6)
    np.testing.assert_array_equal(mine.factors(indices), factors[[5, 0]])
    others = (images[::-1], factors), (images, 1 - factors[:, :1]), (images, None)
    versions = {mine.version, *(base.from_arrays("mine", *two).version for two in others)}
    assert len(versions) == 4
    for wrong in (
        (images / 255, None),
        (images[0], None),
        (images, factors[1:]),
        (images, factors[:, 0]),
        (images, factors.astype(str)),
    ):
        with pytest.raises(UserError, match=r"mine: got .*, wanted"):
            base.from_arrays("mine", *wrong)
    with pytest.raises(
        UserError, match=r"got factors int64\[6\], wanted class indices .* \[6, 1\]"
    ):
        base.from_arrays("mine", images, factors[:, 0])
    with pytest.raises(UserError, match="mine: got the factor names a, a, wanted different ones"):
        base.from_arrays("mine", images, factors, ["a", "a"])
    for strange in (-factors, factors / 4, factors * np.nan, factors + 2**31):
        with pytest.raises(UserError, match=r"mine: factor[01] has .*, wanted"):
            base.from_arrays("mine", images, strange)
    floats = base.from_arrays("mine", images, factors.astype(float), ["a", "b"])
    assert floats.version == mine.version


def test_unknown_dataset_is_named():
    with pytest.raises(UserError, match=r"Unknown dataset 'celeba'\. Known: cars3d"):
        get_dataset("celeba")
    with pytest.raises(UserError, match=r"Unknown dataset 'mpi'\. Known: .*mpi3d_toy"):
        open_dataset(Config(dataset="mpi"), progress=False)


def test_dsprites_against_real_frames():
    with np.load(real_data("dsprites_frames.npz")) as archive:
        frames, factors = archive["images"] > 0, archive["factors"]
    drawn = np.asarray(jax.jit(dsprites.render)(factors))[..., 0] > 0
    exact = (drawn == frames).all((1, 2))
    iou = (drawn & frames).sum((1, 2)) / (drawn | frames).sum((1, 2))
    print(f"\nexact frames: {exact.sum()} of {len(exact)}; mean IoU {iou.mean():.6f}")
    assert exact.mean() >= 0.99
    assert iou.mean() >= 0.9999


def test_dsprites_geometry():
    """A square, level and in the upper left corner, then to the right, then lower."""
    factors = jnp.array([[0, 5, 0, 0, 0], [0, 5, 0, 31, 0], [0, 5, 0, 0, 31]])
    images = np.asarray(dsprites.render(factors))[..., 0]
    inside = np.zeros((64, 64))
    inside[6:26, 6:26] = 1  # 16 +- 9.597
    np.testing.assert_array_equal(images[0, 6:26, 6:26].min(), 1)
    np.testing.assert_array_equal(images[0], inside)
    np.testing.assert_array_equal(images[1], np.roll(inside, 32, axis=1))
    np.testing.assert_array_equal(images[2], np.roll(inside, 32, axis=0))


def test_dsprites_images_differ_except_where_angles_do():
    """The first and the last orientation are one angle; squares and ellipses look alike at some
    others, after a quarter or a half turn. Nothing else coincides."""
    dataset, values = DATASETS["dsprites"], rows("dsprites")
    factors = np.stack(np.unravel_index(np.arange(dataset.size), dataset.factor_sizes), axis=1)
    first, last = (values[factors[:, 2] == orientation] for orientation in (0, 39))
    np.testing.assert_array_equal(first, last)

    others = factors[:, 2] != 39
    values, factors = values[others], factors[others]
    order = np.argsort(values, kind="stable")
    same = values[order][1:] == values[order][:-1]
    pairs = factors[order][1:][same], factors[order][:-1][same]
    print(f"\ndistinct images: {len(values) - same.sum()} of {dataset.size}")
    assert len(values) - same.sum() == pytest.approx(715_716, abs=50)
    assert (pairs[0][:, [0, 1, 3, 4]] == pairs[1][:, [0, 1, 3, 4]]).all()
    assert set(pairs[0][:, 0]) == {0, 1}


def small():
    """A few images under a name of their own."""

    def render(f):
        return dsprites.render(jnp.concatenate([f, f[:, :1], f[:, 1:], f[:, 1:]], 1))

    return base.Rendered(render, (64, 64, 1), (3, 32), cache="small-v1")


def test_cache_is_made_read_and_mended(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BVAE_CACHE_DIR", str(tmp_path / "cache"))
    first = sources.load_packed(small(), progress=False)
    path = sources.cache_path(small())
    assert [p.name for p in path.parent.iterdir()] == ["small-v1.npz"]
    monkeypatch.setattr(sources, "render_packed", None)  # must not be called
    np.testing.assert_array_equal(sources.load_packed(small(), progress=False), first)
    assert capsys.readouterr().err == ""
    monkeypatch.undo()

    monkeypatch.setenv("BVAE_CACHE_DIR", str(tmp_path / "cache"))
    content = path.read_bytes()
    damages = {
        "flipped": content[:300] + bytes([content[300] ^ 255]) + content[301:],
        "text": b"hello",
    }
    for name, damaged in damages.items():
        path.write_bytes(damaged)
        np.testing.assert_array_equal(sources.load_packed(small(), progress=False), first, name)
        assert "is damaged" in capsys.readouterr().err
        assert path.stat().st_size == len(content)
    with path.open("wb") as file:
        np.savez(file, packed=np.zeros((5, 512), np.uint8))
    np.testing.assert_array_equal(sources.load_packed(small(), progress=False), first)
    assert "wanted uint8(96, 512)" in capsys.readouterr().err


def test_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BVAE_CACHE_DIR", os.fspath(tmp_path / "file" / "cache"))
    assert sources.load_packed(small(), progress=False).shape == (96, 512)
    assert "going on without" in capsys.readouterr().err
