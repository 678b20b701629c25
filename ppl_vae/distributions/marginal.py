"""Distributions of which some cells are hidden: what is seen is scored, the rest integrated out."""

from __future__ import annotations

import math
from functools import singledispatch
from types import EllipsisType
from typing import ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

from ppl_vae.distributions.joint import Joint

LOG_TWO_PI = math.log(2 * math.pi)


class Marginal(TorchDistribution):
    """p(x_seen) = ∫ p(x) dx_hidden, as a distribution over x: values of hidden cells do not count.

    It draws whole events, and scores the cells of `mask` alone. Gradients through hidden cells are
    exactly zero, whatever stands there, as long as it is in the support.

    Args:
        base: A distribution with independent cells, or a multivariate Normal.
        mask: ``(*B, *E)`` bool, True where a cell is seen.

    Raises:
        ValueError: If `base` has no such marginal, or the mask does not fit its event.

    Example:
        >>> normal = dist.Normal(torch.zeros(3), 1.0).to_event(1)
        >>> seen = Marginal(normal, torch.tensor([True, False, False]))
        >>> one = dist.Normal(0.0, 1.0).log_prob(torch.tensor(0.5))
        >>> bool(seen.log_prob(torch.tensor([0.5, 7.0, -7.0])) == one)
        True
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, base: TorchDistribution, mask: Tensor) -> None:
        event = Size(base.event_shape)
        if mask.dtype != torch.bool or mask.shape[mask.dim() - len(event) :] != event:
            raise ValueError(
                f"Got a mask of {mask.dtype} and shape {tuple(mask.shape)}; expected bool, and "
                f"{tuple(event)} at the end. Try ~x.isnan()."
            )
        if event and _seen.dispatch(type(base)) is _seen.dispatch(object):
            raise ValueError(
                f"Got missing cells under {type(base).__name__}; expected independent cells, or a "
                "multivariate Normal, whose marginals are known. Try such a family."
            )
        self.base, self.mask = base, mask
        batch = torch.broadcast_shapes(base.batch_shape, mask.shape[: mask.dim() - len(event)])
        super().__init__(batch, event, validate_args=False)

    @property
    def has_rsample(self) -> bool:
        """As `base` has it."""
        return bool(self.base.has_rsample)

    @property
    def support(self) -> constraints.Constraint:
        """That of `base`."""
        return self.base.support

    @property
    def mean(self) -> Tensor:
        """E[x] of whole events."""
        return self.base.mean.expand(self.shape())

    @property
    def variance(self) -> Tensor:
        """Var[x] of whole events."""
        return self.base.variance.expand(self.shape())

    def expand(self, batch_shape: Size, _instance: None = None) -> Marginal:
        """Give the same with more batch dims."""
        return Marginal(self.base.expand(batch_shape), self.mask)

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        """Draw whole events."""
        return self.base.expand(self.batch_shape).sample(sample_shape)

    def rsample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        """Draw whole events, differentiably."""
        return self.base.expand(self.batch_shape).rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density or mass of the cells seen, in nats."""
        if not self.event_shape:
            return torch.where(self.mask, self.base.log_prob(value), 0.0)
        return _seen(self.base, value, self.mask)

    def parts(self) -> list[tuple[int | EllipsisType, TorchDistribution]]:
        """Independent cells: where in the last dim of an event they lie, and what they follow.

        One entry for all of them, at ``...``, or one for each column of a `Joint`; none where cells
        are dependent. Batch dims are those of `base`, then the cells.
        """
        return _parts(self.base)

    def completed(self, value: Tensor, draw: Tensor) -> Tensor:
        """Turn draws of whole events into draws of the hidden cells given those seen.

        Args:
            value: The data, ``(*B, *E)``.
            draw: Of this distribution (or its mean, which gives the conditional mean).

        Returns:
            `value` where seen, and x_hidden ~ p(x_hidden | x_seen) elsewhere.
        """
        return torch.where(self.mask, value, _moved(self.base, value, self.mask, draw))


@singledispatch
def _seen(base: Distribution, value: Tensor, mask: Tensor) -> Tensor:
    """log p of the cells of `mask`; by kind of distribution."""
    raise NotImplementedError


@singledispatch
def _parts(base: Distribution) -> list[tuple[int | EllipsisType, TorchDistribution]]:
    """The cells, where they are independent; by kind of distribution."""
    return [] if base.event_shape else [(..., base)]


@_parts.register(dist.Independent)
def _(base: dist.Independent) -> list[tuple[int | EllipsisType, TorchDistribution]]:
    return [(..., base.base_dist)]


@_parts.register(Joint)
def _(base: Joint) -> list[tuple[int | EllipsisType, TorchDistribution]]:
    return list(enumerate(base.parts))


@singledispatch
def _moved(base: Distribution, value: Tensor, mask: Tensor, draw: Tensor) -> Tensor:
    """Move draws to where what is seen has them; where cells are independent, nowhere."""
    return draw


@_seen.register(dist.Independent)
def _(base: dist.Independent, value: Tensor, mask: Tensor) -> Tensor:
    if base.base_dist.event_shape:
        raise ValueError(
            f"Got missing cells under {type(base.base_dist).__name__} in an Independent; expected "
            "cells that are independent, each on its own. Try a family of independent cells."
        )
    cells = base.base_dist.log_prob(value)
    return torch.where(mask, cells, 0.0).flatten(-base.reinterpreted_batch_ndims).sum(-1)


@_seen.register(Joint)
def _(base: Joint, value: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, base.cells(value), 0.0).sum(-1)


@_seen.register(dist.MultivariateNormal)
def _(base: dist.MultivariateNormal, value: Tensor, mask: Tensor) -> Tensor:
    off = torch.where(mask, value - base.loc, 0.0)
    factor = _cholesky_of_seen(_covariance(base), mask)
    white = torch.linalg.solve_triangular(factor, off.double()[..., None], upper=False)[..., 0]
    logdet = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_prob = -0.5 * (white.square().sum(-1) + mask.sum(-1) * LOG_TWO_PI) - logdet
    return log_prob.to(off.dtype)


@_seen.register(dist.LowRankMultivariateNormal)
def _(base: dist.LowRankMultivariateNormal, value: Tensor, mask: Tensor) -> Tensor:
    # Hidden cells become independent standard Normals at their means, which are then taken off.
    seen = dist.LowRankMultivariateNormal(
        torch.where(mask, base.loc, 0.0),
        torch.where(mask[..., None], base.cov_factor, 0.0),
        torch.where(mask, base.cov_diag, 1.0),
        validate_args=False,
    )
    return seen.log_prob(torch.where(mask, value, 0.0)) + 0.5 * (~mask).sum(-1) * LOG_TWO_PI


@_moved.register(dist.MultivariateNormal)
@_moved.register(dist.LowRankMultivariateNormal)
def _(
    base: dist.MultivariateNormal | dist.LowRankMultivariateNormal,
    value: Tensor,
    mask: Tensor,
    draw: Tensor,
) -> Tensor:
    # Matheron's rule: x + Σ_·s Σ_ss⁻¹ (x_seen − x) has the law of x given x_seen.
    covariance = _covariance(base)
    off = torch.where(mask, value - draw, 0.0).double()
    weights = torch.cholesky_solve(off[..., None], _cholesky_of_seen(covariance, mask))
    moved = (covariance @ torch.where(mask[..., None], weights, 0.0))[..., 0]
    return draw + moved.to(draw.dtype)


def _covariance(base: dist.MultivariateNormal | dist.LowRankMultivariateNormal) -> Tensor:
    """Σ in float64: a product of factors has the square of their condition number."""
    if isinstance(base, dist.MultivariateNormal):
        factor = base.scale_tril.double()
        return factor @ factor.mT
    factor = base.cov_factor.double()
    return factor @ factor.mT + torch.diag_embed(base.cov_diag.double())


def _cholesky_of_seen(covariance: Tensor, mask: Tensor) -> Tensor:
    """The factor of Σ_ss, with ones on the diagonal where hidden: ``(*B, D, D)``."""
    both = mask[..., :, None] & mask[..., None, :]
    idle = torch.diag_embed((~mask).to(covariance.dtype))
    return torch.linalg.cholesky(torch.where(both, covariance, 0.0) + idle)
