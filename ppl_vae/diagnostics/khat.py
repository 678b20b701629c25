"""k-hat: how heavy the right tail of the importance weights is."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.diagnostics.arrays import Floats, as_log_weights

MIN_DRAWS = 25  # the tail is a fifth of a short sample, and a fit needs five draws
UNDERFLOW = 1e-300  # an excess below this is lost in the fit's divisions


def khat(log_weights: ArrayLike) -> Floats:
    r"""Estimate the Pareto index k of the tail of the weights, per datum.

    The M = min(S/5, 3 √S) largest weights are fitted by a generalised Pareto distribution
    P(w > t) ~ t^{-1/k} (*Pareto smoothed importance sampling*, Vehtari et al., 2024,
    arXiv:1507.02646; the fit is `arviz_stats`'s). Weights have a mean if k < 1, a variance if
    k < 1/2.

    k-hat is no test: it has no level, and it is blind to a mode that the guide never visits.

    Three kinds of column have no such fit, and are answered without one:

    - no variation (the guide is exact to precision), or an atom at the maximum so large that the
      whole tail is one value: -inf, the weights seen are bounded;
    - a tail so heavy that its lower quarter underflows beside the largest weight: +inf. (The bare
      fit answers k = 0.05 there, "good", for the worst of guides);
    - ties at the lower end of the tail (discrete weights, zero weights), or fewer than 25 draws:
      NaN, "not known". It compares false with every threshold. Short samples are no error, as
      their evidence is still a lower bound.

    Args:
        log_weights: log p(x, z) - log q(z|x) in nats, draws first; -inf is allowed for some.

    Shapes:
        log_weights ``(S, N)``; the result ``(N,)``.

    Raises:
        ValueError: On NaN, +inf, a datum whose weights are all zero, or anything not ``(S, N)``.

    Example:
        >>> u = np.random.default_rng(0).uniform(size=(20_000, 1))
        >>> float(khat(-0.7 * np.log(u))[0].round(1))  # w = u^{-0.7} has k = 0.7
        0.7
    """
    from arviz_stats.base import array_stats  # type: ignore[attr-defined]

    matrix = as_log_weights(log_weights)
    draws = len(matrix)
    constant = is_constant(log_weights)
    if draws < MIN_DRAWS:
        return np.where(constant, -np.inf, np.nan)

    length = int(3 * draws**0.5) if draws > 225 else draws // 5
    tail = np.sort(matrix, axis=0)[-length - 1 :]  # its first row is the cutoff
    cutoff, quarter, top = tail[0], tail[int(length / 4 + 0.5)], tail[-1]
    result = np.full(matrix.shape[1], np.nan)
    result[np.exp(quarter - top) - np.exp(cutoff - top) < UNDERFLOW] = np.inf
    result[quarter == cutoff] = np.nan
    result[constant | (tail[1] == top)] = -np.inf
    # psislw takes log-likelihoods, log ratios with their sign changed
    fit = (quarter > cutoff) & np.isnan(result)
    if fit.any():
        with np.errstate(all="ignore"):  # the smoothed weights, not used here, may overflow
            result[fit] = array_stats.psislw(-matrix[:, fit], axis=0)[1]
    return result


def good_khat(num_samples: int) -> float:
    """Give the k-hat above which importance sampling with this many draws is not to be trusted.

    min(1 - 1/log10 S, 0.7), of *Pareto smoothed importance sampling* (Vehtari et al., 2024;
    recalled, not checked). It is what ArviZ calls `good_k`.

    Args:
        num_samples: S, the draws per datum; at least 2.

    Example:
        >>> good_khat(100), good_khat(10_000)
        (0.5, 0.7)
    """
    if num_samples < 2:
        raise ValueError(f"num_samples: got {num_samples}, expected at least 2. Try 1000.")
    return float(min(1 - 1 / np.log10(num_samples), 0.7))


def is_constant(log_weights: ArrayLike) -> NDArray[np.bool_]:
    """Tell which data have weights that do not vary, to the precision of the array's own type.

    Rounding in a sum of log densities is some units in its last place: 64 of them are allowed,
    1.4e-14 (float64) or 7.6e-6 (float32) times the largest |log w|, or one nat if that is more.

    Args:
        log_weights: Log weights, draws first.

    Shapes:
        log_weights ``(S, N)``; the result ``(N,)``.

    Example:
        >>> is_constant([[-3.0, 0.0], [-3.0, 1.0]])
        array([ True, False])
    """
    given = np.asarray(log_weights)
    eps = np.finfo(given.dtype if given.dtype.kind == "f" else np.float64).eps
    matrix = as_log_weights(log_weights)
    top, bottom = matrix.max(axis=0), matrix.min(axis=0)
    varies: NDArray[np.bool_] = top - bottom > 64 * eps * np.maximum(1, np.abs(top))
    return ~varies
