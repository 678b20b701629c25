"""Kernels that compare two samples, each at several widths in the units of the prior's spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Kernel(Protocol):
    """A positive definite function of squared distances, 1 at 0."""

    def __call__(self, squared: Tensor, spread: Tensor) -> Tensor:
        """Evaluate it at squared distances, given E‖z − z'‖² under the prior."""
        ...


@dataclass(frozen=True)
class InverseMultiquadric:
    """k(z, z') = mean over s of sC / (sC + ‖z − z'‖²), C = E‖z − z'‖² under the prior.

    Tolstikhin et al. 2018 (arXiv:1711.01558, section 4), whose code sums over these s where here is
    a mean, with C = 2 D σ² for a prior N(0, σ² I): the same C. Its tails are heavy, so that codes
    far from the prior are still pulled.

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
        return torch.stack([s * spread / (s * spread + squared) for s in self.scales]).mean(0)


@dataclass(frozen=True)
class RBF:
    """k(z, z') = mean over s of exp(−‖z − z'‖² / sC), C = E‖z − z'‖² under the prior.

    At s = 1 and a prior N(0, σ² I) the usual Gaussian kernel of bandwidth σ √D.

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
        return torch.stack([torch.exp(-squared / (s * spread)) for s in self.scales]).mean(0)


def mmd2_unbiased(codes: Tensor, draws: Tensor, kernel: Kernel, spread: Tensor) -> Tensor:
    """Estimate the squared MMD of two samples of one size without bias: it may be negative.

    Gretton et al. 2012 (A Kernel Two-Sample Test, eq. 3; number recalled, not checked).

    Args:
        codes: Rows ``(N, D)``, N ≥ 2.
        draws: Rows ``(N, D)`` of the reference.
        kernel: Evaluated at all pairs.
        spread: E‖z − z'‖² under the reference.

    Example:
        >>> z = torch.tensor([[0.0], [1.0]])
        >>> mmd2_unbiased(z, z + 100.0, RBF((1.0,)), torch.tensor(1.0)).round(decimals=4)
        tensor(0.7358)
    """
    rows = len(codes)
    pairs = rows * (rows - 1)
    within = [_off_diagonal(kernel(_squared(z, z), spread)) for z in (codes, draws)]
    across = kernel(_squared(codes, draws), spread).sum()
    return (within[0] + within[1]) / pairs - 2 * across / rows**2


def spread_of(draws: Tensor) -> Tensor:
    """Estimate E‖z − z'‖² from independent draws ``(M, D)``: twice the sum of their variances."""
    return 2 * draws.var(0).sum()


def _squared(a: Tensor, b: Tensor) -> Tensor:
    # By differences: a product of matrices loses what is small beside ‖z‖², and a root its slope.
    return (a[:, None] - b[None]).square().sum(-1)


def _off_diagonal(kernel: Tensor) -> Tensor:
    return kernel.sum() - kernel.diagonal().sum()


def _refuse_bad(scales: tuple[float, ...]) -> None:
    if not scales or not all(0 < s < float("inf") for s in scales):
        raise ValueError(f"Got scales={scales!r}; expected positive numbers. Try {SCALES}.")
