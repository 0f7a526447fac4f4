"""`bvae data list`, `bvae data show` and `bvae data prepare`."""

import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bvae_jax.cli.flags import QUIET, Flag, Flags, of_dataclass, parse
from bvae_jax.config import Config
from bvae_jax.errors import UserError, unknown
from bvae_jax.runtime import fatal

if TYPE_CHECKING:
    from bvae_jax.data.catalogue import Entry

MOST_WIDTH = 28
"""Of the column of names."""
WIDTH = 100
FORMATS = (".png", ".pdf", ".svg")
USAGE = """usage: bvae data COMMAND ...

  bvae data list                            what data sets there are
  bvae data show NAME [--out FILE.png ...]  draw images at random, and what its factors do
  bvae data prepare NAME [--data-dir DIR]   fetch or read it now, so that a run starts at once

bvae data COMMAND --help lists a command's flags."""
FORMS = {
    "folder:DIRECTORY": "PNG, JPEG or WebP pictures; folders are classes, train and test a split",
    "npz:FILE": "an .npz file: images, and perhaps factors (or labels), factor_names, continuous",
    "hf:NAME": "of the Hugging Face Hub: USER/NAME; or ./FILE.parquet, ./DIRECTORY of such files",
    "tfds:NAME": "what TensorFlow Datasets prepared as array_record",
}


NAME: Flags = {
    "name": Flag(
        str,
        "What bvae data list shows, folder:DIRECTORY, npz:FILE or hf:NAME.",
        positional=True,
        required=True,
    )
}
OPENING = ("data_dir", "image_size", "grey", "background", "image_key", "factor_keys")
"""Fields of `Config` that say how a data set is opened."""


def data(argv: Sequence[str]) -> int:
    """`bvae data`."""
    command, *rest = argv or ["--help"]
    if command in ("-h", "--help"):
        print(USAGE)
        return 0
    if command not in COMMANDS:
        raise unknown("command", f"data {command}", (f"data {name}" for name in COMMANDS))
    return COMMANDS[command][0](rest)


def list_flags() -> Flags:
    """Those of `bvae data list`."""
    return of_dataclass(Config, "data_dir")


def list_(argv: Sequence[str]) -> int:
    """List the data sets: images, shape, factors with their numbers of values, size, source."""
    show_all(parse(argv, "bvae data list", list_.__doc__, list_flags).get("data_dir", ""))
    return 0


def show_all(given: str) -> None:
    """Print the table of data sets, and of the other forms that `--dataset` takes.

    Args:
        given: where they lie; "" is the default place.
    """
    with fatal():
        from bvae_jax.data.catalogue import all_entries
        from bvae_jax.data.store import data_dir

    directory = data_dir(given)
    entries = all_entries(directory)
    width = min(MOST_WIDTH, max(len(entry.name) for entry in entries))
    print(f"{'name':{width}}  {'images':>9}  {'shape':>10}  {'on disk':>8}  here")
    for entry in entries:
        print_entry(entry, width)
    print()
    for form, meaning in FORMS.items():
        print(f"{form:16}  {meaning}")
    print(f"\nPrepared sets lie in {directory}")


def show_flags() -> Flags:
    """Those of `bvae data show`."""
    out = Flag(Path, "The figure (.png, .pdf or .svg). Not given: NAME.png.")
    return NAME | of_dataclass(Config, *OPENING, "only", "augment") | {"out": out} | QUIET


def show(argv: Sequence[str]) -> int:
    """Draw images of a data set: at random, and a row for each factor, or each of its values; with
    --augment also as training changes them."""
    given = parse(argv, "bvae data show", show.__doc__, show_flags)
    name = re.sub(r"[^\w.-]+", "-", given["name"]).strip("-")
    out = given.pop("out", Path(f"{name}.png")).expanduser()
    if out.suffix not in FORMATS or out.is_dir():
        raise UserError(f"--out: got {out}, wanted a file that ends in {', '.join(FORMATS)}.")
    config, progress = _config(given)
    with fatal():
        from bvae_jax import data
        from bvae_jax.data.augment import parse_augment
        from bvae_jax.data.base import Rendered
        from bvae_jax.data.catalogue import preview
        from bvae_jax.data.sources import make_source
        from bvae_jax.plots import run as plots

    dataset = data.open_dataset(config, progress=progress)
    augment = parse_augment(config.augment, dataset.image_shape)
    # Only what is shown is drawn or read, and not the whole set.
    kind = "rendered" if isinstance(dataset.pixels, Rendered) else "streamed"
    source = make_source(dataset, kind, "cpu", progress=progress)
    shown = preview(dataset, source, augment)
    told = "a factor from its first value to its last" if dataset.grid else ""
    plots.save_image_grid(out, shown.images, row_labels=shown.labels, xlabel=told)
    if shown.more:
        print(f"{shown.more} rows more, of other values of factors, are not shown.")
    print(out)
    return 0


def prepare_flags() -> Flags:
    """Those of `bvae data prepare`."""
    return NAME | of_dataclass(Config, *OPENING) | QUIET


def prepare(argv: Sequence[str]) -> int:
    """Bring a data set to the form that runs read: a published file is fetched and converted, what
    is to be rendered and cached is rendered."""
    given = parse(argv, "bvae data prepare", prepare.__doc__, prepare_flags)
    config, progress = _config(given)
    with fatal():
        from bvae_jax import data
        from bvae_jax.data.base import Rendered
        from bvae_jax.data.catalogue import describe
        from bvae_jax.data.sources import load_packed

    dataset = data.open_dataset(config, progress=progress, fetch=True)
    if isinstance(dataset.pixels, Rendered) and dataset.pixels.cache:
        load_packed(dataset.pixels, progress=progress)
    print_entry(describe(dataset), len(dataset.name))
    return 0


def _config(given: dict[str, Any]) -> tuple[Config, bool]:
    """That of the data set alone, and whether to show progress."""
    progress = not given.pop("quiet", False)
    return Config(dataset=given.pop("name"), **given), progress


def print_entry(entry: "Entry", width: int) -> None:
    """One line of numbers, and one or more of what is known besides."""
    shape, here = "x".join(map(str, entry.shape)), "yes" if entry.present else "no"
    name = entry.name
    if len(name) > width:  # a path, perhaps: on a line of its own
        print(name)
        name = ""
    print(f"{name:{width}}  {entry.images:9,}  {shape:>10}  {_size(entry.size):>8}  {here}")
    below = {
        "factors": ", ".join(entry.factors),
        "source": entry.source if entry.source not in entry.name else "",
        "licence": entry.licence,
    }
    for title, text in below.items():
        lines = textwrap.wrap(
            f"{title}: {text}", WIDTH - 4, subsequent_indent="  ", break_on_hyphens=False
        )
        if text:
            print(textwrap.indent("\n".join(lines), "    "))


def _size(count: int) -> str:
    """Bytes for people."""
    if not count:
        return "-"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count / 1e6, 0.1):.1f} MB"


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], Callable[[], Flags]]] = {
    "list": (list_, list_flags),
    "show": (show, show_flags),
    "prepare": (prepare, prepare_flags),
}
