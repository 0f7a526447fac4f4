"""Programs of many runs, compiled once for all that can share one."""

import json
from pathlib import Path

from bvae_jax.runs import rundir
from bvae_jax.config import Config
from bvae_jax.runs.hyper import graph, resolved
from bvae_jax.runs.program import Program, build
from bvae_jax.runs.run import Run, load, placed


class Programs:
    """Builds a program when it is first wanted, and keeps the latest ones.

    Args:
        keep: programs; each has what was compiled for it, and its data on the device, which those
            of the same images share.
        progress: show a bar if a data set has to be rendered first.
    """

    def __init__(self, *, keep: int = 4, progress: bool = False):
        self._known: dict[str, Program] = {}
        self._keep, self._progress = keep, progress

    def of(self, config: Config) -> Program:
        """The program of a run."""
        config = resolved(config)
        key = json.dumps(graph(config), sort_keys=True)
        found = self._known.pop(key, None)
        if found is None:
            found = build(config, like=tuple(self._known.values()), progress=self._progress)
        while len(self._known) >= self._keep:
            self._known.pop(next(iter(self._known)))
        self._known[key] = found  # the last that was wanted stands last
        return found.of(config)

    def load(self, run_dir: Path) -> Run:
        """`runner.load` by a program that may be there already."""
        config = placed(run_dir, rundir.read_config(run_dir))
        return load(run_dir, program=self.of(config), progress=False)
