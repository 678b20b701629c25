"""A family without a density: one point."""

from __future__ import annotations

from functools import partial

import pyro.distributions as dist
from torch.distributions import constraints

from ppl_vae.conditional import EventShape, Family, event_size


def Delta(event_shape: EventShape) -> Family:
    """All mass on one predicted point: a deterministic encoder.

    It has no density, so it gets no ELBO, no evidence and no log weights; under `ELBO` it
    gives a maximum a posteriori fit, under `Adversarial` a deterministic autoencoder.

    Args:
        event_shape: Shape E of one event.

    Example:
        >>> import torch
        >>> Delta(2)(v=torch.ones(5, 2)).sample().shape
        torch.Size([5, 2])
    """
    shape = event_size(event_shape)
    return Family(
        name=f"Delta({tuple(shape)})",
        event_shape=shape,
        shapes={"v": shape},
        distribution=partial(dist.Delta, event_dim=len(shape)),
        support=constraints.real,
        measure="point",
    )
