"""An exact world for any smooth model of one or two latent dimensions: integrals on a grid.

The trapezoid rule converges exponentially for smooth integrands that decay (Trefethen and
Weideman, *The Exponentially Convergent Trapezoidal Rule*, SIAM Review 56, 2014). Each datum gets
its own grid, and its guide another one: either may be much narrower than the prior.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as TorchDistribution
from torch import Tensor

from ppl_vae.data.grid import SEARCH_NODES, Box, locate
from ppl_vae.data.unconstrained import ROWS, Unconstrained

_DRAWS = 1024  # draws from prior and guide: where to start looking, and one check


class Quadrature(NamedTuple):
    """What `quadrature` found, in nats per datum.

    The last three are None without a guide. With one, log_evidence = reconstruction - kl_prior
    + kl_posterior holds by the way kl_posterior is computed: it is no check of anything.

    Shapes:
        posterior_mean ``(N, D)``, posterior_covariance ``(N, D, D)``, the others ``(N,)``; error is
        a float, the largest change on doubling the points.
    """

    log_evidence: Tensor
    posterior_mean: Tensor
    posterior_covariance: Tensor
    error: float
    reconstruction: Tensor | None = None
    kl_prior: Tensor | None = None
    kl_posterior: Tensor | None = None


@torch.no_grad()
def quadrature(
    prior: TorchDistribution,
    decoder: Callable[[Tensor], TorchDistribution],
    x: Tensor,
    guide: Callable[[Tensor], TorchDistribution] | None = None,
    *,
    points: int = 32,
    max_nodes: int = 2**20,
    tolerance: float = 1e-8,
) -> Quadrature:
    """Integrate the latent out of p(z) p(x|z), and out of E_q, to a checked error.

    With z = T(u), u unconstrained (T is ``biject_to(prior.support)``), and |T'| its Jacobian:

        p(x) = ∫ p(T(u)) |T'(u)| p(x | T(u)) du,     E_q[f] = ∫ q(T(u)) |T'(u)| f(T(u)) du

    For every datum the points per axis are doubled, in boxes of two widths, until evidence,
    reconstruction and KLs move by at most `tolerance` nats (posterior moments: by `tolerance`
    posterior standard deviations), the guide integrates to one, and draws from the prior see no
    mass that the grid stepped over. What cannot be caught is a mode, beside a broad one, too
    narrow for the grid and too light for 1024 draws. The global random stream is left alone.

    Args:
        prior: p(z), continuous, without batch dims; one or two dimensions once unconstrained.
        decoder: Maps z to p(x|z), all of x in its event. If a module, in eval mode.
        x: The data.
        guide: Maps rows of x to q(z|x), each row by itself; its support lies inside the prior's.
        points: Points per axis to begin with.
        max_nodes: Most nodes of one datum's grid, all axes together.
        tolerance: Largest change that is accepted.

    Shapes:
        x ``(N, *E)``. The decoder is given z ``(G, N, D)`` and returns batch ``(G, N)``.

    Raises:
        ValueError: If the latent is discrete or has three dimensions or more, if anything is not
            float64 or has the wrong shape, if the prior does not integrate to one, if the guide
            is a point, or if the tolerance is not met.

    Example:
        >>> import pyro.distributions as dist
        >>> one, x = torch.ones(1).double(), torch.tensor([[0.0], [2.0]]).double()
        >>> prior = dist.Normal(0 * one, one).to_event(1)
        >>> found = quadrature(prior, lambda z: dist.Normal(z, one).to_event(1), x)
        >>> torch.allclose(found.log_evidence, dist.Normal(0 * one, 2**0.5).log_prob(x[:, 0]))
        True
    """
    if x.dim() < 2 or not len(x) or x.dtype != torch.float64:
        raise ValueError(
            f"Got x {tuple(x.shape)} in {x.dtype}; expected (N, *E) with N > 0 in torch.float64, "
            "without which no integral is good to 1e-8. Try x.double()."
        )
    model = Unconstrained(prior, decoder)
    u, z = model.draw(prior, _DRAWS)
    dims = u.shape[-1]
    if dims not in SEARCH_NODES:
        raise ValueError(
            f"Got a latent of {dims} dimensions; expected 1 or 2, as a grid in more is out of "
            "reach. Try LinearGaussian or LinearMixture, which are exact in any dimension."
        )
    _check_normalised(model, u)
    seen = torch.cat([model.log_likelihood(z[:, None], rows) for rows in x.split(64)], -1)
    u = u[:, None].expand(-1, len(x), -1)
    boxes = [_boxes(partial(_posterior_mass, model), u, x)]
    if guide is not None:
        inside, _ = model.draw(guide(x), _DRAWS)
        _check_draws(inside, u)
        boxes.append(_boxes(partial(_guide_mass, model, guide), torch.cat([u, inside]), x))

    error = x.new_full((len(x),), torch.inf)
    pending = torch.arange(len(x), device=x.device)
    found, per_axis, width = None, points, 1.0
    while found is None or len(pending):
        if per_axis**dims > max_nodes:
            raise ValueError(_not_met(error, tolerance, per_axis**dims, max_nodes))
        parts = []
        for rows in pending.split(max(1, ROWS // per_axis**dims)):
            q = guide(x[rows]) if guide is not None else None
            wide = [box.take(rows).widen(width) for box in boxes]
            parts.append(_integrate(model, wide, per_axis, x[rows], q))
        new = _Values(*(torch.cat(part) for part in zip(*parts, strict=True)))
        if found is None:
            found = new
        else:
            change = _change(_Values(*(value[pending] for value in found)), new)
            error[pending] = change.maximum(_overlooked(seen[:, pending] - new.log_evidence))
            for value, update in zip(found, new, strict=True):
                value[pending] = update
            pending = pending[~(error[pending] <= tolerance)]
        # Every other box is wider: a tail cut off must show as a change, as a coarse grid does.
        per_axis, width = 2 * per_axis, 2.25 - width
    log_evidence, mean, covariance, terms, _ = found
    return Quadrature(log_evidence, mean, covariance, float(error.max()), *terms.unbind(-1))


class _Values(NamedTuple):
    log_evidence: Tensor  # (n,)
    mean: Tensor  # (n, D)
    covariance: Tensor  # (n, D, D)
    terms: Tensor  # (n, 3): reconstruction, KL to prior, KL to posterior; (n, 0) without a guide
    guide_mass: Tensor  # (n,): the guide's integral, to be one


def _integrate(
    model: Unconstrained, boxes: list[Box], per_axis: int, x: Tensor, q: TorchDistribution | None
) -> _Values:
    u, log_cell = boxes[0].nodes(per_axis)
    z, log_prior, log_likelihood = model.joint(u, x)
    log_weight = log_prior + log_likelihood + log_cell
    log_evidence = log_weight.logsumexp(0)
    weight = (log_weight - log_evidence).exp()
    mean = torch.einsum("gn,gnd->nd", weight, z)
    covariance = torch.einsum("gn,gnd,gne->nde", weight, z - mean, z - mean)
    if q is None:
        return _Values(log_evidence, mean, covariance, mean[:, :0], torch.ones_like(log_evidence))

    u, log_cell = boxes[1].nodes(per_axis)
    _, log_prior, log_likelihood = model.joint(u, x)
    log_q = model.log_density(q, u)
    weight = (log_q + log_cell).exp()
    reconstruction = (weight * log_likelihood).where(weight > 0, 0).sum(0)
    kl_prior = (weight * (log_q - log_prior)).where(weight > 0, 0).sum(0)
    terms = [reconstruction, kl_prior, log_evidence - reconstruction + kl_prior]
    return _Values(log_evidence, mean, covariance, torch.stack(terms, -1), weight.sum(0))


def _change(old: _Values, new: _Values) -> Tensor:
    sd = new.covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    parts = [
        (new.log_evidence - old.log_evidence)[:, None],
        (new.mean - old.mean) / sd,
        ((new.covariance - old.covariance) / (sd[:, :, None] * sd[:, None])).flatten(1),
        new.terms - old.terms,
        100 * (new.guide_mass - 1)[:, None],  # mass left out may lie where the terms are large
    ]
    return torch.cat(parts, -1).abs().amax(-1)


def _overlooked(log_weight: Tensor) -> Tensor:
    # The weights p(x|z) / p(x) of draws z ~ p(z) average to one. An average more than six standard
    # errors above it takes 36 draws or more in mass that the grid does not know of: so many nats.
    top = log_weight.amax(0).clamp(min=0)
    weight = (log_weight - top).exp()
    mean, se = weight.mean(0), weight.std(0) / _DRAWS**0.5
    return (top + mean.log()).where(mean - 6 * se > (1e-6 - top).exp(), 0)


def _posterior_mass(model: Unconstrained, x: Tensor, u: Tensor) -> Tensor:
    z, log_prior, log_likelihood = model.joint(u, x)
    return log_prior + log_likelihood + z.square().sum(-1).log1p()  # second moments included


def _guide_mass(
    model: Unconstrained, guide: Callable[[Tensor], TorchDistribution], x: Tensor, u: Tensor
) -> Tensor:
    _, log_prior, log_likelihood = model.joint(u, x)
    log_q = model.log_density(guide(x), u)  # times what is averaged: its mass may lie elsewhere
    return log_q + (log_q.abs() + log_prior.abs() + log_likelihood.abs()).log1p()


def _check_draws(u: Tensor, of_prior: Tensor) -> None:
    if u.shape != of_prior.shape:
        raise ValueError(
            f"Got draws of shape {tuple(u.shape)} from the guide; expected "
            f"{tuple(of_prior.shape)}. Try .to_event(1), and a guide that depends on x."
        )
    if not (u.amax(0) > u.amin(0)).all():
        raise ValueError(
            "Got draws of the guide that are all equal, or outside the prior's support; expected a "
            "density on that support, which a Delta has not. Try a Normal guide, pushed through "
            "biject_to(prior.support) where that is bounded."
        )


def _boxes(log_mass: Callable[[Tensor, Tensor], Tensor], u: Tensor, x: Tensor) -> Box:
    rows = max(1, ROWS // SEARCH_NODES[u.shape[-1]] ** u.shape[-1])
    parts = zip(x.split(rows), u.split(rows, 1), strict=True)
    found = [locate(partial(log_mass, part), Box.around(start)) for part, start in parts]
    return Box(*(torch.cat(part) for part in zip(*found, strict=True)))


def _check_normalised(model: Unconstrained, u: Tensor) -> None:
    log_density = partial(model.log_density, model.prior)
    box, mass = locate(log_density, Box.around(u[:, None])), math.nan
    for level in range(5, 20 // u.shape[-1] + 1):
        grid, log_cell = box.nodes(2**level)
        mass = float((log_density(grid).logsumexp(0) + log_cell).exp())
        if abs(mass - 1) < 1e-9:
            return
    raise ValueError(
        f"Got a prior that integrates to {mass:.10g}; expected 1, or p(x) means nothing. Try a "
        "smooth, normalised density without a pole at the edge of its support."
    )


def _not_met(error: Tensor, tolerance: float, nodes: int, max_nodes: int) -> str:
    state = "no two grids to compare"
    if not error.isinf().all():
        many = int((~(error <= tolerance)).sum())
        state = f"{many} of {len(error)} data changing by more, one by {float(error.max()):.1e}"
    return (
        f"Expected changes of at most {tolerance:g} on doubling the points; got {state}, and the "
        f"next grid has {nodes} nodes, above max_nodes={max_nodes}. Try more max_nodes; a smooth "
        "decoder (tanh, not ReLU); a guide normalised on the prior's support; a larger tolerance."
    )
