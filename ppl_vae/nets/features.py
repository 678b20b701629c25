"""A network that sees data as their family has them: classes one-hot, counts as logarithms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Size, Tensor, nn


class HasFeatures(Protocol):
    """What `Features` asks of a family."""

    @property
    def event_shape(self) -> Size:
        """Shape of one event."""
        ...

    def as_features(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Events ``(*B, *E)`` to ``(*B, F)``; 0 where a mask says that a cell is missing."""
        ...


class Features:
    """Builds a network that sees the features of x, as its family has them, in place of x.

    A class of code 3 is not three times one of code 1, an income of 40,000 is far from where
    networks start, and counts spread over powers of ten. A family knows what becomes of its events:
    classes are one-hot, ordered ones k / (K − 1), counts log(1 + x), positive numbers log x,
    `Standardised` ones in their own units, the columns of `Columns` one after the other.

    For an encoder, whose first context is x. With ``mask=True`` its second is the mask of x, and
    the features of cells that are missing are 0. What follows is passed on as it is.

    Args:
        net: A builder ``(in_features, out_features) -> nn.Module`` of the network behind.
        family: That of x: the likelihood's.
        mask: Whether the mask of x follows x.

    Raises:
        ValueError: If the inputs are too few to hold x, and its mask.

    Example:
        >>> from ppl_vae import MLP, Categorical, Columns, Conditional, LogNormal, Normal
        >>> table = Columns({"pay": LogNormal(()), "work": Categorical((), classes=8)})
        >>> net = Features(MLP(32), table, mask=True)
        >>> encoder = Conditional(net, Normal(2), given={"x": 2, "mask": 2})
        >>> encoder.net[1][0].in_features  # log pay, eight kinds of work, and the mask of both
        11
    """

    def __init__(
        self, net: Callable[..., nn.Module], family: HasFeatures, *, mask: bool = False
    ) -> None:
        self.net, self.family, self.mask = net, family, mask

    def __call__(self, in_features: int, out_features: int) -> nn.Module:
        """Build the network: ``(*B, in_features)`` to ``(*B, out_features)``."""
        size = self.family.event_shape.numel() * (2 if self.mask else 1)
        if not isinstance(in_features, int) or in_features < size:
            what = "x and its mask" if self.mask else "x"
            raise ValueError(
                f"Got {in_features} inputs; expected {size} or more, {what} first, in flat rows. "
                f'Try given={{"x": ...{", ..." if self.mask else ""}}}.'
            )
        first = _First(self.family, self.mask)
        with torch.no_grad():
            width = first(torch.zeros(1, in_features)).shape[-1]
        return nn.Sequential(first, self.net(width, out_features))

    def __repr__(self) -> str:
        return f"Features({self.net!r}, {self.family!r})"


class _First(nn.Module):
    """The features of x, and what follows it as it is."""

    def __init__(self, family: HasFeatures, mask: bool) -> None:
        super().__init__()
        self.family, self.sees_gaps = family, mask

    def forward(self, rows: Tensor) -> Tensor:
        shape = self.family.event_shape
        size = shape.numel()
        x, rest = rows[:, :size].reshape(-1, *shape), rows[:, size:]
        seen = rest[:, :size].reshape(-1, *shape) > 0 if self.sees_gaps else None
        return torch.cat([self.family.as_features(x, seen), rest], -1)
