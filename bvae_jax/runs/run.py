"""A run that was trained: read by `load`, held as a `Run`."""

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bvae_jax.config import Config, ScoreConfig, has_files, with_places
from bvae_jax.data.base import Dataset
from bvae_jax.elbo import gaussian_kl
from bvae_jax.errors import UserError, say
from bvae_jax.files import write_json
from bvae_jax.objectives import get_objective
from bvae_jax.runs import encode as encoding
from bvae_jax.runs import rundir
from bvae_jax.runs.checkpoint import HUB, Checkpoints
from bvae_jax.runs.hyper import many_rates
from bvae_jax.runs.trainer import (
    Trainer,
    Trainers,
    build_model,
    check_jax,
    eval_split,
    weights_of,
)
from bvae_jax.runs.traversals import by_size, traverse
from bvae_jax.runs.writer import finished_summary, summarise
from bvae_jax.types import ImageShape, Params, Posterior, TrainState
from bvae_jax.vae import CODEBOOK, VAE, decode, encode

if TYPE_CHECKING:
    from bvae_jax.explore.page import Explorer
    from bvae_jax.metrics.codes import Codes
    from bvae_jax.metrics.scoring import Entry

AT_ONCE = 256
"""Images that go through a network at once."""


@dataclass(frozen=True)
class Run:
    """A run: where it is, and what it left in memory.

    Images are arrays of NumPy or JAX, [n, height, width, channels]: floating-point numbers in
    [0, 1], bool, or uint8 up to 255. Where there is one channel, its axis may be left out.

    Attributes:
        summary: the contents of summary.json; None when the run is not finished.
        model: encoder, decoder and likelihood.
        image_shape: height, width, channels.
        one_beta: whether this is a run for many β at one of them, as of `at`.
    """

    run_dir: Path
    config: Config
    summary: dict[str, Any] | None
    state: TrainState
    model: VAE
    image_shape: ImageShape
    opened: Trainer | None = field(default=None, repr=False)
    one_beta: bool = False

    def __repr__(self) -> str:
        config, summary = self.config, self.summary or {}
        numbers = [f"{name} {summary[name]:.2f}" for name in ("nll", "kl") if name in summary]
        if "active_latents" in summary:
            numbers.append(f"{summary['active_latents']} of {config.latents} latents active")
        if int(self.state.step) < config.steps:
            numbers = ["unfinished"]
        lines = (
            f"Run({str(self.run_dir)!r}): step {int(self.state.step)} of {config.steps}",
            f"{config.objective}, {config.network}, {config.latents} latents; {config.dataset}, "
            f"{'×'.join(map(str, self.image_shape))}",
            ", ".join(numbers),
        )
        return "\n  ".join(filter(None, lines))

    @functools.cached_property
    def params(self) -> Params:
        """The VAE's parameters, or with --ema their average: for `vae.encode` and `vae.decode`."""
        return weights_of(self.config, self.state)

    def at(self, beta: float) -> "Run":
        """This run at a β of those that it was trained for (--multi-rate): like a run of that β.

        What is found of it is kept in run_dir/beta=BETA, which `load` and commands take for the
        directory of a run.

        Raises:
            UserError: β is outside the range, or the run was trained for one β only.
        """
        rates = many_rates(self.config)
        if rates is None:
            raise UserError(
                f"{self.run_dir} was trained for one β, wanted a run of --multi-rate LOW:HIGH."
            )
        rates.check(beta, "beta")
        directory = rundir.at_beta(self.run_dir, beta)
        state = self.state._replace(hyper=self.state.hyper | {"beta": jnp.float32(beta)})
        config = self.config.replace(beta=beta)
        summary = finished_summary(directory, int(state.step), config)
        found = {"config": config, "state": state, "summary": summary}
        return replace(self, run_dir=directory, one_beta=True, **found)

    def told(self) -> "Run":
        """This run; of one for many β, which one it is now is said on stderr."""
        rates = many_rates(self.config)
        if rates and not self.one_beta:
            say(
                f"{self.run_dir} was trained for β from {rates.low:g} to {rates.high:g}: this is "
                f"β = {self.config.beta:g}. --beta takes another."
            )
        return self

    def summarised(self) -> "Run":
        """With a summary: at one of many β, that is evaluated now, and kept, unless it is there."""
        if self.summary:
            return self
        split = eval_split(self.config)
        evaluation = self.trainer.evaluate(self.state, split)[split]
        summary = summarise(self.trainer, self.state, evaluation, {})
        if rundir.of_beta(self.run_dir)[1] is not None:
            self.run_dir.mkdir(exist_ok=True)
            write_json(self.run_dir / rundir.SUMMARY, summary, checksum=True)
        return replace(self, summary=summary)

    @property
    def trainer(self) -> Trainer:
        """What trained the run: its data set, its split, compiled functions.

        Raises:
            UserError: the run was loaded without data.
        """
        if self.opened is None:
            if self.run_dir.is_file():
                raise rundir.only_weights(self.run_dir)
            there = self.run_dir.exists()
            mend = "load it with data=True" if there else "nor is it kept in a pickle"
            raise UserError(f"{self.run_dir} was loaded without its data: {mend}.")
        return self.opened

    @property
    def dataset(self) -> Dataset:
        """The images that the run was trained on.

        Raises:
            UserError: the run was loaded without data.
        """
        return self.trainer.dataset

    @property
    def variational(self) -> bool:
        """Whether images have a posterior; an autoencoder's codes are points."""
        return get_objective(self.config.objective).noise

    def encode(self, images: Any) -> Posterior:
        """q(z|x): mean and log-variance, [n, latent]; see the class for what images may be. An
        autoencoder's mean is its code, and has no log-variance: it is nan.

        Raises:
            UserError: the images are of another shape or type.
        """
        images = self._checked(images)
        parts = [_encode(self.model, self.params, part) for part in in_parts(images)]
        means, logvars = (
            jnp.concatenate([part[i] for part in parts])[: len(images)] for i in range(2)
        )
        return Posterior(means, logvars if self.variational else jnp.full_like(means, jnp.nan))

    def decode(self, z: Any) -> Float[Array, "n height width channels"]:
        """The mean image of p(x|z), with pixels in [0, 1].

        Args:
            z: [n, latent].

        Raises:
            UserError: it is of another shape or type.
        """
        z = np.asarray(z)
        if z.dtype.kind not in "iuf" and str(z.dtype) != "bfloat16":
            raise UserError(f"Got z of {z.dtype}, wanted real numbers.")
        if z.ndim != 2 or z.shape[1] != self.config.latents or not len(z):
            raise UserError(f"Got z of shape {z.shape}, wanted [n, {self.config.latents}].")
        z = z.astype(np.float32)
        if not np.isfinite(z).all():
            raise UserError("Got z that is not finite, wanted finite numbers.")
        parts = [_decode(self.model, self.params, part) for part in in_parts(z)]
        return jnp.concatenate(parts)[: len(z)]

    def reconstruct(self, images: Any) -> Float[Array, "n height width channels"]:
        """Images encoded and decoded again, through the posterior's mean.

        Raises:
            UserError: as `encode`.
        """
        return self.decode(self.encode(images).mean)

    def encode_to(self, path: str | Path, images: str | Path, *, progress: bool = False) -> int:
        """Codes of images into an .npz or .csv file, in the images' order; how many there are.

        Args:
            images: a folder of pictures, an .npz file, or the name of a data set, perhaps its own.

        Raises:
            UserError: there are no such images, or they or the file are not as wanted.
        """
        from bvae_jax.runs.codes import encode_to

        return encode_to(self, Path(path).expanduser(), images, progress)

    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        temperature: float = 1.0,
        source: Literal["prior", "aggregate"] = "prior",
    ) -> Float[Array, "n height width channels"]:
        """Decoded draws of the prior N(0, I), or of the aggregate posterior.

        Args:
            temperature: what standard deviations of z are multiplied by.
            source: prior, or aggregate: z ~ q(z|x) of training images drawn at random, of an
                autoencoder their codes.

        Raises:
            UserError: a value does not fit, the run is an autoencoder and has no prior, or it was
                loaded without the data that aggregate needs.
        """
        from bvae_jax.runs.codes import draw_z

        z = draw_z(self, n, seed=seed, temperature=temperature, source=source)
        return self.decode(z)

    def traverse(
        self,
        image: Any,
        *,
        latents: Any = None,
        values: Any = None,
    ) -> Float[Array, "row column height width channels"]:
        """One latent at a time set to each of some values, the others where an image has them.

        Args:
            image: [height, width, channels].
            latents: their numbers, a row for each; if None all, in the order of the summary's
                `kl_per_latent`, the largest first; without that, in the order of the image's KL.
            values: a column for each; eleven from -3 to 3 if None, of a codebook its own.

        Raises:
            UserError: the image is of another shape, there is no such latent, or a value is none.
        """
        shape = np.shape(image)
        if shape != self.image_shape and (*shape, 1) != self.image_shape:
            height, width, channels = self.image_shape
            raise UserError(
                f"Got an image of shape {shape}, wanted [{height}, {width}, {channels}]: one."
            )
        posterior = self.encode(np.asarray(image)[None])
        of_image = (gaussian_kl(posterior) if self.variational else abs(posterior.mean))[0]
        size = jnp.array((self.summary or {}).get("kl_per_latent", of_image))
        rows = by_size(size) if latents is None else np.atleast_1d(latents)
        known = range(self.config.latents) if rows.dtype.kind in "iu" else ()  # no mask
        if not len(rows) or not all(row in known for row in rows.tolist()):
            raise UserError(
                f"Got latents {rows.tolist()}, wanted numbers from 0 to {self.config.latents - 1}."
            )
        chosen = jnp.array(np.linspace(-3, 3, 11) if values is None else _numbers(values))
        if values is None and self.model.codebook:
            chosen = jnp.sort(self.params[CODEBOOK][np.asarray(rows)], axis=1)
        return traverse(self.decode, posterior.mean[0], jnp.asarray(rows), chosen)

    def codes(self, num_points: int | None = None, *, split: str = "all") -> "Codes":
        """Posterior means of the run's own images with their factors: what metrics read.

        The encode is kept in the run's directory.

        Args:
            num_points: images to encode; all of the split if None.
            split: all, train, holdout, test, excluded or correlated.

        Raises:
            UserError: the split has fewer images, or the run was loaded without data.
        """
        count = encoding.point_count(self.dataset, self.config, split, num_points)
        options = {"split": split, "progress": False}
        encoded = encoding.encode_run(self.run_dir, self.trainer, self.params, count, **options)
        return encoding.codes_of(self.trainer, encoded, split)

    def evaluate(
        self, metrics: "str | Sequence[str] | ScoreConfig" = "all", **options: Any
    ) -> "dict[str, Entry]":
        """Disentanglement metrics of the run, as by `bvae_jax.evaluate`, with its options.

        Args:
            metrics: all, fast, names in a list or with commas, or all that a `ScoreConfig` says.
        """
        from bvae_jax.evaluation.evaluate import evaluate

        return evaluate(self, metrics, **options)

    def explore(self, *, float32: bool = False) -> "Explorer":
        """A page on which one moves the latents. A notebook shows it; `.write(path)` keeps it.

        Args:
            float32: keep all digits of the weights.

        Raises:
            UserError: the run was loaded without data, or its decoder is too large or unknown to
                a page.
        """
        from bvae_jax.explore.export import of_run

        return of_run(self, float32=float32)

    def export(self, out: str | Path | None = None, **options: Any) -> Path:
        """Write the weights for other libraries, as `bvae export`.

        Args:
            out: a directory, or of `to="npz"` a file; exports/NAME if None.
            options: `to`, `dtype`, `overwrite`: see `bvae_jax.export.formats.export`.

        Returns:
            The directory or the file.
        """
        from bvae_jax.export.formats import export

        return export(self, out, **options)

    def push(self, to: str, **options: Any) -> str:
        """Push the run to the Hugging Face Hub, as `bvae push`; see `bvae_jax.export.hub.push`.

        Args:
            to: hf:USER/NAME, perhaps with @BRANCH.

        Returns:
            The address of the model's page.
        """
        from bvae_jax.export.hub import push

        return push(self, to, **options)

    def _checked(self, images: Any) -> np.ndarray:
        """As float32 in [0, 1], with the axis of channels."""
        given = np.asarray(images)
        height, width, channels = self.image_shape
        found = given[..., None] if channels == 1 and given.ndim == 3 else given
        if found.ndim != 4 or found.shape[1:] != self.image_shape:
            raise UserError(
                f"Got images of shape {given.shape}, wanted [n, {height}, {width}, {channels}]."
            )
        if not len(found):
            raise UserError("Got no images, wanted at least one.")
        if found.dtype == bool:
            return found.astype(np.float32)
        if found.dtype == np.uint8:
            return found.astype(np.float32) / 255
        if not (np.issubdtype(found.dtype, np.floating) or str(found.dtype) == "bfloat16"):
            mend = ": .astype(np.uint8) of 0 to 255" if found.dtype.kind in "iu" else ""
            raise UserError(f"Got images of {found.dtype}, wanted uint8 or floating point{mend}.")
        found = found.astype(np.float32)
        if found.size and not (found.min() >= 0 and found.max() <= 1):
            low, high = found.min(), found.max()
            mend = ": divide by 255" if low >= 0 and 2 < high <= 255 else ""
            raise UserError(
                f"Got pixels from {low:.8g} to {high:.8g}, wanted 0 to 1, or uint8{mend}."
            )
        return found


def _numbers(values: Any) -> np.ndarray:
    """Of a traversal: at least one, finite."""
    try:
        found = np.asarray(values, np.float32)
    except (TypeError, ValueError):
        found = np.zeros(())
    if found.ndim != 1 or not found.size or not np.isfinite(found).all():
        raise UserError(f"values: got {str(values)[:80]}, wanted a list of finite numbers.")
    return found


_encode = jax.jit(encode, static_argnums=0)
_decode = jax.jit(decode, static_argnums=0)


def in_parts(rows: np.ndarray, most: int = AT_ONCE) -> list[np.ndarray]:
    """Rows in parts of equal length, the last filled up: many sizes, few compilations."""
    if len(rows) <= 1:
        return [rows]
    size = min(most, 1 << (len(rows) - 1).bit_length())
    filled = rows[np.minimum(np.arange(-(-len(rows) // size) * size), len(rows) - 1)]
    return np.split(filled, len(filled) // size)


def load(
    run_dir: str | Path,
    *,
    step: int | None = None,
    dataset: str | None = None,
    beta: float | None = None,
    data: bool = True,
    trainer: Trainer | None = None,
    progress: bool = True,
) -> Run:
    """A run from its directory, as `train` returned it. Changes nothing there.

    Args:
        run_dir: of the run, or RUN_DIR/beta=BETA, as of `Run.at`; a directory or file that
            `Run.export` wrote; or hf:USER/NAME, perhaps with @REVISION, on the Hugging Face Hub.
        step: of the checkpoint to take; the newest if None.
        dataset: where its images are now, as folder:DIRECTORY or npz:FILE; where they were when it
            was trained if None.
        beta: of a run that was trained for many (--multi-rate), the one to take, as `Run.at`.
        data: open them; without, the run can encode, decode, reconstruct, sample and traverse.
        trainer: of a run that differs in what is traced only, to compile nothing again.
        progress: show a bar if the data set has to be rendered first.

    Raises:
        UserError: there is no run, no checkpoint yet, none can be read, or its data are others now.
    """
    check_jax()
    directory, own = rundir.of_beta(located(run_dir))
    if None not in (own, beta) and own != beta:
        raise UserError(
            f"--beta: got {beta:g}, but {run_dir} says β = {own:g}: leave one of the two out."
        )
    if rundir.is_exported(directory):
        from bvae_jax.export.weights import load_exported

        options: Any = {"data": data, "trainer": trainer, "progress": progress}
        run = load_exported(directory, step=step, dataset=dataset, **options)
        return run if beta is None else run.at(beta)
    config = rundir.read_config(directory)
    rundir.check_parts(directory, config)
    if not any((directory / name).exists() for name in ("checkpoints", rundir.PROVENANCE)):
        raise UserError(
            f"{directory} has no checkpoint yet and no {rundir.WEIGHTS}: train it further with "
            "--resume, or if it was exported, do that anew."
        )
    if data:
        config = placed(directory, config, dataset)
        trainer = trainer or Trainer(config, progress=progress)
        rundir.check_data(directory, trainer.dataset)
        model, shape = trainer.model, trainer.dataset.image_shape
        states = jax.eval_shape(trainer.init)
    else:
        shape = rundir.read_image_shape(directory)
        model, states = build_model(config, shape)
    restored = None
    if (directory / "checkpoints").is_dir():
        with Checkpoints(directory / "checkpoints", read_only=True) as checkpoints:
            check = rundir.make_config_check(directory, config)
            restored = checkpoints.restore(states, step=step, check=check)
    if restored is None:
        if (directory / rundir.FAILED).is_file():
            raise UserError(f"{directory} failed: {rundir.read_failed(directory)}")
        if found := rundir.read_summary(directory):
            raise UserError(
                f"{directory} was trained to step {found['step']}, and its checkpoints are gone: "
                "put them back."
            )
        raise UserError(f"{directory} has no checkpoint yet: train it further with --resume.")
    summary = finished_summary(directory, int(restored.state.step), config, restored.state)
    opened = trainer if data else None
    run = Run(directory, config, summary, restored.state, model, shape, opened)
    beta = own if beta is None else beta
    return run if beta is None else run.at(beta)


def located(run_dir: str | Path) -> Path:
    """The directory of a run. That of hf:USER/NAME is in the Hub's cache, once it is fetched.

    Raises:
        UserError: there is no such model on the Hub, or it cannot be reached.
    """
    if not isinstance(run_dir, str | os.PathLike) or isinstance(os.fspath(run_dir), bytes):
        raise UserError(f"Got {run_dir!r}, wanted the path of a run's directory, or hf:USER/NAME.")
    if str(run_dir).startswith(HUB):
        from bvae_jax.export.hub import fetched

        return fetched(str(run_dir))
    return Path(run_dir).expanduser()


def loaded(run: Run | str | Path, step: int | None, dataset: str | None, progress: bool) -> Run:
    """A run, from its directory if it is not loaded yet."""
    if isinstance(run, str | Path):
        run = load(run, step=step, dataset=dataset, progress=progress)
    return run


def load_shared(run_dir: Path, trainers: Trainers) -> Run:
    """`load` by a trainer that may be there already.

    Raises:
        UserError: as `load`.
    """
    whole, _ = rundir.of_beta(run_dir)
    config = placed(whole, rundir.read_config(whole))
    return load(run_dir, trainer=trainers.of(config), progress=False)


def placed(directory: Path, config: Config, dataset: str | None = None) -> Config:
    """A run's config with its images where they are now.

    Args:
        config: of the run, but for what may change.
        dataset: their new place; that of the config if None, or that which it was when the run was
            trained.

    Raises:
        UserError: they are in neither, or the config is not the run's.
    """
    config = config if dataset is None else config.replace(dataset=dataset)
    stored = rundir.read_config(directory)
    rundir.check_same(stored, config, directory)
    found = with_places(config, stored, rundir.read_places(directory))
    if config.dataset == stored.dataset and not has_files(found, "dataset"):
        form = config.dataset.partition(":")[0]
        raise UserError(
            f"{directory}: its images are not in {config.dataset} any more. Give their new place, "
            f"as --dataset {form}:PATH; bvae_jax.load(..., data=False) decodes without them."
        )
    return found
