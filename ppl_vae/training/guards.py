"""The silent failures of training, refused or said aloud before and after it."""

from __future__ import annotations

import math
import warnings
from itertools import count
from os import PathLike
from typing import Any

import torch
from pyro.infer.autoguide import AutoGuide
from pyro.optim.lr_scheduler import PyroLRScheduler
from torch import nn

from ppl_vae.data.batches import Batch
from ppl_vae.objectives import ObjectiveState
from ppl_vae.programs.memory import also_trained_by_others
from ppl_vae.programs.traces import Structure
from ppl_vae.training.unregistered import unregistered


def refuse_bad_arguments(batch: Batch, arguments: dict[str, Any]) -> None:
    """Refuse arguments of `fit` that mean nothing.

    Raises:
        ValueError: Got, expected, try.
    """
    for name, usual in {"epochs": 100, "batch_size": 128, "patience": 10}.items():
        value = arguments[name]
        if value is None and name == "patience":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(
                f"Got {name}={value!r}; expected a positive integer. Try {name}={usual}."
            )
    clip = arguments["clip_norm"]
    number = isinstance(clip, int | float) and not isinstance(clip, bool)
    if clip is not None and not (number and 0 < clip < math.inf):
        raise ValueError(
            f"Got clip_norm={clip!r}; expected a positive number or None. Try clip_norm=10.0."
        )
    seed = arguments["seed"]
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise ValueError(f"Got seed={seed!r}; expected an integer or None. Try seed=0.")
    if not isinstance(arguments["checkpoint"], str | PathLike | None):
        raise ValueError(
            f"Got checkpoint={arguments['checkpoint']!r}; expected the path of a file, or None. "
            'Try checkpoint="run.safetensors".'
        )
    share = arguments["validation"]
    if isinstance(share, int | float) and not (0 < share < 1):  # also True, False and NaN
        raise ValueError(
            f"Got validation={share!r}; expected a fraction between 0 and 1, or data. "
            "Try validation=0.1."
        )
    refuse_optimizer("optimizer", arguments["optimizer"], arguments["schedule"])
    if arguments["patience"] is not None and arguments["validation"] is None:
        raise ValueError(
            f"Got patience={arguments['patience']} without validation; expected data to judge by. "
            "Try validation=0.1."
        )
    if batch.rows < 2:
        raise ValueError(
            f"Got {batch.rows} row to train on; expected at least 2 data. Try x of shape (N, ...): "
            "one row is one datum."
        )


def refuse_unfit_program(
    program: nn.Module, state: ObjectiveState, head: Batch, rows: int, batch_size: int
) -> None:
    """Refuse programs that would train nothing, or something else.

    Raises:
        ValueError: If no parameter is registered, the guide is one of rows, or BatchNorm would
            meet a batch of one row.
    """
    found = state.found
    idle = unregistered(program, head)
    if not found.params:
        raise ValueError(
            "Got a program that registers no trainable parameter with Pyro"
            f"{f' ({idle} are there, unregistered)' if idle else ''}; expected some, or "
            'nothing would train. Try pyro.module("decoder", decoder) in the model, or a VAE, '
            "which registers its own."
        )
    guide = getattr(program, "guide", None)
    own = [n for n in found.latents if n not in found.shared]
    if isinstance(guide, AutoGuide) and own:
        raise ValueError(
            f"Got {type(guide).__name__} as guide, which keeps parameters for each row of the "
            f"first batch it meets (at {own}); expected a guide that computes them from x, for "
            "fit shuffles the rows. Try a network of x in the guide, or VAE(prior, decoder, "
            "encoder)."
        )
    if found.shared and found.full_size is None and batch_size < rows:
        warnings.warn(
            f"The latents {list(found.shared)} are shared by all data, and each batch of "
            f"{batch_size} is weighed as if it were all {rows}: their posterior comes out about "
            f"{(rows / batch_size) ** 0.5:.2g} times too wide. Try pyro.plate(name, {rows}, "
            f"subsample=x) for the data, which scales the batch up, or batch_size={rows}.",
            stacklevel=3,
        )
    if idle:
        warnings.warn(
            f"The program draws or scores with tensors that ask for gradients and are not "
            f"registered with Pyro: {idle}. They will not train. Try pyro.module(name, net) or "
            "pyro.param in model or guide, or requires_grad_(False) if they are meant to stay.",
            stacklevel=3,
        )
    if others := also_trained_by_others(program, found.params):
        warnings.warn(
            f"The parameters {others[:3]} of Pyro's store were trained by another program before: "
            "this fit goes on from there, and changes that program too. Where this is not meant, "
            "try other names in pyro.param, or pyro.get_param_store().scope().",
            stacklevel=3,
        )
    nets = (*program.modules(), *state.modules())  # the critic's too
    normed = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in nets)
    if normed and (rows % batch_size == 1 or batch_size == 1):
        other = next(b for b in count(batch_size + 1) if rows % b != 1)
        raise ValueError(
            f"Got {rows} rows in batches of {batch_size}, so that one batch has a single row; "
            "expected two or more in each: BatchNorm knows no variance of one row. "
            f"Try batch_size={other}."
        )


def refuse_short_batch(found: Structure, rows: int, batch_size: int, name: str) -> None:
    """Refuse a last batch of fewer rows than a plate of the program picks.

    Raises:
        ValueError: If there is one.
    """
    if 0 < (last := rows % batch_size) < (found.subsample_size or 0):
        raise ValueError(
            f"Got {rows} rows of {name} in batches of {batch_size}, of which the last has {last}, "
            f"where the data plate {found.plate!r} picks {found.subsample_size}; expected as many "
            f"or more in each. Try {rows - last} rows, another batch_size, or a plate of the size "
            "len(x)."
        )


def warn_of_columns(found: Structure) -> None:
    """Warn where an ELBO has no parts per datum to log; of a Delta the objective warns itself."""
    if found.undefined is not None and not found.points:
        warnings.warn(
            f"{found.undefined[0].upper()}{found.undefined[1:]}: the history has no elbo and no kl "
            "column, only the loss and the reconstruction.",
            stacklevel=3,
        )


def refuse_optimizer(name: str, spec: Any, schedule: Any = None) -> None:  # noqa: ANN401
    """Build both once on a parameter of no consequence: a fault shows before training.

    Raises:
        ValueError: If they cannot be built.
    """
    if isinstance(spec, PyroLRScheduler):
        raise ValueError(
            f"Got the scheduler {type(spec).__name__} as {name}; expected an optimizer, for a "
            "scheduler of Pyro's is stepped by whoever owns the loop. Try (torch.optim.Adam, "
            "{'lr': 1e-3}) with schedule=(torch.optim.lr_scheduler.ExponentialLR, {'gamma': 0.99})."
        )
    if not isinstance(spec, tuple) or len(spec) != 2 or not isinstance(spec[1], dict):
        return  # None, a PyroOptim, or a form that the updater refuses
    kind, options = spec
    shown = getattr(kind, "__name__", repr(kind))
    try:
        optimizer = kind([nn.Parameter(torch.zeros(1))], **options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"Got {name}=({shown}, {options}), which cannot be built ({error}); expected a class "
            'of torch.optim and its arguments. Try (torch.optim.Adam, {"lr": 1e-3}).'
        ) from error
    if not isinstance(optimizer, torch.optim.Optimizer) or isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError(
            f"Got {name}=({shown}, {options}); expected a torch optimizer that steps on gradients "
            'alone. Try (torch.optim.Adam, {"lr": 1e-3}).'
        )
    if not isinstance(schedule, tuple | type):
        return
    name = name.replace("optimizer", "schedule")  # of the phase's own optimizer
    usual = 'Try (torch.optim.lr_scheduler.ExponentialLR, {"gamma": 0.99}).'
    if isinstance(schedule, type) or len(schedule) != 2 or not isinstance(schedule[1], dict):
        raise ValueError(
            f"Got {name}={schedule!r}; expected a class and a dict of its arguments. {usual}"
        )
    kind, options = schedule
    shown = getattr(kind, "__name__", repr(kind))
    if kind is torch.optim.lr_scheduler.ReduceLROnPlateau:
        raise ValueError(
            f"Got {name}=({shown}, {options}); expected one that steps without a metric. {usual}"
        )
    try:
        kind(optimizer, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"Got {name}=({shown}, {options}), which cannot be built ({error}); expected a class "
            f"of torch.optim.lr_scheduler and its arguments. {usual}"
        ) from error
