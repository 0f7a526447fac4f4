"""What the figures of a comparison share: where settings stand, their colours, two formats."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bvae_jax.plots import scores as score_plots

STYLE: dict[Any, Any] = score_plots.STYLE | {"pdf.fonttype": 42}  # TrueType: text can be searched
LONGEST = 34  # characters of a setting's label; of longer ones the middle is left out
CHARACTERS = 60  # that a line takes at the size of tick labels
SEED: dict[str, Any] = {"linestyle": "", "marker": "o", "markeredgewidth": 0, "alpha": 0.5}
UNITS: Mapping[str, str] = {
    **dict.fromkeys(("nll", "kl", "elbo", "iwae", "loss"), "nats per image"),
    "bits_per_dim": "bits per dim",
    "active_units": "latents",
    **dict.fromkeys(("mutual_information", "total_correlation", "dimension_wise_kl"), "nats"),
    "unsupervised": "nats",
}
"""Of columns that are no pure numbers."""


class Setting(NamedTuple):
    """What runs share that differ in their seed only.

    Attributes:
        label: as "β = 4"; no two settings share one.
        value: of the field that varies, where that is one number.
    """

    label: str
    value: float | None


@contextlib.contextmanager
def panels(
    path: Path, heights: Sequence[float], columns: int = 1, sharex: bool = False
) -> Iterator[tuple[Figure, np.ndarray]]:
    """Axes of these heights in inches, in one figure that is saved as PATH.png and PATH.pdf.

    Heights may be changed inside where they follow from the width that is left to the axes.
    """
    png, pdf = (path.with_name(f"{path.name}.{kind}") for kind in ("png", "pdf"))
    with plt.rc_context(STYLE):
        with score_plots._panels(png, heights, columns, sharex) as (figure, axes):
            yield figure, axes
        figure.set_layout_engine("none")  # both formats have the same layout
        figure.savefig(pdf, metadata={"CreationDate": None})  # the same bytes every time


def colours(settings: Sequence[Setting]) -> Float[np.ndarray, "setting 4"]:
    """RGBA of each setting: in order, even in lightness, dark enough on white."""
    return plt.get_cmap("plasma")(np.linspace(0, 0.82, len(settings)))


def is_numeric(settings: Sequence[Setting]) -> bool:
    """Whether settings are increasing numbers."""
    values = np.array([s.value for s in settings], float)  # None becomes nan
    return bool(np.isfinite(values).all() and (np.diff(values) > 0).all())


def places(settings: Sequence[Setting]) -> Float[np.ndarray, " setting"]:
    """Where settings stand along x: their values, the logarithms of these, or 0, 1, 2, ...

    Logarithms are taken of positive values that spread over more than a decade.
    """
    if not is_numeric(settings):
        return np.arange(float(len(settings)))
    values = np.array([s.value for s in settings], float)
    return np.log10(values) if 0 < 10 * values[0] < values[-1] else values


def around(x: Float[np.ndarray, " setting"], number: int, count: int) -> np.ndarray:
    """Places of `count` seeds side by side around setting `number`, apart from its neighbours."""
    return x[number] + 0.3 * _pitch(x) * (
        np.linspace(-1, 1, count) if count > 1 else np.zeros(count)
    )


def put_settings(shared: Sequence[Axes], settings: Sequence[Setting], xlabel: str) -> None:
    """Ticks along x at the settings; to be called when all else is drawn.

    Names that do not fit side by side are turned; what still does not fit has a tick alone.

    Args:
        shared: axes of equal width with the same x.
    """
    x, numeric = places(settings), is_numeric(settings)
    names = [score_plots._short(s.label, LONGEST) for s in settings]
    labels = [f"{s.value:.4g}" for s in settings] if numeric else names
    axes = shared[0]
    axes.set_xticks(x, labels)
    edge = max(0.6 * _pitch(x), 0.04 * np.ptp(x))
    axes.set_xlim(x[0] - edge, x[-1] + edge)
    for each in shared:
        each.set_xlabel(xlabel)
    # Names far too long to stand side by side leave no width to the axes: turned before they do.
    turned = not numeric and len(shared) * sum(map(len, names)) > CHARACTERS
    kept = [False] if turned else free_labels(axes)
    if not numeric and not all(kept):
        for each in shared:
            each.tick_params(axis="x", labelrotation=90)
        kept = free_labels(axes)
    axes.set_xticks(x, [label if k else "" for label, k in zip(labels, kept, strict=True)])


def legend_of_settings(settings: Sequence[Setting], **look: Any) -> list[Line2D]:
    """A line for each setting in its colour."""
    names = [score_plots._short(s.label, LONGEST) for s in settings]
    pairs = zip(names, colours(settings), strict=True)
    return [Line2D([], [], color=colour, label=name, **look) for name, colour in pairs]


def by_setting(members: pd.DataFrame, settings: Sequence[Setting], column: str) -> list[np.ndarray]:
    """The column's numbers in each setting, by seed; an empty array where there is none."""
    ordered = members.sort_values("seed") if "seed" in members else members
    return [
        ordered.loc[ordered["setting"] == s.label, column].to_numpy(np.float64) for s in settings
    ]


def mean(values: Float[np.ndarray, "seed ..."]) -> np.ndarray:
    """Over seeds, without what is not finite; nan where nothing is left."""
    finite = np.isfinite(values)
    total = np.where(finite, values, 0).sum(axis=0)
    counts = finite.sum(axis=0)
    return np.where(counts, total / np.maximum(counts, 1), np.nan)


def _pitch(x: Float[np.ndarray, " setting"]) -> float:
    """How far settings are apart along x where that is least, or less where they are few."""
    return float(min(np.diff(x).min(), np.ptp(x) / 5)) if len(x) > 1 else 0.2


def free_labels(axes: Axes) -> list[bool]:
    """Which tick labels along x to keep so that each is apart from all that are kept before it."""
    texts = axes.get_xticklabels()
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    apart = 0.4 * figure.dpi / 72
    kept: list[bool] = []
    taken = []
    for text in texts:
        box = text.get_window_extent().padded(apart)
        kept.append(not any(box.overlaps(other) for other in taken))
        taken += [box] if kept[-1] else []
    return kept
