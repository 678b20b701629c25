"""Families whose cells lie in [0, 1]."""

from __future__ import annotations

from torch.distributions import constraints

from ppl_vae import distributions
from ppl_vae.conditional import EventShape, Family, event_size


def ContinuousBernoulli(event_shape: EventShape) -> Family:
    """Independent cells in [0, 1], with a density proportional to exp(logits_d x_d).

    What a Bernoulli is often misused for, made a density of grey values (Loaiza-Ganem and
    Cunningham 2019, arXiv:1907.06845). It has one parameter a cell, so it cannot be narrow: for
    pixels of 256 levels `DiscretisedLogistic` is the sharper model, and a mass. Draws have no
    gradient: as a guide take Normal, which the program pushes onto the prior's support.

    Args:
        event_shape: Shape E of one event.

    Example:
        >>> import torch
        >>> ContinuousBernoulli(3)(logits=torch.zeros(3)).log_prob(torch.rand(3))  # uniform
        tensor(0.)
    """
    shape = event_size(event_shape)
    return Family(
        name=f"ContinuousBernoulli({tuple(shape)})",
        event_shape=shape,
        shapes={"logits": shape},
        distribution=distributions.ContinuousBernoulli,
        support=constraints.unit_interval,
        measure="density",
    )
