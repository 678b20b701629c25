"""The continuous Bernoulli: an exponential density, tilted either way, on [0, 1]."""

from __future__ import annotations

from typing import ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints
from torch.nn.functional import relu

SMALL = 0.5
"""Below it series are taken, which leave out less than 1e-11; above it formulas keep all digits."""


class ContinuousBernoulli(TorchDistribution):
    """x in [0, 1] with density exp(l x) l / (exp(l) − 1), l the logits.

    Loaiza-Ganem and Cunningham 2019, arXiv:1907.06845. Torch's rounds probabilities to 1 − 1e-7 in
    float32, and so is wrong by log(l / 16) for logits l beyond 16; draws here have no gradient.

    Args:
        logits: ``(*B,)``.

    Example:
        >>> ContinuousBernoulli(torch.tensor(1e3)).log_prob(torch.tensor(1.0))  # log 1000
        tensor(6.9078)
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"logits": constraints.real}
    support = constraints.unit_interval

    def __init__(self, logits: Tensor, *, validate_args: bool | None = None) -> None:
        self.logits = logits
        super().__init__(logits.shape, validate_args=validate_args)

    def expand(self, batch_shape: Size, _instance: None = None) -> ContinuousBernoulli:
        """Give copies of shape `batch_shape`."""
        return ContinuousBernoulli(
            self.logits.expand(batch_shape), validate_args=self._validate_args
        )

    @property
    def mean(self) -> Tensor:
        """1 / (1 − exp(−l)) − 1 / l, ``(*B,)``."""
        small, near, far = self._split()
        square = near.square()
        series = 1 / 30240 - square * (1 / 1209600 - square / 47900160)
        series = 0.5 + near * (1 / 12 - square * (1 / 720 - square * series))
        return torch.where(small, series, -1 / torch.expm1(-far) - 1 / far)

    @property
    def variance(self) -> Tensor:
        """1 / l² − 1 / (2 sinh(l/2))², ``(*B,)``."""
        small, near, far = self._split()
        square = near.square()
        series = 1 / 6048 - square * (1 / 172800 - square / 5322240)
        series = 1 / 12 - square * (1 / 240 - square * series)
        return torch.where(
            small, series, far.square().reciprocal() - (2 * torch.sinh(far / 2)) ** -2
        )

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        """Draw ``(*sample_shape, *B)``, by the inverse of the distribution function."""
        with torch.no_grad():
            logits = self.logits.expand(self._extended_shape(sample_shape))
            slope = logits.abs().clamp(min=1e-6)  # as good as uniform: by 1e-6 at most
            x = -torch.log1p(torch.rand_like(slope) * torch.expm1(-slope)) / slope
            x = x.clamp(max=1)
            return torch.where(logits > 0, 1 - x, x)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats, ``(*B,)``."""
        if self._validate_args:
            self._validate_sample(value)
        # log (exp(l) − 1) / l = l/2 + log sinh(l/2) / (l/2); the digits of its gradient are what
        # the series saves.
        small, near, far = self._split()
        square = (near / 2).square()
        series = 1 / 2835 - square * (1 / 37800 - square / 467775)
        series = near / 2 + square * (1 / 6 - square * (1 / 180 - square * series))
        size = far.abs()
        whole = relu(far) + torch.log(-torch.expm1(-size) / size)
        return self.logits * value - torch.where(small, series, whole)

    def _split(self) -> tuple[Tensor, Tensor, Tensor]:
        """Whether the logits are small; them where they are, and where they are not."""
        small = self.logits.abs() < SMALL
        return small, torch.where(small, self.logits, 0.0), torch.where(small, 1.0, self.logits)
