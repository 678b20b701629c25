"""A training step compiled whole: what Python decides once is traced, and never decided again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.objectives.phases import ObjectiveState, Phase
from ppl_vae.programs.modes import buffers_kept, device_of, forked_rng, noise_kept
from ppl_vae.training.frozen import changes, snapshot
from ppl_vae.training.inductor import Graph, compiled, interpreted, trace
from ppl_vae.training.step import StepInfo, TrainState, left_the_finite, train_step

T = TypeVar("T")
SHAPES = 8  # of batches; each is traced once
CHECKS = frozenset(10**k for k in range(10))  # steps at which eager and compiled are compared
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-9}  # clean programs: 2e-7 and 4e-16


class CannotCompile(ValueError):
    """A program whose compiled step would not be the program."""


class Evaluation(NamedTuple):
    """A phase at a batch: ``(loss, norm, *parts)`` and the gradients of the leaves."""

    numbers: list[float]
    gradients: Sequence[Tensor]


class CompiledLoss:
    """One phase as a graph, for batches of one shape.

    Args:
        program: In the mode that it trains in.
        phase: What to evaluate.
        state: The objective's state.
        leaves: The parameters that the phase may move.
        batch: A batch of that shape.
    """

    def __init__(
        self,
        program: nn.Module,
        phase: Phase,
        state: ObjectiveState,
        leaves: Sequence[Tensor],
        batch: Batch,
    ) -> None:
        self.program, self.phase, self.state, self.example = program, phase, state, batch
        self.per_datum = 1 / (state.found.seen(batch.rows) * state.found.scale(batch.rows))
        self.candidates = list(leaves)
        self.leaves: list[Tensor] = []  # those that a gradient reaches
        self.names: tuple[str, ...] = ()
        self.graph = self.trace()
        self.function = interpreted(self.graph)

    def compile(self) -> None:
        """Run by inductor from now on.

        Raises:
            CannotCompile: If tracing again gives another graph.
        """
        # A counter in a closure, a clock, an iterator show by this.
        if not all(self.graph.same_as(self.trace()) for _ in range(2)):
            raise CannotCompile(
                "model or guide do not do the same at every run (a clock, an iterator, a choice "
                "that Python makes)"
            )
        self.function = compiled(self.graph, self.example.tensors)

    def __call__(self, batch: Batch) -> Evaluation:
        """Run the graph."""
        numbers, *gradients = self.function(*batch.tensors)
        return Evaluation(numbers.tolist(), gradients)

    def eager(self, batch: Batch) -> Evaluation:
        """Run the program itself, and leave buffers and noise as found."""
        with self._undone():
            numbers, *gradients = self._evaluate(*batch.tensors)
        return Evaluation(numbers.tolist(), gradients)

    def trace(self) -> Graph:
        """Trace the phase, and leave buffers and noise as found."""
        with self._undone():
            return trace(self._evaluate, self.example.tensors)

    def _undone(self) -> ExitStack:
        stack = ExitStack()
        for module in (self.program, self.state):
            stack.enter_context(buffers_kept(module))
        stack.enter_context(forked_rng(device_of(self.program)))
        return stack

    def _evaluate(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        count = len(self.example.args)
        named = dict(zip(self.example.kwargs, tensors[count:], strict=True))
        loss, parts = (self.phase.traceable or self.phase.loss)(
            self.state, *tensors[:count], **named
        )
        found = torch.autograd.grad(loss, self.candidates, allow_unused=True)
        moved = [(p, g) for p, g in zip(self.candidates, found, strict=True) if g is not None]
        self.leaves, gradients = [p for p, _ in moved], [g for _, g in moved]
        norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt() * self.per_datum
        self.names = tuple(parts)
        numbers = [v.detach().double() for v in (loss, norm, *parts.values())]
        return torch.stack(numbers), *gradients


class CompiledStep:
    """`train_step`, compiled for batches of the shape of one.

    Args:
        state: After a first step, so that every parameter and optimiser is there.
        batch: A batch of the shape. Others run as a graph, without the compiler.
        roots: What may hold Python state: program and objective.

    Raises:
        CannotCompile: If the compiled step would not be the program.
    """

    def __init__(self, state: TrainState, batch: Batch, roots: Sequence[object]) -> None:
        self.roots = roots
        before = snapshot(*roots)
        losses = self._losses(state, batch)
        self.base = snapshot(*roots)
        if moved := changes(before, self.base):
            shown = "; ".join(moved[:3])
            raise CannotCompile(f"Python state changes as it runs ({shown})")
        for loss in losses:
            _or_cannot(loss.compile)
        self.first = losses
        self.losses = {_shapes(batch): losses}
        # What a step may change before it turns out bad: all, where one phase follows another.
        alone = len(state.phases) == 1
        kept = state.program.buffers() if alone else state.tensors().values()
        self.kept = [t.detach() for t in kept]
        self.updates = [
            state.updaters[loss.phase.name].by_gradients(loss.leaves) for loss in losses
        ]

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, StepInfo]:
        """Take a step; a bad one is undone and taken again eagerly, which says what is wrong.

        Raises:
            CannotCompile: If the graph is not the program any more; the step is undone.
        """
        if any(loss.graph.moved for loss in self.first):
            raise CannotCompile("the program has been moved: its tensors lie elsewhere in memory")
        shapes = _shapes(batch)
        if shapes not in self.losses:
            if len(self.losses) > SHAPES:
                return train_step(state, batch)
            self.losses[shapes] = self._of_another_shape(state, batch)
        rewind = noise_kept(batch.device)
        before = [(t, t.clone()) for t in self.kept]
        found = state.objective_state.found
        rows, scale = found.seen(batch.rows), found.scale(batch.rows)
        parts: dict[str, float] = {}
        first: StepInfo | None = None
        for loss, update in zip(self.losses[shapes], self.updates, strict=True):
            truth = loss.eager(batch) if state.steps in CHECKS else None
            numbers, gradients = loss(batch)
            value, norm, *rest = numbers
            wrong = truth is not None and not _agree(truth, numbers, gradients)
            bad = wrong or not math.isfinite(value + norm)
            if not bad:
                careful = update.may_overflow(norm / loss.per_datum)
                old = [p.detach().clone() for p in loss.leaves] if careful else []
                update(gradients, norm, state.clip_norm)
                if careful and left_the_finite(old, loss.leaves):
                    bad, before = True, [*before, *zip(loss.leaves, old, strict=True)]
            if bad:
                rewind()
                with torch.no_grad():
                    for tensor, kept in before:
                        tensor.copy_(kept)
                if truth is not None and wrong:
                    raise CannotCompile(
                        f"the compiled step gave the loss {value:.9g} at step {state.steps + 1} "
                        f"where the program itself gave {truth.numbers[0]:.9g}; steps since the "
                        "last comparison may be wrong"
                    )
                return train_step(state, batch)
            parts.update(zip(loss.names, rest, strict=True))
            first = first or StepInfo(value / scale, parts, norm, rows)
        state.steps += 1
        return state, cast(StepInfo, first)

    def tidy(self) -> None:
        """Keep denormal numbers out of the optimisers' state."""
        for update in self.updates:
            update.flush()

    def changed(self) -> list[str]:
        """Name the Python values that are no longer what they were when the step was traced."""
        return changes(self.base, snapshot(*self.roots))

    def _of_another_shape(self, state: TrainState, batch: Batch) -> list[CompiledLoss]:
        losses = self._losses(state, batch)
        for one, other in zip(losses, self.first, strict=True):  # whose leaves the updates know
            if [id(p) for p in one.leaves] != [id(p) for p in other.leaves]:
                raise CannotCompile("batches of another shape move other parameters")
        return losses

    def _losses(self, state: TrainState, batch: Batch) -> list[CompiledLoss]:
        def build(phase: Phase) -> CompiledLoss:
            leaves = list(phase.leaves or state.params.values())
            return CompiledLoss(state.program, phase, state.objective_state, leaves, batch)

        return [_or_cannot(build, phase) for phase in state.phases]


def _shapes(batch: Batch) -> tuple[object, ...]:
    return tuple((*t.shape, t.dtype) for t in batch.tensors)


def _or_cannot(function: Callable[..., T], *arguments: object) -> T:
    try:
        return function(*arguments)
    except CannotCompile:
        raise
    except Exception as error:  # torch raises what it likes
        first = str(error).strip().split("\n")[0]
        raise CannotCompile(f"{type(error).__name__}: {first}") from error


def _agree(truth: Evaluation, numbers: Sequence[float], gradients: Sequence[Tensor]) -> bool:
    tolerance = TOLERANCE.get(gradients[0].dtype, 1e-2)
    size = max(abs(v) for v in (*truth.numbers[:1], *truth.numbers[2:]))
    close = all(
        abs(a - b) <= tolerance * size
        for k, (a, b) in enumerate(zip(truth.numbers, numbers, strict=True))
        if k != 1
    )
    return close and all(
        bool((a - b).abs().max() <= 100 * tolerance * a.abs().max() + 1e-30)
        for a, b in zip(truth.gradients, gradients, strict=True)
    )
