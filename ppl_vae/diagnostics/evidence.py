"""The evidence log p(x) from importance weights, with an error that is calibrated."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.diagnostics.arrays import Floats, as_log_weights
from ppl_vae.diagnostics.khat import MIN_DRAWS, good_khat, is_constant, khat
from ppl_vae.diagnostics.log_mean import log_mean, log_mean_interval

NO_KHAT = f"k-hat not known: it takes {MIN_DRAWS} draws per datum"


class Evidence(NamedTuple):
    """The evidence of each datum, in nats. Arrays are ``(N,)``.

    Attributes:
        log_evidence: log p̂(x) = log mean_s w_s. A stochastic lower bound: E log p̂ ≤ log p(x).
        se: Its Monte-Carlo standard error. Trust it where `quantified`: with a heavier tail it is
            a number about the draws seen, and too small.
        bias: Estimate of log p(x) - E log p̂ ≥ 0, what the bound falls short by on average.
        ess: Effective sample size (Σw)² / Σw², between 1 and S.
        khat: Pareto index of the weights (see `khat`).
        lower: Lower limit for the *true* log p(x); NaN where not `quantified`.
        upper: Upper limit; NaN where not `quantified`.
        quantified: Whether k-hat ≤ min(0.5, good_khat(S)), so that weights have a variance.
            Where false the evidence is a lower bound and its error is not quantified.
        level: Nominal coverage of (lower, upper).
        num_samples: S, the draws that were used.
    """

    log_evidence: Floats
    se: Floats
    bias: Floats
    ess: Floats
    khat: Floats
    lower: Floats
    upper: Floats
    quantified: NDArray[np.bool_]
    level: float
    num_samples: int

    @property
    def limit(self) -> float:
        """The k-hat up to which a datum is `quantified`: min(0.5, good_khat(S))."""
        return min(0.5, good_khat(self.num_samples))

    @property
    def unknown(self) -> NDArray[np.bool_]:
        """Where k-hat is not known (see `khat`): not `quantified`, and not high either."""
        return np.isnan(self.khat)

    @property
    def high(self) -> NDArray[np.bool_]:
        """Where k-hat is known to be above `limit`."""
        return ~self.quantified & ~self.unknown

    @property
    def tail(self) -> str:
        """What k-hat says, in few words: for how many data it is too high, or not known.

        Example:
            >>> log_w = 0.1 * np.random.default_rng(0).standard_normal((1000, 50))
            >>> evidence(log_w).tail, evidence(log_w[:20]).tail
            ('k-hat > 0.5 for 0%', 'k-hat not known: it takes 25 draws per datum')
        """
        if self.num_samples < MIN_DRAWS:
            return NO_KHAT
        unknown = f", not known for {self.unknown.mean():.0%}" if self.unknown.any() else ""
        return f"k-hat > {self.limit:.2g} for {self.high.mean():.0%}{unknown}"

    @property
    def exact(self) -> NDArray[np.bool_]:
        """Where the weights do not vary to precision: the guide is p(z|x) on what it visits."""
        return self.se == 0

    def __repr__(self) -> str:
        mean = mean_evidence(self)
        return (
            f"Evidence(N={len(self.quantified)}, S={self.num_samples}; mean log p(x) ≥ "
            f"{mean.mean:.3f} ± {mean.mc_se:.2g}; {self.tail})"
        )


class MeanEvidence(NamedTuple):
    """The mean of log p̂(x) over a data set, in nats per datum: a lower bound, no interval.

    Attributes:
        mean: The bound.
        mc_se: Monte-Carlo standard error, from the draws; it falls as 1/√(N S).
        data_se: Standard error over the data, as a sample of a population; NaN if N = 1.
        bias: What the bound falls short by on average; it falls as 1/S and *not* with N.
        unquantified: Data with a k-hat too large or not known; above zero, `mc_se` and `bias` are
            too small.
    """

    mean: float
    mc_se: float
    data_se: float
    bias: float
    unquantified: int


def evidence(log_weights: ArrayLike, *, level: float = 0.95) -> Evidence:
    r"""Estimate log p(x) for every datum from raw (never smoothed) importance weights.

    log p̂ = log (1/S) Σ_s w_s with w = p(x, z_s) / q(z_s|x), z_s ~ q: the bound of
    *Importance Weighted Autoencoders* (Burda et al., 2015, arXiv:1509.00519, eq. 8; number
    recalled, not checked), evaluated once with all draws.

    - SE by the delta method: (sd w / mean w) / √S.
    - Bias: E log p̂_S ≈ log p - (sd w / mean w)² / (2S), so that log p̂_S - log p̂_{S/2} estimates
      it; log p̂_{S/2} is averaged over both halves of the draws, which makes it ≥ 0 always
      (Jensen) and less noisy. It is not added to anything here.
    - Interval for the truth: `log_mean_interval`, given where k-hat says that it can be trusted.

    Selecting on k-hat selects lucky runs: where the guide is bad the few data that pass are those
    whose draws missed the tail. Of nominal 95 % intervals in D = 4, S = 1000 (10 000 runs each,
    ``benchmarks/evidence_coverage.py``):

    | guide against N(0, I) | pass k-hat | of all runs hold the truth | of those that pass |
    |-----------------------|------------|----------------------------|--------------------|
    | N(0, 1.5² I)          | 100 %      | 95.0 %                     | 95.0 %             |
    | N(0.5, I)             | 96 %       | 95.2 %                     | 95.1 %             |
    | N(0, 0.8² I)          | 78 %       | 95.0 %                     | 94.3 %             |
    | N(1, I)               | 14 %       | 93.4 %                     | 73.3 %             |
    | N(0, 0.6² I)          | 11 %       | 85.8 %                     | 39.3 %             |

    So read the intervals beside the share of data that are `quantified`: where most are not, those
    of the rest are too good to be true. A guide that never visits a mode passes, too: no function
    of its draws can tell.

    Args:
        log_weights: log p(x, z) - log q(z|x) in nats, draws first; -inf is allowed for some.
        level: Nominal coverage of the interval.

    Shapes:
        log_weights ``(S, N)`` with S ≥ 2.

    Returns:
        The estimates per datum. Data with constant weights have SE 0, k-hat -inf, and an interval
        of no width.

    Raises:
        ValueError: On NaN, +inf, fewer than two draws, a datum whose weights are all zero.

    Example:
        >>> log_w = 0.5 * np.random.default_rng(0).standard_normal((1000, 1)) - 0.125  # truth: 0
        >>> e = evidence(log_w)
        >>> bool(e.quantified[0]), bool(e.lower[0] < 0 < e.upper[0])
        (True, True)
    """
    matrix = as_log_weights(log_weights, min_draws=2)
    draws, half = len(matrix), len(matrix) // 2
    estimate, k, constant = log_mean(matrix), khat(log_weights), is_constant(log_weights)
    quantified = k <= min(0.5, good_khat(draws))
    limits = log_mean_interval(matrix, level)
    lower, upper = (np.where(constant, estimate.value, limit) for limit in limits)
    first = np.logaddexp.reduce(matrix[:half], axis=0)
    second = np.logaddexp.reduce(matrix[half : 2 * half], axis=0)
    bias = np.logaddexp(first, second) - np.log(2) - (first + second) / 2
    return Evidence(
        log_evidence=estimate.value,
        se=np.where(constant, 0.0, estimate.se),
        bias=np.where(constant, 0.0, bias),
        ess=draws / (1 + (draws - 1) * estimate.se**2),
        khat=k,
        lower=np.where(quantified, lower, np.nan),
        upper=np.where(quantified, upper, np.nan),
        quantified=quantified,
        level=level,
        num_samples=draws,
    )


def mean_evidence(e: Evidence) -> MeanEvidence:
    """Average the evidence over a data set: a lower bound ± Monte-Carlo SE, and its bias.

    There is no interval for the truth: over N data the bias stays while the SE falls as 1/√N, so
    that any interval around the mean misses for N large enough.

    Args:
        e: The evidence per datum, of data drawn on independently of each other.

    Example:
        >>> log_w = np.random.default_rng(0).standard_normal((1000, 50)) - 0.5
        >>> m = mean_evidence(evidence(log_w))
        >>> abs(m.mean) < 4 * m.mc_se + m.bias
        True
    """
    count = len(e.log_evidence)
    spread = e.log_evidence.std(ddof=1) if count > 1 else np.nan
    return MeanEvidence(
        mean=float(e.log_evidence.mean()),
        mc_se=float(np.sqrt(np.sum(e.se**2)) / count),
        data_se=float(spread / np.sqrt(count)),
        bias=float(e.bias.mean()),
        unquantified=int(np.sum(~e.quantified)),
    )
