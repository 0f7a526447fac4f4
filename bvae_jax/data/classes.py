"""What the folders that pictures are in say of them: their class, and whether they are for tests.

Folders that all pictures are in say nothing. If those below them are train and test, or train and
validation, they say which pictures are the published test set (validation where there is no test),
and the next ones are the classes.
"""

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Shaped

from bvae_jax.errors import UserError
from bvae_jax.files import natural

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
}
"""Names of folders, in small letters, that say what pictures are for."""
NAMED = 5
"""Names in a message."""


class Classified(NamedTuple):
    """What folders say of pictures.

    Attributes:
        classes: names of the classes, in order; [] where there are none.
        labels: the class of each picture; no column where there are none.
        splits: train, test or validation; "" where folders do not say so.
    """

    classes: list[str]
    labels: Int[np.ndarray, "picture factor"]
    splits: Shaped[np.ndarray, " picture"]

    @property
    def tested(self) -> Bool[np.ndarray, " picture"]:
        """Whether a picture is of the published test set."""
        test = "test" if "test" in self.splits else "validation"
        return self.splits == test

    def without(self, left_out: Sequence[int]) -> "Classified":
        """The same of the other pictures."""
        labels, splits = (np.delete(x, left_out, axis=0) for x in (self.labels, self.splits))
        return Classified(self.classes, labels, splits)

    def only_tested(self) -> list[str]:
        """Classes that no picture to train on is of, where folders say which these are."""
        trained = self.labels[self.splits == "train"]
        missing = [name for number, name in enumerate(self.classes) if number not in trained]
        return missing if (self.splits != "").any() else []


def classify(folder: Path, names: Sequence[str]) -> Classified:
    """What the folders of pictures say.

    Args:
        names: of the pictures, with / between their parts.

    Raises:
        UserError: some pictures are in folders of classes, and some are not.
    """
    owners = [name.rpartition("/")[0] for name in names]
    inner = _unshared({owner: owner.split("/") if owner else [] for owner in set(owners)})
    splits = {owner: _split(parts) for owner, parts in inner.items()}
    found = set(splits.values())
    if "train" in found and len(found) > 1 and "" not in found:
        inner = _unshared({owner: parts[1:] for owner, parts in inner.items()})
    else:
        splits = dict.fromkeys(splits, "")
    split_of = np.array([splits[owner] for owner in owners])
    leaf = {owner: parts[0] if parts else "" for owner, parts in inner.items()}
    classes = sorted(set(leaf.values()), key=natural)
    if len(classes) < 2:
        return Classified([], np.zeros((len(names), 0), np.int32), split_of)
    if "" in classes:
        beside = next(name for name, owner in zip(names, owners, strict=True) if not leaf[owner])
        raise UserError(
            f"{folder}: got pictures both beside folders and in them (as {classes[1]}, and beside "
            f"it {beside}), wanted all of them in one folder, or in a folder for each class."
        )
    number = {name: index for index, name in enumerate(classes)}
    labels = np.array([[number[leaf[owner]]] for owner in owners], np.int32)
    return Classified(classes, labels, split_of)


def _split(parts: Sequence[str]) -> str:
    return SPLITS.get(parts[0].lower(), "") if parts else ""


def _unshared(parts: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Folders of pictures without those, from the outermost, that hold nothing but folders and are
    the same for all."""
    levels = zip(*(inner[:-1] for inner in parts.values()), strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda level: len(set(level)) == 1, levels))
    return {owner: inner[shared:] for owner, inner in parts.items()}


def remarks(folder: Path, names: Sequence[str], classified: Classified) -> list[str]:
    """What may not be meant so, in sentences.

    Args:
        names: of the pictures.
        classified: what `classify` said of them.
    """
    owners = [owner.split("/") for owner in {name.rpartition("/")[0] for name in names} if owner]
    places = sorted({"/".join(parts[: k + 1]) for parts in owners for k in range(len(parts))})
    classes = classified.classes
    known = {SPLITS.get(name.lower(), "") for name in classes}
    mixed = "train" in known and bool(known & {"test", "validation"})
    told = {
        "no picture is in": _empty(folder, places),
        "pictures come by links from elsewhere:": _away(folder, places),
        "no picture to train on is of class": classified.only_tested(),
        "taken for classes, as not all of them say train or test:": classes if mixed else [],
    }
    return [f"{what} {listed(which)}." for what, which in told.items() if which]


def _empty(folder: Path, places: Sequence[str]) -> list[str]:
    """Folders without a picture beside those that have some."""
    found = []
    for parent in {place.rpartition("/")[0] for place in places}:
        with os.scandir(folder / parent) as entries:
            inner = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        found += [f"{parent}/{name}".lstrip("/") for name in inner if name[:1] not in "._"]
    return sorted(set(found) - set(places))


def _away(folder: Path, places: Sequence[str]) -> list[str]:
    """Folders that are links out of the folder, and where they lead."""
    links = [(place, folder / place) for place in places if (folder / place).is_symlink()]
    away = [(place, link.resolve()) for place, link in links]
    return [f"{place} to {to}" for place, to in away if not to.is_relative_to(folder.resolve())]


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"
