"""Cells of different distributions as one event: a row of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Size, Tensor
from torch.distributions import constraints


class Joint(TorchDistribution):
    """D independent scalar cells, each of its own distribution, as one vector.

    Where some cells have masses and others densities, log_prob is the log of their product: of a
    density in the latter for given values of the former.

    Args:
        parts: D distributions without event dims, whose batch shapes broadcast to ``(*B,)``.

    Raises:
        ValueError: If there is no part, or one has event dims.

    Example:
        >>> import pyro.distributions as dist
        >>> row = Joint([dist.Normal(torch.zeros(5), 1.0), dist.Poisson(torch.tensor(2.0))])
        >>> row.batch_shape, row.event_shape, row.cells(torch.zeros(5, 2)).shape
        (torch.Size([5]), torch.Size([2]), torch.Size([5, 2]))
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(
        self, parts: Sequence[TorchDistributionMixin], *, validate_args: bool | None = None
    ) -> None:
        if not parts or any(part.event_shape for part in parts):
            shapes = [tuple(part.event_shape) for part in parts]
            raise ValueError(
                f"Got parts of event shapes {shapes}; expected one or more, of the shape () each. "
                "Try one distribution a cell."
            )
        batch = torch.broadcast_shapes(*(part.batch_shape for part in parts))
        self.parts = [part.expand(batch) for part in parts]
        super().__init__(batch, Size([len(parts)]), validate_args=validate_args)

    @constraints.dependent_property(event_dim=1)
    def support(self) -> constraints.Constraint:
        """Those of the cells, side by side; its `base_constraint` checks cell by cell."""
        return constraints.independent(
            constraints.stack([part.support for part in self.parts], -1), 1
        )

    def expand(self, batch_shape: Size, _instance: None = None) -> Joint:
        """Give copies of shape `batch_shape`."""
        parts = [part.expand(batch_shape) for part in self.parts]
        return Joint(parts, validate_args=self._validate_args)

    @property
    def mean(self) -> Tensor:
        """``(*B, D)``; NaN where a cell has none, such as a class."""
        return torch.stack([part.mean for part in self.parts], dim=-1)

    @property
    def variance(self) -> Tensor:
        """``(*B, D)``; NaN where a cell has none, such as a class."""
        return torch.stack([part.variance for part in self.parts], dim=-1)

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        """Draw ``(*sample_shape, *B, D)``."""
        with torch.no_grad():
            return torch.stack([part.sample(sample_shape) for part in self.parts], dim=-1)

    def cells(self, value: Tensor) -> Tensor:
        """Log densities and masses of the cells, ``(*B, D)``, in nats."""
        return torch.stack(
            [part.log_prob(value[..., d]) for d, part in enumerate(self.parts)], dim=-1
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """Their sum, ``(*B,)``."""
        if self._validate_args:
            self._validate_sample(value)
        return self.cells(value).sum(-1)
