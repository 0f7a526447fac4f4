"""The table of optimizers: optax's, without the learning rate, which is a traced hyperparameter."""

from collections.abc import Callable

import optax

from bvae_jax.errors import unknown

NUMBERS = ("adam_b1", "adam_b2", "momentum", "weight_decay")
"""What optimizers take, by name; each takes what it knows."""
Numbers = dict[str, float]


def _adam(numbers: Numbers) -> optax.GradientTransformation:
    """Kingma & Ba, 2015."""
    return optax.scale_by_adam(numbers["adam_b1"], numbers["adam_b2"])


def _adamw(numbers: Numbers) -> optax.GradientTransformation:
    """Adam with decoupled weight decay. Loshchilov & Hutter, 2019."""
    return optax.chain(_adam(numbers), optax.add_decayed_weights(numbers["weight_decay"]))


def _adagrad(numbers: Numbers) -> optax.GradientTransformation:
    """Duchi et al., 2011; sums of squares start at 0.1."""
    del numbers
    return optax.scale_by_rss()


def _sgd(numbers: Numbers) -> optax.GradientTransformation:
    """Gradient descent, with momentum where it is not 0."""
    momentum = numbers["momentum"]
    return optax.trace(momentum) if momentum else optax.identity()


OPTIMIZERS: dict[str, Callable[[Numbers], optax.GradientTransformation]] = {
    "adam": _adam,
    "adamw": _adamw,
    "adagrad": _adagrad,
    "sgd": _sgd,
}


def make_optimizer(
    name: str, numbers: Numbers, clip_norm: float = 0.0
) -> optax.GradientTransformation:
    """The named optimizer; a step is minus the learning rate times what it returns.

    Args:
        numbers: all of `NUMBERS`.
        clip_norm: largest global norm of the gradient; 0 for no limit.

    Raises:
        UserError: the name is not known.
    """
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    optimizer = OPTIMIZERS[name](numbers)
    return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer) if clip_norm else optimizer
