"""A folder of pictures as a data set.

PNG, JPEG and WebP are read, by content. Pictures are turned as their EXIF says, laid on white where
they are transparent, cropped to their central square and resized.

What their folders say, leaving out those that all pictures are in:

    0/a.png  10/b.png  110/c.png              a factor "class"; names that hold numbers by these
    train/cat/a.png  test/cat/b.png           the same, and a published test set
"""

import contextlib
import math
import os
import stat
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from bvae_jax.data.archive import one_line
from bvae_jax.data.base import Dataset
from bvae_jax.data.classes import Classified, classify, listed, remarks
from bvae_jax.data.store import Writer, all_but_black, open_own, own_place, text
from bvae_jax.errors import UserError
from bvae_jax.runtime import bar
from bvae_jax.types import ImageShape

READ = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp")
# Whoever has these in a folder should hear that they are not read.
NOT_READ = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".j2k", ".jp2", ".jxl", ".pbm", ".pgm", ".ppm"),
    *(".tga", ".tif", ".tiff"),
)
SUFFIXES = frozenset(READ + NOT_READ)
SIDE = 64
FEWEST = 3
"""Images that a data set must have."""
FORMATS = ("PNG", "JPEG", "WEBP")
THREADS = min(8, os.cpu_count() or 1)
MOST_BYTES, MOST_PICTURES = 2**26, 256
"""Of images that are decoded before any of them is passed on: what bounds the memory."""

GREY_STEPS = {"L;2": 85, "L;4": 17}
"""Eight-bit levels from one grey to the next, by Pillow's name of the depth in the file."""

Pixels = UInt8[np.ndarray, "height width channels"]
Images = UInt8[np.ndarray, "image height width channels"]


class Picture(NamedTuple):
    """A file, and what tells whether it changed.

    Attributes:
        name: relative to the folder, with / between its parts.
        size: bytes; -1 where it cannot be looked at.
        modified: nanoseconds.
        changed: nanoseconds; unlike `modified` nobody can set it back.
    """

    name: str
    size: int
    modified: int
    changed: int


def open_folder(
    path: Path, *, image_size: int, grey: bool, data_dir: Path, progress: bool
) -> Dataset:
    """The pictures of a folder, decoded when it is opened first, and again when they change.

    They are sorted by name. Files whose suffix is no picture's, and hidden ones, are not looked at.
    Pictures that cannot be read are left out, and named on stderr.

    Args:
        path: the folder: of pictures, or of folders of pictures.
        image_size: side of the images, in pixels; 0: 64.
        grey: one channel, and not three.
        data_dir: where prepared sets lie.
        progress: show a bar while pictures are decoded.

    Raises:
        UserError: there is no such folder, it cannot be read, or holds too few pictures.
    """
    name, folder = f"folder:{path}", path.expanduser()
    pictures = list_pictures(folder)
    options = [image_size or SIDE, grey]
    directory, meta = own_place(name, folder, data_dir=data_dir, options=options, state=pictures)
    if meta:
        with (
            Writer(directory, _shape(image_size, grey), images=len(pictures)) as writer,
            bar(total=len(pictures), desc=f"reading {folder.name} (once)", unit=" images",
                disable=not progress) as shown,
        ):  # fmt: skip
            _prepare(writer, shown, folder, pictures, meta, image_size, grey)
    return open_own(directory, name, progress=progress)


def _shape(image_size: int, grey: bool) -> ImageShape:
    side = image_size or SIDE
    return side, side, 1 if grey else 3


def _prepare(
    writer: Writer,
    shown: Any,
    folder: Path,
    pictures: Sequence[Picture],
    meta: dict[str, Any],
    image_size: int,
    grey: bool,
) -> None:
    """Write the prepared set, and say on stderr what may not be meant so."""
    names = [picture.name for picture in pictures]
    found = classify(folder, names)
    shape = _shape(image_size, grey)
    broken: dict[int, str] = {}
    small: list[int] = []
    colours = grey
    for rows, images, failed, sides in decode_all([folder / name for name in names], shape):
        if len(rows):
            writer.add(images)
        broken |= failed
        small += [size for size in sides if size < shape[0]]
        colours = colours or bool((images != images[..., :1]).any())
        shown.update(len(rows) + len(failed))
    _check_broken(folder, pictures, broken)
    if told := all_but_black(writer.lightest):
        raise UserError(one_line(folder, told))
    found = found.without(list(broken))
    _check_classes(folder, found)
    told = remarks(folder, names, found)
    if small and not image_size:
        told.append(
            f"{len(small)} of {len(names)} pictures are smaller than {SIDE} pixels and are "
            f"enlarged, the smallest has {min(small)}: see --image-size."
        )
    if not colours:
        told.append("all pictures are grey, in three channels: see --grey.")
    for sentence in told:
        print(one_line(f"bvae: {folder}", sentence), file=sys.stderr)
    classes = [text(name) for name in found.classes]
    if classes:
        meta |= {"factor_names": ["class"], "factor_sizes": [len(classes)], "classes": classes}
    if found.tested.any():
        meta["published_test"] = np.flatnonzero(found.tested)
    writer.finish(meta, found.labels if classes else None)


def list_pictures(folder: Path) -> list[Picture]:
    """The files of a folder and of folders in it that are pictures by their suffix, by name.

    Raises:
        UserError: there are none, or a folder cannot be read.
    """
    # os.path and not Path, which raises an error where a folder above may not be entered.
    if not os.path.isdir(folder):
        got = "a file" if os.path.exists(folder) else "nothing there"
        raise UserError(f"{folder}: got {got}, wanted a folder of pictures.")
    found, visited = [], set()
    # Links are followed: a data set may be put together from them.
    for where, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        status = os.stat(where)
        if (status.st_dev, status.st_ino) in visited:  # a link to where we come from
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        # Links last: what is there by two names has its own.
        shown = [(os.path.islink(f"{where}/{n}"), n) for n in folders if not _hidden(n)]
        folders[:] = [name for _, name in sorted(shown)]
        prefix = os.path.relpath(where, folder)
        for name in files:  # strings, and no paths: there may be a million
            if not _hidden(name) and os.path.splitext(name)[1].lower() in SUFFIXES:
                found += _look(folder, name if prefix == "." else f"{prefix}/{name}")
    if not found:
        raise UserError(
            f"{folder}: got no pictures, wanted files .png, .jpg, .jpeg or .webp, in it or in a "
            "folder for each class."
        )
    return sorted(found)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot be read ({error.strerror}).") from error


def _look(folder: Path, name: str) -> list[Picture]:
    """What to know of a file; nothing of a pipe, which would have us wait for ever."""
    try:
        status = os.stat(f"{folder}/{name}")
    except OSError:
        return [Picture(name, -1, -1, -1)]
    if not stat.S_ISREG(status.st_mode):
        return []
    return [Picture(name, status.st_size, status.st_mtime_ns, status.st_ctime_ns)]


def _check_broken(folder: Path, pictures: Sequence[Picture], broken: dict[int, str]) -> None:
    """Say which pictures are left out; refuse where they are most of them."""
    whole = len(pictures) - len(broken)
    reasons = [f"{pictures[index].name} ({broken[index]})" for index in sorted(broken)]
    which = f": {listed(reasons)}." if broken else "."
    if len(broken) > whole:
        told = f"got {len(broken)} pictures that cannot be read and {whole} that can{which}"
        raise UserError(one_line(folder, told))
    if whole < FEWEST:
        told = f"got {whole} pictures that can be read, wanted at least {FEWEST}{which}"
        raise UserError(one_line(folder, told))
    if broken:
        told = f"{len(broken)} of {len(pictures)} pictures cannot be read and are left out{which}"
        print(one_line(f"bvae: {folder}", told), file=sys.stderr)


def _check_classes(folder: Path, found: Classified) -> None:
    empty = [name for index, name in enumerate(found.classes) if index not in found.labels]
    if empty:
        told = f"none of the pictures in {empty[0]} can be read: mend them, or remove that folder."
        raise UserError(one_line(folder, told))


class Decoded(NamedTuple):
    """Pictures that were decoded together.

    Attributes:
        rows: indices of the files.
        images: of these files.
        failed: index of a file that cannot be read -> why.
        sides: of the pictures, the shorter one, in pixels; of large JPEGs perhaps a fraction of it,
            though no less than what was wanted.
    """

    rows: list[int]
    images: Images
    failed: dict[int, str]
    sides: list[int]


def decode_all(
    files: Sequence[Path], shape: ImageShape, threads: int = THREADS
) -> Iterator[Decoded]:
    """Decode pictures in chunks, in their order.

    Args:
        shape: of an image: a square of 1 channel (grey) or 3.
    """
    chunk = min(MOST_PICTURES, max(threads, MOST_BYTES // math.prod(shape)))
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(files), chunk):
            with _size_matters():
                found = list(pool.map(lambda file: _try(file, shape), files[start : start + chunk]))
            failed = {start + i: why for i, why in enumerate(found) if isinstance(why, str)}
            rows = [start + i for i, image in enumerate(found) if not isinstance(image, str)]
            decoded = [image for image in found if not isinstance(image, str)]
            images = np.array([pixels for pixels, _ in decoded], np.uint8).reshape(-1, *shape)
            yield Decoded(rows, images, failed, [side for _, side in decoded])


@contextlib.contextmanager
def _size_matters() -> Iterator[None]:
    """What Pillow has to say of a picture's metadata does not matter; how large it is does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _try(file: Path, shape: ImageShape) -> tuple[Pixels, int] | str:
    """The image and the picture's side, or why there is none."""
    try:
        return _decode(file, shape)
    except UnidentifiedImageError:
        return "empty" if not file.stat().st_size else "not PNG, JPEG or WebP"
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return f"more than {Image.MAX_IMAGE_PIXELS} pixels"
    except OSError as error:
        return error.strerror or str(error)
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises a dozen types for damaged files
        return str(error) or type(error).__name__


def decode(file: Path, shape: ImageShape) -> Pixels:
    """A picture's central square, resized.

    Args:
        shape: of the image: a square of 1 channel (grey) or 3.

    Raises:
        Exception: of many types, from Pillow: it cannot be read.
    """
    return _decode(file, shape)[0]


def _decode(file: Path, shape: ImageShape) -> tuple[Pixels, int]:
    side, _, channels = shape
    with Image.open(file, formats=FORMATS) as picture:
        _scale_transparent(picture)
        # A large JPEG is decoded at a fraction of its size, no smaller than twice what is wanted.
        picture.draft(None, (2 * side, 2 * side))
        ImageOps.exif_transpose(picture, in_place=True)
        plain = _plain(picture, "L" if channels == 1 else "RGB")
    square = ImageOps.fit(plain, (side, side), Image.Resampling.LANCZOS)
    return np.asarray(square).reshape(shape), min(plain.size)


def _scale_transparent(picture: Image.Image) -> None:
    """A PNG names its transparent colour in its own depth: make it that of the pixels, which Pillow
    gives with eight bits."""
    colour = picture.info.get("transparency")
    tiles = getattr(picture, "tile", [])  # of a picture in a file
    depth = str(tiles[0][3]) if tiles else ""
    if isinstance(colour, int) and depth in GREY_STEPS:
        picture.info["transparency"] = colour * GREY_STEPS[depth]
    elif isinstance(colour, tuple) and depth.startswith("RGB;16"):
        picture.info["transparency"] = tuple(part >> 8 for part in colour)


def _plain(picture: Image.Image, mode: str) -> Image.Image:
    """Eight bits, grey or RGB, and opaque."""
    if picture.mode.startswith("I"):  # 16 bits: Pillow's own conversion cuts off all above 255
        pixels = np.asarray(picture).astype(np.uint32)
        seen = 255 * (pixels != picture.info.get("transparency", -1))
        levels = np.stack([(pixels + 128) // 257, seen], axis=-1)
        picture = Image.fromarray(levels.astype(np.uint8))
    if picture.has_transparency_data:
        # Before resizing: what lies under transparent pixels must not bleed into others.
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert(mode)
