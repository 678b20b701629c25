"""Held-out evidence in the form that ArviZ compares."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ppl_vae.diagnostics import Evidence

if TYPE_CHECKING:
    from arviz_stats.utils import ELPDData


def elpd(evidence: Evidence) -> ELPDData:
    """Give held-out evidence as an ``ELPDData`` for `arviz_stats.compare`.

    Models are compared by log p_θ(x_i) of data that θ has not seen. `arviz_stats.loo` is not
    the way: with one latent per datum it estimates the same number by a harmonic mean, and θ
    has seen x_i.

    Args:
        evidence: What `log_evidence` or `diagnose` gave for *held-out* data. Compare programs by
            the evidence under the same freshly fitted guide: see `refit_guide`.

    Example:
        >>> from ppl_vae import Program, log_evidence
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(20, seed=1)
        >>> wide = Program(world.model, world.broken_guide(scale=1.3))
        >>> elpd(log_evidence(wide, x, 200, seed=0)).n_data_points
        20

    Raises:
        ValueError: If `evidence` is something else.
    """
    if not isinstance(evidence, Evidence):
        raise ValueError(
            f"Got a {type(evidence).__name__}; expected the evidence of held-out data. "
            "Try elpd(log_evidence(program, x_test))."
        )
    import xarray as xr
    from arviz_stats.utils import ELPDData

    values = np.asarray(evidence.log_evidence, dtype=np.float64)
    khat = np.asarray(evidence.khat, dtype=np.float64)
    data = len(values)
    return ELPDData(
        kind="evidence",
        elpd=float(values.sum()),
        se=float(np.sqrt(data) * values.std(ddof=1)) if data > 1 else float("nan"),
        p=float("nan"),
        n_samples=evidence.num_samples,
        n_data_points=data,
        scale="log",
        warning=bool((~evidence.quantified).any()),
        good_k=0.5,
        elpd_i=xr.DataArray(values, dims=["row"]),
        pareto_k=xr.DataArray(khat, dims=["row"]),
    )
