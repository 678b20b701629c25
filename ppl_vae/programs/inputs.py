"""Data on their way into a program: cast once, checked once."""

from __future__ import annotations

from typing import Any

from torch import nn

from ppl_vae.data.batches import Batch, as_batch
from ppl_vae.programs.modes import device_of, dtype_of
from ppl_vae.programs.vae import VAE


def program_batch(program: nn.Module, data: Any, *, name: str = "data") -> Batch:  # noqa: ANN401
    """Give data as what ``program.model(*args, **kwargs)`` takes, in its dtype and on its device.

    Raises:
        ValueError: If `program` is no program, or the data do not fit it.
    """
    if not isinstance(program, nn.Module) or not callable(getattr(program, "guide", None)):
        raise ValueError(
            f"Got a {type(program).__name__} as program; expected a VAE, or Program(model, guide) "
            "around two Pyro functions."
        )
    if isinstance(data, Batch):
        return data
    batch = as_batch(
        data,
        dtype=dtype_of(program),
        device=device_of(program),
        keep_tensors=not isinstance(program, VAE),
        name=name,
    )
    if isinstance(program, VAE):
        values = batch.tensors
        if len(values) != 1 or (batch.kwargs and "x" not in batch.kwargs):
            raise ValueError(
                f"Got {len(values)} arrays in {name}; a VAE takes one, its x. Try fit(program, x)."
            )
        program.check(values[0], name)
    return batch
