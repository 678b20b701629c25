"""Whether log p(x) of data is what the model expects of its own: misfit, and data out of place."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ppl_vae.diagnostics.arrays import Floats


class Typicality(NamedTuple):
    """log p̂(x) of data beside that of data which the model made.

    Attributes:
        log_evidence: Of the data, ``(N,)``, nats.
        simulated: Of the model's own, ``(M,)``.
        percentile: Share of the model's own that have less, ``(N,)``: near 0 where a datum is out
            of place; near 1 where it is too good to be true, which may be out of place too.
        deviation: The effect size: the largest distance of the two distribution functions.
        p_value: Of that distance (Kolmogorov and Smirnov): do the data have the law p(x)?
    """

    log_evidence: Floats
    simulated: Floats
    percentile: Floats
    deviation: float
    p_value: float

    def __repr__(self) -> str:
        return (
            f"Typicality(N={len(self.log_evidence)}; log p(x) {self.log_evidence.mean():.2f}, of "
            f"the model's own {self.simulated.mean():.2f}; apart by {self.deviation:.2f}, p = "
            f"{self.p_value:.2g})"
        )


def typicality(log_evidence: ArrayLike, simulated: ArrayLike) -> Typicality:
    """Compare log p̂ of data with log p̂ of data that the model made.

    Both must be estimated by the same guide with as many draws: then they have one law if the data
    have the law p(x), however bad the guide is.

    Args:
        log_evidence: Of the data.
        simulated: Of data that the model made.

    Shapes:
        log_evidence ``(N,)``, simulated ``(M,)``.

    Raises:
        ValueError: If there are none, or NaN among them.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> found = typicality(rng.normal(size=200) - 1, rng.normal(size=500))
        >>> found.p_value < 1e-6, bool(found.percentile.mean() < 0.5)
        (True, True)
    """
    from scipy.stats import ks_2samp

    data, own = (np.asarray(v, dtype=np.float64) for v in (log_evidence, simulated))
    for name, values in (("log_evidence", data), ("simulated", own)):
        if values.ndim != 1 or not len(values) or np.isnan(values).any():
            raise ValueError(
                f"{name}: got shape {values.shape}{', with NaN' * bool(np.isnan(values).any())}, "
                "expected numbers (N,). Try one log p̂ a datum."
            )
    test = ks_2samp(data, own)
    below = np.searchsorted(np.sort(own), data) / len(own)
    return Typicality(data, own, below, float(test.statistic), float(test.pvalue))
