"""`python -m benchmarks`: measure, and print the tables."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.settings import Settings
from bvae_jax.errors import UserError


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """The settings that were given, and `json`."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description="Measure how fast it is here. Each contender is a process of its own, and they "
        "take turns.",
    )
    for field in dataclasses.fields(Settings):
        flag = "--" + field.name.replace("_", "-")
        if field.default is False:
            parser.add_argument(flag, action="store_true", help=field.metadata["help"])
            continue
        first = field.default[:1] if isinstance(field.default, tuple) else (field.default,)
        kind = int if isinstance(first and first[0], int) else str
        parser.add_argument(flag, default=field.default, type=kind, **field.metadata)
    parser.add_argument("--json", type=Path, help="write all that was measured to this file")
    given = vars(parser.parse_args(arguments))
    return {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}


def main(arguments: Sequence[str]) -> int:
    given = parse(arguments)
    path = given.pop("json")
    # Here, because each contender's process imports this module too.
    from benchmarks import tables
    from benchmarks.report import benchmark

    try:
        print(tables.markdown(benchmark(Settings(**given), json=path)))
    except UserError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
