"""Families on the real line: Normal with a scale of four kinds, and with full covariance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import TypeGuard

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
    _must_be_positive("min_scale", min_scale)
    shapes, shared = {"loc": shape}, {}
    known: float | None = None
    if isinstance(scale, Predicted):
        shapes["scale"] = shape
    elif isinstance(scale, Shared | PerFeature):
        cells = Size() if isinstance(scale, Shared) else shape
        shared["scale"] = torch.full(cells, _inverse_softplus(scale.init, min_scale))
    elif _is_positive(scale):
        known = float(scale)
    else:
        raise ValueError(
            f"Got scale={scale!r}; expected a positive finite number, Shared(), PerFeature() or "
            "Predicted(). Try scale=Shared(), which is learned."
        )
    return Family(
        name=f"Normal({tuple(shape)}, scale={scale})",
        event_shape=shape,
        shapes=shapes,
        distribution=dist.Normal if known is None else partial(dist.Normal, scale=known),
        support=constraints.real,
        measure="density",
        transforms={} if known is not None else {"scale": partial(_above, min_scale)},
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
        >>> q(loc=torch.zeros(5, 3), scale_tril=torch.zeros(5, 6)).covariance_matrix.shape
        torch.Size([5, 3, 3])
    """
    shape = event_size(event_shape)
    if len(shape) != 1:
        raise ValueError(
            f"Got the event shape {tuple(shape)}; expected one dimension: a covariance needs a "
            "vector. Try Normal, or flatten the data."
        )
    _must_be_positive("min_scale", min_scale)

    return Family(
        name=f"MultivariateNormal({shape[0]})",
        event_shape=shape,
        shapes={"loc": shape, "scale_tril": Size([shape[0] * (shape[0] + 1) // 2])},
        distribution=dist.MultivariateNormal,
        support=constraints.real,
        measure="density",
        transforms={"scale_tril": partial(_lower, min_scale)},
        min_scale=min_scale,
    )


def _above(floor: float, raw: Tensor) -> Tensor:
    return floor + softplus(raw)


def _lower(floor: float, raw: Tensor) -> Tensor:
    matrix = vec_to_tril_matrix(raw)
    diagonal = torch.diagonal(matrix, dim1=-2, dim2=-1)
    return matrix.tril(-1) + torch.diag_embed(_above(floor, diagonal))


def _inverse_softplus(value: float, floor: float) -> float:
    if not _is_positive(value) or not value > floor:
        raise ValueError(
            f"Got init={value!r}; expected a finite number above min_scale={floor}. "
            "Try the standard deviation of the data, or a smaller min_scale."
        )
    return float(value) - floor + math.log(-math.expm1(floor - float(value)))


def _is_positive(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < math.inf


def _must_be_positive(name: str, value: float) -> None:
    if not _is_positive(value):
        raise ValueError(f"Got {name}={value!r}; expected a positive finite number. Try 1e-3.")
