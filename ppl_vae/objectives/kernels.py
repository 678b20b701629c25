"""Kernels that compare two samples, each at several widths in the units of the prior's spread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Protocol

import torch
from torch import Tensor

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Kernel(Protocol):
    """A positive definite function of squared distances, 1 at 0: any function of these two."""

    def __call__(self, squared: Tensor, spread: Tensor) -> Tensor:
        """Evaluate it at squared distances, given their median under the prior."""
        ...


@dataclass(frozen=True)
class InverseMultiquadric:
    """k(z, z') = mean over s of sC / (sC + ‖z − z'‖²), C = median ‖z − z'‖² under the prior.

    Tolstikhin et al. 2018 (arXiv:1711.01558, section 4), whose code sums over these s where here is
    a mean, with C = 2 D σ², the mean for a prior N(0, σ² I), where here is the median, which every
    prior has. Its tails are heavy, so that codes far from the prior are still pulled.

    Args:
        scales: The s.

    Raises:
        ValueError: If a scale is not positive.

    Example:
        >>> InverseMultiquadric((1.0,))(torch.tensor([0.0, 2.0]), torch.tensor(2.0))
        tensor([1.0000, 0.5000])
    """

    scales: tuple[float, ...] = SCALES

    def __post_init__(self) -> None:
        _refuse_bad(self.scales)

    def __call__(self, squared: Tensor, spread: Tensor) -> Tensor:
        """Evaluate it: the shape of `squared`."""
        return _mean(self.scales, lambda s: s * spread / (s * spread + squared))


@dataclass(frozen=True)
class RBF:
    """k(z, z') = mean over s of exp(−‖z − z'‖² / sC), C = median ‖z − z'‖² under the prior.

    At s = 2 it is the Gaussian kernel of `ppl_vae.diagnostics.mmd2`, by the median heuristic.

    Args:
        scales: The s.

    Raises:
        ValueError: If a scale is not positive.

    Example:
        >>> RBF((1.0,))(torch.tensor([0.0, 2.0]), torch.tensor(2.0))
        tensor([1.0000, 0.3679])
    """

    scales: tuple[float, ...] = SCALES

    def __post_init__(self) -> None:
        _refuse_bad(self.scales)

    def __call__(self, squared: Tensor, spread: Tensor) -> Tensor:
        """Evaluate it: the shape of `squared`."""
        return _mean(self.scales, lambda s: torch.exp(-squared / (s * spread)))


def _mean(scales: tuple[float, ...], at: Callable[[float], Tensor]) -> Tensor:
    # One by one: a stack of them would be the memory of them all.
    first, *rest = scales
    total = at(first)
    for scale in rest:
        total = total + at(scale)
    return total / len(scales)


def mmd2_unbiased(
    codes: Tensor,
    draws: Tensor,
    kernel: Kernel,
    *,
    spread: Tensor | None = None,
    rows: Tensor | None = None,
) -> Tensor:
    """Estimate the squared MMD of two samples of one size without bias: it may be negative.

    Gretton et al. 2012 (A Kernel Two-Sample Test, eq. 3; number recalled, not checked).

    Args:
        codes: Rows ``(N, D)``, N ≥ 2.
        draws: Rows ``(N, D)`` of the reference.
        kernel: Evaluated at all pairs.
        spread: C of the kernel; None for the median squared distance of two of `draws`.
        rows: How much each row counts, of both; None where all count once. With a single row
            there is no pair, and 0 is given.

    Example:
        >>> z = torch.tensor([[0.0], [1.0]])
        >>> mmd2_unbiased(z, z + 100.0, RBF((1.0,))).round(decimals=4)
        tensor(0.7358)
    """
    weights = torch.ones_like(codes[:, 0]) if rows is None else rows
    centre = draws.mean(0)
    codes, draws = codes - centre, draws - centre
    among = [_squared(z, z) for z in (codes, draws)]
    if spread is None:
        spread = _spread(among[1], rows)
    both = weights[:, None] * weights
    least = torch.finfo(weights.dtype).tiny
    total = weights.sum().square()
    pairs = total - weights.square().sum()
    same = torch.eye(len(codes), dtype=torch.bool, device=codes.device)
    # The diagonal is left out; its distance is 1, not 0, where a kernel may have no slope.
    within = [kernel(d.masked_fill(same, 1.0), spread) * both.masked_fill(same, 0.0) for d in among]
    apart = [k.sum() / pairs.clamp(min=least) for k in within]
    across = (kernel(_squared(codes, draws), spread) * both).sum() / total.clamp(min=least)
    found = apart[0] + apart[1] - 2 * across
    return found if rows is None else torch.where((rows > 0).sum() > 1, found, 0 * found)


def _spread(squared: Tensor, weights: Tensor | None = None) -> Tensor:
    """Give the median squared distance of two rows that count; the mean where most are equal."""
    rows = len(squared)
    upper = torch.triu_indices(rows, rows, 1, device=squared.device)
    found = squared[upper[0], upper[1]].detach()
    if weights is not None:
        kept = (weights[upper[0]] > 0) & (weights[upper[1]] > 0)
        found = torch.where(kept, found, torch.nan)
    median = found.nanmedian()
    mean = found.nanmean().nan_to_num(0.0).clamp(min=torch.finfo(found.dtype).eps)
    return torch.where(median > 0, median, mean)


def _squared(a: Tensor, b: Tensor) -> Tensor:
    # By products of matrices, which take no memory but their own; of rows about 0, or digits are
    # lost beside ‖z‖².
    norms = a.square().sum(1)[:, None] + b.square().sum(1)
    return (norms - 2 * a @ b.T).clamp(min=0)


def _refuse_bad(scales: tuple[float, ...]) -> None:
    numbers = isinstance(scales, tuple) and all(isinstance(s, Real) for s in scales)
    if not numbers or not scales or not all(0 < s < float("inf") for s in scales):
        raise ValueError(f"Got scales={scales!r}; expected positive numbers. Try {SCALES}.")
