"""How much worse a run is on images that it was not trained on, as on held-out combinations.

Montero et al., "The role of disentanglement in generalisation", ICLR 2021: reconstructions of
combinations of factors that training never saw, beside those of training images. And Traeuble et
al., "On Disentangled Representations Learned from Correlated Data", ICML 2021: images of all
combinations alike, beside those that correlated training draws.
"""

import numpy as np
from jaxtyping import Int

from bvae_jax.data.splits import batches_of
from bvae_jax.metrics.mig import mig
from bvae_jax.metrics.scoring import Entry
from bvae_jax.runs.encode import encoding_order
from bvae_jax.runs.run import Run

IMAGES, BATCH = 4096, 256
"""Of each split, at most."""
POINTS = 10_000
"""Of which the MIG is, at most."""
NUMBERS = ("nll", "kl", "mse")
SPLITS = {name: (name, "train") for name in ("holdout", "test", "excluded")} | {
    "correlated": ("all", "correlated")
}
"""What is asked for -> images that training does not draw, or not as often; those it draws."""


def generalisation(run: Run, split: str) -> Entry:
    """NLL, KL and mean squared error of images, of those that training draws, their difference.

    The noise of z is the same for both. NLL and KL are in nats per image, an autoencoder has no KL;
    the squared error is a mean over pixels and channels, of reconstructions from a drawn z.

    With "correlated" both are drawn from all images: all alike, and with the probabilities of
    `--correlate`. Then there is the MIG of both, too.

    Args:
        split: one of `SPLITS`.

    Returns:
        `images` and `train_images`; for each of `NUMBERS` NAME, NAME_train and NAME_gap, which is
        NAME - NAME_train, and of each its standard error over images as NAME_error,
        NAME_train_error, NAME_gap_error (nan of a single image). Of correlated draws `mig` and
        `mig_train`, of `points` images.
    """
    trainer = run.trainer
    here, there = (batches_of(_images(run, name), IMAGES, BATCH) for name in SPLITS[split])
    of, train = (trainer.measure(run.state, indices) for indices in (here, there))
    found: Entry = {"images": here.size, "train_images": there.size}
    if split == "correlated":
        points = min(POINTS, trainer.dataset.size)
        for name, key in zip(SPLITS[split], ("mig", "mig_train"), strict=True):
            codes = run.codes(points, split=name)
            found |= {key: mig(codes.codes, codes.factors)["score"], "points": points}
    for name in NUMBERS:
        if name in of:
            errors = [each.get(f"{name}_error", float("nan")) for each in (of, train)]
            found |= {
                name: of[name], f"{name}_error": errors[0],
                f"{name}_train": train[name], f"{name}_train_error": errors[1],
                f"{name}_gap": of[name] - train[name],
                f"{name}_gap_error": (errors[0] ** 2 + errors[1] ** 2) ** 0.5,
            }  # fmt: skip
    return found


def _images(run: Run, split: str) -> Int[np.ndarray, " image"]:
    if split == "correlated":
        return encoding_order(run.trainer, split)
    return run.trainer.split.named(split)
