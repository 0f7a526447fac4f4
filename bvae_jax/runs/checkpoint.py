"""Save and restore a TrainState with Orbax, so that no silent failure stays silent."""

import contextlib
import errno
import functools
import hashlib
import logging
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from bvae_jax.errors import UserError, say
from bvae_jax.files import CHECKSUM, digest, misfit
from bvae_jax.types import TrainState

FORMAT = 2
"""Raised whenever what a TrainState holds changes: older checkpoints cannot be read then."""


class Restored(NamedTuple):
    """A state and the JSON that was saved with it."""

    state: TrainState
    meta: dict[str, Any]


class Meta(TypedDict):
    """What the reader of the JSON beside a state relies on."""

    state_sha256: str
    format: NotRequired[int]
    config: NotRequired[dict[str, Any]]
    wall_seconds: NotRequired[float]
    images_per_second: NotRequired[float | None]


HUB = "hf:"
"""What stands before the name of a model on the Hugging Face Hub."""


def check_path(directory: Path, *, read_only: bool = False) -> None:
    """Refuse a directory that Orbax or TensorStore would take for another.

    Args:
        read_only: refuse only what cannot be read, not what is unsafe to write.

    Raises:
        UserError: a part of its absolute path means something to one of them.
    """
    if str(directory).startswith(HUB):
        raise UserError(
            f"{directory}: got an address on the Hub, wanted a directory: see bvae push."
        )
    text = str(directory.absolute())
    strange = r"\\|\[[^/]+\]|gs:(?=/)|[\ud800-\udfff]" + ("" if read_only else r"|[*?]")
    if found := re.search(strange, text):
        raise UserError(
            f"{text!r}: got {found[0]!r} in the path of a run, which means something else to the "
            "libraries that write checkpoints: rename it. Wanted UTF-8 without \\ * ? [...] and "
            "gs:/."
        )


def fingerprint(tree: PyTree) -> str:
    """SHA-256 over the bytes of the leaves in path order, in hexadecimal."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(keys_as_data(tree)):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def keys_as_data(tree: PyTree) -> PyTree:
    """Typed keys as integers: what they become on disk, whatever Orbax knows of keys."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


def keys_as_in(tree: PyTree, like: PyTree) -> PyTree:
    """The inverse of `keys_as_data`: keys of the default kind where `like` has keys."""
    return jax.tree.map(lambda x, y: jax.random.wrap_key_data(x) if is_key(y) else x, tree, like)


@functools.cache
def _silence_late_tasks() -> None:
    """Keep what follows a failed read or write off stderr, from now on.

    Orbax handles all arrays at once and closes its event loop when one fails. The others then find
    it closed, which Python would report with a traceback for each.
    """

    def report(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    before = sys.unraisablehook
    sys.unraisablehook = report


def is_key(x: Any) -> bool:
    """Whether these are typed keys."""
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


class Checkpoints(contextlib.AbstractContextManager):
    """The checkpoints of one run: written in the background, checked when read.

    Leaving the context waits until the last write is on disk.

    Args:
        directory: where they are; made when needed.
        keep: how many of the newest to keep; all if None.
        read_only: change nothing on disk, so that another process may be writing.
    """

    def __init__(self, directory: Path, keep: int | None = None, *, read_only: bool = False):
        # Orbax narrates every save; what goes wrong comes as an exception too.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        _silence_late_tasks()
        self.directory = directory.absolute()
        check_path(self.directory, read_only=read_only)
        if not read_only:
            self.directory.mkdir(parents=True, exist_ok=True)
        # One process writes, whoever else trains the run: the others do not wait for each other.
        me = jax.process_index()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=False,
            read_only=read_only,
            cleanup_tmp_directories=not read_only,
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=me, active_processes={me}
            ),
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def __exit__(self, kind, error, traceback) -> None:
        try:
            self._manager.close()
        except Exception as close_error:
            if kind is None:
                raise self._cannot_write("the last checkpoint", close_error) from close_error

    def steps(self) -> list[int]:
        """Steps on disk, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, meta: dict[str, Any]) -> None:
        """Start writing `state` and `meta` (JSON) under the state's step.

        Raises:
            UserError: this write or the one before it failed.
        """
        step = int(state.step)
        meta = meta | {"state_sha256": fingerprint(state), "format": FORMAT}
        meta[CHECKSUM] = digest(meta)
        items = ocp.args.Composite(
            # As copies in NumPy: Orbax takes an array of JAX for one that all processes have.
            state=ocp.args.StandardSave(jax.tree.map(np.array, keys_as_data(state))),
            meta=ocp.args.JsonSave(meta),
        )
        try:
            self._check_room(state)
            saved = self._manager.save(step, args=items)
        except Exception as error:
            raise self._cannot_write(f"checkpoint {step}", error) from error
        if not saved:
            raise RuntimeError(f"Orbax refused to save step {step}; on disk: {self.steps()}.")

    def wait(self) -> None:
        """Return when the last save is on disk.

        Raises:
            UserError: it could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._cannot_write("the last checkpoint", error) from error

    def restore(
        self,
        like: TrainState,
        *,
        step: int | None = None,
        check: Callable[[dict[str, Any]], None] = lambda meta: None,
    ) -> Restored | None:
        """The newest checkpoint that is whole; None where there is none at all.

        Damaged ones are named on stderr and passed over.

        Args:
            like: a state, possibly abstract, of the structure, shapes and dtypes that are wanted.
            step: take this one and no other.
            check: called with the JSON before the state is read; may raise UserError.

        Raises:
            UserError: `check` says so, there are checkpoints and none can be used, or none has
                that step.
        """
        steps = self.steps()
        if step is not None and step not in steps:
            raise UserError(f"No checkpoint of step {step} in {self.directory}; there are {steps}.")
        refused = None
        for candidate in [step] if step is not None else reversed(steps):
            path = self.directory / str(candidate)
            try:
                restored = self._read(candidate, like, check)
            except UserError as error:  # as of all checkpoints, or else its metadata are damaged
                refused = refused or error
            except Exception as error:
                reason = str(error).split("\n")[0][:200]
                say(f"checkpoint {path} is damaged ({reason}).")
            else:
                if refused:
                    say(f"the checkpoint after {path} is damaged: {refused}")
                return restored
        if refused:
            raise refused
        if steps:
            raise UserError(
                f"No checkpoint in {self.directory} can be read (tried {steps}). Put back a copy, "
                "or start anew with --overwrite."
            )
        return None

    def set_aside_after(self, step: int) -> None:
        """Move checkpoints newer than `step` (damaged ones) out of the way of new ones."""
        aside = self.directory.parent / "damaged"
        for newer in [s for s in self.steps() if s > step]:
            aside.mkdir(exist_ok=True)
            number = len(list(aside.iterdir()))
            (self.directory / str(newer)).rename(aside / f"{newer}-{number}")
        self._manager.reload()

    def drop_after(self, step: int) -> None:
        """Delete checkpoints newer than `step`: they will be computed again."""
        for newer in [s for s in self.steps() if s > step]:
            self._manager.delete(newer)

    def _read(
        self, step: int, like: TrainState, check: Callable[[dict[str, Any]], None]
    ) -> Restored:
        only_meta = ocp.args.Composite(meta=ocp.args.JsonRestore())
        meta = dict(self._manager.restore(step, args=only_meta)["meta"])
        expected = meta.pop(CHECKSUM, None)  # which older ones do not have
        if expected is not None and expected != digest(meta):
            raise ValueError("its metadata are not what was saved")
        if found := misfit(meta, Meta):
            raise ValueError(found)
        if meta.get("format", 1) != FORMAT:
            raise UserError(
                f"{self.directory / str(step)} was written by another version of bvae_jax: got "
                f"format {meta.get('format', 1)}, wanted {FORMAT}. Use the version in the run's "
                "provenance.json, or train anew."
            )
        check(meta)
        plain = jax.eval_shape(keys_as_data, like)
        target = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), plain)
        only_state = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        state = self._manager.restore(step, args=only_state)["state"]
        # Orbax casts other dtypes without a word; the fingerprint sees it.
        if meta["state_sha256"] != fingerprint(state):
            raise ValueError("its contents are not what was saved")
        return Restored(keys_as_in(jax.tree.map(jnp.asarray, state), like), meta)

    def _check_room(self, state: TrainState) -> None:
        """Ask first: a write that fails half way leaves a mess behind, and a mess on stderr."""
        needed = 1.1 * sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        free = shutil.disk_usage(self.directory).free
        if free < needed:
            raise OSError(errno.ENOSPC, f"{needed / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free")

    def _cannot_write(self, what: str, error: Exception) -> UserError:
        if not self.directory.is_dir():
            return UserError(
                f"Cannot write {what}: {self.directory} is not there any more. It was deleted or "
                "moved while the run was trained: put it back, or start anew."
            )
        causes = "No space left on device|File too large|Disk quota exceeded|Permission denied"
        found = re.search(causes, str(error))
        reason = found[0] if found else str(error).split("\n")[0][:200]
        return UserError(
            f"Cannot write {what} to {self.directory}: {reason}. Earlier checkpoints are kept: "
            "make room or mend permissions, then go on with --resume."
        )
