"""UDR: unsupervised disentanglement ranking, by how alike runs with different seeds are."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Array, Float
from scipy.stats import rankdata
from sklearn.linear_model import Lasso

from bvae_jax.metrics.base import (
    InvalidArrays,
    Metric,
    active,
    checked_codes,
    fitting,
    mean,
    ratio,
)
from bvae_jax.types import Score


def udr(
    codes_of_runs: Sequence[Float[Array | np.ndarray, "n _"]],
    kl_of_runs: Sequence[Float[Array | np.ndarray, " _"] | None] | None = None,
    *,
    similarity: Literal["lasso", "spearman"] = "lasso",
) -> Score:
    """For each run, the median over the other runs of how far its latents match theirs one to one.

    R[a, b] is the similarity of latent a of one run to latent b of another; a pair of runs scores
    the mean over b of max_a R^2 / sum_a R, averaged with the same over a. Codes are standardised.
    Latents that are not active (`metrics.base.active`) are left out; the paper asks for a KL above
    0.01 nats instead.

    Where it differs: the paper leaves out latents whose KL is below 0.01 nats; here those that
    are not active, by their variance.

    Args:
        codes_of_runs: of each run [n, latent], for the same points in the same order.
        kl_of_runs: of each run [latent], mean KL from the prior in nats, where it is known.
        similarity: "lasso", coefficients of the other run's latents in a lasso regression (alpha
            0.1); "spearman", rank correlations.

    Returns:
        `score`, of the first run, in [0, 1]; `per_run` [run]; `pairs` [run, run], nan on the
        diagonal; `active_latents` [run].

    Raises:
        ValueError: fewer than two runs, other numbers of points, or codes that are not finite.

    Duan et al., 2020, "Unsupervised model selection for variational disentangled representation
    learning", section 4.
    """
    if similarity not in ("lasso", "spearman"):
        raise ValueError(f"similarity: got {similarity!r}, wanted lasso or spearman.")
    runs = [checked_codes(codes, f"codes of run {i}") for i, codes in enumerate(codes_of_runs)]
    if len(runs) < 2 or len({len(run) for run in runs}) > 1:
        raise InvalidArrays(
            f"codes of runs: got {[len(run) for run in runs]} points, wanted the same points of "
            "two runs or more."
        )
    kls = kl_of_runs if kl_of_runs is not None else [None] * len(runs)
    if len(kls) != len(runs):
        raise InvalidArrays(f"kl of runs: got {len(kls)}, wanted one for each of {len(runs)} runs.")
    codes = [_standardised(run, kl) for run, kl in zip(runs, kls, strict=True)]
    pairs = np.full((len(runs), len(runs)), np.nan)
    with fitting():
        for i, first in enumerate(codes):
            for j, second in enumerate(codes):
                if i != j and first.size and second.size:
                    pairs[i, j] = _one_to_one(_similarity(first, second, similarity))
                elif i != j:
                    pairs[i, j] = 0.0
    per_run = np.array([np.median(np.delete(pairs[:, i], i)) for i in range(len(runs))])
    return {
        "score": float(per_run[0]),
        "per_run": per_run,
        "pairs": pairs,
        "active_latents": np.array([z.shape[1] for z in codes]),
    }


def _standardised(codes: np.ndarray, kl: Any) -> np.ndarray:
    """Codes of the active latents."""
    z = codes[:, active(codes, kl)]
    return (z - z.mean(axis=0)) / z.std(axis=0)


def _similarity(first: np.ndarray, second: np.ndarray, kind: str) -> np.ndarray:
    """[latent of the first, latent of the second], not negative."""
    if kind == "lasso":
        coefficients = Lasso(alpha=0.1).fit(first, second).coef_
        return np.abs(coefficients.reshape(second.shape[1], first.shape[1])).T
    ranks = [rankdata(z, axis=0) for z in (first, second)]
    ranks = [(r - r.mean(axis=0)) / r.std(axis=0) for r in ranks]
    return np.abs(ranks[0].T @ ranks[1]) / len(first)


def _one_to_one(similarity: np.ndarray) -> float:
    sides = [similarity, similarity.T]
    relative = [np.nan_to_num(ratio(m.max(axis=0) ** 2, m.sum(axis=0))) for m in sides]
    return (mean(relative[0]) + mean(relative[1])) / 2


UDR = Metric(
    udr,
    "how far the latents of runs with different seeds match one to one",
    "Duan et al. 2020",
    invariant=("permute", "sign", "order"),  # a latent of little variance is inactive
)
