"""Sets of TensorFlow Datasets, without TensorFlow.

TFDS downloads, compares checksums and parses; from its builders' own examples a prepared set is
written once (`prepared.py`), which is all that training reads. What was prepared with TFDS before,
as TFRECORD or array_record, is found and read instead.

What cannot be done without TensorFlow, and what to do:
- builders whose generators compute with TensorFlow or Beam: prepare them with `tfds.load` where
  these are installed, in the data directory, `$TFDS_DATA_DIR` or ~/tensorflow_datasets;
- images of float or of several sizes: the former not at all, the latter with `--image-size`;
- the checksums of a TFRECORD's contents are not compared (those of the records' lengths are);
- colour pictures that a builder declares grey are made so by Pillow, whose weights are not quite
  TensorFlow's.

dSprites and 3D Shapes have the published order of their factors however they came here; other
builders' factors are class labels, booleans and whole numbers, in alphabetical order.
"""

import dataclasses
import re
from pathlib import Path

from bvae_jax.data.base import Dataset
from bvae_jax.data.dsprites import canonical
from bvae_jax.data.store import (
    open_prepared,
    place,
)
from bvae_jax.errors import UserError, needs

PREFIX = "tfds:"
NAME = re.compile(r"[a-zA-Z]\w*(/\w[\w+.-]*)?(:\d+\.\d+\.\d+)?")


def open_tfds(
    name: str,
    data_dir: Path,
    image_key: str = "",
    factor_keys: str = "",
    *,
    image_size: int = 0,
    progress: bool = True,
) -> Dataset:
    """A set of TFDS: prepared, or read from what TFDS prepared before.

    Args:
        name: BUILDER, perhaps with /CONFIG and :VERSION, with or without "tfds:" before it.
        data_dir: what `prepared.data_dir` gives.
        image_key: the feature that is the image. Not given: the only one, or `image`.
        factor_keys: features that are factors, with commas; "none" for none. Not given: class
            labels, booleans and whole numbers.
        image_size: side to which images are resized and cropped; 0 leaves them as they are.
        progress: show bars.

    Raises:
        UserError: it was not prepared, or is damaged, or a key names no feature.
    """
    return _open(name, data_dir, (image_key, factor_keys, image_size), False, progress)


def prepare_tfds(
    name: str,
    data_dir: Path,
    image_key: str = "",
    factor_keys: str = "",
    *,
    image_size: int = 0,
    progress: bool = True,
) -> Dataset:
    """A set of TFDS, downloaded and prepared if it is not there.

    Args:
        name: see `open_tfds`, as for the others.

    Raises:
        UserError: there is no such set; it cannot be downloaded, and the message says what to fetch
            by hand; a file is damaged; or the builder cannot be used without TensorFlow.
    """
    return _open(name, data_dir, (image_key, factor_keys, image_size), True, progress)


def tfds_place(name: str, data_dir: Path, *options: str | int) -> Path:
    """Where a set is kept; `options` are image_key, factor_keys and image_size."""
    return place(data_dir, PREFIX + name.removeprefix(PREFIX), *(options or ("", "", 0)))


def _open(
    name: str, data_dir: Path, options: tuple[str, str, int], download: bool, progress: bool
) -> Dataset:
    bare = name.removeprefix(PREFIX)
    name = PREFIX + bare
    if not NAME.fullmatch(bare):
        raise UserError(f"{name}: wanted tfds:BUILDER, perhaps with /CONFIG and :VERSION (1.0.0).")
    directory = tfds_place(bare, data_dir, *options)
    if not directory.exists():
        needs("tensorflow_datasets", "data", name)
        # Imported only here: it takes a second.
        from bvae_jax.data.tfds_builders import Wish, convert_builder, convert_directory
        from bvae_jax.data.tfds_directory import find_directory

        wish = Wish(name, *options)
        found = find_directory(bare, data_dir)
        if found is not None:
            convert_directory(found, directory, wish, progress=progress)
        elif download:
            convert_builder(data_dir, directory, wish, progress=progress)
        else:
            raise UserError(f"{name}: it is not in {data_dir}: bvae data prepare {name}.")
    dataset = open_prepared(directory, name=name, progress=progress)
    if dataset.grid and bare.startswith("dsprites"):
        return dataclasses.replace(dataset, canonical=canonical)
    return dataset
