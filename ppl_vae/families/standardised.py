"""A family in units of the data: what standardising is for, without leaving the data's units."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from numbers import Real

from pyro.distributions.torch_distribution import TorchDistributionMixin as TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from ppl_vae.conditional import Family
from ppl_vae.families.scale import is_positive


def Standardised(family: Family, *, loc: float = 0.0, scale: float) -> Family:
    """x = loc + scale · y, with y of the given family: the network works in units of y.

    A network starts near 0, far from an income of 3e4. Here it starts there: loc and scale are
    known numbers of the model. Log-probs are those of x in its own units, Jacobian included, so
    that they compare with those of other choices of loc and scale. A learned scale and its floor
    are in units of y, a known scale stays in those of x. Positive numbers are divided, not shifted.

    Args:
        family: `Normal` or `StudentT`; or `LogNormal`, with loc 0.
        loc: Such as the mean of the training data.
        scale: Such as their standard deviation; of positive numbers, the median.

    Raises:
        ValueError: If the family is another, or loc and scale do not suit it.

    Example:
        >>> import torch
        >>> from ppl_vae import Normal
        >>> income = Standardised(Normal((), scale=1e4), loc=3e4, scale=2e4)
        >>> income(loc=torch.tensor(0.5)).mean
        tensor(40000.)
    """
    positive = family.support is constraints.positive
    learned = {*family.shapes, *family.shared}
    if (
        not (positive or family.support is constraints.real)
        or "loc" not in learned
        or (learned - {"loc", "scale", "df"})
    ):
        raise ValueError(
            f"Got {family!r}; expected independent cells with a loc and a scale. Try Normal, "
            "StudentT or LogNormal."
        )
    if getattr(family.distribution, "func", None) in (_affine, _times):
        raise ValueError(
            f"Got {family!r}, which is standardised already; expected a family in its own units. "
            "Try one loc and one scale."
        )
    if isinstance(loc, bool) or not isinstance(loc, Real) or not math.isfinite(loc):
        raise ValueError(f"Got loc={loc!r}; expected a finite number. Try float(x.mean()).")
    if not is_positive(scale):
        raise ValueError(
            f"Got scale={scale!r}; expected a positive finite number. Try float(x.std()); a column "
            "that is constant is best left out."
        )
    if positive and loc:
        raise ValueError(
            f"Got loc={loc!r} for {family!r}; expected 0: positive numbers that are shifted may "
            "become negative. Try scale=float(x.median()) alone."
        )
    floor = family.min_scale
    return replace(
        family,
        name=f"Standardised({family!r}, loc={loc!r}, scale={scale!r})",
        distribution=partial(
            _times if positive else _affine, family.distribution, float(loc), float(scale)
        ),
        min_scale=floor if floor is None or positive else floor * float(scale),
        filler=family.filler if positive else float(loc),
        features=partial(_log_of, float(scale)) if positive else partial(_back, loc, float(scale)),
    )


def _back(shift: float, unit: float, x: Tensor) -> Tensor:
    return (x - shift) / unit


def _log_of(unit: float, x: Tensor) -> Tensor:
    return (x / unit).log()


def _affine(
    build: Callable[..., TorchDistribution], shift: float, unit: float, **raw: Tensor
) -> TorchDistribution:
    # A location-scale family: its affine image is the same family, the Jacobian within.
    raw["loc"] = shift + unit * raw["loc"]
    if "scale" in raw:
        raw["scale"] = unit * raw["scale"]
    return build(**raw)


def _times(
    build: Callable[..., TorchDistribution], shift: float, unit: float, **raw: Tensor
) -> TorchDistribution:
    # log x = log unit + log y
    return build(**raw | {"loc": math.log(unit) + raw["loc"]})
