"""The silent failures of training, refused or said aloud before and after it."""

from __future__ import annotations

import math
import warnings
from itertools import count
from os import PathLike
from typing import Any, cast

import pyro
import torch
from torch import Tensor, nn

from ppl_vae.conditional import Conditional
from ppl_vae.data import resolution
from ppl_vae.data.batches import Batch
from ppl_vae.objectives import ObjectiveState
from ppl_vae.programs.modes import drawing
from ppl_vae.programs.program import Program, reachable
from ppl_vae.programs.traces import Structure
from ppl_vae.programs.vae import VAE


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
    _refuse_optimizer("optimizer", arguments["optimizer"], arguments["schedule"])
    _refuse_optimizer("critic_optimizer", getattr(arguments["objective"], "critic_optimizer", None))
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
    program: nn.Module, state: ObjectiveState, rows: int, batch_size: int
) -> None:
    """Refuse programs that would train nothing, or something else.

    Raises:
        ValueError: If no parameter is registered, a store name belongs to another parameter, or
            BatchNorm would meet a batch of one row.
    """
    found = state.found
    idle = _idle(program, found)
    if not found.params:
        raise ValueError(
            "Got a program that registers no trainable parameter with Pyro"
            f"{f' (its nets {idle} are there, unregistered)' if idle else ''}; expected some, or "
            'nothing would train. Try pyro.module("decoder", decoder) in the model, or a VAE, '
            "which registers its own."
        )
    if found.clashes:
        raise ValueError(
            f"Got other tensors under the names {list(found.clashes[:3])} in Pyro's store than the "
            "program's own; expected its own, or an earlier model of that name would be trained in "
            "its place. Try pyro.clear_param_store() before the program is first run, or another "
            "name in pyro.module."
        )
    if idle:
        warnings.warn(
            f"The nets {idle} have trainable parameters of which none is registered with Pyro: "
            f"they will not train. Try pyro.module({idle[0]!r}, {idle[0]}) in model or guide, or "
            f"{idle[0]}.requires_grad_(False) if they are meant to stay as they are.",
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


def warn_of_columns(found: Structure) -> None:
    """Warn where an ELBO has no parts per datum to log; of a Delta the objective warns itself."""
    if found.undefined is not None and not found.points:
        warnings.warn(
            f"{found.undefined[0].upper()}{found.undefined[1:]}: the history has no elbo and no kl "
            "column, only the loss and the reconstruction.",
            stacklevel=3,
        )


def warn_of_data(program: nn.Module, batch: Batch) -> None:
    """Warn of columns that a learned scale would fit without bound, or beyond their precision."""
    if not isinstance(program, VAE) or (floor := _floor(program)) is None:
        return
    x = batch.tensors[0]
    values = x.detach().cpu().double()
    finest = torch.as_tensor(resolution(values.numpy()))
    constant = finest.isinf()
    family = cast(Conditional, program.decoder).family
    shared = family.shared.get("scale")  # one scale for all cells does not shrink for one of them
    if constant.any() and not (shared is not None and shared.numel() < constant.numel()):
        warnings.warn(
            f"{_cells(constant)} of the data are constant: under a learned scale the likelihood "
            f"there grows until the scale meets its floor {floor:g}, and tells nothing. Try "
            "leaving such columns out, or a known scale.",
            stacklevel=3,
        )
    # A gap is a resolution where values repeat: real numbers have gaps too, but no ties.
    tied = (x.sort(dim=0).values.diff(dim=0) == 0).any(0).cpu()
    coarse = ~constant & tied & (finest > floor)
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
    with drawing(program, seed=0), pyro.validation_enabled(False):
        guide = program.posterior(x)  # sample() of a Normal raises where its scale is NaN
        z = guide.rsample() if guide.has_rsample else guide.sample()
        scale = program.decoder(z).stddev
    if not scale.isfinite().all():
        warnings.warn(
            "The last step left a program whose scales are not finite: training has diverged. Try "
            "a smaller learning rate, or clip_norm=10.",
            stacklevel=3,
        )
    stuck = scale.median(0).values < 1.05 * floor
    if stuck.any():
        warnings.warn(
            f"The learned scale sits on its floor {floor:g} at {_cells(stuck)} for half of the "
            "data or more: the likelihood there is what the floor makes it. Try a larger "
            "min_scale, or leaving the column out.",
            stacklevel=3,
        )


def _idle(program: nn.Module, found: Structure) -> list[str]:
    """Nets with trainable parameters that the program does not register, none of them."""
    registered = {id(p) for p in found.params.values()}
    nets = {}
    if isinstance(program, Program):
        nets = dict([*reachable(program.model), *reachable(program.guide)])
        known = {id(m) for m in nets.values()}
        nets |= {f"modules[{i}]": m for i, m in enumerate(program.parts) if id(m) not in known}
    idle = []
    for name, net in nets.items():
        trainable = [p for p in net.parameters() if p.requires_grad]
        is_program = hasattr(net, "guide")  # a program in a program is frozen on purpose
        if trainable and not is_program and not any(id(p) in registered for p in trainable):
            idle.append(name)
    return sorted(idle)


def _refuse_optimizer(name: str, spec: Any, schedule: Any = None) -> None:  # noqa: ANN401
    """Build both once on a parameter of no consequence: a fault shows before training."""
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
    usual = 'Try (torch.optim.lr_scheduler.ExponentialLR, {"gamma": 0.99}).'
    if isinstance(schedule, type) or len(schedule) != 2 or not isinstance(schedule[1], dict):
        raise ValueError(
            f"Got schedule={schedule!r}; expected a class and a dict of its arguments. {usual}"
        )
    kind, options = schedule
    shown = getattr(kind, "__name__", repr(kind))
    if kind is torch.optim.lr_scheduler.ReduceLROnPlateau:
        raise ValueError(
            f"Got schedule=({shown}, {options}); expected one that steps without a metric. {usual}"
        )
    try:
        kind(optimizer, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"Got schedule=({shown}, {options}), which cannot be built ({error}); expected a class "
            f"of torch.optim.lr_scheduler and its arguments. {usual}"
        ) from error


def _floor(program: VAE) -> float | None:
    decoder = program.decoder
    return decoder.family.min_scale if isinstance(decoder, Conditional) else None


def _cells(mask: Tensor) -> str:
    found = [tuple(i) if len(i) > 1 else i[0] for i in mask.nonzero().tolist()]
    shown = ", ".join(map(str, found[:5])) + (", …" if len(found) > 5 else "")
    return f"{len(found)} of {mask.numel()} cells ({shown})"
