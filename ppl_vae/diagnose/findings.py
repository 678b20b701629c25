"""Everything that was found, in words: of the guide first, then of the model."""

from __future__ import annotations

from ppl_vae.diagnose import of_guide, of_model
from ppl_vae.diagnose.diagnosis import Diagnosis
from ppl_vae.diagnose.finding import Finding

ORDER = (
    of_guide.weights,
    of_guide.gap,
    of_guide.annealed,
    of_guide.calibration,
    of_guide.split,
    of_guide.beside_reference,
    of_model.codes,
    of_model.match,
    of_model.coverage,
    of_model.prior_predictive,
    of_model.typical,
    of_model.posterior_predictive,
)


def findings(d: Diagnosis) -> tuple[Finding, ...]:
    """Say what each part of a diagnosis found."""
    return tuple(finding for build in ORDER for finding in build(d))
