"""KL divergences in closed form, where they exist."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as TorchDistribution
from torch import Tensor


def kl_divergence(q: TorchDistribution, p: TorchDistribution) -> Tensor | None:
    """KL(q ‖ p) in nats per batch element, or None where no closed form is known.

    Torch has none between a multivariate Normal, full or of low rank, and independent Normals, in
    either order: they are added here, so that "analytic" does not silently become "sampled".

    Args:
        q: A distribution with ``batch_shape`` B.
        p: A distribution of the same ``event_shape``.

    Returns:
        ``(*B,)`` or None.

    Example:
        >>> q = dist.MultivariateNormal(torch.ones(2), torch.eye(2))
        >>> kl_divergence(q, dist.Normal(torch.zeros(2), 1.0).to_event(1))
        tensor(1.)
    """
    kinds = {_kind(q), _kind(p)}
    if kinds == {"full", "diagonal"}:
        q, p = _as_full(q), _as_full(p)
    if kinds == {"low rank", "diagonal"}:
        q, p = _as_low_rank(q), _as_low_rank(p)
    try:
        return torch.distributions.kl_divergence(q, p)
    except NotImplementedError:
        return None


def _kind(d: TorchDistribution) -> str:
    if isinstance(d, dist.MultivariateNormal):
        return "full"
    if isinstance(d, dist.LowRankMultivariateNormal):
        return "low rank"
    vector = isinstance(d, dist.Independent) and d.reinterpreted_batch_ndims == 1
    return "diagonal" if vector and isinstance(d.base_dist, dist.Normal) else "other"


def _as_full(d: TorchDistribution) -> TorchDistribution:
    if _kind(d) == "full":
        return d
    return dist.MultivariateNormal(d.mean, scale_tril=torch.diag_embed(d.stddev))


def _as_low_rank(d: TorchDistribution) -> TorchDistribution:
    if _kind(d) == "low rank":
        return d
    return dist.LowRankMultivariateNormal(d.mean, 0 * d.mean.unsqueeze(-1), d.variance)
