"""Codes of images, batch by batch, and the file that they go to; codes that are drawn.

Pictures of a folder are made into images as those of a data set are: see `data.folder`. No more
than a batch of them is in memory at a time.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from numbers import Integral, Real
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from bvae_jax.config import Config
from bvae_jax.data import DATASETS, PUBLISHED, USED_BY, open_dataset
from bvae_jax.data.base import Dataset, Rendered
from bvae_jax.data.classes import Classified, classify
from bvae_jax.data.folder import check_broken, in_words, list_pictures
from bvae_jax.data.pictures import decode_all
from bvae_jax.data.sources import make_source
from bvae_jax.data.store import text
from bvae_jax.errors import UserError, say
from bvae_jax.files import replacing
from bvae_jax.files.archive import one_line
from bvae_jax.runs import encode as encoding
from bvae_jax.runs.run import AT_ONCE, Run
from bvae_jax.runtime import bar
from bvae_jax.types import Latents, key_for

if TYPE_CHECKING:
    from bvae_jax.metrics.codes import Codes

WANTED = "wanted a folder of pictures, an .npz file, or the name of a data set (bvae data list)"


def encode_to(run: Run, path: Path, images: str | Path, progress: bool) -> int:
    """See `Run.encode_to`. The file is there whole or not at all."""
    if not isinstance(images, str | os.PathLike):
        raise UserError(
            f"images: got {type(images).__name__}, {WANTED}. Of an array, `encode` makes codes."
        )
    kind = path.suffix.lower()
    if kind not in WRITERS or path.is_dir():
        raise UserError(f"{path}: wanted the name of a file that ends in {' or '.join(WRITERS)}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    write, options = WRITERS[kind]
    count = 0

    def counted() -> "Iterator[Codes]":
        nonlocal count
        for part in stream(run, images, progress=progress):
            count += len(part.codes)
            yield part

    with replacing(path, **options) as file:
        write(file, counted())
    return count


def is_own(config: Config, images: str | Path) -> bool:
    """Whether images are a run's own data set. A folder is none: it is read anew, by file name."""
    own = images_config(config, images).dataset == config.dataset
    return own and not config.dataset.startswith("folder:")


def images_config(config: Config, images: str | Path) -> Config:
    """A run's config with other images, all of them, and no option that their kind has no use for.

    Raises:
        UserError: this is no name of images.
    """
    known = str(images) in (*DATASETS, *PUBLISHED)
    path = images if known or not os.path.isdir(os.path.expanduser(images)) else Path(images)
    named = Config(dataset=path).dataset  # pyright: ignore[reportArgumentType]
    if not known and not named.partition(":")[2]:
        raise UserError(f"Got {str(images)!r}, which is not there: {WANTED}.")
    kind = named.partition(":")[0]
    unused = {name: getattr(Config, name) for name, kinds in USED_BY.items() if kind not in kinds}
    return config.replace(dataset=named, only="", **unused)


def stream(run: Run, images: str | Path, *, progress: bool = False) -> "Iterator[Codes]":
    """Codes of images in their order, part by part: see `Run.encode_to`."""
    if is_own(run.config, images):
        yield _of_own(run, progress)
        return
    height, width, channels = run.image_shape
    config = images_config(run.config, images)
    kind, _, path = config.dataset.partition(":")
    if kind == "folder":
        if height != width or channels not in (1, 3):
            raise UserError(
                f"{path}: pictures become squares of 1 or 3 channels, but the run's images are "
                f"{height}×{width}×{channels}: give an .npz file."
            )
        yield from _of_folder(run, Path(path).expanduser(), progress)
        return
    wanted = {"image_size": height, "grey": channels == 1}
    config = config.replace(**{name: v for name, v in wanted.items() if kind in USED_BY[name]})
    dataset = open_dataset(config, progress=progress)
    if dataset.image_shape != run.image_shape:
        got = "×".join(map(str, dataset.image_shape))
        raise UserError(
            f"{config.dataset}: got images of {got}, but the run's are {height}×{width}×{channels}."
        )
    yield from _of_dataset(run, dataset, progress)


def _of_own(run: Run, progress: bool) -> "Codes":
    """By the encode that is kept in the run's directory, put into the order of the images."""
    trainer = run.trainer
    options = {"count": trainer.dataset.size, "progress": progress}
    encoded = encoding.encode_run(run.run_dir, trainer, run.params, **options)
    order = np.argsort(encoding.encoding_order(trainer))
    logvars = None if encoded.logvars is None else encoded.logvars[order]
    indices = np.arange(len(order))
    return encoding.with_factors(trainer.dataset, indices, encoded.means[order], logvars)


def _of_dataset(run: Run, dataset: Dataset, progress: bool) -> "Iterator[Codes]":
    kind = "auto" if isinstance(dataset.pixels, Rendered) else "streamed"
    source = make_source(dataset, kind, jax.default_backend(), progress=progress)
    look = jax.jit(source.look)
    with _bar(dataset.size, progress) as shown:
        for start in range(0, dataset.size, AT_ONCE):
            # The last batch is filled up with its last image: one shape, one compile.
            filled = np.minimum(np.arange(start, start + AT_ONCE), dataset.size - 1)
            indices = np.unique(filled)
            seen = np.asarray(look(source.reach(filled), filled))[: len(indices)]
            yield encoding.with_factors(dataset, indices, *_encode(run, seen))
            shown.update(len(indices))


def _of_folder(run: Run, folder: Path, progress: bool) -> "Iterator[Codes]":
    from bvae_jax.metrics.codes import Codes  # scikit-learn takes a second

    names = [picture.name for picture in list_pictures(folder)]
    found = Classified([], np.zeros((len(names), 0), np.int32), np.array([""] * len(names)))
    with contextlib.suppress(UserError):  # some beside folders: codes are codes without a class
        found = classify(folder, names)
    factor = ("class",) if found.classes else ()
    factor_sizes = np.array([len(found.classes)] * len(factor), int)
    broken: dict[int, str] = {}
    sizes: set[tuple[int, int]] = set()
    with _bar(len(names), progress) as shown:
        for part in decode_all([folder / name for name in names], run.image_shape):
            broken |= part.failed
            sizes |= set(part.sizes)
            if part.rows:
                means, logvars = _encode(run, part.images)
                files = [text(names[row]) for row in part.rows]
                labels = found.labels[part.rows]
                yield Codes(
                    means, labels, logvars,
                    factor_sizes=factor_sizes, factor_names=factor, files=files,
                )  # fmt: skip
            shown.update(len(part.rows) + len(part.failed))
    left_out = {names[row]: why for row, why in sorted(broken.items())}
    check_broken(folder, left_out, len(names), fewest=1)
    height, width, channels = run.image_shape
    if sizes != {(width, height)}:
        told = (
            f"pictures of {in_words(sizes)}, their central squares as {height}×{width}×{channels}"
        )
        say(one_line(folder, told))


def _encode(run: Run, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    means, logvars = (np.asarray(x) for x in run.encode(images))
    return means, logvars if run.variational else None


def _bar(total: int, progress: bool) -> Any:
    return bar(total=total, desc="encode", unit=" images", unit_scale=True, disable=not progress)


def _write_npz(file: IO[bytes], parts: "Iterator[Codes]") -> None:
    """Arrays by the names that `bvae evaluate` takes; no array of what is not known."""
    from bvae_jax.metrics.codes import mean_kl

    first, *others = parts
    by_image = ("codes", "logvars", "factors", "indices", "files")
    columns = {n: [getattr(part, n) for part in (first, *others)] for n in by_image}
    columns["factors"] = [part.known() for part in (first, *others)]
    arrays = {n: np.concatenate(c) for n, c in columns.items() if c[0] is not None}
    if first.continuous:
        arrays["continuous"] = np.array(first.continuous)
    if first.factors.shape[1]:
        arrays["factor_names"] = np.array(first.factor_names)
        arrays["factor_sizes"] = np.asarray(first.factor_sizes)
    else:
        del arrays["factors"]
    if "logvars" in arrays:
        arrays["kl"] = mean_kl(arrays["codes"], arrays["logvars"])
    np.savez(file, **arrays)  # pyright: ignore


def _write_csv(file: IO[str], parts: "Iterator[Codes]") -> None:
    """A line for each image, written as it is encoded."""
    for number, part in enumerate(parts):
        part.frame().to_csv(file, index=False, header=not number)


WRITERS: dict[str, tuple[Callable[..., None], dict[str, Any]]] = {
    ".npz": (_write_npz, {}),
    ".csv": (_write_csv, {"mode": "x", "encoding": "utf-8", "newline": ""}),
}
"""How a file is written, and opened, by the end of its name."""


# Codes drawn from a run's prior or from its aggregate posterior, and the pictures of them.

ZSource = Literal["prior", "aggregate"]
ARRAYS = "samples.npz"
MOST, HOTTEST = 100_000, 1000.0
"""Pictures that are drawn by one call, and the largest temperature."""


def draw_z(
    run: Run, n: int, *, seed: int = 0, temperature: float = 1.0, source: ZSource = "prior"
) -> Latents:
    """z of `Run.sample`, [n, latent]."""
    if not isinstance(n, Integral) or not 1 <= n <= MOST:
        raise UserError(f"sample: got n = {n!r}, wanted a whole number from 1 to {MOST:,}.")
    if not isinstance(temperature, Real) or not 0 <= temperature <= HOTTEST:
        raise UserError(f"temperature: got {temperature!r}, wanted a number from 0 to {HOTTEST:g}.")
    if not isinstance(seed, Integral) or not 0 <= seed < 2**32:
        raise UserError(f"seed: got {seed!r}, wanted a whole number from 0 to {2**32 - 1}.")
    if source not in ("prior", "aggregate"):
        raise UserError(f"source: got {source!r}, wanted 'prior' or 'aggregate'.")
    key = key_for("samples", seed)
    if source == "prior":
        if not run.variational:
            raise UserError(
                f"{run.run_dir} is an autoencoder: it has no prior to draw z from. Its codes can "
                "be drawn: source 'aggregate'."
            )
        return temperature * jax.random.normal(key, (n, run.config.latents))
    pick, noise = jax.random.split(key)
    trained = run.trainer.split.train
    chosen = trained[np.asarray(jax.random.randint(pick, (n,), 0, len(trained)))]
    parts = [
        run.encode(run.trainer.images(chosen[start : start + AT_ONCE]))
        for start in range(0, n, AT_ONCE)
    ]
    mean, logvar = (jnp.concatenate([part[i] for part in parts]) for i in range(2))
    if not run.variational:
        return mean
    return mean + temperature * jnp.exp(logvar / 2) * jax.random.normal(noise, mean.shape)


def write_samples(
    run: Run,
    out: Path,
    n: int = 64,
    *,
    seed: int = 0,
    temperature: float = 1.0,
    source: ZSource = "prior",
) -> list[Path]:
    """Decoded draws as files: each picture, a grid of all, and the arrays.

    Args:
        out: directory for the pictures: a new or empty one, or one of earlier samples, which are
            replaced.
        n: number of pictures.
        seed: of the draws.
        temperature: what standard deviations are multiplied by, those of the prior or of each
            image's posterior; 0 for their means.
        source: prior: N(0, I). aggregate: the posteriors of training images that are drawn at
            random; of an autoencoder their codes.

    Returns:
        samples.npz (images [n, height, width, channels] in [0, 1], z [n, latent], source,
        temperature, seed), samples.png, sample-0.png and so on.

    Raises:
        UserError: as `Run.sample`, or the directory holds something else.
    """
    from bvae_jax.plots.run import save_samples  # matplotlib takes a second

    arrays = out / ARRAYS
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not arrays.exists()):
        raise UserError(f"{out}: wanted a new or empty directory, or one of earlier samples.")
    z = draw_z(run, n, seed=seed, temperature=temperature, source=source)
    images = np.asarray(run.decode(z))
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("sample-*.png"):
        if old.stem.removeprefix("sample-").isdecimal():
            old.unlink()
    known: Any = {"source": source, "temperature": temperature, "seed": seed}
    with replacing(arrays) as file:
        np.savez(file, images=images, z=np.asarray(z), **known)
    return [arrays, *save_samples(out, images)]
