"""How much worse a run is on images that it was not trained on, as on held-out combinations.

Montero et al., "The role of disentanglement in generalisation", ICLR 2021: reconstructions of
combinations of factors that training never saw, beside those of training images.
"""

from bvae_jax.data.splits import batches_of
from bvae_jax.metrics.scoring import Entry
from bvae_jax.runs.run import Run

IMAGES, BATCH = 4096, 256
"""Of each split, at most."""
NUMBERS = ("nll", "kl", "mse")
SPLITS = ("holdout", "test", "excluded")


def generalisation(run: Run, split: str) -> Entry:
    """NLL, KL and mean squared error of a split, of training images, and their difference.

    The noise of z is the same for both. NLL and KL are in nats per image, an autoencoder has no KL;
    the squared error is a mean over pixels and channels, of reconstructions from a drawn z.

    Args:
        split: one of `SPLITS`.

    Returns:
        `images` and `train_images`; for each of `NUMBERS` NAME, NAME_train and NAME_gap, which is
        NAME - NAME_train, and of each its standard error over images as NAME_error,
        NAME_train_error, NAME_gap_error (nan of a single image).
    """
    trainer = run.trainer
    here, there = (
        batches_of(trainer.split.named(name), IMAGES, BATCH) for name in (split, "train")
    )
    of, train = (trainer.measure(run.state, indices) for indices in (here, there))
    found: Entry = {"images": here.size, "train_images": there.size}
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
