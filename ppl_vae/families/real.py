"""Families whose cells are independent real numbers: Normal, and Student's t for outliers."""

from __future__ import annotations

from functools import partial

import pyro.distributions as dist
from torch.distributions import constraints

from ppl_vae.conditional import EventShape, Family, event_size
from ppl_vae.families.scale import Predicted, Scale, must_be_positive, positive

MIN_DF = 2.0
"""The floor of learned degrees of freedom: above it a t has a variance."""


def Normal(
    event_shape: EventShape,
    *,
    scale: Scale = Predicted(),  # noqa: B008
    min_scale: float = 1e-3,
) -> Family:
    """Independent Normal cells: x_d ~ N(loc_d, scale_d²), the loc predicted by the network.

    A learned scale is ``min_scale + softplus(raw)``: without a floor, a cell that is constant
    in the data has unbounded likelihood. The floor is part of the model.

    Args:
        event_shape: Shape E of one event.
        scale: A positive number (known), `Shared`, `PerFeature` or `Predicted`.
        min_scale: The floor of a learned scale, in the units of x.

    Raises:
        ValueError: If a scale or the floor is not positive, or a start value is below the floor.

    Example:
        >>> from ppl_vae import Shared
        >>> Normal(4, scale=Shared()).shapes
        {'loc': torch.Size([4])}
        >>> Normal(4).shapes
        {'loc': torch.Size([4]), 'scale': torch.Size([4])}
    """
    shape = event_size(event_shape)
    must_be_positive("min_scale", min_scale)
    spread = positive("scale", scale, shape, min_scale)
    return Family(
        name=f"Normal({tuple(shape)}, scale={scale})",
        event_shape=shape,
        shapes={"loc": shape} | spread.shapes,
        distribution=partial(dist.Normal, **spread.known) if spread.known else dist.Normal,
        support=constraints.real,
        measure="density",
        transforms=spread.transforms,
        shared=spread.shared,
        min_scale=spread.floor,
    )


def StudentT(
    event_shape: EventShape,
    *,
    df: Scale = 4.0,
    scale: Scale = Predicted(),  # noqa: B008
    min_scale: float = 1e-3,
) -> Family:
    """Independent Student t cells, for data with outliers: (x_d − loc_d) / scale_d ~ t(df).

    The log density falls like −(df + 1) log |x|, not like −x²: one wild value moves the fit little.
    Learned degrees of freedom are ``2 + softplus(raw)``, so that there is a variance; it is
    scale² df / (df − 2). A learned scale is ``min_scale + softplus(raw)``.

    Args:
        event_shape: Shape E of one event.
        df: Degrees of freedom: a positive number (known; 1 is Cauchy's distribution, near 30 it is
            almost Normal, and from 1e4 float32 loses 5e-3 nats a cell), or of the other kinds of a
            scale, such as ``Shared(init=4.0)``.
        scale: A positive number (known), `Shared`, `PerFeature` or `Predicted`.
        min_scale: The floor of a learned scale, in the units of x.

    Raises:
        ValueError: If a parameter or the floor is not positive, or a start value is below its
            floor.

    Example:
        >>> import torch
        >>> cauchy = StudentT((), df=1, scale=1)(loc=torch.tensor(0.0))
        >>> cauchy.log_prob(torch.tensor(0.0)).exp() * torch.pi
        tensor(1.0000)
    """
    shape = event_size(event_shape)
    must_be_positive("min_scale", min_scale)
    tails, spread = positive("df", df, shape, MIN_DF), positive("scale", scale, shape, min_scale)
    return Family(
        name=f"StudentT({tuple(shape)}, df={df}, scale={scale})",
        event_shape=shape,
        shapes={"loc": shape} | spread.shapes | tails.shapes,
        distribution=partial(dist.StudentT, **tails.known, **spread.known),
        support=constraints.real,
        measure="density",
        transforms=spread.transforms | tails.transforms,
        shared=spread.shared | tails.shared,
        min_scale=spread.floor,
    )
