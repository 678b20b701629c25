"""Negative binomial counts by the logarithm of their mean, and their dispersion."""

from __future__ import annotations

from typing import ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid

from ppl_vae.distributions.poisson import counts

SHIFT = 8
"""From here on Stirling's series with four terms is right to 1e-11."""

MANY = 32
"""Counts up to here lose no digits in their factorial, and r − 1 would lose those of a small r."""


def log_rising(start: Tensor, steps: Tensor) -> Tensor:
    """log Γ(start + steps) / Γ(start), in nats: that of start (start + 1) … (start + steps − 1).

    The difference of two lgamma loses all digits where start is large: 1 nat in float32 at 1e6.
    Here nothing large is subtracted: Γ is moved up by 8, then Stirling's series is taken apart.

    Args:
        start: ``(*B,)``, positive.
        steps: ``(*B,)``, above −start.

    Example:
        >>> log_rising(torch.tensor(1e6), torch.tensor(1.0))  # log(1e6)
        tensor(13.8155)
    """
    low = start + SHIFT
    high = low + steps
    up = (high - 0.5) * torch.log1p(steps / low) + steps * (low.log() - 1)
    moved = up + _stirling(high) - _stirling(low)
    for k in range(SHIFT):
        moved = moved - torch.log1p(steps / (start + k))
    return moved


def _stirling(x: Tensor) -> Tensor:
    """lgamma(x) − (x − 1/2) log x + x − log(2π)/2: Abramowitz and Stegun 6.1.41."""
    square = x.square().reciprocal()
    return (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680))) / x


class NegativeBinomial(TorchDistribution):
    """Counts x with mean μ and variance μ + μ²/r: a Poisson whose rate is Gamma(r, r/μ).

        log P(x) = log Γ(x+r)/Γ(r) − log x! + r log r/(r+μ) + x log μ/(r+μ)

    Torch's has other parameters, and loses nats where r is large, which is where data without
    overdispersion lead.

    Args:
        log_mean: log μ, ``(*B,)``.
        dispersion: r, positive, ``(*B,)`` or a number.

    Example:
        >>> close = NegativeBinomial(torch.tensor(0.0), 1e6).log_prob(torch.tensor(2.0))
        >>> close  # of a Poisson: -1 - log 2
        tensor(-1.6931)
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "log_mean": constraints.real,
        "dispersion": constraints.positive,
    }
    support = constraints.nonnegative_integer

    def __init__(
        self, log_mean: Tensor, dispersion: Tensor | float, *, validate_args: bool | None = None
    ) -> None:
        self.log_mean, self.dispersion = broadcast_all(log_mean, dispersion)
        super().__init__(self.log_mean.shape, validate_args=validate_args)

    def expand(self, batch_shape: Size, _instance: None = None) -> NegativeBinomial:
        """Give copies of shape `batch_shape`."""
        log_mean, r = self.log_mean.expand(batch_shape), self.dispersion.expand(batch_shape)
        return NegativeBinomial(log_mean, r, validate_args=self._validate_args)

    @property
    def mean(self) -> Tensor:
        """μ, ``(*B,)``."""
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        """μ + μ²/r, ``(*B,)``."""
        return self.mean + self.mean.square() / self.dispersion

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        """Draw ``(*sample_shape, *B)``."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            rate = torch._standard_gamma(self.dispersion.expand(shape)) / self.dispersion
            return counts(rate * self.mean)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass in nats, ``(*B,)``."""
        if self._validate_args:
            self._validate_sample(value)
        r, odds = self.dispersion, self.log_mean - self.dispersion.log()
        # log Γ(x+r) / Γ(r) x!, from whichever of r and x + 1 is the larger: the difference of two
        # large logarithms has no digits.
        many = (value > MANY) & (value + 1 > r)
        start, steps = torch.where(many, value + 1, r), torch.where(many, r - 1, value)
        ways = log_rising(start, steps) - torch.lgamma(torch.where(many, r, value + 1))
        return ways + r * logsigmoid(-odds) + value * logsigmoid(odds)
