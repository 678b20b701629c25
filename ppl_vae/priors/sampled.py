"""A prior that can be drawn from and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Size, Tensor, nn

from ppl_vae.conditional import EventShape, event_size
from ppl_vae.distributions import SampleOnly

Sampler = Callable[[int], Tensor]
"""Gives n independent draws, ``(n, *event)``."""


class SampledPrior(nn.Module):
    """A prior known by its draws alone, such as a swiss roll: any shape that can be simulated.

    `Adversarial` needs no more: its critic compares draws of p(z) and q(z). There is no density, so
    an ELBO, evidence and log weights are refused. The sampler draws by torch, whose seed then
    decides the draws; they are moved to the device and dtype of this module.

    Args:
        sampler: A function, or a module, that is called with n and gives ``(n, *event)``.
        event_shape: D, or a shape.

    Raises:
        ValueError: If the sampler's draws have another shape, are not finite, or do not follow
            torch's seed.

    Example:
        >>> from ppl_vae.data import swiss_roll
        >>> prior = SampledPrior(swiss_roll, 2)
        >>> prior().expand((5,)).sample().shape
        torch.Size([5, 2])
    """

    place: Tensor

    def __init__(self, sampler: Sampler, event_shape: EventShape) -> None:
        super().__init__()
        if not callable(sampler):
            raise ValueError(
                f"Got a {type(sampler).__name__} as sampler; expected a function of n that gives n "
                "draws. Try ppl_vae.data.swiss_roll, or lambda n: torch.rand(n, 2)."
            )
        self.event_shape: Size = event_size(event_shape)
        self.sampler = sampler
        self.register_buffer("place", torch.zeros(()), persistent=False)
        draws = []
        with torch.no_grad():
            for _ in range(2):
                with torch.random.fork_rng():
                    torch.manual_seed(0)
                    draws.append(self._draw(Size([3])))
        if not draws[0].isfinite().all() or not torch.equal(*draws):
            fault = "at one seed differ" if draws[0].isfinite().all() else "are not all finite"
            raise ValueError(
                f"Got draws of {sampler!r} that {fault}; expected finite ones, decided by torch's "
                "seed, or no run could be repeated. Try torch.rand and torch.randn in place of "
                "NumPy's or Python's random numbers."
            )

    def forward(self) -> SampleOnly:
        """Return p(z)."""
        return SampleOnly(self._draw, self.event_shape, name="a SampledPrior")

    def _draw(self, shape: Size) -> Tensor:
        found = self.sampler(shape.numel())
        expected = (shape.numel(), *self.event_shape)
        if not isinstance(found, Tensor) or found.shape != expected:
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"Got {got} from the sampler when asked for {shape.numel()} draws; expected a "
                f"tensor of shape {expected}. Try event_shape= with the shape of one draw, or a "
                "sampler that uses its argument n."
            )
        return found.to(self.place).reshape(shape + self.event_shape)

    def __repr__(self) -> str:
        shape = self.event_shape[0] if len(self.event_shape) == 1 else tuple(self.event_shape)
        name = getattr(self.sampler, "__name__", type(self.sampler).__name__)
        return f"SampledPrior({name}, {shape})"
