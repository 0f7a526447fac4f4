"""Sets that TensorFlow Datasets has prepared before, read as they are: TFRECORD or array_record."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from bvae_jax.data.records import read_records
from bvae_jax.data.tfds_features import Chosen
from bvae_jax.data.tfds_writing import CHUNK, Example, SplitExamples, in_order
from bvae_jax.errors import UserError

VERSION = re.compile(r"\d+\.\d+\.\d+")


def find_directory(name: str, data_dir: Path) -> Path | None:
    """Where TFDS prepared a set: below the data directory, `$TFDS_DATA_DIR`, its own default.

    Args:
        name: BUILDER, BUILDER/CONFIG, and perhaps :VERSION.

    Returns:
        The directory of the newest version.

    Raises:
        UserError: several configurations are there, and the name says none.
    """
    plain, _, version = name.partition(":")
    given = os.environ.get("TFDS_DATA_DIR")
    roots = [data_dir, *([Path(given).expanduser()] if given else [])]
    for root in [*roots, Path.home() / "tensorflow_datasets"]:
        found = [path for path in _versions(root / plain) if version in ("", path.name)]
        if not found and "/" not in plain:
            configs = [p for p in _children(root / plain) if _versions(p)]
            if len(configs) > 1:
                known = ", ".join(f"tfds:{plain}/{path.name}" for path in configs)
                raise UserError(f"tfds:{name}: got no configuration, wanted one of {known}.")
            found = [path for config in configs for path in _versions(config)]
            found = [path for path in found if version in ("", path.name)]
        if found:
            return max(found, key=lambda path: [int(part) for part in path.name.split(".")])
    return None


def _children(path: Path) -> list[Path]:
    return sorted(path.iterdir()) if path.is_dir() else []


def _versions(path: Path) -> list[Path]:
    """Directories of whole versions; TFDS writes under another name until they are."""
    named = [child for child in _children(path) if VERSION.fullmatch(child.name)]
    return [child for child in named if (child / "dataset_info.json").is_file()]


def open_directory(directory: Path) -> Any:
    """The builder of a prepared set, which needs no code of the set's own.

    Raises:
        Exception: whatever TFDS raises where the directory is damaged.
    """
    return tfds.builder_from_directory(directory)


def directory_splits(builder: Any, chosen: Chosen) -> list[SplitExamples]:
    """The examples of a prepared set, split by split; images are bytes that nobody has decoded.

    Raises:
        UserError: it has another format than TFRECORD and array_record.
    """
    file_format = builder.info.file_format.value
    readers = {"tfrecord": _from_records, "array_record": _from_source}
    if file_format not in readers:
        raise UserError(
            f"{builder.data_dir}: got file format {file_format}, wanted tfrecord or array_record."
        )
    decoders: Any = tfds.decode.SkipDecoding()
    for part in reversed(chosen.image.split("/")):
        decoders = {part: decoders}
    known = builder.info.splits
    return [
        SplitExamples(name, readers[file_format](builder, name, decoders), known[name].num_examples)
        for name in in_order(known, builder.info.name)
    ]


def _from_records(builder: Any, split: str, decoders: Any) -> Iterator[Example]:
    features = builder.info.features
    for path in builder.info.splits[split].filepaths:
        for record in read_records(Path(path)):
            yield features.deserialize_example_np(record, decoders=decoders)


def _from_source(builder: Any, split: str, decoders: Any) -> Iterator[Example]:
    source = builder.as_data_source(split, decoders=decoders)
    for start in range(0, len(source), CHUNK):
        yield from source.__getitems__(range(start, min(start + CHUNK, len(source))))
