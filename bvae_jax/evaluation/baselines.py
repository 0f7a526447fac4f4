"""What scores are compared with: other representations of the same points, none of them trained."""

import dataclasses
import functools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.decomposition import FastICA, IncrementalPCA
from sklearn.exceptions import ConvergenceWarning

from bvae_jax.config import IMAGES, Config, ScoreConfig
from bvae_jax.evaluation.answers import Answers
from bvae_jax.evaluation.processes import in_processes, processes_for
from bvae_jax.metrics import METRICS
from bvae_jax.metrics.base import POINTS
from bvae_jax.metrics.codes import Codes
from bvae_jax.metrics.scoring import (
    PACKAGES,
    PIXELS,
    Entry,
    metric_names,
    numbers,
    score_all,
    source_of,
)
from bvae_jax.runs.encode import codes_to_score, encode_points, encoding_order
from bvae_jax.runs.trainer import Trainer, Trainers
from bvae_jax.runtime import bar, versions

FILE = "baselines.json"
SPLITS = ("holdout", "test", "split_by", "split_seed", "exclude")
"""Fields that say which images are in a split."""
PRUNING = "factor_vae_score"
"""The metric that leaves out latents by the size of their codes."""
MOST_SEEDS = 10
"""Untrained encoders that are scored."""
IMAGES_AT_ONCE = 1000
ROUNDING = 1e-5
"""Of the largest singular value: those below it are rounding."""
MOST_NUMBERS = 30_000_000
"""Of the raw pixels that are held at once: larger images are represented by fewer points."""


def random_codes(points: Codes) -> Codes:
    """Independent standard normal numbers: what a score is worth without any information."""
    codes = np.random.default_rng(0).standard_normal(points.codes.shape)
    test = None
    if points.codes_test is not None:
        test = np.random.default_rng(1).standard_normal(points.codes_test.shape)
    return _instead(points, codes, test)


def true_factors(points: Codes) -> Codes:
    """The factors themselves, one latent each, with mean 0 and standard deviation 1."""
    factors = points.known()
    mean, std = factors.mean(axis=0), factors.std(axis=0)
    std = np.where(std > 0, std, 1)
    test = None if points.factors_test is None else (points.known(test=True) - mean) / std
    return _instead(points, (factors - mean) / std, test)


def _instead(points: Codes, codes: np.ndarray, codes_test: np.ndarray | None = None) -> Codes:
    """Other codes of the same points; without a posterior."""
    return dataclasses.replace(
        points, codes=codes, codes_test=codes_test, logvars=None, kl=None, codes_of_runs=None,
        kl_of_runs=None,
    )  # fmt: skip


def _first(points: Codes, codes: np.ndarray) -> Codes:
    """Other codes of the first points."""
    rows = {n: getattr(points, n) for n in ("factors", "values", "indices")}
    rows = {n: None if of is None else of[: len(codes)] for n, of in rows.items()}
    return dataclasses.replace(_instead(points, codes), **rows)


def run_baselines(
    trainer: Trainer, config: Config, count: int, *, split: str = "all", progress: bool = False
) -> dict[str, Codes]:
    """Baselines of a run, on the first `count` images of `encoding_order`.

    `random_codes`; `untrained`, the run's encoder before its first step; `pca` and `ica` of the
    pixels, with as many components as the run has latents; `raw_pixels`; `true_factors`.

    Args:
        config: of the run: its seed is that of the untrained encoder.
        split: whose images.
        progress: show bars.
    """
    params = trainer.init(config).params["vae"]
    encoded = encode_points(trainer, params, count, split=split, progress=progress)
    untrained = codes_to_score(trainer, encoded, split)
    order = encoding_order(trainer, split)[:count]
    components = min(trainer.config.latents, count, int(np.prod(trainer.dataset.image_shape)))
    most = max(2, min(count, MOST_NUMBERS // int(np.prod(trainer.dataset.image_shape))))
    total = 2 * count + most
    with bar(total=total, desc="PCA, ICA, pixels", unit=" images", disable=not progress) as shown:
        pca = IncrementalPCA(components)
        with np.errstate(invalid="ignore"):  # shares of the variance, of which there may be none
            for images in _pixels(trainer, order, at_least=components):
                pca.partial_fit(images)
                shown.update(len(images))
        projected = []
        for images in _pixels(trainer, order):
            projected.append(pca.transform(images))
            shown.update(len(images))
        projected = np.concatenate(projected)
        # Components beyond the rank of the images are rounding, which whitening would blow up.
        sizes = np.asarray(pca.singular_values_)
        there = sizes > ROUNDING * max(sizes.max(), 1)
        projected[:, ~there] = 0
        independent = np.zeros_like(projected)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            ica = FastICA(whiten="unit-variance", random_state=0, max_iter=500)
            if there.any():
                independent[:, there] = ica.fit_transform(projected[:, there])
        pixels = np.concatenate(list(_pixels(trainer, order[:most])))
        shown.update(total - shown.n)
    return {
        "random_codes": random_codes(untrained),
        "untrained": untrained,
        "pca": _instead(untrained, projected),
        "ica": _instead(untrained, independent),
        PIXELS: _first(untrained, pixels),
        "true_factors": true_factors(untrained),
    }


def _pixels(trainer: Trainer, order: np.ndarray, at_least: int = 1) -> Iterator[np.ndarray]:
    """Images by index as rows [images, pixels], in parts.

    Args:
        at_least: images in a part; a rest that is smaller is left out.
    """
    count, size = len(order), max(IMAGES_AT_ONCE, at_least)
    for start in range(0, count, size):
        # The last part is filled up with copies of its last image: one shape, one compile.
        indices = order[np.minimum(np.arange(start, start + size), count - 1)]
        images = np.asarray(trainer.images(indices))
        part = images.reshape(size, -1)[: min(size, count - start)]
        if len(part) >= at_least:
            yield part


def baseline_scores(
    sweep_dir: Path,
    seeds: Sequence[int],
    trainers: Trainers,
    config: Config,
    score: ScoreConfig,
    scores: Iterable[str],
    *,
    num_points: int,
    progress: bool = False,
) -> pd.DataFrame:
    """Scores of random codes, the untrained encoder of each seed, PCA, ICA, pixels and the factors.

    Kept in the sweep's directory, and read from there where the settings are the same. Metrics that
    spread a run's codes by their posteriors (jemmig, rmig) are another quantity of codes that are
    points: baselines have none of them beside runs with a posterior.

    Args:
        config: of one member: its data set, network and number of latents are taken.
        score: as of the members: on images of the same split.
        scores: columns that are wanted.
        num_points: images of each member that were encoded.

    Returns:
        Columns `baseline` and `scores`, nan where a baseline has none.
    """
    seeds, most = seeds[:MOST_SEEDS], score.train_points + score.test_points
    count = min(num_points, most)
    request = {
        "score": dataclasses.asdict(score),
        "seeds": list(seeds),
        "network": config.network,
        "latents": config.latents,
        "images": {name: getattr(config, name) for name in (*IMAGES, *SPLITS)},
        "versions": versions(PACKAGES),
        "points": "apart",
    }
    if own := {n: of for n in metric_names(score.metrics) if (of := source_of(n))}:
        request["sources"] = own
    if score.split != "all" or count < most:  # without it were all images, whatever was asked for
        request["num_points"] = count
    found = Answers(sweep_dir / FILE, single=True).kept(
        "", request, lambda: {"rows": _scored(seeds, trainers, config, score, count, progress)}
    )
    return pd.DataFrame(found["rows"]).reindex(columns=["baseline", *scores])


def _scored(
    seeds: Sequence[int],
    trainers: Trainers,
    config: Config,
    score: ScoreConfig,
    count: int,
    progress: bool,
) -> list[dict[str, Any]]:
    score = dataclasses.replace(score, permutations=0)
    trainer, split = trainers.of(config), score.split
    first = config.replace(seed=seeds[0])
    points = [*run_baselines(trainer, first, count, split=split, progress=progress).items()]
    for seed in seeds[1:]:
        params = trainer.init(config.replace(seed=seed)).params["vae"]
        encoded = encode_points(trainer, params, count, split=split)
        points.append(("untrained", codes_to_score(trainer, encoded, split)))
    names = metric_names(score.metrics)
    scored = functools.partial(_entries, names=names, score=score)
    rows = []
    with bar(total=len(points), desc="baselines", disable=not progress) as shown:
        for entries, (name, _) in zip(
            in_processes(scored, points, processes_for(names)), points, strict=True
        ):
            if not any(entries.get(PRUNING, {}).get("active", [True])):
                del entries[PRUNING]  # codes on too small a scale: 0 would say nothing of them
            if trainer.variational:
                entries = {n: e for n, e in entries.items() if POINTS not in e.get("notes", ())}
            rows.append({"baseline": name.replace("_", " "), **numbers(entries)})
            shown.update(1)
    return rows


def _entries(
    baseline: tuple[str, Codes], *, names: Sequence[str], score: ScoreConfig
) -> dict[str, Entry]:
    name, points = baseline
    wanted = [m for m in names if name != PIXELS or METRICS[m].pixels]
    settings = dataclasses.replace(score, metrics=",".join(wanted))
    return dict(score_all(points, settings)) if wanted else {}
