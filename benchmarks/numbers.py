"""Numbers of a report as people read them."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]
"""What is known of a contender."""
NONE = "–"
Number = int | float | None
"""None where nothing was measured, or nobody knows."""


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


def duration(value: Number) -> str:
    """Of seconds, in milliseconds or microseconds."""
    if value is None:
        return NONE
    return f"{1e3 * value:.2f} ms" if value >= 1e-3 else f"{1e6 * value:.1f} µs"


def rate(amount: int, value: Number) -> str:
    """How much in a second, if `amount` takes `value` seconds."""
    return NONE if value is None else f"{amount / value:,.0f}"


def scaled(value: Number, unit: float) -> str:
    """In multiples of a unit, to three digits."""
    if value is None:
        return NONE
    return f"{value / unit:,.3g}" if value < 100 * unit else f"{value / unit:,.0f}"


def percent(share: Number) -> str:
    """Of a share of 1, to three digits."""
    return NONE if share is None else f"{100 * share:.3g} %"


def quotient(a: Number, b: Number) -> Number:
    """a / b, where both are known."""
    return a / b if a is not None and b else None


def inverse(value: Number) -> Number:
    """1 / value, where it is known."""
    return quotient(1, value)


def memory(entry: Entry) -> list[str]:
    """Peaks on the host and on the device."""
    return [
        NONE if entry.get(name) is None else f"{entry[name] / 1e6:,.0f} MB"
        for name in ("peak_host_bytes", "peak_device_bytes")
    ]
