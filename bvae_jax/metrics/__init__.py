"""The metrics, each a function of arrays, and the table that the command line reads.

    bvae_jax.metrics.mig(codes, factors)["score"]

A new one is a function here and a line below, or, from outside, an entry of `METRICS`.
"""

from bvae_jax.metrics.base import Metric
from bvae_jax.metrics.dci import DCI, MED, dci, med
from bvae_jax.metrics.dci_es import DCI_ES, dci_es
from bvae_jax.metrics.downstream import DOWNSTREAM, downstream
from bvae_jax.metrics.infomec import INFOMEC, infomec
from bvae_jax.metrics.irs import IRS, irs
from bvae_jax.metrics.matching import (
    BETA_VAE_SCORE,
    FACTOR_VAE_SCORE,
    beta_vae_score,
    factor_vae_score,
)
from bvae_jax.metrics.mcc import MATCHED_INFORMATION, MCC, matched_information, mcc
from bvae_jax.metrics.mig import (
    DCIMIG,
    JEMMIG,
    MIG,
    MIG_CHEN,
    MIG_SUP,
    RMIG,
    dcimig,
    jemmig,
    mig,
    mig_chen,
    mig_sup,
    rmig,
)
from bvae_jax.metrics.modularity import EXPLICITNESS, MODULARITY, explicitness, modularity
from bvae_jax.metrics.sap import SAP, SAP_R2, sap, sap_r2
from bvae_jax.metrics.udr import UDR, udr
from bvae_jax.metrics.unsupervised import ACTIVE_UNITS, UNSUPERVISED, active_units, unsupervised

__all__ = [
    "METRICS",
    "Metric",
    "active_units",
    "beta_vae_score",
    "dci",
    "dci_es",
    "dcimig",
    "downstream",
    "explicitness",
    "factor_vae_score",
    "infomec",
    "irs",
    "jemmig",
    "matched_information",
    "mcc",
    "med",
    "mig",
    "mig_chen",
    "mig_sup",
    "modularity",
    "rmig",
    "sap",
    "sap_r2",
    "udr",
    "unsupervised",
]

METRICS: dict[str, Metric] = {
    metric.function.__name__: metric
    for metric in (
        BETA_VAE_SCORE,
        FACTOR_VAE_SCORE,
        MIG,
        MIG_CHEN,
        MIG_SUP,
        JEMMIG,
        RMIG,
        DCIMIG,
        MATCHED_INFORMATION,
        MCC,
        SAP,
        SAP_R2,
        DCI,
        DCI_ES,
        MODULARITY,
        EXPLICITNESS,
        IRS,
        INFOMEC,
        MED,
        UNSUPERVISED,
        DOWNSTREAM,
        UDR,
        ACTIVE_UNITS,
    )
}
"""By name, in the order in which they are reported: what `--metrics` may name."""
