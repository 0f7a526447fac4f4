"""The figures of a comparison."""

from collections.abc import Sequence
from math import nan
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bvae_jax.comparison.matching import WEAK, Crossed
from bvae_jax.comparison.reading import Comparison, is_metric
from bvae_jax.comparison.stability import (
    agreement,
    agreement_by_chance,
    setting_by_chance,
    variance_split,
)
from bvae_jax.comparison.statistics import ANY, FEWEST, Average, interval, wide
from bvae_jax.elbo import ACTIVE_NATS
from bvae_jax.plots import comparison as plots
from bvae_jax.plots import matrices as matrix_plots
from bvae_jax.plots.comparison import (
    Setting,
)
from bvae_jax.runs.grid import SYMBOLS
from bvae_jax.runs.loggers import curves

BASELINES = ("random codes", "untrained", "pca")
"""Those that figures show. The scores of the true factors are so high that beside them runs would
look all alike; they stand in the tables."""


class Drawn(NamedTuple):
    """A figure on disk, as PATH.png and PATH.pdf."""

    path: Path
    title: str
    caption: str


def as_settings(comparison: Comparison) -> list[Setting]:
    """With numbers, where one field varies and all its values are numbers."""
    labels = comparison.settings
    if len(comparison.varied) != 1:
        return [Setting(label, None) for label in labels]
    values: dict[str, Any] = dict(
        zip(comparison.members["setting"], comparison.members[comparison.varied[0]], strict=True)
    )
    if not all(isinstance(value, Real) for value in values.values()):
        return [Setting(label, None) for label in labels]
    return [Setting(label, float(values[label])) for label in labels if label in values]


def draw_comparison(
    comparison: Comparison, directory: Path, average: Average, crossed: Crossed | None
) -> list[Drawn]:
    """All figures for which there is something to show, as PNG and PDF.

    Args:
        crossed: matched traversals, if there are any.
    """
    trained = set(comparison.members["setting"])
    shown = [setting for setting in as_settings(comparison) if setting.label in trained]
    name = comparison.varied[0] if len(comparison.varied) == 1 else ""
    xlabel = SYMBOLS.get(name, name.replace("_", " ")) if name else "setting"
    drawn = [_scores(comparison, directory, shown, xlabel, average)]
    if comparison.kl_per_latent:  # not all are autoencoders
        drawn.insert(0, _rate_distortion(comparison, directory, shown))
        drawn.append(_spectrum(comparison, directory, shown, xlabel))
    if len(comparison.factor_scores):
        drawn.append(_factors(comparison, directory, shown, xlabel))
    metrics = list(filter(is_metric, comparison.scores))
    runs = len(comparison.members)
    if len(metrics) > 1 and runs >= FEWEST:
        path = directory / "metric_agreement"
        matrix_plots.save_agreement(path, agreement(comparison.members, metrics), runs)
        caption = (
            f"Spearman rank correlation of metrics over {runs} runs. Of {runs} independent runs "
            f"1 in 20 correlations is beyond ±{agreement_by_chance(runs):.2f}; runs of a setting "
            "are alike, so here even more are."
        )
        drawn.append(Drawn(path, "Agreement of metrics", caption))
    if len(shown) > 1 and len(set(comparison.members["seed"])) > 1:
        drawn.append(_variance(comparison, directory, xlabel))
    drawn.append(_curves(comparison, directory, shown))
    if crossed:
        path = directory / "matched_traversals"
        labels = [setting.label for setting in shown]
        matrix_plots.save_matched_traversals(
            path,
            crossed.images,
            crossed.labels,
            labels,
            crossed.values,
            crossed.notes,
            crossed.weak,
        )
        caption = (
            "One run of each setting, from the same image over the same range. Latents are matched "
            "across runs by their correlation r over the same images with the run that uses the "
            f"most (reference), and ordered by its KL; pairs with |r| below {WEAK} are grey: they "
            "need not be the same. Where r is negative the latent is turned round."
        )
        drawn.append(Drawn(path, "The same latents in every setting", caption))
    return drawn


def _rate_distortion(comparison: Comparison, directory: Path, settings: Sequence[Setting]) -> Drawn:
    path = directory / "rate_distortion"
    plots.save_rate_distortion(path, comparison.members, settings)
    caption = "Each dot is a run; grey lines join points of equal ELBO (Alemi et al., 2018)."
    return Drawn(path, "Rate and distortion", caption)


def _scores(
    comparison: Comparison,
    directory: Path,
    settings: Sequence[Setting],
    xlabel: str,
    average: Average,
) -> Drawn:
    path, labels = directory / "scores", [setting.label for setting in settings]
    intervals = {}
    for score in comparison.scores:
        frame = wide(comparison.members, score, labels)
        within = comparison.ranges.get(score, ANY)
        numbers = [frame[label].to_numpy(float) for label in labels]
        found = [interval(values, average=average, within=within) for values in numbers]
        intervals[score] = [
            (each.center, each.low, each.high) if each.n >= FEWEST else (each.center, nan, nan)
            for each in found
        ]
    rows: Any = comparison.baselines
    means = {name: rows[rows["baseline"] == name] for name in BASELINES}
    baselines = {
        name: {score: float(found[score].mean()) for score in comparison.scores}
        for name, found in means.items()
        if len(found)
    }
    plots.save_scores(path, comparison.members, settings, intervals, baselines, xlabel)
    caption = (
        f"Every run, the {average} over seeds with its 95 % interval (of {FEWEST} seeds or more); "
        "random codes, untrained encoders and PCA as lines. The other baselines stand in the table."
    )
    return Drawn(path, f"Scores against {xlabel}", caption)


def _spectrum(
    comparison: Comparison, directory: Path, settings: Sequence[Setting], xlabel: str
) -> Drawn:
    path, known = directory / "kl_spectrum", comparison.kl_per_latent
    runs = {
        setting.label: [known[name] for name in _of(comparison, setting) if name in known]
        for setting in settings
    }
    kl = {label: np.stack(found) for label, found in runs.items() if len({*map(len, found)}) == 1}
    plots.save_kl_spectrum(path, kl, settings, xlabel, ACTIVE_NATS)
    caption = "KL of each run's latents in order of size: which latents die when."
    return Drawn(path, "Latents in use", caption)


def _of(comparison: Comparison, setting: Setting) -> list[str]:
    """Members of a setting."""
    labels: dict[Any, Any] = dict(comparison.members["setting"])
    return [str(name) for name, label in labels.items() if label == setting.label]


def _factors(
    comparison: Comparison, directory: Path, settings: Sequence[Setting], xlabel: str
) -> Drawn:
    path = directory / "factors"
    shares = comparison.factor_scores.assign(setting=comparison.members["setting"])
    ylabel = "I(z; v) / H(v) of the best latent"
    plots.save_factor_scores(path, shares, settings, xlabel, ylabel)
    caption = "Share of each factor's entropy that one latent knows: which factor is lost first."
    return Drawn(path, "Factors", caption)


def _variance(comparison: Comparison, directory: Path, xlabel: str) -> Drawn:
    path = directory / "variance"
    frames = {s: wide(comparison.members, s, comparison.settings) for s in comparison.scores}
    shares = {score: variance_split(frame) for score, frame in frames.items()}
    limits = [setting_by_chance(frame)[1] for frame in frames.values()]
    frame = pd.DataFrame.from_dict(shares, orient="index")
    matrix_plots.save_variance_split(path, frame.rename(columns={"setting": xlabel}), limits)
    caption = (
        "Sums of squares of a two-way analysis without replication, over common seeds. Up to the "
        f"mark the share of {xlabel} is what noise alone gives in 19 of 20 cases."
    )
    return Drawn(path, f"{xlabel} or seed", caption)


def _curves(comparison: Comparison, directory: Path, settings: Sequence[Setting]) -> Drawn:
    path = directory / "learning_curves"
    runs = {
        setting.label: [curves(comparison.records[name]) for name in _of(comparison, setting)]
        for setting in settings
    }
    plots.save_learning_curves(path, runs, settings)
    caption = (
        "Lines: training batches, thin of each seed, thick their mean. Dots: training and held-out "
        "images, evaluated with the same parameters."
    )
    return Drawn(path, "Learning curves", caption)
