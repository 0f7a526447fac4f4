"""From the directories of sweeps to a `Comparison`: read, evaluate, assemble."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bvae_jax.comparison.base import (
    ELBO_PARTS,
    Comparison,
    known_ranges,
    known_scores,
    name_of,
)
from bvae_jax.comparison.rates import Candidate, candidates, common_betas, sweep_of
from bvae_jax.config import HYPERPARAMETERS, NO_SETTING, Config, ScoreConfig
from bvae_jax.config import places as absolute_places
from bvae_jax.continuous import NONE, in_words, periods
from bvae_jax.data import open_dataset
from bvae_jax.elbo import is_active
from bvae_jax.errors import UserError, said_once, say
from bvae_jax.evaluation.baselines import baseline_scores
from bvae_jax.evaluation.elbo import evaluate_elbo, stored_decomposition, stored_generalisation
from bvae_jax.evaluation.evaluate import Asked, ask, stored_scores
from bvae_jax.evaluation.generalisation import SPLITS, mixing, pairs_of
from bvae_jax.evaluation.processes import in_processes, processes_for
from bvae_jax.files import read_json
from bvae_jax.metrics.base import ratio
from bvae_jax.metrics.scoring import Entry, metric_names, numbers
from bvae_jax.runs import rundir
from bvae_jax.runs.encode import available, point_count
from bvae_jax.runs.grid import label
from bvae_jax.runs.loggers import METRICS as RECORDS
from bvae_jax.runs.loggers import read_records
from bvae_jax.runs.run import load_shared
from bvae_jax.runs.sweepdir import plain_numbers
from bvae_jax.runs.trainer import Trainers
from bvae_jax.runtime import bar

ROUNDS = 2
"""Members for each process at once, so that none is idle for long."""


class EvaluationSettings(NamedTuple):
    """How members are evaluated.

    Attributes:
        score: which metrics, on how many points.
        num_points: images to encode; all, if there are fewer.
        decomposition: draws of z to take the KL apart; 0: do not.
        baselines: score other representations alike.
    """

    score: ScoreConfig
    num_points: int
    decomposition: int
    baselines: bool


class Evaluation(NamedTuple):
    """What the files of a member say of it.

    Attributes:
        entries: metric -> its scores.
        decomposition: the parts of its ELBO.
        generalisation: to excluded combinations or from correlated draws, where there are any.
    """

    summary: dict[str, Any]
    entries: Mapping[str, Entry]
    decomposition: Mapping[str, Any]
    generalisation: Mapping[str, Any] = {}


def read_comparison(
    sweep_dirs: Sequence[Path],
    settings: EvaluationSettings | None,
    trainers: Trainers,
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
    found = read_members(sweep_dirs)
    varied = varied_fields(found.values())
    found = in_settings(found, varied)
    done = {name: each for name, each in found.items() if each.status == "done"}
    if not done:
        raise UserError(f"{sweep_dirs[0]}: no member is done yet. Train them by bvae sweep first.")
    factor_names: Sequence[str] = ()
    if settings:
        settings, factor_names = _fitting(settings, next(iter(done.values())).config, progress)
    evaluated, unreadable = evaluate_members(done, settings, trainers, progress=progress)
    failed = {name: each.reason for name, each in found.items() if each.status == "failed"}
    failed |= unreadable
    for name, reason in failed.items():
        say(f"{name} is left out: {reason}")
    if not evaluated:
        raise UserError(f"No member can be compared. {next(iter(failed.values()))}")
    _say_what_is_skipped(evaluated)
    metrics = metric_names(settings.score.metrics) if settings and factor_names else ()
    comparison = assemble(sweep_dirs, found, varied, evaluated, failed, metrics, factor_names)
    comparison = replace(comparison, images=_images(evaluated, settings, bool(metrics)))
    if settings and settings.baselines and metrics:
        first = found[next(iter(evaluated))]
        seeds = sorted({found[name].config.seed for name in evaluated})
        baselines = baseline_scores(
            first.sweep_dir, seeds, trainers, first.config, settings.score, comparison.scores,
            num_points=settings.num_points, progress=progress,
        )  # fmt: skip
        comparison = replace(comparison, baselines=baselines)
    return comparison


def _images(
    evaluated: Mapping[str, Evaluation], settings: EvaluationSettings | None, scored: bool
) -> str:
    """Of which images the numbers of all members are, a sentence; "" where these differ."""
    of = {(e.summary.get("split"), e.summary.get("eval_images")) for e in evaluated.values()}
    [(split, count), *more] = of
    if more or not count:
        return ""
    kind = {"holdout": "held-out", "train_eval": "training"}.get(str(split), split)
    said = f"NLL, KL and ELBO are of {count:,} {kind} images"
    if settings and (scored or settings.decomposition):
        what = ["metrics"] * scored + ["the parts of the KL"] * bool(settings.decomposition)
        split = settings.score.split
        whose = "images, those of training among them" if split == "all" else f"{split} images"
        said += f"; {' and '.join(what)} of {settings.num_points:,} {whose}"
    return f"{said}."


def read_members(sweep_dirs: Sequence[Path]) -> dict[str, Candidate]:
    """All members by name; of several sweeps, the sweep's name is a part of it.

    Where two sweeps have the same member, that which is done counts, or else the later sweep's.

    Raises:
        UserError: a directory holds no sweep, or the data sets differ.
    """
    found: dict[str, Candidate] = {}
    by_config: dict[str, str] = {}
    titles, betas = sweep_titles(sweep_dirs), common_betas(sweep_dirs)
    for sweep_dir, title in titles.items():
        sweep = sweep_of(sweep_dir, betas)
        for candidate in candidates(sweep_dir, sweep):
            member = candidate.member
            name = f"{title}/{member.name}" if len(titles) > 1 else member.name
            fields = _fields(member.config)
            key = str({n: v for n, v in fields.items() if n == "seed" or n not in NO_SETTING})
            if key in by_config:
                other = by_config[key]
                if found[other].status == "done" != candidate.status:
                    name, other, candidate = other, name, found[other]
                say(f"note: {other} is left out for {name}.")
                found.pop(other, None)
            by_config[key], found[name] = name, candidate
    datasets = sorted({_fields(each.config)["dataset"] for each in found.values()})
    if len(datasets) > 1:
        raise UserError(f"Got members on {', '.join(datasets)}, wanted members on one data set.")
    return found


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


def varied_fields(members: Iterable[Candidate]) -> list[str]:
    """Fields that make settings: those that a sweep varies, and in which sweeps differ.

    Sweeps that give a value and sweeps that leave it to the objective, which has the same, do not
    differ.
    """
    members = list(members)
    bases = [_fields(each.sweep.base) for each in members]
    configs = [_fields(each.config) for each in members]
    named = {name for each in members for name in each.sweep.values}
    return [
        name
        for name in dict.fromkeys(name for fields in (*bases, *configs) for name in fields)
        if name not in NO_SETTING
        and (
            name in named
            or all(len({d.get(name) for d in dicts}) > 1 for dicts in (bases, configs))
        )
    ]


def in_settings(members: Mapping[str, Candidate], varied: Sequence[str]) -> dict[str, Candidate]:
    """Members with the labels of their settings, in the order of settings and seeds.

    What all settings of an objective have alike, as the optimizer, is not in their labels: the
    objective says it. Its own hyperparameters are.
    """
    values = {name: {f: each.config.value(f) for f in varied} for name, each in members.items()}
    ordered = {f: in_order(v[f] for v in values.values()) for f in varied}

    def order(name: str) -> list[int]:
        places = [ordered[f].index(value) for f, value in values[name].items()]
        return [*places, members[name].config.seed]

    def told(field: str, of: Mapping[str, Any]) -> bool:
        if of[field] in (None, ""):
            return False
        if "objective" not in of or field in ("objective", *HYPERPARAMETERS):
            return True
        alike = (each for each in values.values() if each["objective"] == of["objective"])
        return len({each[field] for each in alike}) > 1

    def called(of: Mapping[str, Any]) -> str:
        shown = {f: name_of(x) if f == "objective" else x for f, x in of.items() if told(f, of)}
        return label(shown)

    labels = {name: called(of) for name, of in values.items()}
    return {
        name: members[name]._replace(setting=labels[name]) for name in sorted(values, key=order)
    }


def in_order(values: Iterable[Any]) -> list[Any]:
    """Different values: numbers by size, then the rest in the order in which they come."""
    different = list(dict.fromkeys(values))
    numbers = sorted(value for value in different if isinstance(value, int | float))
    return [*numbers, *(value for value in different if not isinstance(value, int | float))]


def _fitting(
    settings: EvaluationSettings, config: Config, progress: bool
) -> tuple[EvaluationSettings, Sequence[str]]:
    """Settings that fit the data set (images, factors, which are numbers), and factor names."""
    dataset, split = open_dataset(config, progress=progress), settings.score.split
    most = available(dataset, config, split)
    count = point_count(dataset, config, split, min(settings.num_points, most))
    score, names = settings.score, dataset.factor_names
    if not names:
        score = replace(score, metrics="none")
    elif declared := score.continuous or dataset.continuous:
        declared = in_words(periods(declared, names), names) or NONE
        score = replace(score, continuous=declared)
    return settings._replace(num_points=count, score=score), names


def evaluate_members(
    done: Mapping[str, Candidate],
    settings: EvaluationSettings | None,
    trainers: Trainers,
    *,
    progress: bool = True,
) -> tuple[dict[str, Evaluation], dict[str, str]]:
    """Scores and ELBO of members that are done; what is on disk is not computed again.

    Args:
        settings: that fit the data set; nothing is evaluated if None.

    Returns:
        Evaluations, and of members that cannot be loaded why.
    """
    found: dict[str, Evaluation] = {}
    failed: dict[str, str] = {}
    waiting: dict[str, Asked] = {}
    names = metric_names(settings.score.metrics) if settings and _scores(settings) else ()
    processes = processes_for(names)
    shown = bar(total=len(done), desc="evaluate", unit=" members", disable=not progress)

    def score_waiting() -> None:
        entries = in_processes(_scored_or_why, [*waiting.values()], processes)
        for name, scored in zip(waiting, entries, strict=True):
            if isinstance(scored, UserError):
                failed[name] = str(scored)
                found.pop(name)
            else:
                found[name] = found[name]._replace(entries=scored)
            shown.update(1)
        waiting.clear()

    with shown, said_once():
        for name, each in done.items():
            try:
                found[name], asked = _evaluated(each, settings, trainers)
            except UserError as error:
                failed[name], asked = str(error), None
            if asked is None:
                shown.update(1)
                continue
            waiting[name] = asked
            if len(waiting) == (1 if processes == 1 else ROUNDS * processes):
                score_waiting()
        score_waiting()
    return found, failed


def _scored_or_why(asked: Asked) -> dict[str, Entry] | UserError:
    try:
        return asked.scored()
    except UserError as error:
        return error


def _scores(settings: EvaluationSettings) -> bool:
    return settings.score.metrics != "none"


def _evaluated(
    candidate: Candidate, settings: EvaluationSettings | None, trainers: Trainers
) -> tuple[Evaluation, Asked | None]:
    """The run is loaded only if something is not there; scores that are not are still to be made.

    Returns:
        The evaluation, without scores where they are missing, and what they are asked for by then.
    """
    run_dir, of = candidate.run_dir, candidate.config
    unseen = "excluded" if of.exclude else "correlated" if of.correlate else ""
    summary = _summary(run_dir, trainers)
    if settings is None:
        return Evaluation(summary, {}, {}), None
    count, draws, split = settings.num_points, settings.decomposition, settings.score.split
    entries = stored_scores(run_dir, settings.score, count) if _scores(settings) else {}
    parts = stored_decomposition(run_dir, draws, count, split) if draws else {}
    gap = stored_generalisation(run_dir, unseen) if unseen else {}
    asked = None
    if entries is None or parts is None or gap is None:
        run = load_shared(run_dir, trainers)
        if entries is None:
            asked = ask(run, settings.score, num_points=count, progress=False)
        if parts is None:
            found = evaluate_elbo(run, draws, num_points=count, split=split, progress=False)
            parts = found["decomposition"]
        if gap is None:
            found = evaluate_elbo(run, 0, split=unseen, progress=False)
            gap = found["generalisation"]
    return Evaluation(summary, entries or {}, parts, gap), asked


def _summary(run_dir: Path, trainers: Trainers) -> dict[str, Any]:
    """Of a run that is done; of one for many β at one of them, it is made if it is not there."""
    whole, beta = rundir.of_beta(run_dir)
    if beta is not None:
        found, trained = rundir.read_summary(run_dir), rundir.read_summary(whole)
        if not (found and trained and found["step"] == trained["step"]):
            return load_shared(run_dir, trainers).summarised().summary or {}
    return read_json(run_dir / rundir.SUMMARY, rundir.Summary)


def _say_what_is_skipped(evaluated: Mapping[str, Evaluation]) -> None:
    skipped: dict[str, list[str]] = {}
    for evaluation in evaluated.values():
        for metric, entry in evaluation.entries.items():
            if "skipped" in entry:
                skipped.setdefault(metric, []).append(entry["skipped"])
    for metric, why in skipped.items():
        which = f"{len(why)} of {len(evaluated)} members"
        say(f"note: {metric}: skipped for {which}: {why[0].rstrip('.')}.")


def assemble(
    sweep_dirs: Sequence[Path],
    found: Mapping[str, Candidate],
    varied: Sequence[str],
    evaluated: Mapping[str, Evaluation],
    failed: Mapping[str, str],
    metrics: Sequence[str],
    factor_names: Sequence[str],
) -> Comparison:
    """Tables of what was read and evaluated, without baselines.

    Args:
        found: all members, in the order of their settings.
        metrics: that were asked for.
    """
    rows, kl, shares = [], {}, {}
    pairs = {pair for each in found.values() for pair in pairs_of(each.config.correlate)}
    for name, (summary, entries, parts, gap) in evaluated.items():
        config = found[name].config
        row = {"member": name, "setting": found[name].setting, "seed": config.seed}
        row |= {f: config.value(f) for f in varied} | plain_numbers(summary) | numbers(entries)
        if "variance_per_latent" not in summary:  # a run of before: it counted by another rule
            row.pop("active_latents", None)
            row |= {"active_latents": parts["active_units"]} if "active_units" in parts else {}
        row |= {part: parts[part] for part in ELBO_PARTS if part in parts}
        for number in ("nll", "mse") if gap else ():
            here, there = SPLITS[gap["request"]["split"]]
            row |= {f"{number}_{here}": gap[number], f"{number}_{there}": gap[f"{number}_train"]}
            row[f"{number}_gap"] = gap[f"{number}_gap"]
        if "mig_train" in gap:
            row["mig_correlated"] = float(gap["mig_train"])
        rows.append(row)
        if "kl_per_latent" in summary:
            kl[name] = np.array(summary["kl_per_latent"])
        if "mutual_information" in entries.get("mig", {}):
            shares[name] = _factor_shares(entries["mig"])
            if pairs and entries["mig"]["request"]["split"] == "all":
                matrix = np.array(entries["mig"]["mutual_information"], float)
                used = np.ones(len(matrix), bool)
                if "kl_per_latent" in summary and "variance_per_latent" in summary:
                    used = is_active(np.array(summary["variance_per_latent"]))
                mixed = mixing(matrix, factor_names, pairs, used)
                row |= {name: mixed[name] for name in ("entanglement", "entanglement_others")}
    members = pd.DataFrame(rows).set_index("member")
    likelihoods = {found[name].config.likelihood for name in evaluated}
    scores = {name: better for name, better in known_scores(metrics).items() if name in members}
    run_dirs = {name: found[name].run_dir for name in evaluated}
    records = {name: directory / RECORDS for name, directory in run_dirs.items()}
    by_place = {each.sweep_dir: each.sweep for each in found.values()}
    return Comparison(
        sweeps=tuple(by_place[path] for path in sweep_dirs if path in by_place),
        varied=tuple(varied),
        settings=tuple(dict.fromkeys(each.setting for each in found.values())),
        members=members,
        scores=tuple(scores),
        better=scores,
        baselines=pd.DataFrame(columns=["baseline", *scores]),
        kl_per_latent=kl,
        factor_scores=pd.DataFrame.from_dict(shares, orient="index", columns=list(factor_names)),
        records={n: read_records(path) if path.exists() else [] for n, path in records.items()},
        run_dirs=run_dirs,
        failed=failed,
        warnings={n: w for n, of in evaluated.items() if (w := of.summary.get("warnings"))},
        missing=tuple(n for n, each in found.items() if each.status in ("begun", "missing")),
        ranges=known_ranges(metrics, likelihoods),
    )


def _factor_shares(mig: Entry) -> np.ndarray:
    """[factor] the part of a factor's entropy that its best latent knows."""
    return ratio(np.array(mig["mutual_information"], float).max(axis=0), mig["entropy"])
