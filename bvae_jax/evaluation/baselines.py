"""What the scores of a sweep are to be compared with: representations that were not trained."""

import dataclasses
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypedDict

import pandas as pd

from bvae_jax.config import IMAGES, Config, ScoreConfig
from bvae_jax.errors import UserError
from bvae_jax.evaluation.representations import of_encoder, run_baselines
from bvae_jax.metrics import METRICS
from bvae_jax.metrics.scoring import PACKAGES, PIXELS, metric_names, numbers, score_all
from bvae_jax.progress import bar
from bvae_jax.runs import rundir
from bvae_jax.runs.encode import encode_points
from bvae_jax.runs.programs import Programs

FILE = "baselines.json"
SPLITS = ("holdout", "test", "split_by", "split_seed", "exclude")
"""Fields that say which images are in a split."""
PRUNING = "factor_vae_score"
"""The metric that leaves out latents by the size of their codes."""
MOST_SEEDS = 10
"""Untrained encoders that are scored."""


class Stored(TypedDict):
    """The contents of baselines.json."""

    request: dict[str, Any]
    rows: list[dict[str, str | float]]


def baseline_scores(
    sweep_dir: Path,
    seeds: Sequence[int],
    programs: Programs,
    config: Config,
    score: ScoreConfig,
    scores: Iterable[str],
    *,
    progress: bool = False,
) -> pd.DataFrame:
    """Scores of random codes, the untrained encoder of each seed, PCA, ICA, pixels and the factors.

    Kept in the sweep's directory, and read from there where the settings are the same.

    Args:
        config: of one member: its data set, network and number of latents are taken.
        scores: columns that are wanted.

    Returns:
        Columns `baseline` and `scores`, nan where a baseline has none.
    """
    seeds = seeds[:MOST_SEEDS]
    request = {
        "score": dataclasses.asdict(score),
        "seeds": list(seeds),
        "network": config.network,
        "latents": config.latents,
        "images": {name: getattr(config, name) for name in (*IMAGES, *SPLITS)},
        "versions": rundir.versions(PACKAGES),
    }
    path = sweep_dir / FILE
    rows = _stored(path, request)
    if rows is None:
        rows = _scored(seeds, programs, config, score, progress)
        rundir.write_json(path, {"request": request, "rows": rows}, checksum=True)
    return pd.DataFrame(rows).reindex(columns=["baseline", *scores])


def _stored(path: Path, request: dict[str, Any]) -> list[dict[str, Any]] | None:
    if not path.exists():
        return None
    try:
        stored: Stored = rundir.read_json(path, Stored, mend="They are scored anew.")
    except UserError as error:
        print(f"bvae: {error}", file=sys.stderr)
        return None
    return stored["rows"] if stored["request"] == request else None


def _scored(
    seeds: Sequence[int],
    programs: Programs,
    config: Config,
    score: ScoreConfig,
    progress: bool,
) -> list[dict[str, Any]]:
    score = dataclasses.replace(score, permutations=0)
    program = programs.of(dataclasses.replace(config, seed=seeds[0]))
    count = min(program.dataset.size, score.train_points + score.test_points)
    points = list(run_baselines(program, count, progress=progress).items())
    for seed in seeds[1:]:
        params = programs.of(dataclasses.replace(config, seed=seed)).init().params["vae"]
        points.append(("untrained", of_encoder(program, encode_points(program, params, count))))
    rows, names = [], metric_names(score.metrics)
    with bar(total=len(points), desc="baselines", disable=not progress) as shown:
        for name, representation in points:
            wanted = [m for m in names if name != PIXELS or METRICS[m].pixels]
            settings = dataclasses.replace(score, metrics=",".join(wanted))
            entries = dict(score_all(representation, settings)) if wanted else {}
            if not any(entries.get(PRUNING, {}).get("active", [True])):
                del entries[PRUNING]  # codes on too small a scale: 0 would say nothing of them
            rows.append({"baseline": name.replace("_", " "), **numbers(entries)})
            shown.update(1)
    return rows
