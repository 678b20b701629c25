"""Whether ranks, or values between 0 and 1, are uniform: effect, exact p-value, band."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ppl_vae.diagnostics.arrays import Floats

POINTS = 100
"""At most as many are looked at: what happens between two of them is not seen."""

TINY = 1e-10
"""Below it the sum of all tails, which is no less than the p-value, is given for it."""


class Uniformity(NamedTuple):
    """The empirical distribution function (ECDF) of what should be uniform, against its band.

    Attributes:
        deviation: The effect size: the largest distance of the ECDF from the uniform one, 0 to 1.
        p_value: Exact probability of an ECDF that leaves as wide a band somewhere; below 1e-10 an
            upper limit of it.
        points: ``(K,)``, where the ECDF is looked at, between 0 and 1.
        ecdf: ``(K,)``: share of the values below each.
        low: ``(K,)``: the band that uniform values leave nowhere with probability `level`.
        high: ``(K,)``.
        level: Of the band.
        num_data: How many values N.
    """

    deviation: float
    p_value: float
    points: Floats
    ecdf: Floats
    low: Floats
    high: Floats
    level: float
    num_data: int

    def __repr__(self) -> str:
        return f"Uniformity(N={self.num_data}; off by {self.deviation:.2f}, p = {self.p_value:.2g})"

    @property
    def shape(self) -> str:
        """What the ECDF says of the values: where they crowd."""
        gap = self.ecdf - self.points
        below, above = -float(gap.min()), float(gap.max())
        if min(below, above) < 0.5 * max(below, above):
            return "low" if above > below else "high"
        return "at both ends" if gap.argmax() < gap.argmin() else "in the middle"


def uniformity(
    values: ArrayLike, *, num_draws: int | None = None, level: float = 0.95
) -> Uniformity:
    """Test whether values are independent and uniform, by their ECDF at up to 100 points.

    The number of values below a point t is Binomial(N, t). The statistic is the smallest of its
    two-sided tail probabilities over all points, and the band has the same one at each: Säilynoja,
    Bürkner and Vehtari 2022 (Graphical test for discrete uniformity, Statistics and Computing 32).
    p-value and band are exact: the counts at successive points are a Markov chain, whose
    probability of staying inside is summed up, not simulated.

    Args:
        values: ``(N,)``: numbers between 0 and 1, or ranks among `num_draws` draws, 0 to S.
        num_draws: S, where the values are ranks.
        level: Of the band.

    Raises:
        ValueError: If a value lies outside, or `level` is not between 0 and 1.

    Example:
        >>> ranks = np.random.default_rng(0).integers(0, 101, size=1000)
        >>> found = uniformity(ranks, num_draws=100)
        >>> bool(((found.low <= found.ecdf) & (found.ecdf <= found.high)).all())
        True
        >>> uniformity(ranks // 2, num_draws=100).p_value < 1e-12, uniformity([0.5] * 9).shape
        (True, 'in the middle')
    """
    if not 0 < level < 1:
        raise ValueError(f"Got level={level!r}; expected a number between 0 and 1. Try 0.95.")
    given = np.asarray(values, dtype=np.float64)
    top = 1 if num_draws is None else num_draws
    if given.ndim != 1 or not len(given) or not ((given >= 0) & (given <= top)).all():
        raise ValueError(
            f"Got values of shape {given.shape}, not all from 0 to {top}; expected (N,) of them. "
            f"Try {'num_draws=S for ranks' if num_draws is None else 'ranks of one quantity'}."
        )
    if num_draws is None:
        edges = points = np.arange(1, POINTS + 1) / (POINTS + 1)
    else:
        steps = min(POINTS, num_draws)
        edges = np.unique(np.round(np.arange(1, steps + 1) * (num_draws + 1) / (steps + 1)))
        points = edges / (num_draws + 1)
    n = len(given)
    counts = np.searchsorted(np.sort(given), edges, side="left")  # a value of t is not below t
    lower, upper = _tails(n, tuple(points))
    k = np.arange(len(points))
    smallest = min(lower[k, counts].min(), upper[k, counts].min())
    # Between one tail and the sum of all: what 1 less a number near 1 has lost lies there too.
    outside = bound = float(min(1.0, 2 * len(points) * smallest))
    if bound > TINY:
        outside = float(np.clip(1 - _inside(n, points, lower, upper, smallest), smallest, bound))
    low, high = _band(n, tuple(points), level)
    return Uniformity(
        deviation=float(np.abs(counts / n - points).max()),
        p_value=outside,
        points=points,
        ecdf=counts / n,
        low=low / n,
        high=high / n,
        level=level,
        num_data=n,
    )


@lru_cache(maxsize=8)
def _tails(n: int, points: tuple[float, ...]) -> tuple[Floats, Floats]:
    """P(C ≤ c) and P(C ≥ c) of the counts C below each point, ``(K, N + 1)``."""
    from scipy.special import bdtr, bdtrc  # slow to import

    c = np.arange(n + 1, dtype=np.float64)
    t = np.array(points)[:, None]
    return bdtr(c, n, t), np.where(c > 0, bdtrc(np.maximum(c - 1, 0), n, t), 1.0)


def _ends(lower: Floats, upper: Floats, tail: float) -> tuple[Floats, Floats]:
    """The counts, at each point, both of whose tails are more than `tail`: first and last."""
    wide = tail * (1 + 1e-9)  # equal tails differ by rounding
    return (lower <= wide).sum(1), (upper > wide).sum(1) - 1


def _inside(n: int, points: Floats, lower: Floats, upper: Floats, tail: float) -> float:
    """P(both tails are more than `tail` at every point)."""
    from scipy.special import gammaln

    low, high = _ends(lower, upper, tail)
    if (low > high).any():
        return 0.0
    log_factorial = gammaln(np.arange(n + 2) + 1.0)
    at, mass, before = np.zeros(1, dtype=int), np.ones(1), 0.0
    for k, t in enumerate(points):
        to = np.arange(low[k], high[k] + 1)
        p = (t - before) / (1 - before)  # that one which is not below the last point is below t
        more, left = to[:, None] - at, n - to[:, None]
        log_pmf = (
            log_factorial[n - at]
            - log_factorial[np.maximum(more, 0)]
            - log_factorial[left]
            + more * np.log(p)
            + left * np.log1p(-p)
        )
        mass = np.where(more >= 0, np.exp(log_pmf), 0.0) @ mass
        at, before = to, t
    return float(mass.sum())


@lru_cache(maxsize=64)
def _band(n: int, points: tuple[float, ...], level: float) -> tuple[Floats, Floats]:
    """The counts inside the widest band that is left with probability 1 − level at most."""
    from scipy.optimize import bisect

    lower, upper = _tails(n, points)
    at = np.array(points)

    def excess(log_tail: float) -> float:
        return _inside(n, at, lower, upper, float(np.exp(log_tail))) - level

    # The narrowest of all has at most (1 − level) / 2 in a tail, the widest a hundredth of that a
    # point. The probability is a step function: the lower end of its step holds.
    narrow, wide = np.log((1 - level) / 2), np.log((1 - level) / (100 * len(points)))
    tail = wide if excess(narrow) > 0 else bisect(excess, wide, narrow, xtol=1e-3)
    if excess(narrow) > 0:
        tail = narrow
    elif excess(tail) < 0:
        tail -= 2e-3
    low, high = _ends(lower, upper, float(np.exp(tail)))
    return low.astype(np.float64), high.astype(np.float64)
