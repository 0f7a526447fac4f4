"""Codes drawn from a run's prior or from its aggregate posterior, and the pictures of them."""

from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from bvae_jax.errors import UserError
from bvae_jax.files import replacing
from bvae_jax.runs.run import Run
from bvae_jax.types import Latents, key_for

ZSource = Literal["prior", "aggregate"]
ARRAYS = "samples.npz"
MOST, HOTTEST = 100_000, 1000.0
"""Pictures that are drawn by one call, and the largest temperature."""
AT_ONCE = 256
"""Training images that are encoded at once."""


def draw_z(
    run: Run, n: int, *, seed: int = 0, temperature: float = 1.0, source: ZSource = "prior"
) -> Latents:
    """z of `Run.sample`, [n, latent]."""
    if not 1 <= n <= MOST:
        raise UserError(f"sample: got n = {n}, wanted at least 1 and at most {MOST:,}.")
    if not 0 <= temperature <= HOTTEST:
        raise UserError(f"temperature: got {temperature:g}, wanted a number from 0 to {HOTTEST:g}.")
    if not 0 <= seed < 2**32:
        raise UserError(f"seed: got {seed}, wanted a whole number from 0 to {2**32 - 1}.")
    if source not in ("prior", "aggregate"):
        raise UserError(f"source: got {source!r}, wanted 'prior' or 'aggregate'.")
    key = key_for("samples", seed)
    if source == "prior":
        if not run.variational:
            raise UserError(
                f"{run.run_dir} is an autoencoder: it has no prior to draw z from. Its codes can "
                "be drawn: source aggregate."
            )
        return temperature * jax.random.normal(key, (n, run.config.latents))
    pick, noise = jax.random.split(key)
    trained = run.trainer.split.train
    chosen = trained[np.asarray(jax.random.randint(pick, (n,), 0, len(trained)))]
    parts = [
        run.encode(run.trainer.images(chosen[start : start + AT_ONCE]))
        for start in range(0, n, AT_ONCE)
    ]
    mean, logvar = (jnp.concatenate([part[i] for part in parts]) for i in range(2))
    if not run.variational:
        return mean
    return mean + temperature * jnp.exp(logvar / 2) * jax.random.normal(noise, mean.shape)


def write_samples(
    run: Run,
    out: Path,
    n: int = 64,
    *,
    seed: int = 0,
    temperature: float = 1.0,
    source: ZSource = "prior",
) -> list[Path]:
    """Decoded draws as files: each picture, a grid of all, and the arrays.

    Args:
        out: directory for the pictures: a new or empty one, or one of earlier samples, which are
            replaced.
        n: number of pictures.
        seed: of the draws.
        temperature: what standard deviations are multiplied by, those of the prior or of each
            image's posterior; 0 for their means.
        source: prior: N(0, I). aggregate: the posteriors of training images that are drawn at
            random; of an autoencoder their codes.

    Returns:
        samples.npz (images [n, height, width, channels] in [0, 1], z [n, latent], source,
        temperature, seed), samples.png, sample-0.png and so on.

    Raises:
        UserError: as `Run.sample`, or the directory holds something else.
    """
    from bvae_jax.plots.run import save_samples  # matplotlib takes a second

    arrays = out / ARRAYS
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not arrays.exists()):
        raise UserError(f"{out}: wanted a new or empty directory, or one of earlier samples.")
    z = draw_z(run, n, seed=seed, temperature=temperature, source=source)
    images = np.asarray(run.decode(z))
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("sample-*.png"):
        if old.stem.removeprefix("sample-").isdecimal():
            old.unlink()
    known: Any = {"source": source, "temperature": temperature, "seed": seed}
    with replacing(arrays) as file:
        np.savez(file, images=images, z=np.asarray(z), **known)
    return [arrays, *save_samples(out, images)]
