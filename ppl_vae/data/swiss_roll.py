"""A swiss roll: a shape that is easy to draw from and has no density in the plane."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def swiss_roll(n: int) -> Tensor:
    """Draw n points of a spiral in the plane, two turns out to a radius of 3, by torch's generator.

    With u uniform on [0, 1], the radius is 3 √u and the angle 4π √u: points lie evenly along the
    curve, but for its centre. Makhzani et al. 2015 (arXiv:1511.05644, section 2.3) use a swiss roll
    as the prior of an adversarial autoencoder, without its equation: the size here is ours.

    Args:
        n: How many.

    Returns:
        ``(n, 2)``, in torch's default dtype.

    Example:
        >>> swiss_roll(5).shape
        torch.Size([5, 2])
    """
    root = torch.rand(n).sqrt()
    angle = 4 * math.pi * root
    return 3 * root[:, None] * torch.stack([angle.cos(), angle.sin()], -1)
