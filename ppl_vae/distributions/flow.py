"""A normalizing flow as a Pyro distribution."""

from __future__ import annotations

from typing import ClassVar

from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import Distribution, constraints


class Flow(TorchDistribution):
    """What a flow of zuko returns, with what Pyro asks of a distribution: log q(z) is exact.

    With f from z to noise ε of density b, log q(z) = log b(f(z)) + log |det ∂f/∂z| (Papamakarios
    et al. 2021, arXiv:1912.02762, eq. 2), and draws are f⁻¹(ε), reparameterised.
    `pyro.contrib.zuko.ZukoToPyro` has no ``sample`` and no ``support``. It also keeps the log
    density of its draws: an autoregressive flow does not have it for less, so that here log q is
    computed from z, whatever z is.

    Args:
        flow: Has ``rsample``, ``log_prob`` and ``expand``; its events are vectors of reals.

    Example:
        >>> import pyro.distributions as dist, torch
        >>> Flow(dist.Normal(torch.zeros(2), 1.0).to_event(1)).expand((5,)).sample().shape
        torch.Size([5, 2])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, flow: Distribution) -> None:
        self.flow = flow
        super().__init__(flow.batch_shape, flow.event_shape)

    def expand(self, batch_shape: Size, _instance: None = None) -> Flow:
        """Give independent copies of shape `batch_shape`."""
        return Flow(self.flow.expand(Size(batch_shape)))

    def rsample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        """Draw ``(*sample_shape, *batch_shape, D)``, with gradients; ``sample`` is without."""
        return self.flow.rsample(Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats, ``(*batch_shape,)``."""
        if self._validate_args:
            self._validate_sample(value)
        return self.flow.log_prob(value)
