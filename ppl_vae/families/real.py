"""Families on the real line: Normal with a scale of four kinds, and with full covariance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import constraints
from torch.distributions.utils import vec_to_tril_matrix
from torch.nn.functional import softplus

from ppl_vae.conditional import EventShape, Family, event_size


@dataclass(frozen=True)
class Predicted:
    """The scale of each cell is an output of the network: it varies with the context."""


@dataclass(frozen=True)
class Shared:
    """One learned scale for all cells, starting at `init`."""

    init: float = 1.0


@dataclass(frozen=True)
class PerFeature:
    """One learned scale per cell, the same for every context, starting at `init`."""

    init: float = 1.0


Scale = float | Predicted | Shared | PerFeature


def Normal(
    event_shape: EventShape,
    *,
    scale: Scale = Predicted(),
    min_scale: float = 1e-3,  # noqa: B008
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
        >>> Normal(4, scale=Shared()).shapes
        {'loc': torch.Size([4])}
        >>> Normal(4).shapes
        {'loc': torch.Size([4]), 'scale': torch.Size([4])}
    """
    shape = event_size(event_shape)
    if not min_scale > 0:
        raise ValueError(f"Got min_scale={min_scale}; expected a positive number. Try 1e-3.")
    shapes, shared = {"loc": shape}, {}
    known: float | None = None
    if isinstance(scale, Predicted):
        shapes["scale"] = shape
    elif isinstance(scale, Shared | PerFeature):
        cells = Size() if isinstance(scale, Shared) else shape
        shared["scale"] = torch.full(cells, _inverse_softplus(scale.init, min_scale))
    elif isinstance(scale, int | float) and not isinstance(scale, bool) and scale > 0:
        known = float(scale)
    else:
        raise ValueError(
            f"Got scale={scale!r}; expected a positive number, Shared(), PerFeature() or "
            "Predicted()."
        )
    return Family(
        name=f"Normal({tuple(shape)}, scale={scale})",
        event_shape=shape,
        shapes=shapes,
        distribution=dist.Normal if known is None else lambda loc: dist.Normal(loc, known),
        support=constraints.real,
        measure="density",
        transforms={} if known is not None else {"scale": lambda raw: min_scale + softplus(raw)},
        shared=shared,
        min_scale=None if known is not None else min_scale,
    )


def MultivariateNormal(event_shape: EventShape, *, min_scale: float = 1e-3) -> Family:
    """A Normal with full covariance Σ = L Lᵀ, loc and the Cholesky factor L predicted.

    The diagonal of L is ``min_scale + softplus(raw)``.

    Args:
        event_shape: D or ``(D,)``: a vector. Flatten an image in the data to use it.
        min_scale: The floor of the diagonal of L.

    Raises:
        ValueError: If the event is not a vector, or the floor is not positive.

    Example:
        >>> q = MultivariateNormal(3)
        >>> q(loc=torch.zeros(5, 3), cholesky=torch.zeros(5, 6)).covariance_matrix.shape
        torch.Size([5, 3, 3])
    """
    shape = event_size(event_shape)
    if len(shape) != 1:
        raise ValueError(
            f"Got the event shape {tuple(shape)}; expected one dimension: a covariance needs a "
            "vector. Try Normal, or flatten the data."
        )
    if not min_scale > 0:
        raise ValueError(f"Got min_scale={min_scale}; expected a positive number. Try 1e-3.")

    def lower(raw: Tensor) -> Tensor:
        matrix = vec_to_tril_matrix(raw)
        diagonal = torch.diagonal(matrix, dim1=-2, dim2=-1)
        return matrix.tril(-1) + torch.diag_embed(min_scale + softplus(diagonal))

    return Family(
        name=f"MultivariateNormal({shape[0]})",
        event_shape=shape,
        shapes={"loc": shape, "cholesky": Size([shape[0] * (shape[0] + 1) // 2])},
        distribution=lambda loc, cholesky: dist.MultivariateNormal(loc, scale_tril=cholesky),
        support=constraints.real,
        measure="density",
        transforms={"cholesky": lower},
        min_scale=min_scale,
    )


def _inverse_softplus(value: float, floor: float) -> float:
    if not value > floor:
        raise ValueError(f"Got init={value}; expected more than min_scale={floor}.")
    return value - floor + math.log(-math.expm1(floor - value))
