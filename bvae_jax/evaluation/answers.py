"""Results in a JSON file, each with the request that it answers, which says of which parameters
it is: is it on disk already?"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypedDict

from bvae_jax.errors import UserError, say
from bvae_jax.files import read_json, write_json
from bvae_jax.metrics.codes import SCALE
from bvae_jax.runs import rundir
from bvae_jax.runs.checkpoint import fingerprint
from bvae_jax.runs.run import Run

Entry = dict[str, Any]


class Stored(TypedDict):
    """What the reader of an entry relies on."""

    request: dict[str, Any]


def same(entry: Entry, request: Entry) -> bool:
    """Whether an entry is of just this request."""
    return entry["request"] == request


class Answers:
    """The entries of a JSON file by name. A damaged file is as none, which is said.

    Args:
        path: the file, which need not exist.
        single: the file holds one entry, whose name is "".
        fits: (entry, request) -> whether the entry answers the request.
        order: names in the order in which they are written.
    """

    def __init__(
        self,
        path: Path,
        *,
        single: bool = False,
        fits: Callable[[Entry, Entry], bool] = same,
        order: Iterable[str] = (),
    ):
        self.path, self._single, self._fits, self._order = path, single, fits, order
        self.entries: dict[str, Entry] = {}
        if path.exists():
            try:
                shape = Stored if single else dict[str, Stored]
                found = read_json(path, shape, mend="It is computed anew.")
                self.entries = {"": found} if single else found
            except UserError as error:
                say(str(error))

    def of_params(self, params_sha256: str) -> dict[str, Entry]:
        """The entries that were computed with these parameters."""
        return {
            name: entry
            for name, entry in self.entries.items()
            if entry["request"].get("params_sha256") == params_sha256
        }

    def get(self, name: str, request: Entry) -> Entry | None:
        """The entry that answers the request, if it is there."""
        entry = self.entries.get(name)
        return entry if entry and self._fits(entry, request) else None

    def put(self, name: str, entry: Entry, request: Entry) -> Entry:
        """Keep an entry; it is on disk from now on."""
        entry = self.entries[name] = entry | {"request": request}
        names = dict.fromkeys([*self._order, *self.entries])
        self.entries = {n: self.entries[n] for n in names if n in self.entries}
        self.path.parent.mkdir(exist_ok=True)  # of a run for many β, at one of them
        write_json(self.path, entry if self._single else self.entries, checksum=True)
        return entry

    def kept(self, name: str, request: Entry, compute: Callable[[], Entry]) -> Entry:
        """What the file holds for this request, or else what is computed now and written there."""
        return self.get(name, request) or self.put(name, compute(), request)


def identity(run: Run) -> dict[str, Any]:
    """Of which parameters results are: a part of their request."""
    scaled = {} if run.variational else {"codes": SCALE}
    return {"step": int(run.state.step), "params_sha256": fingerprint(run.params)} | scaled


def stored_identity(run_dir: Path) -> dict[str, Any]:
    """The same of a finished run, which is not loaded."""
    summary: rundir.Summary = read_json(run_dir / rundir.SUMMARY, rundir.Summary)
    scaled = {} if "kl" in summary else {"codes": SCALE}
    return {"step": summary["step"], "params_sha256": summary["params_sha256"]} | scaled
