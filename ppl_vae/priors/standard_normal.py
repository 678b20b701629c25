"""The Normal prior with independent coordinates."""

from __future__ import annotations

import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin as TorchDistribution
from torch import Size, Tensor, nn

from ppl_vae.conditional import EventShape, event_size
from ppl_vae.priors.cells import described, per_cell


class StandardNormal(nn.Module):
    """p(z) = N(loc, scale²) in every coordinate; standard unless a loc or scale is given.

    Args:
        event_shape: D, or a shape.
        loc: A number or a tensor that broadcasts to the event.
        scale: A positive number or tensor.

    Raises:
        ValueError: If loc or scale does not fit the event, or the scale is not positive.

    Example:
        >>> import torch
        >>> StandardNormal(2)().log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
        >>> StandardNormal(8, scale=5.0)
        StandardNormal(8, loc=0, scale=5)
    """

    loc: Tensor
    scale: Tensor

    def __init__(
        self, event_shape: EventShape, *, loc: float | Tensor = 0.0, scale: float | Tensor = 1.0
    ) -> None:
        super().__init__()
        self.event_shape: Size = event_size(event_shape)
        self.register_buffer("loc", per_cell(loc, "loc", self.event_shape, positive=False))
        self.register_buffer("scale", per_cell(scale, "scale", self.event_shape, positive=True))

    def forward(self) -> TorchDistribution:
        """Return p(z)."""
        return dist.Normal(self.loc, self.scale).to_event(len(self.event_shape))

    def __repr__(self) -> str:
        values = {"loc": self.loc, "scale": self.scale}
        standard = bool((self.loc == 0).all()) and bool((self.scale == 1).all())
        return described("StandardNormal", self.event_shape, {} if standard else values)
