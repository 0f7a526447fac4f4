"""Programs of many runs, compiled once for all that can share one."""

import json
from pathlib import Path

from bvae_jax import rundir
from bvae_jax.config import Config
from bvae_jax.hyper import graph, resolved
from bvae_jax.program import Program, build
from bvae_jax.runner import RunResult, load


class Programs:
    """Builds a program when it is first wanted, and keeps it."""

    def __init__(self):
        self._known: dict[str, Program] = {}

    def of(self, config: Config) -> Program:
        """The program of a run."""
        config = resolved(config)
        key = json.dumps(graph(config), sort_keys=True)
        if key not in self._known:
            self._known[key] = build(config, progress=False)
        return self._known[key].of(config)

    def load(self, run_dir: Path) -> RunResult:
        """`runner.load` by a program that may be there already."""
        return load(run_dir, program=self.of(rundir.read_config(run_dir)), progress=False)
