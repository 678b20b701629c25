"""How many nats each unit of z is worth."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ppl_vae.diagnostics.arrays import Floats, as_sample


def unit_kl(draws: ArrayLike, prior: ArrayLike) -> Floats:
    r"""Estimate mean_x KL(q(z_d|x) ‖ p(z_d)) of each unit, in nats, each law taken for a Normal.

    ½ (log σ²_p − log σ²_q + (σ²_q + (μ_q − μ_p)²)/σ²_p − 1), with moments from the draws. Of Normal
    guides and priors it is unbiased in the guide's draws: E log s² = log σ² + ψ((S−1)/2) −
    log((S−1)/2), and (μ̂_q − μ_p)² is too large by σ²_q/S; both are taken off. The units of a guide
    that ignores correlations add up to the rate under a prior of independent units. Where laws are
    no Normals it is a scale to read units by, and no KL.

    Args:
        draws: z_s ~ q(z|x), draws first.
        prior: z ~ p(z).

    Shapes:
        draws ``(S, N, D)`` with S ≥ 3, prior ``(M, D)``; returns ``(D,)``.

    Raises:
        ValueError: On anything not finite, other shapes, or fewer than three draws.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> draws = 0.5 * rng.standard_normal((200, 100, 1))
        >>> float(unit_kl(draws, rng.standard_normal((20_000, 1)))[0].round(1))  # log 2 − 3/8
        0.3
    """
    from scipy.special import digamma

    many, whole = np.asarray(draws, dtype=np.float64), as_sample(prior, "prior", 2)
    if many.ndim != 3 or len(many) < 3 or many.shape[2] != whole.shape[1]:
        raise ValueError(
            f"draws, prior: got shapes {many.shape} and {whole.shape}, expected (S, N, D) and "
            "(M, D), S of 3 or more. Try more draws."
        )
    if not np.isfinite(many).all():
        raise ValueError("draws: got NaN or infinity, expected finite numbers. Try other data.")
    half = (len(many) - 1) / 2
    inside = many.var(0, ddof=1)
    centre, spread = whole.mean(0), whole.var(0, ddof=1)
    square = (many.mean(0) - centre) ** 2 - inside / len(many)
    with np.errstate(divide="ignore"):
        log_inside = np.log(inside) - (digamma(half) - np.log(half))
    kl: Floats = 0.5 * (np.log(spread) - log_inside + (inside + square) / spread - 1)
    return kl.mean(0)
