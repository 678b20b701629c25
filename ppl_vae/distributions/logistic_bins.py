"""The logistic distribution cut into bins: by cutpoints, or by equal steps.

The mass of a bin is a difference of two sigmoids, which are equal in floating point where the bin
is narrow or far out. It is a product as well, exactly, and that loses nothing:

    σ(b) − σ(a) = σ(b) σ(−a) (1 − exp(a − b)).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pyro.distributions import TorchDistribution
from pyro.distributions import constraints as pyro_constraints
from torch import Size, Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid


def log_bin(lower: Tensor, upper: Tensor, width: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """log σ(upper) − σ(lower), in nats.

    Args:
        lower: ``(*B,)``.
        upper: ``(*B,)``.
        width: ``upper - lower``, which the caller knows with more digits.
        first: Where the bin has no lower edge; what `lower` holds there is not used.
        last: Where it has no upper edge.

    Example:
        >>> no = torch.tensor(False)
        >>> log_bin(torch.tensor(50.0), torch.tensor(51.0), torch.tensor(1.0), no, no)
        tensor(-50.4587)
    """
    inner = torch.log(-torch.expm1(-width))
    return (
        torch.where(last, 0.0, logsigmoid(upper))
        + torch.where(first, 0.0, logsigmoid(-lower))
        + torch.where(first | last, 0.0, inner)
    )


class CumulativeLogit(TorchDistribution):
    """Ordered classes x in {0, …, K − 1}: P(x ≤ k) = σ(cutpoint_k − loc).

    Pyro's `OrderedLogistic` subtracts sigmoids, and rounds a class that is far from loc to 0.

    Args:
        loc: ``(*B,)``.
        cutpoints: ``(*B, K − 1)``, increasing.

    Example:
        >>> d = CumulativeLogit(torch.tensor(0.0), torch.tensor([-40.0, 40.0]))
        >>> d.log_prob(torch.tensor([0.0, 2.0])).round()
        tensor([-40., -40.])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "loc": constraints.real,
        "cutpoints": pyro_constraints.ordered_vector,
    }
    has_enumerate_support = True

    def __init__(
        self, loc: Tensor, cutpoints: Tensor, *, validate_args: bool | None = None
    ) -> None:
        shape = torch.broadcast_shapes(loc.shape, cutpoints.shape[:-1])
        self.loc = loc.expand(shape)
        self.cutpoints = cutpoints.expand(*shape, cutpoints.shape[-1])
        super().__init__(shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """{0, …, K − 1}."""
        return constraints.integer_interval(0, self.cutpoints.shape[-1])

    def expand(self, batch_shape: Size, _instance: None = None) -> CumulativeLogit:
        """Give copies of shape `batch_shape`."""
        cutpoints = self.cutpoints.expand(*batch_shape, self.cutpoints.shape[-1])
        return CumulativeLogit(
            self.loc.expand(batch_shape), cutpoints, validate_args=self._validate_args
        )

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Every class, ``(K, *B)``, or ``(K, 1, …)`` without `expand`."""
        return _levels(self, self.cutpoints.shape[-1] + 1, expand)

    @property
    def mean(self) -> Tensor:
        """Of the classes as numbers, ``(*B,)``."""
        return _moments(self)[0]

    @property
    def variance(self) -> Tensor:
        """Of the classes as numbers, ``(*B,)``."""
        return _moments(self)[1]

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        """Draw ``(*sample_shape, *B)``: the number of cutpoints below a logistic draw."""
        with torch.no_grad():
            drawn = _logistic(self.loc, self._extended_shape(sample_shape))
            return (self.cutpoints < drawn.unsqueeze(-1)).sum(-1).to(self.loc)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass in nats, ``(*B,)``."""
        if self._validate_args:
            self._validate_sample(value)
        top = self.cutpoints.shape[-1]
        value, loc = broadcast_all(value, self.loc)
        cutpoints = self.cutpoints.expand(*value.shape, top)
        index = value.long().unsqueeze(-1)
        upper = cutpoints.gather(-1, index.clamp(max=top - 1)).squeeze(-1)
        lower = cutpoints.gather(-1, (index - 1).clamp(min=0)).squeeze(-1)
        first, last = value == 0, value == top
        width = torch.where(first | last, 1.0, upper - lower)
        return log_bin(lower - loc, upper - loc, width, first, last)


class DiscretisedLogistic(TorchDistribution):
    """Levels x in {0, …, L − 1}: the nearest to a logistic draw, on a line from −1 to 1.

    With y = 2x/(L−1) − 1 and h = 1/(L−1), P(x) = σ((y + h − loc)/s) − σ((y − h − loc)/s); the first
    level has all below it, the last all above. Salimans et al. 2017, arXiv:1701.05517.

    Args:
        loc: ``(*B,)``, 0 in the middle of the levels.
        scale: s, positive, ``(*B,)`` or a number.
        levels: L.

    Example:
        >>> d = DiscretisedLogistic(torch.tensor(0.0), 1e-3, 3)
        >>> d.log_prob(torch.tensor([0.0, 2.0])).round()
        tensor([-500., -500.])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "loc": constraints.real,
        "scale": constraints.positive,
    }
    has_enumerate_support = True

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor | float,
        levels: int,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """{0, …, L − 1}."""
        return constraints.integer_interval(0, self.levels - 1)

    def expand(self, batch_shape: Size, _instance: None = None) -> DiscretisedLogistic:
        """Give copies of shape `batch_shape`."""
        loc, scale = self.loc.expand(batch_shape), self.scale.expand(batch_shape)
        return DiscretisedLogistic(loc, scale, self.levels, validate_args=self._validate_args)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Every level, ``(L, *B)``, or ``(L, 1, …)`` without `expand`."""
        return _levels(self, self.levels, expand)

    @property
    def mean(self) -> Tensor:
        """In levels, ``(*B,)``."""
        return _moments(self)[0]

    @property
    def variance(self) -> Tensor:
        """In levels squared, ``(*B,)``."""
        return _moments(self)[1]

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        """Draw ``(*sample_shape, *B)``."""
        with torch.no_grad():
            noise = _logistic(torch.zeros_like(self.loc), self._extended_shape(sample_shape))
            top = self.levels - 1
            return ((self.loc + self.scale * noise + 1) * top / 2).round().clamp(0, top)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass in nats, ``(*B,)``."""
        if self._validate_args:
            self._validate_sample(value)
        top = self.levels - 1
        centre, half = 2 * value / top - 1 - self.loc, 1 / top
        lower, upper = (centre - half) / self.scale, (centre + half) / self.scale
        return log_bin(lower, upper, 2 * half / self.scale, value == 0, value == top)


def _levels(d: CumulativeLogit | DiscretisedLogistic, count: int, expand: bool) -> Tensor:
    values = torch.arange(count, dtype=d.loc.dtype, device=d.loc.device)
    values = values.reshape(-1, *(1,) * len(d.batch_shape))
    return values.expand(-1, *d.batch_shape) if expand else values


def _moments(d: CumulativeLogit | DiscretisedLogistic) -> tuple[Tensor, Tensor]:
    """Mean and variance, one level after the other: L levels of images are too many at once."""
    values = list(d.enumerate_support(expand=False))
    mean = sum((d.log_prob(v).exp() * v for v in values), torch.zeros_like(d.loc))
    spread = (d.log_prob(v).exp() * (v - mean).square() for v in values)
    return mean, sum(spread, torch.zeros_like(d.loc))


def _logistic(loc: Tensor, shape: Size) -> Tensor:
    """A draw; the smallest positive number keeps it finite."""
    tiny = torch.finfo(loc.dtype).tiny
    return loc + torch.logit(torch.rand(shape, dtype=loc.dtype, device=loc.device).clamp(min=tiny))
