"""Representations of a data set to score: a run's encoder, and what it should be compared with."""

import warnings
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from sklearn.decomposition import FastICA, IncrementalPCA
from sklearn.exceptions import ConvergenceWarning

from bvae_jax.config import ScoreConfig
from bvae_jax.elbo import gaussian_kl
from bvae_jax.metrics.points import Representation
from bvae_jax.metrics.scoring import PIXELS, numbers, score_all
from bvae_jax.progress import bar
from bvae_jax.runs.encode import Encoded, encode_points, encoding_order
from bvae_jax.runs.program import Program
from bvae_jax.types import Params, Posterior

IMAGES_AT_ONCE = 1000
ROUNDING = 1e-5
"""Of the largest singular value: those below it are rounding."""
MOST_NUMBERS = 30_000_000
"""Of the raw pixels that are held at once: larger images are represented by fewer points."""


def of_encoder(program: Program, encoded: Encoded) -> Representation:
    """The codes of an encoder, with everything that metrics may ask."""
    return Representation(
        codes=encoded.means,
        factors=_factors(program, len(encoded.means)),
        logvars=encoded.logvars,
        factor_sizes=np.array(program.dataset.factor_sizes),
        kl=mean_kl(encoded),
    )


def mean_kl(encoded: Encoded) -> np.ndarray | None:
    """[latent] mean KL of the posteriors from the prior, nats; None where codes are points."""
    if encoded.logvars is None:
        return None
    posterior = Posterior(jnp.asarray(encoded.means), jnp.asarray(encoded.logvars))
    return np.asarray(gaussian_kl(posterior), np.float64).mean(axis=0)


def training_scores(program: Program, params: Params) -> dict[str, float]:
    """What `Config.eval_metrics` asks for, by name, on as many images as metrics take."""
    config = ScoreConfig(metrics=program.config.eval_metrics, permutations=0)
    count = min(program.dataset.size, config.train_points + config.test_points)
    points = of_encoder(program, encode_points(program, params, count))
    return numbers(dict(score_all(points, config)))


def random_codes(points: Representation) -> Representation:
    """Independent standard normal numbers: what a score is worth without any information."""
    codes = np.random.default_rng(0).standard_normal(points.codes.shape)
    test = None
    if points.codes_test is not None:
        test = np.random.default_rng(1).standard_normal(points.codes_test.shape)
    return _instead(points, codes, test)


def true_factors(points: Representation) -> Representation:
    """The factors themselves, one latent each, with mean 0 and standard deviation 1."""
    mean, std = points.factors.mean(axis=0), points.factors.std(axis=0)
    std = np.where(std > 0, std, 1)
    test = None if points.factors_test is None else (points.factors_test - mean) / std
    return _instead(points, (points.factors - mean) / std, test)


def _instead(
    points: Representation, codes: np.ndarray, codes_test: np.ndarray | None = None
) -> Representation:
    """Other codes of the same points; without a posterior."""
    return Representation(
        codes=codes,
        factors=points.factors,
        codes_test=codes_test,
        factors_test=points.factors_test,
        factor_sizes=points.factor_sizes,
    )


def file_baselines(points: Representation) -> dict[str, Representation]:
    """What can be compared with where the images are not known."""
    return {"random_codes": random_codes(points), "true_factors": true_factors(points)}


def run_baselines(
    program: Program, count: int, *, progress: bool = False
) -> dict[str, Representation]:
    """Baselines of a run, on the first `count` images of `encoding_order`.

    `random_codes`; `untrained`, the run's encoder before its first step; `pca` and `ica` of the
    pixels, with as many components as the run has latents; `raw_pixels`; `true_factors`.

    Args:
        progress: show bars.
    """
    params = program.init().params["vae"]
    untrained = of_encoder(program, encode_points(program, params, count, progress=progress))
    components = min(program.config.latents, count, int(np.prod(program.dataset.image_shape)))
    most = max(2, min(count, MOST_NUMBERS // int(np.prod(program.dataset.image_shape))))
    total = 2 * count + most
    shown = bar(total=total, desc="PCA, ICA, pixels", unit=" images", disable=not progress)
    with shown:
        pca = IncrementalPCA(components)
        with np.errstate(invalid="ignore"):  # shares of the variance, of which there may be none
            for images in _pixels(program, count, at_least=components):
                pca.partial_fit(images)
                shown.update(len(images))
        projected = []
        for images in _pixels(program, count):
            projected.append(pca.transform(images))
            shown.update(len(images))
        projected = np.concatenate(projected)
        # Components beyond the rank of the images are rounding, which whitening would blow up.
        sizes = np.asarray(pca.singular_values_)
        there = sizes > ROUNDING * max(sizes.max(), 1)
        projected[:, ~there] = 0
        independent = np.zeros_like(projected)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            ica = FastICA(whiten="unit-variance", random_state=0, max_iter=500)
            if there.any():
                independent[:, there] = ica.fit_transform(projected[:, there])
        pixels = np.concatenate(list(_pixels(program, most)))
        shown.update(total - shown.n)
    return {
        "random_codes": random_codes(untrained),
        "untrained": untrained,
        "pca": _instead(untrained, projected),
        "ica": _instead(untrained, independent),
        PIXELS: Representation(
            pixels, untrained.factors[:most], factor_sizes=untrained.factor_sizes
        ),
        "true_factors": true_factors(untrained),
    }


def _pixels(program: Program, count: int, at_least: int = 1) -> Iterator[np.ndarray]:
    """Images of `encoding_order` as rows [images, pixels], in parts.

    Args:
        at_least: images in a part; a rest that is smaller is left out.
    """
    order = encoding_order(program)[:count]
    size = max(IMAGES_AT_ONCE, at_least)
    for start in range(0, count, size):
        # The last part is filled up with copies of its last image: one shape, one compile.
        indices = order[np.minimum(np.arange(start, start + size), count - 1)]
        images = np.asarray(program.images(indices))
        part = images.reshape(size, -1)[: min(size, count - start)]
        if len(part) >= at_least:
            yield part


def _factors(program: Program, count: int) -> np.ndarray:
    """[n, factor] class indices of the first images of `encoding_order`."""
    indices = jnp.asarray(encoding_order(program)[:count])
    return np.asarray(program.dataset.factors(indices))
