"""InfoM, InfoC, InfoE: modularity, compactness and explicitness in nats over nats."""

from typing import Literal

import numpy as np
from sklearn.feature_selection import mutual_info_classif
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from bvae_jax.continuous import Numbers, targets
from bvae_jax.metrics.base import (
    Metric,
    alone,
    checked,
    entropies,
    for_each,
    generator,
    mean,
    mutual_information,
    ratio,
    varying,
)
from bvae_jax.metrics.regression import explained_variance, nearest_information
from bvae_jax.types import CodeMatrix, Factors, PRNGKey, Score

PER_VALUE = 20
"""Points for each value of a latent, on average, from which on it is quantised."""
LITTLE = 0.05
"""Of a factor's information, below which the shares of latents in it mean nothing."""


def infomec(
    codes: CodeMatrix,
    factors: Factors,
    key: PRNGKey,
    numbers: Numbers | None = None,
    *,
    neighbours: int = 10,
    pruning: Literal["range", "interquartile"] = "range",
    counted: bool = True,
) -> Score:
    """InfoM and InfoC from nearest-neighbour information, InfoE from logistic regression.

    With N[j, k] = I(z_j; v_k) / H(v_k), estimated from nearest neighbours:

    - InfoM: mean over latents of (max_k N / sum_k N - 1/K) / (1 - 1/K), K factors.
    - InfoC: mean over factors of (max_j N / sum_j N - 1/L) / (1 - 1/L), L active latents.
    - InfoE: mean over factors of (L0 - L) / L0, where L is the loss of a multinomial logistic
      regression without penalty on all latents, with balanced classes, and L0 that without latents.

    Latents that vary much less than the one that varies most are left out of InfoM and InfoC.
    InfoM needs two factors, InfoC two active latents; without any active latent both are 0.

    A quantised latent, with at least 20 points to a value, is the authors' discrete one: its
    information is that of counts, it takes part if it varies at all (where pruning is by range),
    and the regression has an input for each of its values.

    A number: N is 1 - exp(-2 I), with I from nearest neighbours of its values (with a period, round
    the circle), for a number has no entropy to divide by: it is the squared correlation of two
    Gaussians (Linfoot, 1957). InfoE is the share of the variance that least squares explain (with a
    period, of the angle's cosine and sine).

    Args:
        codes: [n, latent].
        factors: [n, factor] class indices.
        key: of the tiny noise that breaks ties among equal codes.
        numbers: values of factors that are numbers, in place of their classes.
        neighbours: of the information estimate.
        pruning: "range" leaves out latents whose range is not above 1/20 of the largest range;
            "interquartile" those whose interquartile range is not above 1/10 of the largest, as in
            Hsu et al., 2024 (Tripod).
        counted: take quantised latents so; otherwise as all others.

    Returns:
        `infom`, `infoc`, `infoe` in [0, 1]; `active` [latent] bool; `normalised_information`
        [latent, factor], nan for latents that were left out; `infoe_per_factor` [factor]; `notes`.

    Raises:
        ValueError: arrays that do not fit or are not finite.

    Hsu, Dorrell, Whittington, Wu & Finn, 2023, "Disentanglement via latent quantization",
    section 4.
    """
    codes, factors = checked(codes, factors)
    if pruning == "range":
        reach, share = np.ptp(codes, axis=0), 1 / 20
    elif pruning == "interquartile":
        reach, share = np.subtract(*np.quantile(codes, (0.75, 0.25), axis=0)), 1 / 10
    else:
        raise ValueError(f"pruning: got {pruning!r}, wanted range or interquartile.")
    values = np.array([len(np.unique(one)) for one in codes.T])
    quantised = counted & (len(codes) >= PER_VALUE * values)
    kept = quantised if pruning == "range" else np.zeros_like(quantised)
    active = (kept | (reach > share * reach.max())) & varying(codes)
    z = codes[:, active]
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    seed = int(generator(key).integers(2**31))
    # A value with one point has no neighbour; a factor needs values with more, and two of them.
    counts = [np.unique(column, return_counts=True)[1] for column in factors.T]
    several = [len(count) > 1 and bool(count.max() > 1) for count in counts]
    own = targets(numbers)
    for k in own:
        several[k] = len(counts[k]) > 1
    matrix = np.full((codes.shape[1], factors.shape[1]), np.nan)

    def nearest(k: int) -> np.ndarray:
        if k in own:
            rng = np.random.default_rng(seed)
            nats = [nearest_information(code, own[k], neighbours, rng) for code in z.T]
            return -np.expm1(-2 * np.array(nats))
        return mutual_info_classif(
            z,
            factors[:, k],
            discrete_features=False,  # pyright: ignore[reportArgumentType]
            n_neighbors=neighbours,
            random_state=seed,
        )

    if active.any() and any(several):
        columns = [k for k, is_several in enumerate(several) if is_several]
        found = for_each(nearest, columns)
        scale = entropies(factors)
        scale[list(own)] = 1.0
        matrix[np.ix_(active, columns)] = np.stack(found, axis=1) / scale[columns]
        rows, counting = np.flatnonzero(active & quantised), [k for k in columns if k not in own]
        classes = [np.unique(codes[:, j], return_inverse=True)[1].ravel() for j in rows]
        if classes and counting:
            nats = mutual_information(np.stack(classes, axis=1), factors[:, counting])
            matrix[rows[:, None], counting] = nats / scale[counting]
    known = matrix[active][:, several]
    explicit = np.full(factors.shape[1], np.nan)
    is_class = [k for k, is_several in enumerate(several) if is_several and k not in own]
    explicit[is_class] = _explicitness(codes, quantised, factors[:, is_class])
    for k in set(own) & set(np.flatnonzero(several)):
        explicit[k] = _linear(codes, quantised, own[k])
    notes = []
    if why_not_m := alone(varying_factors=np.array(several)):
        notes.append(f"infom is not computed: {why_not_m}")
    if why_not_c := alone(active_latents=active):
        notes.append(f"infoc is not computed: {why_not_c}")
    if left_out := int((varying(codes) & ~active).sum()):
        of = f"{left_out} of {len(active)} latents"
        notes.append(f"left out, for they vary little beside the largest: {of}")
    if known.size and (most := float(known.max())) < LITTLE:
        notes.append(
            f"no latent knows more than {most:.3f} of a factor: infom and infoc are shares of what "
            "is hardly there, and random codes have .3 to .8"
        )
    return {
        "infom": np.nan if why_not_m else _share(known),
        "infoc": np.nan if why_not_c else _share(known.T),
        "infoe": mean(explicit),
        "active": active,
        "normalised_information": matrix,
        "infoe_per_factor": explicit,
        "notes": notes,
    }


def _share(rows: np.ndarray) -> float:
    """Mean over rows of the largest entry's share of its row, from 0 at an even spread to 1."""
    if not rows.size:
        return 0.0
    even = 1 / rows.shape[1]
    share = np.nan_to_num(ratio(rows.max(axis=1), rows.sum(axis=1)), nan=even)
    return float((share.mean() - even) / (1 - even))


def _explicitness(codes: np.ndarray, quantised: np.ndarray, factors: np.ndarray) -> list[float]:
    """How much of the loss without latents a regression on all of them saves, by factor."""
    z = _inputs(codes, quantised)

    def saved(y: np.ndarray) -> float:
        loss, baseline = (_loss(x, y) for x in (z, np.zeros((len(z), 1))))
        return (baseline - loss) / baseline

    return for_each(saved, list(factors.T))


def _inputs(codes: np.ndarray, quantised: np.ndarray) -> np.ndarray:
    """Of a regression: latents of variance 1, and one for each value of those that have few."""
    std = codes.std(axis=0)
    z = (codes - codes.mean(axis=0)) / np.where(std > 0, std, 1)
    each = [one[:, None] == np.unique(one) for one in codes[:, quantised].T]
    return np.concatenate([z[:, ~quantised], *each], axis=1)


def _linear(codes: np.ndarray, quantised: np.ndarray, target: np.ndarray) -> float:
    """Share of the variance of a number that a linear map of all latents explains."""
    z = np.concatenate([np.ones((len(codes), 1)), _inputs(codes, quantised)], axis=1)
    return explained_variance(z @ np.linalg.lstsq(z, target)[0], target)


def _loss(x: np.ndarray, y: np.ndarray) -> float:
    model = LogisticRegression(C=np.inf, class_weight="balanced", max_iter=100)
    return float(log_loss(y, model.fit(x, y).predict_proba(x), labels=model.classes_))


INFOMEC = Metric(
    infomec,
    "modularity, compactness (nearest-neighbour information) and explicitness (regression)",
    "Hsu et al. 2023",
    headline="infom",
    others=("infoc", "infoe"),
    # Pruning compares ranges: one common scale changes nothing, several do.
    invariant=("permute", "sign", "order"),
)
