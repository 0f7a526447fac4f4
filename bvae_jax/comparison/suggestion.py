"""Which setting to choose without labels: the one whose seeds agree best, or one of a given KL."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from bvae_jax.comparison.as_json import jsonable
from bvae_jax.comparison.cautions import RUNS, cautions, listed
from bvae_jax.comparison.evidence import OTHER, PARTNERS, Measure, SettingEvidence, resampled_udr
from bvae_jax.comparison.intervals import half_width
from bvae_jax.comparison.statistics import ALPHA, ROUNDING
from bvae_jax.errors import UserError, unknown
from bvae_jax.metrics.base import mean


class Ranked(NamedTuple):
    """A setting's UDR, the median over its runs, and a 95 % interval of it over seeds."""

    setting: str
    udr: float
    low: float
    high: float


class Suggestion(NamedTuple):
    """A setting, why, and what speaks against relying on it.

    Attributes:
        setting: its label; None where nothing can be compared.
        measure: the similarity that ranks.
        ranking: by UDR from the best; collapsed settings come last.
    """

    setting: str | None
    measure: Measure
    reasons: list[str]
    cautions: list[str]
    ranking: list[Ranked]
    evidence: list[SettingEvidence]


def suggest(
    evidence: Sequence[SettingEvidence], *, rate: float | None = None, measure: Measure = "lasso"
) -> Suggestion:
    """The setting with the highest median UDR, or the one whose mean KL is nearest to `rate`.

    Settings with fewer than `USED` active latents on average are chosen by UDR only if all are so.

    Intervals are bootstrap intervals over seeds, which settings share. A rank test over the runs'
    UDR would see differences that are not there: every pair of runs counts for both, so that runs
    depend on each other.

    Args:
        rate: wanted KL from the prior, nats.

    Raises:
        UserError: there is no setting or no KL, or the rate or the measure is not possible.
    """
    if measure not in OTHER:
        raise unknown("measure", measure, OTHER)
    if not evidence:
        raise UserError("Settings: got none with a finished run, wanted one or more: train them.")
    drawn = resampled_udr(evidence, measure)
    ordered = sorted(evidence, key=lambda e: (e.collapsed, -np.nan_to_num(e.udr(measure), nan=-1)))
    ranking = [_ranked(e, measure, drawn[e.setting]) for e in ordered]
    if rate is None:
        chosen, reasons = _by_udr(ordered, drawn, measure)
    else:
        chosen, reasons = _by_rate(evidence, rate)
    if chosen is not None:
        place = [e.setting for e in ordered].index(chosen.setting)
        described = f"{_described(ranking[place], measure)}, place {place + 1} of {len(ranking)}."
        reasons.insert(0 if rate is None else 1, described)
    if any(e.n > PARTNERS + 1 for e in evidence):
        reasons.append(
            f"Of more than {PARTNERS + 1} runs each was compared with {PARTNERS}, chosen at random "
            "once and for all."
        )
    against = cautions(evidence, chosen, measure)
    label = chosen.setting if chosen else None
    return Suggestion(label, measure, reasons, against, ranking, list(evidence))


def to_json(suggestion: Suggestion) -> dict[str, Any]:
    """As JSON's types, nan as None; the evidence with the UDR of each run and without its pairs."""
    evidence = []
    for e in suggestion.evidence:
        by_run = {"n": e.n, "udr_lasso": e.udr_lasso, "udr_spearman": e.udr_spearman}
        evidence.append({k: v for k, v in e._asdict().items() if k != "pairs"} | by_run)
    return jsonable(suggestion._asdict() | {"evidence": evidence})


def in_words(suggestion: Suggestion) -> str:
    """A table of the settings in the order of their UDR, the reasons and the cautions."""
    evidence = {e.setting: e for e in suggestion.evidence}
    measure, other, table = suggestion.measure, OTHER[suggestion.measure], {}
    for row in suggestion.ranking:
        e = evidence[row.setting]
        table[row.setting + " *" * (row.setting == suggestion.setting)] = {
            f"UDR ({measure})": _number(row.udr),
            "95 %": "-" if math.isnan(row.low) else f"{row.low:.3f} to {row.high:.3f}",
            f"UDR ({other})": _number(e.udr(other)),
            "KL": _number(mean(e.rate), 1),
            "NLL": _number(mean(e.distortion), 1),
            "ELBO": _number(mean(e.elbo), 1),
            "active": f"{mean(e.active):.1f} of {e.latents}",
            "runs": str(e.n),
        }
    first = f"Suggested: {suggestion.setting} (*)" if suggestion.setting else "No suggestion"
    lines = [first, "", pd.DataFrame.from_dict(table, orient="index").to_string(), ""]
    for title, sentences in (("Why", suggestion.reasons), ("Cautions", suggestion.cautions)):
        items = (textwrap.fill(s, 98, subsequent_indent="  ") for s in sentences)
        lines += [title, *(f"- {item}" for item in items), ""]
    return "\n".join(lines[:-1])


def _half(resampled: Float[np.ndarray, " resample"], runs: int, pairs: int = 1) -> float:
    """Half of the 95 % interval; nan with less than three runs, or where all are equal.

    Args:
        pairs: of settings of which all intervals hold together (Bonferroni).
    """
    kept = resampled[np.isfinite(resampled)]
    if runs < 3 or kept.size < 2 or np.ptp(kept) <= ROUNDING * np.abs(kept).max():
        return math.nan
    return half_width(kept, runs, 1 - ALPHA / pairs)


def _ranked(evidence: SettingEvidence, measure: Measure, resampled: np.ndarray) -> Ranked:
    value, half = evidence.udr(measure), _half(resampled, evidence.n)
    low, high = np.clip([value - half, value + half], 0, 1)
    return Ranked(evidence.setting, value, float(low), float(high))


def _by_udr(
    ordered: Sequence[SettingEvidence], drawn: Mapping[str, np.ndarray], measure: Measure
) -> tuple[SettingEvidence | None, list[str]]:
    """The first of the settings, which are in the order of their UDR, and how far others are."""
    first, *rest = ordered
    if math.isnan(first.udr(measure)):
        return None, [
            "Nothing can be compared: UDR is the agreement of runs of a setting that differ in "
            f"their seed. Train two seeds or more of each setting, better {RUNS} or more."
        ]
    rivals, alike, reasons = [], [], []
    known = [e for e in rest if e.collapsed == first.collapsed and not math.isnan(e.udr(measure))]
    pairs = math.comb(len(known) + 1, 2)  # the same numbers made it the first
    for e in known:
        ahead = first.udr(measure) - e.udr(measure)
        half = _half(drawn[first.setting] - drawn[e.setting], min(first.n, e.n), pairs)
        rivals.append((e.setting, ahead, half))
        alike += [e.setting] if not ahead > half else []  # nan: too few to tell
    if rivals:
        setting, ahead, half = rivals[0]
        of_all = ", for all pairs at once" if pairs > 1 else ""
        within = "" if math.isnan(half) else f" (+- {half:.3f} with 95 %{of_all})"
        reasons.append(f"The next, {setting}, is {ahead:.3f}{within} lower.")
        reasons.append(
            f"The seeds cannot tell {first.setting} from {listed(alike)}."
            if alike
            else f"The seeds tell {first.setting} from all others."
        )
    return first, reasons


def _by_rate(evidence: Sequence[SettingEvidence], rate: float) -> tuple[SettingEvidence, list[str]]:
    if not 0 <= rate < math.inf:
        raise UserError(f"--rate: got {rate}, wanted a KL in nats, 0 or more.")
    known = [e for e in evidence if not math.isnan(mean(e.rate))]
    if not known:
        raise UserError("--rate: got runs without a KL, wanted one to choose by: leave it out.")
    chosen = min(known, key=lambda e: abs(mean(e.rate) - rate))
    off = mean(chosen.rate) - rate
    reasons = [
        f"{chosen.setting} has the mean KL nearest to {rate:g} nats: {mean(chosen.rate):.1f}, "
        f"{abs(off):.1f} {'above' if off > 0 else 'below'}."
    ]
    reached = [mean(e.rate) for e in known]
    if not min(reached) <= rate <= max(reached):
        reasons.append(
            f"The target is beyond what is reached: {min(reached):.1f} to {max(reached):.1f}."
        )
    return chosen, reasons


def _described(row: Ranked, measure: Measure) -> str:
    if math.isnan(row.udr):
        return f"{row.setting} has one run and no UDR"
    interval = "" if math.isnan(row.low) else f" ({row.low:.3f} to {row.high:.3f} with 95 %)"
    return f"{row.setting} has a median UDR ({measure}) of {row.udr:.3f}{interval}"


def _number(value: float, digits: int = 3) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
