"""What is known of each setting without labels: how far its runs agree (UDR), KL, likelihood."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Array, Float
from threadpoolctl import threadpool_limits

from bvae_jax.errors import UserError
from bvae_jax.metrics.base import InvalidArrays, active, checked_codes
from bvae_jax.metrics.udr import udr
from bvae_jax.runtime import bar

Measure = Literal["lasso", "spearman"]
OTHER: dict[Measure, Measure] = {"lasso": "spearman", "spearman": "lasso"}
POINTS = 2_000
"""Images to compare runs on: which they are moves UDR by 0.002; a pair takes 10 ms."""
PARTNERS = 10
"""Runs that each run is compared with, if there are more. Duan et al. (2020) sample them too."""
USED = 2
"""Active latents, on average over runs, below which a setting is collapsed."""
OF_MEDIAN = 1.5
"""The variance of the median UDR over that of the mean of all pairs: 1.0 to 1.8 in simulations."""


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


def udr_variance(pairs: Float[np.ndarray, "run run"]) -> float:
    """The variance of the median UDR of runs with different seeds; nan of fewer than 3.

    The UDR of a pair is taken for a mean, a part of each of its two runs and a part of the pair, of
    which the variances s_run and s_pair are estimated as in an analysis of variance. The mean over
    all pairs then has 4 s_run / runs + s_pair / pairs, and the median `OF_MEDIAN` times as much.
    Three runs say nothing of s_pair, and all is put down to the runs. Resamples of the runs would
    count s_pair three times.

    In simulations, Student's t intervals by it hold the median in .95 to .99 of cases for 3, 4, 5
    and 10 runs, the most where s_run is 0.

    Args:
        pairs: as of `SettingEvidence`; each run has the same number of partners.
    """
    there = np.isfinite(pairs)
    runs, partners = len(pairs), there.sum(axis=1).max(initial=0)
    if runs < 3 or partners < 2:
        return math.nan
    mean, of_run = pairs[there].mean(), np.nanmean(pairs, axis=0)
    near = np.eye(runs) + there / partners  # the weights of runs in the mean of a run's pairs
    centred = np.eye(runs) - 1 / runs
    first, second = np.nonzero(np.triu(there))
    ends = np.eye(runs)[first] + np.eye(runs)[second]
    fitted, _, rank, _ = np.linalg.lstsq(ends, pairs[first, second] - mean)
    free = len(first) - int(rank)
    rest = pairs[first, second] - mean - ends @ fitted
    s_pair = float(rest @ rest) / free if free else 0.0
    per_run, per_pair = (np.trace(centred @ x @ centred) for x in (near @ near, near / partners))
    spread = np.square(of_run - of_run.mean()).sum() - per_pair * s_pair
    return OF_MEDIAN * (4 * max(spread / per_run, 0.0) / runs + s_pair / len(first))


def difference_variance(a: SettingEvidence, b: SettingEvidence, measure: Measure) -> float:
    """Of the difference of two settings' UDR: seed by seed, where these are the same."""
    if a.seeds == b.seeds:
        return udr_variance(a.pairs[measure] - b.pairs[measure])
    return udr_variance(a.pairs[measure]) + udr_variance(b.pairs[measure])


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
