"""The Student-t prior with independent coordinates."""

from __future__ import annotations

import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin as TorchDistribution
from torch import Size, Tensor, nn

from ppl_vae.conditional import EventShape, event_size
from ppl_vae.priors.cells import described, per_cell


class StudentTPrior(nn.Module):
    """p(z): Student's t in every coordinate, with tails that fall as |z|^−(df + 1).

    It lets single codes lie far out at little cost. The coordinates are independent: this is no
    multivariate t. Under a Normal guide, whose tails are lighter, log weights have heavy tails
    wherever the data say little about z; k-hat shows it.

    Args:
        event_shape: D, or a shape.
        df: Degrees of freedom, a positive number or a tensor that broadcasts to the event; there
            is a variance above 2, df / (df − 2) · scale².
        loc: A number or tensor.
        scale: A positive number or tensor.

    Raises:
        ValueError: If one does not fit the event, or df or scale is not positive.

    Example:
        >>> import torch
        >>> StudentTPrior(2)().log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
        >>> StudentTPrior(2, df=3.0)
        StudentTPrior(2, df=3, loc=0, scale=1)
    """

    df: Tensor
    loc: Tensor
    scale: Tensor

    def __init__(
        self,
        event_shape: EventShape,
        *,
        df: float | Tensor = 5.0,
        loc: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
    ) -> None:
        super().__init__()
        self.event_shape: Size = event_size(event_shape)
        self.register_buffer("df", per_cell(df, "df", self.event_shape, positive=True))
        self.register_buffer("loc", per_cell(loc, "loc", self.event_shape, positive=False))
        self.register_buffer("scale", per_cell(scale, "scale", self.event_shape, positive=True))

    def forward(self) -> TorchDistribution:
        """Return p(z)."""
        return dist.StudentT(self.df, self.loc, self.scale).to_event(len(self.event_shape))

    def __repr__(self) -> str:
        values = {"df": self.df, "loc": self.loc, "scale": self.scale}
        return described("StudentTPrior", self.event_shape, values)
