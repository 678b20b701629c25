"""Diagnostics: pure functions from arrays to small results; nothing here trains or plots."""

from ppl_vae.diagnostics.active_units import ActiveUnits, active_units
from ppl_vae.diagnostics.agreement import Agreement, agreement
from ppl_vae.diagnostics.calibration import Calibration, calibration, holm
from ppl_vae.diagnostics.coverage import Coverage, coverage
from ppl_vae.diagnostics.evidence import Evidence, MeanEvidence, evidence, mean_evidence
from ppl_vae.diagnostics.imputation import imputation_error
from ppl_vae.diagnostics.information import Information, information
from ppl_vae.diagnostics.khat import good_khat, khat
from ppl_vae.diagnostics.log_mean import log_mean_interval
from ppl_vae.diagnostics.match import Match, match
from ppl_vae.diagnostics.ranks import ranks, tarp_ranks
from ppl_vae.diagnostics.smoothed import Smoothed, smoothed
from ppl_vae.diagnostics.three_terms import ThreeTerms, three_terms
from ppl_vae.diagnostics.two_sample import (
    ClassifierTest,
    MMDTest,
    classifier_two_sample,
    mmd2,
    mmd_test,
)
from ppl_vae.diagnostics.typicality import Typicality, typicality
from ppl_vae.diagnostics.uniformity import Uniformity, uniformity
from ppl_vae.diagnostics.unit_kl import unit_kl

__all__ = [
    "ActiveUnits",
    "Agreement",
    "Calibration",
    "ClassifierTest",
    "Coverage",
    "Evidence",
    "Information",
    "MMDTest",
    "Match",
    "MeanEvidence",
    "Smoothed",
    "ThreeTerms",
    "Typicality",
    "Uniformity",
    "active_units",
    "agreement",
    "calibration",
    "classifier_two_sample",
    "coverage",
    "evidence",
    "good_khat",
    "holm",
    "imputation_error",
    "information",
    "khat",
    "log_mean_interval",
    "match",
    "mean_evidence",
    "mmd2",
    "mmd_test",
    "ranks",
    "smoothed",
    "tarp_ranks",
    "three_terms",
    "typicality",
    "uniformity",
    "unit_kl",
]
