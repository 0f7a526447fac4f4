"""Data sets that the datasets library reads: of the Hugging Face Hub, or parquet files and folders.

    hf:USER/NAME/CONFIG:SPLIT@REVISION    of the Hub; all after NAME can be left out
    hf:./FILE.parquet    hf:./DIRECTORY   of this machine; DIRECTORY:SPLIT for one of its splits

Images become squares as those of a folder do (`pictures.py`). Of the columns, class labels,
booleans and whole numbers are factors, and those that are asked for may also be texts, or floats of
at most 256 values. All splits are read, train first; "test" is the published test set, or
"validation" where there is no test.
"""

import contextlib
import io
import logging
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bvae_jax.config import is_here
from bvae_jax.data.base import Dataset
from bvae_jax.data.columns import classes, grid_order, in_one_line, pick_factors, pick_image
from bvae_jax.data.folder import add_pictures
from bvae_jax.data.npz import value_classes
from bvae_jax.data.pictures import SIDE, find_form
from bvae_jax.data.store import Writer, open_own, own_place, place, text
from bvae_jax.errors import UserError, needs, say
from bvae_jax.files import held, remove_abandoned
from bvae_jax.files.archive import one_line
from bvae_jax.runtime import bar

PREFIX = "hf:"
NAME = re.compile(
    r"(?P<repository>\w[\w.-]*(/\w[\w.-]*)?)(/(?P<config>\w[\w.-]*))?(:(?P<split>\w+))?"
    r"(@(?P<revision>\S+))?"
)
WANTED = "hf:USER/NAME, perhaps with /CONFIG, :SPLIT and @REVISION, or hf:./FILE.parquet"
ORDER = {"train": 0, "test": 1, "validation": 2}
"""Of splits; others come last."""


class Where(NamedTuple):
    """What a name says.

    Attributes:
        repository: USER/NAME; empty for files of this machine.
        path: of these files.
        config: the configuration; None where none is said.
        split: the only split that is read; None for all.
        revision: branch, tag or commit.
    """

    repository: str
    path: Path
    config: str | None = None
    split: str | None = None
    revision: str | None = None


def parse(name: str) -> Where:
    """What `hf:...` says.

    Raises:
        UserError: it is not of this form, or names files that are not there.
    """
    bare = name.removeprefix(PREFIX)
    if not is_here(bare):
        if os.path.exists(bare):  # the library would take it, and not the one of the Hub
            raise UserError(f"{name}: {bare} is here: wanted hf:./{bare}, or another directory.")
        if found := NAME.fullmatch(bare):
            return Where(path=Path(), **found.groupdict())
        raise UserError(f"{name}: wanted {WANTED}.")
    path, split = Path(bare).expanduser(), None
    if not path.exists() and ":" in bare:
        start, _, split = bare.rpartition(":")
        path = Path(start).expanduser()
    if not path.exists():
        raise UserError(f"{name}: got nothing there, wanted a .parquet file or a directory.")
    if path.is_file() and path.suffix != ".parquet":
        raise UserError(f"{name}: got a file {path.suffix}, wanted a .parquet file or a directory.")
    return Where("", path, split=split)


def open_hf(
    name: str,
    data_dir: Path,
    image_key: str = "",
    factor_keys: str = "",
    *,
    image_size: int | None = None,
    grey: bool | None = None,
    progress: bool = True,
    fetch: bool = False,
) -> Dataset:
    """A set that the datasets library reads, prepared when it is opened for the first time, and one
    of this machine's files again when these change.

    Args:
        name: see above.
        data_dir: what `store.data_dir` gives.
        image_key: the column of the images. Not given: the only one, or `image`.
        factor_keys: columns that are factors, with commas; "none" for none. Not given: class
            labels, booleans, and whole numbers that are not different in each image.
        image_size: as of `open_folder`.
        grey: as of `open_folder`.
        progress: show bars.
        fetch: download what is not there.

    Raises:
        UserError: there is no such set, it cannot be reached, is damaged, or has no such column.
    """
    where = parse(name)
    options = [image_key, factor_keys, image_size, grey]
    if where.repository:
        directory = place(data_dir, name, *options)
        meta = {} if directory.is_dir() else {"name": name}
        if meta and not fetch:
            raise UserError(f"{name}: it is not in {data_dir}: bvae data prepare {name}"
                            f"{_flags(image_key, factor_keys, image_size, grey)}.")  # fmt: skip
    else:
        state, made = _state(where.path), [where.split, *options]
        directory, meta = own_place(name, where.path, data_dir=data_dir, options=made, state=state)
    if meta:
        needs("datasets", "hub", name)
        with _scratch(directory) as scratch, _library(progress):
            table = Table(name, *_load(name, where, scratch), image_key, factor_keys)
            _write(table, directory, meta, image_size, grey, progress)
    return open_own(directory, name, progress=progress)


def _flags(image_key: str, factor_keys: str, image_size: int | None, grey: bool | None) -> str:
    given = {"image-key": image_key, "factor-keys": factor_keys, "image-size": image_size}
    words = [f" --{flag} {shlex.quote(str(value))}" for flag, value in given.items() if value]
    return "".join(words) + ("" if grey is None else " --grey" if grey else " --no-grey")


def _state(path: Path) -> list[tuple[str, int, int, int]]:
    """What tells whether files changed."""
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    states = [(text(str(file.relative_to(path))), file.stat()) for file in files]
    return [(name, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for name, s in states]


@contextlib.contextmanager
def _scratch(directory: Path) -> Iterator[Path]:
    """A directory for the library's copy of this machine's files, removed at the end."""
    scratch = directory.with_name(f".{directory.name}.{os.getpid()}.arrow.part")
    try:
        try:
            scratch.mkdir(parents=True)
        except OSError as error:
            raise UserError(
                f"{scratch.parent}: cannot be written ({error.strerror}): mend that, or choose "
                "another --data-dir."
            ) from error
        remove_abandoned(directory.parent, ".hf-*.arrow.part")
        with held(scratch):
            yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _library(progress: bool) -> Iterator[None]:
    """Let the library show bars if they are wanted, and say nothing of what it raises besides."""
    import datasets

    silent = not progress and not datasets.are_progress_bars_disabled()
    levels = {"datasets": logging.CRITICAL} | (
        {} if progress else {"huggingface_hub": logging.CRITICAL}
    )
    before = {name: logging.getLogger(name).level for name in levels}
    try:
        if silent:
            datasets.disable_progress_bars()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        yield
    finally:
        if silent:
            datasets.enable_progress_bars()
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _load(name: str, where: Where, scratch: Path) -> tuple[dict[str, Any], Any]:
    """Tables by split, in order, without empty ones, and what is known of the set. Nothing is read
    into memory.

    Raises:
        UserError: there is no such set or split, it cannot be reached, or is damaged.
    """
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    options: dict[str, Any]
    path, options = where.repository, {"name": where.config, "revision": where.revision}
    if where.path.is_file():
        options = {"data_files": str(where.path.resolve()), "cache_dir": str(scratch)}
        path = "parquet"
    elif not path:
        path, options = str(where.path.resolve()), {"cache_dir": str(scratch)}
    remedy = "fetch it again" if where.repository else "mend that"
    with in_one_line(f"{name} cannot be read", remedy):
        try:
            builder: Any = datasets.load_dataset_builder(path, **options)
            builder.download_and_prepare()
            filled = [split for split, of in builder.info.splits.items() if of.num_examples]
            found = {split: builder.as_dataset(split) for split in filled}
        except DatasetNotFoundError as error:
            if not where.repository:
                raise
            raise UserError(
                f"{name}: the Hub has no such data set, or revision, or it is private or gated: "
                "check the name, or hf auth login (HF_TOKEN)."
            ) from error
        except (ConnectionError, TimeoutError) as error:
            raise UserError(one_line(
                name, f"it is not in the cache, and the Hub cannot be reached ({error})."
            )) from error  # fmt: skip
        except ValueError as error:
            if "onfig" not in str(error):
                raise
            raise UserError(one_line(name, f"{error} Wanted {WANTED}.")) from error
    if not found:
        raise UserError(f"{name}: got no images.")
    splits = {split: found[split] for split in sorted(found, key=lambda s: ORDER.get(s, 3))}
    if where.split and where.split not in splits:
        raise UserError(f"{name}: got the split {where.split}, wanted one of {', '.join(splits)}.")
    info = next(iter(splits.values())).info
    return {s: t for s, t in splits.items() if where.split in (None, s)}, info


class Table(Sequence):
    """The pictures of a set, nothing of which is in memory: a slice reads them.

    Attributes:
        name: of the set.
        info: what is known of it.
        table: of the library, all splits.
        split_of: [row] its split.
        factors: columns.
    """

    def __init__(
        self, name: str, splits: dict[str, Any], info: Any, image_key: str, factor_keys: str
    ):
        import datasets

        self.name, self.info = name, info
        with in_one_line(f"{name}: its splits have different columns", "choose one as :SPLIT"):
            table = datasets.concatenate_datasets(list(splits.values()))
        self.split_of = np.repeat(list(splits), [len(part) for part in splits.values()])
        features: dict[str, Any] = table.features
        declared = [k for k, f in features.items() if isinstance(f, datasets.Image)]
        stored = [key for key, feature in features.items() if _holds_bytes(feature)]
        kinds = [f"{key} ({_kind(feature)})" for key, feature in features.items()]
        others = f" Its columns: {', '.join(kinds)}."
        self._image = pick_image(name, image_key, declared or stored, others)
        if declared:
            table = table.cast_column(self._image, datasets.Image(decode=False))
        self.table = table
        usual = [k for k, f in features.items() if re.match("ClassLabel|bool|u?int", _kind(f))]
        more = [k for k, f in features.items() if re.match("(large_)?string|float", _kind(f))]
        self.factors = pick_factors(name, factor_keys, usual, [*usual, *more])
        if not factor_keys:
            ids = [key for key in self.factors if self._numbers_rows(key)]
            self.factors = tuple(key for key in self.factors if key not in ids)
            if ids:
                told = f"{', '.join(ids)}: another number in each image, and no factor."
                say(one_line(name, told))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, rows: Any) -> Any:
        """A file, or its contents; of [start:stop] a list of them."""
        found = self.table[rows][self._image]
        return [_file(value) for value in found] if isinstance(rows, slice) else _file(found)

    def _numbers_rows(self, key: str) -> bool:
        values = self.table.features[key], self.table[key][:]
        return _kind(values[0]) != "ClassLabel" and len(set(values[1])) == len(self) > 2

    def labels(self, rows: np.ndarray) -> tuple[np.ndarray, list[int], tuple[str, ...]]:
        """[image, factor] class indices of these rows, the sizes of factors, and the names of the
        classes of the only one.

        Raises:
            UserError: a value is missing, or of no class.
        """
        columns, features = [], [self.table.features[key] for key in self.factors]
        for key, feature in zip(self.factors, features, strict=True):
            values = self.table[key][:]
            labelled = hasattr(feature, "num_classes")
            missing = sum(value is None for value in values)
            if missing and not labelled:
                raise UserError(f"{self.name}: {key} is missing in {missing} of {len(values)} "
                                "images: leave it out with --factor-keys.")  # fmt: skip
            column = np.array([-1 if value is None else value for value in values])[rows]
            what, mend = f"{self.name}: {key}", "leave it out of --factor-keys"
            with in_one_line(f"{what} is no factor", mend):
                columns.append(column if labelled else value_classes(column, what, mend)[1])
        labels, sizes = classes(np.stack(columns, axis=1), features, self.factors, self.name)
        names = getattr(features[0], "names", ()) if len(features) == 1 else ()
        return labels, sizes, tuple(text(str(name)) for name in names)


def _kind(feature: Any) -> str:
    """As "int64", "ClassLabel", "Image", "List"."""
    return getattr(feature, "dtype", "") if type(feature).__name__ == "Value" else (
        type(feature).__name__
    )  # fmt: skip


def _holds_bytes(feature: Any) -> bool:
    """Whether a column that nobody declared to be images may hold their files."""
    if isinstance(feature, dict):
        return _holds_bytes(feature.get("bytes"))
    return _kind(feature) in ("binary", "large_binary")


def _file(value: Any) -> Path | io.BytesIO:
    content, path = value, None
    if isinstance(value, dict):
        content, path = value.get("bytes"), value.get("path")
    return Path(path) if content is None and path else io.BytesIO(content or b"")


def _write(
    table: Table,
    directory: Path,
    meta: dict[str, Any],
    image_size: int | None,
    grey: bool | None,
    progress: bool,
) -> None:
    """Write the prepared set, and say on stderr what may not be meant so."""
    name, form = table.name, None
    if image_size is None or grey is None:
        form = find_form(table, f"looking at {name} (once)" if progress else "")
        image_size = form.side if image_size is None else image_size
        grey = form.grey if grey is None else grey
    side = image_size or SIDE
    shape = (side, side, 1 if grey else 3)
    with (
        Writer(directory, shape, images=len(table)) as writer,
        bar(total=len(table), desc=f"preparing {name} (once)", unit=" images", unit_scale=True,
            disable=not progress) as shown,
    ):  # fmt: skip
        broken, told, sizes = add_pictures(
            name, table, lambda row: f"row {row}", writer, shown, shape
        )
        for sentence in told:
            say(one_line(name, sentence))
        rows = np.delete(np.arange(len(table)), broken)
        colours = "" if form is None else " grey" if form.grey else " colour"
        meta |= {"pictures": sizes + colours, **_about(table)}
        splits = table.split_of[rows]
        tested = splits == ("test" if "test" in splits else "validation")
        if tested.any() and not tested.all():
            meta["published_test"] = np.flatnonzero(tested)
        if not table.factors:
            writer.finish(meta)
            return
        labels, factor_sizes, named = table.labels(rows)
        meta |= {"factor_names": list(table.factors), "factor_sizes": factor_sizes}
        meta |= {"classes": list(named)} if named else {}
        order = None if "published_test" in meta else grid_order(labels, factor_sizes)
        if order is not None:
            writer.reorder(order)
        writer.finish(meta, labels if order is None else None)


def _about(table: Table) -> dict[str, Any]:
    """What the Hub knows of a set; nothing of files of this machine, whose source is their path."""
    where, info = parse(table.name), table.info
    if not where.repository:
        return {}
    return {
        "source": f"https://huggingface.co/datasets/{where.repository}",
        "licence": str(info.license or ""),
        "citation": " ".join(str(info.citation or "").split()),
    }
