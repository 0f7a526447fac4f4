"""From TFDS's builders, or what they prepared before, to a prepared set; imports TFDS."""

import contextlib
import inspect
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.util import DownloadError

from bvae_jax.data.published import PUBLISHED, convert
from bvae_jax.data.tfds_directory import directory_splits, open_directory
from bvae_jax.data.tfds_downloads import Downloads
from bvae_jax.data.tfds_features import Wish, choose
from bvae_jax.data.tfds_offline import without_tensorflow
from bvae_jax.data.tfds_writing import Example, SplitExamples, in_order, write
from bvae_jax.errors import UserError
from bvae_jax.files import (
    held,
    remove_abandoned,
)

GRIDS = {"dsprites": "dsprites_hdf5", "shapes3d": "shapes3d_h5"}
"""Builders that load all of a file, which is read in chunks instead."""


def convert_directory(directory: Path, place: Path, wish: Wish, *, progress: bool) -> None:
    """Write the prepared form of what TFDS prepared in a directory.

    Raises:
        UserError: the directory is damaged, or a key names no feature.
    """
    with _one_line(f"{wish.name}: {directory} cannot be read", "delete it, and prepare it again"):
        builder = open_directory(directory)
        chosen = choose(builder.info.features, wish, builder.info.name)
        splits = directory_splits(builder, chosen)
        write(place, chosen, splits, _meta(builder, wish, str(directory)), wish, progress=progress)


def convert_builder(data_dir: Path, place: Path, wish: Wish, *, progress: bool) -> None:
    """Download what a stock builder reads, and write the prepared form of what it generates.

    Raises:
        UserError: there is no such builder; a file can neither be found nor downloaded, or is
            damaged; the builder needs TensorFlow or Beam; or a key names no feature.
    """
    remedy = "tfds.load prepares it where TensorFlow is installed, and what it prepared is read"
    downloaded = data_dir / "downloads"
    with without_tensorflow(), _one_line(f"{wish.name}: its builder failed", remedy):
        builder = make_builder(wish.name, data_dir)
        chosen = choose(builder.info.features, wish, builder.name)
        downloaded.mkdir(parents=True, exist_ok=True)
        remove_abandoned(downloaded, ".extracted-*")
        with (
            tempfile.TemporaryDirectory(dir=downloaded, prefix=".extracted-") as extracted,
            held(Path(extracted)),
        ):
            downloads = Downloads(builder, data_dir, Path(extracted), wish.name, progress=progress)
            made = _split_generators(builder, downloads)
            if builder.name in GRIDS and wish == Wish(wish.name):
                path = Path(made[0].gen_kwargs["filepath"])
                convert(path, PUBLISHED[GRIDS[builder.name]], place, wish.name, progress=progress)
                return
            meta = _meta(builder, wish, " ".join(builder.url_infos or ()))
            write(place, chosen, _splits(builder, made), meta, wish, progress=progress)


def make_builder(name: str, data_dir: Path) -> Any:
    """A stock builder.

    Args:
        name: tfds:BUILDER, perhaps with /CONFIG and :VERSION.
        data_dir: what `prepared.data_dir` gives.

    Raises:
        UserError: there is none of that name, configuration or version.
    """
    plain, _, version = name.removeprefix("tfds:").partition(":")
    builder, _, config = plain.partition("/")
    try:
        cls = tfds.builder_cls(builder)
    except ValueError as error:
        raise UserError(
            f"tfds: got {builder!r}, wanted a builder that stands in "
            "https://www.tensorflow.org/datasets/catalog/overview."
        ) from error
    try:
        return cls(data_dir=data_dir, config=config or None, version=version or None)
    except (ValueError, AssertionError) as error:
        configs = ", ".join(f"{builder}/{c.name}" for c in cls.BUILDER_CONFIGS) or builder
        raise UserError(
            f"tfds: got {plain}{version and ':'}{version}, wanted one of {configs}, of version "
            f"{cls.VERSION}."
        ) from error


def _split_generators(builder: Any, downloads: Downloads) -> Any:
    """What the builder makes of its files: split generators, or examples by split.

    Raises:
        UserError: it needs Beam, or its files cannot be downloaded.
    """
    if "pipeline" in inspect.signature(builder._split_generators).parameters:
        raise UserError(
            f"tfds:{builder.name}: its builder needs Apache Beam: prepare it with tfds.load, and "
            "what that prepared is read."
        )
    try:
        return builder._split_generators(downloads)
    except (requests.exceptions.RequestException, DownloadError) as error:
        raise downloads.by_hand() from error


def _splits(builder: Any, made: Any) -> list[SplitExamples]:
    if not isinstance(made, dict):
        made = {g.name: builder._generate_examples(**g.gen_kwargs) for g in made}
    by_name = {str(name): pairs for name, pairs in made.items()}
    return [
        SplitExamples(name, _examples(by_name[name])) for name in in_order(by_name, builder.name)
    ]


def _examples(pairs: Any) -> Iterator[Example]:
    for _, example in pairs:
        yield example


def _meta(builder: Any, wish: Wish, made_from: str) -> dict[str, Any]:
    info = builder.info
    return {
        "name": wish.name,
        "builder": info.name,
        "source": f"{info.homepage} (TensorFlow Datasets {info.full_name})",
        "licence": str(info.redistribution_info.license),
        "citation": " ".join(info.citation.split()),
        "made_from": made_from,
    }


@contextlib.contextmanager
def _one_line(what: str, remedy: str) -> Iterator[None]:
    """Turn whatever TFDS, or the code of a set, raises into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        if "wrong checksum" in reason:
            reason, remedy = reason.partition(" To debug")[0], "delete the file, and fetch it again"
        raise UserError(f"{what} ({reason}): {remedy}.") from error
