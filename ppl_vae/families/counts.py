"""Families whose cells are counts."""

from __future__ import annotations

from functools import partial

import pyro.distributions as dist
from torch.distributions import constraints

from ppl_vae.conditional import EventShape, Family, event_size


def Binomial(event_shape: EventShape, *, total: int) -> Family:
    """Independent counts out of a known total: x_d ~ Binomial(total, sigmoid(logits_d)).

    Args:
        event_shape: Shape E of one event.
        total: The largest count that can occur, the same for every cell.

    Raises:
        ValueError: If `total` is not a positive integer.

    Example:
        >>> import torch
        >>> Binomial((), total=2)(logits=torch.tensor(0.0)).log_prob(torch.tensor(1.0)).exp()
        tensor(0.5000)
    """
    if isinstance(total, bool) or not isinstance(total, int) or total < 1:
        raise ValueError(
            f"Got total={total!r}; expected a positive integer, the largest possible count. "
            "Try total=16 for scikit-learn's digits, 255 for 8-bit images."
        )
    shape = event_size(event_shape)
    return Family(
        name=f"Binomial({tuple(shape)}, total={total})",
        event_shape=shape,
        shapes={"logits": shape},
        distribution=partial(dist.Binomial, total_count=total),
        support=constraints.integer_interval(0, total),
        measure="mass",
    )
