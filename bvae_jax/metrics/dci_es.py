"""DCI-ES: explicitness and size, beside disentanglement, completeness, informativeness."""

import numpy as np

from bvae_jax.continuous import Numbers, targets
from bvae_jax.metrics.base import (
    CodesTest,
    FactorsTest,
    Metric,
    checked_split,
    for_each,
    generator,
    mean,
    ratio,
    standardised,
    varying,
)
from bvae_jax.types import CodeMatrix, Factors, PRNGKey, Score

FEATURES = (0, 8, 16, 32, 64, 128, 256, 512)
"""Random features of each probe, beside the codes themselves: the first probe is linear."""
RIDGE = 1e-4
UNPREDICTED = 0.99
"""Where the best loss is above this, no probe has learned anything."""


def dci_es(
    codes: CodeMatrix,
    factors: Factors,
    codes_test: CodesTest,
    factors_test: FactorsTest,
    key: PRNGKey,
    numbers: Numbers | None = None,
    *,
    unpredicted: float = -1.0,
) -> Score:
    """How little capacity a probe needs, and how few latents there are.

    Explicitness E = 1 - A / Z. A is the area between the probes' loss and the best of them, over
    capacity up to the best; Z = 1/2 (whole range of capacity) (loss without codes - 0). E is 1 if
    the linear probe is best already, 0 if the loss falls on a straight line. Size S is the number
    of factors that vary over the number of latents.

    Probes are ridge regressions of the class index, scaled to variance 1, on the codes and on
    random Fourier features of them; capacity is the logarithm of the number of features; the loss
    is the mean squared error on the test points over that of the mean, at most 1. A factor that no
    probe predicts (no loss below 0.99) has no area, and by the formula E = 1, the best. Here it
    counts -1, the worst, for it would need more capacity than there is. The paper leaves the family
    of probes open: compare only scores of the same family.

    A number: its values; with a period the angle's cosine and sine, whose errors are added.

    Where it differs: by the paper's formula a factor that no probe predicts has the best E, 1;
    here it has the worst, -1. The paper's probes may be any; here they are ridge regressions.

    Args:
        codes: [n, latent] to fit on.
        factors: [n, factor] class indices.
        codes_test: [m, latent] to score on.
        factors_test: [m, factor].
        key: of the random features.
        numbers: values of factors that are numbers, in place of their classes.
        unpredicted: what a factor counts that no probe predicts; 1 by the authors' formula.

    Returns:
        `explicitness` in [-1, 1], `size`; `explicitness_per_factor` [factor]; `loss`
        [probe, factor]; `features` [probe], beside the codes.

    Raises:
        ValueError: arrays that do not fit or are not finite.

    Eastwood, Nicolicioiu, von Kügelgen, Kekić, Träuble, Dittadi & Schölkopf, 2023, "DCI-ES: an
    extended disentanglement framework with connections to identifiability", section 4.
    """
    codes, factors, codes_test, factors_test = checked_split(
        codes, factors, codes_test, factors_test
    )
    varies = varying(factors)
    x, x_test = standardised(codes, codes_test)
    scale = factors[:, varies].std(axis=0)
    center = factors[:, varies].mean(axis=0)
    y, y_test = (f[:, varies] / scale - center / scale for f in (factors, factors_test))
    of = np.flatnonzero(varies)  # the factor of each target
    number_test = targets(numbers, test=True)
    for k, number in targets(numbers).items():
        if not varies[k]:
            continue
        y, y_test = (
            np.concatenate([both[:, of != k], more - number.mean(axis=0)], axis=1)
            for both, more in ((y, number), (y_test, number_test[k]))
        )
        of = np.concatenate([of[of != k], np.full(number.shape[1], k)])
    rng = generator(key)
    width = max(x.shape[1], 1)
    frequencies = rng.standard_normal((x.shape[1], FEATURES[-1])) / np.sqrt(width)
    phases = rng.uniform(0, 2 * np.pi, FEATURES[-1])

    def features(z: np.ndarray, count: int) -> np.ndarray:
        waves = np.sqrt(2 / max(count, 1)) * np.cos(z @ frequencies[:, :count] + phases[:count])
        return np.concatenate([np.ones((len(z), 1)), z, waves], axis=1)

    share = (of[:, None] == np.flatnonzero(varies)).astype(np.float64)

    def lost(count: int) -> np.ndarray:
        a, b = features(x, count), features(x_test, count)
        weights = np.linalg.solve(a.T @ a + RIDGE * len(a) * np.eye(a.shape[1]), a.T @ y)
        error = np.mean((b @ weights - y_test) ** 2, axis=0)
        return np.minimum(ratio(error @ share, np.mean(y_test**2, axis=0) @ share), 1.0)

    loss = np.full((len(FEATURES), factors.shape[1]), np.nan)
    loss[:, varies] = for_each(lost, FEATURES)
    capacity = np.log(width + np.array(FEATURES))
    per_factor = np.array([_explicitness(capacity, column, unpredicted) for column in loss.T])
    return {
        "explicitness": mean(per_factor),
        "size": int(varies.sum()) / codes.shape[1],
        "explicitness_per_factor": per_factor,
        "loss": loss,
        "features": np.array(FEATURES),
    }


def _explicitness(capacity: np.ndarray, loss: np.ndarray, unpredicted: float) -> float:
    """1 - area above the best loss, up to the best probe, over that of a straight fall."""
    if np.isnan(loss).any():
        return float("nan")
    best = int(loss.argmin())
    if loss[best] > UNPREDICTED:
        return unpredicted
    steps = np.diff(capacity[: best + 1])
    excess = loss[: best + 1] - loss[best]
    area = float(np.sum(steps * (excess[1:] + excess[:-1]) / 2))
    return 1 - area / (0.5 * float(capacity[-1] - capacity[0]))


DCI_ES = Metric(
    dci_es,
    "how little capacity a probe of the factors needs; factors over latents",
    "Eastwood et al. 2023",
    headline="explicitness",
    range=(-1.0, 1.0),
    others=("size",),
    compat={"unpredicted": 1.0},
    # The random features treat latents alike only on average.
    invariant=("scale", "order"),
)
