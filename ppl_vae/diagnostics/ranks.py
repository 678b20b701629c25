"""Where the truth ranks among draws that should have its law: unit by unit, and by distances."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.diagnostics.arrays import Floats

Ranks = NDArray[np.int64]


def ranks(truth: ArrayLike, draws: ArrayLike, *, seed: int = 0) -> Ranks:
    """Count the draws below the truth: 0 to S, uniform where truth and draws have one law.

    *Validating Bayesian inference algorithms with simulation-based calibration* (Talts et al.,
    2018, arXiv:1804.06788), theorem 1: with z ~ p(z), x ~ p(x|z) and z_s ~ p(z|x), the rank of f(z)
    among f(z_s) is uniform for every f. Equal values are ranked at random among each other.

    Args:
        truth: f(z), one datum a row, one quantity a column.
        draws: f(z_s), draws first.
        seed: Of the order of equal values.

    Shapes:
        truth ``(N, Q)``, draws ``(S, N, Q)``; returns ``(N, Q)``.

    Raises:
        ValueError: On NaN, or shapes that do not fit.

    Example:
        >>> ranks([[0.5]], [[[0.1]], [[0.7]], [[0.2]]])
        array([[2]])
    """
    one, many = _pair(truth, draws)
    below, equal = (many < one).sum(0), (many == one).sum(0)
    if not equal.any():
        return below
    # Not the stream that a caller may have drawn from with this seed.
    return below + np.random.default_rng([seed, 0x7135]).integers(0, equal + 1)


def tarp_ranks(truth: ArrayLike, draws: ArrayLike, references: ArrayLike) -> Ranks:
    """Count the draws that are nearer to a reference point than the truth: 0 to S.

    *Sampling-Based Accuracy Testing of Posterior Estimators for General Inference* (Lemos et al.,
    2023, arXiv:2302.03026): uniform for every reference that does not depend on the truth, though
    it may on x. The ranks over S are the coverage of balls around the references (TARP).

    Args:
        truth: z, one datum a row.
        draws: z_s ~ q(z|x), draws first.
        references: A point for each datum, such as z ~ p(z) of other data. Distances are Euclidean:
            scale the coordinates first where their units differ.

    Shapes:
        truth ``(N, D)``, draws ``(S, N, D)``, references ``(N, D)``; returns ``(N,)``.

    Raises:
        ValueError: On NaN, or shapes that do not fit.

    Example:
        >>> tarp_ranks([[1.0]], [[[0.5]], [[2.0]]], [[0.0]])
        array([1])
    """
    one, many = _pair(truth, draws)
    centre = np.asarray(references, dtype=np.float64)
    if centre.shape != one.shape or np.isnan(centre).any():
        raise ValueError(
            f"references: got shape {centre.shape}{', with NaN' * bool(np.isnan(centre).any())}, "
            f"expected {one.shape}, one a datum. Try draws from the prior."
        )
    far = np.linalg.norm(one - centre, axis=-1)
    return (np.linalg.norm(many - centre, axis=-1) < far).sum(0)


def _pair(truth: ArrayLike, draws: ArrayLike) -> tuple[Floats, Floats]:
    one, many = np.asarray(truth, dtype=np.float64), np.asarray(draws, dtype=np.float64)
    if one.ndim != 2 or many.ndim != 3 or many.shape[1:] != one.shape or not many.size:
        raise ValueError(
            f"truth, draws: got shapes {one.shape} and {many.shape}, expected (N, Q) and (S, N, Q)."
            " Try [:, None] for a single quantity."
        )
    if np.isnan(one).any() or np.isnan(many).any():
        raise ValueError(
            "truth, draws: got NaN, expected numbers. Try leaving such data out, of both."
        )
    return one, many
