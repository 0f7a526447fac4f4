"""The report of a benchmark as Markdown."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.contenders import COPY, MATMUL, OURS
from benchmarks.numbers import (
    NONE,
    Entry,
    Number,
    duration,
    inverse,
    memory,
    percent,
    quotient,
    rate,
    ratio,
    scaled,
    seconds,
)

Report = Mapping[str, Any]


def markdown(report: Report) -> str:
    """All tables, each under a line that says what it shows."""
    parts = report["parts"]
    found = [_opening(report)] if "machine" in report else []
    for part, section in SECTIONS.items():
        if part in parts:
            found += section(parts[part], report)
    if report.get("interrupted"):
        found.append("Interrupted: this is what was measured until then.")
    return "\n\n".join(found)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _opening(report: Report) -> str:
    machine, settings = report["machine"], report["settings"]
    versions = ", ".join(
        f"{name} {machine['versions'][name]}"
        for name in ("jax", "torch")
        if machine["versions"].get(name)
    )
    load = machine.get("load_average", 0)
    busy = (
        f" Others were at work here (load average {load:.1f} at the start): contenders whose "
        "threads wait for each other lose more by that, so do not trust the ratios."
    )
    return (
        f"{machine['device']} ({machine['platform']}), {machine['cores']} of {machine['cpu_count']}"
        f" cores, {versions}, commit {machine['git_commit']}; {settings['network']}, batch "
        f"{settings['batch_size']}, {settings['channels']} channel(s), {settings['precision']}; "
        f"medians of {settings['rounds']} rounds in turn."
        + (busy if load > machine["cpu_count"] / 2 else "")
    )


def _step(part: Mapping[str, Entry], report: Report) -> list[str]:
    ours, batch = part.get(OURS, {}), report["settings"]["batch_size"]
    rows = [
        [
            name,
            duration(seconds(entry)),
            rate(batch, seconds(entry)),
            ratio(entry, ours),
            *memory(entry),
        ]
        for name, entry in part.items()
        if name not in (MATMUL, COPY)
    ]
    header = [
        "training step",
        "time",
        "images/s",
        f"time, of {OURS}",
        "host memory",
        "device memory",
    ]
    return [table(header, rows), *_errors(part), *_work(part, report), *_profiles(part)]


def _work(part: Mapping[str, Entry], report: Report) -> list[str]:
    """What a step is, and how near it comes to what the machine can do."""
    ours, least = part.get(OURS, {}), report.get("least") or {}
    step, limit = seconds(ours), limit_seconds(part, least)
    product, copied = (inverse(seconds(part.get(name, {}))) for name in (MATMUL, COPY))
    rows = [["this machine", scaled(product, 1e9), "", scaled(copied, 1e9), ""]]
    for name, flop, moved in (
        ("a step, as compiled", ours.get("compiled_flop"), ours.get("compiled_bytes")),
        ("a step, fused by hand", least.get("flop"), least.get("bytes")),
    ):
        flops, traffic = quotient(flop, step), quotient(moved, step)
        rows.append([
            f"{name}: {scaled(flop, 1e9)} GFLOP, {scaled(moved, 1e6)} MB",
            scaled(flops, 1e9), percent(quotient(flops, product)),
            scaled(traffic, 1e9), percent(quotient(traffic, copied)),
        ])  # fmt: skip
    header = ["", "GFLOP/s", "of matrix product", "GB/s", "of copy"]
    found = [table(header, rows)]
    if limit and step:
        found.append(
            f"No step can take less than {duration(limit)} at these rates; ours is at "
            f"{percent(limit / step)} of that limit."
        )
    return found


def limit_seconds(part: Mapping[str, Entry], least: Entry) -> Number:
    """The time of the least work at the machine's own rates: of products, or of memory."""
    per_flop, per_byte = (seconds(part.get(name, {})) for name in (MATMUL, COPY))
    if not (least and per_flop and per_byte):
        return None
    return max(least["flop"] * per_flop, least["bytes"] * per_byte)


def _batch(part: Mapping[str, Entry], report: Report) -> list[str]:
    step = report["parts"].get("step", {}).get(OURS, {})
    rows = [
        [name, duration(seconds(entry)), percent(quotient(seconds(entry), seconds(step)))]
        for name, entry in part.items()
    ]
    return [table(["making a batch", "time", "of a training step"], rows), *_errors(part)]


def _encode(part: Mapping[str, Entry], report: Report) -> list[str]:
    ours = part.get(OURS, {})
    rows = [
        [name, rate(1, seconds(entry)), ratio(entry, ours), *memory(entry)]
        for name, entry in part.items()
    ]
    header = ["encoding", "images/s", f"time, of {OURS}", "host memory", "device memory"]
    return [table(header, rows), *_errors(part)]


def _sweep(part: Mapping[str, Entry], report: Report) -> list[str]:
    first = next(iter(part.values()), {})
    step_part = report["parts"].get("step", {})
    limit = limit_seconds(step_part, report.get("least") or {})
    rows = [
        [
            name,
            str(entry["cores"]),
            duration(seconds(entry)),
            ratio(first, entry),
            percent(quotient(limit, seconds(entry))),
            *memory(entry),
        ]
        for name, entry in part.items()
    ]
    header = ["sweep: strategy, members", "cores", "time for a step of one member"]
    header += ["throughput, of the first", "of the limit", "host memory", "device memory"]
    return [table(header, rows), *_errors(part), *_profiles(part)]


def _startup(part: Mapping[str, Entry], report: Report) -> list[str]:
    rows = []
    for name, entry in part.items():
        peaks = [peak for peak in entry["peak_host_bytes"] if peak]
        peak = scaled(max(peaks, default=None), 1e6)
        times = ", ".join(f"{value:.1f}" for value in entry["seconds"])
        rows.append([name, times or NONE, f"{peak} MB"])
    header = ["from the start of bvae train to its first step", "seconds", "host memory"]
    return [table(header, rows), *_errors(part)]


def _profiles(part: Mapping[str, Entry]) -> list[str]:
    found = []
    header = ["operation", "from", "calls", "ms in all", "share"]
    for name, entry in part.items():
        if entry.get("profile") == []:
            found.append(f"The profiler of this JAX names no operations of {name} here.")
        rows = [
            [
                f"`{op['name'][:60]}`",
                f"`{op['origin'] or NONE}`",
                str(op["calls"]),
                f"{1e3 * op['seconds']:.2f}",
                percent(op["share"]),
            ]
            for op in entry.get("profile", ())
        ]
        found += [f"The largest operations of {name}:", table(header, rows)] if rows else []
    return found


SECTIONS: dict[str, Callable[[Mapping[str, Entry], Report], list[str]]] = {
    "step": _step,
    "batch": _batch,
    "encode": _encode,
    "sweep": _sweep,
    "startup": _startup,
}


def _errors(part: Mapping[str, Entry]) -> list[str]:
    lines = [f"{name}: {entry['error']}" for name, entry in part.items() if "error" in entry]
    return ["\n".join(lines)] if lines else []
