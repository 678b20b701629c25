"""A warning while training that the adversary has won, or has gone blind."""

from __future__ import annotations

from collections.abc import Sequence

EPOCHS = 10
"""For as many epochs it must have been so."""

WON = 0.95
"""Right in so many cases a critic has told codes from draws of the prior."""

BLIND = 1e-3
"""Nats per unit of z: codes are not moved by a gradient below it."""


def adversary(rows: Sequence[dict[str, float]], weight: float) -> str | None:
    """Say that the game is over, at the epoch after which that is so.

    That a critic cannot tell codes from the prior is not among it: so it is where the two match,
    and so it is where the critic is weak.

    Args:
        rows: Of the history so far.
        weight: Of the critics; 0 switches them off.

    Example:
        >>> rows = [{"critic_accuracy": 0.99, "critic_gradient": 2.0}] * 10
        >>> adversary(rows, 10.0)[:46], adversary(rows[:9], 10.0)
        ('The critic has told codes from draws of p(z) i', None)
    """
    if not rows or not weight:
        return None
    names = [c.removesuffix("_accuracy") for c in rows[0] if c.endswith("_accuracy")]
    for name in names:
        who = f"The {name.replace('_', ' of ')}"
        accuracy, gradient = ([r.get(f"{name}_{k}", 0.5) for r in rows] for k in SIGNS)
        if _since([g < BLIND for g in gradient]):
            return (
                f"{who} has sent codes a gradient below {BLIND} nats per unit of z for {EPOCHS} "
                "epochs: it is blind, and does not move q(z) any more. Try a smaller rate in "
                "critic_optimizer, instance_noise=0.5, loss=Wasserstein(), or another net."
            )
        if _since([a > WON for a in accuracy]):
            return (
                f"{who} has told codes from draws of p(z) in over {WON:.0%} of its cases for "
                f"{EPOCHS} epochs: it has won, and q(z) is far from p(z). Try a larger weight, "
                "instance_noise=0.5, loss=Wasserstein(), a smaller rate in critic_optimizer, or a "
                "wider encoder."
            )
    return None


SIGNS = ("accuracy", "gradient")


def _since(signs: Sequence[bool]) -> bool:
    """Whether a sign has been there for `EPOCHS` epochs, for the first time."""
    ends = (k for k in range(EPOCHS, len(signs) + 1) if all(signs[k - EPOCHS : k]))
    return next(ends, None) == len(signs)
