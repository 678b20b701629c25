"""What the diagnostics accept: arrays of log weights and of draws, checked and in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def as_matrix(values: ArrayLike, name: str, axes: tuple[str, str]) -> Floats:
    """Cast to a float64 matrix without NaN or +inf; -inf is let through.

    Args:
        values: Anything numpy can read.
        name: What the caller calls it, for the errors.
        axes: What its two axes are called, for the errors.

    Raises:
        ValueError: If it is not a matrix, is empty, or holds NaN or +inf.

    Example:
        >>> as_matrix([[1, 2]], "log_weights", ("S", "N"))
        array([[1., 2.]])
    """
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2:
        raise ValueError(
            f"{name}: got an array of shape {matrix.shape}, expected ({', '.join(axes)}). "
            f"Try {name}[:, None] if one axis is missing."
        )
    if matrix.size == 0:
        raise ValueError(
            f"{name}: got an empty array of shape {matrix.shape}, expected "
            f"({', '.join(axes)}). Try more draws, or a batch with data in it."
        )
    bad = np.isnan(matrix) | np.isposinf(matrix)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"{name}: got {matrix[row, column]} at {axes[0]} = {row}, {axes[1]} = {column} "
            f"({bad.sum()} such values), expected finite numbers or -inf. "
            "Try float64, and look for missing values that were not masked."
        )
    return matrix


def as_log_weights(log_weights: ArrayLike, min_draws: int = 1) -> Floats:
    """Cast log weights ``(S, N)``: -inf is a legal draw, a column of nothing else is not.

    Args:
        log_weights: Log weights, draws along the first axis.
        min_draws: The smallest S that the caller can use.

    Raises:
        ValueError: As `as_matrix`, or if S is too small, or if every weight of a datum is zero.

    Example:
        >>> as_log_weights([[0.0, 1.0], [float("-inf"), 2.0]])
        array([[  0.,   1.], [-inf,   2.]])
    """
    matrix = as_matrix(log_weights, "log_weights", ("S", "N"))
    if len(matrix) < min_draws:
        raise ValueError(
            f"log_weights: got {len(matrix)} draw(s) per datum, expected at least {min_draws}, "
            "draws along the first axis. Try more draws."
        )
    empty = np.flatnonzero(np.isneginf(matrix).all(axis=0))
    if empty.size:
        raise ValueError(
            f"log_weights: got -inf for every draw of datum {empty[0]} ({empty.size} such data), "
            "expected at least one draw in the posterior's support. Try a guide whose support is "
            "the prior's, and check that the datum lies in the likelihood's support."
        )
    return matrix


def as_sample(draws: ArrayLike, name: str, min_rows: int = 2) -> Floats:
    """Cast draws ``(N, D)``, all finite.

    Args:
        draws: One draw a row.
        name: What the caller calls it, for the errors.
        min_rows: The smallest N that the caller can use.

    Raises:
        ValueError: As `as_matrix`, or if there are infinities or too few rows.

    Example:
        >>> as_sample([[0.0], [1.0]], "loc").shape
        (2, 1)
    """
    matrix = as_matrix(draws, name, ("N", "D"))
    if np.isneginf(matrix).any():
        raise ValueError(f"{name}: got -inf, expected finite numbers. Try dropping those rows.")
    if len(matrix) < min_rows:
        raise ValueError(
            f"{name}: got {len(matrix)} row(s), expected at least {min_rows}. Try more of them."
        )
    return matrix
