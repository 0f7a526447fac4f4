"""TFDS's download manager: its cache and its checksums, and what else TensorFlow would be for."""

import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests
import tensorflow_datasets as tfds
from etils import epath

from bvae_jax.data.published import (
    PublishedFile,
    manual_dir,
    missing,
)
from bvae_jax.errors import UserError
from bvae_jax.progress import bar

PATIENCE = 10.0
"""Seconds that a server has to answer at all, before ten attempts are made to download."""


class Downloads(tfds.download.DownloadManager):
    """Downloads and unpacks what a builder wants.

    Files come from downloads/manual/BUILDER, or from downloads/manual where that is absent; then
    from downloads, where they are kept; then from the net.

    Args:
        builder: whose files are wanted.
        data_dir: what `prepared.data_dir` gives.
        extract_dir: for what archives hold.
        name: what `--dataset` calls the set.
        progress: say what is downloaded, and show bars.
    """

    def __init__(
        self, builder: Any, data_dir: Path, extract_dir: Path, name: str, *, progress: bool
    ):
        self._what, self._files = name, published_files(builder)
        self._unpacked, self._progress = extract_dir, progress
        self._place = by_hand(builder.name, data_dir)
        self._looked = self._place if self._place.is_dir() else manual_dir(data_dir)
        _show_downloads(self._absent() if progress else [])
        super().__init__(
            download_dir=data_dir / "downloads",
            extract_dir=extract_dir,
            manual_dir=self._looked,
            manual_dir_instructions=builder.MANUAL_DOWNLOAD_INSTRUCTIONS,
            url_infos=builder.url_infos,
            dataset_name=builder.name,
            force_checksums_validation=bool(builder.url_infos),  # of a user's own there are none
        )

    def _download(self, resource: Any) -> Any:
        """What TFDS calls for a file that it does not have.

        Raises:
            UserError: its server does not answer.
        """
        try:
            requests.head(resource.url, timeout=PATIENCE).close()
        except requests.exceptions.RequestException as error:
            raise self.by_hand() from error
        return super()._download(resource)

    def by_hand(self) -> UserError:
        """The error that says what to fetch, and where to put it."""
        return missing(self._what, self._absent(), self._place)

    def _absent(self) -> list[PublishedFile]:
        return [file for file in self._files if not (self._looked / file.name).exists()]

    def download_and_extract(self, url_or_urls: Any) -> Any:
        """Download files and unpack them: a path for each URL, nested as they are."""
        return _mapped(self._unpack, self.download(url_or_urls), url_or_urls)

    def extract(self, path_or_paths: Any) -> Any:
        """Unpack files: a path for each, nested as they are.

        Here and not in TFDS's threads, which go on after one of them has failed.
        """
        return _mapped(lambda path: self._unpack(path, None), path_or_paths)

    def _unpack(self, path: Any, wanted: Any) -> Any:
        is_resource = isinstance(wanted, tfds.download.Resource)
        resource = wanted if is_resource else tfds.download.Resource(path=path)
        resource.path = path = epath.Path(path)
        method = resource.extract_method
        if method == tfds.download.ExtractMethod.NO_EXTRACT:
            return path
        place = epath.Path(self._unpacked) / f"{method.name}.{path.name}"
        shown = bar(desc=f"unpacking {path.name}", unit=" files", disable=not self._progress)
        with shown:
            for name, content in tfds.download.iter_archive(path, method):
                target = place / name if name else place  # one that is packed alone has no name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    shutil.copyfileobj(content, file)
                shown.update()
        return place

    def iter_archive(self, resource: Any) -> Iterator[tuple[str, Any]]:
        """Files of an archive; of a .zip each may be read whenever it is wanted.

        TFDS's own are closed with the archive, which CelebA's builder relies on TensorFlow's files
        to survive.
        """
        path = Path(getattr(resource, "path", resource))
        if not zipfile.is_zipfile(path):
            return super().iter_archive(resource)
        archive = zipfile.ZipFile(path)
        members = [info for info in archive.infolist() if not info.is_dir()]
        return ((info.filename, _Member(archive, info)) for info in members)


class _Member:
    """A file of an archive, which is opened when it is read."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo):
        self._archive, self._info = archive, info

    def read(self) -> bytes:
        """The whole file."""
        return self._archive.read(self._info)


def _show_downloads(files: list[PublishedFile]) -> None:
    """Say what is fetched, from the net or TFDS's cache, and let TFDS show bars on a terminal."""
    shown = bool(files) and sys.stderr.isatty()
    (tfds.enable_progress_bar if shown else tfds.disable_progress_bar)()
    if files:
        size = sum(file.size for file in files) / 1e6
        print(f"bvae: fetching {len(files)} files, {size:.0f} MB", file=sys.stderr)


def _mapped(function: Callable, nested: Any, *others: Any) -> Any:
    """The function of each leaf of dicts and lists that have the same structure."""
    if isinstance(nested, dict):
        return {k: _mapped(function, v, *(o[k] for o in others)) for k, v in nested.items()}
    if isinstance(nested, list | tuple):
        return [_mapped(function, *leaves) for leaves in zip(nested, *others, strict=True)]
    return function(nested, *others)


def by_hand(builder: str, data_dir: Path) -> Path:
    """Where a builder's files are put that were fetched by hand: others' may have their names."""
    return manual_dir(data_dir) / builder


def published_files(builder: Any) -> list[PublishedFile]:
    """The files that a builder knows."""
    return [
        PublishedFile(info.filename or url, url, int(info.size), f"sha256:{info.checksum}")
        for url, info in (builder.url_infos or {}).items()
    ]
