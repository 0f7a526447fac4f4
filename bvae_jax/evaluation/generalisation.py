"""How much worse a run is on images that it was not trained on, as on held-out combinations.

Montero et al., "The role of disentanglement in generalisation", ICLR 2021: reconstructions of
combinations of factors that training never saw, beside those of training images. And Traeuble et
al., "On Disentangled Representations Learned from Correlated Data", ICML 2021: images of all
combinations alike, beside those that correlated training draws.
"""

from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from bvae_jax.data.variants import batches_of
from bvae_jax.metrics.base import ratio
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


# Which latent mixes factors that training saw correlated.
#
# Traeuble et al., "On Disentangled Representations Learned from Correlated Data", ICML 2021.

Pair = tuple[str, ...]
"""Names of two factors."""


def pairs_of(correlate: str) -> list[Pair]:
    """The pairs of `Config.correlate`."""
    pairs = [part.partition("=")[0].split(",") for part in filter(None, correlate.split(";"))]
    return [tuple(name.strip() for name in pair) for pair in pairs]


def mixing(
    information: Float[np.ndarray, "latent factor"],
    names: Sequence[str],
    pairs: Collection[Pair],
    active: Bool[np.ndarray, " latent"],
) -> Entry:
    """Where pairs of factors lie in one latent.

    The entanglement of two factors is the largest share s at which they are in one group, when
    latents and factors are joined where a latent has the share s or more of what active latents,
    added up, know of a factor. As in the paper, with information in the place of the importances
    of boosted trees.

    Args:
        information: nats that latents know of factors, of points whose factors are independent.
        names: of the factors.
        pairs: those that were correlated.
        active: the others are left out.

    Returns:
        `pairs`: of each its `factors`, the `latent` whose smaller share of the two is the largest,
        the `nats` and `shares` [2] that it has of them, and `entanglement`; `entanglement`: the
        largest of them; `entanglement_others`: the median of all other pairs (nan if there are
        none); `sentence`.
    """
    information = information * active[:, None]
    shares = np.nan_to_num(ratio(information, information.sum(axis=0)))
    joined = np.minimum(shares[:, :, None], shares[:, None, :]).max(axis=0)
    for k in range(len(names)):  # by way of a third factor
        joined = np.maximum(joined, np.minimum(joined[:, k, None], joined[None, k]))
    places = [tuple(sorted(map(list(names).index, pair))) for pair in pairs]
    vary = shares.sum(axis=0) > 0
    others = [
        joined[a, b]
        for a, b in zip(*np.triu_indices(len(names), 1), strict=True)
        if vary[a] and vary[b] and (a, b) not in places
    ]
    found: Entry = {"pairs": []}
    rest = float(np.median(others)) if others else float("nan")
    said = []
    for pair in places:
        latent = int(shares[:, pair].min(axis=1).argmax())
        nats, of = information[latent, pair], shares[latent, pair]
        one, two = (names[k] for k in pair)
        score = float(joined[pair])
        found["pairs"].append(
            {"factors": [one, two], "latent": latent, "nats": nats, "shares": of}
            | {"entanglement": score}
        )
        said.append(
            f"z{latent} mixes {one} and {two} most: {nats[0]:.2f} nats of {one} ({of[0]:.0%} of "
            f"what active latents know of it), {nats[1]:.2f} of {two} ({of[1]:.0%}); entanglement "
            f"{score:.2f}, of the other pairs {rest:.2f} (median)."
            if of.all()
            else f"No active latent knows of {one} and {two} both."
        )
    largest = max(each["entanglement"] for each in found["pairs"])
    return found | {
        "entanglement": largest, "entanglement_others": rest, "sentence": " ".join(said)
    }  # fmt: skip
