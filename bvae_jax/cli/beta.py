"""`bvae beta`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from bvae_jax.beta_units import CONVENTIONS, KLD_WEIGHT, convert_beta
from bvae_jax.cli.parsing import parse

KNOWN = ", ".join(CONVENTIONS)


@dataclass(frozen=True)
class BetaArgs:
    """Say what one code's beta is in ours and in other codes."""

    source: Annotated[str, tyro.conf.arg(name="from", help=f"Convention of VALUE: {KNOWN}.")]
    value: float
    """Beta (or sigma) in that convention."""
    to: str | None = None
    """Print the value in this convention only; without it, in all."""
    height: int = 64
    """Pixels in a column of an image."""
    width: int = 64
    """Pixels in a row."""
    channels: int = 1
    """1: grey, 3: RGB."""
    latents: int = 10
    """Number of latents."""
    kld_weight: float = KLD_WEIGHT
    """PyTorch-VAE's second factor of KL."""


def beta(argv: Sequence[str]) -> int:
    """`bvae beta`."""
    args = parse(BetaArgs, argv, "bvae beta")
    names = list(CONVENTIONS) if args.to is None else [args.to]
    sizes = {"height": args.height, "width": args.width, "channels": args.channels}
    sizes |= {"latents": args.latents}
    values = {
        name: convert_beta(args.value, args.source, name, kld_weight=args.kld_weight, **sizes)
        for name in names
    }
    if args.to is not None:
        print(f"{values[args.to]:.10g}")
        return 0
    rows = [("convention", "value", "loss", "used by")]
    for name, value in values.items():
        rows.append((name, f"{value:.6g}", CONVENTIONS[name].loss, CONVENTIONS[name].used_by))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())
    pixels = args.height * args.width * args.channels
    print(
        f"\nNLL = -log p(x|z) and SE = squared error: sums over N = {pixels} pixels in [0, 1]."
        "\nNLL = SE/2 for a Gaussian of sigma 1."
        f"\nKL: sum over M = {args.latents} latents, nats. w = {args.kld_weight:g}."
    )
    return 0
