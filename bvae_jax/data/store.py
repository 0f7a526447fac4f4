"""The form in which stored sets are kept: plain arrays in a directory, opened in milliseconds.

- `images.npy`: uint8 [image, height, width, channel]; or [image, byte], eight pixels to a byte
  (`np.packbits`), where all pixels are 0 or 1.
- `labels.npy`: int32 [image, factor]; absent where there is one image for each combination of
  factors, in their order, or where no factors are known.
- `values.npy`: float64 [image, factor]; absent where no factor is a number.
- `meta.json`: what is known of them.

A directory is written beside its place and moved there when it is whole.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bvae_jax.data.base import Dataset, Stored
from bvae_jax.errors import UserError
from bvae_jax.files import held, remove_abandoned
from bvae_jax.runtime import bar, user_cache
from bvae_jax.types import ImageShape

FORM = 1
"""Raise it whenever the same files become other arrays."""
DAMAGES = (OSError, ValueError, KeyError, TypeError, EOFError)
"""What reading a damaged directory raises."""
BLOCK = 2**24
"""Bytes that are compared or moved at once."""
HEX = "[0-9a-f]"
IMAGES, LABELS, VALUES, META = "images.npy", "labels.npy", "values.npy", "meta.json"
FILES = "files"
"""In meta.json: what `file_state` gave when the arrays were last seen to be of the version."""
VERSION = 2
"""To be raised when the same files would be prepared otherwise."""
STATE = "state"
"""In a prepared set's meta: of the files that it was made from."""
DARK = 16
"""Of 255: where no pixel is lighter, the numbers are of another scale."""
LONGEST = 40
"""Letters of a file's name that become part of its directory's."""


def data_dir(config_data_dir: str = "") -> Path:
    """Where data sets lie: what is given, `$BVAE_DATA_DIR`, or `data` in the user's cache."""
    given = config_data_dir or os.environ.get("BVAE_DATA_DIR")
    return Path(given).expanduser().absolute() if given else user_cache().absolute() / "data"


def place(data_dir: Path, name: str, *made_from: object) -> Path:
    """Where a set is kept: another directory for whatever else it may be made from.

    Args:
        data_dir: what the function of that name gives.
        name: what `--dataset` calls it.
        made_from: all that its images and labels depend on.
    """
    digest = hashlib.sha256(repr((FORM, *made_from)).encode()).hexdigest()[:8]
    plain = re.sub(r"[^\w.]+", "-", name)
    return data_dir / f"{plain}-{digest}"


def open_prepared(
    directory: Path, *, name: str, check: bool = True, progress: bool = False
) -> Dataset:
    """A prepared set; its pixels stay on the disk until they are used.

    Args:
        name: what `--dataset` calls it.
        check: if its files were touched since it was written, see whether they are what was.
        progress: show a bar while they are compared.

    Raises:
        UserError: the directory is damaged.
    """
    with _reading(directory, name):
        dataset = _open(directory, name)
        meta, files = read_meta(directory), file_state(directory)
        if check and meta.get(FILES) != files:
            _compare(dataset, progress)
            with contextlib.suppress(OSError):  # perhaps nothing can be written there
                write_meta(directory, meta | {FILES: files})
    return dataset


def check_content(dataset: Dataset, *, progress: bool = False) -> None:
    """See whether the images and labels of a prepared set are what was written, byte by byte.

    Others are drawn, and cannot be damaged.

    Raises:
        UserError: they are not.
    """
    pixels = dataset.pixels
    if isinstance(pixels, Stored) and isinstance(pixels.images, np.memmap):
        directory = Path(str(pixels.images.filename)).parent
        with _reading(directory, dataset.name):
            _compare(_open(directory, dataset.name), progress)


@contextlib.contextmanager
def _reading(directory: Path, name: str) -> Iterator[None]:
    try:
        yield
    except DAMAGES as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{name}: {directory} is damaged ({reason}): delete it, and prepare {name} again."
        ) from error


def _compare(dataset: Dataset, progress: bool) -> None:
    """Raise ValueError unless the arrays of a set that is open are those of its version."""
    arrays = [dataset.pixels.images] if isinstance(dataset.pixels, Stored) else []
    arrays += [array for array in (dataset.labels, dataset.values) if array is not None]
    columns = []
    total, name = sum(array.nbytes for array in arrays), f"checking {dataset.name}"
    with bar(total=total, desc=name, unit="B", unit_scale=True, delay=1, disable=not progress) as b:
        for array in arrays:
            digest = hashlib.sha256()
            step = max(1, BLOCK // array[0].nbytes)
            for start in range(0, len(array), step):
                block = array[start : start + step]
                digest.update(block.data.cast("B"))
                b.update(block.nbytes)
            columns.append((array.dtype, len(array), digest))
    if content_version(dataset.image_shape, columns) != dataset.version:
        raise ValueError(f"its {IMAGES}, {LABELS} or {VALUES} is not what was written")


def read_meta(directory: Path) -> dict[str, Any]:
    return json.loads((directory / META).read_text(encoding="utf-8"))


def _open(directory: Path, name: str) -> Dataset:
    meta = read_meta(directory)
    shape: ImageShape = tuple(meta["image_shape"])
    names, sizes = tuple(meta["factor_names"]), tuple(meta["factor_sizes"])
    images = np.load(directory / IMAGES, mmap_mode="r", allow_pickle=False)
    row = shape if images.ndim == 4 else (-(-math.prod(shape) // 8),)
    _expect(images, np.uint8, (meta["images"], *row), IMAGES)
    labels = None
    if (directory / LABELS).exists():
        labels = np.load(directory / LABELS, mmap_mode="r", allow_pickle=False)
        _expect(labels, np.int32, (meta["images"], len(names)), LABELS)
    elif names and math.prod(sizes) != meta["images"]:
        raise ValueError(f"{LABELS} is missing")
    values, continuous = None, meta.get("continuous", "")
    if continuous:
        values = np.load(directory / VALUES, mmap_mode="r", allow_pickle=False)
        _expect(values, np.float64, (meta["images"], len(names)), VALUES)
    return Dataset(
        name=name,
        version=meta["version"],
        image_shape=shape,
        pixels=Stored(images, shape),
        factor_names=names,
        factor_sizes=sizes,
        classes=tuple(meta.get("classes", ())),
        labels=labels,
        values=values,
        continuous=continuous,
        published_test=_test_from_json(meta["published_test"]),
        **{key: meta.get(key, "") for key in ("pictures", "source", "licence", "citation")},
    )


def _expect(array: np.ndarray, dtype: Any, shape: tuple[int, ...], file: str) -> None:
    if array.dtype != dtype or array.shape != shape:
        wanted = f"{np.dtype(dtype)}{list(shape)}"
        raise ValueError(f"{file} is {array.dtype}{list(array.shape)}, wanted {wanted}")


def _test_from_json(test: Any) -> np.ndarray | None:
    if test is None:
        return None
    return np.arange(test["start"], test["stop"]) if isinstance(test, dict) else np.array(test, int)


class Writer(contextlib.AbstractContextManager):
    """Writes a prepared set chunk by chunk: the whole of it or nothing.

        with Writer(directory, (64, 64, 1), images=1000) as writer:
            writer.add(images)
            writer.finish({"factor_names": ["x", "y"], "factor_sizes": [3, 7]}, labels)

    Args:
        directory: where it is to lie; one that is there already is replaced.
        image_shape: height, width, channels.
        images: how many there are at most.
        packed: all pixels are 0 or 1, to be kept eight to a byte.

    Attributes:
        rows: number of images so far.
        lightest: the largest number in an image so far.

    Raises:
        UserError: the directory cannot be written, or has no room for the images.
    """

    def __init__(
        self,
        directory: Path,
        image_shape: Sequence[int],
        *,
        images: int,
        packed: bool = False,
    ):
        self._directory = directory
        self._shape = tuple(int(side) for side in image_shape)
        self._most, self._packed = images, packed
        self.lightest = 0
        self._row = (-(-math.prod(self._shape) // 8),) if packed else self._shape
        self._part = directory.with_name(f".{directory.name}.{os.getpid()}.part")
        self._holding = contextlib.ExitStack()
        with self._writing():
            directory.parent.mkdir(parents=True, exist_ok=True)
            for kind in ("part", "old"):
                remove_abandoned(directory.parent, f".*-{HEX * 8}.*.{kind}")
            _check_room(directory.parent, images * math.prod(self._row))
            shutil.rmtree(self._part, ignore_errors=True)
            self._part.mkdir()
            self._holding.enter_context(held(self._part))
            self._start()

    def _start(self) -> None:
        self.rows, self._digest = 0, hashlib.sha256()
        self._file = (self._part / IMAGES).open("wb")
        self._begin = self._write_header()

    def _write_header(self) -> int:
        """Where the images begin: NumPy pads a header so that the number of rows may grow."""
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.rows, *self._row)}
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()

    def __exit__(self, *exception) -> None:
        """Leave nothing behind where `finish` was not reached."""
        self._file.close()
        shutil.rmtree(self._part, ignore_errors=True)
        self._holding.close()

    def add(self, images: np.ndarray) -> None:
        """Append a chunk.

        Args:
            images: uint8 [image, height, width, channel], in 0..255; 0 or 1 where packed.

        Raises:
            ValueError: images are not as the writer was told.
            UserError: the disk is full.
        """
        if images.dtype != np.uint8 or images.shape[1:] != self._shape:
            raise ValueError(f"got {images.dtype}{images.shape}, wanted uint8[n, *{self._shape}]")
        lightest = int(images.max(initial=0))
        if self._packed and lightest > 1:
            raise ValueError(f"got a pixel of {lightest}, wanted 0 or 1")
        if self.rows + len(images) > self._most:
            raise ValueError(f"more than {self._most} images")
        if self._packed:
            images = np.packbits(images.reshape(len(images), -1), axis=1)
        self.lightest = max(self.lightest, lightest)
        with self._writing():
            self._append(images)

    def _append(self, rows: np.ndarray) -> None:
        if len(rows):
            data = np.ascontiguousarray(rows).data.cast("B")
            self._digest.update(data)
            self._file.write(data)
            self.rows += len(rows)

    def reorder(self, order: np.ndarray) -> None:
        """Put the images that were added, all of them, into another order.

        Args:
            order: [image] which image, as it was added, is to be there.
        """
        with self._writing():
            self._file.close()
            path = self._part / IMAGES
            old = np.memmap(path, np.uint8, "r", self._begin, (self.rows, *self._row))
            path.unlink()  # what is mapped stays until nobody holds it
            self._start()
            step = max(1, BLOCK // old[0].nbytes)
            for start in range(0, len(order), step):
                self._append(old[order[start : start + step]])

    def finish(
        self,
        meta: dict[str, Any],
        labels: np.ndarray | None = None,
        values: np.ndarray | None = None,
    ) -> None:
        """Write what is known of the images, and move all to its place.

        Args:
            meta: some of factor_names, factor_sizes, published_test (a range, or indices), source,
                licence, citation, and whatever else is to be remembered; of JSON's types.
            labels: int [image, factor] class indices; None where there is one image for each
                combination of factors, in their order, or where no factors are known.
            values: float64 [image, factor], where some are numbers, as `meta["continuous"]` says.

        Raises:
            ValueError: there are no images, or what is said of factors does not fit them.
            UserError: the directory cannot be written.
        """
        meta = {"factor_names": [], "factor_sizes": [], **meta}
        meta["published_test"] = _test_as_json(meta.get("published_test"))
        meta |= {"image_shape": list(self._shape), "images": self.rows}
        _check_factors(self.rows, meta["factor_names"], meta["factor_sizes"], labels)
        meta["version"] = self._version(labels, values)
        with self._writing():
            self._file.seek(0)
            self._write_header()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            if labels is not None:
                np.save(self._part / LABELS, np.ascontiguousarray(labels, np.int32))
            if values is not None:
                np.save(self._part / VALUES, values)
            write_meta(self._part, meta | {FILES: file_state(self._part)})
            _move(self._part, self._directory)

    def _version(self, labels: np.ndarray | None, values: np.ndarray | None) -> str:
        """Of the images that were added, with these labels and values."""
        columns: list[Any] = [(np.dtype(np.uint8), self.rows, self._digest)]
        if labels is not None:
            data = np.ascontiguousarray(labels, np.int32)
            columns.append((data.dtype, len(data), hashlib.sha256(data.tobytes())))
        if values is not None:
            columns.append((values.dtype, len(values), hashlib.sha256(values.tobytes())))
        return content_version(self._shape, columns)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise UserError(
                f"{self._directory}: cannot be written ({reason}): mend that, or choose another "
                "--data-dir."
            ) from error


def _check_factors(
    images: int, names: Sequence[str], sizes: Sequence[int], labels: np.ndarray | None
) -> None:
    if not images:
        raise ValueError("no images")
    if len(names) != len(sizes):
        raise ValueError(f"got {len(names)} factor names and {len(sizes)} sizes")
    if labels is None:
        if names and math.prod(sizes) != images:
            raise ValueError(f"got {images} images, wanted one for each combination of {sizes}")
    elif labels.shape != (images, len(names)) or labels.min(initial=0) < 0:
        raise ValueError(f"got labels {labels.shape} for {images} images, or negative ones")
    elif not np.all(labels.max(axis=0, initial=0) < np.array(sizes)):
        raise ValueError(f"got labels up to {labels.max(axis=0)}, wanted below {sizes}")


def content_version(
    image_shape: Sequence[int], columns: Iterable[tuple[np.dtype, int, Any]]
) -> str:
    """The version of images and their labels.

    Args:
        image_shape: height, width, channels.
        columns: of the images, then of labels and values if there are any: type, number of rows,
            SHA-256 of the data.
    """
    shape = tuple(image_shape)
    parts = [f"{shape} {dtype} {rows} {digest.hexdigest()}" for dtype, rows, digest in columns]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def file_state(directory: Path) -> dict[str, list[int]]:
    """Bytes and time, in nanoseconds, of the last change of each array in a directory."""
    found = {name: directory / name for name in (IMAGES, LABELS, VALUES)}
    states = {name: path.stat() for name, path in found.items() if path.exists()}
    return {name: [state.st_size, state.st_mtime_ns] for name, state in states.items()}


def write_meta(directory: Path, meta: dict[str, Any]) -> None:
    """Write meta.json so that a reader sees the old one or the new one."""
    part = directory / f".{META}.{os.getpid()}"
    part.write_text(json.dumps(meta, indent=1, ensure_ascii=False), encoding="utf-8")
    part.replace(directory / META)


def _test_as_json(test: Any) -> Any:
    if isinstance(test, range):
        return {"start": test.start, "stop": test.stop}
    return None if test is None else [int(index) for index in test]


def _check_room(directory: Path, wanted: int) -> None:
    free = shutil.disk_usage(directory).free
    if wanted > free:
        raise UserError(
            f"{directory}: got {free / 1e9:.1f} GB of free space, wanted {wanted / 1e9:.1f} "
            "GB: make room, or choose another --data-dir."
        )


def _move(part: Path, place: Path) -> None:
    """Put a directory in its place, where there may be an older one."""
    old = place.with_name(f".{place.name}.{os.getpid()}.old")
    if place.exists():
        place.replace(old)
    part.replace(place)
    shutil.rmtree(old, ignore_errors=True)


def own_place(
    name: str, path: Path, *, data_dir: Path, options: Any, state: Any
) -> tuple[Path, dict[str, Any]]:
    """Where the set that is prepared from a user's own files is kept.

    Args:
        name: what `--dataset` calls it.
        path: of the user's files.
        data_dir: where prepared sets lie.
        options: how it is prepared: those of each way lie side by side.
        state: of the files, of JSON's types: another one replaces what was prepared.

    Returns:
        The directory, and what its meta must hold; {} where it was prepared from these files.
    """
    source = text(str(path.resolve()))
    kind = name.partition(":")[0]
    # One place for each path, so that a folder that changes does not fill the disk.
    directory = place(data_dir, f"{kind}-{path.stem[:LONGEST]}", source, options)
    digest = hashlib.sha256(json.dumps([VERSION, state]).encode()).hexdigest()
    try:
        known = read_meta(directory).get(STATE)
    except (OSError, ValueError, AttributeError):
        known = None  # not there, or damaged: its files are at hand
    return directory, {} if known == digest else {STATE: digest, "source": source}


def open_own(directory: Path, name: str, *, progress: bool = False) -> Dataset:
    """The set that was prepared in what `own_place` gave."""
    opened = open_prepared(directory, name=name, progress=progress)
    return dataclasses.replace(opened, kind=name.partition(":")[0])


def all_but_black(lightest: int) -> str:
    """Why images whose lightest pixel is this, of 255, are refused; "" where they are not."""
    if lightest > DARK:
        return ""
    return (
        f"got images whose lightest pixel is {lightest} of 255, wanted black to white: scale them "
        "(12 bits that are kept in 16 by 16, masks of 0 and 1 by 255)."
    )


def text(name: str) -> str:
    r"""A file's name as JSON can hold it: bytes that are no UTF-8 as Python writes them, \udce9."""
    return name.encode("utf-8", "backslashreplace").decode()
