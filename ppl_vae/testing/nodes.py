"""Points and weights whose sums are expectations under any distribution."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as TorchDistribution
from torch import Size, Tensor
from torch.distributions import biject_to

from ppl_vae.distributions import MixtureOfNormals

POINTS = 20_000
CENTRES = 250
NEIGHBOURS = 15
EDGE = 1e-4
"""The part of all mass that may lie so near an edge that rounding hides the density there."""


class Nodes(NamedTuple):
    """Points and weights whose sums are expectations under ``exp(log_prob)``.

    Attributes:
        value: ``(G, *C, *E)``: for each cell of C, points of its events.
        weight: ``(G, *C)``: the density times the volume of a point, or the mass.
        code: ``(G, *C, D)``: the points, unconstrained and standardised.
        draws: ``(S, *C, D)``: draws in the same coordinates.
        rough: ``(R, G)``: factors that turn the weights into those of R cruder sums, a
            point for as many as the largest; None where the points are random.
    """

    value: Tensor
    weight: Tensor
    code: Tensor
    draws: Tensor
    rough: Tensor | None

    def mean(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Give the sum of weight times f over the points, and how far off it may be."""
        weight = self.weight.reshape(*self.weight.shape, *(1,) * (f.dim() - self.weight.dim()))
        terms = torch.where(weight > 0, weight * f, 0.0)
        total = terms.sum(0)
        if self.rough is None:  # six standard errors: exceeded by chance once in 5e8
            return total, 6 * terms.std(0) * math.sqrt(len(terms))
        crude = torch.tensordot(self.rough.to(terms), terms, dims=1)
        step = self.rough.amax(1).pow(1 / self.code.shape[-1]).clamp(min=2)
        step = step.reshape(-1, *(1,) * (terms.dim() - 1)).to(terms)
        return total, (20 / step * (crude - total).abs()).amax(0)


def nodes(d: TorchDistribution, draws: Tensor) -> Nodes:
    """Find nodes for a distribution, with the help of draws from it.

    Args:
        d: Masses, or a density in float64. Its batch is a set C of independent cells, which has
            to be empty where an event has more than one dim.
        draws: ``(S, *C, *E)``.

    Raises:
        NotImplementedError: If the values cannot be listed, no bijection onto the support is
            known, or draws crowd on its edge, closer than rounding tells apart.

    Example:
        >>> import pyro.distributions as dist
        >>> half = dist.HalfNormal(torch.tensor([1.0, 2.0]).double())
        >>> found = nodes(half, half.sample((1000,)))
        >>> torch.allclose(found.mean(found.value)[0], half.mean)
        True
    """
    return _masses(d, draws) if d.support.is_discrete else _points(d, draws)


def _masses(d: TorchDistribution, draws: Tensor) -> Nodes:
    """Every value; without an end, all up to 20 times the largest draw."""
    tail = (1,) * len(d.batch_shape)
    if d.has_enumerate_support:
        value = d.enumerate_support()
        rough = torch.ones(1, len(value), device=draws.device)
    elif d.event_shape:
        raise NotImplementedError
    else:
        end = min(20 * int(draws.max()) + 1000, 2**20 // math.prod(d.batch_shape))
        value = torch.arange(end, dtype=draws.dtype, device=draws.device).reshape(-1, *tail)
        inside = d.support.check(value).reshape(len(value), -1).all(1)
        value = value[inside].expand(-1, *d.batch_shape)
        rough = (torch.arange(len(value), device=draws.device) < len(value) / 2).double()[None]
    centre, scale = draws.double().mean(0), draws.double().std(0).clamp(min=1e-3)
    code, standard = (
        ((t.double() - centre) / scale).reshape(len(t), *d.batch_shape, -1) for t in (value, draws)
    )
    return Nodes(value, d.log_prob(value).double().exp(), code, standard, rough)


def _points(d: TorchDistribution, draws: Tensor) -> Nodes:
    """A lattice in one or two dims, random points in more, in unconstrained coordinates u."""
    to_support = biject_to(d.support)
    free = to_support.inv(draws)
    if sum((to_support(free + step) == draws).sum() for step in (-1, 1)) > EDGE * draws.numel():
        raise NotImplementedError
    event = free.shape[1 + len(d.batch_shape) :]
    free = free.reshape(len(draws), *d.batch_shape, -1)
    if free.shape[-1] > 1 and d.batch_shape:
        raise NotImplementedError
    place = _lattice if free.shape[-1] <= 2 else _random
    code, standard, u, log_volume, rough = place(free)
    u = u.reshape(len(u), *d.batch_shape, *event)
    value = to_support(u)
    jacobian = to_support.log_abs_det_jacobian(u, value)
    log_volume = log_volume + jacobian.reshape(len(u), *d.batch_shape, -1).sum(-1)
    # Far out, rounding puts points on the edge of the support, or at infinity: they weigh nothing.
    finite = (value + log_volume.reshape(*log_volume.shape, *(1,) * len(d.event_shape))).isfinite()
    inside = d.support.check(value) & finite.reshape(len(u), *d.batch_shape, -1).all(-1)
    value = torch.where(inside.reshape(*inside.shape, *(1,) * len(d.event_shape)), value, draws[0])
    # In pieces: a mixture has K terms a point. On an edge that belongs to the support a density may
    # be infinite (a Gamma's at 0), on no volume.
    log_prob = torch.cat([d.log_prob(part) for part in value.split(2**15)])
    inside &= log_prob != torch.inf
    weight = torch.where(inside, (log_prob + log_volume).exp(), 0.0)
    return Nodes(value, weight, code, standard, rough)


Placed = tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]


def _lattice(free: Tensor) -> Placed:
    """u = middle + scale·sinh(v), v equally spaced: fine in the middle, out to 1e5 (1e3) scales.

    The cruder sums take each second, third, fifth or seventh point, of the inner three quarters:
    the errors of two edges that cancel in one of them do not in all.
    """
    dims, cells = free.shape[-1], free.shape[1:-1]
    low, middle, high = (free[:2000].quantile(q, dim=0) for q in (0.16, 0.5, 0.84))
    scale = ((high - low) / 2).clamp(min=1e-12)
    reach, half = (12.0, 1200) if dims == 1 else (8.0, 240)
    line = torch.linspace(-reach, reach, 2 * half + 1, dtype=free.dtype, device=free.device)
    steps = torch.tensor([2, 3, 5, 7], device=free.device)[:, None]
    taken = torch.arange(-half, half + 1, device=free.device) % steps == 0
    rough = steps * (taken & (line.abs() <= 0.75 * reach)).to(free)
    if dims == 2:
        rough = torch.einsum("ri,rj->rij", rough, rough).flatten(1)
    v = torch.cartesian_prod(*[line] * dims).reshape(-1, *(1,) * len(cells), dims)
    code = v.sinh().expand(-1, *cells, dims)
    log_volume = (scale * v.cosh()).log().sum(-1) + dims * math.log(reach / half)
    return code, (free - middle) / scale, middle + scale * code, log_volume, rough


def _random(free: Tensor) -> Placed:
    """Importance sampling, in whitened coordinates.

    Half the points are from a wide Normal, half from kernels at draws, as wide as their
    neighbours are far: that covers the tails, and modes that are far apart.
    """
    dims, middle = free.shape[-1], free.mean(0)
    root = torch.linalg.cholesky(free.T.cov())
    standard = torch.linalg.solve_triangular(root, (free - middle).T, upper=False).T
    centres = standard[:CENTRES]
    near = torch.cdist(centres, centres).sort(dim=1).values[:, 1 : 1 + NEIGHBOURS]
    width = (near.square().mean(1, keepdim=True) / dims).sqrt().expand(-1, dims)
    proposal = MixtureOfNormals(
        free.new_tensor([0.5] + [0.5 / CENTRES] * CENTRES).log(),
        torch.cat([torch.zeros_like(centres[:1]), centres]),
        torch.cat([torch.full_like(width[:1], 2.0), width]),
    )
    code = proposal.sample(Size([POINTS]))
    log_volume = root.diagonal().log().sum() - proposal.log_prob(code) - math.log(POINTS)
    return code, standard, middle + code @ root.T, log_volume, None
