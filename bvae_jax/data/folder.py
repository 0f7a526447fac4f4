"""A folder of pictures as a data set.

PNG, JPEG and WebP are read, by content. Pictures are turned as their EXIF says, laid on white where
they are transparent, cropped to their central square and resized.

What their folders say, leaving out those that all pictures are in:

    0/a.png  10/b.png  110/c.png              a factor "class"; names that hold numbers by these
    train/cat/a.png  test/cat/b.png           the same, and a published test set
"""

import itertools
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from bvae_jax.archive import one_line
from bvae_jax.data.base import Dataset, natural
from bvae_jax.data.own import all_but_black, open_own, text
from bvae_jax.data.pictures import decode_all
from bvae_jax.data.writer import Writer
from bvae_jax.errors import UserError
from bvae_jax.progress import bar

READ = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp")
# Whoever has these in a folder should hear that they are not read.
NOT_READ = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".j2k", ".jp2", ".jxl", ".pbm", ".pgm", ".ppm"),
    *(".tga", ".tif", ".tiff"),
)
SUFFIXES = frozenset(READ + NOT_READ)
SIDE = 64
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
}
"""Names of folders, in small letters, that say what pictures are for."""
FEWEST = 3
"""Images that a data set must have."""
NAMED = 5
"""Pictures left out whose names are given."""


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
    folder = path.expanduser()
    side = image_size or SIDE
    pictures = list_pictures(folder)

    def prepare(directory: Path, meta: dict[str, Any]) -> None:
        _tell_of_links(folder, pictures)
        names = [picture.name for picture in pictures]
        classes, labels, tested = classify(folder, names)
        shape = (side, side, 1 if grey else 3)
        broken: dict[int, str] = {}
        with (
            Writer(directory, shape, images=len(pictures), factors=labels.shape[1]) as writer,
            bar(total=len(pictures), desc=f"reading {folder.name} (once)", unit=" images",
                disable=not progress) as shown,
        ):  # fmt: skip
            files = [folder / picture.name for picture in pictures]
            for rows, images, failed in decode_all(files, shape):
                if len(rows):
                    writer.add(images, labels[rows] if classes else None)
                broken |= failed
                shown.update(len(rows) + len(failed))
            _check_broken(folder, pictures, broken)
            if told := all_but_black(writer.lightest):
                raise UserError(one_line(folder, told))
            left_out = list(broken)
            labels, tested = np.delete(labels, left_out, axis=0), np.delete(tested, left_out)
            _check_classes(folder, classes, labels, tested)
            before = np.delete(text_order(names), left_out, axis=0)
            meta |= _factor(classes) | {"earlier": [writer.version(before)]}
            if tested.any():
                meta["published_test"] = np.flatnonzero(tested)
            writer.finish(meta)

    name, options = f"folder:{path}", [side, grey]
    return open_own(
        name, folder, prepare, data_dir=data_dir, options=options, state=pictures, progress=progress
    )


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
        folders[:] = sorted(name for name in folders if not _hidden(name))
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


def _tell_of_links(folder: Path, pictures: Sequence[Picture]) -> None:
    """Say which folders with pictures are links out of the folder."""
    owners = [owner.split("/") for owner in {p.name.rpartition("/")[0] for p in pictures} if owner]
    places = {"/".join(parts[: k + 1]) for parts in owners for k in range(len(parts))}
    links = [place for place in sorted(places) if os.path.islink(folder / place)]
    leading = [(place, (folder / place).resolve()) for place in links]
    inside = folder.resolve()
    away = [f"{place} to {to}" for place, to in leading if not to.is_relative_to(inside)]
    if away:
        more = f" and {len(away) - NAMED} more" if len(away) > NAMED else ""
        told = f"pictures come by links from elsewhere: {', '.join(away[:NAMED])}{more}."
        print(one_line(f"bvae: {folder}", told), file=sys.stderr)


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


class Classified(NamedTuple):
    """What the folders of pictures say of them.

    Attributes:
        classes: names of the classes, in order; [] where there are none.
        labels: the class of each picture; no column where there are none.
        tested: whether a picture is of the published test set.
    """

    classes: list[str]
    labels: Int[np.ndarray, "picture factor"]
    tested: Bool[np.ndarray, " picture"]


def classify(folder: Path, names: Sequence[str]) -> Classified:
    """What the folders of pictures say.

    Folders that all pictures are in say nothing. If those below them are train and test, or train
    and validation, they say which pictures are the published test set (validation where there is
    no test), and the next ones are the classes.

    Raises:
        UserError: some pictures are in folders of classes, and some are not.
    """
    owners = [name.rpartition("/")[0] for name in names]
    inner = _unshared({owner: owner.split("/") if owner else [] for owner in set(owners)})
    splits = {owner: SPLITS.get(parts[0].lower()) if parts else None
              for owner, parts in inner.items()}  # fmt: skip
    found = set(splits.values())
    test = ""
    if "train" in found and len(found) > 1 and None not in found:
        test = "test" if "test" in found else "validation"
        inner = _unshared({owner: parts[1:] for owner, parts in inner.items()})
    tested = np.array([splits[owner] == test for owner in owners])
    leaf = {owner: parts[0] if parts else "" for owner, parts in inner.items()}
    classes = sorted(set(leaf.values()), key=natural)
    if len(classes) < 2:
        return Classified([], np.zeros((len(names), 0), np.int32), tested)
    if "" in classes:
        raise UserError(
            f"{folder}: got pictures both beside folders and in them (as {classes[1]}), wanted all "
            "of them in one folder, or in a folder for each class."
        )
    number = {name: index for index, name in enumerate(classes)}
    labels = np.array([[number[leaf[owner]]] for owner in owners], np.int32)
    return Classified(classes, labels, tested)


def _unshared(parts: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Folders of pictures without those, from the outermost, that hold nothing but folders and are
    the same for all."""
    levels = zip(*(inner[:-1] for inner in parts.values()), strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda level: len(set(level)) == 1, levels))
    return {owner: inner[shared:] for owner, inner in parts.items()}


def text_order(names: Sequence[str]) -> Int[np.ndarray, "picture factor"]:
    """The labels of earlier versions of this package, by which their runs know the images: the
    outermost folders, in the order of their texts."""
    owners = [name.rpartition("/")[0].partition("/")[0] for name in names]
    number = {owner: index for index, owner in enumerate(sorted(set(owners)))}
    labels = np.array([[number[owner]] for owner in owners], np.int32)
    return labels if len(number) > 1 else labels[:, :0]


def _factor(classes: Sequence[str]) -> dict[str, Any]:
    if not classes:
        return {}
    names = [text(name) for name in classes]
    return {"factor_names": ["class"], "factor_sizes": [len(names)], "classes": names}


def _check_broken(folder: Path, pictures: Sequence[Picture], broken: dict[int, str]) -> None:
    """Say which pictures are left out; refuse where they are most of them."""
    whole = len(pictures) - len(broken)
    reasons = [f"{pictures[index].name} ({broken[index]})" for index in sorted(broken)[:NAMED]]
    more = f" and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
    which = f": {', '.join(reasons)}{more}." if broken else "."
    if len(broken) > whole:
        told = f"got {len(broken)} pictures that cannot be read and {whole} that can{which}"
        raise UserError(one_line(folder, told))
    if whole < FEWEST:
        told = f"got {whole} pictures that can be read, wanted at least {FEWEST}{which}"
        raise UserError(one_line(folder, told))
    if broken:
        told = f"{len(broken)} of {len(pictures)} pictures cannot be read and are left out{which}"
        print(one_line(f"bvae: {folder}", told), file=sys.stderr)


def _check_classes(
    folder: Path,
    classes: Sequence[str],
    labels: Int[np.ndarray, "picture factor"],
    tested: Bool[np.ndarray, " picture"],
) -> None:
    """Refuse classes without a picture, and name those that only the test set has."""
    empty = [name for index, name in enumerate(classes) if index not in labels]
    if empty:
        told = f"none of the pictures in {empty[0]} can be read: mend them, or remove that folder."
        raise UserError(one_line(folder, told))
    only = [name for index, name in enumerate(classes) if index not in labels[~tested]]
    if only and tested.any():
        told = f"{len(only)} of {len(classes)} classes are in the test set alone, as {only[0]}."
        print(one_line(f"bvae: {folder}", told), file=sys.stderr)
