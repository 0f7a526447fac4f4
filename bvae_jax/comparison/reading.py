"""What the comparison of a sweep's members is made from."""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bvae_jax.comparison.statistics import Range
from bvae_jax.config import NO_SETTING, Config, ScoreConfig
from bvae_jax.config import places as absolute_places
from bvae_jax.data import open_dataset
from bvae_jax.errors import UserError
from bvae_jax.evaluation.baselines import baseline_scores
from bvae_jax.evaluation.evaluate import (
    evaluate,
    evaluate_elbo,
    stored_decomposition,
    stored_scores,
)
from bvae_jax.likelihoods import make_likelihood
from bvae_jax.metrics import METRICS
from bvae_jax.metrics.scoring import Entry, headline, metric_names, numbers
from bvae_jax.progress import bar
from bvae_jax.runs import rundir
from bvae_jax.runs.encode import available, point_count
from bvae_jax.runs.grid import Member, label
from bvae_jax.runs.loggers import METRICS as RECORDS
from bvae_jax.runs.loggers import Record, read_records
from bvae_jax.runs.programs import Programs
from bvae_jax.runs.sweepdir import (
    Status,
    SweepConfig,
    member_dir,
    plain_numbers,
    read_failed,
    read_sweep,
    status,
)

TRAINING = dict.fromkeys(("nll", "kl", "elbo", "active_latents"), "")
ELBO_PARTS = dict.fromkeys(("mutual_information", "total_correlation", "dimension_wise_kl"), "")
OPTIMISED = ("unsupervised/gaussian_total_correlation",)
"""What objectives weigh or optimise by construction, so that no setting wins by it: β = 1 is the
ELBO, the smallest β has the best likelihood, the largest the least KL and total correlation."""


def is_metric(score: str) -> bool:
    """Whether a score tells of disentanglement."""
    return score not in TRAINING | ELBO_PARTS


@dataclass(frozen=True)
class Comparison:
    """Members of one sweep or several, and what is known of each.

    A setting is what members share that differ in their seed only, as "β = 4".

    Attributes:
        varied: fields of `Config` that vary beside the seed, as ("beta",).
        settings: their labels, in the order of their values.
        members: a row for each finished member, by its name; columns `setting`, `seed`, those in
            `varied`, and numbers, among them `nll`, `kl`, `elbo` and all in `scores`.
        scores: columns that are compared, in the order of tables.
        better: score -> "high" or "low", or "" where neither is.
        ranges: score -> its smallest and largest possible value; not of all.
        baselines: columns `baseline` and those in `scores`, nan where a baseline has none; a
            baseline that depends on the seed has a row for each.
        kl_per_latent: member -> [latent], nats; without autoencoders, which have none.
        factor_scores: by member, a column for each factor: the share of its entropy that the best
            latent knows.
        records: member -> its metrics.jsonl.
        run_dirs: member -> its directory.
        failed: member -> why it is left out.
        missing: members that are not finished.
    """

    sweep_dirs: tuple[Path, ...]
    varied: tuple[str, ...]
    settings: tuple[str, ...]
    members: pd.DataFrame
    scores: tuple[str, ...]
    better: Mapping[str, str]
    baselines: pd.DataFrame
    kl_per_latent: Mapping[str, np.ndarray]
    factor_scores: pd.DataFrame
    records: Mapping[str, list[Record]] = field(repr=False)
    run_dirs: Mapping[str, Path]
    failed: Mapping[str, str]
    missing: tuple[str, ...]
    ranges: Mapping[str, Range] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationSettings:
    """How members are evaluated.

    Attributes:
        score: which metrics, on how many points.
        num_points: images to encode; all, if there are not so many.
        decomposition: draws of z to take the KL apart; 0: do not.
        baselines: score other representations alike.
    """

    score: ScoreConfig = field(default_factory=lambda: ScoreConfig(metrics="fast"))
    num_points: int = 50_000
    decomposition: int = 1000
    baselines: bool = True


class Place(NamedTuple):
    """A member of one of the sweeps that are compared.

    Attributes:
        reason: why it failed, or why its directory cannot be read.
    """

    sweep_dir: Path
    sweep: SweepConfig
    member: Member
    status: Status
    reason: str = ""

    @property
    def run_dir(self) -> Path:
        return member_dir(self.sweep_dir, self.member)


def read_comparison(
    sweep_dirs: Sequence[Path],
    settings: EvaluationSettings | None,
    programs: Programs,
    *,
    progress: bool = True,
) -> Comparison:
    """Read sweeps, and evaluate the members that are done where that has not been done.

    Args:
        settings: of the evaluation; none if None.

    Raises:
        UserError: a directory holds no sweep, the data sets differ, or no member is done.
        KeyboardInterrupt: after Ctrl-C; what was evaluated is kept.
    """
    places = read_places(sweep_dirs)
    varied = varied_fields(places.values())
    names = _labels(places, varied)
    places = {name: places[name] for name in names}
    done = {name: place for name, place in places.items() if place.status == "done"}
    if not done:
        raise UserError(f"{sweep_dirs[0]}: no member is done yet. Train them by bvae sweep first.")
    if settings:
        settings = _fitting(settings, next(iter(done.values())).member.config)
    rows, shares, kl = [], {}, {}
    skipped: dict[str, list[str]] = {}
    failed = {name: place.reason for name, place in places.items() if place.status == "failed"}
    with bar(total=len(done), desc="evaluate", unit=" members", disable=not progress) as shown:
        for name, place in done.items():
            summary = rundir.read_json(place.run_dir / rundir.SUMMARY, rundir.Summary)
            try:
                entries, decomposed = _evaluated(place, settings, programs)
            except UserError as error:
                failed[name] = str(error)
                continue
            row = {"member": name, "setting": names[name], "seed": place.member.config.seed}
            row |= {f: place.member.config.value(f) for f in varied}
            row |= plain_numbers(summary) | numbers(entries)
            rows.append(row | {n: decomposed[n] for n in ELBO_PARTS if n in decomposed})
            if "kl_per_latent" in summary:
                kl[name] = np.array(summary["kl_per_latent"])
            shares[name] = _factor_shares(entries)
            for metric, entry in entries.items():
                if "skipped" in entry:
                    skipped.setdefault(metric, []).append(entry["skipped"])
            shown.update(1)
    for name, reason in failed.items():
        print(f"bvae: {name} is left out: {reason}", file=sys.stderr)
    for metric, why in skipped.items():
        which = f"{len(why)} of {len(rows)} members"
        print(f"bvae: note: {metric}: skipped for {which}: {why[0].rstrip('.')}.", file=sys.stderr)
    done = {name: place for name, place in done.items() if name not in failed}
    if not done:
        raise UserError(f"No member can be compared. {next(iter(failed.values()))}")
    members = pd.DataFrame(rows).set_index("member")
    first = next(iter(done.values()))
    factor_names = open_dataset(first.member.config, progress=progress).factor_names
    scored = settings if settings and settings.score.metrics != "none" else None
    metrics = metric_names(scored.score.metrics) if scored else ()
    known = known_scores(metrics)
    likelihoods = {place.member.config.likelihood for place in done.values()}
    scores = {name: better for name, better in known.items() if name in members}
    return Comparison(
        sweep_dirs=tuple(sweep_dirs),
        varied=tuple(varied),
        settings=tuple(dict.fromkeys(names.values())),
        members=members,
        scores=tuple(scores),
        better=scores,
        baselines=baseline_scores(
            first.sweep_dir,
            sorted({place.member.config.seed for place in done.values()}),
            programs,
            first.member.config,
            scored.score,
            scores,
            progress=progress,
        )
        if scored and scored.baselines
        else pd.DataFrame(columns=["baseline", *scores]),
        kl_per_latent=kl,
        factor_scores=pd.DataFrame.from_dict(
            {name: share for name, share in shares.items() if share is not None},
            orient="index",
            columns=list(factor_names),
        ),
        records={name: _records(place.run_dir / RECORDS) for name, place in done.items()},
        run_dirs={name: place.run_dir for name, place in done.items()},
        failed=failed,
        missing=tuple(n for n, place in places.items() if place.status in ("begun", "missing")),
        ranges=known_ranges(metrics, likelihoods),
    )


def read_places(sweep_dirs: Sequence[Path]) -> dict[str, Place]:
    """All members by name; of several sweeps, the sweep's name is a part of it.

    Where two sweeps have the same member, that which is done counts, or else the later sweep's.

    Raises:
        UserError: a directory holds no sweep, or the data sets differ.
    """
    found: dict[str, Place] = {}
    by_config: dict[str, str] = {}
    titles = sweep_titles(sweep_dirs)
    for sweep_dir, title in titles.items():
        sweep = read_sweep(sweep_dir)
        for member in sweep.members():
            name = f"{title}/{member.name}" if len(titles) > 1 else member.name
            settings = _fields(member.config)
            key = str({n: v for n, v in settings.items() if n == "seed" or n not in NO_SETTING})
            place = _place(sweep_dir, sweep, member)
            if key in by_config:
                other = by_config[key]
                if found[other].status == "done" != place.status:
                    name, other, place = other, name, found[other]
                print(f"bvae: note: {other} is left out for {name}.", file=sys.stderr)
                found.pop(other, None)
            by_config[key], found[name] = name, place
    datasets = sorted({_fields(place.member.config)["dataset"] for place in found.values()})
    if len(datasets) > 1:
        raise UserError(f"Got members on {', '.join(datasets)}, wanted members on one data set.")
    return found


def _place(sweep_dir: Path, sweep: SweepConfig, member: Member) -> Place:
    """A member that cannot be read has failed: the others are compared without it."""
    try:
        found = status(sweep_dir, member)
        reason = read_failed(sweep_dir, member) if found == "failed" else ""
    except UserError as error:
        found, reason = "failed", str(error)
    return Place(sweep_dir, sweep, member, found, reason)


def _fields(config: Config) -> dict[str, Any]:
    """By name; paths as they are found from any directory."""
    return config.to_dict() | absolute_places(config)


def sweep_titles(sweep_dirs: Sequence[Path]) -> dict[Path, str]:
    """What to call each, once: its directory's name, or the path where two have the same name."""
    different = {path.resolve(): path for path in sweep_dirs}
    names = [path.name for path in different]
    return {
        path: whole.name if names.count(whole.name) == 1 else str(path)
        for whole, path in different.items()
    }


def varied_fields(places: Iterable[Place]) -> list[str]:
    """Fields that make settings: those that a sweep varies, and in which sweeps differ.

    Sweeps that give a value and sweeps that leave it to the objective, which has the same, do not
    differ.
    """
    places = list(places)
    bases = [_fields(place.sweep.base) for place in places]
    members = [_fields(place.member.config) for place in places]
    named = {name for place in places for name in place.sweep.values}
    return [
        name
        for name in dict.fromkeys(name for fields in (*bases, *members) for name in fields)
        if name not in NO_SETTING
        and (
            name in named
            or all(len({d.get(name) for d in dicts}) > 1 for dicts in (bases, members))
        )
    ]


def _labels(places: Mapping[str, Place], varied: Sequence[str]) -> dict[str, str]:
    """The setting of each member, in the order of settings."""
    values = {
        name: {f: place.member.config.value(f) for f in varied} for name, place in places.items()
    }
    ordered = {f: in_order(v[f] for v in values.values()) for f in varied}

    def order(name: str) -> list[int]:
        places_of_values = [ordered[f].index(value) for f, value in values[name].items()]
        return [*places_of_values, places[name].member.config.seed]

    return {
        name: label({f: v for f, v in values[name].items() if v is not None})
        for name in sorted(values, key=order)
    }


def in_order(values: Iterable[Any]) -> list[Any]:
    """Those that differ: numbers by their size, then others in the order in which they come."""
    different = list(dict.fromkeys(values))
    numbers = sorted(value for value in different if isinstance(value, int | float))
    return [*numbers, *(value for value in different if not isinstance(value, int | float))]


def _records(path: Path) -> list[Record]:
    """Of a run's training; none if they were deleted."""
    return read_records(path) if path.exists() else []


def _evaluated(
    place: Place, settings: EvaluationSettings | None, programs: Programs
) -> tuple[dict[str, Entry], dict[str, Any]]:
    """Scores and ELBO of a member; it is loaded only if some of them are not there.

    Raises:
        UserError: it cannot be loaded.
    """
    if settings is None:
        return {}, {}
    count, draws, split = settings.num_points, settings.decomposition, settings.score.split
    scored = settings.score.metrics != "none"
    entries = stored_scores(place.run_dir, settings.score, count) if scored else {}
    decomposed = stored_decomposition(place.run_dir, draws, count, split) if draws else {}
    if entries is None or decomposed is None:
        run = programs.load(place.run_dir)
        if entries is None:
            entries = evaluate(run, settings.score, num_points=count, figures=False, progress=False)
        if decomposed is None:
            found = evaluate_elbo(run, draws, num_points=count, split=split, progress=False)
            decomposed = found["decomposition"]
    return entries, decomposed


def _fitting(settings: EvaluationSettings, config: Config) -> EvaluationSettings:
    """With as many images as there are, and no metrics where there are no factors."""
    dataset, split = open_dataset(config), settings.score.split
    most = available(dataset, config, split)
    count = point_count(dataset, config, split, min(settings.num_points, most))
    score = settings.score if dataset.factor_names else replace(settings.score, metrics="none")
    return replace(settings, num_points=count, score=score)


def _factor_shares(entries: Mapping[str, Entry]) -> np.ndarray | None:
    """[factor] the part of a factor's entropy that its best latent knows."""
    if "mutual_information" not in entries.get("mig", {}):
        return None
    matrix = np.array(entries["mig"]["mutual_information"], float)
    entropy = np.array(entries["mig"]["entropy"], float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(entropy > 0, matrix.max(axis=0) / entropy, math.nan)


def known_scores(metrics: Iterable[str]) -> dict[str, str]:
    """Columns that can be compared, and whether "high" or "low" is better, or "" for neither."""
    better = {"high": "high", "low": "low"}
    headlines = {headline(name): better.get(METRICS[name].best, "") for name in metrics}
    return TRAINING | ELBO_PARTS | headlines | {s: "" for s in OPTIMISED if s in headlines}


def known_ranges(metrics: Iterable[str], likelihoods: Iterable[str]) -> dict[str, Range]:
    """The smallest and the largest value of each column that can be compared.

    Args:
        likelihoods: of the members. Where one is a density, nll and ELBO have no bound.
    """
    densities = any(make_likelihood(name, 1.0).density for name in likelihoods)
    at_least_0 = (0.0, math.inf)
    bounded = {} if densities else {"nll": at_least_0, "elbo": (-math.inf, 0.0)}
    others = dict.fromkeys(("kl", "active_latents", *ELBO_PARTS), at_least_0)
    return bounded | others | {headline(name): METRICS[name].range for name in metrics}
