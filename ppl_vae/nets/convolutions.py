"""Convolutional networks for images, as records that build: down to a vector, and up from one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Size, nn

from ppl_vae.nets.mlp import MLP


class Convolutions:
    """Builds an image encoder: convolutions of stride 2, each halving the sides, then one linear.

    A side of n becomes ⌈n/2⌉, whatever n is: 28, 14, 7, 4. There is no BatchNorm.

    Args:
        channels: Channels after each convolution.
        activation: Builder of the nonlinearity after each.

    Raises:
        ValueError: If there is no channel, or one is not a positive integer.

    Example:
        >>> import torch
        >>> from ppl_vae import Conditional, Normal
        >>> q = Conditional(Convolutions(8, 16), Normal(2), given=(1, 28, 28), flatten=False)
        >>> q(torch.zeros(5, 1, 28, 28)).mean.shape
        torch.Size([5, 2])
    """

    def __init__(self, *channels: int, activation: Callable[[], nn.Module] = nn.ReLU) -> None:
        self.channels, self.activation = _checked("Convolutions", channels, activation)

    def __call__(self, in_shape: Sequence[int], out_features: int) -> nn.Module:
        """Build the network: ``(N, C, H, W)`` to ``(N, out_features)``."""
        if not isinstance(in_shape, Sequence) or len(in_shape) != 3:
            shape = tuple(in_shape) if isinstance(in_shape, Sequence) else in_shape
            raise ValueError(
                f"Got the input {shape!r}; expected the shape (C, H, W) of an image. Try "
                "Conditional(Convolutions(32, 64), family, given=(1, 28, 28), flatten=False)."
            )
        channels = (in_shape[0], *self.channels)
        layers: list[nn.Module] = []
        for a, b in zip(channels[:-1], channels[1:], strict=True):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), self.activation()]
        height, width = _sides(in_shape[1:], len(self.channels))[-1]
        return nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(channels[-1] * height * width, out_features)
        )

    def __repr__(self) -> str:
        return f"Convolutions({', '.join(map(str, self.channels))})"


class Deconvolutions:
    """Builds an image decoder: one linear, then transposed convolutions of stride 2.

    The mirror image of `Convolutions`, of any size: 4, 7, 14, 28. Each parameter of the family
    comes out as whole images, one after the other, as `Conditional` takes them: loc, then scale.
    That is right where parameters have the shape of the image, as those of Bernoulli and Normal.

    Args:
        channels: Channels before each transposed convolution.
        image: The shape of the event, ``(C, H, W)`` or ``(H, W)``.
        activation: Builder of the nonlinearity before each.

    Raises:
        ValueError: If there is no channel, one is not a positive integer, or `image` is no image.

    Example:
        >>> import torch
        >>> from ppl_vae import Bernoulli, Conditional
        >>> image = (1, 28, 28)
        >>> p = Conditional(Deconvolutions(16, 8, image=image), Bernoulli(image), given=2)
        >>> p(torch.zeros(5, 2)).mean.shape
        torch.Size([5, 1, 28, 28])
    """

    def __init__(
        self,
        *channels: int,
        image: Sequence[int],
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        self.channels, self.activation = _checked("Deconvolutions", channels, activation)
        good = isinstance(image, Sequence) and len(image) in (2, 3)
        if not good or not all(isinstance(s, int) and s > 0 for s in image):
            raise ValueError(
                f"Got image={image!r}; expected the shape of an event, (C, H, W) or (H, W). "
                "Try (1, 28, 28)."
            )
        self.image = Size(image)

    def __call__(self, in_features: int, out_features: int) -> nn.Module:
        """Build the network: ``(N, in_features)`` to ``(N, out_features)``."""
        if not isinstance(in_features, int):
            raise ValueError(
                f"Got the input {tuple(in_features)}; expected a number: Deconvolutions begin with "
                "flat rows. Try Conditional(..., flatten=True)."
            )
        if out_features % self.image.numel():
            raise ValueError(
                f"Got {out_features} parameters to predict; expected a multiple of the "
                f"{self.image.numel()} cells of image={tuple(self.image)}. Try the family's event "
                "shape as image, and a family whose parameters have that shape."
            )
        sides = _sides(self.image[-2:], len(self.channels))[::-1]
        first, planes = self.channels[0], out_features // self.image[-2:].numel()
        layers: list[nn.Module] = [
            nn.Linear(in_features, first * math.prod(sides[0])),
            nn.Unflatten(1, (first, *sides[0])),
        ]
        channels = (*self.channels, planes)
        for k, (a, b) in enumerate(zip(channels[:-1], channels[1:], strict=True)):
            height, width = sides[k + 1]
            even = (1 - height % 2, 1 - width % 2)  # n becomes 2n − 1, or with padding 2n
            layers += [
                self.activation(),
                nn.ConvTranspose2d(a, b, 3, stride=2, padding=1, output_padding=even),
            ]
        return nn.Sequential(*layers, nn.Flatten())

    def __repr__(self) -> str:
        shown = ", ".join(map(str, self.channels))
        return f"Deconvolutions({shown}, image={tuple(self.image)})"


def _sides(image: Sequence[int], layers: int) -> list[tuple[int, int]]:
    """Height and width before and after each halving."""
    height, width = image
    return [(-(-height // 2**k), -(-width // 2**k)) for k in range(layers + 1)]


def _checked(
    name: str, channels: tuple[int, ...], activation: Callable[[], nn.Module]
) -> tuple[tuple[int, ...], Callable[[], nn.Module]]:
    good = all(isinstance(c, int) and not isinstance(c, bool) and c > 0 for c in channels)
    if not channels or not good:
        raise ValueError(
            f"Got channels {channels}; expected positive integers. Try {name}(32, 64, ...)."
        )
    return channels, MLP(activation=activation).activation  # which checks it
