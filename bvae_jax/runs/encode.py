"""The encoder's view of a data set: computed once for each set of parameters, read by every metric.

Images are encoded in one fixed random order, so that the first n of a larger encode are the
encode of n images: a cache can be cut, and gone on with.
"""

import collections
import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from bvae_jax.config import Config, ScoreConfig
from bvae_jax.data.base import Dataset
from bvae_jax.data.sampling import make_pick
from bvae_jax.data.variants import split_of, training_pool
from bvae_jax.errors import UserError, say
from bvae_jax.files.archive import DamagedError, read_npz, write_npz
from bvae_jax.runs.checkpoint import fingerprint
from bvae_jax.runs.trainer import Trainer
from bvae_jax.runtime import Interrupt, bar
from bvae_jax.types import Params, key_for

if TYPE_CHECKING:
    from bvae_jax.metrics.codes import Codes

BATCHES = {"cpu": 128}
"""Images in a batch, by platform: on a CPU, small enough for the caches and for malloc."""
BATCH = 4096
"""On other platforms."""
CACHE = "encoded.npz"
"""Of all images; see `of_split`."""
ORDER_SEED = 0


def of_split(file: str, split: str) -> str:
    """A file's name for these images: encoded.npz of all, encoded-holdout.npz and so on."""
    stem, _, kind = file.partition(".")
    return file if split == "all" else f"{stem}-{split}.{kind}"


class Encoded(NamedTuple):
    """Posteriors of the first n images of `encoding_order`.

    Attributes:
        means: [n, latent].
        logvars: [n, latent]; None where codes are points.
    """

    means: Float[np.ndarray, "n latent"]
    logvars: Float[np.ndarray, "n latent"] | None

    def first(self, count: int) -> "Encoded":
        """Those of the first `count` images."""
        return Encoded(self.means[:count], None if self.logvars is None else self.logvars[:count])


def encoding_order(trainer: Trainer, split: str = "all") -> Int[np.ndarray, " image"]:
    """Indices of the images of a split, in the order in which they are encoded.

    Those of "correlated" are draws from all images, some of them more than once, with the
    probabilities of the run's `correlate`: the same whatever its seed.
    """
    if split == "correlated":
        images = np.arange(trainer.dataset.size, dtype=np.int32)
        pool = training_pool(trainer.dataset, images, trainer.config.correlate)
        pick = make_pick(pool, len(images))
        return np.asarray(pick(jax.tree.map(jnp.asarray, pool), key_for("correlated", 0)))
    # RandomState, because NumPy promises that its stream never changes.
    order = np.random.RandomState(ORDER_SEED).permutation(trainer.dataset.size)
    if split == "all":
        return order
    chosen = np.zeros(trainer.dataset.size, bool)
    chosen[trainer.split.named(split)] = True
    return order[chosen[order]]


def same_images(first: Trainer, other: Trainer, split: str = "all") -> bool:
    """Whether two runs encode the same images in the same order."""
    return first.dataset.identity == other.dataset.identity and np.array_equal(
        encoding_order(first, split), encoding_order(other, split)
    )


def available(dataset: Dataset, config: Config, points: str) -> int:
    """How many images a split has.

    Raises:
        UserError: correlated draws are wanted of a run without correlation.
    """
    if points == "correlated":
        if not config.correlate:
            raise UserError(
                "--split correlated: got a run that was trained without --correlate, wanted one "
                "with it."
            )
        return dataset.size
    return dataset.size if points == "all" else len(split_of(dataset, config).named(points))


def point_count(dataset: Dataset, config: Config, points: str, wanted: int | None) -> int:
    """How many images of a split to encode: all, if `wanted` is None.

    Raises:
        UserError: there are not so many, or fewer than three are wanted.
    """
    most = available(dataset, config, points)
    if most < 3:
        raise UserError(
            f"--split {points}: this run has {most} such images of {dataset.name}, wanted at least "
            "3. See --holdout, --test and --exclude of bvae train."
        )
    if wanted is None:
        return most
    if not isinstance(wanted, Integral) or not 3 <= wanted <= most:
        images = "images" if points == "all" else f"{points} images"
        raise UserError(
            f"--num-points: got {wanted!r}, wanted a whole number from 3 to {most}, the {images} "
            f"of {dataset.name}."
        )
    return int(wanted)  # as JSON has it


def encode_points(
    trainer: Trainer,
    params: Params,
    count: int,
    *,
    split: str = "all",
    known: Encoded | None = None,
    interrupt: Interrupt | None = None,
    progress: bool = False,
) -> Encoded:
    """Encode the first `count` images, batch by batch on the device.

    Args:
        params: the VAE's.
        split: whose images.
        known: what is known already, kept.
        interrupt: stop early, with fewer images, if it is requested.
        progress: show a bar.
    """
    order = encoding_order(trainer, split)[:count]
    shape = (count, trainer.config.latents)
    means = np.empty(shape, np.float32)
    logvars = np.empty(shape, np.float32) if trainer.variational else None
    done = 0 if known is None else min(count, len(known.means))
    if known is not None:
        means[:done] = known.means[:done]
        if logvars is not None and known.logvars is not None:
            logvars[:done] = known.logvars[:done]
    batch = BATCHES.get(jax.default_backend(), BATCH)
    shown = bar(
        total=count, initial=done, desc="encode", unit=" images", unit_scale=True,
        disable=not progress or done == count,
    )  # fmt: skip

    def encode(start: int) -> int:
        end = min(start + batch, count)
        # The last batch is filled up with copies of its last image: one shape, one compile.
        indices = order[np.minimum(np.arange(start, start + batch), count - 1)]
        posterior = trainer.encode(params, indices)
        means[start:end] = np.asarray(posterior.mean)[: end - start]
        if logvars is not None:
            logvars[start:end] = np.asarray(posterior.logvar)[: end - start]
        return end

    at_once, first, waiting = _at_once(), done, collections.deque()
    with shown, ThreadPoolExecutor(at_once) as threads:
        for start in range(first, count, batch):
            if interrupt and interrupt.requested:
                break
            waiting.append(threads.submit(encode, start))
            # The first batch is encoded alone, so that the trainer is compiled once.
            if start == first or len(waiting) == at_once:
                done = waiting.popleft().result()
                shown.update(done - shown.n)
        for last in waiting:
            done = last.result()
            shown.update(done - shown.n)
    return Encoded(means, logvars).first(done)


def _at_once() -> int:
    """Batches under way: one is copied while the device computes the next.

    A CPU computes what one thread asks for in its order, on little more than one core.
    """
    return min(8, os.cpu_count() or 1) if jax.default_backend() == "cpu" else 2


def encode_run(
    run_dir: Path,
    trainer: Trainer,
    params: Params,
    count: int,
    *,
    split: str = "all",
    progress: bool = True,
) -> Encoded:
    """`encode_points`, kept in the run's directory: what is there for these parameters is read.

    Ctrl-C keeps what is encoded so far.

    Raises:
        KeyboardInterrupt: after a signal to end.
    """
    path = run_dir / of_split(CACHE, split)
    identity = _identity(trainer.dataset, params)
    known = _read(path, identity, trainer) if path.exists() else None
    if known is not None and len(known.means) >= count:
        return known.first(count)
    with Interrupt() as interrupt:
        with interrupt.deferred():
            encoded = encode_points(
                trainer,
                params,
                count,
                split=split,
                known=known,
                interrupt=interrupt,
                progress=progress,
            )
            arrays = {n: x for n, x in encoded._asdict().items() if x is not None}
            write_npz(path, identity=identity, **arrays)
        interrupt.check()
    return encoded


def _identity(dataset: Dataset, params: Params) -> str:
    return f"{dataset.identity} {fingerprint(params)}"


def _read(path: Path, identity: str, trainer: Trainer) -> Encoded | None:
    """The cached encode; None if it is that of other parameters, or damaged."""
    try:
        arrays = read_npz(path)
        if str(arrays["identity"]) != identity:
            return None
        names = Encoded._fields if trainer.variational else ("means",)
        shapes = [arrays[name].shape for name in names]
        if len(set(shapes)) == 1 and shapes[0][1:] == (trainer.config.latents,):
            return Encoded(arrays["means"], arrays["logvars"] if trainer.variational else None)
        reason = f"it holds arrays of {shapes}"
    except DamagedError as error:
        reason = str(error)
    except KeyError as error:
        reason = f"it has no {error}"
    say(f"{path} is damaged ({reason}): encoding anew.")
    return None


def codes_of(trainer: Trainer, encoded: Encoded, split: str = "all") -> "Codes":
    """An encode with the factors of its images: what metrics read."""
    from bvae_jax.metrics.codes import mean_kl  # scikit-learn takes a second

    indices = encoding_order(trainer, split)[: len(encoded.means)]
    found = with_factors(trainer.dataset, indices, encoded.means, encoded.logvars)
    kl = None if encoded.logvars is None else mean_kl(encoded.means, encoded.logvars)
    return dataclasses.replace(found, kl=kl)


def with_factors(
    dataset: Dataset,
    indices: Int[np.ndarray, " n"],
    means: Float[np.ndarray, "n latent"],
    logvars: Float[np.ndarray, "n latent"] | None,
) -> "Codes":
    """Codes of images of a data set, with their factors."""
    from bvae_jax.metrics.codes import Codes  # scikit-learn takes a second

    return Codes(
        codes=means,
        factors=np.asarray(dataset.factors(jnp.asarray(indices))),
        logvars=logvars,
        factor_sizes=np.array(dataset.factor_sizes, int),
        factor_names=dataset.factor_names or None,
        indices=indices,
        values=None if dataset.values is None else dataset.values[indices],
        continuous=dataset.continuous,
    )


def codes_to_score(trainer: Trainer, encoded: Encoded, split: str = "all") -> "Codes":
    """`codes_of`; those without a posterior `scaled`."""
    codes = codes_of(trainer, encoded, split)
    return codes if trainer.variational else codes.scaled()


def training_scores(trainer: Trainer, params: Params, metrics: str) -> dict[str, float]:
    """What `Config.eval_metrics` asks for, by name, on as many images as metrics take."""
    from bvae_jax.metrics.scoring import quick_scores

    config = ScoreConfig(metrics=metrics, permutations=0)
    count = min(trainer.dataset.size, config.train_points + config.test_points)
    return quick_scores(codes_to_score(trainer, encode_points(trainer, params, count)), config)
