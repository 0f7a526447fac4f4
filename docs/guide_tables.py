"""The tables of the guide that are generated from the registries.

`python docs/guide_tables.py` updates them in docs/*.md, each between its two comments:

    <!-- table: metrics -->
    <!-- end -->
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import jax

from bvae_jax.cli.data import FORMS
from bvae_jax.config import flag
from bvae_jax.data.catalogue import (
    KNOWN,
    all_entries,
)
from bvae_jax.likelihoods import LIKELIHOODS
from bvae_jax.metrics import METRICS
from bvae_jax.networks import NETWORKS, make_network
from bvae_jax.objectives import OBJECTIVES
from bvae_jax.presets import PRESETS
from bvae_jax.vae import VAE, init_params

GUIDE = Path(__file__).parent
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
SHAPE, LATENTS = (64, 64, 1), 10
"""Sizes at which the parameters of networks are counted."""

Row = tuple[str, ...]


def table(head: Row, rows: Iterable[Row]) -> str:
    """A table in Markdown; `|` in a cell is escaped."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )


def paragraphs(described: object) -> list[str]:
    """The paragraphs of a docstring, each on one line."""
    return [" ".join(part.split()) for part in (inspect.getdoc(described) or "").split("\n\n")]


def objectives() -> str:
    """What is minimised, its hyperparameters with their defaults, and the paper."""

    def row(name: str) -> Row:
        objective = OBJECTIVES[name]
        hyper = ", ".join(f"`{flag(n)} {value:g}`" for n, value in objective.hyper.items())
        return f"`{name}`", objective.formula, hyper, objective.reference

    head = ("`--objective`", "what is minimised", "hyperparameters", "from")
    return table(head, map(row, OBJECTIVES))


def presets() -> str:
    """Where settings come from, and what is uncertain."""
    rows = ((f"`{name}`", preset.source, preset.unsure) for name, preset in PRESETS.items())
    return table(("`--preset`", "source", "not sure"), rows)


DIFFERS, NUMBER = "Where it differs: ", "A number: "


def differences() -> str:
    """Where a metric is not what its paper or the best known code computes, from its docstring."""

    def rows() -> Iterator[Row]:
        for name, metric in METRICS.items():
            for text in paragraphs(metric.function):
                if text.startswith(DIFFERS):
                    said = text.removeprefix(DIFFERS)
                    yield (
                        f"`{name}`",
                        f"{said[0].upper()}{said[1:]}",
                        "yes" if metric.compat else "",
                    )

    return table(("metric", "where it differs", "theirs by `--compat`"), rows())


def numbers() -> str:
    """What each metric makes of a factor that is a number, from its docstring."""

    def rows() -> Iterator[Row]:
        for name, metric in METRICS.items():
            for text in paragraphs(metric.function):
                if text.startswith(NUMBER):
                    said = text.removeprefix(NUMBER)
                    yield f"`{name}`", f"{said[0].upper()}{said[1:]}"
        others = [
            n for n, m in METRICS.items() if "factors" in m.takes and "numbers" not in m.takes
        ]
        yield ", ".join(f"`{name}`" for name in others), "20 bins, as above."

    return table(("metric", "what it makes of a number"), rows())


def metrics() -> str:
    """Definitions; the fast ones are marked."""

    def row(name: str) -> Row:
        metric = METRICS[name]
        return f"`{name}`" + " ⚡" * metric.fast, metric.definition, metric.reference

    return table(("`--metrics` (⚡: `fast`)", "what it is", "from"), map(row, METRICS))


def networks() -> str:
    """The first two paragraphs of each docstring, and the number of parameters."""

    def row(name: str) -> Row:
        model = VAE(*make_network(name, LATENTS, SHAPE, 1), LIKELIHOODS["bernoulli"](1.0))
        params = jax.eval_shape(lambda: init_params(model, SHAPE, jax.random.key(0)))
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        what, source, *_ = paragraphs(NETWORKS[name])
        return f"`{name}`", what.rstrip("."), source.rstrip("."), f"{count:,}"

    head = ("`--network`", "encoder and decoder", "from", "parameters")
    return table(head, map(row, NETWORKS))


def likelihoods() -> str:
    """The first paragraph of the docstring of each log-likelihood."""

    def row(name: str) -> Row:
        log_prob = LIKELIHOODS[name](1.0).log_prob
        return f"`{name}`", paragraphs(getattr(log_prob, "func", log_prob))[0].rstrip(".")

    return table(("`--likelihood`", "p(x|z) of a pixel"), map(row, LIKELIHOODS))


RENDERED = {
    "dsprites": "dSprites, rendered instead of downloaded",
    "color_dsprites": "Color dSprites: each sprite in a random colour, on black",
    "noisy_dsprites": "Noisy dSprites: white sprites on coloured noise",
    "scream_dsprites": "Scream dSprites: sprites that invert a random part of a picture",
    "shapes3d_render": "3D Shapes, rendered instead of downloaded: an approximation",
    "xy_squares": "XY-squares: three squares that move by whole widths, so that pixel distances "
    "say nothing",
}
"""What each rendered data set is."""


def datasets() -> str:
    """Rendered data sets, those known by name, and your own."""
    about = RENDERED | {known.name: known.citation for known in KNOWN}
    rows = [
        (f"`{e.name}`", about[e.name], f"{e.images:,} of {'×'.join(map(str, e.shape))}",
         ", ".join(e.factors))
        for e in all_entries(Path("nowhere"))
    ]  # fmt: skip
    rows += [(f"`{form}`", meaning, "", "") for form, meaning in FORMS.items()]
    return table(("`--dataset`", "what it is", "images", "factors"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "objectives": objectives,
    "presets": presets,
    "differences": differences,
    "metrics": metrics,
    "numbers": numbers,
    "networks": networks,
    "likelihoods": likelihoods,
    "datasets": datasets,
}


def refreshed(text: str) -> str:
    """`text` with every table up to date."""
    return BLOCK.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}{found[3]}", text)


if __name__ == "__main__":
    for page in GUIDE.glob("*.md"):
        page.write_text(refreshed(page.read_text()))
