"""What is known of each setting without labels: how far its runs agree (UDR), KL, likelihood; and
how far a result reaches."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Shaped
from scipy import special, stats
from threadpoolctl import threadpool_limits

from bvae_jax.comparison.statistics import DECIMALS, SIGNS, with_numbers
from bvae_jax.errors import UserError
from bvae_jax.metrics.base import InvalidArrays, active, checked_codes
from bvae_jax.metrics.udr import udr
from bvae_jax.runs.loggers import Record
from bvae_jax.runtime import bar

Measure = Literal["lasso", "spearman"]
OTHER: dict[Measure, Measure] = {"lasso": "spearman", "spearman": "lasso"}
POINTS = 2_000
"""Images to compare runs on: which they are moves UDR by 0.002; a pair takes 10 ms."""
PARTNERS = 10
"""Runs that each run is compared with, if there are more. Duan et al. (2020) sample them too."""
USED = 2
"""Active latents, on average over runs, below which a setting is collapsed."""
RESAMPLES = 500


class SettingEvidence(NamedTuple):
    """What is known of a setting without labels, by run, in the order of their seeds.

    Attributes:
        values: of what settings differ in, by name.
        pairs: measure -> [run, run], the UDR of each run (column) by each other (row); nan where
            two were not compared.
        rate: mean KL of each run, nats; nan of autoencoders, and so is `elbo`.
        distortion: mean negative log-likelihood of each run, nats.
        elbo: of each run, nats.
        active: how many latents of each run are (`metrics.base.active`).
        latents: in all.
    """

    setting: str
    values: Mapping[str, Any]
    seeds: tuple[int, ...]
    pairs: Mapping[Measure, Float[np.ndarray, "run run"]]
    rate: Float[np.ndarray, " run"]
    distortion: Float[np.ndarray, " run"]
    elbo: Float[np.ndarray, " run"]
    active: Float[np.ndarray, " run"]
    latents: int

    @property
    def n(self) -> int:
        """Runs."""
        return len(self.seeds)

    @property
    def udr_lasso(self) -> Float[np.ndarray, " run"]:
        """Of each run the median over its partners; nan for a run without one."""
        return _median(self.pairs["lasso"], axis=0)

    @property
    def udr_spearman(self) -> Float[np.ndarray, " run"]:
        """The same with rank correlations."""
        return _median(self.pairs["spearman"], axis=0)

    @property
    def collapsed(self) -> bool:
        """Its latents are too few for their agreement to mean anything."""
        return bool(self.active.mean() < USED)

    def udr(self, measure: Measure) -> float:
        """Median over the runs; nan if there is one run."""
        return float(_median(_median(self.pairs[measure], axis=0), axis=0))


def gather(
    codes: Mapping[str, Float[Array | np.ndarray, "n _"]],
    kl_per_latent: Mapping[str, np.ndarray],
    members: pd.DataFrame,
    *,
    settings: Sequence[str],
    varied: Sequence[str] = (),
    progress: bool = False,
) -> list[SettingEvidence]:
    """Compare the runs of each setting with each other, in the order of `settings`.

    Up to `PARTNERS` + 1 runs are compared each with each, more of them with a fixed random choice
    of `PARTNERS` others.

    Args:
        codes: member -> [n, latent] posterior means of the same images in the same order;
            `POINTS` images are enough.
        kl_per_latent: member -> [latent], nats; without autoencoders, which have none.
        members: a row for each, by its name; columns `setting`, `seed`, `nll` and, where there is
            a posterior, `kl` and `elbo`.
        settings: their labels; those without members are left out.
        varied: columns of `members` for what settings differ in.
        progress: show a bar.

    Raises:
        UserError: codes are not finite, or two runs of a setting have the same seed.

    Duan et al., 2020, "Unsupervised model selection for variational disentangled representation
    learning", section 4.
    """
    rows = members.sort_values(by="seed").to_dict("index")
    evidence = []
    total = sum(len(_pairs(int(runs))) for runs in members["setting"].value_counts())
    with bar(total=total, desc="compare", unit=" pairs", disable=not (progress and total)) as shown:
        for setting in settings:
            runs = {str(name): row for name, row in rows.items() if row["setting"] == setting}
            if runs:
                z = [_finite(codes[name], name) for name in runs]
                kls = [kl_per_latent.get(name) for name in runs]
                values = {name: next(iter(runs.values()))[name] for name in varied}
                evidence.append(_of_setting(setting, values, list(runs.values()), z, kls))
                shown.update(len(_pairs(len(runs))))
    return evidence


def resampled_udr(
    evidence: Sequence[SettingEvidence], measure: Measure
) -> dict[str, Float[np.ndarray, " resample"]]:
    """The UDR of each setting when seeds are drawn with replacement, the same for all settings."""
    seeds = sorted({seed for e in evidence for seed in e.seeds})
    draws = np.random.default_rng(0).integers(len(seeds), size=(RESAMPLES, len(seeds)))
    found = {}
    for e in evidence:
        own = np.searchsorted(seeds, e.seeds)
        pairs = np.full((len(seeds), len(seeds)), np.nan)
        pairs[np.ix_(own, own)] = e.pairs[measure]
        drawn = pairs[draws[:, :, None], draws[:, None, :]]
        found[e.setting] = _median(_median(drawn, axis=-2), axis=-1)
    return found


def _of_setting(
    setting: str,
    values: Mapping[str, Any],
    rows: Sequence[Mapping[Any, Any]],
    codes: Sequence[np.ndarray],
    kls: Sequence[np.ndarray | None],
) -> SettingEvidence:
    seeds = tuple(int(row["seed"]) for row in rows)
    if len(set(seeds)) < len(seeds):
        raise UserError(
            f"{setting}: got runs of seeds {', '.join(map(str, seeds))}, wanted one run for "
            "each seed: a run always agrees with itself. Leave the others out."
        )
    return SettingEvidence(
        setting=setting,
        values=values,
        seeds=seeds,
        pairs=_compare(codes, kls),
        rate=np.array([row.get("kl", np.nan) for row in rows], np.float64),
        distortion=np.array([row["nll"] for row in rows], np.float64),
        elbo=np.array([row.get("elbo", np.nan) for row in rows], np.float64),
        active=np.array([active(*pair).sum() for pair in zip(codes, kls, strict=True)], float),
        latents=codes[0].shape[1],
    )


def _finite(codes: Any, member: str) -> np.ndarray:
    try:
        return checked_codes(codes, f"codes of {member}")
    except InvalidArrays as error:
        raise UserError(f"{error} Leave the run out.") from None


def _pairs(runs: int) -> list[tuple[int, int]]:
    """Pairs of runs to compare, such that each run has the same number of partners."""
    if runs <= PARTNERS + 1:
        return list(itertools.combinations(range(runs), 2))
    circle = np.random.default_rng(0).permutation(runs).tolist()
    steps = range(1, PARTNERS // 2 + 1)  # partners are the nearest on the circle
    return [(circle[i], circle[(i + step) % runs]) for i in range(runs) for step in steps]


def _compare(
    codes: Sequence[np.ndarray], kls: Sequence[np.ndarray | None]
) -> dict[Measure, np.ndarray]:
    empty = np.full((len(codes), len(codes)), np.nan)
    pairs: dict[Measure, np.ndarray] = {measure: empty.copy() for measure in OTHER}
    with threadpool_limits(limits=1):  # no score depends on the number of cores
        for i, j in _pairs(len(codes)):
            two, kl = [codes[i], codes[j]], [kls[i], kls[j]]
            for measure in OTHER:
                found = udr(two, kl, similarity=measure)
                pairs[measure][np.ix_([i, j], [i, j])] = found["pairs"]
    return pairs


def _median(values: np.ndarray, axis: int) -> np.ndarray:
    """Of those that are not nan; nan if none is, where NumPy's is slow to warn."""
    known = np.count_nonzero(~np.isnan(values), axis=axis, keepdims=True)
    ordered = np.sort(values, axis=axis)  # nan come last
    middle = [np.take_along_axis(ordered, k, axis) for k in ((known - 1) // 2, known // 2)]
    return np.mean(middle, axis=0).squeeze(axis)


# How far a result reaches: to different seeds, to different scores, to more steps.
#
# Frames are as in statistics.py.

SOURCES = ("setting", "seed", "rest")
RISE = 0.005
"""Share of the ELBO: training is not at its end if its last tenth still adds more than this."""


class RankStability(NamedTuple):
    """How the ranking of settings changes when seeds are resampled.

    Attributes:
        best_share: setting -> share of resamples in which it is best; ties share it.
        mean_rank: setting -> its mean rank; 1 is best.
        kendall: mean Kendall's tau-b between the ranking of a resample and that of all seeds.
    """

    best_share: dict[str, float]
    mean_rank: dict[str, float]
    kendall: float


def rank_stability(frame: pd.DataFrame, better: str, *, resamples: int = 2000) -> RankStability:
    """Rank settings by their means over seeds drawn with replacement, the same for all settings.

    Settings without a number are left out, and so are resamples in which a setting has none; where
    that leaves nothing, all is nan.

    Args:
        better: "high" or "low".
    """
    frame = with_numbers(frame)
    values, names = frame.to_numpy() * SIGNS[better], [str(name) for name in frame]
    seeds, unknown = len(values), dict.fromkeys(names, math.nan)
    if not seeds:
        return RankStability(unknown, unknown, math.nan)
    times = np.random.default_rng(0).multinomial(seeds, [1 / seeds] * seeds, resamples)
    averages = _averages(times, values)
    averages = averages[~np.isnan(averages).any(axis=1)]
    if not len(averages):
        return RankStability(unknown, unknown, math.nan)
    best = averages == averages.max(axis=1, keepdims=True)
    shares = (best / best.sum(axis=1, keepdims=True)).mean(axis=0).tolist()
    ranks = stats.rankdata(-averages, axis=1).mean(axis=0).tolist()
    tau = _kendall(averages, _averages(np.ones((1, seeds)), values)[0])
    return RankStability(
        best_share=dict(zip(names, shares, strict=True)),
        mean_rank=dict(zip(names, ranks, strict=True)),
        kendall=float(tau.mean()) if len(tau) else math.nan,
    )


def variance_split(frame: pd.DataFrame) -> dict[str, float]:
    """Shares of the sum of squares: of the setting, of the seed, and the rest.

    Two-way analysis of variance without replication, on the seeds that all settings have; settings
    without a number are left out. Where settings differ by chance alone, the share of k settings is
    (k - 1) / (k n - 1) on average, so it is not 0 with a few seeds n.

    Returns:
        `setting`, `seed` and `rest`, with sum 1; nan with one setting, one seed or one value.
    """
    x = with_numbers(frame).dropna().to_numpy()
    if min(x.shape) < 2 or np.ptp(x) == 0:
        return dict.fromkeys(SOURCES, math.nan)
    x = x - x.mean()
    setting, seed = x.mean(axis=0, keepdims=True), x.mean(axis=1, keepdims=True)
    parts = np.broadcast_arrays(setting, seed, x - setting - seed)
    squares = [float(np.square(part).sum()) for part in parts]
    return {name: square / sum(squares) for name, square in zip(SOURCES, squares, strict=True)}


def setting_by_chance(frame: pd.DataFrame) -> tuple[float, float]:
    """The share of the setting in `variance_split` where neither settings nor seeds differ.

    Beta((k - 1) / 2, k (n - 1) / 2) of k settings and n seeds, if numbers are normal.

    Returns:
        Its mean, and what it exceeds in 5 % of cases; nan where there is no split.
    """
    n, k = with_numbers(frame).dropna().shape
    if min(n, k) < 2:
        return math.nan, math.nan
    a, b = (k - 1) / 2, k * (n - 1) / 2
    return a / (a + b), float(special.betaincinv(a, b, 0.95))


def agreement_by_chance(runs: int) -> float:
    """The size that Spearman's correlation of `runs` independent pairs exceeds in 5 % of cases.

    By permutations; 1 where there are too few to exceed anything.
    """
    drawn = np.random.default_rng(0).permuted(np.tile(np.arange(runs), (20_000, 1)), axis=1)
    ranks = np.arange(runs) - (runs - 1) / 2
    sizes = np.abs((drawn - drawn.mean(axis=1, keepdims=True)) @ ranks) / np.square(ranks).sum()
    return float(np.quantile(sizes, 0.95))


def rise_at_end(records: Sequence[Record]) -> tuple[float, bool]:
    """By how many nats the ELBO of training batches rose from the last tenth but one to the last.

    Returns:
        The rise, 0 where that is no more than `RISE` of the ELBO and nan where one record cannot
        say; and whether it is from the last record but one to the last, as tenths have none.
    """
    found = [(r["step"], r["elbo"]) for r in records if r["split"] == "train" and "elbo" in r]
    steps, elbo = np.array(found, float).reshape(-1, 2).T
    share = steps / steps.max(initial=1)
    before, last = elbo[(share > 0.8) & (share <= 0.9)], elbo[share > 0.9]
    few = not before.size
    if few:
        before, last = elbo[-2:-1], elbo[-1:]
    if not np.isfinite([*before, *last]).all() or not last.size:
        return 0.0, few
    if not before.size:
        return math.nan, few
    rise = float(last.mean() - before.mean())
    return rise if rise > RISE * abs(last.mean()) else 0.0, few


def agreement(members: pd.DataFrame, scores: Sequence[str]) -> pd.DataFrame:
    """Spearman's rank correlations between scores, each over the members that have both.

    Returns:
        Scores by scores; nan where one of the two does not vary.
    """
    return members.reindex(columns=list(scores)).astype(float).corr(method="spearman")


def _averages(
    times: Shaped[np.ndarray, "resample seed"], values: Float[np.ndarray, "seed setting"]
) -> Float[np.ndarray, "resample setting"]:
    """Means of what is there, each seed counted `times`; nan where nothing is."""
    counts = times @ np.isfinite(values).astype(float)
    sums = times @ np.nan_to_num(values)
    means = np.divide(sums, counts, out=np.full_like(sums, math.nan), where=counts > 0)
    return means.round(DECIMALS)


def _kendall(
    rankings: Float[np.ndarray, "resample setting"], reference: Float[np.ndarray, " setting"]
) -> Float[np.ndarray, " some"]:
    """Tau-b of each ranking with the reference; those that are all ties have none."""
    first, second = np.triu_indices(len(reference), 1)
    found = np.sign(rankings[:, first] - rankings[:, second])
    wanted = np.sign(reference[first] - reference[second])
    norms = np.sqrt(np.square(found).sum(axis=1) * np.square(wanted).sum())
    return (found @ wanted)[norms > 0] / norms[norms > 0]
