"""The resolution of measurements: how fine their values are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

COLUMNS, ROWS = 16, 1024  # a tile of this size is turned round within the processor's cache


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
    smallest, _ = gaps(x.reshape(len(x), -1))
    return smallest.reshape(x.shape[1:]) / 2


def gaps(x: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Give the smallest gap of each column, and whether any of its values comes twice.

    Args:
        x: ``(N, D)``, finite. It is sorted in blocks of columns, never copied as a whole.

    Returns:
        ``(D,)`` each; the gap is infinite where a column is constant.
    """
    rows, columns = x.shape
    smallest, tied = np.full(columns, np.inf), np.zeros(columns, dtype=bool)
    for at in range(0, columns, COLUMNS):
        block = np.empty((min(COLUMNS, columns - at), rows), x.dtype)
        for i in range(0, rows, ROWS):
            block[:, i : i + ROWS] = x[i : i + ROWS, at : at + COLUMNS].T
        block.sort(axis=1)
        gap = np.subtract(block[:, 1:], block[:, :-1], dtype=np.float64)
        same = gap == 0
        gap[same] = np.inf
        smallest[at : at + COLUMNS] = gap.min(axis=1, initial=np.inf)
        tied[at : at + COLUMNS] = same.any(axis=1)
    return smallest, tied
