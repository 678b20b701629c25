"""How much the codes say of the data: I(x; z) under the guide, and what of the rate is mismatch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ppl_vae.diagnostics.arrays import Floats, as_matrix
from ppl_vae.diagnostics.mean_interval import mean_interval


class Information(NamedTuple):
    """mean_x KL(q(z|x) ‖ p(z)) = I(x; z) + KL(q(z) ‖ p(z)), in nats, x one of N data.

    Attributes:
        lower: Of I(x; z), on average below it: q(z) from all N guides, the datum's own among them.
        upper: On average above it: q(z) from the N − 1 others.
        lower_se: Their standard errors over the data.
        upper_se: Of the upper end.
        rate: mean_x KL(q(z|x) ‖ p(z)).
        rate_se: Its standard error over the data.
        ceiling: log N, which the lower end never passes: beside it I(x; z) is not known from above.
        num_data: How many data N.
        bracket: Of I(x; z): what its two ends, each with its error, leave.
        marginal_kl_bracket: Of KL(q(z) ‖ p(z)).
        level: With which both brackets hold the truth at once; each alone misses half as often.
    """

    lower: float
    upper: float
    lower_se: float
    upper_se: float
    rate: float
    rate_se: float
    ceiling: float
    num_data: int
    bracket: tuple[float, float]
    marginal_kl_bracket: tuple[float, float]
    level: float

    @property
    def marginal_kl(self) -> tuple[float, float]:
        """KL(q(z) ‖ p(z)), from the upper and the lower end of I(x; z); it is never below 0."""
        return max(self.rate - self.upper, 0.0), max(self.rate - self.lower, 0.0)

    def __repr__(self) -> str:
        (low, high), (kl_low, kl_high) = self.bracket, self.marginal_kl_bracket
        return (
            f"Information(N={self.num_data}; nats, {self.level:.4g} brackets: I(x; z) in "
            f"[{low:.3f}, {high:.3f}], KL(q(z) ‖ p(z)) in [{kl_low:.3f}, {kl_high:.3f}])"
        )


def information(log_q: ArrayLike, log_p: ArrayLike, *, level: float = 0.95) -> Information:
    r"""Bracket the mutual information of x and z under q(z|x), and split the rate (ELBO surgery).

    I(x; z) = E log q(z|x) − log q(z), q(z) = E_x q(z|x), the mean over a population of which the
    data are a sample. With z_i ~ q(z|x_i) and the mean over the sample in place of that over the
    population, the sample's own member i included or left out,

    - lower: mean_i log q(z_i|x_i) − log (1/N) Σ_j q(z_i|x_j) (InfoNCE with the true density ratio);
    - upper: mean_i log q(z_i|x_i) − log 1/(N−1) Σ_{j≠i} q(z_i|x_j) (leave one out),

    eqs. 10 and 12 of *On Variational Bounds of Mutual Information* (Poole et al., 2019,
    arXiv:1905.06922; numbers recalled, not checked). The rate is I(x; z) + KL(q(z) ‖ p(z)): *ELBO
    surgery* (Hoffman and Johnson, 2016).

    Both ends are means over the data, of terms that share the sample's q̂(z). In it a datum j acts
    twice: as a draw, by log q(z_j|x_j) − log q(z_j), and as a member of q̂, by a change of
    log q̂(z) of [q(z|x_j) / q(z) − 1] / N, whose mean over z ~ q(z) is 0. So to first order a
    standard error over the data is right, as if they were independent; what is left is of order
    1/N, and parts the ends by as much. The brackets go from the lower limit of the lower end to the
    upper limit of the upper one, by `mean_interval` over the data; those of KL(q(z) ‖ p(z)) over
    log q̂(z_i) − log p(z_i), in which the noise of log q(z_i|x_i) has no part. Each of the four
    limits misses (1 − level)/4 of the time (Bonferroni). Neither quantity is below 0, nor is an
    end. How often they hold the truth: ``benchmarks/exact_coverage.py``.

    Args:
        log_q: log q(z_i|x_j): draw i a row, guide j a column; the guide that drew it on the
            diagonal.
        log_p: log p(z_i).
        level: Of the brackets, both at once.

    Shapes:
        log_q ``(N, N)``, N ≥ 2; log_p ``(N,)``.

    Raises:
        ValueError: On NaN, +inf, or shapes that do not fit; on −inf on the diagonal; on a level
            that is not between 0 and 1.

    Example:
        Codes that are the same for all data say nothing.

        >>> z = np.random.default_rng(0).standard_normal(100)
        >>> log_q = np.broadcast_to(-0.5 * z[:, None] ** 2 - 0.919, (100, 100))
        >>> found = information(log_q, log_q[:, 0])
        >>> abs(found.lower) < 1e-12, abs(found.upper) < 1e-12, found.rate
        (True, True, 0.0)
    """
    matrix = as_matrix(log_q, "log_q", ("N", "N"))
    prior = as_matrix(np.reshape(log_p, (-1, 1)), "log_p", ("N", "1"))[:, 0]
    count = len(matrix)
    if matrix.shape != (count, count) or count < 2 or len(prior) != count:
        raise ValueError(
            f"log_q, log_p: got shapes {matrix.shape} and {prior.shape}, expected (N, N) and (N,), "
            "N two or more. Try one draw of each guide under every guide."
        )
    if not 0 < level < 1:
        raise ValueError(f"level: got {level}, expected a number between 0 and 1. Try 0.95.")
    own = matrix.diagonal()
    if np.isneginf(own).any() or np.isneginf(prior).any():
        raise ValueError(
            "log_q, log_p: got -inf for a draw under its own guide or the prior, expected finite "
            "numbers. Try draws z_i ~ q(z|x_i) that the prior allows."
        )
    whole = np.logaddexp.reduce(matrix, axis=1) - np.log(count)
    without = np.where(np.eye(count, dtype=bool), -np.inf, matrix)
    others = np.logaddexp.reduce(without, axis=1) - np.log(count - 1)
    each = (1 + level) / 2  # of two brackets
    lower, upper, rate = (_Mean.of(own - term, each) for term in (whole, others, prior))
    kl_lower, kl_upper = (_Mean.of(term - prior, each) for term in (others, whole))
    return Information(
        lower=lower.value,
        upper=upper.value,
        lower_se=lower.se,
        upper_se=upper.se,
        rate=rate.value,
        rate_se=rate.se,
        ceiling=float(np.log(count)),
        num_data=count,
        bracket=(max(lower.low, 0.0), max(upper.high, 0.0)),
        marginal_kl_bracket=(max(kl_lower.low, 0.0), max(kl_upper.high, 0.0)),
        level=level,
    )


class _Mean(NamedTuple):
    """A mean over the data, its standard error and its limits."""

    value: float
    se: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Floats, level: float) -> _Mean:
        value = float(values.mean())
        if np.isinf(value):  # a draw that no other guide allows
            return cls(value, np.inf, -np.inf, np.inf)
        low, high = mean_interval(values, level)
        return cls(value, float(values.std(ddof=1) / np.sqrt(len(values))), float(low), float(high))
