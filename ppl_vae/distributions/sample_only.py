"""A distribution that can be drawn from, and not scored."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints


class SampleOnly(TorchDistribution):
    """Draws without a density: an implicit distribution, of priors and guides alike.

    An adversary needs no more. Whatever asks for its ``log_prob`` is told that there is none, by a
    NotImplementedError, from which programs see that they have no log weights.

    Args:
        draw: Takes the shape S of a batch of draws and gives them, ``(*S, *E)``.
        event_shape: The shape E of one event; cells are real numbers.
        batch_shape: Draws of one batch are independent.
        has_rsample: Whether draws carry gradients.
        name: What the error calls it.

    Example:
        >>> import torch
        >>> d = SampleOnly(lambda shape: torch.rand(*shape, 2).square(), Size([2]))
        >>> d.expand((5,)).sample().shape
        torch.Size([5, 2])
        >>> d.log_prob(torch.zeros(2))
        Traceback (most recent call last):
        ...
        NotImplementedError: Got a question for the log density of a distribution, which has none...
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(
        self,
        draw: Callable[[Size], Tensor],
        event_shape: Size,
        batch_shape: Size = Size(),  # noqa: B008
        *,
        has_rsample: bool = False,
        name: str = "a distribution",
    ) -> None:
        self.draw, self.name, self.has_rsample = draw, name, has_rsample
        super().__init__(Size(batch_shape), Size(event_shape))

    @property
    def support(self) -> constraints.Constraint:
        """All real numbers."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Size, _instance: None = None) -> SampleOnly:
        """Give independent copies of shape `batch_shape`."""
        return SampleOnly(
            self.draw,
            self.event_shape,
            Size(batch_shape),
            has_rsample=self.has_rsample,
            name=self.name,
        )

    def rsample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        """Draw ``(*sample_shape, *batch_shape, *event_shape)``; ``sample`` is without gradients."""
        return self.draw(Size(sample_shape) + self.batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """There is none.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            f"Got a question for the log density of {self.name}, which has none; expected it to be "
            "drawn from alone: there is no ELBO, no evidence, no log weight. Try "
            "objective=Adversarial(), which draws and never scores."
        )
