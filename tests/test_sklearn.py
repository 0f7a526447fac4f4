"""BetaVAE as scikit-learn's own checks want it, and its numbers."""

import functools
import pickle
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from scipy.special import expit, logsumexp
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

import bvae_jax
from bvae_jax.data import DATASETS
from bvae_jax.errors import UserError
from bvae_jax.runs.checkpoint import fingerprint
from bvae_jax.runs.run import Run
from bvae_jax.runs.trainer import build_model
from bvae_jax.sklearn import BetaVAE

pytestmark = pytest.mark.usefixtures("tiny_network", "shared_trainers")
SMALL: dict[str, Any] = {
    "latents": 2,
    "network": "tiny",
    "steps": 2,
    "batch_size": 4,
    "random_state": 0,
}
LEVELS = np.random.default_rng(0).random((40, 1, 2))
IMAGES = np.broadcast_to(LEVELS.repeat(3, axis=2) ** 4, (40, 4, 6)).copy()
"""Left and right halves of levels of their own."""
ROWS = IMAGES.reshape(40, 24)
LABELS = np.arange(40) % 2


def small(kind: Any = BetaVAE, **changes: Any) -> Any:
    return kind(**SMALL | changes)


@pytest.fixture(scope="module")
def fitted():
    return small(steps=200, learning_rate=1e-2, beta=1.0).fit(IMAGES)


class Squashed(BetaVAE):
    """The same for the numbers that scikit-learn's checks draw, which are no pixels."""

    def _pixels(self, X):
        return expit(np.asarray(X, np.float32))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = False
        return tags


def untrained(config, run_dir, **options):
    """What `train` gives, after no step: what the checks are about takes no training."""
    shape = DATASETS[config.dataset].image_shape
    model, state = first_state(shape, config.replace(dataset="any"))
    return Run(Path(run_dir), config, {}, state, model, shape)


@functools.cache
def first_state(shape, config):
    model, states = build_model(config, shape)
    rng = np.random.default_rng(config.seed)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype) / 9, states.params)
    return model, states._replace(params=params, step=0, ema={})


@pytest.mark.once
def test_the_checks_of_scikit_learn(monkeypatch):
    """All of check_estimator, but those of the array API, which want another SciPy."""
    checked = pytest.importorskip("sklearn.utils.estimator_checks")
    if not hasattr(checked, "estimator_checks_generator"):
        pytest.skip("scikit-learn before 1.6")
    monkeypatch.setattr("bvae_jax.sklearn.train", untrained)
    names = set()
    checks: Any = checked.estimator_checks_generator(small(Squashed), mark=None)
    for estimator, check in checks:
        name = check.func.__name__
        if name != "check_array_api_input":
            names.add(name)
            check(estimator)
    assert {"check_methods_subset_invariance", "check_estimators_pickle"} < names


def test_codes_and_pictures_are_those_of_the_run(fitted):
    codes = fitted.transform(IMAGES)
    assert (codes.shape, codes.dtype) == ((40, 2), np.float32)
    np.testing.assert_array_equal(codes, fitted.run_.encode(IMAGES).mean)
    decoded = fitted.inverse_transform(codes)
    assert decoded.shape == IMAGES.shape
    np.testing.assert_array_equal(decoded, fitted.run_.decode(codes)[..., 0])
    assert np.square(decoded - IMAGES).mean() < np.square(0.5 - IMAGES).mean()
    assert fitted.get_feature_names_out().tolist() == ["z0", "z1"]
    levels = np.rint(255 * IMAGES).astype(np.uint8)
    np.testing.assert_array_equal(fitted.transform(levels), fitted.transform(levels / 255))
    config = fitted.run_.config
    assert (config.holdout, config.seed, config.latents, config.steps) == (0.0, 0, 2, 200)


def test_rows_are_images_of_their_shape(fitted):
    other = small(image_shape=np.array([4, 6]), steps=200, learning_rate=1e-2, beta=1.0)
    np.testing.assert_array_equal(other.fit_transform(ROWS), fitted.transform(IMAGES))
    assert other.inverse_transform(np.zeros((3, 2))).shape == (3, 24)


def test_pickled_and_cloned(fitted):
    first = pickle.loads(pickle.dumps(fitted))
    for copy in (first, pickle.loads(pickle.dumps(first))):
        np.testing.assert_array_equal(copy.transform(IMAGES), fitted.transform(IMAGES))
        np.testing.assert_array_equal(copy.score_samples(IMAGES), fitted.score_samples(IMAGES))
        assert fingerprint(copy.run_.params) == fitted.run_.summary["params_sha256"]
        assert copy.get_params() == fitted.get_params()
        assert repr(copy.run_).splitlines()[1:] == repr(fitted.run_).splitlines()[1:]
    new: Any = clone(fitted)
    new.set_params(latents=3)
    assert not hasattr(new, "run_")
    assert new.get_params() == fitted.get_params() | {"latents": 3}


def test_in_a_pipeline_and_in_a_directory(tmp_path):
    rows = 100 * np.random.default_rng(1).normal(size=(40, 24)) + 50 * LABELS[:, None]
    vae = small(image_shape=(4, 6), run_dir=tmp_path / "run")
    model = make_pipeline(MinMaxScaler(clip=True), vae, LogisticRegression())
    assert 0 <= model.fit(rows, LABELS).score(rows, LABELS) <= 1
    same = bvae_jax.load(tmp_path / "run", data=False)
    assert fingerprint(same.params) == fingerprint(vae.run_.params)
    with pytest.raises(UserError, match="is taken, wanted a directory that is free"):
        model.fit(rows, LABELS)


def test_bounds_against_the_integral_over_all_z(fitted):
    """log p(x) = log of the integral of p(x|z) p(z), on a grid."""
    points = np.linspace(-7, 7, 141)
    z = np.stack(np.meshgrid(points, points), axis=-1).reshape(-1, 2)
    mean = np.asarray(fitted.run_.decode(z), float).reshape(len(z), 24).clip(1e-7, 1 - 1e-7)
    x = IMAGES[:9].reshape(9, 24)
    log_likelihood = x @ np.log(mean).T + (1 - x) @ np.log1p(-mean).T
    log_prior = -0.5 * np.square(z).sum(axis=1) - np.log(2 * np.pi)
    wanted = logsumexp(log_likelihood + log_prior, axis=1) + 2 * np.log(points[1] - points[0])
    found = pickle.loads(pickle.dumps(fitted)).set_params(importance_samples=2000)
    off = found.score_samples(IMAGES[:9]) - wanted
    assert np.median(abs(off)) < 0.06  # a rare draw with a large weight is far off
    assert abs(off).max() < 0.6
    elbos, summary = fitted.score_samples(IMAGES), fitted.run_.summary
    assert summary["kl"] > 1
    assert elbos.mean() == pytest.approx(summary["elbo"], abs=0.3)  # of other draws of z
    assert elbos[:9].mean() < wanted.mean()
    assert fitted.score(IMAGES) == pytest.approx(elbos.mean())
    for draws in (-1, 2.5):
        with pytest.raises(ValueError, match=r"importance_samples: got .*, wanted a whole"):
            found.set_params(importance_samples=draws).score_samples(IMAGES[:2])
    np.testing.assert_allclose(fitted.score_samples(IMAGES[5:3:-1]), elbos[5:3:-1], rtol=1e-5)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda f: f.transform(-IMAGES), "negative values or large ones, -0.988886 to"),
        (lambda f: f.transform(IMAGES * 255), "see MinMaxScaler"),
        (lambda f: f.transform(IMAGES[:, :, :5]), r"got \(40, 4, 5\), wanted \[n, 4, 6\], as fit"),
        (lambda f: BetaVAE(image_shape=(5, 5)).fit(ROWS), "wanted one that fits"),
        (
            lambda f: BetaVAE(image_shape=24).fit(ROWS),  # pyright: ignore[reportArgumentType]
            r"image_shape: got \(24,\), but",
        ),
        (lambda f: BetaVAE(config={"bet": 1}).fit(IMAGES), "Unknown config fields"),
        (
            lambda f: BetaVAE(config={"hyper": {"q": 1}}).fit(IMAGES),
            r"Unknown config fields \['q'\]",
        ),
        (
            lambda f: BetaVAE(config={"beta": 1}).fit(IMAGES),
            "beta, wanted it as the parameter beta",
        ),
        (
            lambda f: BetaVAE(config={"hyper": {"beta": 1}}).fit(IMAGES),
            "beta, wanted it as the parameter beta",
        ),
        (
            lambda f: BetaVAE(config={"dataset": "x"}).fit(IMAGES),
            "dataset, wanted it as the parameter X",
        ),
        (
            lambda f: BetaVAE(config={"seed": 1}).fit(IMAGES),
            "seed, wanted it as the parameter random_state",
        ),
        (lambda f: small(run_dir="/proc/x").fit(IMAGES), "run_dir: /proc/x: No such file or direc"),
        (lambda f: pickle.loads(pickle.dumps(f)).run_.trainer, "data: nor is it kept in a pickle"),
        (lambda f: f.inverse_transform(np.zeros((1, 3))), r"z of shape \(1, 3\)"),
    ],
)
def test_what_does_not_fit_is_said(fitted, use, message):
    with pytest.raises(UserError, match=message):
        use(fitted)


def test_an_autoencoder_has_no_bound(monkeypatch):
    monkeypatch.setattr("bvae_jax.sklearn.train", untrained)
    points = small(objective="ae").fit(IMAGES)
    assert points.transform(IMAGES).shape == (40, 2)
    with pytest.raises(UserError, match="no bound"):
        points.score(IMAGES)
