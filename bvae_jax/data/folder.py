"""A folder of pictures as a data set.

PNG, JPEG and WebP are read, by content. Pictures are turned as their EXIF says, laid on white where
they are transparent, cropped to their central square and resized. All grey, they have one channel;
all of one side of 8 to 64 pixels, they keep it.

What their folders say, leaving out those that all pictures are in:

    0/a.png  10/b.png  110/c.png              a factor "class"; names that hold numbers by these
    train/cat/a.png  test/cat/b.png           the same, and a published test set
"""

import contextlib
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bvae_jax.data.base import Dataset
from bvae_jax.data.classes import Classified, classify, listed, remarks
from bvae_jax.data.pictures import SIDE, File, Form, decode_all, find_form
from bvae_jax.data.store import (
    Writer,
    all_but_black,
    open_own,
    own_place,
    read_meta,
    text,
    write_meta,
)
from bvae_jax.errors import UserError, say
from bvae_jax.files.archive import one_line
from bvae_jax.runtime import bar
from bvae_jax.types import ImageShape

READ = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp")
# Whoever has these in a folder should hear that they are not read.
NOT_READ = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".j2k", ".jp2", ".jxl", ".pbm", ".pgm", ".ppm"),
    *(".tga", ".tif", ".tiff"),
)
SUFFIXES = frozenset(READ + NOT_READ)
FEWEST = 3
"""Images that a data set must have."""


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
    path: Path, *, image_size: int | None, grey: bool | None, data_dir: Path, progress: bool
) -> Dataset:
    """The pictures of a folder, decoded when it is opened first, and again when they change.

    They are sorted by name. Files whose suffix is no picture's, and hidden ones, are not looked at.
    Pictures that cannot be read are left out, and named on stderr.

    Args:
        path: the folder: of pictures, or of folders of pictures.
        image_size: side of the images, in pixels; 0: 64; None: that of the pictures if all have the
            same of 8 to 64 pixels, and else 64.
        grey: one channel, and not three; None: if all pictures are grey.
        data_dir: where prepared sets lie.
        progress: show a bar while pictures are decoded.

    Raises:
        UserError: there is no such folder, it cannot be read, or holds too few pictures.
    """
    name, folder = f"folder:{path}", path.expanduser()
    pictures = list_pictures(folder)
    colours = ""
    if image_size is None or grey is None:
        found = _form(name, folder, pictures, data_dir, progress)
        colours = " grey" if found.grey else " colour"
        image_size = found.side if image_size is None else image_size
        grey = found.grey if grey is None else grey
    shape: ImageShape = (image_size or SIDE, image_size or SIDE, 1 if grey else 3)
    options = [shape[0], bool(grey)]
    directory, meta = own_place(name, folder, data_dir=data_dir, options=options, state=pictures)
    if meta:
        with (
            Writer(directory, shape, images=len(pictures)) as writer,
            bar(total=len(pictures), desc=f"reading {folder.name} (once)", unit=" images",
                disable=not progress) as shown,
        ):  # fmt: skip
            _prepare(writer, shown, folder, pictures, meta, shape, colours)
    return open_own(directory, name, progress=progress)


def _form(
    name: str, folder: Path, pictures: Sequence[Picture], data_dir: Path, progress: bool
) -> Form:
    """That of the pictures of a folder, which are looked at once until something changes."""
    directory, meta = own_place(name, folder, data_dir=data_dir, options="form", state=pictures)
    if not meta:
        known = read_meta(directory)
        return Form(known["side"], known["grey"])
    shown = f"looking at {folder.name} (once)" if progress else ""
    found = find_form([folder / picture.name for picture in pictures], shown)
    with contextlib.suppress(OSError):  # whoever writes the images will say it
        directory.mkdir(parents=True, exist_ok=True)
        write_meta(directory, meta | found._asdict())
    return found


def _prepare(
    writer: Writer,
    shown: Any,
    folder: Path,
    pictures: Sequence[Picture],
    meta: dict[str, Any],
    shape: ImageShape,
    colours: str,
) -> None:
    """Write the prepared set, and say on stderr what may not be meant so.

    Args:
        colours: of the pictures, in a word; "" if nobody looked.
    """
    names = [picture.name for picture in pictures]
    found = classify(folder, names)
    files = [folder / name for name in names]
    broken, small, sizes = add_pictures(folder, files, names.__getitem__, writer, shown, shape)
    found = found.without(list(broken))
    _check_classes(folder, found)
    for sentence in [*remarks(folder, names, found), *small]:
        say(one_line(folder, sentence))
    meta["pictures"] = sizes + colours
    classes = [text(name) for name in found.classes]
    if classes:
        meta |= {"factor_names": ["class"], "factor_sizes": [len(classes)], "classes": classes}
    if found.tested.any():
        meta["published_test"] = np.flatnonzero(found.tested)
    writer.finish(meta, found.labels if classes else None)


def add_pictures(
    where: Path | str,
    files: Sequence[File],
    name_of: Callable[[int], str],
    writer: Writer,
    shown: Any,
    shape: ImageShape,
) -> tuple[list[int], list[str], str]:
    """Add pictures to a prepared set.

    Args:
        where: they are from.
        files: of the pictures.
        name_of: index of a picture -> what to call it.
        shown: a bar.
        shape: of an image.

    Returns:
        The indices of those that are left out; remarks; their sizes, in words.

    Raises:
        UserError: most cannot be read, too few can, or all are black.
    """
    broken: dict[int, str] = {}
    sizes: set[tuple[int, int]] = set()
    small: list[int] = []
    for part in decode_all(files, shape):
        if len(part.rows):
            writer.add(part.images)
        broken |= part.failed
        sizes |= set(part.sizes)
        small += [min(size) for size in part.sizes if min(size) < shape[0]]
        shown.update(len(part.rows) + len(part.failed))
    check_broken(where, {name_of(i): why for i, why in sorted(broken.items())}, len(files))
    if told := all_but_black(writer.lightest):
        raise UserError(one_line(where, told))
    remark = (
        f"{len(small)} of {len(files)} pictures are smaller than {SIDE} pixels and are enlarged, "
        f"the smallest has {min(small, default=0)}: see --image-size."
    )
    return list(broken), [remark] if small and shape[0] == SIDE else [], in_words(sizes)


def in_words(sizes: set[tuple[int, int]]) -> str:
    """Widths and heights of pictures: height × width, as 28×30, or 12 to 41 pixels."""
    if len(sizes) == 1:
        ((width, height),) = sizes
        return f"{height}×{width}"
    sides = [side for size in sizes for side in size]
    return f"{min(sides)} to {max(sides)} pixels"


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


def check_broken(
    where: Path | str, broken: Mapping[str, str], pictures: int, fewest: int = FEWEST
) -> None:
    """Say on stderr which pictures are left out.

    Args:
        where: they are from.
        broken: name of a picture that cannot be read -> why.
        pictures: how many there are.
        fewest: pictures that must be whole.

    Raises:
        UserError: most are left out, or too few are whole.
    """
    whole = pictures - len(broken)
    reasons = [f"{name} ({why})" for name, why in broken.items()]
    which = f": {listed(reasons)}." if broken else "."
    if len(broken) > whole:
        told = f"got {len(broken)} pictures that cannot be read and {whole} that can{which}"
        raise UserError(one_line(where, told))
    if whole < fewest:
        told = f"got {whole} pictures that can be read, wanted at least {fewest}{which}"
        raise UserError(one_line(where, told))
    if broken:
        told = f"{len(broken)} of {pictures} pictures cannot be read and are left out{which}"
        say(one_line(where, told))


def _check_classes(folder: Path, found: Classified) -> None:
    empty = [name for index, name in enumerate(found.classes) if index not in found.labels]
    if empty:
        told = f"none of the pictures in {empty[0]} can be read: mend them, or remove that folder."
        raise UserError(one_line(folder, told))
