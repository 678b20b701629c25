"""Numbers that a prior is built from: one for each cell of the latent."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Size, Tensor

from ppl_vae.data.batches import as_numbers


def per_cell(value: float | Tensor, name: str, event_shape: Size, *, positive: bool) -> Tensor:
    """Give a number or tensor as a tensor of the event's shape, in torch's default dtype.

    Raises:
        ValueError: If it is not made of finite numbers, positive ones where they have to be, or
            does not broadcast to the event.

    Example:
        >>> per_cell(2.0, "scale", Size([3]), positive=True)
        tensor([2., 2., 2.])
    """
    numbers = as_numbers(value, name)
    try:
        numbers = numbers.expand(event_shape).clone()
    except RuntimeError as error:
        raise ValueError(
            f"Got {name} of shape {tuple(numbers.shape)}; expected one that broadcasts to "
            f"the latent's shape {tuple(event_shape)}. Try one number for all."
        ) from error
    if not numbers.isfinite().all() or (positive and not (numbers > 0).all()):
        raise ValueError(
            f"Got {name}={numbers.tolist()}; expected {'positive ' * positive}finite numbers. "
            f"Try {name}={1.0 if positive else 0.0}."
        )
    return numbers


def described(name: str, event_shape: Size, values: Mapping[str, Tensor]) -> str:
    """Say what a prior is in one line; numbers that vary over the cells are left out.

    Example:
        >>> import torch
        >>> described("UniformBox", Size([2]), {"low": torch.zeros(2), "high": torch.arange(2)})
        'UniformBox(2, low=0, high=[…])'
    """
    shape = event_shape[0] if len(event_shape) == 1 else tuple(event_shape)
    shown = [
        f"{k}={float(v.flatten()[0]):g}" if bool((v == v.flatten()[0]).all()) else f"{k}=[…]"
        for k, v in values.items()
    ]
    return f"{name}({', '.join([str(shape), *shown])})"
