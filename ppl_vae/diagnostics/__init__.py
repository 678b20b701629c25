"""Diagnostics: pure functions from arrays to small results; nothing here trains or plots."""

from ppl_vae.diagnostics.active_units import ActiveUnits, active_units
from ppl_vae.diagnostics.evidence import Evidence, MeanEvidence, evidence, mean_evidence
from ppl_vae.diagnostics.imputation import imputation_error
from ppl_vae.diagnostics.khat import good_khat, khat
from ppl_vae.diagnostics.log_mean import log_mean_interval
from ppl_vae.diagnostics.three_terms import ThreeTerms, three_terms
from ppl_vae.diagnostics.two_sample import (
    ClassifierTest,
    MMDTest,
    classifier_two_sample,
    mmd2,
    mmd_test,
)

__all__ = [
    "ActiveUnits",
    "ClassifierTest",
    "Evidence",
    "MMDTest",
    "MeanEvidence",
    "ThreeTerms",
    "active_units",
    "classifier_two_sample",
    "evidence",
    "good_khat",
    "imputation_error",
    "khat",
    "log_mean_interval",
    "mean_evidence",
    "mmd2",
    "mmd_test",
    "three_terms",
]
