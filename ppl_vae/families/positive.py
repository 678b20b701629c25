"""Families whose cells are positive numbers."""

from __future__ import annotations

from functools import partial

import pyro.distributions as dist
import torch
from torch.distributions import constraints

from ppl_vae.conditional import EventShape, Family, event_size
from ppl_vae.families.scale import Predicted, Scale, must_be_positive, positive


def LogNormal(
    event_shape: EventShape,
    *,
    scale: Scale = Predicted(),  # noqa: B008
    min_scale: float = 1e-3,
) -> Family:
    """Independent positive cells whose logarithm is Normal: log x_d ~ N(loc_d, scale_d²).

    The density is that of x, Jacobian included, in nats. exp(loc) is the median of x, and for a
    small scale it is its relative spread. A learned scale is ``min_scale + softplus(raw)``.

    Args:
        event_shape: Shape E of one event.
        scale: Of log x: a positive number (known), `Shared`, `PerFeature` or `Predicted`.
        min_scale: The floor of a learned scale, of log x: 1e-3 is a spread of 0.1 %.

    Raises:
        ValueError: If a scale or the floor is not positive, or a start value is below the floor.

    Example:
        >>> import torch
        >>> LogNormal(2, scale=1)(loc=torch.zeros(2)).log_prob(torch.ones(2))  # -log(2π)
        tensor(-1.8379)
    """
    shape = event_size(event_shape)
    must_be_positive("min_scale", min_scale)
    spread = positive("scale", scale, shape, min_scale)
    return Family(
        name=f"LogNormal({tuple(shape)}, scale={scale})",
        event_shape=shape,
        shapes={"loc": shape} | spread.shapes,
        distribution=partial(dist.LogNormal, **spread.known),
        support=constraints.positive,
        measure="density",
        transforms=spread.transforms,
        shared=spread.shared,
        min_scale=spread.floor,
        filler=1.0,
        features=torch.log,
    )
