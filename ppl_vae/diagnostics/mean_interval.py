"""An interval for a mean of skewed values."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ppl_vae.diagnostics.arrays import Floats


def mean_interval(values: ArrayLike, level: float = 0.95) -> tuple[Floats, Floats]:
    r"""Give a confidence interval for E v from independent values, whatever their skewness.

    The limits of `log_mean_interval`, for values of any sign: Hall's transformation (1992, *On the
    removal of skewness by transformation*; recalled, not checked) of T = (mean v − E v) / se, with
    Student's t of 2 N / (kurtosis − 1) degrees of freedom, at most N − 1. Squares of Normals, of
    which differences of Gaussian log densities are made, are such values: of 50 of them
    mean ± 1.96 se, nominally 95 %, holds E v in 91.7 % of runs, this in 95.8 %
    (``tests/test_brackets.py``).

    Args:
        values: Finite, along the first axis, two or more.
        level: Nominal coverage.

    Shapes:
        values ``(N, ...)``; returns the lower and the upper limits, ``(...)``.

    Raises:
        ValueError: On fewer than two values, values that are not finite, or a level that is not
            between 0 and 1.

    Example:
        >>> v = np.random.default_rng(0).standard_normal(50) ** 2  # E v = 1
        >>> low, high = mean_interval(v)
        >>> bool(low < 1 < high), bool(high - v.mean() > v.mean() - low)
        (True, True)
    """
    from scipy.special import stdtrit  # slow to import

    if not 0 < level < 1:
        raise ValueError(f"level: got {level}, expected a number between 0 and 1. Try 0.95.")
    v = np.asarray(values, dtype=np.float64)
    if v.ndim == 0 or len(v) < 2 or not np.isfinite(v).all():
        raise ValueError(
            f"values: got an array of shape {v.shape}{' with NaN or inf' * (v.size > 1)}, expected "
            "(N, ...) finite numbers, N two or more. Try dropping what is missing."
        )
    count, mean = len(v), v.mean(axis=0)
    centred = v - mean
    second = (centred**2).mean(axis=0)
    scale = np.where(second > 0, second, 1.0)  # of constant values every moment is zero
    skewness = (centred**3).mean(axis=0) / scale**1.5 / np.sqrt(count)  # of the mean
    skewness = np.where(np.abs(skewness) < 1e-6, 1e-6, skewness)
    kurtosis = (centred**4).mean(axis=0) / scale**2
    df = np.minimum(2 * count / np.maximum(kurtosis - 1, 1e-12), count - 1)
    se = np.sqrt(second / (count - 1))

    def untransformed(quantile: Floats) -> Floats:
        """T, of which T + λT²/3 + λ²T³/27 + λ/6 is the quantile."""
        return 3 / skewness * (np.cbrt(1 + skewness * (quantile - skewness / 6)) - 1)

    quantile = stdtrit(df, (1 + level) / 2)
    return mean - untransformed(quantile) * se, mean - untransformed(-quantile) * se
