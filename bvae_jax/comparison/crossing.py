"""The same latents in every setting: runs matched latent by latent, and traversed side by side."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bvae_jax.comparison.matching import match
from bvae_jax.encode import encode_run
from bvae_jax.figures import coders
from bvae_jax.program import ACTIVE_NATS
from bvae_jax.runner import RunResult
from bvae_jax.traversal import traverse

POINTS = 5000
"""Images whose codes are correlated."""
MOST_ROWS = 16
"""Pictures below each other that a page takes."""


class Crossed(NamedTuple):
    """Traversals of matched latents, from the same image.

    Attributes:
        images: [latent, setting, column, height, width, channels]; nan where a setting has no such
            latent.
        labels: of the latents.
        values: of the latent, of the columns.
    """

    images: Float[np.ndarray, "latent setting column height width channels"]
    labels: list[str]
    values: list[float]


def cross_traversals(
    runs: Sequence[RunResult],
    kl: Sequence[np.ndarray],
    *,
    span: float = 2.0,
    columns: int = 7,
    image: int | None = None,
) -> Crossed:
    """One run of each setting, traversed along the latents of the run that uses the most.

    A latent of another run takes the place of the one with which it correlates most, by the best
    assignment of all, and is turned round where the correlation is negative.

    Args:
        runs: one of each setting, on the same data set.
        kl: of each run's latents, in nats.
        span: from -span to span, in standard deviations of the prior.
        image: index of the image that all start from; the first evaluation image if None.
    """
    count = min(POINTS, runs[0].program.dataset.size)
    codes = [encode_run(r.run_dir, r.program, r.params, count, progress=False).means for r in runs]
    active = [nats > ACTIVE_NATS for nats in kl]
    reference = int(np.argmax([a.sum() for a in active]))
    most = max(1, MOST_ROWS // len(runs))
    rows = [j for j in np.argsort(-kl[reference], kind="stable") if active[reference][j]][:most]
    rows = rows or [int(np.argmax(kl[reference]))]
    start = int(runs[0].program.eval_indices[0, 0]) if image is None else image
    values = np.linspace(-span, span, columns)
    pictures = []
    for run, theirs, usable in zip(runs, codes, active, strict=True):
        found = match(
            codes[reference], theirs, usable_reference=active[reference], usable_other=usable
        )
        pictures.append(
            _pictures(run, start, [int(found.partner[j]) for j in rows], found.sign[rows], values)
        )
    return Crossed(
        images=np.stack(pictures, axis=1),
        labels=[f"latent {rank}: KL {kl[reference][j]:.2f}" for rank, j in enumerate(rows, 1)],
        values=values.tolist(),
    )


def _pictures(
    run: RunResult, start: int, latents: Sequence[int], signs: np.ndarray, values: np.ndarray
) -> np.ndarray:
    """[latent, column, height, width, channels]; nan where a latent is -1."""
    encoder, decoder = coders(run.program, run.params)
    code = encoder(run.program.images(np.array([start]))).mean[0]
    shape = (len(latents), len(values), *run.program.dataset.image_shape)
    pictures = np.full(shape, np.nan, np.float32)
    for row, (latent, sign) in enumerate(zip(latents, signs, strict=True)):
        if latent >= 0:
            one = jnp.array([latent])
            along = jnp.asarray(sign * values, jnp.float32)
            pictures[row] = np.asarray(traverse(decoder, code, one, along))[0]
    return pictures


def one_of_each(settings: Sequence[str], members: Mapping[str, tuple[str, int]]) -> dict[str, str]:
    """Setting -> a member; all of the same seed, if there is a seed that all have.

    Args:
        members: member -> (setting, seed).
    """
    seeds = [{seed for s, seed in members.values() if s == setting} for setting in settings]
    common = set.intersection(*seeds)
    chosen: dict[str, str] = {}
    for setting in settings:
        of_setting = {seed: name for name, (s, seed) in members.items() if s == setting}
        chosen[setting] = of_setting[min(common) if common else min(of_setting)]
    return chosen
