"""The resolution of measurements: how fine their values are."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def resolution(x: ArrayLike) -> NDArray[np.float64]:
    """Half the smallest gap between distinct values of each column, in the units of x.

    A proposal for the floor of a learned scale: a scale below it claims more precision than
    the data were recorded with. A constant column has no gap and gives infinity.

    Args:
        x: ``(N, *E)``, finite.

    Returns:
        ``(*E,)``.

    Raises:
        ValueError: If x is empty, a single number, or not finite.

    Example:
        >>> resolution([[0.0, 7.0], [0.5, 7.0], [2.0, 7.0]])
        array([0.25,  inf])
    """
    try:
        x = np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Got a {type(x).__name__} that is no array of real numbers ({error}); expected "
            "(N, ...). Try leaving text columns out."
        ) from error
    if x.ndim == 0 or not len(x):
        raise ValueError(
            f"Got an array of shape {x.shape}; expected (N, ...) with at least one row. "
            "Try x of several rows."
        )
    if not np.isfinite(x).all():
        raise ValueError(
            f"Got {int((~np.isfinite(x)).sum())} values that are not finite; expected finite "
            "numbers. Try x[np.isfinite(x).all(axis=1)] for a table."
        )
    gaps = np.diff(np.sort(x, axis=0), axis=0)
    smallest = np.where(gaps > 0, gaps, np.inf).min(axis=0, initial=np.inf)
    return smallest / 2
