"""What speaks against relying on a suggestion."""

import math
from collections.abc import Iterator, Sequence
from numbers import Real

from bvae_jax.comparison.evidence import OTHER, USED, Measure, SettingEvidence
from bvae_jax.metrics.base import mean

RUNS = 5
"""Below so many runs of a setting there is a caution."""
LIMITS = (
    "No labels were read. UDR says that runs agree, not that they are right: two factors that "
    "every run entangles alike look agreed, and a factor that no run learns costs nothing.",
    "UDR does not know which factors matter for what comes after: look at traversals.",
)


def cautions(
    evidence: Sequence[SettingEvidence], chosen: SettingEvidence | None, measure: Measure
) -> list[str]:
    """About all settings, about the one that is suggested, and `LIMITS`."""
    about = _about(chosen, evidence, measure) if chosen else ()
    return [*_about_all(evidence), *about, *LIMITS]


def listed(settings: Sequence[str]) -> str:
    """At most four of them by name."""
    shown = settings if len(settings) <= 4 else [*settings[:3], f"{len(settings) - 3} others"]
    return ", ".join(shown)


def _about_all(evidence: Sequence[SettingEvidence]) -> Iterator[str]:
    """Cautions about settings that are not compared as they should be."""
    collapsed = [e.setting for e in evidence if e.collapsed]
    meaning = f"fewer than {USED} active latents on average, so that UDR means nothing"
    if len(collapsed) == len(evidence):
        yield f"All settings are collapsed: {meaning}. Weigh the KL less."
    elif collapsed:
        yield f"Collapsed: {listed(collapsed)} ({meaning})."
    if alone := [e.setting for e in evidence if e.n == 1]:
        yield f"One run only, which nothing can be compared with: {listed(alone)}."
    if few := [e.setting for e in evidence if 1 < e.n < RUNS]:
        yield f"Fewer than {RUNS} runs, others may change the order: {listed(few)}."


def _about(
    chosen: SettingEvidence, evidence: Sequence[SettingEvidence], measure: Measure
) -> Iterator[str]:
    """Cautions about the setting that is suggested."""
    for name, value in chosen.values.items():
        tried = [e.values[name] for e in evidence if isinstance(e.values[name], Real)]
        if isinstance(value, Real) and min(tried) < max(tried):
            for end, what in ((min(tried), "smallest"), (max(tried), "largest")):
                if value == end != 0:  # nothing is below 0
                    yield f"{chosen.setting} has the {what} {name} that was tried: try beyond it."
    other = OTHER[measure]
    better = [e for e in evidence if not e.collapsed and e.udr(other) > chosen.udr(other)]
    if better and not chosen.collapsed:
        best = max(better, key=lambda e: e.udr(other))
        yield (
            f"UDR ({other}) says otherwise: {best.udr(other):.3f} for {best.setting}, "
            f"{chosen.udr(other):.3f} for {chosen.setting}."
        )
    for e in evidence:
        gain = mean(chosen.elbo) - mean(e.elbo)
        if e is not chosen and e.values == {**chosen.values, "beta": 1} and not math.isnan(gain):
            side = "above" if gain > 0 else "below"
            yield (
                f"The mean ELBO of {chosen.setting} is {abs(gain):.1f} nats {side} that of "
                f"{e.setting}."
            )
