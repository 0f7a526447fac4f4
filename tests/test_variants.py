"""Subsets, held-out combinations and correlated factors, against counts by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from bvae_jax.data import DATASETS, dsprites, sources, variants
from bvae_jax.data import sampling as drawing
from bvae_jax.data.base import Dataset, Rendered, Stored
from bvae_jax.errors import UserError

DSPRITES = DATASETS["dsprites"]
NONE = np.arange(0)


def tiny(labels=None, **changes):
    """Images of one pixel whose value is their index, with factors a, b and c."""
    sizes = (3, 4, 5)
    images = np.arange(60, dtype=np.uint8).reshape(60, 1, 1, 1)
    return Dataset(
        name="tiny", version=1, image_shape=(1, 1, 1), pixels=Stored(images, (1, 1, 1)),
        factor_names=("a", "b", "c"), factor_sizes=sizes, labels=labels, **changes,
    )  # fmt: skip


def pixel_values(dataset, indices):
    source = sources.make_source(dataset, "resident", "cpu")
    return np.rint(
        np.asarray(jax.jit(source.look)(source.arrays, jnp.asarray(indices))) * 255
    ).ravel()


def drawn(pool, count, seed=0):
    pick = jax.jit(drawing.make_pick(pool, count))
    return np.asarray(pick(jax.tree.map(jnp.asarray, pool), jax.random.key(seed)))


@pytest.mark.parametrize(
    ("text", "factor", "values"),
    [
        ("shape=2", 0, [2]),
        ("scale != 2", 1, [0, 1, 3, 4, 5]),
        ("x>29", 3, [30, 31]),
        ("x<=1", 3, [0, 1]),
        (" scale=0|5 ", 1, [0, 5]),
        ("orientation=0:40:10", 2, [0, 10, 20, 30]),
        ("orientation=38:", 2, [38, 39]),
        ("scale=1:3|5", 1, [1, 2, 5]),
        ("y>=31", 4, [31]),
    ],
)
def test_conditions(text, factor, values):
    (condition,) = variants.parse_conditions(text, DSPRITES, "--only")
    assert condition.factor == factor
    np.testing.assert_array_equal(np.flatnonzero(condition.values), values)


@pytest.mark.parametrize(
    "text",
    ["", "shape", "shape=", "shape=3", "shape=-1", "hue=1", "shape=a", "x>31", "x<0", "x=5:5",
     "shape=1,", "x=1:2:3:4", "x=::0", "scale!=0:6", "shape==1", "x=1.5", "x=|"],
)  # fmt: skip
@pytest.mark.parametrize("use", [variants.only, variants.excluded])
def test_conditions_that_cannot_be(use, text):
    with pytest.raises(UserError, match=r"--(only|exclude): .*wanted") as error:
        use(DSPRITES, text)
    assert "\n" not in str(error.value)


def test_only_of_a_grid_is_a_grid():
    dataset = variants.only(tiny(), "a=0|2,c=1:5:2")
    assert dataset.factor_sizes == (2, 4, 2)
    assert dataset.size == 16
    assert dataset.grid
    assert dataset.identity != tiny().identity
    factors = np.asarray(dataset.factors(jnp.arange(16)))
    np.testing.assert_array_equal(dataset.indices(jnp.asarray(factors)), np.arange(16))
    a, b, c = np.array([0, 2])[factors[:, 0]], factors[:, 1], np.array([1, 3])[factors[:, 2]]
    np.testing.assert_array_equal(pixel_values(dataset, np.arange(16)), a * 20 + b * 5 + c)


def test_names_of_factors_need_not_be_words():
    named = dataclasses.replace(tiny(), factor_names=("a-b", "b (c)", "d/e"))
    dataset = variants.only(named, "a-b=0|2, d/e>=3 ,b (c)!=1")
    assert dataset.factor_sizes == (2, 3, 2)
    out = variants.excluded(named, "d/e<2;a-b!=0")
    np.testing.assert_array_equal(out, variants.excluded(tiny(), "c<2;a!=0"))


def test_only_twice_is_both():
    twice = variants.only(variants.only(tiny(), "a=0|2"), "a=1,b>1")
    np.testing.assert_array_equal(
        pixel_values(twice, np.arange(10)), pixel_values(tiny(), np.arange(50, 60))
    )


def test_only_with_labels_keeps_rows():
    labels = np.random.default_rng(0).integers(0, (3, 4, 5), (60, 3)).astype(np.int32)
    whole = tiny(labels, published_test=np.arange(40, 60))
    dataset = variants.only(whole, "b!=2")
    rows = np.flatnonzero(labels[:, 1] != 2)
    np.testing.assert_array_equal(pixel_values(dataset, np.arange(dataset.size)), rows)
    b = np.asarray(dataset.factors(jnp.arange(dataset.size)))[:, 1]
    np.testing.assert_array_equal(np.array([0, 1, 3])[b], labels[rows, 1])
    np.testing.assert_array_equal(rows[dataset.published_test], rows[rows >= 40])


def test_only_of_a_rendered_set_draws_the_right_images():
    dataset = variants.only(DSPRITES, "shape=1,orientation=0:40:13,scale=3")
    indices = jnp.array([0, 2000, dataset.size - 1])
    source = sources.make_source(dataset, "rendered", "cpu")
    factors = dataset.factors(indices)
    real = jnp.stack([1 + factors[:, 0], 3 + factors[:, 1], 13 * factors[:, 2]], axis=1)
    expected = jax.jit(dsprites.render)(jnp.concatenate([real, factors[:, 3:]], axis=1))
    np.testing.assert_array_equal(jax.jit(source.look)(source.arrays, indices), expected)
    # A full turn is still the same image as none.
    assert dataset.canonical
    same = dataset.canonical(np.array([dataset.indices(jnp.array([[0, 0, k, 7, 7]]))[0]
                                       for k in (0, 3)]))  # fmt: skip
    assert same[0] == same[1]


def test_only_that_leaves_too_little():
    with pytest.raises(UserError, match="leaves 2 images"):
        variants.only(tiny(), "a=1,b=1,c<2")
    with pytest.raises(UserError, match="leaves 0 images"):
        variants.only(tiny(), "a=1,a=2")


def test_without_factors_there_is_nothing_to_choose_by():
    plain = dataclasses.replace(tiny(), factor_names=(), factor_sizes=())
    for use in (variants.only, variants.excluded):
        with pytest.raises(UserError, match="tiny has no factors"):
            use(plain, "a=1")
    with pytest.raises(UserError, match="has: none"):
        variants.training_pool(plain, np.arange(60), "a,b=1")


def by_values(*axes):
    """[image, factor] the values of factors, of a whole grid."""
    return np.stack([x.ravel() for x in np.meshgrid(*axes, indexing="ij")], axis=1)


def test_named_combinations_are_those_of_montero():
    """By the values of factors, as their code selects them."""
    turn = np.linspace(0, 2 * np.pi, 40)
    half = np.linspace(0, 1, 32)
    shape, scale, angle, x, y = by_values(
        np.arange(1, 4), np.linspace(0.5, 1, 6), turn, half, half
    ).T
    third = 2 * np.pi / 3
    apart = (scale > 0.6 + 1e-9) & (angle > third + 1e-9) & (angle < 2 * third - 1e-9)
    wanted = {
        "recombination_to_element": (shape == 2) & apart & (x > 0.66) & (y > 0.66),
        "recombination_to_range": (shape == 1) & (x > 0.5),
        "extrapolation": x > 0.5,
    }
    for name, out in wanted.items():
        np.testing.assert_array_equal(variants.excluded(DSPRITES, name), out)
    hues = np.arange(10) / 10
    grid = hues, hues, hues, np.linspace(0.75, 1.25, 8), np.arange(4), np.linspace(-30, 30, 15)
    floor, wall, thing, scale, shape, angle = by_values(*grid).T
    bright = (floor >= 0.8) & (wall >= 0.8) & (thing >= 0.8)
    wanted = {
        "recombination_to_element": bright & (scale >= 1.1) & (shape == 1) & (angle > 20),
        "recombination_to_range": (shape == 3) & (thing >= 0.5),
        "extrapolation": floor >= 0.5,
    }
    for name, out in wanted.items():
        np.testing.assert_array_equal(variants.excluded(DATASETS["shapes3d_render"], name), out)
    with pytest.raises(UserError, match="got 'extrapolated', wanted recombination_to_element, "):
        variants.excluded(DSPRITES, "extrapolated")
    with pytest.raises(UserError, match="tiny has no combinations with a name"):
        variants.excluded(tiny(), "extrapolation")


def test_excluded_combinations_are_never_drawn():
    out = variants.excluded(tiny(), "a=2,b>1;c=0")
    a, b, c = np.unravel_index(np.arange(60), (3, 4, 5))
    np.testing.assert_array_equal(out, ((a == 2) & (b > 1)) | (c == 0))
    parts = variants.split(tiny(), 0.2, 0.1, excluded=out)
    np.testing.assert_array_equal(parts.excluded, np.flatnonzero(out))
    told = variants.parts_of({name: len(part) for name, part in parts._asdict().items()})
    assert told == "28 to train on, 8 held out, 4 for the test, 20 excluded"
    assert variants.parts_of(
        {"train": 1000, "holdout": 0, "test": 0, "excluded": 0, "split": 1}
    ) == ("1,000 to train on")
    assert sorted(np.concatenate(parts)) == list(range(60))
    counts = np.bincount(drawn(variants.training_pool(tiny(), parts.train, ""), 40_000),
                         minlength=60)  # fmt: skip
    assert (counts > 0).sum() == len(parts.train)
    assert chisquare(counts[parts.train]).pvalue > 1e-3


@pytest.mark.parametrize("width", [0.1, 0.2, 0.7, 100.0])
def test_correlated_factors_have_the_published_frequencies(width):
    parts = variants.split(tiny(), 0.2)
    pool = variants.training_pool(tiny(), parts.train, f"a,c={width}")
    a, _, c = np.unravel_index(parts.train, (3, 4, 5))
    weights = np.exp(-((a / 2 - c / 4) ** 2) / (2 * width**2))
    expected = 200_000 * weights / weights.sum()
    counts = np.bincount(drawn(pool, 200_000), minlength=60)
    assert counts.sum() == counts[parts.train].sum()
    likely = expected > 5
    rest = [counts[parts.train][~likely].sum()], [expected[~likely].sum()]
    seen, wanted = (
        np.concatenate([x[likely], r if rest[1][0] > 5 else []])
        for x, r in zip((counts[parts.train], expected), rest, strict=True)
    )
    assert chisquare(seen, wanted * seen.sum() / wanted.sum()).pvalue > 1e-3


def test_two_correlations_multiply_and_respect_what_is_held_out():
    out = variants.excluded(tiny(), "a=0,c=0")
    parts = variants.split(tiny(), 0.0, excluded=out)
    pool = variants.training_pool(tiny(), parts.train, "a,c=0.5;b,c=0.4")
    a, b, c = np.unravel_index(parts.train, (3, 4, 5))
    weights = np.exp(-((a / 2 - c / 4) ** 2) / 0.5 - (b / 3 - c / 4) ** 2 / 0.32)
    expected = 400_000 * weights / weights.sum()
    counts = np.bincount(drawn(pool, 400_000), minlength=60)[parts.train]
    assert expected.min() > 5
    assert chisquare(counts, expected).pvalue > 1e-3


def test_correlated_dsprites():
    """Three shapes and six scales over 700,000 images, against the formula."""
    train = np.arange(DSPRITES.size, dtype=np.int32)
    pool = variants.training_pool(DSPRITES, train, "shape,scale=0.2")
    factors = np.stack(np.unravel_index(drawn(pool, 100_000), DSPRITES.factor_sizes), axis=1)
    shape, scale = np.indices((3, 6))
    weights = np.exp(-((shape / 2 - scale / 5) ** 2) / 0.08)
    counts = np.zeros((3, 6))
    np.add.at(counts, (factors[:, 0], factors[:, 1]), 1)
    expected = (100_000 * weights / weights.sum()).ravel()
    rare = expected < 5
    seen = np.append(counts.ravel()[~rare], counts.ravel()[rare].sum())
    assert chisquare(seen, np.append(expected[~rare], expected[rare].sum())).pvalue > 1e-3
    for k in (2, 3, 4):  # the others stay uniform
        assert chisquare(np.bincount(factors[:, k])).pvalue > 1e-3


@pytest.mark.parametrize(
    "text", ["a", "a,b", "a,b=", "a,a=1", "a,d=1", "a,b,c=1", "a,b=0", "a,b=x", "a,b=-1",
             "a,b=nan", "a,b=1;", "a,b=1e9"],
)  # fmt: skip
def test_correlations_that_cannot_be(text):
    with pytest.raises(UserError, match=r"--correlate: got .*wanted") as error:
        variants.training_pool(tiny(), np.arange(60), text)
    assert "\n" not in str(error.value)


def test_split_by_index_seed_and_publisher():
    dataset = tiny(published_test=np.arange(50, 60))
    parts = variants.split(dataset, 0.1, 0.2, by="index")
    np.testing.assert_array_equal(parts.train, np.arange(42))
    np.testing.assert_array_equal(parts.holdout, np.arange(42, 48))
    np.testing.assert_array_equal(parts.test, np.arange(48, 60))
    parts = variants.split(dataset, 0.1, by="published")
    np.testing.assert_array_equal(parts.test, np.arange(50, 60))
    assert len(parts.holdout) == 5
    assert not set(parts.holdout) & set(parts.test)
    repeated = tiny(published_test=np.arange(50, 60), canonical=lambda indices: indices % 55)
    half = variants.split(repeated, 0.5, by="published")  # five images are in the test set, too
    assert (len(half.train), len(half.holdout), len(half.test)) == (25, 25, 10)
    zero, one = (variants.split(dataset, 0.2, 0.2, seed=seed) for seed in (0, 1))
    assert set(zero.test) != set(one.test)
    for found in (parts, half, zero, one):
        assert sorted(np.concatenate(found)) == list(range(60))
    np.testing.assert_array_equal(zero.named("all"), np.arange(60))
    np.testing.assert_array_equal(zero.named("test"), zero.test)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"holdout": 0.6, "test": 0.4}, "leave images to train on"),
        ({"holdout": 0.0, "test": 0.001}, "--test 0.001 puts 0 of 60"),
        ({"holdout": 0.0, "by": "published"}, "no published test set"),
    ],
)
def test_splits_that_cannot_be(settings, message):
    with pytest.raises(UserError, match=message):
        variants.split(tiny(), **settings)


def test_published_test_set_and_a_fraction_of_its_own():
    with pytest.raises(UserError, match="says what the test set is"):
        variants.split(tiny(published_test=np.arange(9)), 0.1, 0.1, by="published")


@pytest.mark.parametrize("only", ["", "shape=1,orientation=0:40:13,scale=3"])
def test_test_images_that_are_equal_are_never_parted(only):
    dataset = variants.only(DSPRITES, only) if only else DSPRITES
    parts = variants.split(dataset, 0.1, 0.3)
    assert dataset.canonical
    sides = [set(dataset.canonical(side)) for side in parts[:3]]
    assert len(sides[0] | sides[1] | sides[2]) == sum(map(len, sides))
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(dataset.size))


def test_source_that_a_set_does_not_have():
    bare = Rendered(dsprites.render, (64, 64, 1), dsprites.FACTOR_SIZES)
    with pytest.raises(UserError, match="--image-source: got resident for dsprites, wanted"):
        sources.make_source(dataclasses.replace(DSPRITES, pixels=bare), "resident", "cpu")
    with pytest.raises(UserError, match="--image-source: got rendered for tiny, wanted"):
        sources.make_source(tiny(), "rendered", "cpu")


def test_auto_streams_what_does_not_fit(monkeypatch):
    assert sources.make_source(tiny(), "auto", "gpu").read is None
    monkeypatch.setattr(sources, "device_memory", lambda: 119)
    assert sources.make_source(tiny(), "auto", "gpu").read is not None
