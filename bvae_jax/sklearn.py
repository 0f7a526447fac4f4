"""`BetaVAE`: a transformer of scikit-learn, from images to codes and back."""

import dataclasses
import functools
import math
import numbers
import shutil
import tempfile
import threading
import weakref
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from bvae_jax.config import FIELDS, Config
from bvae_jax.data import DATASETS
from bvae_jax.data.base import from_arrays
from bvae_jax.data.npz import to_levels
from bvae_jax.elbo import gaussian_kl, log_prior_ratio
from bvae_jax.errors import UserError
from bvae_jax.export.weights import export_run
from bvae_jax.runs.run import AT_ONCE, in_parts, load
from bvae_jax.runs.train import train
from bvae_jax.runs.trainer import NO_POSTERIOR, calibrated
from bvae_jax.types import Images, Params, PerImage, key_for
from bvae_jax.vae import VAE, encode, log_likelihood

try:
    from sklearn.utils.validation import validate_data  # pyright: ignore
except ImportError:  # before 1.6

    def validate_data(estimator: Any, X: Any, **options: Any) -> Any:
        return estimator._validate_data(X, **options)


class InputError(UserError, ValueError):
    """A user's mistake, as scikit-learn expects it."""


_training = threading.Lock()


class BetaVAE(TransformerMixin, BaseEstimator):
    """A β-VAE as a transformer: `transform` gives the means of q(z|x), [n, latent], float32.

    X is [n, height, width] or [n, height, width, channels], or rows of pixels, [n, features]; with
    numbers in [0, 1], or uint8 up to 255. It is trained on as 256 levels, all of it (holdout=0).

    latents, beta, objective, network, likelihood, steps, batch_size and learning_rate are those of
    `Config`.

    Args:
        image_shape: (height, width) or (height, width, channels) of rows; None: (1, features).
        config: other fields of `Config`, by name; X says what the data set is.
        importance_samples: of `score_samples`; 0 for the ELBO.
        run_dir: directory of the run, which must be free; None: one that goes with the estimator.
        random_state: seed of the run.
        verbose: show what `train` shows.

    Attributes:
        run_: the `Run`. Pickled is what `Run.export` writes of it; it has no data then.
        shape_in_: of an image in X.
    """

    def __init__(
        self, latents: int = 10, *, beta: float | None = None, objective: str = "beta_vae",
        network: str = "conv", likelihood: str = "bernoulli", steps: int = 3000,
        batch_size: int = 64, learning_rate: float = 5e-4,
        image_shape: tuple[int, ...] | None = None, config: Mapping[str, Any] | None = None,
        importance_samples: int = 0, run_dir: str | Path | None = None, random_state: Any = None,
        verbose: bool = False,
    ):  # fmt: skip
        self.latents, self.beta, self.objective = latents, beta, objective
        self.network, self.likelihood, self.steps = network, likelihood, steps
        self.batch_size, self.learning_rate = batch_size, learning_rate
        self.image_shape, self.config = image_shape, config
        self.importance_samples, self.run_dir = importance_samples, run_dir
        self.random_state, self.verbose = random_state, verbose

    def fit(self, X: Any, y: Any = None) -> "BetaVAE":
        """Train on images.

        Raises:
            UserError: X is no images, a parameter does not fit, or `run_dir` is taken.
            KeyboardInterrupt: training was interrupted.
        """
        own = {name: name for name in self.get_params()} | {"seed": "random_state", "dataset": "X"}
        more = dict(self.config or {})
        more |= more.pop("hyper", {})
        for field in more:
            if field in own:
                raise InputError(f"config: got {field}, wanted it as the parameter {own[field]}.")
        dataset = from_arrays("array", to_levels(self._images(X, reset=True)))
        name, seed = f"array-{dataset.version}", self.random_state
        if not isinstance(seed, numbers.Integral):
            seed = check_random_state(seed).randint(2**31)
        given = {n: value for n, value in self.get_params(deep=False).items() if n in FIELDS}
        given |= {"seed": seed, "holdout": 0.0, "eval_images": 1024} | more
        at_the_end = dict.fromkeys(("eval_every", "checkpoint_every"), given["steps"])
        config = Config.from_dict(at_the_end | given | {"dataset": name})
        run_dir = self.run_dir
        if run_dir and any(Path(run_dir).expanduser().glob("*")):
            raise InputError(f"run_dir: {run_dir} is taken, wanted a directory that is free.")
        if not run_dir:
            run_dir = tempfile.mkdtemp(prefix="bvae-")
            weakref.finalize(self, shutil.rmtree, run_dir, ignore_errors=True)
        with _training:
            DATASETS[name] = dataclasses.replace(dataset, name=name)
            try:
                run = train(config, run_dir, figures=False, progress=bool(self.verbose))
            except OSError as error:
                raise InputError(f"run_dir: {run_dir}: {error.strerror or error}.") from error
            finally:
                del DATASETS[name]
        if run.summary is None:
            raise KeyboardInterrupt
        self.run_ = run
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Means of q(z|x), [n, latent]."""
        check_is_fitted(self)
        return np.asarray(self.run_.encode(self._images(X)).mean)

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Mean images of p(x|z) in [0, 1], of the shape that `fit` was given; X is [n, latent]."""
        check_is_fitted(self)
        return np.asarray(self.run_.decode(X)).reshape(-1, *self.shape_in_)

    def score_samples(self, X: Any) -> np.ndarray:
        """A lower bound on log p(x), nats, [n]: the ELBO from one draw of z, or that of
        `importance_samples` draws (Burda et al. 2016). An image's draws depend on it alone.

        Raises:
            UserError: the run is an autoencoder, or `importance_samples` is no number of draws.
        """
        check_is_fitted(self)
        images, run, draws = self._images(X), self.run_, self.importance_samples
        if not isinstance(draws, numbers.Integral) or draws < 0:
            wanted = "wanted a whole number of at least 0"
            raise InputError(f"importance_samples: got {draws!r}, {wanted}.")
        if not run.variational:
            raise UserError(f"score_samples: {NO_POSTERIOR}.")
        model = run.model
        if model.likelihood.calibrate:
            model = model.clone(likelihood=calibrated(run.trainer, run.params))
        hashes = np.array([zlib.crc32(image.tobytes()) for image in images], np.uint32)
        size = max(1, AT_ONCE // max(draws, 1))
        parts = zip(in_parts(images, size), in_parts(hashes, size), strict=True)
        found = [_bounds(model, run.params, part, seeds, draws) for part, seeds in parts]
        return np.concatenate(found)[: len(images)]

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of `score_samples`."""
        return float(self.score_samples(X).mean(dtype=float))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """z0, z1, ..."""
        check_is_fitted(self)
        return np.array([f"z{latent}" for latent in range(self.run_.config.latents)], object)

    def _images(self, X: Any, reset: bool = False) -> np.ndarray:
        """X as [n, height, width, channels] float32 in [0, 1]."""
        X = validate_data(self, X, reset=reset, allow_nd=True)
        shape = X.shape[1:]
        if reset:
            self.shape_in_ = shape
        if shape != self.shape_in_:
            wanted = ", ".join(map(str, self.shape_in_))
            raise InputError(f"X: got {X.shape}, wanted [n, {wanted}], as fit had.")
        if X.ndim == 2:
            given = (1, *shape) if self.image_shape is None else self.image_shape
            shape = tuple(np.atleast_1d(given).tolist())
        if math.prod(shape) != math.prod(X.shape[1:]) or len(shape) not in (2, 3):
            raise InputError(f"image_shape: got {shape}, but X is {X.shape}: wanted one that fits.")
        return self._pixels(X).reshape(-1, *shape, *(1,) * (3 - len(shape)))

    def _pixels(self, X: np.ndarray) -> np.ndarray:
        found = X.astype(np.float32) / (255 if X.dtype == np.uint8 else 1)
        if found.min() >= 0 and found.max() <= 1:
            return found
        told = f"X: got negative values or large ones, {found.min():g} to {found.max():g}, wanted"
        raise InputError(
            f"{told} 0 to 1, or uint8 (X.astype(np.uint8)): see MinMaxScaler(clip=True), or divide."
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = tags.input_tags.positive_only = True
        tags.transformer_tags.preserves_dtype = ["float32"]  # pyright: ignore
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = {**super().__getstate__()}  # pyright: ignore
        if "run_" in state:
            with tempfile.TemporaryDirectory() as place:
                files = export_run(self.run_, Path(place, "run")).iterdir()
                state["run_"] = {file.name: file.read_bytes() for file in files if file.is_file()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "run_" in state:
            with tempfile.TemporaryDirectory() as place:
                for name, content in state["run_"].items():
                    Path(place, name).write_bytes(content)
                state = state | {"run_": load(place, data=False)}
        super().__setstate__(state)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _bounds(model: VAE, params: Params, images: Images, seeds: jax.Array, samples: int) -> PerImage:
    """See `score_samples`."""
    posterior = encode(model, params, images)
    shape = (max(samples, 1), posterior.mean.shape[1])

    def draw(seed: jax.Array) -> jax.Array:
        return jax.random.normal(jax.random.fold_in(key_for("log-likelihood", 0), seed), shape)

    noise = jax.vmap(draw, out_axes=1)(seeds)
    z = posterior.mean[None] + jnp.exp(posterior.logvar / 2)[None] * noise
    found = log_likelihood(model, params, z, images)
    if not samples:
        return found[0] - gaussian_kl(posterior).sum(axis=1)
    ratio = log_prior_ratio(posterior, z)
    return jax.nn.logsumexp(found + ratio, axis=0) - math.log(samples)
