"""The silent failures of training, refused or said aloud before and after it."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from ppl_vae.conditional import Conditional
from ppl_vae.data import resolution
from ppl_vae.data.batches import Batch
from ppl_vae.programs.modes import drawing
from ppl_vae.programs.traces import Structure
from ppl_vae.programs.vae import VAE


def refuse_bad_arguments(batch: Batch, arguments: dict[str, Any]) -> None:
    """Refuse arguments of `fit` that mean nothing.

    Raises:
        ValueError: Got, expected, try.
    """
    for name in ("epochs", "batch_size", "patience"):
        value = arguments[name]
        if value is None and name == "patience":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"Got {name}={value!r}; expected a positive integer.")
    clip = arguments["clip_norm"]
    if clip is not None and not (isinstance(clip, int | float) and 0 < clip < math.inf):
        raise ValueError(f"Got clip_norm={clip!r}; expected a positive number or None.")
    if arguments["patience"] is not None and arguments["validation"] is None:
        raise ValueError(
            f"Got patience={arguments['patience']} without validation; expected data to judge by. "
            "Try validation=0.1."
        )
    if batch.rows < 2:
        raise ValueError(f"Got {batch.rows} row to train on; expected at least 2 data.")


def refuse_unfit_program(program: nn.Module, found: Structure, rows: int, batch_size: int) -> None:
    """Refuse programs that would train nothing, or something else.

    Raises:
        ValueError: If no parameter is registered, a store name belongs to another parameter, or
            BatchNorm would meet a batch of one row.
    """
    if not found.params:
        idle = sum(p.numel() for p in program.parameters() if p.requires_grad)
        raise ValueError(
            f"The program registers no trainable parameter with Pyro: nothing would train"
            f"{f' ({idle} parameters are there but unregistered)' if idle else ''}; expected some. "
            'Try pyro.module("decoder", decoder) in the model, or a VAE, which registers its own.'
        )
    if found.clashes:
        raise ValueError(
            f"Pyro's store holds other tensors under the names {list(found.clashes[:3])} than the "
            "program's own: an earlier model of that name would be trained instead. Try "
            "pyro.clear_param_store() before building the program, or another name in pyro.module."
        )
    normed = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in program.modules())
    if normed and (rows % batch_size == 1 or batch_size == 1):
        raise ValueError(
            f"Got {rows} rows in batches of {batch_size}: one batch has a single row, of which "
            f"BatchNorm knows no variance. Try batch_size={batch_size + 1}."
        )


def warn_of_data(program: nn.Module, batch: Batch) -> None:
    """Warn of columns that a learned scale would fit without bound, and of missing values."""
    if not isinstance(program, VAE):
        bad = [i for i, v in enumerate(batch.tensors) if _missing(v)]
        if bad:
            warnings.warn(
                f"The data hold NaN or infinity in argument {bad}; a program of your own must fill "
                "and mask them itself, or its gradients become NaN.",
                stacklevel=3,
            )
        return
    floor = _floor(program)
    if floor is None:
        return
    x = batch.tensors[0]
    finest = torch.as_tensor(resolution(x.detach().cpu().double().numpy()))
    constant = finest.isinf()
    if constant.any():
        warnings.warn(
            f"{_cells(constant)} of the data constant: under a learned scale the likelihood "
            f"there grows until the scale meets its floor {floor:g}, and tells nothing. Try "
            "leaving such columns out, or a known scale.",
            stacklevel=3,
        )
    coarse = ~constant & (finest > floor)
    # Half the gap of a few close draws says nothing; a grid shows in many columns or values.
    if coarse.any():
        warnings.warn(
            f"The floor {floor:g} of the learned scale is below the resolution of the data "
            f"(half the smallest gap is {finest[coarse].min():g} or more at {_cells(coarse)}): the "
            f"likelihood may claim more precision than they have. Try min_scale="
            f"{finest[coarse].median():g}.",
            stacklevel=3,
        )


def warn_of_floor(program: nn.Module, batch: Batch) -> None:
    """Warn, after training, of cells whose predicted scale sits on its floor."""
    if not isinstance(program, VAE) or (floor := _floor(program)) is None:
        return
    x = batch.tensors[0][:512]
    with drawing(program, seed=0):
        scale = program.decoder(program.posterior(x).sample()).stddev
    stuck = scale.median(0).values < 1.05 * floor
    if stuck.any():
        warnings.warn(
            f"The learned scale sits on its floor {floor:g} at {_cells(stuck)} for half of the "
            "data or more: the likelihood there is what the floor makes it. Try a larger min_scale or "
            "leave the column out.",
            stacklevel=3,
        )


def _floor(program: VAE) -> float | None:
    decoder = program.decoder
    return decoder.family.min_scale if isinstance(decoder, Conditional) else None


def _missing(value: Tensor) -> bool:
    return not bool(value.isfinite().all())


def _cells(mask: Tensor) -> str:
    found = [tuple(i) if len(i) > 1 else i[0] for i in mask.nonzero().tolist()]
    shown = ", ".join(map(str, found[:5])) + (", …" if len(found) > 5 else "")
    return f"{len(found)} of {mask.numel()} cells ({shown})"
