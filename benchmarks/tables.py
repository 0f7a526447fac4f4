"""The report of a benchmark as Markdown."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.contenders import COPY, MATMUL, OURS

Entry = Mapping[str, Any]
"""What is known of a contender."""
Number = int | float | None
"""None where nothing was measured, or nobody knows."""
NONE = "–"


def markdown(report: Mapping[str, Any]) -> str:
    """All tables, each under a line that says what it shows."""
    found = [_opening(report)] if "machine" in report else []
    step = report["parts"].get("step", {})
    limit = limit_seconds(step, report.get("least"))
    for name, part in report["parts"].items():
        found.append(_times(name, part, report, limit))
        found += _work(part, report, limit) if OURS in part and name == "step" else []
        found += [f"{who}: {one['error']}" for who, one in part.items() if "error" in one]
    if report.get("interrupted"):
        found.append("Interrupted: this is what was measured until then.")
    return "\n\n".join(found)


def _opening(report: Mapping[str, Any]) -> str:
    machine, settings = report["machine"], report["settings"]
    known = {name: machine["versions"].get(name) for name in ("jax", "torch")}
    versions = ", ".join(f"{name} {version}" for name, version in known.items() if version)
    busy = (
        f" Other processes were at work here (load average {machine['load_average']:.1f} at the "
        "start): do not trust the ratios."
    )
    return (
        f"{machine['device']} ({machine['platform']}), {machine['cores']} of {machine['cpu_count']}"
        f" cores, {versions}, commit {machine['git_commit']}; {settings['dataset']}, "
        f"{settings['network']}, batch {settings['batch_size']}, {settings['precision']}; medians "
        f"of {settings['rounds']} rounds in turn."
        + (busy if machine["load_average"] > machine["cpu_count"] / 2 else "")
    )


def _times(name: str, part: Mapping[str, Entry], report: Mapping[str, Any], limit: Number) -> str:
    shown = {who: one for who, one in part.items() if who not in (MATMUL, COPY)}
    reference = OURS if OURS in shown else next(iter(shown), "")
    unit = next((one["unit"] for one in shown.values()), "")
    # A step or a batch is so many images.
    images = {"image": 1, "start": None}.get(unit, report["settings"]["batch_size"])
    header = [name, "cores", f"time of one {unit}", "images/s", f"time, of {reference}"]
    header += ["of the limit"] if unit == "step" and limit else []
    rows = []
    for who, one in shown.items():
        time = seconds(one)
        rate = quotient(images, time)
        row = [who, str(one["cores"]), duration(time), NONE if rate is None else f"{rate:,.0f}"]
        row.append(ratio(one, shown[reference]))
        row += [percent(quotient(limit, time))] if len(header) == 6 else []
        peaks = [one.get("peak_host_bytes"), one.get("peak_device_bytes")]
        rows.append([*row, *(scaled(peak, 1e6, " MB") for peak in peaks)])
    return table([*header, "host memory", "device memory"], rows)


def _work(part: Mapping[str, Entry], report: Mapping[str, Any], limit: Number) -> list[str]:
    """What a step is, and how near it comes to what the machine can do."""
    ours, least = part[OURS], report.get("least") or {}
    step = seconds(ours)
    product, copied = (quotient(1, seconds(part.get(name, {}))) for name in (MATMUL, COPY))
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
    found = [table(["", "GFLOP/s", "of matrix product", "GB/s", "of copy"], rows)]
    if limit and step:
        found.append(
            f"No step can take less than {duration(limit)} at these rates; ours is at "
            f"{percent(limit / step)} of that limit."
        )
    return found


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def limit_seconds(part: Mapping[str, Entry], least: Entry | None) -> Number:
    """The time of the least work at the machine's own rates: of products, or of memory."""
    per_flop, per_byte = (seconds(part.get(name, {})) for name in (MATMUL, COPY))
    if not (least and per_flop and per_byte):
        return None
    return max(least["flop"] * per_flop, least["bytes"] * per_byte)


def seconds(entry: Entry) -> Number:
    """The median."""
    return entry.get(f"median_seconds_per_{entry.get('unit')}")


def ratio(entry: Entry, reference: Entry) -> str:
    """The median over rounds of one time over the other, of the same round."""
    ours, theirs = (one.get(f"seconds_per_{one.get('unit')}", ()) for one in (entry, reference))
    quotients = [a / b for a, b in zip(ours, theirs, strict=False)]
    return f"{statistics.median(quotients):.2f}" if quotients else NONE


def duration(value: Number) -> str:
    """Of seconds, in seconds, milliseconds or microseconds."""
    if value is None:
        return NONE
    if value >= 1:
        return f"{value:.2f} s"
    return f"{1e3 * value:.2f} ms" if value >= 1e-3 else f"{1e6 * value:.1f} µs"


def scaled(value: Number, unit: float, name: str = "") -> str:
    """In multiples of a unit, to three digits."""
    if value is None:
        return NONE
    return (f"{value / unit:,.3g}" if value < 100 * unit else f"{value / unit:,.0f}") + name


def percent(share: Number) -> str:
    """Of a share of 1, to three digits."""
    return NONE if share is None else f"{100 * share:.3g} %"


def quotient(a: Number, b: Number) -> Number:
    """a / b, where both are known."""
    return a / b if a is not None and b else None
