"""Which operations take the time, from the trace that JAX's profiler writes."""

import collections
import gzip
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from bvae_jax.errors import UserError

ON_DEVICE = ("Stream", "XLA Ops")
"""Threads of a device in a trace: the streams of a GPU, the one line of a TPU."""


def trace(directory: Path, run: Any) -> None:
    """Call `run` under the profiler."""
    with jax.profiler.trace(str(directory)):
        run()


def read_events(directory: Path) -> list[dict[str, Any]]:
    """The events of the newest trace below a directory.

    Raises:
        UserError: there is none.
    """
    paths = sorted(directory.rglob("*.trace.json.gz"), key=lambda path: path.stat().st_mtime)
    if not paths:
        raise UserError(f"No trace in {directory}: the profiler wrote none.")
    with gzip.open(paths[-1], "rt") as file:
        return json.load(file)["traceEvents"]


def largest(
    events: Iterable[Mapping[str, Any]], names: Mapping[str, str] = {}, count: int = 10
) -> list[dict[str, Any]]:
    """The operations with the largest total time.

    On a GPU these are kernels and copies, by name; on a CPU compiled operations, whose times may
    overlap, as several run at once.

    Args:
        events: of the trace.
        names: operation -> where it comes from, where the trace does not say.
    """
    seconds, calls, origins = collections.Counter(), collections.Counter(), {}
    for event in _operations(list(events)):
        arguments, name = event.get("args", {}), event["name"]
        seconds[name] += event["dur"] / 1e6
        calls[name] += 1
        origin = arguments.get("tf_op") or names.get(arguments.get("hlo_op", name), "")
        origins[name] = _readable(origin)
    total = sum(seconds.values())
    return [
        {"name": name, "origin": origins[name], "calls": calls[name], "seconds": spent}
        | {"share": spent / total}
        for name, spent in seconds.most_common(count)
    ]


def _operations(events: list[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    """Those of the device's own lines where it has some; else what a CPU's threads computed."""
    named = {"process_name": {}, "thread_name": {}}
    for event in events:
        if event.get("ph") == "M" and event.get("name") in named:
            named[event["name"]][event.get("pid"), event.get("tid")] = event["args"]["name"]
    devices = {
        pid for (pid, _), name in named["process_name"].items() if name.startswith("/device:")
    }
    lines = {
        place for place, name in named["thread_name"].items()
        if place[0] in devices and name.startswith(ON_DEVICE)
    }  # fmt: skip
    complete = [event for event in events if event.get("ph") == "X"]
    on_device = [event for event in complete if (event["pid"], event.get("tid")) in lines]
    return on_device or [event for event in complete if "hlo_op" in event.get("args", {})]


def origins(compiled_text: str) -> dict[str, str]:
    """Operation -> the function that it comes from, from a compiled program's text."""
    pattern = r'%?([\w.-]+) = [^\n]*?metadata=\{[^}\n]*?op_name="([^"]+)"'
    return dict(re.findall(pattern, compiled_text))


def _readable(origin: str) -> str:
    """The last parts of a path of functions."""
    return "/".join(origin.split("/")[-3:])
