"""A warning while training that z has come to say nothing of x."""

from __future__ import annotations

from collections.abc import Sequence

LEAST = 0.05
"""Nats per datum: a KL(q(z|x) ‖ p(z)) below it is that of a guide which is the prior."""

EPOCHS = 10
"""For as many epochs after the warm-up it must have been."""


def collapse(rows: Sequence[dict[str, float]], warmup: float) -> str | None:
    """Say that the posterior has collapsed, at the epoch after which that is so.

    Args:
        rows: Of the history so far.
        warmup: Epochs in which the KL gained weight.

    Example:
        >>> rows = [{"epoch": float(k + 1), "kl": 0.01} for k in range(10)]
        >>> collapse(rows, 0)[:36], collapse(rows, 5)
        ('KL(q(z|x) ‖ p(z)) has been below 0.0', None)
    """
    late = [row["kl"] for row in rows if row["epoch"] > warmup and "kl" in row]
    ends = range(EPOCHS, len(late) + 1)
    first = next((k for k in ends if all(kl < LEAST for kl in late[k - EPOCHS : k])), None)
    if first != len(late):  # not so, or said before
        return None
    return (
        f"KL(q(z|x) ‖ p(z)) has been below {LEAST} nats per datum for {EPOCHS} epochs: z says "
        "nothing of x (posterior collapse). Try ELBO(warmup=...) or ELBO(kl_weight=0.5), a weaker "
        "decoder, or a smaller learning rate; diagnose says which units are in use."
    )
