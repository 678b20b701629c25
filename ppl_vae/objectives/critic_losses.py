"""What a critic and the codes it judges play for: one loss a record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus


class CriticLoss(Protocol):
    """The two sides of a game over scores ``(N,)``, high for draws of p(z), low for codes."""

    @property
    def penalty(self) -> float:
        """Weight of the critic's gradient penalty; 0 for none."""
        ...

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """What the critic minimises, a pair of a prior's draw and a code at a time: ``(N,)``."""
        ...

    def generator(self, fake: Tensor) -> Tensor:
        """What the encoder minimises, at each code: ``(N,)``."""
        ...

    def boundary(self, real: Tensor, fake: Tensor) -> Tensor:
        """The score above which the critic takes z for a draw of p(z): ``()``."""
        ...


@dataclass(frozen=True)
class NonSaturating:
    """Critic: −log D(z_p) − log(1 − D(z_q)); encoder: −log D(z_q), with D the logistic of a score.

    Goodfellow et al. 2014 (arXiv:1406.2661, section 3; eq. 1 is the critic's). The best score is
    log p(z)/q(z), and there the critic's loss is 2 log 2 − 2 JSD(p, q). It is unbounded where p
    and q do not overlap: see ``instance_noise`` of `Adversarial`.

    Example:
        >>> zero = torch.zeros(1)  # a critic that cannot tell
        >>> NonSaturating().critic(zero, zero)
        tensor([1.3863])
    """

    penalty = 0.0

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """−log D(z_p) − log(1 − D(z_q))."""
        return softplus(-real) + softplus(fake)

    def generator(self, fake: Tensor) -> Tensor:
        """−log D(z_q)."""
        return softplus(-fake)

    def boundary(self, real: Tensor, fake: Tensor) -> Tensor:
        """A score of 0, at which D is one half."""
        return real.new_zeros(())


@dataclass(frozen=True)
class LeastSquares:
    """Critic: (s_p − 1)²/2 + s_q²/2; encoder: (s_q − 1)²/2.

    Mao et al. 2017 (arXiv:1611.04076, eq. 2 with a = 0, b = c = 1; number recalled, not checked).
    The best score is p(z) / (p(z) + q(z)). It is bounded, and so is the game: the gradient fades
    where a code is far from p and the critic at its best, as it does not under `NonSaturating`.

    Example:
        >>> half = torch.full((1,), 0.5)
        >>> LeastSquares().critic(half, half)
        tensor([0.2500])
    """

    penalty = 0.0

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """(s_p − 1)²/2 + s_q²/2."""
        return ((real - 1).square() + fake.square()) / 2

    def generator(self, fake: Tensor) -> Tensor:
        """(s_q − 1)²/2."""
        return (fake - 1).square() / 2

    def boundary(self, real: Tensor, fake: Tensor) -> Tensor:
        """A score of one half."""
        return real.new_full((), 0.5)


@dataclass(frozen=True)
class Hinge:
    """Critic: max(0, 1 − s_p) + max(0, 1 + s_q); encoder: −s_q.

    Lim & Ye 2017 (arXiv:1705.02894); Miyato et al. 2018 (arXiv:1802.05957, eqs. 16 and 17; numbers
    recalled, not checked). The best score is the sign of p(z) − q(z), and there the critic's loss
    is 2 ∫ min(p, q).

    Example:
        >>> zero = torch.zeros(1)
        >>> Hinge().critic(zero, zero)
        tensor([2.])
    """

    penalty = 0.0

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """max(0, 1 − s_p) + max(0, 1 + s_q)."""
        return relu(1 - real) + relu(1 + fake)

    def generator(self, fake: Tensor) -> Tensor:
        """−s_q."""
        return -fake

    def boundary(self, real: Tensor, fake: Tensor) -> Tensor:
        """A score of 0."""
        return real.new_zeros(())


@dataclass(frozen=True)
class Wasserstein:
    """Critic: s_q − s_p + penalty · (‖∇s‖ − 1)² between them; encoder: −s_q.

    Gulrajani et al. 2017 (arXiv:1704.00028, eq. 3). Where slopes are 1, the difference of the mean
    scores is at most the earth mover's distance W₁(q, p); the penalty lets slopes exceed 1: for two
    Gaussians that differ by a shift m the best linear score has 1 + m / (2 penalty), and minus its
    loss is m + m² / (4 penalty), where W₁ is m; over all scores it is at least that. A critic with
    BatchNorm has no gradient for one datum, so none may be used here (same source, section 4).

    Args:
        penalty: Of slopes other than 1, at points drawn evenly between codes and prior.

    Raises:
        ValueError: If `penalty` is not positive: without it the score has no bound.

    Example:
        >>> one = torch.ones(1)
        >>> Wasserstein().critic(3 * one, one)
        tensor([-2.])
    """

    penalty: float = 10.0

    def __post_init__(self) -> None:
        if not isinstance(self.penalty, Real) or not 0 < self.penalty < float("inf"):
            raise ValueError(
                f"Got penalty={self.penalty!r}; expected a positive number, or the score has no "
                "bound. Try 10.0."
            )

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """s_q − s_p, to which `gradient_penalty` is added."""
        return fake - real

    def generator(self, fake: Tensor) -> Tensor:
        """−s_q."""
        return -fake

    def boundary(self, real: Tensor, fake: Tensor) -> Tensor:
        """Midway between the two means: a score as such means nothing here."""
        return (real.mean() + fake.mean()) / 2


def gradient_penalty(
    score: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, moving: int
) -> Tensor:
    """(‖∇s(z)‖ − 1)² at z = u z_p + (1 − u) z_q, u uniform: ``(N,)``.

    Args:
        score: Gives scores ``(N,)`` for rows.
        real: Draws of the prior, ``(N, D)``.
        fake: Codes.
        moving: How many of the columns are codes; the rest are covariates, the same in both.
    """
    share = torch.rand(len(real), 1, dtype=real.dtype, device=real.device)
    between = (share * real + (1 - share) * fake).detach().requires_grad_()
    (slope,) = torch.autograd.grad(score(between).sum(), between, create_graph=True)
    # At 0 a norm has no gradient.
    return ((slope[:, :moving].square().sum(1) + 1e-12).sqrt() - 1).square()
