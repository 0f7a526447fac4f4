"""Which latent mixes factors that training saw correlated.

Traeuble et al., "On Disentangled Representations Learned from Correlated Data", ICML 2021.
"""

from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Bool, Float

from bvae_jax.metrics.base import ratio
from bvae_jax.metrics.scoring import Entry

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
