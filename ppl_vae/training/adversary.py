"""A warning while training that the adversary has won, or has gone blind."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ppl_vae.training.history import History

EPOCHS = 10
"""For as many epochs it must have been so."""

WON = 0.95
"""Right in so many cases a critic has told codes from draws of the prior."""

BLIND = 1e-3
"""Per unit of z: codes are not moved by a gradient below it, before it is weighed."""


def adversary(rows: Sequence[dict[str, float]], weight: float) -> list[str]:
    """Say of which critics the game is over, at the epoch after which that is so.

    That a critic cannot tell codes from the prior is not among it: so it is where the two match,
    and so it is where the critic is weak.

    Args:
        rows: Of the history so far.
        weight: Of the critics; 0 switches them off.

    Example:
        >>> rows = [{"critic_accuracy": 0.99, "critic_gradient": 2.0}] * 10
        >>> adversary(rows, 10.0)[0][:46], adversary(rows[:9], 10.0)
        ('The critic has told codes from draws of p(z) i', [])
    """
    if not rows or not weight:
        return []
    said = []
    for column in History(list(rows)).critics("accuracy"):
        name, who = column.removesuffix("_accuracy"), f"The {History.critic_of(column)}"
        late = rows[-EPOCHS - 1 :]
        accuracy = [row.get(f"{name}_accuracy", 0.5) for row in late]
        gradient = [row.get(f"{name}_gradient", weight) / weight for row in late]
        if math.isnan(accuracy[-1]) and not any(map(math.isnan, accuracy[:-1])):
            said.append(
                f"{who} has judged nothing in this epoch: no row counts, for a mask leaves all of "
                "them out. Expected some that it leaves in. Try True in the mask where data are."
            )
        elif _since([g < BLIND for g in gradient]):
            said.append(
                f"{who} has sent codes a gradient below {BLIND} per unit of z, times its weight, "
                f"for {EPOCHS} epochs: it is blind, and does not move q(z) any more. Try a smaller "
                "rate in critic_optimizer, instance_noise=0.5, loss=Wasserstein(), or another net."
            )
        elif _since([a > WON for a in accuracy]):
            said.append(
                f"{who} has told codes from draws of p(z) in over {WON:.0%} of its cases for "
                f"{EPOCHS} epochs: it has won, and q(z) is far from p(z). Try a larger weight, "
                "instance_noise=0.5, loss=Wasserstein(), a smaller rate in critic_optimizer, or a "
                "wider encoder."
            )
    return said


def _since(late: Sequence[bool]) -> bool:
    """Whether a sign has been there in the last `EPOCHS` epochs, and not in the one before."""
    return len(late) >= EPOCHS and all(late[-EPOCHS:]) and not any(late[:-EPOCHS])
