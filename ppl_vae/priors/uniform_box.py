"""The uniform prior on a box."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as TorchDistribution
from torch import Size, Tensor, nn

from ppl_vae.conditional import EventShape, event_size
from ppl_vae.priors.cells import described, per_cell


class UniformBox(nn.Module):
    """p(z) = 1/volume on the box [low, high], 0 outside.

    Encoders live on the reals: a `VAE` pushes their draws into the box by
    z = low + (high − low) · sigmoid(u), Jacobian included.

    Args:
        event_shape: D, or a shape.
        low: A number or a tensor that broadcasts to the event.
        high: A number or tensor, above `low` in every coordinate.

    Raises:
        ValueError: If an edge does not fit the event, or the box is empty.

    Example:
        >>> import torch
        >>> UniformBox(2)().log_prob(torch.zeros(5, 2)).exp()
        tensor([0.2500, 0.2500, 0.2500, 0.2500, 0.2500])
    """

    low: Tensor
    high: Tensor

    def __init__(
        self, event_shape: EventShape, *, low: float | Tensor = -1.0, high: float | Tensor = 1.0
    ) -> None:
        super().__init__()
        self.event_shape: Size = event_size(event_shape)
        low = per_cell(low, "low", self.event_shape, positive=False)
        high = per_cell(high, "high", self.event_shape, positive=False)
        if not (low < high).all():
            raise ValueError(
                f"Got low={low.tolist()} and high={high.tolist()}; expected low < high in every "
                "coordinate. Try low=-1.0, high=1.0."
            )
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    def forward(self) -> TorchDistribution:
        """Return p(z)."""
        return _Closed(self.low, self.high).to_event(len(self.event_shape))

    def __repr__(self) -> str:
        return described("UniformBox", self.event_shape, {"low": self.low, "high": self.high})


class _Closed(dist.Uniform):
    """Torch's has no density at `high`, which its support holds and rounding takes draws to."""

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        inside = (self.low <= value) & (value <= self.high)
        return torch.where(inside, -(self.high - self.low).log(), -torch.inf)
