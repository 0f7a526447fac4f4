"""`bvae data list`, `bvae data show` and `bvae data prepare`."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from bvae_jax.cli.entries import print_entry, print_header
from bvae_jax.cli.parsing import parse
from bvae_jax.config import Config
from bvae_jax.errors import UserError, unknown
from bvae_jax.runtime import fatal

MOST_WIDTH = 28
"""Of the column of names."""
FORMATS = (".png", ".pdf", ".svg")
USAGE = """usage: bvae data COMMAND ...

  bvae data list                            what data sets there are
  bvae data show NAME [--out FILE.png ...]  draw images at random, and what its factors do
  bvae data prepare NAME [--data-dir DIR]   fetch or read it now, so that a run starts at once

bvae data COMMAND --help lists a command's flags."""
FORMS = {
    "folder:DIRECTORY": "PNG, JPEG or WebP pictures; folders are classes, train and test a split",
    "npz:FILE": "an .npz file with images, and perhaps factors (or labels) and factor_names",
    "tfds:NAME": "what TensorFlow Datasets prepared as array_record",
}


@dataclass(frozen=True)
class ListArgs:
    """List the data sets: images, shape, factors with their numbers of values, size, source."""

    data_dir: str = ""
    """Where data sets lie. Not given: $BVAE_DATA_DIR, or the user's cache directory."""


@dataclass(frozen=True)
class DataFlags:
    """How a data set is opened: as the fields of `Config`."""

    data_dir: str = ""
    """Where data sets lie. Not given: $BVAE_DATA_DIR, or the user's cache directory."""
    image_size: int = 0
    """folder, tfds: side of the images, to which pictures are resized and cropped. 0: 64 of a
    folder, as they are of tfds."""
    grey: bool = False
    """folder: grey images, of one channel."""
    background: str = ""
    """scream_dsprites: picture behind the sprites. Not given: a generated one."""
    image_key: str = ""
    """tfds: the feature that is the image. Not given: the builder's only one."""
    factor_keys: str = ""
    """tfds: features that are factors, with commas. Not given: its labels."""


@dataclass(frozen=True)
class ShowArgs:
    """Draw images of a data set: at random, and a row for each factor, or each of its values."""

    name: Annotated[str, tyro.conf.Positional]
    """What bvae data list shows, folder:DIRECTORY or npz:FILE."""
    flags: tyro.conf.OmitArgPrefixes[DataFlags]
    only: str = ""
    """Use the images for which conditions hold, as shape=2,x>20."""
    augment: str = ""
    """Show how training images are changed, as shift=4,flip,crop=0.8."""
    out: Path | None = None
    """The figure (.png, .pdf or .svg). Not given: NAME.png."""
    quiet: bool = False
    """No progress bar."""


@dataclass(frozen=True)
class PrepareArgs:
    """Bring a data set to the form that runs read: a published file is fetched and converted, what
    is to be rendered and cached is rendered."""

    name: Annotated[str, tyro.conf.Positional]
    """What bvae data list shows, folder:DIRECTORY or npz:FILE."""
    flags: tyro.conf.OmitArgPrefixes[DataFlags]
    quiet: bool = False
    """No progress bar."""


def data(argv: Sequence[str]) -> int:
    """`bvae data`."""
    command, *rest = argv or ["--help"]
    if command in ("-h", "--help"):
        print(USAGE)
        return 0
    if command not in COMMANDS:
        raise unknown("command", f"data {command}", (f"data {name}" for name in COMMANDS))
    return COMMANDS[command](rest)


def list_(argv: Sequence[str]) -> int:
    """`bvae data list`."""
    args = parse(ListArgs, argv, "bvae data list")
    with fatal():
        from bvae_jax.data.catalogue import all_entries
        from bvae_jax.data.store import data_dir

    directory = data_dir(args.data_dir)
    entries = all_entries(directory)
    width = min(MOST_WIDTH, max(len(entry.name) for entry in entries))
    print_header(width)
    for entry in entries:
        print_entry(entry, width)
    print()
    for form, meaning in FORMS.items():
        print(f"{form:16}  {meaning}")
    print(f"\nPrepared sets lie in {directory}")
    return 0


def show(argv: Sequence[str]) -> int:
    """`bvae data show`."""
    args = parse(ShowArgs, argv, "bvae data show")
    name = re.sub(r"[^\w.-]+", "-", args.name).strip("-")
    out = (args.out or Path(f"{name}.png")).expanduser()
    if out.suffix not in FORMATS or out.is_dir():
        raise UserError(f"--out: got {out}, wanted a file that ends in {', '.join(FORMATS)}.")
    config = _config(args.name, args.flags, only=args.only, augment=args.augment)
    with fatal():
        from bvae_jax import data
        from bvae_jax.data.augment import parse_augment
        from bvae_jax.data.base import Rendered
        from bvae_jax.data.preview import preview
        from bvae_jax.data.sources import make_source
        from bvae_jax.plots import run as plots

    dataset = data.open_dataset(config, progress=not args.quiet)
    augment = parse_augment(config.augment, dataset.image_shape)
    # Only what is shown is drawn or read, and not the whole set.
    kind = "rendered" if isinstance(dataset.pixels, Rendered) else "streamed"
    source = make_source(dataset, kind, "cpu", progress=not args.quiet)
    shown = preview(dataset, source, augment)
    told = "a factor from its first value to its last" if dataset.grid else ""
    plots.save_image_grid(out, shown.images, row_labels=shown.labels, xlabel=told)
    if shown.more:
        print(f"{shown.more} rows more, of other values of factors, are not shown.")
    print(out)
    return 0


def prepare(argv: Sequence[str]) -> int:
    """`bvae data prepare`."""
    args = parse(PrepareArgs, argv, "bvae data prepare")
    config = _config(args.name, args.flags)
    with fatal():
        from bvae_jax import data
        from bvae_jax.data.base import Rendered
        from bvae_jax.data.catalogue import describe
        from bvae_jax.data.sources import load_packed

    progress = not args.quiet
    dataset = data.open_dataset(config, progress=progress, fetch=True)
    if isinstance(dataset.pixels, Rendered) and dataset.pixels.cache:
        load_packed(dataset.pixels, progress=progress)
    print_entry(describe(dataset), len(dataset.name))
    return 0


def _config(name: str, flags: DataFlags, **others: Any) -> Config:
    return Config(dataset=name, **dataclasses.asdict(flags), **others)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "list": list_,
    "show": show,
    "prepare": prepare,
}
