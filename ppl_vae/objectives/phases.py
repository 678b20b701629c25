"""What an objective is: phases, each a loss and the parameters that it moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import pyro
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from ppl_vae.data.batches import Batch
from ppl_vae.programs.program import of_functions
from ppl_vae.programs.traces import Structure

Parts = dict[str, Tensor]
"""Named parts of a loss, detached, summed over the batch (nats): the history divides the sum over
an epoch by the rows, or, of a part called ``a``, by that of ``a + PER`` where there is one."""

PER = " per"
"""Ends the name of what a part is divided by, in the place of the number of rows."""

Optimizer: TypeAlias = tuple[type[torch.optim.Optimizer], dict[str, Any]]
"""A torch optimizer class and its arguments."""

Schedule: TypeAlias = tuple[type[LRScheduler], dict[str, Any]]
"""A torch scheduler class and its arguments; stepped once an epoch."""


def over(parts: Parts, rows: Tensor | None) -> Parts:
    """Let the history give means of sums over the rows that count, where not all count once."""
    if rows is None:
        return parts
    return parts | {name + PER: rows.sum() for name in parts}


class ObjectiveState(nn.Module):
    """What an objective carries through training, checkpointed with it: the epoch, a critic.

    Attributes:
        found: What the program is made of.
        epoch: Epochs done, as a tensor and with fractions: schedules read it, so that it enters
            a compiled step as data.
    """

    epoch: Tensor

    def __init__(self, found: Structure) -> None:
        super().__init__()
        self.found = found
        held = next(iter(found.params.values()), torch.empty(0))
        self.register_buffer("epoch", held.new_zeros((), dtype=torch.float64))


@dataclass(frozen=True)
class Phase:
    """One update of a training step. One that is given twice, under one name, is taken twice.

    Attributes:
        name: What it is called in logs and checkpoints.
        loss: ``loss(state, *batch) -> (loss, parts)``: the loss summed over the batch.
        leaves: The parameters that it moves; None for those the program registers in the run.
        traceable: The same loss in tensor operations alone, where `loss` runs its own backward.
        counts: Whether its loss is part of the objective's: what the history calls ``loss``, and
            what is validated. A critic's is not.
        optimizer: Its own; None for one as `fit` was given, schedule included.
        schedule: Of its own optimizer.
    """

    name: str
    loss: Callable[..., tuple[Tensor, Parts]]
    leaves: Sequence[Tensor] | None = None
    traceable: Callable[..., tuple[Tensor, Parts]] | None = None
    counts: bool = True
    optimizer: Optimizer | None = None
    schedule: Schedule | None = None


class Objective(Protocol):
    """What `fit` minimises. Write one of your own by giving these three methods."""

    def init(self, program: nn.Module, batch: Batch) -> ObjectiveState:
        """Check that the objective suits the program, and build its state."""
        ...

    def phases(self, program: nn.Module, state: Any) -> tuple[Phase, ...]:
        """Give the updates of one step, in order."""
        ...

    def score(self, means: dict[str, float]) -> float | None:
        """Say how good validation means per datum are, higher better; None for no such score."""
        ...


def under_svi(
    objective: Any,
    model: Callable[..., Any],
    guide: Callable[..., Any],
    batch: Batch,  # noqa: ANN401
) -> tuple[nn.Module, Any]:
    """Give the program and the state that an objective keeps for a pair of functions under SVI.

    A critic whose parameters have left Pyro's store, for it was cleared, starts anew.
    """
    states = objective.__dict__.setdefault("_svi", {})
    stored = {id(p) for p in pyro.get_param_store()._params.values()}
    held = (model, guide) in states and all(
        id(p) in stored for p in states[model, guide][1].parameters()
    )
    if not held:
        program = of_functions(model, guide)
        states[model, guide] = program, objective.init(program, batch)
    kept: tuple[nn.Module, Any] = states[model, guide]
    return kept
