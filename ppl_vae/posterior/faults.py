"""Data that a fitted program cannot take: said in a sentence, not in a trace of shapes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import pyro
import torch
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn

from ppl_vae.data.batches import Batch, first_gap
from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.log_weights import ROWS
from ppl_vae.programs.modes import probing
from ppl_vae.programs.runs import Site, run
from ppl_vae.training.floors import tensors_of

F = TypeVar("F", bound=Callable[..., Any])
NUMERIC = ("Expected parameter", "Expected value argument", "log_weights: got", "Step ")


def explained(function: F) -> F:
    """Where a function of program and data meets NaN or infinity, name the site and the row."""

    @wraps(function)
    def explaining(program: nn.Module, x: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        try:
            return function(program, x, *args, **kwargs)
        except ValueError as error:
            if not str(error).startswith(NUMERIC) or not (where := _where(program, x)):
                raise
            hint = (
                "Are these data scaled as those of training were? Try the same standardising, with "
                "the mean and standard deviation of the training data."
            )
            if gap := _gap(program, x):
                hint = (
                    f"The data hold NaN or infinity, first in row {gap[1]} of argument {gap[0]!r}, "
                    "which model and guide have to fill and mask. Try the rows without them, "
                    "pyro.poutine.mask, or a VAE, which leaves missing cells out."
                )
            raise ValueError(
                f"Got numbers that are not finite, first at {where}; expected finite ones. {hint}"
            ) from None  # hundreds of lines of tensors and shapes

    return cast(F, explaining)


def _gap(program: nn.Module, x: Any) -> tuple[int | str, int, tuple[int, ...]] | None:  # noqa: ANN401
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return first_gap(program_batch(program, x, name="x"))


def _where(program: nn.Module, x: Any) -> str | None:  # noqa: ANN401
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        batch = program_batch(program, x, name="x")
        for rows in torch.arange(batch.rows, device=batch.device).split(ROWS):
            if fault := _first_fault(program, batch.take(rows)):
                side, name, row = fault
                return f"row {int(rows[row])}, site {name!r} of the {side}"
    return None


def _first_fault(program: nn.Module, batch: Batch) -> tuple[str, str, int] | None:
    with probing(program), pyro.validation_enabled(False):
        model, guide = run(program, batch)
        for side, trace in (("guide", guide), ("model", model)):
            for name, site in prune_subsample_sites(trace).nodes.items():
                if site["type"] == "sample" and (row := _first_row(site, batch.rows)) is not None:
                    return side, name, row
    return None


def _first_row(site: Site, rows: int) -> int | None:
    try:
        score: Tensor = site["fn"].log_prob(site["value"])
    except NotImplementedError:
        score = site["value"]
    if all(v.isfinite().all() for v in tensors_of(site["fn"])) and not score.isinf().any():
        return None  # a score of NaN is then a parameter out of its bounds, whatever the data
    # The data plate is the dim of the batch's size, wherever it is.
    at = [i for i in torch.nonzero(~score.isfinite())[:1].tolist() if rows in score.shape]
    return at[0][score.shape.index(rows)] if at else None
