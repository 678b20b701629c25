"""One training step, as Pyro's SVI takes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from pyro import poutine
from pyro.infer.util import zero_grads
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.objectives.phases import ObjectiveState, Phase
from ppl_vae.training.blame import NonFiniteError, blame
from ppl_vae.training.updater import Updater


class StepInfo(NamedTuple):
    """What one step says: sums over the rows used, in nats.

    Attributes:
        loss: The loss of the phases that count.
        parts: Named parts of all phases.
        grad_norm: Global norm of the gradient of the per-datum mean, first phase, before clipping.
        rows: Rows used: those of the batch, unless a plate of the program subsamples them.
    """

    loss: float
    parts: dict[str, float]
    grad_norm: float
    rows: int


def counted(steps: int, compiled: int) -> str:
    """Say how many steps were taken, and how many of them compiled."""
    if not steps:
        return "0 steps"
    how = {0: "none", steps: "all"}.get(compiled, str(compiled))
    return f"{steps} steps, {how} compiled"


@dataclass(repr=False)
class TrainState:
    """Everything that the steps change.

    Attributes:
        program: Trained in place.
        objective_state: The critic and the clock.
        phases: The updates of one step.
        updaters: The optimiser of each phase.
        clip_norm: Largest norm of the per-datum gradient, or None.
        steps: Steps done.
        params: Unconstrained parameters seen so far, by Pyro's name.
        compiled: How many of them were taken by the compiled step.
    """

    program: nn.Module
    objective_state: ObjectiveState
    phases: tuple[Phase, ...]
    updaters: dict[str, Updater]
    clip_norm: float | None
    steps: int = 0
    params: dict[str, Tensor] = field(default_factory=dict)
    compiled: int = 0

    def __repr__(self) -> str:
        return f"TrainState({self.counted}, phases {[p.name for p in self.phases]})"

    @property
    def counted(self) -> str:
        """How many steps were taken, and how."""
        return counted(self.steps, self.compiled)

    @property
    def device(self) -> torch.device:
        """Where training runs."""
        return self.objective_state.epoch.device

    def tensors(self) -> dict[str, Tensor]:
        """Name every parameter and buffer of the program.

        Those of its modules go by their path; parameters that live only in Pyro's store by
        their name there.
        """
        owned = {id(p) for p in self.program.parameters()}
        named: dict[str, Tensor] = {f"parameter.{n}": p for n, p in self.program.named_parameters()}
        named |= {f"buffer.{n}": b for n, b in self.program.named_buffers()}
        return named | {f"store.{n}": p for n, p in self.params.items() if id(p) not in owned}

    def load(self, values: dict[str, Tensor]) -> None:
        """Write values into `tensors`, in place.

        Raises:
            ValueError: If names or shapes differ.
        """
        held = self.tensors()
        shapes = [{k: tuple(v.shape) for k, v in d.items()} for d in (held, values)]
        if shapes[0] != shapes[1]:
            odd = sorted(k for k in {**held, **values} if shapes[0].get(k) != shapes[1].get(k))
            raise ValueError(
                f"Got the state of another program: {odd[:3]} differ in name or shape. Expected "
                "the program that was saved. Try building it as it was then."
            )
        with torch.no_grad():
            for name, tensor in held.items():
                tensor.copy_(values[name])


def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, StepInfo]:
    """Run every phase once: loss and gradients under a param-only trace, then the optimiser.

    With one phase and no clipping this is `pyro.infer.SVI.step`, bit for bit.

    Raises:
        NonFiniteError: If a loss, a gradient or an updated parameter is not finite. Nothing of
            the step stays applied to the program.
    """
    infos: list[StepInfo] = []
    # A later phase may fail after an earlier one has moved the program.
    before = (
        [
            (t, t.detach().clone())
            for t in (*state.tensors().values(), *state.objective_state.parameters())
        ]
        if len(state.phases) > 1
        else []
    )
    found = state.objective_state.found
    rows, scale = found.seen(batch.rows), found.scale(batch.rows)
    for phase in state.phases:
        rng = torch.get_rng_state()
        buffers = [
            (b, b.clone()) for b in (*state.program.buffers(), *state.objective_state.buffers())
        ]
        try:
            with poutine.trace(param_only=True) as capture:
                loss, parts = phase.loss(state.objective_state, *batch.args, **batch.kwargs)
            seen = {n: s["value"].unconstrained() for n, s in capture.trace.nodes.items()}
            state.params.update(seen)
            leaves = list({id(p): p for p in phase.leaves or seen.values()}.values())
            if loss.requires_grad:
                loss.backward(inputs=leaves)
            gradients = [p.grad for p in leaves if p.grad is not None]
            norm = (
                torch.nn.utils.get_total_norm(gradients) / (rows * scale)
                if gradients
                else loss.new_zeros(())
            )
            fault = None
        except ValueError as error:  # Pyro's validation meets NaN parameters before the loss does
            fault, loss, norm = error, torch.full((), torch.nan), torch.zeros(())
            leaves = list(state.params.values())
        if not torch.isfinite(loss.detach() + norm).item():
            where = blame(state.program, batch, rng, state.params)
            with torch.no_grad():
                for tensor, value in (*buffers, *before):
                    tensor.copy_(value)
            zero_grads(leaves)
            if fault is not None and "finite when the step" in where:
                raise fault
            raise NonFiniteError(
                f"Step {state.steps + 1}, phase {phase.name!r}: got loss {loss.item():g}, a "
                f"gradient of norm {norm.item():g}; expected finite numbers. Where: {where}. "
                "The program keeps its last good state. Try a smaller learning rate, "
                "clip_norm=10, a larger min_scale, or rescaled data."
            ) from fault
        if state.clip_norm is not None and norm > state.clip_norm:
            for gradient in gradients:
                gradient.mul_(state.clip_norm / norm)
        old = [p.detach().clone() for p in leaves]
        state.updaters[phase.name].update(leaves)
        zero_grads(leaves)
        if left_the_finite(old, leaves):
            with torch.no_grad():
                for tensor, value in (*zip(leaves, old, strict=True), *buffers, *before):
                    tensor.copy_(value)
            raise NonFiniteError(
                f"Step {state.steps + 1}, phase {phase.name!r}: got parameters that are not finite "
                f"after the update, from a gradient of norm {norm.item():g}; expected finite "
                "numbers. The program keeps its last good state. Try a smaller learning rate, or "
                "clip_norm=10."
            )
        numbers = {k: float(v) for k, v in parts.items()}
        infos.append(StepInfo(loss.item() / scale, numbers, norm.item(), rows))
    state.steps += 1
    merged = {k: v for info in infos for k, v in info.parts.items()}
    total = sum(i.loss for p, i in zip(state.phases, infos, strict=True) if p.counts)
    return state, infos[0]._replace(loss=total, parts=merged)


def left_the_finite(old: list[Tensor], new: list[Tensor]) -> bool:
    """Whether an update made a finite number infinite or NaN."""
    # The largest absolute value, in one fused pass: a sum of squares may overflow.
    if not new or torch.nn.utils.get_total_norm(new, norm_type=torch.inf).isfinite():
        return False
    return any(bool((a.isfinite() & ~b.isfinite()).any()) for a, b in zip(old, new, strict=True))
