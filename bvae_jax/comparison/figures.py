"""The figures of a comparison."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bvae_jax.comparison.base import LEADING, Comparison, is_metric, name_of, title_of
from bvae_jax.comparison.findings import SHARES, ScoreStatistics, kept, kept_in_words, numbered
from bvae_jax.comparison.matching import WEAK, Crossed
from bvae_jax.comparison.seeds import POWER, power_curve, share_band
from bvae_jax.comparison.statistics import (
    ANY,
    FEWEST,
    Average,
    Range,
    agreement,
    agreement_by_chance,
    interval,
    wide,
)
from bvae_jax.comparison.tables import AVERAGE_NAMES
from bvae_jax.plots import comparison as plots
from bvae_jax.plots import matrices
from bvae_jax.plots.comparison import Setting
from bvae_jax.plots.run import save_image_grid
from bvae_jax.runs.grid import symbol
from bvae_jax.runs.loggers import curves

BASELINES = ("random codes", "untrained", "pca")
"""Baselines in the figures. The true factors score so high that all runs would look alike beside
them; they are in the tables."""


class Drawn(NamedTuple):
    """A figure on disk, as PATH.png and PATH.pdf."""

    path: Path
    title: str
    caption: str

    @property
    def files(self) -> tuple[Path, Path]:
        """The PNG and the PDF."""
        return self.path.with_suffix(".png"), self.path.with_suffix(".pdf")


def as_settings(comparison: Comparison) -> list[Setting]:
    """Settings that have members; with numbers where one field varies and has numbers only."""
    members: Any = comparison.members
    values = dict.fromkeys(members["setting"])
    if numbered(comparison):
        fields = members[comparison.varied[0]].astype(float)
        values = dict(zip(members["setting"], fields, strict=True))
    return [Setting(label, values[label]) for label in comparison.settings if label in values]


def draw_comparison(
    comparison: Comparison,
    statistics: Mapping[str, ScoreStatistics],
    directory: Path,
    average: Average,
    columns: Sequence[str],
    crossed: Crossed | None,
    pictures: np.ndarray | None = None,
) -> list[Drawn]:
    """All figures for which there is something to show, as PNG and PDF.

    Args:
        statistics: of the comparison's scores.
        columns: scores that have a figure of their own.
        crossed: matched traversals, if there are any.
        pictures: images in a row, and below them the reconstructions of a run of each setting.
    """
    xlabel = symbol(comparison.varied[0]) if len(comparison.varied) == 1 else "setting"
    settings = as_settings(comparison)
    figures = _Figures(comparison, statistics, directory, average, settings, xlabel)
    return list(figures.draw(columns, crossed, pictures))


@dataclass(frozen=True)
class _Figures:
    """What all figures of a comparison have in common.

    Attributes:
        xlabel: what settings differ in.
    """

    comparison: Comparison
    statistics: Mapping[str, ScoreStatistics]
    directory: Path
    average: Average
    settings: list[Setting]
    xlabel: str

    def draw(
        self, columns: Sequence[str], crossed: Crossed | None, pictures: np.ndarray | None
    ) -> Iterator[Drawn]:
        """One after another, in the order of the report."""
        comparison = self.comparison
        metrics = list(filter(is_metric, comparison.scores))
        if comparison.kl_per_latent:  # not all are autoencoders
            yield self.rate_distortion()
        yield self.scores("scores", columns)
        if set(comparison.scores) - set(columns):
            yield self.scores("all_scores", comparison.scores)
        if "nll_excluded" in comparison.members:
            yield self.generalisation()
        if "entanglement" in comparison.scores:
            yield self.correlation()
        if comparison.kl_per_latent:
            yield self.spectrum()
        if len(comparison.factor_scores):
            yield self.factors()
        if len(metrics) > 1 and len(comparison.members) >= FEWEST:
            yield self.agreement(metrics)
        if len(self.settings) > 1 and comparison.members["setting"].duplicated().any():
            yield self.variance()
            yield from self.what_seeds_tell()
        yield self.learning_curves()
        if crossed:
            yield self.traversals(crossed)
        if pictures is not None:
            yield self.reconstructions(pictures)

    def members_of(self, setting: Setting) -> list[str]:
        """Names of a setting's members."""
        members: Any = self.comparison.members
        return [str(name) for name in members.index[members["setting"] == setting.label]]

    def rate_distortion(self) -> Drawn:
        path = self.directory / "rate_distortion"
        members: Any = self.comparison.members
        families = [self.settings]
        if set(self.comparison.varied) == {"beta", "multi_rate"}:
            values = members.groupby("setting")[["beta", "multi_rate"]].first()
            beta, many = values["beta"].to_dict(), values["multi_rate"].to_dict()
            numbered = [s._replace(value=float(beta[s.label])) for s in self.settings]
            families = [
                [s for s in numbered if many[s.label] == which]
                for which in sorted(set(many.values()))  # "" first: one β each
            ]
        plots.save_rate_distortion(path, members, *families)
        caption = "Each dot is a run; grey lines join points of equal ELBO (Alemi et al., 2018)."
        if len(families) > 1:
            caption += " Squares: runs for many β."
        return Drawn(path, "Rate and distortion", caption)

    def intervals(
        self, rows: pd.DataFrame, column: str, within: Range, average: Average = "mean"
    ) -> list[tuple[float, float, float]]:
        """Centre and ends for each setting; of few seeds there are no ends."""
        frame = wide(rows, column, [setting.label for setting in self.settings])
        found = [interval(frame[s].to_numpy(float), average=average, within=within) for s in frame]
        return [
            (each.center, *((each.low, each.high) if each.n >= FEWEST else (nan, nan)))
            for each in found
        ]

    def scores(self, name: str, scores: Sequence[str]) -> Drawn:
        path, comparison = self.directory / name, self.comparison
        members, ranges = comparison.members, comparison.ranges
        intervals = {
            score: self.intervals(members, score, ranges.get(score, ANY), self.average)
            for score in scores
        }
        rows: Any = comparison.baselines
        means = {name: rows[rows["baseline"] == name] for name in BASELINES}
        baselines = {
            name_of(name): {s: float(found[s].mean()) for s in scores if s in found}
            for name, found in means.items()
            if len(found)
        }
        titles = {score: title_of(score, comparison.better.get(score, "")) for score in scores}
        plots.save_scores(
            path, members, self.settings, intervals, baselines, self.xlabel, titles,
            AVERAGE_NAMES[self.average].lower(),
        )  # fmt: skip
        caption = (
            f"Every run, the {self.average} over seeds with its 95 % interval (of {FEWEST} seeds "
            "or more)."
        )
        if baselines:
            caption += f" As lines: {', '.join(baselines)}; the other baselines are in the table."
        every = "All scores" if name == "all_scores" else "Scores"
        return Drawn(path, f"{every} against {self.xlabel}", caption)

    def generalisation(self) -> Drawn:
        """Training images, excluded combinations, and what lies between them."""
        columns = [f"{n}_{of}" for n in ("nll", "mse") for of in ("train", "excluded", "gap")]
        drawn = self.scores("generalisation", columns)
        caption = (
            "Training images, combinations that --exclude kept from training, and the difference: "
            "of the negative log-likelihood (nats per image) and of the mean squared error."
        )
        return drawn._replace(title="Held-out combinations", caption=caption)

    def correlation(self) -> Drawn:
        """Correlated draws beside all images alike, the correlated pair beside other pairs."""
        columns = ("nll_correlated", "nll_all", "mig_correlated", "mig", "entanglement",
                   "entanglement_others")  # fmt: skip
        there = [name for name in columns if name in self.comparison.members]
        drawn = self.scores("correlation", there)
        caption = (
            "Images as --correlate draws them and all images alike. Entanglement: the share of "
            "each of two factors' information that lies in one latent or in latents that hang "
            "together (as in Träuble et al., 2021); of the correlated pair, and the median of the "
            "other pairs."
        )
        return drawn._replace(title="Correlated factors", caption=caption)

    def spectrum(self) -> Drawn:
        path, known = self.directory / "kl_spectrum", self.comparison.kl_per_latent
        kl = {}
        for setting in self.settings:
            found = [known[name] for name in self.members_of(setting) if name in known]
            if len({*map(len, found)}) == 1:
                kl[setting.label] = np.stack(found)
        plots.save_kl_spectrum(path, kl, self.settings, self.xlabel)
        caption = (
            "KL of each run's latents in order of size: which the cost of the KL silences first."
        )
        return Drawn(path, "KL of each latent", caption)

    def factors(self) -> Drawn:
        path, comparison = self.directory / "factors", self.comparison
        shares = comparison.factor_scores.assign(setting=comparison.members["setting"])
        ylabel = "I(z; v) / H(v) of the best latent"
        intervals = {
            factor: self.intervals(shares.assign(seed=comparison.members["seed"]), factor, SHARES)
            for factor in comparison.factor_scores.columns
        }
        plots.save_factor_scores(path, shares, self.settings, self.xlabel, ylabel, intervals)
        caption = "Share of each factor's entropy that the best latent knows, mean over seeds"
        banded = len(set(comparison.members["seed"])) >= FEWEST
        caption += f" with its 95 % interval (of {FEWEST} seeds or more)." if banded else "."
        said = kept_in_words(kept(comparison), comparison.varied[0]) if comparison.varied else ""
        caption = " ".join(filter(None, [said, caption]))
        return Drawn(path, "Factors", caption)

    def agreement(self, metrics: list[str]) -> Drawn:
        path, runs = self.directory / "metric_agreement", len(self.comparison.members)
        found = agreement(self.comparison.members, metrics)
        found = found.rename(index=name_of, columns=name_of)
        matrices.save_agreement(path, found, runs)
        caption = (
            f"Spearman rank correlation of metrics over {runs} runs. Of {runs} independent runs "
            f"1 in 20 correlations is beyond ±{agreement_by_chance(runs):.2f}; runs of a setting "
            "are alike, so here even more are."
        )
        return Drawn(path, "Agreement of metrics", caption)

    def variance(self) -> Drawn:
        path = self.directory / "variance"
        shares = {name_of(score): found.variance for score, found in self.statistics.items()}
        limits = [found.by_chance[1] for found in self.statistics.values()]
        frame = pd.DataFrame.from_dict(shares, orient="index")
        matrices.save_variance_split(path, frame.rename(columns={"setting": self.xlabel}), limits)
        caption = (
            "Sums of squares of a two-way analysis without replication, over common seeds. Up to "
            f"the mark the share of {self.xlabel} is what noise alone gives in 19 of 20 cases."
        )
        return Drawn(path, f"{self.xlabel} or seed", caption)

    def what_seeds_tell(self) -> Iterator[Drawn]:
        """Of the leading scores, how runs are spread, and how many seeds tell settings apart."""
        runs, bands, curves = {}, {}, {}
        for score in LEADING:
            if score not in self.statistics:
                continue
            found = self.statistics[score]
            frame = wide(self.comparison.members, score, [s.label for s in self.settings])
            groups = [frame[s].dropna().to_numpy(float) for s in frame]
            if sum(map(len, groups)) > 1:
                title = title_of(score, found.better)
                runs[title] = groups
                bands[title] = [share_band(g) if len(g) >= FEWEST else None for g in groups]
                if needed := found.seeds:
                    curves[f"{title}: {needed.best} and {needed.next}"] = power_curve(needed)
        if runs:
            path = self.directory / "profiles"
            matrices.save_profiles(path, runs, self.settings, bands)
            caption = (
                "Share of each setting's runs whose score is above a value (Agarwal et al., 2021)"
            )
            banded = any(band is not None for of in bands.values() for band in of)
            caption += f"; bands are 95 % intervals (of {FEWEST} seeds or more)." if banded else "."
            yield Drawn(path, "Performance profiles", caption)
        if curves:
            path = self.directory / "seeds_needed"
            matrices.save_power(path, curves, POWER)
            caption = (
                "The probability that a t test (α = 0.05) tells the best setting from the next, if "
                "the effect of all seeds is the one that was seen; the band is from the effect's "
                f"95 % interval. Line: {POWER:g}. Corrections for other pairs would take more."
            )
            yield Drawn(path, "How many seeds", caption)

    def learning_curves(self) -> Drawn:
        path, records = self.directory / "learning_curves", self.comparison.records
        runs = {s.label: [curves(records[n]) for n in self.members_of(s)] for s in self.settings}
        plots.save_learning_curves(path, runs, self.settings)
        caption = (
            "Lines: training batches, thin of each seed, thick their mean. Dots: training and "
            "held-out images, evaluated with the same parameters."
        )
        return Drawn(path, "Learning curves", caption)

    def traversals(self, crossed: Crossed) -> Drawn:
        path, labels = self.directory / "matched_traversals", [s.label for s in self.settings]
        matrices.save_matched_traversals(
            path, crossed.images, crossed.labels, labels, crossed.values, crossed.notes,
            crossed.weak,
        )  # fmt: skip
        caption = (
            "One run of each setting, from the same image over the same range. Latents are matched "
            "across runs by their correlation r over the same images with the run that uses the "
            f"most (reference), and ordered by its KL; pairs with |r| below {WEAK} are grey: they "
            "need not be the same. Where r is negative the latent is turned round."
        )
        return Drawn(path, "The same latents in every setting", caption)

    def reconstructions(self, pictures: np.ndarray) -> Drawn:
        path = self.directory / "reconstructions"
        labels = [setting.label.replace(", ", ",\n") for setting in self.settings]
        save_image_grid(path, pictures, row_labels=["image", *labels])
        caption = "Images, and what one run of each setting makes of them."
        return Drawn(path, "Reconstructions", caption)
