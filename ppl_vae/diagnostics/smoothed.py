"""Importance weights whose largest ones are smoothed: for draws and means, never for evidence."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ppl_vae.diagnostics.arrays import Floats, as_log_weights
from ppl_vae.diagnostics.khat import khat


class Smoothed(NamedTuple):
    """Pareto-smoothed weights.

    Attributes:
        weights: Of each datum they sum to 1, ``(S, N)``.
        khat: Of the weights as they were (see `khat`), ``(N,)``.
    """

    weights: Floats
    khat: Floats

    @property
    def ess(self) -> Floats:
        """Effective sample size 1 / Σ w², between 1 and S: ``(N,)``."""
        return 1 / np.square(self.weights).sum(axis=0)


def smoothed(log_weights: ArrayLike) -> Smoothed:
    r"""Smooth the tail of the weights of each datum.

    The largest weights are exchanged for the quantiles of the generalised Pareto distribution that
    `khat` fits to them, cut at the largest (*Pareto smoothed importance sampling*, Vehtari et al.,
    2024, arXiv:1507.02646; `arviz_stats`'s). That costs a little bias and saves much variance: of
    a posterior N(0, I) in D = 2 under the guide N(0, 0.6² I), 4000 draws, k-hat about 0.62, it
    halves the error of the mean (``tests/test_agreement.py``). Where there is no fit, k-hat being
    infinite or not known, weights stay as they are.

    Args:
        log_weights: log p(x, z) - log q(z|x) in nats, draws first; -inf is allowed for some.

    Shapes:
        log_weights ``(S, N)``.

    Raises:
        ValueError: As `khat`.

    Example:
        >>> heavy = -0.7 * np.log(np.random.default_rng(0).uniform(size=(1000, 100)))
        >>> raw = np.exp(heavy) / np.exp(heavy).sum(0)
        >>> found = smoothed(heavy)
        >>> bool(found.ess.mean() > (1 / (raw**2).sum(0)).mean())
        True
    """
    from arviz_stats.base import array_stats  # type: ignore[attr-defined]

    matrix = as_log_weights(log_weights)
    tails = khat(log_weights)
    weights = np.exp(matrix - matrix.max(axis=0))
    fit = np.isfinite(tails)
    if fit.any():
        # psislw takes log-likelihoods, and its result has the draws last whatever the axis.
        with np.errstate(all="ignore"):
            weights[:, fit] = np.exp(array_stats.psislw(-matrix[:, fit].T, axis=-1)[0]).T
    return Smoothed(weights / weights.sum(axis=0), tails)
