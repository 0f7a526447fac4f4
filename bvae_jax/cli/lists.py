"""`bvae list`: what there is, from the registries; and `bvae beta`."""

import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from bvae_jax.beta_units import CONVENTIONS, KLD_WEIGHT, convert_beta
from bvae_jax.cli.data import show_all
from bvae_jax.cli.flags import Flag, Flags, of_function, parse
from bvae_jax.config import FIELDS, flag
from bvae_jax.runtime import fatal

WIDTH = 100
Lines = Iterator[tuple[str, ...]]
"""A name, and paragraphs about it."""


def objectives() -> Lines:
    """What is minimised, hyperparameters with their defaults, reference."""
    from bvae_jax.objectives import OBJECTIVES

    for name, objective in OBJECTIVES.items():
        schedules = {f"{n}_schedule": schedule for n, schedule in objective.schedules.items()}
        settings = {**objective.hyper, **schedules}
        flags = {n: value for n, value in settings.items() if n in FIELDS}
        if own := " ".join(f"{n}={value:g}" for n, value in settings.items() if n not in FIELDS):
            flags["hyper"] = own
        yield name, objective.formula, _flags(flags), objective.reference


def presets() -> Lines:
    """Where they come from, and their settings."""
    from bvae_jax.presets import PRESETS

    for name, preset in PRESETS.items():
        unsure = f"Not sure: {preset.unsure}." if preset.unsure else ""
        yield name, preset.source, _flags(preset.settings), unsure


def metrics() -> Lines:
    """Definition and reference."""
    from bvae_jax.metrics import METRICS

    for name, metric in METRICS.items():
        yield name, metric.definition, metric.reference


def networks() -> Lines:
    """Layers and source."""
    from bvae_jax.networks import NETWORKS

    for name, network in NETWORKS.items():
        yield name, *(inspect.getdoc(network) or "").split("\n\n")[:2]


def likelihoods() -> Lines:
    """Density or probability, and own parameters."""
    from bvae_jax.likelihoods import LIKELIHOODS, make_likelihood

    for name in LIKELIHOODS:
        found = make_likelihood(name, 1.0)
        kind = "density of pixels in [0, 1]" if found.density else "probability of pixels"
        own = ", ".join(name for name, _ in found.own)
        yield name, kind, f"learns {own}" if own else ""


KINDS: dict[str, Callable[[], Lines]] = {
    "objectives": objectives,
    "presets": presets,
    "metrics": metrics,
    "networks": networks,
    "likelihoods": likelihoods,
}
DATASETS = "datasets"


def list_flags() -> Flags:
    """Those of `bvae list`."""
    kind = Literal["objectives", "presets", "metrics", "networks", "likelihoods", "datasets"]
    return {"kind": Flag(kind, "What to list. Not given: the names of all.", positional=True)}


def list_(argv: Sequence[str]) -> int:
    """List objectives, presets, metrics, networks, likelihoods or data sets, your own as well."""
    given = parse(argv, "bvae list", list_.__doc__, list_flags)
    with fatal():
        from bvae_jax.data import DATASETS as drawn

    if given.get("kind") == DATASETS:
        show_all("")
    elif "kind" in given:
        for name, *paragraphs in KINDS[given["kind"]]():
            print(name)
            for text in filter(None, paragraphs):
                print(_wrapped(text))
    else:
        for kind, lines in KINDS.items():
            print(kind, _wrapped(", ".join(name for name, *_ in lines())), sep="\n")
        print(DATASETS, _wrapped(", ".join(drawn) + ", ...: see bvae list datasets"), sep="\n")
    return 0


def _flags(values: Mapping[str, object]) -> str:
    """Settings as they are typed."""
    texts = {n: f"{v:g}" if isinstance(v, float | int) else v for n, v in values.items()}
    return " ".join(f"{flag(name)} {text}" for name, text in texts.items())


def _wrapped(text: str) -> str:
    lines = textwrap.wrap(text, WIDTH - 4, break_on_hyphens=False)
    return textwrap.indent("\n".join(lines), " " * 4)


SIZES = {"height": 64, "width": 64, "channels": 1, "latents": 10}
"""Those of dSprites and 10 latents."""


def beta_flags() -> Flags:
    """Those of `bvae beta`."""
    flags = of_function(convert_beta, "source", "target")
    sizes = {name: flags[name]._replace(default=size) for name, size in SIZES.items()}
    source = f"Convention of VALUE: {', '.join(CONVENTIONS)}."
    to = "Print the value in this convention only. Not given: in all."
    return {
        "from": Flag(str, source, required=True),
        "value": flags["value"]._replace(required=True),
        "to": Flag(str, to),
        **sizes,
        "kld_weight": flags["kld_weight"],
    }


def beta(argv: Sequence[str]) -> int:
    """Say what one code's beta is in ours and in other codes."""
    given = parse(argv, "bvae beta", beta.__doc__, beta_flags)
    source, value, to = given.pop("from"), given.pop("value"), given.pop("to", None)
    sizes = SIZES | given
    names = list(CONVENTIONS) if to is None else [to]
    values = {name: convert_beta(value, source, name, **sizes) for name in names}
    if to is not None:
        print(f"{values[to]:.10g}")
        return 0
    rows = [("convention", "value", "loss", "used by")]
    for name, value in values.items():
        rows.append((name, f"{value:.6g}", CONVENTIONS[name].loss, CONVENTIONS[name].used_by))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())
    pixels = sizes["height"] * sizes["width"] * sizes["channels"]
    weight = sizes.get("kld_weight", KLD_WEIGHT)
    print(
        f"\nNLL = -log p(x|z) and SE = squared error: sums over N = {pixels} pixels in [0, 1]."
        "\nNLL = SE/2 for a Gaussian of sigma 1."
        f"\nKL: sum over M = {sizes['latents']} latents, nats. w = {weight:g}."
    )
    return 0
