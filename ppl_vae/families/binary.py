"""Families whose cells are 0 or 1."""

from __future__ import annotations

import pyro.distributions as dist
from torch.distributions import constraints

from ppl_vae.conditional import EventShape, Family, event_size


def Bernoulli(event_shape: EventShape) -> Family:
    """Independent cells in {0, 1}: x_d ~ Bernoulli(sigmoid(logits_d)).

    Grey values in [0, 1] have no likelihood under it: `ppl_vae.fit` refuses them.

    Args:
        event_shape: Shape E of one event.

    Example:
        >>> import torch
        >>> Bernoulli(3)(logits=torch.zeros(3)).log_prob(torch.ones(3)).exp()
        tensor(0.1250)
    """
    shape = event_size(event_shape)
    return Family(
        name=f"Bernoulli({tuple(shape)})",
        event_shape=shape,
        shapes={"logits": shape},
        distribution=dist.Bernoulli,
        support=constraints.boolean,
        measure="mass",
        level="nominal",
    )
