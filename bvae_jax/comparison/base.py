"""What the comparison of a sweep's members is made from."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from bvae_jax.comparison.statistics import Range
from bvae_jax.errors import UserError
from bvae_jax.likelihoods import make_likelihood
from bvae_jax.metrics import METRICS
from bvae_jax.metrics.scoring import headline
from bvae_jax.runs.loggers import Record
from bvae_jax.runs.sweepdir import SweepConfig

TRAINING = dict.fromkeys(("nll", "kl", "elbo", "active_latents"), "")
ELBO_PARTS = dict.fromkeys(("mutual_information", "total_correlation", "dimension_wise_kl"), "")
GAPS = dict.fromkeys(("nll_gap", "mse_gap"), "")
"""Of excluded combinations: their NLL and squared error less those of training images. No setting
wins: one that has learnt nothing has no gap."""
CORRELATED = dict.fromkeys(("mig_correlated", "entanglement", "entanglement_others"), "")
"""Of correlated draws, and of the pairs that were correlated. No setting wins: latents that know
next to nothing may share it."""
OPTIMISED = ("unsupervised/gaussian_total_correlation",)
"""What objectives weigh or optimise by construction, so that no setting wins by it: β = 1 is the
ELBO, the smallest β has the best likelihood, the largest the least KL and total correlation."""

NAMES: Mapping[str, str] = {
    "nll": "NLL",
    "nll_gap": "NLL gap",
    "mse_gap": "squared error gap",
    "nll_all": "NLL, all images alike",
    "nll_correlated": "NLL, correlated draws",
    "mig_correlated": "MIG, correlated draws",
    "entanglement": "entanglement of the pair",
    "entanglement_others": "entanglement of other pairs",
    "kl": "KL",
    "elbo": "ELBO",
    "dimension_wise_kl": "dimension-wise KL",
    "beta_vae_score": "BetaVAE",
    "factor_vae_score": "FactorVAE",
    "mig": "MIG",
    "mig_chen": "MIG (Chen)",
    "mig_sup": "MIG-sup",
    "jemmig": "JEMMIG",
    "rmig": "RMIG",
    "dcimig": "DCIMIG",
    "mcc": "MCC",
    "sap": "SAP",
    "sap_r2": "SAP (R²)",
    "dci/disentanglement": "DCI",
    "dci_es/explicitness": "DCI-ES",
    "irs": "IRS",
    "infomec/infom": "InfoM",
    "med": "MED",
    "unsupervised/gaussian_total_correlation": "Gaussian total correlation",
    "untrained": "untrained encoder",
    "pca": "PCA",
    "ica": "ICA",
    "vae": "VAE",
    "ae": "autoencoder",
    "beta_vae": "β-VAE",
    "annealed_vae": "annealed β-VAE",
    "beta_tcvae": "β-TCVAE",
    "factor_vae": "FactorVAE",
    "dip_vae_i": "DIP-VAE-I",
    "dip_vae_ii": "DIP-VAE-II",
    "info_vae": "InfoVAE",
    "control_vae": "ControlVAE",
    "lambda_beta_vae": "λβ-VAE",
    "hfs_vae": "β-VAE with HFS",
    "qlae": "QLAE",
    "ada_gvae": "Ada-GVAE",
    "ada_ml_vae": "Ada-ML-VAE",
    "dsprites": "dSprites",
    "shapes3d": "3D Shapes",
}
"""What scores, baselines, objectives and data sets are called in papers; others by their name."""
DIRECTIONS: Mapping[str, str] = {"nll": "low", "elbo": "high"}
"""The better end of scores that no setting wins, for their arrows."""
ARROWS = {"high": " ↑", "low": " ↓", "": ""}
UNITS: Mapping[str, str] = {
    **dict.fromkeys(
        ("nll", "kl", "elbo", "nll_gap", "nll_all", "nll_correlated"), "nats per image"
    ),
    "active_units": "latents",
    **dict.fromkeys(ELBO_PARTS, "nats"),
    "unsupervised/gaussian_total_correlation": "nats",
}
"""Of scores that are no pure numbers."""
PREFERRED = (
    "nll", "kl", "nll_gap", "mse_gap", "mig", "entanglement", "dci/disentanglement",
    "factor_vae_score", "sap_r2", "elbo", "active_latents", "mutual_information",
    "total_correlation",
)  # fmt: skip
"""Of these the first `MOST_COLUMNS` that are known are the columns of a paper's table."""
MOST_COLUMNS = 6
LEADING = ("mig", "dci/disentanglement", "factor_vae_score")
"""Scores that a reader asks for first: in the report's first paragraph, and how many seeds they
take."""


def name_of(score: str) -> str:
    """What something of `NAMES`, or another column, is called where people read it."""
    return NAMES.get(score) or score.replace("_", " ").replace("/", ": ")


def heading(score: str, better: str) -> str:
    """A score's name with an arrow to its better end.

    Args:
        better: "high", "low", or "" where no setting can win.
    """
    return name_of(score) + ARROWS[better or DIRECTIONS.get(score, "")]


def title_of(score: str, better: str) -> str:
    """The heading with the score's unit: above a figure's panel."""
    return heading(score, better) + (f" ({UNITS[score]})" if score in UNITS else "")


def find_scores(typed: Sequence[str], known: Collection[str], flag: str) -> tuple[str, ...]:
    """Columns by their names, or by the names of their metrics, as dci for dci/disentanglement.

    Raises:
        UserError: there is no such column, or none is named.
    """
    short = {name.split("/")[0]: name for name in known}
    strange = [name for name in typed if name not in known and name not in short]
    if strange or not typed:
        got = ", ".join(strange) or "none"
        raise UserError(f"{flag}: got {got}, wanted some of {', '.join(known)}.")
    return tuple(dict.fromkeys(name if name in known else short[name] for name in typed))


def default_scores(known: Collection[str]) -> tuple[str, ...]:
    """The columns of a paper's table, in the order of `known`."""
    chosen = [name for name in PREFERRED if name in known] or list(known)
    return tuple(name for name in known if name in chosen[:MOST_COLUMNS])


def is_metric(score: str) -> bool:
    """Whether a score tells of disentanglement."""
    return score not in TRAINING | ELBO_PARTS | GAPS | CORRELATED


@dataclass(frozen=True)
class Comparison:
    """Members of one sweep or several, and what is known of each.

    A setting is what members share that differ in their seed only, as "β = 4".

    Attributes:
        sweeps: those that members are of.
        varied: fields of `Config` that vary beside the seed, as ("beta",).
        settings: their labels, in the order of their values.
        members: a row for each finished member, by its name; columns `setting`, `seed`, those in
            `varied`, and numbers, among them `nll`, `kl`, `elbo` and all in `scores`.
        scores: columns that are compared, in the order of tables.
        better: score -> "high" or "low", or "" where neither is.
        ranges: score -> its smallest and largest possible value; not of all.
        baselines: columns `baseline` and those in `scores`, nan where a baseline has none; a
            baseline that depends on the seed has a row for each.
        kl_per_latent: member -> [latent], nats; without autoencoders, which have none.
        factor_scores: by member, a column for each factor: the share of its entropy that the best
            latent knows.
        records: member -> its metrics.jsonl.
        run_dirs: member -> its directory.
        failed: member -> why it is left out.
        missing: members that are not finished.
        warnings: member -> what is wrong with it in a few words, and a line that says so; without
            those that are well.
        images: of which ones the numbers are, a sentence; "" where that is not known.
    """

    sweeps: tuple[SweepConfig, ...]
    varied: tuple[str, ...]
    settings: tuple[str, ...]
    members: pd.DataFrame
    scores: tuple[str, ...]
    better: Mapping[str, str]
    baselines: pd.DataFrame
    kl_per_latent: Mapping[str, np.ndarray]
    factor_scores: pd.DataFrame
    records: Mapping[str, list[Record]] = field(repr=False)
    run_dirs: Mapping[str, Path]
    failed: Mapping[str, str]
    missing: tuple[str, ...]
    warnings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)
    images: str = ""


def known_scores(metrics: Iterable[str]) -> dict[str, str]:
    """Columns that can be compared, and whether "high" or "low" is better, or "" for neither."""
    better = {"high": "high", "low": "low"}
    headlines = {headline(name): better.get(METRICS[name].best, "") for name in metrics}
    return (
        TRAINING
        | GAPS
        | CORRELATED
        | ELBO_PARTS
        | headlines
        | {s: "" for s in OPTIMISED if s in headlines}
    )


def known_ranges(metrics: Iterable[str], likelihoods: Iterable[str]) -> dict[str, Range]:
    """The smallest and the largest value of each column that can be compared.

    Args:
        likelihoods: of the members. Where one is a density, nll and ELBO have no bound.
    """
    densities = any(make_likelihood(name, 1.0).density for name in likelihoods)
    at_least_0 = (0.0, math.inf)
    bounded = {} if densities else {"nll": at_least_0, "elbo": (-math.inf, 0.0)}
    others = dict.fromkeys(("kl", "active_latents", *ELBO_PARTS), at_least_0)
    return bounded | others | {headline(name): METRICS[name].range for name in metrics}
