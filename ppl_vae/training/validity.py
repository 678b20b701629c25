"""Pyro's validation as tensor operations: what eager steps raise, a graph says by a flag."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from pyro.distributions import Delta
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.utils import lazy_property


class Validity(Messenger):
    """Collects whether parameters and observed values lie where their distributions have them.

    The reals are not checked: what is not a number there makes the loss none either.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flags: list[Tensor] = []

    def _pyro_post_sample(self, message: Any) -> None:  # noqa: ANN401
        chain = list(_with_bases(message["fn"]))
        if any(isinstance(d, Delta) for d in chain):
            return
        if message["is_observed"] and all(d._validate_args is not False for d in chain):
            self._take(_support(chain[0]), message["value"])
        for d in (d for d in chain if d._validate_args is not False):
            for name, constraint in d.arg_constraints.items():
                lazy = isinstance(getattr(type(d), name, None), lazy_property)
                if name in vars(d) or not lazy:
                    self._take(constraint, getattr(d, name, None))

    def or_nan(self, number: Tensor) -> Tensor:
        """The number where all is valid, NaN where something is not."""
        if not self.flags:
            return number
        return torch.where(torch.stack(self.flags).all(), number, torch.nan)

    def _take(self, constraint: Any, value: Any) -> None:  # noqa: ANN401
        if constraint is None or not isinstance(value, Tensor) or not value.numel():
            return
        if constraints.is_dependent(constraint) or _is_real(constraint):
            return
        self.flags.append(constraint.check(value).all())


def _with_bases(distribution: Any) -> Iterator[Any]:  # noqa: ANN401
    while isinstance(distribution, Distribution):
        yield distribution
        distribution = getattr(distribution, "base_dist", None)


def _support(distribution: Any) -> constraints.Constraint | None:  # noqa: ANN401
    try:
        support: constraints.Constraint = distribution.support
    except (NotImplementedError, AttributeError):
        return None
    return support


def _is_real(constraint: Any) -> bool:  # noqa: ANN401
    inner = getattr(constraint, "base_constraint", constraint)
    return isinstance(inner, type(constraints.real))
