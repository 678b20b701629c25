"""Whether counts have more zeros than a negative binomial leaves room for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EVIDENCE = 9.55
"""Twice the gain in log-likelihood that pure negative binomials reach once in 1000: half of it is
0 and half follows χ² with one degree of freedom, as the share of extra zeros lies on its edge."""


def zeros_expected(x: NDArray[np.float64]) -> float | None:
    """P(0) of the negative binomial that the counts above 0 follow, if the zeros are too many.

    A zero-inflated negative binomial is fitted by maximum likelihood and tested against one that is
    not. Where zeros are inflated, what is fitted to the others is the distribution cut off at 0.

    Args:
        x: Counts, ``(N,)``, with zeros and others among them.

    Returns:
        None where the zeros are no more than a negative binomial has.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> counts = rng.negative_binomial(2, 0.4, size=1000).astype(float)
        >>> zeros_expected(counts), round(zeros_expected(counts * (rng.random(1000) < 0.5)), 1)
        (None, 0.2)
    """
    from scipy import optimize, stats  # slow to import

    values, counts = np.unique(x, return_counts=True)
    zeros, ones = counts[0], counts[1:].sum()

    def law(raw: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """P(0), and the log-probabilities of the values above it."""
        r, mean = np.exp(raw.clip(-12, 25))
        p = r / (r + mean)
        return p**r, stats.nbinom.logpmf(values[1:], r, p)

    def cut(raw: NDArray[np.float64]) -> float:
        none, others = law(raw)
        return -float(counts[1:] @ others - ones * np.log1p(-none))

    def whole(raw: NDArray[np.float64]) -> float:
        none, others = law(raw)
        return -float(counts[1:] @ others + zeros * np.log(none))

    positive = float(values[1:] @ counts[1:]) / ones
    inflated = optimize.minimize(cut, np.log([1.0, positive]), method="Nelder-Mead")
    plain = optimize.minimize(whole, np.log([1.0, x.mean()]), method="Nelder-Mead")
    share = zeros / len(x)
    best = inflated.fun - zeros * np.log(share) - ones * np.log1p(-share)
    expected = float(law(inflated.x)[0])
    return expected if share > expected and 2 * (plain.fun - best) > EVIDENCE else None
