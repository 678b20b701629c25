"""A diagnosis as a tree of arrays with names, to be kept on disk and read by ArviZ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_vae.diagnose.diagnosis import Diagnosis
from ppl_vae.posterior.datatree import calibration_tree, to_datatree
from ppl_vae.posterior.labels import plain

if TYPE_CHECKING:
    import xarray as xr

EVIDENCE = ("log_evidence", "se", "bias", "ess", "khat", "lower", "upper", "quantified")
TERMS = ("reconstruction", "kl_prior", "kl_posterior", "elbo")
PARTS = ("amortisation", "correlation", "remainder")


@to_datatree.register(Diagnosis)
def tree(diagnosis: Diagnosis) -> xr.DataTree:  # type: ignore[misc]
    """Give what was found of each datum, unit and simulated datum: a group for each part.

    ``codes`` (``code``, ``code_mean``: row, unit), ``prior`` (``code``), ``evidence`` and
    ``fresh_evidence`` (row), ``terms`` (row), ``gaps`` and ``ais`` (of the rows that they took),
    ``typicality``, ``prior_sbc`` (the ranks of `calibrate`, for `arviz_plots.plot_ecdf_pit`),
    ``prior_check`` (ranks of data), ``observed_data``, ``findings``. Nothing stands for what was
    left out.
    """
    import xarray as xr

    d, groups = diagnosis, _of_data(diagnosis)
    found: dict[str, Any] = {k: xr.Dataset(v) for k, v in groups.items() if v}
    for name, ranked in (("prior_sbc", d.calibration), ("prior_check", d.prior_check)):
        if ranked is not None:
            group = calibration_tree(ranked, seed=d.seed)
            found |= {
                k.replace("prior_sbc", name): v.to_dataset() for k, v in group.children.items()
            }
    root = xr.Dataset(attrs={"name": d.name, "seed": d.seed, "num_samples": d.num_samples})
    return xr.DataTree.from_dict({"/": root, **{k: _numbered(v) for k, v in found.items()}})


def _of_data(d: Diagnosis) -> dict[str, dict[str, Any]]:
    """Give the variables of each group, by name."""
    groups: dict[str, dict[str, Any]] = {}
    if d.codes is not None:
        groups["codes"] = {
            "code": (("row", "unit"), d.codes), "code_mean": (("row", "unit"), d.code_means),
            "unit": ("unit", list(d.units)),
        }  # fmt: skip
        groups["prior"] = {
            "code": (("draw", "unit"), d.prior_codes), "unit": ("unit", list(d.units))
        }  # fmt: skip
    for name, evidence in (("evidence", d.evidence), ("fresh_evidence", d.fresh_evidence)):
        if evidence is not None:
            groups[name] = {k: ("row", getattr(evidence, k)) for k in EVIDENCE}
    if d.terms is not None:
        groups["terms"] = {k: ("row", getattr(d.terms, k)) for k in TERMS}
    if d.gaps is not None:
        rows = {"row": ("row", d.chosen[: len(d.gaps.remainder)])}
        groups["gaps"] = {k: ("row", getattr(d.gaps, k)) for k in PARTS} | rows
    if d.ais is not None:
        rows = {"row": ("row", d.chosen[: len(d.ais.se)])}
        groups["ais"] = {k: ("row", getattr(d.ais, k)) for k in ("log_evidence", "se")} | rows
    if d.typicality is not None:
        groups["typicality"] = {
            "log_evidence": ("row", d.typicality.log_evidence),
            "percentile": ("row", d.typicality.percentile),
            "simulated": ("simulated_row", d.typicality.simulated),
        }
    groups["observed_data"] = {
        plain(site): (("row", *(f"{plain(site)}_dim_{k}" for k in range(x.ndim - 1))), x)
        for site, x in d.observations.items()
    }
    groups["findings"] = {
        k: ("finding", [getattr(f, k) for f in d.findings])
        for k in ("check", "value", "effect", "grade", "verdict", "advice")
    }
    return groups


def _numbered(group: xr.Dataset) -> xr.Dataset:
    missing = {k: np.arange(n) for k, n in group.sizes.items() if k not in group.variables}
    return group.assign_coords(missing).set_coords([k for k in group.variables if k in group.sizes])
