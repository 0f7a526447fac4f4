"""`bvae suggest` from Python: which setting to choose without labels, and why."""

import itertools
import math
import textwrap
from collections.abc import Iterator, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from bvae_jax.comparison.agreement import (
    OTHER,
    PARTNERS,
    POINTS,
    USED,
    Measure,
    SettingEvidence,
    difference_variance,
    gather,
    udr_variance,
)
from bvae_jax.comparison.base import Comparison
from bvae_jax.comparison.reading import read_comparison
from bvae_jax.comparison.statistics import ALPHA, ROUNDING
from bvae_jax.config import PACE
from bvae_jax.errors import UserError, say, unknown
from bvae_jax.files import write_json
from bvae_jax.metrics.base import mean
from bvae_jax.metrics.scoring import jsonable
from bvae_jax.runs.encode import encode_run
from bvae_jax.runs.run import load_shared
from bvae_jax.runs.trainer import Trainers
from bvae_jax.runtime import bar

FILE = "suggestion.json"
RUNS = 5
"""With fewer runs of a setting there is a caution."""
LIMITS = (
    "No labels were read. UDR says that runs agree, not that they are right: two factors that "
    "every run entangles alike look agreed, and a factor that no run learns costs nothing.",
    "UDR does not know which factors matter for what comes after: look at traversals.",
)


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
        alike: settings that the seeds cannot tell from it.
    """

    setting: str | None
    measure: Measure
    reasons: list[str]
    cautions: list[str]
    ranking: list[Ranked]
    evidence: list[SettingEvidence]
    alike: list[str]

    def headline(self) -> str:
        """The setting, and whether the seeds tell it from the others."""
        if self.setting is None:
            return "No suggestion."
        doubt = f", but the seeds cannot tell it from {listed(self.alike)}" if self.alike else ""
        return f"Suggested: {self.setting} (*){doubt}."


def suggest(
    *sweep_dirs: str | Path,
    rate: float | None = None,
    measure: Literal["lasso", "spearman"] = "lasso",
    out: str | Path | None = None,
    progress: bool = True,
) -> Suggestion:
    """Choose a setting by how far its runs agree with each other, or by a target for the KL.

    No label is read. Leaves suggestion.json.

    Args:
        sweep_dirs: of one sweep or more, on the same data set.
        rate: wanted KL in nats per image; without it the agreement of seeds decides (UDR).
        measure: of the similarity of two latents.
        out: directory for suggestion.json; the first sweep's if None.

    Raises:
        UserError: a directory holds no sweep, or no member is done.
    """
    _check_choice(rate, measure)
    if not sweep_dirs:
        raise UserError("Wanted the directory of a sweep, or of several.")
    directories = [Path(path).expanduser() for path in sweep_dirs]
    trainers = Trainers()
    comparison = read_comparison(directories, None, trainers, progress=progress)
    found = of_comparison(comparison, trainers, rate=rate, measure=measure, progress=progress)
    directory = Path(out).expanduser() if out else directories[0]
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / FILE, to_json(found))
    return found


def of_comparison(
    comparison: Comparison,
    trainers: Trainers,
    *,
    rate: float | None = None,
    measure: Measure = "lasso",
    progress: bool = True,
) -> Suggestion:
    """What `suggest` finds, of sweeps that are read already.

    Raises:
        UserError: two runs of a setting have the same seed, or there is no KL to choose by.
    """
    runs, codes = comparison.run_dirs, {}
    with bar(total=len(runs), desc="encode", unit=" members", disable=not progress) as shown:
        for name, run_dir in runs.items():
            shown.update(1)
            try:
                run = load_shared(run_dir, trainers)
            except UserError as error:
                say(f"{name} is left out of the comparison of seeds (UDR): {error}")
                continue
            count = min(POINTS, run.trainer.dataset.size)
            codes[name] = encode_run(run_dir, run.trainer, run.params, count, progress=False).means
    members = comparison.members.loc[list(codes)]
    evidence = gather(
        codes,
        comparison.kl_per_latent,
        members,
        settings=comparison.settings,
        varied=comparison.varied,
        progress=progress,
    )
    found = choose(evidence, rate=rate, measure=measure)
    absent = len(comparison.missing) + len(comparison.failed) + len(runs) - len(codes)
    if absent:
        told = f"{absent} members are" if absent > 1 else "1 member is"
        missing = f"{told} missing, unfinished or unreadable, and not looked at."
        found = found._replace(cautions=[missing, *found.cautions])
    return found


def choose(
    evidence: Sequence[SettingEvidence], *, rate: float | None = None, measure: Measure = "lasso"
) -> Suggestion:
    """The setting with the highest median UDR, or the one whose mean KL is nearest to `rate`.

    Settings with fewer than `USED` active latents on average are chosen by UDR only if all are so.

    Intervals are of `udr_variance`. A rank test over the runs' UDR would see differences that are
    not there: every pair of runs counts for both, so that runs depend on each other.

    Args:
        rate: wanted KL from the prior, nats.

    Raises:
        UserError: there is no setting or no KL, or the rate or the measure is not possible.
    """
    _check_choice(rate, measure)
    if not evidence:
        raise UserError("Settings: got none with a finished run, wanted one or more: train them.")
    ordered = sorted(evidence, key=lambda e: (e.collapsed, -np.nan_to_num(e.udr(measure), nan=-1)))
    ranking = [_ranked(e, measure) for e in ordered]
    if rate is None:
        chosen, reasons, alike = _by_udr(ordered, measure)
    else:
        chosen, reasons, alike = *_by_rate(evidence, rate), []
    if chosen is not None:
        place = [e.setting for e in ordered].index(chosen.setting)
        row = ranking[place]
        rank = "" if math.isnan(row.udr) else f", place {place + 1} of {len(ranking)}"
        reasons.insert(0 if rate is None else 1, f"{_described(row, measure)}{rank}.")
    if any(e.n > PARTNERS + 1 for e in evidence):
        reasons.append(
            f"Of more than {PARTNERS + 1} runs each was compared with {PARTNERS}, chosen at random "
            "once and for all."
        )
    against = cautions(evidence, chosen, measure, rate)
    label = chosen.setting if chosen else None
    return Suggestion(label, measure, reasons, against, ranking, list(evidence), alike)


def _check_choice(rate: float | None, measure: str) -> None:
    if measure not in OTHER:
        raise unknown("measure", measure, OTHER)
    if rate is not None and not 0 <= rate < math.inf:
        raise UserError(f"--rate: got {rate}, wanted a KL in nats, 0 or more.")


def _by_udr(
    ordered: Sequence[SettingEvidence], measure: Measure
) -> tuple[SettingEvidence | None, list[str], list[str]]:
    """The first of the settings, which are in the order of their UDR, and how far others are.

    Returns:
        The setting, the reasons, and settings that the seeds cannot tell from it.
    """
    first, *rest = ordered
    if math.isnan(first.udr(measure)):
        nothing = (
            "Nothing can be compared: UDR is the agreement of runs of a setting that differ in "
            f"their seed. Train two seeds or more of each setting, better {RUNS} or more. Or "
            "choose by the KL, with --rate."
        )
        return None, [nothing], []
    rivals, alike, reasons = [], [], []
    known = [e for e in rest if e.collapsed == first.collapsed and not math.isnan(e.udr(measure))]
    pairs = math.comb(len(known) + 1, 2)  # the same numbers made it the first
    for e in known:
        ahead = first.udr(measure) - e.udr(measure)
        half = _half(difference_variance(first, e, measure), min(first.n, e.n), pairs)
        rivals.append((e.setting, ahead, half))
        alike += [e.setting] if not ahead > half else []  # nan: too few to tell
    if rivals:
        setting, ahead, half = rivals[0]
        of_all = ", for all pairs at once" if pairs > 1 else ""
        within = "" if math.isnan(half) else f" (± {half:.3f} with 95 %{of_all})"
        reasons.append(f"The next, {setting}, is {ahead:.3f}{within} lower.")
        reasons.append(
            f"The seeds cannot tell {first.setting} from {listed(alike)}."
            if alike
            else f"The seeds tell {first.setting} from all others."
        )
    return first, reasons, alike


def _by_rate(evidence: Sequence[SettingEvidence], rate: float) -> tuple[SettingEvidence, list[str]]:
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
    elif off:
        # In the order of their numbers; settings that are none have no order but that of their KL.
        places = [_place(e) for e in known]
        order = reached if None in places else places
        ordered = [known[i] for i in np.argsort(np.array(order, float))]
        ends = [
            (a, b)
            for a, b in itertools.pairwise(ordered)
            if (mean(a.rate) < rate) != (mean(b.rate) < rate)
        ]
        between = ", and between ".join(
            " and ".join(f"{e.setting} ({mean(e.rate):.1f})" for e in two) for two in ends
        )
        reasons.append(f"The target lies between {between}: what lies between them may be nearer.")
    return chosen, reasons


def _place(evidence: SettingEvidence) -> float | None:
    """Of a setting that is one number among others."""
    values = [*evidence.values.values()]
    return float(values[0]) if len(values) == 1 and isinstance(values[0], Real) else None


def _half(variance: float, runs: int, pairs: int = 1) -> float:
    """Half of Student's 95 % interval; nan with less than three runs, or where all are equal.

    Args:
        pairs: of settings of which all intervals hold together (Bonferroni).
    """
    if runs < 3 or not variance > ROUNDING**2:
        return math.nan
    return float(stats.t.isf(ALPHA / pairs / 2, runs - 1)) * math.sqrt(variance)


def _ranked(evidence: SettingEvidence, measure: Measure) -> Ranked:
    value = evidence.udr(measure)
    half = _half(udr_variance(evidence.pairs[measure]), evidence.n)
    low, high = np.clip([value - half, value + half], 0, 1)
    return Ranked(evidence.setting, value, float(low), float(high))


def _described(row: Ranked, measure: Measure) -> str:
    if math.isnan(row.udr):
        return f"{row.setting} has one run and no UDR"
    interval = "" if math.isnan(row.low) else f" ({row.low:.3f} to {row.high:.3f} with 95 %)"
    return f"{row.setting} has a median UDR ({measure}) of {row.udr:.3f}{interval}"


def cautions(
    evidence: Sequence[SettingEvidence],
    chosen: SettingEvidence | None,
    measure: Measure,
    rate: float | None,
) -> list[str]:
    """About all settings, about the one that is suggested, and `LIMITS`."""
    about = _about(chosen, evidence, measure, rate) if chosen else ()
    return [*_about_all(evidence), *about, *LIMITS]


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
    chosen: SettingEvidence,
    evidence: Sequence[SettingEvidence],
    measure: Measure,
    rate: float | None,
) -> Iterator[str]:
    """Cautions about the setting that is suggested."""
    rates = [mean(e.rate) for e in evidence]
    # A KL between those that were reached is not found beyond the range.
    reached = rate is not None and np.nanmin(rates) <= rate <= np.nanmax(rates)
    open_ended = {} if reached else {n: v for n, v in chosen.values.items() if n not in PACE}
    for name, value in open_ended.items():
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


def listed(settings: Sequence[str]) -> str:
    """At most four of them by name."""
    shown = settings if len(settings) <= 4 else [*settings[:3], f"{len(settings) - 3} others"]
    return ", ".join(shown)


def to_json(suggestion: Suggestion) -> dict[str, Any]:
    """As JSON's types, nan as None; the evidence with the UDR of each run and without its pairs."""
    evidence = []
    for e in suggestion.evidence:
        by_run = {"n": e.n, "udr_lasso": e.udr_lasso, "udr_spearman": e.udr_spearman}
        evidence.append({k: v for k, v in e._asdict().items() if k != "pairs"} | by_run)
    return jsonable(suggestion._asdict() | {"evidence": evidence}, nan=None)


def ranking_table(suggestion: Suggestion) -> dict[str, dict[str, str]]:
    """Setting -> column -> text, in the order of their UDR; the suggested one has a star."""
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
    return table


def in_words(suggestion: Suggestion) -> str:
    """A table of the settings in the order of their UDR, the reasons and the cautions."""
    table = pd.DataFrame.from_dict(ranking_table(suggestion), orient="index")
    lines = [suggestion.headline(), "", table.to_string(), ""]
    for title, sentences in (("Why", suggestion.reasons), ("Cautions", suggestion.cautions)):
        items = (textwrap.fill(s, 98, subsequent_indent="  ") for s in sentences)
        lines += [title, *(f"- {item}" for item in items), ""]
    return "\n".join(lines[:-1])


def _number(value: float, digits: int = 3) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
