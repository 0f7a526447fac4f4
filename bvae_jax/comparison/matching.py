"""Latents of one run matched to those of another, and traversed side by side."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.optimize import linear_sum_assignment

from bvae_jax.comparison.base import Comparison
from bvae_jax.errors import UserError
from bvae_jax.evaluation.answers import Answers
from bvae_jax.evaluation.evaluate import EVALUATION
from bvae_jax.metrics.base import active, checked_codes, varying
from bvae_jax.plots.style import short_number
from bvae_jax.runs import rundir
from bvae_jax.runs.encode import encode_run
from bvae_jax.runs.run import Run
from bvae_jax.runs.traversals import coders, traverse
from bvae_jax.types import CodeMatrix

OtherCodes = Float[Array | np.ndarray, "n other"]
"""Codes of another run for the same points; its number of latents may differ."""
POINTS = 5000
"""Images whose codes are correlated."""
SPAN = 2.0
MOST_ROWS = 16
"""Pictures below each other that a page takes."""
WEAK = 0.5
"""Correlation below which a match says little: its row is grey."""


class Match(NamedTuple):
    """For each latent of a reference, the one of another run that follows it.

    Attributes:
        partner: index of the other run's latent, -1 where there is none.
        sign: +1 or -1; sign * the partner goes the same way as the reference.
        correlation: its magnitude, 0 where there is no partner.
    """

    partner: Int[np.ndarray, " latent"]
    sign: Int[np.ndarray, " latent"]
    correlation: Float[np.ndarray, " latent"]


class Crossed(NamedTuple):
    """Traversals of matched latents, from the same image.

    Attributes:
        images: [latent, setting, column, height, width, channels]; nan where a setting has no such
            latent.
        labels: of the latents.
        notes: [latent, setting], of each row that is there: the correlation with the latent of the
            reference, and the KL.
        weak: [latent, setting], whether the correlation is below `WEAK`.
        values: of the latent, of the columns.
    """

    images: Float[np.ndarray, "latent setting column height width channels"]
    labels: list[str]
    notes: list[list[str]]
    weak: Bool[np.ndarray, "latent setting"]
    values: list[float]


def correlations(a: CodeMatrix, b: OtherCodes) -> Float[np.ndarray, "latent other"]:
    """Pearson's correlation of each latent of one run with each of another, 0 of a constant one.

    Args:
        a: [n, latent].
        b: [n, other], for the same points in the same order.

    Raises:
        ValueError: the numbers of points differ, or codes that are not finite.
    """
    first, second = checked_codes(a, "codes of the first run"), checked_codes(b, "of the second")
    return np.clip(_standardised(first).T @ _standardised(second) / len(first), -1, 1)


def match(
    reference: CodeMatrix,
    other: OtherCodes,
    *,
    usable_reference: Bool[np.ndarray, " latent"] | None = None,
    usable_other: Bool[np.ndarray, " other"] | None = None,
) -> Match:
    """Pair latents one to one so that the sum of |correlation| is largest (Hungarian method).

    Constant latents get no partner, nor do those for which none is left.

    Args:
        reference: [n, latent].
        other: [n, other], for the same points in the same order.
        usable_reference: latents that may be paired, by default all; false for inactive ones.
        usable_other: the same of the other run.

    Raises:
        ValueError: the numbers of points differ, or codes that are not finite.

    Kuhn, 1955, "The Hungarian method for the assignment problem".
    """
    r = correlations(reference, other)
    rows, columns = _usable(reference, usable_reference), _usable(other, usable_other)
    first, second = linear_sum_assignment(np.abs(r[np.ix_(rows, columns)]), maximize=True)
    partner, correlation = np.full(len(r), -1), np.zeros(len(r))
    paired = rows[first]
    partner[paired] = columns[second]
    correlation[paired] = r[paired, partner[paired]]
    return Match(partner, np.where(correlation < 0, -1, 1), np.abs(correlation))


def _usable(codes: CodeMatrix, mask: np.ndarray | None) -> Int[np.ndarray, " usable"]:
    """Indices of latents that may be paired."""
    keep = varying(np.asarray(codes, np.float64))
    return np.flatnonzero(keep if mask is None else keep & mask)


def _standardised(codes: np.ndarray) -> np.ndarray:
    """Mean 0 and standard deviation 1; constant latents are 0."""
    spread = np.where(varying(codes), codes.std(axis=0), np.inf)
    return (codes - codes.mean(axis=0)) / spread


def cross_traversals(
    runs: Sequence[Run],
    kl: Sequence[np.ndarray | None],
    *,
    columns: int = 7,
    reference: int | None = None,
) -> Crossed:
    """One run of each setting, traversed along the latents of one of them.

    A latent of another run takes the place of the one with which it correlates most, by the best
    assignment of all, and is turned round where the correlation is negative.

    Args:
        runs: one of each setting, on the same data set.
        kl: of each run's latents, in nats; None of an autoencoder, whose latents are ordered by the
            standard deviation of their codes.
        columns: values from -`SPAN` to `SPAN`, in standard deviations of the prior; of an
            autoencoder's codes, around their mean.
        reference: whose latents they are; of the run that uses the most if None.
    """
    count = min(POINTS, runs[0].trainer.dataset.size)
    codes = [encode_run(r.run_dir, r.trainer, r.params, count, progress=False).means for r in runs]
    sizes = [z.std(axis=0) if nats is None else nats for z, nats in zip(codes, kl, strict=True)]
    used = [active(z, nats) for z, nats in zip(codes, kl, strict=True)]
    if reference is None:
        reference = int(np.argmax([one.sum() for one in used]))
    most = max(1, MOST_ROWS // len(runs))
    order = np.argsort(-sizes[reference], kind="stable")
    rows = [j for j in order if used[reference][j]][:most] or [int(order[0])]
    start = int(runs[0].trainer.eval_indices[0, 0])
    values = np.linspace(-SPAN, SPAN, columns)
    pictures, notes, weak = [], [], []
    for i, (run, theirs) in enumerate(zip(runs, codes, strict=True)):
        found = match(
            codes[reference], theirs, usable_reference=used[reference], usable_other=used[i]
        )
        partner = found.partner[rows]
        along = found.sign[rows, None] * values
        if not run.variational:
            along = theirs.mean(axis=0)[partner, None] + along * sizes[i][partner, None]
        pictures.append(_pictures(run, start, partner, along))
        r = (found.sign * found.correlation)[rows]
        first = [
            "reference" if i == reference else f"r {short_number(float(x))}".replace("-", "−")
            for x in r
        ]
        name = "sd" if kl[i] is None else "KL"
        second = [f"{name} {short_number(float(size))}" for size in sizes[i][partner]]
        notes.append(["\n".join(both) for both in zip(first, second, strict=True)])
        weak.append((partner >= 0) & (found.correlation[rows] < WEAK))
    return Crossed(
        images=np.stack(pictures, axis=1),
        labels=[f"latent {rank}" for rank in range(1, len(rows) + 1)],
        notes=[list(of_latent) for of_latent in zip(*notes, strict=True)],
        weak=np.stack(weak, axis=1),
        values=values.tolist(),
    )


def _pictures(
    run: Run,
    start: int,
    latents: Int[np.ndarray, " row"],
    values: Float[np.ndarray, "row column"],
) -> np.ndarray:
    """[row, column, height, width, channels]; nan where a latent is -1."""
    encoder, decoder = coders(run.trainer, run.params)
    code = encoder(run.trainer.images(np.array([start]))).mean[0]
    pictures = np.full((*values.shape, *run.trainer.dataset.image_shape), np.nan, np.float32)
    for row in np.flatnonzero(latents >= 0):
        one, along = jnp.asarray(latents[row : row + 1]), jnp.asarray(values[row], jnp.float32)
        pictures[row] = np.asarray(traverse(decoder, code, one, along))[0]
    return pictures


def representatives(comparison: Comparison, seed: int | None = None) -> dict[str, str]:
    """Setting -> the member that is nearest to the setting's means, or which has the seed.

    Raises:
        UserError: no member has the seed.
    """
    rows: Any = comparison.members
    away = _away(comparison)
    if seed is not None:
        rows = rows[rows["seed"] == seed]
        if not len(rows):
            seeds = ", ".join(map(str, sorted(set(comparison.members["seed"].tolist()))))
            raise UserError(f"--seed: got {seed}, wanted one of {seeds}.")
        away = away[rows.index]
    return {
        setting: str(away[rows["setting"] == setting].idxmin())
        for setting in comparison.settings
        if (rows["setting"] == setting).any()
    }


def typical_seed(comparison: Comparison) -> int | None:
    """The seed whose runs are nearest to the means of their settings, taken together; None where no
    seed is one of all settings."""
    rows: Any = comparison.members
    away = _away(comparison).groupby(rows["seed"]).agg(["sum", "count"])
    everywhere = away[away["count"] == rows["setting"].nunique()]
    return int(everywhere["sum"].idxmin()) if len(everywhere) else None


def _away(comparison: Comparison) -> Any:
    """How far each member is from the mean of its setting: the mean over MIG, NLL and KL, as far as
    all members have them, in standard deviations within settings."""
    rows: Any = comparison.members.copy()
    if "mig" not in rows:
        rows["mig"] = [_stored_mig(comparison.run_dirs[name]) for name in rows.index]
    known = [name for name in ("mig", "nll", "kl") if name in rows and rows[name].notna().all()]
    scores = rows[known].astype(float)
    off = scores - scores.groupby(rows["setting"]).transform("mean")
    spread = np.sqrt((off**2).mean())
    return (off.abs() / spread.where(spread > 0, 1)).mean(axis=1).fillna(0)


def _stored_mig(run_dir: Path) -> float:
    """Of the run's own parameters; nan where it is not known."""
    summary = rundir.read_summary(run_dir)
    if summary is None:
        return math.nan
    scores = Answers(run_dir / EVALUATION).of_params(summary["params_sha256"])
    return float(scores.get("mig", {}).get("score", math.nan))
