"""The kinds of a scale: known, shared, one a feature, or predicted; dispersions have the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Size, Tensor
from torch.nn.functional import softplus


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


class Positive(NamedTuple):
    """What one positive parameter adds to the record of a family.

    Attributes:
        shapes: Its shape, where the network predicts it.
        shared: Its start value, where it is learned but not predicted.
        transforms: From unconstrained to above the floor, where it is learned.
        known: Its value, where it is known.
        floor: Its floor, None where it is known.
    """

    shapes: dict[str, Size]
    shared: dict[str, Tensor]
    transforms: dict[str, Callable[[Tensor], Tensor]]
    known: dict[str, Any]
    floor: float | None


class Link(NamedTuple):
    """How the reals become a positive parameter, above its floor.

    Attributes:
        onto: The reals to the positive numbers.
        inverse: Of one number.
    """

    onto: Callable[[Tensor], Tensor]
    inverse: Callable[[float], float]


def positive(
    name: str, kind: Scale, shape: Size, floor: float, link: Link | None = None
) -> Positive:
    """Say what a positive parameter of one of the four kinds is made of.

    A learned one is ``floor + link.onto(raw)``.

    Args:
        name: Of the parameter, as the distribution calls it.
        kind: A positive number (known), `Shared`, `PerFeature` or `Predicted`.
        shape: Shape E of one event.
        floor: Below which a learned one never is.
        link: `SOFTPLUS` unless given.

    Raises:
        ValueError: If `kind` is none of the four, or a start value is not above the floor.

    Example:
        >>> positive("scale", Predicted(), Size([3]), 1e-3).shapes
        {'scale': torch.Size([3])}
        >>> positive("scale", 2, Size([3]), 1e-3).known
        {'scale': 2.0}
    """
    link = SOFTPLUS if link is None else link
    if isinstance(kind, Predicted):
        return Positive({name: shape}, {}, {name: partial(above, floor, link=link)}, {}, floor)
    if isinstance(kind, Shared | PerFeature):
        cells = Size() if isinstance(kind, Shared) else shape
        start = torch.full(cells, link.inverse(_above_floor(name, kind, floor)))
        return Positive({}, {name: start}, {name: partial(above, floor, link=link)}, {}, floor)
    if is_positive(kind):
        return Positive({}, {}, {}, {name: float(kind)}, None)
    raise ValueError(
        f"Got {name}={kind!r}; expected a positive finite number, Shared(), PerFeature() or "
        f"Predicted(). Try {name}=Shared(), which is learned."
    )


def above(floor: float, raw: Tensor, link: Link | None = None) -> Tensor:
    """Map the reals to what lies above a floor, by `SOFTPLUS` unless told otherwise.

    Example:
        >>> above(0.5, torch.tensor(-100.0))
        tensor(0.5000)
    """
    return floor + (SOFTPLUS if link is None else link).onto(raw)


def inverse_softplus(value: float) -> float:
    """Give the raw number whose softplus is `value`, which is positive.

    Example:
        >>> round(inverse_softplus(math.log(2)), 9) + 0.0
        0.0
    """
    return value + math.log(-math.expm1(-value))


def saturating_exp(raw: Tensor) -> Tensor:
    """exp(raw) up to where it bends towards 1e6.

    Example:
        >>> saturating_exp(torch.tensor([0.0, 2.0, 200.0]))
        tensor([1.0000e+00, 7.3890e+00, 1.0000e+06])
    """
    return CEILING * torch.sigmoid(raw - math.log(CEILING))


def inverse_saturating_exp(value: float) -> float:
    """Give the raw number of a value between 0 and 1e6.

    Raises:
        ValueError: If it is not below 1e6.

    Example:
        >>> saturating_exp(torch.tensor(inverse_saturating_exp(10.0)))
        tensor(10.0000)
    """
    if not value < CEILING:
        raise ValueError(
            f"Got the start value {value:g}; expected one below {CEILING:g}, as larger "
            "ones make no difference. Try Shared(10.0)."
        )
    return math.log(value) - math.log1p(-value / CEILING)


CEILING = 1e6

SOFTPLUS = Link(softplus, inverse_softplus)
"""For scales: linear where they are large, so that a wild output of a network does no harm."""

LOG = Link(saturating_exp, inverse_saturating_exp)
"""For what may lie anywhere in several powers of ten: learned as a logarithm."""


def is_positive(value: object) -> TypeGuard[float]:
    """Say whether it is a positive finite number.

    Example:
        >>> is_positive(1), is_positive(True), is_positive(float("inf"))
        (True, False, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < math.inf


def must_be_positive(name: str, value: float) -> None:
    """Refuse a floor that is none.

    Raises:
        ValueError: If it is not a positive finite number.
    """
    if not is_positive(value):
        raise ValueError(f"Got {name}={value!r}; expected a positive finite number. Try 1e-3.")


def _above_floor(name: str, kind: Shared | PerFeature, floor: float) -> float:
    if not is_positive(kind.init) or not kind.init > floor:
        raise ValueError(
            f"Got {name}={kind!r}; expected a finite init above {floor:g}, the floor of a learned "
            f"{name}. Try a larger one: of a scale, the standard deviation of the data."
        )
    return float(kind.init) - floor
