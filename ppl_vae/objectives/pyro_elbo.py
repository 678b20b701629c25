"""Any of Pyro's own ELBOs as an objective."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pyro.infer
import torch
from pyro.infer import (
    ReweightedWakeSleep,
    Trace_ELBO,
    Trace_MMD,
    TraceEnum_ELBO,
    TraceMeanField_ELBO,
    TraceTMC_ELBO,
)
from pyro.infer.trace_tail_adaptive_elbo import TraceTailAdaptive_ELBO
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.objectives.phases import ObjectiveState, Parts, Phase
from ppl_vae.programs.traces import structure

_TRACEABLE = {Trace_ELBO.loss_and_grads, TraceMeanField_ELBO.loss_and_grads}


@dataclass(frozen=True)
class PyroELBO:
    """Wraps a `pyro.infer.ELBO`, such as TraceEnum_ELBO, RenyiELBO or TraceGraph_ELBO.

    `fit` wraps one by itself. Only the loss is known of a foreign estimator, so only the loss is
    logged. A fresh copy serves each fit: an instance remembers the first model it saw.

    Args:
        estimator: The estimator.

    Example:
        >>> PyroELBO(pyro.infer.TraceEnum_ELBO(max_plate_nesting=1)).score({"loss": 2.0})
        -2.0
    """

    estimator: pyro.infer.ELBO

    def init(self, program: nn.Module, batch: Batch) -> ObjectiveState:
        """Look at the program.

        Raises:
            ValueError: If the estimator is no bound that `fit` can descend, or does not sum out
                the sites that the program marks for it.
        """
        kind = type(self.estimator).__name__
        if isinstance(self.estimator, ReweightedWakeSleep | TraceTailAdaptive_ELBO):
            raise ValueError(
                f"Got {kind}, which has no single loss to descend; expected an estimator that "
                "does. Try pyro.infer.SVI with it, or objective=ELBO()."
            )
        found = structure(program, batch)
        if found.sampled_only and not isinstance(self.estimator, Trace_MMD):
            raise ValueError(
                f"Got a program without an ELBO under {kind}: {found.not_scored}; expected a prior "
                "and a guide with log_prob. Try objective=Adversarial(), which only draws."
            )
        if found.enumerated and not isinstance(self.estimator, TraceEnum_ELBO | TraceTMC_ELBO):
            raise ValueError(
                f"Got sites {list(found.enumerated)} marked for enumeration under {kind}, which "
                "samples them and leaves them out of its loss; expected an estimator that sums "
                "them out. Try objective=pyro.infer.TraceEnum_ELBO()."
            )
        return ObjectiveState(found)

    def phases(self, program: nn.Module, state: ObjectiveState) -> tuple[Phase, ...]:
        """One phase, by the estimator's own ``loss_and_grads``."""
        estimator = copy.deepcopy(self.estimator)

        def loss(state: ObjectiveState, *args: Tensor, **kwargs: Tensor) -> tuple[Tensor, Parts]:
            # Not every estimator has a differentiable loss; all of them run their own backward.
            method = estimator.loss_and_grads if torch.is_grad_enabled() else estimator.loss
            value = method(program.model, program.guide, *args, **kwargs)
            return torch.as_tensor(value, dtype=torch.float64).detach(), {}

        def traceable(
            state: ObjectiveState, *args: Tensor, **kwargs: Tensor
        ) -> tuple[Tensor, Parts]:
            # A subclass may descend another loss than the one that it would give here.
            if type(estimator).loss_and_grads not in _TRACEABLE:
                raise NotImplementedError(
                    f"{type(estimator).__name__} has a gradient of its own making, which is not "
                    "traced; Trace_ELBO and TraceMeanField_ELBO are"
                )
            return estimator.differentiable_loss(program.model, program.guide, *args, **kwargs), {}

        return (Phase(type(estimator).__name__, loss, traceable=traceable),)

    def score(self, means: dict[str, float]) -> float | None:
        """Minus the loss: the estimator's own bound."""
        return -means["loss"]
