"""Is a density a density, are its moments its own, and do the draws follow it?"""

from __future__ import annotations

import math
import warnings

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as TorchDistribution
from torch import Size, Tensor

from ppl_vae.testing.laws import Laws
from ppl_vae.testing.nodes import EDGE, Nodes, nodes

DRAWS = 40_000
FEATURES = 16
FALSE_ALARMS = 1e-6
"""How often, at most, right draws of one distribution break the law "draws"."""

USELESS = 0.25
"""A sound total that may be off by more says nothing, and no law is claimed."""


def check_density(laws: Laws, d: TorchDistribution) -> None:
    """Check "normalised", "draws" and "moments" of a distribution, where they can be.

    "moments" is left out where the distribution states none, and where points are random; all
    three where the values cannot be listed or the support has no bijection, and, with a warning,
    where the total is too uncertain.

    Args:
        laws: Takes the outcome.
        d: Masses, or a density in float64. Its batch is a set of independent cells; it is empty
            where an event has more than one dim.
    """
    draws = d.sample(Size([max(DRAWS // math.prod(d.batch_shape), DRAWS // 10)]))
    try:
        found = nodes(d, draws)
    except NotImplementedError:
        return
    total, error = found.mean(torch.ones_like(found.weight))
    off = (total - 1).abs() - error
    # Smooth densities sum to 1 within 1e-9, and a sum finds the error of kinks and jumps itself.
    # In many dims the points miss most of a sound density: a total that may be 0 says nothing.
    wrong = ~(off <= EDGE) & ~(error > total)
    unsure = (off > EDGE) | (error > USELESS * total.clamp(min=1))
    if unsure.any() and not wrong.any():
        at = torch.where(unsure, error, -torch.inf).argmax()
        warnings.warn(
            f"{laws.piece}: the laws 'normalised', 'draws' and 'moments' are not decided. Got a "
            f"total of {total.flatten()[at]:.3g} ± {error.flatten()[at]:.3g}; expected 1, give or "
            f"take {USELESS} at most. Try fewer dims.",
            stacklevel=3,
        )
        return
    at = torch.where(wrong, off, -torch.inf).argmax()
    got = f"a total of {total.flatten()[at]:.6g}"
    attempt = "adding the log of the missing constant (a Jacobian, a truncation) to log_prob"
    if found.rough is None:  # the points are placed by the draws
        attempt += ", or mending the draws if they lie elsewhere"
    laws.hold("normalised", not wrong.any(), got, 1, attempt)
    _check_draws(laws, found)
    if found.rough is not None:
        _check_moments(laws, d, found)


def _check_moments(laws: Laws, d: TorchDistribution, found: Nodes) -> None:
    try:
        mean, variance = d.mean, d.variance
    except NotImplementedError:
        return
    value = found.value.to(found.weight.dtype)
    _check_moment(laws, found, "mean", mean, value, variance.sqrt())
    _check_moment(laws, found, "variance", variance, (value - mean) ** 2, variance)


def _check_moment(
    laws: Laws, found: Nodes, name: str, stated: Tensor, terms: Tensor, size: Tensor
) -> None:
    if not stated.isfinite().all():  # heavy tails
        return
    true, error = found.mean(terms)
    size = torch.where(size.isfinite(), size, stated.abs())
    off = (true - stated).abs() - error - EDGE * (size + EDGE)
    at = off.argmax()
    got = f"the {name} {stated.flatten()[at]:.6g}"
    expected = f"{true.flatten()[at]:.6g}, that of exp(log_prob)"
    laws.hold("moments", off.max() <= 0, got, expected, f"deriving the {name} again")


def _check_draws(laws: Laws, found: Nodes) -> None:
    """Compare cosines of random projections: their means decide a distribution.

    A cosine f lies in [−1, 1], so by Bernstein's inequality its mean over S draws is further than
    √(2 Var f L/S) + 4L/(3S) from E f at most 2 exp(−L) of the time, whatever S is. All features
    of all cells together fail right draws at most FALSE_ALARMS of the time.
    """
    size, dims = len(found.draws), found.code.shape[-1]
    log = math.log(2 * FEATURES * found.weight[0].numel() / FALSE_ALARMS)
    for _ in range(FEATURES):
        direction = torch.randn(dims).to(found.code) * math.sqrt(2 / dims)
        shift = 2 * math.pi * torch.rand(())
        f = torch.cos(found.code @ direction + shift)
        (expected, error), (square, _) = found.mean(f), found.mean(f**2)
        got = torch.cos(found.draws @ direction + shift).mean(0)
        variance = (square - expected**2).clamp(min=0)
        bound = (2 * variance * log / size).sqrt() + 4 * log / (3 * size) + error
        off = (got - expected).abs() - bound
        at = off.argmax()
        drawn = f"E cos(t·z) = {got.flatten()[at]:.4f} over {size} draws"
        wanted = f"{expected.flatten()[at]:.4f} ± {bound.flatten()[at]:.4f} by log_prob"
        attempt = "the same parameters in sample and log_prob"
        laws.hold("draws", off.max() <= 0, drawn, wanted, attempt)
