"""What a run learned nothing by, if it did: numbers in, a line for each fault out.

A run whose numbers are finite ends without an error whatever it learned. These checks take what the
evaluation has computed anyway, and one more thing: how well the mean picture does.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bvae_jax.elbo import ACTIVE
from bvae_jax.likelihoods.base import Likelihood, Own
from bvae_jax.runs.loggers import Record
from bvae_jax.runs.trainer import TRAIN_EVAL, Trainer
from bvae_jax.types import Images, Params
from bvae_jax.vae import decode_raw

ERRORS = 3.0
"""Standard errors by which two numbers differ."""
LARGE = 1.0
"""KL in nats from which on it should tell images apart."""
LITTLE = 0.1
"""Part of what the information could be below which it is next to nothing."""
FEW = 1.1
"""Values of a codebook, so many being used on average over latents, that tell next to nothing."""
ALIKE = 1 / 255
"""Standard deviation of every pixel up to which images are all alike: a grey level."""
IMAGES = 1024
"""Of which the mean picture is taken; it is compared with twice as many."""
STEEPEST = 16.0
"""The mean picture's logits lie within +- this."""

Faults = dict[str, str]
"""What is wrong, in two or three words -> the line that says so, and what to do."""


class MeanPicture(NamedTuple):
    """The best that can be drawn without looking: each pixel's mean over training images.

    Attributes:
        nll: of evaluation images by it, nats per image.
        error: its standard error.
        contrast: the largest standard deviation of a pixel over training images.
        gain: computes how much less the same images cost the run, drawn from their mean codes, and
            the standard error of that; image by image, which tells more than two means do.
    """

    nll: float
    error: float
    contrast: float
    gain: Callable[[], tuple[float, float]] | None = None


def find_faults(
    evaluation: Mapping[str, Any],
    batch: int,
    mean_picture: MeanPicture | None,
    records: Sequence[Record] = (),
) -> Faults:
    """What a run learned nothing by; empty for a healthy one.

    Args:
        evaluation: its last one: `nll` and `nll_error`, of a posterior `kl`, `information` and
            `active_latents`, of a codebook `values_used`.
        batch: images among which `information` is, so that it is log `batch` at most.
        mean_picture: None where it is not known.
        records: of the run; those of evaluations are compared.
    """
    checks = (
        _no_better_than(mean_picture, evaluation) if mean_picture else (),
        _uninformed(evaluation, batch),
        _unused_codebook(evaluation),
        _overfitted(records),
    )
    return {name: line for check in checks for name, line in check}


def _no_better_than(picture: MeanPicture, evaluation: Mapping[str, Any]) -> Iterator[Any]:
    nll, paired = evaluation["nll"], ""
    gain = picture.nll - nll
    error = math.hypot(evaluation.get("nll_error", math.inf), picture.error)
    if math.isinf(error):  # of one image there is none
        return
    if picture.gain and 0 < gain <= ERRORS * error:
        gain, error = picture.gain()
        paired = f"; image by image it is {gain:.1f} below"
    margin = ERRORS * error
    if gain > margin:
        return
    advice = "Train for more steps, or weigh the KL less (beta)."
    if "kl" not in evaluation:
        advice = "Train for more steps, or try another learning rate."
    if held := _held(evaluation):
        advice = f"Train for more steps: {held}."
    if gain < -margin:
        advice = "Lower the learning rate, or train for more steps."
    if picture.contrast <= ALIKE:
        advice = (
            "No pixel of the training images varies by more than a grey level: look at the data "
            "and their scale, white is 1 (bvae data show)."
        )
    yield (
        "no better than the mean picture",
        f"{'hardly anything' if gain > 0 else 'nothing'} was learned of the images: nll {nll:.1f} "
        f"is not below that of the training images' mean picture, {picture.nll:.1f}, by "
        f"{ERRORS:g} standard errors ({margin:.1f}{paired}). {advice}",
    )


def _held(evaluation: Mapping[str, Any]) -> str:
    """That an objective holds the KL near 0 still, where one does."""
    capacity = evaluation.get("capacity", math.inf)
    if capacity >= LARGE:
        return ""
    return (
        f"the KL is held at C = {capacity:.3g} nats at this step (capacity, and capacity_schedule, "
        "by which it grows)"
    )


def _uninformed(evaluation: Mapping[str, Any], batch: int) -> Iterator[Any]:
    if "information" not in evaluation or batch < 2:
        return
    kl, information, most = evaluation["kl"], evaluation["information"], math.log(batch)
    alike = kl >= LARGE and information < LITTLE * min(kl, most)
    if alike:
        yield (
            "KL without information",
            f"the KL of {kl:.1f} nats tells nothing: images and codes share "
            f"{max(0, information):.2f} nats (of {batch} images they could share log "
            f"{batch} = {most:.1f}). Posteriors are alike for all images: let the KL cost less at "
            "first (a smaller weight, or a slower schedule of it), or lower the learning rate.",
        )
    if not evaluation["active_latents"]:
        collapsed = (
            "the posterior has collapsed. Weigh the KL less (mostly beta), or let the weight grow "
            "from 0 (beta_schedule linear:steps=N)"
        )
        why = "posteriors are alike for all images" if alike else _held(evaluation) or collapsed
        yield "no active latents", f"no latent is active ({ACTIVE}; KL {kl:.2f} nats): {why}."


def _unused_codebook(evaluation: Mapping[str, Any]) -> Iterator[Any]:
    used = evaluation.get("values_used", math.inf)
    if used < FEW:
        yield (
            "unused codebook",
            f"of each latent's codebook {used:.2f} values are used (exp of their entropy; 1: all "
            "codes are alike): codes tell next to nothing. Give less weight decay, or lower the "
            "learning rate.",
        )


def _overfitted(records: Sequence[Record]) -> Iterator[Any]:
    """Held-out nll rose since its best evaluation, and more than that of training images."""
    evaluated: dict[str, dict[int, Record]] = {TRAIN_EVAL: {}, "holdout": {}}
    for record in records:
        evaluated.get(record["split"], {})[record["step"]] = record
    trained, held = evaluated.values()
    steps = sorted(trained.keys() & held.keys())
    if len(steps) < 2 or "nll_error" not in held[steps[-1]]:
        return
    last, best = steps[-1], min(steps, key=lambda step: held[step]["nll"])
    rise = held[last]["nll"] - held[best]["nll"]
    more = rise - max(0.0, trained[last]["nll"] - trained[best]["nll"])
    if more > ERRORS * held[last]["nll_error"]:
        yield (
            "held-out nll rises",
            f"held-out nll rose from {held[best]['nll']:.1f} at step {best} to "
            f"{held[last]['nll']:.1f} at step {last}, that of training images did not: the run "
            "overfits. Train for fewer steps, on more images, or with a larger beta.",
        )


def look_at_mean_picture(trainer: Trainer, params: Params) -> MeanPicture | None:
    """How well the mean of up to 1024 training images draws up to 2048 evaluation images.

    None where the likelihood has no such picture: where a pixel has several parameters.

    Args:
        params: the VAE's; of the mean picture the likelihood's own count.
    """
    model, source, shape = trainer.model, trainer.source, trainer.dataset.image_shape
    likelihood = model.likelihood
    if likelihood.parameters(shape[-1]) != shape[-1]:
        return None
    own = {name: params[name] for name, _ in likelihood.own}
    see = _seeing(source.look, likelihood)

    def seen(batches: np.ndarray, draw: Callable[[np.ndarray], Any]) -> list[np.ndarray]:
        found = [see(source.reach(rows), rows, draw(rows), own) for rows in batches]
        return [np.array(parts, np.float64) for parts in zip(*found, strict=True)]

    def gain() -> tuple[float, float]:
        *_, by_run = seen(
            shown, lambda rows: _decode(model, params, trainer.encode(params, rows).mean)
        )
        less = nll - by_run
        return float(less.mean()), float(less.std() / math.sqrt(less.size))

    size, train = trainer.eval_indices.shape[1], trainer.split.train
    count = -(-min(IMAGES, len(train)) // size) * size
    chosen = np.random.default_rng(0).choice(train, count, replace=count > len(train))
    black = jnp.zeros((1, *shape))
    found = seen(chosen.reshape(-1, size), lambda _: black)
    mean, square = (of.mean(axis=0) for of in found[:2])
    # As if half an image more were white: a pixel that was never lit may be.
    drawn = jnp.float32(_drawing(likelihood, (count * mean + 0.5) / (count + 1)))[None]
    shown = trainer.eval_indices[: max(1, 2 * IMAGES // size)]
    *_, nll = seen(shown, lambda _: drawn)
    contrast = math.sqrt(max(0.0, (square - mean**2).max()))
    return MeanPicture(float(nll.mean()), float(nll.std() / math.sqrt(nll.size)), contrast, gain)


_decode = jax.jit(decode_raw, static_argnums=0)


@functools.lru_cache(4)
def _seeing(look: Callable[..., Images], likelihood: Likelihood) -> Callable[..., Any]:
    """A batch's mean picture and that of its squares, and each image's nll by what is drawn."""

    @jax.jit
    def see(arrays: Any, rows: jax.Array, decoded: jax.Array, own: Own) -> tuple[jax.Array, ...]:
        images = look(arrays, rows)
        drawn = jnp.broadcast_to(decoded, images.shape)
        nll = -likelihood.log_prob(drawn, images, own)
        return images.mean(axis=0), jnp.square(images).mean(axis=0), nll

    return see


def _drawing(
    likelihood: Likelihood, picture: Float[np.ndarray, "height width channels"]
) -> np.ndarray:
    """The decoder's numbers whose mean image is a picture, by bisection within +- `STEEPEST`."""
    low, high = np.full(picture.shape, -STEEPEST), np.full(picture.shape, STEEPEST)
    for _ in range(30):
        middle = (low + high) / 2
        below = np.asarray(likelihood.mean(jnp.asarray(middle[None], jnp.float32)))[0] < picture
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return low
