"""The KL term of the ELBO, taken apart: information, dependence, and distance from the prior.

With the aggregate posterior q(z) = 1/n sum_i q(z|x_i) of all n images, the KL averaged over them is

    1/n sum_i KL(q(z|x_i) || p(z)) = E[log q(z|x) - log q(z)]              mutual information
                                   + E[log q(z) - sum_j log q(z_j)]        total correlation
                                   + sum_j E[log q(z_j) - log p(z_j)]      dimension-wise KL

Chen, Li, Grosse & Duvenaud, 2018, equation 2; Hoffman & Johnson, 2016, "ELBO surgery", for the
mutual information between an image's index and its code.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bvae_jax.elbo import ACTIVE, MOST_LOGVAR, is_active
from bvae_jax.errors import UserError
from bvae_jax.metrics.base import checked_codes
from bvae_jax.runtime import bar
from bvae_jax.types import CodeMatrix, PRNGKey

NEAR_CEILING = 0.9
"""Part of log n from which on the sentence warns of this limit of the mutual information."""
DRAWS = 256
IMAGES = 256
"""Draws and images whose densities are computed together: on a CPU, few enough for its caches."""
BLOCKS = 64
"""Blocks of images in one call; sums in single precision are kept within a call."""


class Decomposition(NamedTuple):
    """Estimates from draws of z from the posteriors of random images, with standard errors; nats.

    The three terms add up to `kl`.

    Attributes:
        samples: draws of z.
        points: images, n.
        kl: average over images of KL(q(z|x) || p(z)), in closed form.
        mutual_information: I_q(n; z), of an image's index and its code, at most log n; near that,
            q(z) is n separate peaks, and KL in excess of log n appears as total correlation.
        total_correlation: KL(q(z) || prod_j q(z_j)), of samples of z. That of the posterior means,
            `gaussian_total_correlation` of the metric `unsupervised`, may go the other way: noise
            hides in samples what means have in common (Locatello et al. 2019, section 5.1).
        dimension_wise_kl: sum_j KL(q(z_j) || p(z_j)).
        kl_per_latent: [latent], in closed form.
        dimension_wise_kl_per_latent: [latent].
        active_latents: how many are, as `elbo.is_active` says.
        sentence: all this in words.
    """

    samples: int
    points: int
    kl: float
    mutual_information: float
    mutual_information_error: float
    total_correlation: float
    total_correlation_error: float
    dimension_wise_kl: float
    dimension_wise_kl_error: float
    kl_per_latent: Float[np.ndarray, " latent"]
    dimension_wise_kl_per_latent: Float[np.ndarray, " latent"]
    active_latents: int
    sentence: str


class Draws(NamedTuple):
    """z = mean + offset ~ q(z|x_i) of random images i, each [sample, latent] in float32.

    In two parts, because their sum would lose the offset of a narrow posterior to rounding.
    `log_density` is log q(z_j|x_i) + log(2 pi) / 2.
    """

    mean: Float[np.ndarray, "sample latent"]
    offset: Float[np.ndarray, "sample latent"]
    log_density: Float[np.ndarray, "sample latent"]


def decompose(
    means: CodeMatrix, logvars: CodeMatrix, *, samples: int, key: PRNGKey, progress: bool = False
) -> Decomposition:
    """Mutual information, total correlation and dimension-wise KL of an encoder, by Monte Carlo.

    Every one of the n posteriors counts in log q(z) and log q(z_j), the draw's own included: for
    these n images both are exact, so that the only error is that of the average over draws. Of it,
    what is due to draws whose KL is above or below the average is taken out: the average is known
    in closed form, and a draw's KL is a control variate for each term (Glasserman 2003, section
    4.1). The time is proportional to n * samples * latents.

    Args:
        means: [n, latent] posterior means of the whole data set.
        logvars: [n, latent] posterior log-variances; clipped to [-60, 60].
        samples: draws of z, three or more.
        key: of the draws; the same key gives the same numbers.
        progress: show a bar.

    Raises:
        UserError: arrays that are not finite or do not fit each other, or fewer than three samples.

    Chen et al., 2018, equation 2, with the aggregate posterior in full: no minibatches.
    """
    means = checked_codes(means, "means", np.float32, largest=np.inf)
    logvars = checked_codes(logvars, "logvars", np.float32, largest=np.inf)
    if means.shape != logvars.shape:
        raise UserError(f"logvars: got shape {logvars.shape}, wanted that of means, {means.shape}.")
    if samples < 3:
        raise UserError(f"samples: got {samples}, wanted 3 or more: fewer draws have no error.")
    kl, variance = _per_latent(means, logvars)
    draws = _draw(means, logvars, samples, key)
    of_draw, (joint, marginal) = _kl_of_draws(draws), _log_ratios(means, logvars, draws, progress)
    terms = {
        "mutual_information": -joint,
        "total_correlation": joint - marginal.sum(axis=1),
        "dimension_wise_kl": (of_draw + marginal).sum(axis=1),
    }
    control = of_draw.sum(axis=1), float(kl.sum())
    found: dict[str, Any] = {}
    for name, term in terms.items():
        found[name], found[f"{name}_error"] = _controlled(term, *control)
    dimension_wise = [_controlled(term, *control)[0] for term in (of_draw + marginal).T]
    result = Decomposition(
        samples=samples,
        points=len(means),
        kl=float(kl.sum()),
        kl_per_latent=kl,
        dimension_wise_kl_per_latent=np.array(dimension_wise),
        active_latents=int(is_active(variance).sum()),
        sentence="",
        **found,
    )
    return result._replace(sentence=_sentence(result))


def _per_latent(means: np.ndarray, logvars: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[latent] KL from the prior, averaged over images, and variance of the means.

    KL_j = 1/n sum_i (m_ij^2 + v_ij - log v_ij - 1) / 2, Kingma & Welling, 2014, appendix B.
    """
    kl, variance = np.empty(means.shape[1]), np.empty(means.shape[1])
    for j in range(means.shape[1]):  # One by one: all would be a large copy in float64.
        mean = means[:, j].astype(np.float64)
        logvar = np.clip(logvars[:, j].astype(np.float64), -MOST_LOGVAR, MOST_LOGVAR)
        kl[j] = 0.5 * np.mean(mean**2 + np.expm1(logvar) - logvar)
        variance[j] = mean.var()
    return kl, variance


def _draw(means: np.ndarray, logvars: np.ndarray, samples: int, key: PRNGKey) -> Draws:
    of_image, of_noise = jax.random.split(key)
    image = np.asarray(jax.random.randint(of_image, (samples,), 0, len(means)))
    noise = np.asarray(jax.random.normal(of_noise, (samples, means.shape[1]), jnp.float32))
    half = 0.5 * np.clip(logvars[image], -MOST_LOGVAR, MOST_LOGVAR)
    return Draws(means[image], np.exp(half) * noise, -0.5 * noise**2 - half)


def _kl_of_draws(draws: Draws) -> np.ndarray:
    """[sample, latent] log q(z_j|x_i) - log p(z_j), where the densities' constants cancel."""
    return draws.log_density + 0.5 * (draws.mean.astype(np.float64) + draws.offset) ** 2


def _controlled(term: np.ndarray, control: np.ndarray, mean: float) -> tuple[float, float]:
    """The mean of a term over draws, and its standard error.

    Args:
        term: [sample].
        control: [sample], of the same draws.
        mean: what the control is on average.
    """
    centred = control - control.mean()
    spread = float(centred @ centred)
    slope = float(term @ centred) / spread if spread else 0.0
    rest = term - term.mean() - slope * centred
    error = math.sqrt(float(rest @ rest) / (len(term) - 2) / len(term))
    return float(term.mean()) - slope * (float(control.mean()) - mean), error


def _log_ratios(
    means: np.ndarray, logvars: np.ndarray, draws: Draws, progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    """[sample] log q(z) / q(z|x_i) and [sample, latent] log q(z_j) / q(z_j|x_i), in float64."""
    points, samples = len(means), len(draws.mean)
    joint, marginal = np.zeros(samples), np.zeros(draws.mean.shape)
    rows = np.array_split(np.arange(samples), math.ceil(samples / DRAWS))
    shown = bar(
        total=points, desc="decompose", unit=" images", unit_scale=True, disable=not progress
    )
    with shown:
        for start in range(0, points, BLOCKS * IMAGES):
            part = slice(start, start + BLOCKS * IMAGES)
            blocks = [jnp.asarray(array) for array in _blocks(means[part], logvars[part])]
            for row in rows:
                sums = _sums(*blocks, *(jnp.asarray(array[row]) for array in draws))
                joint[row] += np.asarray(sums[0])
                marginal[row] += np.asarray(sums[1])
            shown.update(min(BLOCKS * IMAGES, points - start))
    return np.log(joint / points), np.log(marginal / points)


def _blocks(means: np.ndarray, logvars: np.ndarray) -> list[np.ndarray]:
    """Means, 1 / sqrt(2 variance) and its logarithm but for a constant, [block, latent, IMAGES].

    The last block is filled up with images of density 0.
    """
    missing = -len(means) % IMAGES
    mean, logvar = (np.pad(x, ((0, missing), (0, 0)), "edge") for x in (means, logvars))
    log_scale = -0.5 * np.clip(logvar, -MOST_LOGVAR, MOST_LOGVAR)
    scale = np.exp(log_scale) * np.float32(math.sqrt(0.5))
    log_scale[len(means) :] = -np.inf
    shape = (-1, IMAGES, means.shape[1])
    return [array.reshape(shape).swapaxes(1, 2) for array in (mean, scale, log_scale)]


@jax.jit
def _sums(
    means: Float[Array, "block latent image"],
    scales: Float[Array, "block latent image"],
    log_scales: Float[Array, "block latent image"],
    own_mean: Float[Array, "sample latent"],
    own_offset: Float[Array, "sample latent"],
    own_log_density: Float[Array, "sample latent"],
) -> tuple[Float[Array, " sample"], Float[Array, "sample latent"]]:
    """Sums over images k of q(z|x_k) / q(z|x_i), and of q(z_j|x_k) / q(z_j|x_i) for each latent.

    Relative to the density that z was drawn from, sums that count it are at least 1, and a ratio
    exceeds t with probability 1/t at most, as its mean is 1: single precision suffices for both. It
    would not for (z - m)^2 multiplied out, as a matrix product, where posteriors are narrow.
    """
    mean, offset, density = (x[:, :, None] for x in (own_mean, own_offset, own_log_density))

    def add(sums, block):
        m, scale, log_scale = (x[None] for x in block)
        log_ratio = log_scale - density - (((mean - m) + offset) * scale) ** 2
        joint = jnp.exp(log_ratio.sum(axis=1)).sum(axis=1)
        return (sums[0] + joint, sums[1] + jnp.exp(log_ratio).sum(axis=2)), None

    zero = jnp.zeros(own_mean.shape[0]), jnp.zeros(own_mean.shape)
    return jax.lax.scan(add, zero, (means, scales, log_scales))[0]


def _sentence(found: Decomposition) -> str:
    latents, active = len(found.kl_per_latent), found.active_latents
    if not active:
        return f"No latent is active ({ACTIVE}): the code says next to nothing of the image."
    # None of the three is negative, but an average over draws may be.
    information, dependence, distance = (
        max(term, 0.0)
        for term in (found.mutual_information, found.total_correlation, found.dimension_wise_kl)
    )
    words = (
        f"{active} of {latents} latents are active ({ACTIVE}). The KL is {found.kl:.2f} nats, of "
        f"which about {information:.2f} tell images apart, {dependence:.2f} are dependence between "
        f"latents and {distance:.2f} distance of single latents from the prior."
    )
    ceiling = math.log(found.points)
    if found.points > 1 and information > NEAR_CEILING * ceiling:
        words += (
            f" The information is near its ceiling, log {found.points} = {ceiling:.2f}: what the "
            "code tells beyond that counts as dependence."
        )
    return words
