"""Data on their way into a program: cast once, checked once."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

from torch import Size, Tensor, nn
from torch.distributions import constraints

from ppl_vae.data.batches import Batch, as_batch, columns_of, first_gap, refuse_other_columns
from ppl_vae.programs.modes import device_of, dtype_of
from ppl_vae.programs.parts import event_of, needs_of
from ppl_vae.programs.program import origin
from ppl_vae.programs.vae import VAE, family_of
from ppl_vae.programs.values import seen_values

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
    admit = getattr(program, "admit", None)  # it is for certain data alone
    if isinstance(data, Batch):
        return data if admit is None else admit(data, name)
    source = origin(program)
    refuse_other_columns(program.__dict__.get(COLUMNS, {}), columns_of(data), name)
    batch = as_batch(
        data,
        dtype=dtype_of(program),
        device=device_of(program),
        keep_tensors=not isinstance(source, VAE),
        name=name,
    )
    if isinstance(source, VAE):
        batch = _for_vae(source, batch, columns_of(data), name)
    else:
        if (gap := first_gap(batch)) is not None:
            argument, row, cell = gap
            warnings.warn(
                f"Got NaN or infinity in {name}, argument {argument!r}, first in row {row}"
                f"{f', cell {cell}' if cell else ''}; a program of your own must fill and mask "
                "them itself, or its gradients become NaN. Try pyro.poutine.mask where they are, "
                "or a VAE, which leaves missing cells out.",
                stacklevel=3,
            )
    if admit is not None:
        batch = admit(batch, name)
    for role in ("model", "guide"):
        _must_take(getattr(program, role), role, batch, name)
    return batch


def columns_of_training(program: nn.Module) -> tuple[str, ...]:
    """Give the names of the columns of x, where a family or a DataFrame has told them."""
    family = family_of(program) if isinstance(program, VAE) else None
    if family is not None and family.column_names:
        return tuple(family.column_names)
    known: dict[str, tuple[str, ...]] = program.__dict__.get(COLUMNS, {})
    return tuple(known.get("x", ()))


def _for_vae(program: VAE, batch: Batch, columns: dict[str, tuple[str, ...]], name: str) -> Batch:
    """Give x, the mask of what is seen of it, and the covariates."""
    program.check_parts()  # a part may have been exchanged since
    covariates = program.covariates
    values = batch.kwargs or {"x" if k == 0 else f"[{k}]": v for k, v in enumerate(batch.args)}
    odd = [k for k in values if k not in ("x", "mask", *covariates)]
    lost = [k for k in ("x", *covariates) if k not in values]
    if odd or lost:
        expected = ", ".join(f"{k!r}: {k}" for k in ("x", *covariates))
        raise ValueError(
            f"Got {list(values) if batch.kwargs else f'{len(values)} array(s)'} in {name}; "
            f"expected {'x and ' + ', '.join(covariates) if covariates else 'one array: x alone'}, "
            f"what the parts of this program name, and a mask at will. Try "
            f"{'{' + expected + '}' if covariates else 'fit(program, x)'}."
        )
    names = columns.get("x", ())
    if "mask" in columns and names and columns["mask"] != names:
        raise ValueError(
            f"Got the columns {list(columns['mask'])[:6]} in the mask and {list(names)[:6]} in x; "
            "expected the same, in the same order. Try mask[x.columns]."
        )
    family = family_of(program)
    if family is not None and family.column_names and names:
        refuse_other_columns({"x": family.column_names}, {"x": names}, name, "the likelihood")
    shown, values = "x" if batch.kwargs else name, dict(values)
    x, seen = seen_values(program.decoder, values.pop("x"), values.pop("mask", None), shown, names)
    if seen is not None and any(
        getattr(m, "sees_gaps", True) is False for m in program.encoder.modules()
    ):
        raise ValueError(
            f"Got missing cells in {shown} under an encoder whose Features know of none; expected "
            'the mask. Try Features(net, family, mask=True), given={"x": ..., "mask": ...}.'
        )
    for key, shape in covariates.items():
        value = values[key]
        if shape is not None and value.shape[1:] != shape:
            raise ValueError(
                f"Got the covariate {key!r} of shape {tuple(value.shape)}; expected (N, "
                f"{', '.join(map(str, shape))}), as given= says. Try "
                f"{key}.reshape(-1, {', '.join(map(str, shape))})."
            )
        if not value.isfinite().all():
            raise ValueError(
                f"Got NaN or infinity in the covariate {key!r}; expected finite numbers: only "
                "cells of x may be missing. Try imputing it, or modelling it as part of x."
            )
    for role, part in (("decoder", program.decoder), ("encoder", program.encoder)):
        for key, support in needs_of(part).items():
            _check_need(key, values[key], support, event_of(part, role))
    # In one order, whatever that of the dict: guides that are fitted afresh go by it.
    named = {key: values[key] for key in covariates}
    return Batch((x,), named if seen is None else {"mask": seen, **named})


def _check_need(key: str, value: Tensor, support: constraints.Constraint, event: Size) -> None:
    """Check what a distribution takes past the network: it broadcasts, and would by mistake too."""
    shape = value.shape[1:]
    fits = len(shape) == len(event) and all(a in (1, b) for a, b in zip(shape, event, strict=True))
    if not fits:
        raise ValueError(
            f"Got the covariate {key!r} of shape {tuple(value.shape)}; expected (N, "
            f"{', '.join(map(str, event))}), or 1 in place of any of these. Try "
            f"{key}.reshape{(-1, *[1] * len(event))}, one number for each datum."
        )
    what = "positive numbers" if support is constraints.positive else f"values in {support}"
    inside = support.check(value)
    if not inside.all():
        raise ValueError(
            f"Got {value[~inside][0].item():g} in the covariate {key!r}; expected {what}. Try "
            "leaving out rows without any."
        )


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
