"""The Normal prior with independent coordinates."""

from __future__ import annotations

import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin as TorchDistribution
from torch import Size, Tensor, nn

from ppl_vae.conditional import EventShape, event_size
from ppl_vae.data.batches import as_numbers


class StandardNormal(nn.Module):
    """p(z) = N(loc, scale²) in every coordinate; standard unless a loc or scale is given.

    Args:
        event_shape: D, or a shape.
        loc: A number or a tensor that broadcasts to the event.
        scale: A positive number or tensor.

    Raises:
        ValueError: If loc or scale does not fit the event, or the scale is not positive.

    Example:
        >>> import torch
        >>> StandardNormal(2)().log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
        >>> StandardNormal(8, scale=5.0)
        StandardNormal(8, loc=0, scale=5)
    """

    loc: Tensor
    scale: Tensor

    def __init__(
        self, event_shape: EventShape, *, loc: float | Tensor = 0.0, scale: float | Tensor = 1.0
    ) -> None:
        super().__init__()
        self.event_shape: Size = event_size(event_shape)
        for name, value in {"loc": loc, "scale": scale}.items():
            value = as_numbers(value, name)
            try:
                value = value.expand(self.event_shape).clone()
            except RuntimeError as error:
                raise ValueError(
                    f"Got {name} of shape {tuple(value.shape)}; expected one that broadcasts to "
                    f"the latent's shape {tuple(self.event_shape)}. Try one number for all."
                ) from error
            if not value.isfinite().all() or (name == "scale" and not (value > 0).all()):
                kind = "positive finite" if name == "scale" else "finite"
                raise ValueError(
                    f"Got {name}={value.tolist()}; expected {kind} numbers. "
                    f"Try {name}={1.0 if name == 'scale' else 0.0}."
                )
            self.register_buffer(name, value)

    def forward(self) -> TorchDistribution:
        """Return p(z)."""
        return dist.Normal(self.loc, self.scale).to_event(len(self.event_shape))

    def __repr__(self) -> str:
        shape = self.event_shape[0] if len(self.event_shape) == 1 else tuple(self.event_shape)
        shown = [
            f"{name}={float(value.flatten()[0]):g}"
            if (value == value.flatten()[0]).all()
            else f"{name}=[…]"
            for name, value in (("loc", self.loc), ("scale", self.scale))
        ]
        return (
            f"StandardNormal({shape})"
            if shown == ["loc=0", "scale=1"]
            else (f"StandardNormal({shape}, {', '.join(shown)})")
        )
