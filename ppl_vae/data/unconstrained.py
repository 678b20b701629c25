"""A prior and a decoder in the unconstrained coordinates of their latent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as TorchDistribution
from torch import Tensor
from torch.distributions import biject_to, constraints
from torch.distributions.transforms import Transform

ROWS = 2**16  # rows given to the decoder at once


@dataclass(frozen=True, eq=False)
class Unconstrained:
    """The model p(z) p(x|z) as a function of u, where z = T(u), T = ``biject_to(prior.support)``.

    Densities over u carry the Jacobian of T, in nats. Everything must be float64.

    Args:
        prior: p(z), without batch dims, a vector as its event.
        decoder: Maps z to p(x|z), all of x in its event.

    Shapes:
        u ``(G, N, D)`` at G nodes for each of N data x ``(N, *E)``; z ``(G, N, Z)``, where Z and D
        differ on a simplex alone.

    Raises:
        ValueError: If the prior is discrete, or not a vector; if the decoder's log density has
            the wrong shape; if anything is not float64.

    Example:
        >>> import pyro.distributions as dist
        >>> prior = dist.Uniform(torch.zeros(1).double(), 1.0).to_event(1)
        >>> model = Unconstrained(prior, lambda z: dist.Normal(z, 1.0).to_event(1))
        >>> u, x = torch.zeros(1, 1, 1).double(), torch.zeros(1, 1).double()
        >>> z, log_prior, log_likelihood = model.joint(u, x)
        >>> z.item(), log_prior.exp().item()  # a sigmoid, and its slope
        (0.5, 0.25)
    """

    prior: TorchDistribution
    decoder: Callable[[Tensor], TorchDistribution]
    transform: Transform = field(init=False)

    def __post_init__(self) -> None:
        support, batch, event = self.prior.support, self.prior.batch_shape, self.prior.event_shape
        if isinstance(support, constraints.MixtureSameFamilyConstraint):  # unknown to biject_to
            support = support.base_constraint
        if support.is_discrete or len(event) != 1 or batch:
            raise ValueError(
                f"Got a prior with batch {tuple(batch)}, event {tuple(event)} and support "
                f"{support}; expected no batch, a vector as event, a continuous support. "
                "Try Normal(torch.zeros(2), 1.0).to_event(1)."
            )
        object.__setattr__(self, "transform", biject_to(support))

    def joint(self, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return z, log p(u) and log p(x|z), the last two ``(G, N)``."""
        z = self.transform(u)
        blocks = z.split(max(1, ROWS // len(x)))
        log_likelihood = torch.cat([self.log_likelihood(block, x) for block in blocks])
        return z, self.log_density(self.prior, u), log_likelihood

    def log_density(self, of: TorchDistribution, u: Tensor) -> Tensor:
        """Return the log density over u, ``(G, N)``, of a distribution over z."""
        z = self.transform(u)
        value = of.log_prob(z)
        if value.shape != u.shape[:-1]:
            raise ValueError(
                f"Got a log density of shape {tuple(value.shape)} for z {tuple(z.shape)}; expected "
                f"{tuple(u.shape[:-1])}, one number a latent vector. Try .to_event(1)."
            )
        return value + self.transform.log_abs_det_jacobian(u, z)

    def log_likelihood(self, z: Tensor, x: Tensor) -> Tensor:
        """Return log p(x|z), ``(G, N)``, for z ``(G, N, Z)`` or ``(G, 1, Z)``."""
        value = self.decoder(z).log_prob(x)
        expected = (z.shape[0], x.shape[0])
        if value.shape != expected or value.dtype != torch.float64:
            raise ValueError(
                f"Got log p(x|z) of shape {tuple(value.shape)} and {value.dtype} for z "
                f"{tuple(z.shape)} and x {tuple(x.shape)}; expected {expected} and torch.float64. "
                "Try .to_event(...) on what the decoder returns, or decoder.double()."
            )
        return value

    def draw(self, of: TorchDistribution, n: int) -> tuple[Tensor, Tensor]:
        """Return u and z of n draws, the same ones each time; the global stream is left alone."""
        if not isinstance(of, torch.distributions.Distribution):
            raise ValueError(
                f"Got a {type(of).__name__}; expected a distribution q(z|x). Try the encoder, or "
                "the posterior, in place of a Pyro guide function."
            )
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            torch.manual_seed(0)
            z = of.sample(torch.Size([n]))
        if z.dtype != torch.float64:
            raise ValueError(
                f"Got draws of the latent in {z.dtype}; expected torch.float64, without which no "
                "integral is good to 1e-8. Try module.double()."
            )
        return self.transform.inv(z), z
