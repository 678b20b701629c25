"""How much the codes say of the data: I(x; z) under the guide, and what of the rate is mismatch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ppl_vae.diagnostics.arrays import Floats, as_matrix


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
    """

    lower: float
    upper: float
    lower_se: float
    upper_se: float
    rate: float
    rate_se: float
    ceiling: float
    num_data: int

    @property
    def marginal_kl(self) -> tuple[float, float]:
        """KL(q(z) ‖ p(z)), from the upper and the lower end of I(x; z); it is never below 0."""
        return max(self.rate - self.upper, 0.0), max(self.rate - self.lower, 0.0)


def information(log_q: ArrayLike, log_p: ArrayLike) -> Information:
    r"""Bracket the mutual information of x and z under q(z|x), and split the rate (ELBO surgery).

    I(x; z) = E log q(z|x) − log q(z), q(z) = E_x q(z|x), the mean over a population of which the
    data are a sample. With z_i ~ q(z|x_i) and the mean over the sample in place of that over the
    population, the sample's own member i included or left out,

    - lower: mean_i log q(z_i|x_i) − log (1/N) Σ_j q(z_i|x_j) (InfoNCE with the true density ratio);
    - upper: mean_i log q(z_i|x_i) − log 1/(N−1) Σ_{j≠i} q(z_i|x_j) (leave one out),

    eqs. 10 and 12 of *On Variational Bounds of Mutual Information* (Poole et al., 2019,
    arXiv:1905.06922; numbers recalled, not checked). The rate is I(x; z) + KL(q(z) ‖ p(z)): *ELBO
    surgery* (Hoffman and Johnson, 2016).

    Args:
        log_q: log q(z_i|x_j): draw i a row, guide j a column; the guide that drew it on the
            diagonal.
        log_p: log p(z_i).

    Shapes:
        log_q ``(N, N)``, N ≥ 2; log_p ``(N,)``.

    Raises:
        ValueError: On NaN, +inf, or shapes that do not fit; on −inf on the diagonal.

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
    own = matrix.diagonal()
    if np.isneginf(own).any() or np.isneginf(prior).any():
        raise ValueError(
            "log_q, log_p: got -inf for a draw under its own guide or the prior, expected finite "
            "numbers. Try draws z_i ~ q(z|x_i) that the prior allows."
        )
    whole = np.logaddexp.reduce(matrix, axis=1) - np.log(count)
    apart = np.where(np.eye(count, dtype=bool), -np.inf, matrix)
    others = np.logaddexp.reduce(apart, axis=1) - np.log(count - 1)
    lower, upper, rate = (_mean_and_se(own - term) for term in (whole, others, prior))
    return Information(
        lower=lower[0],
        upper=upper[0],
        lower_se=lower[1],
        upper_se=upper[1],
        rate=rate[0],
        rate_se=rate[1],
        ceiling=float(np.log(count)),
        num_data=count,
    )


def _mean_and_se(values: Floats) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
