"""Gates: one network for every β of a range.

    gate = g(slope · b + offset),   b = √3 (2 log β − log low − log high) / (log high − log low)

multiplies each pre-activation, channel by channel; b has mean 0 and variance 1 where log β is
uniform in the range. g is the sigmoid in the encoder and √max(0, 1 − exp(·)) in the decoder, as in
the best linear autoencoder of each β. What no activation follows has no gate: the heads and the
decoder's output.

For one β a gate is a number for each channel. `Rates.at` multiplies it into the layer's kernel and
bias, and what comes out are the parameters of the network without gates.

Bae et al., "Multi-Rate VAE: Train Once, Get the Full Rate-Distortion Curve", ICLR 2023, section 3.
"""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bvae_jax.errors import UserError
from bvae_jax.types import Params, PerImage, PRNGKey

Function = Callable[[Array], Array]
CLOSED = -1e-4
"""From here on a gate of the decoder is shut: nearer to 0 the root's slope grows without bound."""
OFFSETS = {"sigmoid": 2.0, "sqrt": -2.0}
"""First offsets: at a middle β gates begin nearly open, at .88 and .93."""


def slopes(key: PRNGKey, shape: tuple[int, ...]) -> Array:
    """First slopes, uniform on ±1, as the authors have them; half of the channels open with β."""
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)


def root(x: Array) -> Array:
    """√max(0, 1 − exp(x)), elementwise."""
    is_open = x < CLOSED
    return jnp.where(is_open, jnp.sqrt(-jnp.expm1(jnp.where(is_open, x, -1.0))), 0.0)


FUNCTIONS: Mapping[str, Function] = {"sigmoid": jax.nn.sigmoid, "sqrt": root}


class Rates(NamedTuple):
    """The β that a network with gates is for.

    Attributes:
        low, high: the range.
        decoder: function of the decoder's gates, one of `FUNCTIONS`; the encoder's is the sigmoid.
    """

    low: float
    high: float
    decoder: str = "sqrt"

    def function(self, part: str) -> str:
        """The name of the gates' function in "encoder" or "decoder"."""
        return self.decoder if part == "decoder" else "sigmoid"

    def level(self, beta: Any) -> Array:
        """b: what gates are computed from; 0 where the range has one β only."""
        low, high = math.log(self.low), math.log(self.high)
        middle, half = (low + high) / 2, (high - low) / 2
        return (jnp.log(beta) - middle) * (math.sqrt(3) / half if half else 0.0)

    def draw(self, key: PRNGKey, images: int) -> PerImage:
        """A β for each image, log β uniform in the range."""
        low, high = math.log(self.low), math.log(self.high)
        return jnp.exp(jax.random.uniform(key, (images,), minval=low, maxval=high))

    def check(self, beta: float, name: str) -> None:
        """Refuse a β outside the range.

        Args:
            name: what the user calls it.

        Raises:
            UserError: it is outside.
        """
        if not self.low <= beta <= self.high:
            raise UserError(
                f"{name}: got {beta:g}, wanted a β from {self.low:g} to {self.high:g}, for which "
                "the run was trained (--multi-rate)."
            )

    def at(self, params: Params, beta: Any) -> Params:
        """The parameters of the network without gates that does what this one does at one β.

        Args:
            params: the VAE's, with gates.
        """
        level = self.level(beta)

        def plain(tree: Any, function: Function) -> Any:
            if not isinstance(tree, Mapping):
                return tree
            if "gate_slope" not in tree:
                return {name: plain(branch, function) for name, branch in tree.items()}
            gate = function(tree["gate_slope"] * level + tree["gate_offset"])
            kernel = tree["kernel"]
            wide = jnp.broadcast_to(gate, kernel.shape)
            return {"kernel": kernel * wide, "bias": tree["bias"] * gate.ravel()}

        return {part: plain(tree, FUNCTIONS[self.function(part)]) for part, tree in params.items()}


def rates_of(text: str, decoder: str = "sqrt") -> Rates | None:
    """The range that a text such as "0.5:16" names; None of "".

    Raises:
        UserError: it names none.
    """
    if not text:
        return None
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        low = high = math.nan
    if not 0 < low <= high < math.inf:
        raise UserError(f"--multi-rate: got {text!r}, wanted LOW:HIGH, two β above 0, as 0.5:16.")
    return Rates(low, high, decoder)


class _Here(NamedTuple):
    """What the layers that are being called gate by."""

    level: Float[Array, " image"]
    function: str


_here: contextvars.ContextVar[_Here | None] = contextvars.ContextVar("gates", default=None)


@contextlib.contextmanager
def gates(here: _Here | None) -> Iterator[None]:
    """Inside, layers gate what they return; see `gates_of`."""
    token = _here.set(here)
    try:
        yield
    finally:
        _here.reset(token)


def gates_of(
    rates: Rates | None, part: str, beta: PerImage | None
) -> contextlib.AbstractContextManager[None]:
    """Inside, the layers of "encoder" or "decoder" gate what they return.

    Args:
        rates: None of a network without gates.
        beta: of each image of the batch that goes through them.
    """
    if rates is None:
        return gates(None)
    if beta is None:
        raise ValueError("A network with gates wants a β for each image.")
    return gates(_Here(rates.level(beta), rates.function(part)))


def gates_of_parts(parts: int) -> Iterator[contextlib.AbstractContextManager[None]]:
    """The same for each of equal parts of the batch, one after another."""
    here = _here.get()
    levels = jnp.split(here.level, parts) if here else [None] * parts
    yield from (gates(here and here._replace(level=level)) for level in levels)


def gated(layer: nn.Module, y: Array, channels_first: bool = False) -> Array:
    """What a layer returns, times its gates where there are any; to be called as its last act.

    Args:
        y: [batch or a multiple, ..., channel]; rows that belong to an image follow each other.
        channels_first: the kernel is [..., channel, input] and not [..., input, channel]: the
            gates' parameters are shaped so that they multiply it.
    """
    here = _here.get()
    if here is None:
        return y
    channels = y.shape[-1]
    shape = (channels, 1) if channels_first else (channels,)
    offset = nn.initializers.constant(OFFSETS[here.function])
    slope, offset = (
        layer.param("gate_slope", slopes, shape),
        layer.param("gate_offset", offset, shape),
    )
    by_image = here.level[:, None] * slope.ravel()[None] + offset.ravel()[None]
    gate = FUNCTIONS[here.function](by_image).astype(y.dtype)
    return (y.reshape(len(gate), -1, channels) * gate[:, None]).reshape(y.shape)
