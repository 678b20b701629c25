"""Which latent dimensions the guide uses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.diagnostics.arrays import Floats, as_sample


@dataclass(frozen=True, eq=False)
class ActiveUnits:
    """How much each unit of the guide's mean moves with the datum.

    Attributes:
        variance: Var_x E_q[z_d|x], ``(D,)``, in the units of z squared; never below 0.
        active: Whether it exceeds the threshold, ``(D,)``.
        count: How many do.
        threshold: The threshold.
    """

    variance: Floats
    active: NDArray[np.bool_]
    count: int
    threshold: float


def active_units(
    loc: ArrayLike, threshold: float = 1e-2, *, noise: ArrayLike | None = None
) -> ActiveUnits:
    """Count the units whose guide mean varies over the data: Var_x E_q[z_d|x] > threshold.

    *Importance Weighted Autoencoders* (Burda et al., 2015, arXiv:1509.00519), section 5.2
    (recalled, not checked). The threshold is theirs and supposes a prior of about unit scale. An
    inactive unit is ignored by the decoder or pushed to the prior; neither is an error in itself.

    Args:
        loc: Means E_q[z|x] of the guide, one datum a row.
        threshold: Variance above which a unit counts as active.
        noise: Where `loc` are means of S draws: the variance that this adds, per unit. With draws
            ``(S, N, D)`` it is ``draws.var(0, ddof=1).mean(0) / S``. Subtracting it leaves the
            variance unbiased (before it is cut at 0), with a standard error of about
            ``noise * (2 / N) ** 0.5`` for a unit that does not move.

    Shapes:
        loc ``(N, D)`` with N ≥ 2, noise ``(D,)``.

    Raises:
        ValueError: On anything not finite, fewer than two data, a negative threshold, or noise that
            is negative or of another shape.

    Example:
        >>> active_units([[0.0, 1.0], [0.01, -1.0]]).active
        array([False,  True])
    """
    if not threshold >= 0:
        raise ValueError(f"threshold: got {threshold}, expected a number ≥ 0. Try 0.01.")
    variance = as_sample(loc, "loc").var(axis=0, ddof=1)
    if noise is not None:
        noise = np.asarray(noise, dtype=np.float64)
        if noise.shape != variance.shape or not (np.isfinite(noise) & (noise >= 0)).all():
            raise ValueError(
                f"noise: got {noise}, expected {len(variance)} finite number(s) ≥ 0, one a unit. "
                "Try draws.var(0, ddof=1).mean(0) / len(draws)."
            )
        variance = np.maximum(variance - noise, 0.0)
    active = variance > threshold
    return ActiveUnits(variance, active, int(active.sum()), float(threshold))
