"""Which plate of a program runs along the data."""

from __future__ import annotations

import torch
from pyro.poutine import Trace
from pyro.poutine.indep_messenger import CondIndepStackFrame
from torch import nn

from ppl_vae.data.batches import Batch
from ppl_vae.programs.runs import probe


def data_plate(
    program: nn.Module, batch: Batch, model: Trace, data: tuple[str, ...]
) -> tuple[CondIndepStackFrame | None, int | None, str | None]:
    """The data plate and the size of the data set it subsamples, or what is wrong with it."""
    common = _common_frames(model, data)
    named = getattr(program, "plate", None)
    if named is not None and named not in common:
        raise ValueError(
            f"Got plate={named!r}; expected a plate that holds every observed site. Try one of "
            f"{list(common)}."
        )
    fits = {
        n: f
        for n, f in common.items()
        if f.vectorized
        and (n == named if named is not None else batch.rows in (f.size, f.full_size))
    }
    # Plates of one size are told apart by a shorter batch: the data's follows it.
    rows, shorter = _with_fewer_rows(program, batch, data) or (batch.rows, common)
    if renamed := [n for n in fits if shorter.get(n) is None]:
        return (
            None,
            None,
            (
                f"the plate {renamed[0]!r} is not there in a batch of {rows} rows; its name must "
                'not change with the batch, as in pyro.plate("data", len(x))'
            ),
        )
    if named is None:
        fits = {n: f for n, f in fits.items() if rows in (shorter[n].size, shorter[n].full_size)}
    if len(fits) > 1:
        return (
            None,
            None,
            (
                f"the plates {list(fits)} both have the batch's size {batch.rows}; name the data's "
                "with Program(model, guide, plate=...)"
            ),
        )
    for name, frame in fits.items():
        full = shorter[name].full_size or shorter[name].size
        return frame, full if full != shorter[name].size else None, None
    if sequential := [n for n, f in common.items() if not f.vectorized]:
        return (
            None,
            None,
            f"the data plate {sequential} is sequential; write `with pyro.plate(...)`",
        )
    return None, None, f"no plate of the batch's size {batch.rows} holds every observed site"


def _common_frames(model: Trace, data: tuple[str, ...]) -> dict[str, CondIndepStackFrame]:
    stacks = [{f.name: f for f in model.nodes[n]["cond_indep_stack"]} for n in data]
    return {n: f for n, f in stacks[0].items() if all(n in s for s in stacks)}


def _with_fewer_rows(
    program: nn.Module, batch: Batch, data: tuple[str, ...]
) -> tuple[int, dict[str, CondIndepStackFrame]] | None:
    rows = min(batch.rows - 1, 2)
    if rows < 1:
        return None
    try:
        index = torch.arange(rows, device=batch.device)
        model, _ = probe(program, batch.take(index))
        return rows, _common_frames(model, data)
    except (RuntimeError, ValueError, IndexError, KeyError):
        return None  # a program of one batch size
