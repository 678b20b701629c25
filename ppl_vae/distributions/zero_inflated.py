"""Counts with more zeros than their distribution has."""

from __future__ import annotations

from typing import ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid


class ZeroInflated(TorchDistribution):
    """0 with probability sigmoid(gate), else a draw of `counts`.

    Pyro's takes another formula for log_prob once it has drawn, which is −inf where the gate is
    rounded to 1, and can then no longer be expanded.

    Args:
        counts: Scalar counts, of batch shape ``(*B,)``.
        gate: Logits, ``(*B,)``.

    Example:
        >>> from ppl_vae.distributions import Poisson
        >>> two = ZeroInflated(Poisson(torch.tensor(0.0)), torch.tensor(0.0))
        >>> two.log_prob(torch.tensor(0.0)).exp()  # (1 + 1/e) / 2
        tensor(0.6839)
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"gate": constraints.real}

    def __init__(
        self, counts: TorchDistribution, gate: Tensor, *, validate_args: bool | None = None
    ) -> None:
        shape = torch.broadcast_shapes(counts.batch_shape, gate.shape)
        self.counts, self.gate = counts.expand(shape), gate.expand(shape)
        super().__init__(shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """That of the counts."""
        return self.counts.support

    def expand(self, batch_shape: Size, _instance: None = None) -> ZeroInflated:
        """Give copies of shape `batch_shape`."""
        shape = Size(batch_shape)
        return ZeroInflated(
            self.counts.expand(shape), self.gate.expand(shape), validate_args=self._validate_args
        )

    @property
    def mean(self) -> Tensor:
        """P(not from the gate) times the mean of the counts, ``(*B,)``."""
        return torch.sigmoid(-self.gate) * self.counts.mean

    @property
    def variance(self) -> Tensor:
        """The variance within, and that between 0 and the mean of the counts, ``(*B,)``."""
        zero, rest = torch.sigmoid(self.gate), torch.sigmoid(-self.gate)
        return rest * (self.counts.variance + zero * self.counts.mean.square())

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        """Draw ``(*sample_shape, *B)``."""
        with torch.no_grad():
            x = self.counts.sample(sample_shape)
            return torch.where(torch.bernoulli(torch.sigmoid(self.gate).expand_as(x)) > 0, 0.0, x)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass in nats, ``(*B,)``."""
        if self._validate_args:
            self._validate_sample(value)
        counted = logsigmoid(-self.gate) + self.counts.log_prob(value)
        return torch.where(value == 0, torch.logaddexp(logsigmoid(self.gate), counted), counted)
