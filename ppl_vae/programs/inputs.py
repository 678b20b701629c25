"""Data on their way into a program: cast once, checked once."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

from torch import nn

from ppl_vae.data.batches import Batch, as_batch, refuse_other_columns
from ppl_vae.programs.modes import device_of, dtype_of
from ppl_vae.programs.vae import VAE

COLUMNS = "_columns_of_training"  # by argument, where a fit was given a DataFrame


def program_batch(program: nn.Module, data: Any, *, name: str = "data") -> Batch:  # noqa: ANN401
    """Give data as what ``program.model(*args, **kwargs)`` takes, in its dtype and on its device.

    Raises:
        ValueError: If `program` is no program, or the data do not fit it.
    """
    if not isinstance(program, nn.Module) or not callable(getattr(program, "guide", None)):
        raise ValueError(
            f"Got a {type(program).__name__} as program; expected a VAE or a Program. "
            "Try Program(model, guide) around two Pyro functions."
        )
    if isinstance(data, Batch):
        return data
    refuse_other_columns(program.__dict__.get(COLUMNS, {}), data, name)
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
                f"Got {list(batch.kwargs) if batch.kwargs else f'{len(values)} arrays'} in {name}; "
                "expected one array: a VAE's model takes x alone. Try fit(program, x)."
            )
        program.check(values[0], name)
    else:
        named = [*enumerate(batch.args), *batch.kwargs.items()]
        if missing := [k for k, v in named if not v.isfinite().all()]:
            warnings.warn(
                f"Got NaN or infinity in {name}, argument {missing[0]!r}; a program of your own "
                "must fill and mask them itself, or its gradients become NaN.",
                stacklevel=3,
            )
    for role in ("model", "guide"):
        _must_take(getattr(program, role), role, batch, name)
    return batch


def _must_take(function: Any, role: str, batch: Batch, name: str) -> None:  # noqa: ANN401
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C: it will say itself
        return
    try:
        signature.bind(*batch.args, **batch.kwargs)
    except TypeError as error:
        got = list(batch.kwargs) if batch.kwargs else f"{len(batch.args)} array(s)"
        raise ValueError(
            f"Got {got} in {name}; expected what the {role}{signature} takes ({error}). Try a "
            "tuple for several arguments, or a dict of them by name."
        ) from error
