"""The report of a benchmark as Markdown."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bvae_jax.benchmarks.contenders import COPY, MATMUL, OURS

Report = Mapping[str, Any]
Entry = Mapping[str, Any]
NONE = "–"
Number = int | float | None
"""None where nothing was measured, or nobody knows."""


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
            _us_or_ms(seconds(entry)),
            _rate(batch, seconds(entry)),
            ratio(entry, ours),
            *_memory(entry),
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
    product, copied = (_inverse(seconds(part.get(name, {}))) for name in (MATMUL, COPY))
    rows = [["this machine", _scaled(product, 1e9), "", _scaled(copied, 1e9), ""]]
    for name, flop, moved in (
        ("a step, as compiled", ours.get("compiled_flop"), ours.get("compiled_bytes")),
        ("a step, fused by hand", least.get("flop"), least.get("bytes")),
    ):
        flops, traffic = _quotient(flop, step), _quotient(moved, step)
        rows.append([
            f"{name}: {_scaled(flop, 1e9)} GFLOP, {_scaled(moved, 1e6)} MB",
            _scaled(flops, 1e9), _percent(_quotient(flops, product)),
            _scaled(traffic, 1e9), _percent(_quotient(traffic, copied)),
        ])  # fmt: skip
    header = ["", "GFLOP/s", "of matrix product", "GB/s", "of copy"]
    found = [table(header, rows)]
    if limit and step:
        found.append(
            f"No step can take less than {_us_or_ms(limit)} at these rates; ours is at "
            f"{_percent(limit / step)} of that limit."
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
        [name, _us_or_ms(seconds(entry)), _percent(_quotient(seconds(entry), seconds(step)))]
        for name, entry in part.items()
    ]
    return [table(["making a batch", "time", "of a training step"], rows), *_errors(part)]


def _encode(part: Mapping[str, Entry], report: Report) -> list[str]:
    ours = part.get(OURS, {})
    rows = [
        [name, _rate(1, seconds(entry)), ratio(entry, ours), *_memory(entry)]
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
            _us_or_ms(seconds(entry)),
            ratio(first, entry),
            _percent(_quotient(limit, seconds(entry))),
            *_memory(entry),
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
        memory = _scaled(max(peaks, default=None), 1e6)
        times = ", ".join(f"{value:.1f}" for value in entry["seconds"])
        rows.append([name, times or NONE, f"{memory} MB"])
    header = ["from the start of bvae train to its first step", "seconds", "host memory"]
    return [table(header, rows), *_errors(part)]


def _profiles(part: Mapping[str, Entry]) -> list[str]:
    found = []
    header = ["operation", "from", "calls", "ms in all", "share"]
    for name, entry in part.items():
        rows = [
            [
                f"`{op['name'][:60]}`",
                f"`{op['origin'] or NONE}`",
                str(op["calls"]),
                f"{1e3 * op['seconds']:.2f}",
                _percent(op["share"]),
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


def seconds(entry: Entry) -> Number:
    """The median."""
    return entry.get(f"median_seconds_per_{entry.get('unit')}")


def ratio(entry: Entry, reference: Entry) -> str:
    """The median over rounds of one time over the other, of the same round."""
    pairs = zip(_rounds(entry), _rounds(reference), strict=False)
    quotients = [ours / theirs for ours, theirs in pairs]
    return f"{statistics.median(quotients):.2f}" if quotients else NONE


def _rounds(entry: Entry) -> Sequence[float]:
    return entry.get(f"seconds_per_{entry.get('unit')}", ())


def _us_or_ms(value: Number) -> str:
    if value is None:
        return NONE
    return f"{1e3 * value:.2f} ms" if value >= 1e-3 else f"{1e6 * value:.1f} µs"


def _rate(amount: int, value: Number) -> str:
    return NONE if value is None else f"{amount / value:,.0f}"


def _scaled(value: Number, unit: float) -> str:
    if value is None:
        return NONE
    return f"{value / unit:,.3g}" if value < 100 * unit else f"{value / unit:,.0f}"


def _percent(share: Number) -> str:
    return NONE if share is None else f"{100 * share:.3g} %"


def _quotient(a: Number, b: Number) -> Number:
    return a / b if a is not None and b else None


def _inverse(value: Number) -> Number:
    return _quotient(1, value)


def _memory(entry: Entry) -> list[str]:
    return [
        NONE if entry.get(name) is None else f"{entry[name] / 1e6:,.0f} MB"
        for name in ("peak_host_bytes", "peak_device_bytes")
    ]
