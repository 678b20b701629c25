"""Poisson counts by the logarithm of their rate."""

from __future__ import annotations

from typing import ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints


class Poisson(TorchDistribution):
    """Counts x with log P(x) = x log_rate − exp(log_rate) − log x!.

    Torch's takes the rate, whose logarithm is −inf and has the gradient NaN where a small one is
    rounded to 0.

    Args:
        log_rate: ``(*B,)``.

    Example:
        >>> Poisson(torch.tensor(-1e3)).log_prob(torch.tensor(1.0))
        tensor(-1000.)
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"log_rate": constraints.real}
    support = constraints.nonnegative_integer

    def __init__(self, log_rate: Tensor, *, validate_args: bool | None = None) -> None:
        self.log_rate = log_rate
        super().__init__(log_rate.shape, validate_args=validate_args)

    def expand(self, batch_shape: Size, _instance: None = None) -> Poisson:
        """Give copies of shape `batch_shape`."""
        return Poisson(self.log_rate.expand(batch_shape), validate_args=self._validate_args)

    @property
    def mean(self) -> Tensor:
        """The rate, ``(*B,)``."""
        return self.log_rate.exp()

    @property
    def variance(self) -> Tensor:
        """The rate, ``(*B,)``."""
        return self.mean

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        """Draw ``(*sample_shape, *B)``."""
        with torch.no_grad():
            return counts(self.mean.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass in nats, ``(*B,)``."""
        if self._validate_args:
            self._validate_sample(value)
        return value * self.log_rate - self.log_rate.exp() - torch.lgamma(value + 1)


def counts(rate: Tensor) -> Tensor:
    """Draw from Poissons; torch's draws are negative where the rate is above 2^63.

    Example:
        >>> counts(torch.tensor([float("inf"), float("nan")])) > 0
        tensor([True, True])
    """
    return torch.poisson(rate.nan_to_num(nan=LARGEST).clamp(max=LARGEST))


LARGEST = 2.0**62
"""The largest rate that is drawn from: what is above has no neighbour that floats can tell."""
