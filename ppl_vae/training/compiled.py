"""A training step compiled whole: what Python decides once is traced, and never decided again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from operator import is_
from typing import NamedTuple, TypeVar

import pyro
import torch
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.objectives.phases import ObjectiveState, Phase
from ppl_vae.programs.modes import buffers_kept, device_of, forked_rng, noise_kept
from ppl_vae.training.frozen import Watch
from ppl_vae.training.inductor import Graph, compiled, has_hook, interpreted, reason, trace
from ppl_vae.training.step import StepInfo, TrainState, left_the_finite, train_step
from ppl_vae.training.warned import warn

T = TypeVar("T")
SHAPES = 8  # of batches; each is traced once
CHECKS = {1, 10, 100}  # steps at which eager and compiled are compared,
OFTEN = 1000  # and every so many
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-9}  # clean programs: 2e-7 and 4e-16

OPERATIONS = 6000  # a spline flow as guide has 3300, and is slow enough to compile


class CannotCompile(ValueError):
    """A program whose compiled step would not be the program."""


@contextmanager
def undone(watch: Watch, device: torch.device, *modules: nn.Module) -> Iterator[None]:
    """Run a program and leave everything as found: buffers, random state, Python state.

    Raises:
        CannotCompile: If Python state changed, which a graph would not do.
    """
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(buffers_kept(module))
        stack.enter_context(forked_rng(device))
        watch.begin()
        try:
            yield
        finally:
            moved = watch.changes(generators=True)
            if moved:
                watch.rewind()
        if moved:
            raise CannotCompile(f"Python state changes as it runs ({'; '.join(moved[:3])})")


def must_repeat(graph: Graph, again: Graph) -> None:
    """Refuse a program that is another graph on other rows.

    Raises:
        CannotCompile: If it is.
    """
    if not graph.same_as(again):
        raise CannotCompile(
            "model or guide do not do the same at every run (a clock, or a decision that "
            "Python takes on the data)"
        )


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
        watch: The Python state that a run must leave as it is.

    Raises:
        CannotCompile: If it does not.
    """

    def __init__(
        self,
        program: nn.Module,
        phase: Phase,
        state: ObjectiveState,
        leaves: Sequence[Tensor],
        batch: Batch,
        watch: Watch,
    ) -> None:
        self.program, self.phase, self.state, self.example = program, phase, state, batch
        self.watch = watch
        self.per_datum = 1 / (state.found.seen(batch.rows) * state.found.scale(batch.rows))
        self.candidates = list({id(p): p for p in leaves}.values())
        if any(map(has_hook, self.candidates)):
            raise CannotCompile("a parameter has a hook that is called when it has its gradient")
        self.reached: list[int] = []  # candidates that a gradient reaches, as last evaluated
        self.names: tuple[str, ...] = ()
        self.taken = 0  # evaluations
        self.graph = self.trace(batch.tensors)
        self.leaves = [self.candidates[k] for k in self.reached]
        self.function = interpreted(self.graph)

    def compile(self) -> None:
        """Run by inductor from now on.

        Raises:
            CannotCompile: If it is too large, or tracing again gives another graph.
        """
        if (size := len(self.graph.module.graph.nodes)) > OPERATIONS:
            raise CannotCompile(
                f"it has {size} operations, over which a compiler sits for many minutes (particles "
                "of an ELBO are run one by one; ImportanceWeighted takes them side by side)"
            )
        # On other rows: so do a clock and what Python reads off the data show.
        must_repeat(self.graph, self.trace(_resampled(self.example.tensors)))
        self.function = compiled(self.graph, self.example.tensors)

    def __call__(self, batch: Batch) -> Evaluation:
        """Run the graph."""
        self.taken += 1
        return self._run(batch)

    def compare(self, batch: Batch, names: dict[int, str]) -> str | None:
        """Say how graph and program differ at a batch, and leave everything as found.

        Args:
            batch: A batch of the shape.
            names: What parameters are called, by id.

        Raises:
            CannotCompile: If the program cannot be run, or Python state changes.
        """
        with self._undone():
            found = self._run(batch)
            noise = torch.get_rng_state()
        if not math.isfinite(sum(found.numbers[:2])):
            return None  # a bad step, which the program itself is asked about
        with self._undone():
            numbers, *gradients = self._evaluate([], *batch.tensors)
            same_noise = torch.equal(noise, torch.get_rng_state())
        if [id(self.candidates[k]) for k in self.reached] != [id(p) for p in self.leaves]:
            return "other parameters move"
        leaves = [names.get(id(p), "a parameter") for p in self.leaves]
        found_here = _difference(Evaluation(numbers.tolist(), gradients), found, leaves)
        return found_here or (None if same_noise else "they draw different amounts of noise")

    def _run(self, batch: Batch) -> Evaluation:
        numbers, *gradients = self.function(*batch.tensors)
        return Evaluation(numbers.tolist(), gradients)

    def trace(self, tensors: Sequence[Tensor]) -> Graph:
        """Trace the phase, and leave everything as found."""
        with self._undone():
            return trace(self._evaluate, tensors)

    def _undone(self) -> AbstractContextManager[None]:
        return undone(self.watch, device_of(self.program), self.program, self.state)

    def _evaluate(self, guards: list[Tensor], *tensors: Tensor) -> tuple[Tensor, ...]:
        count = len(self.example.args)
        named = dict(zip(self.example.kwargs, tensors[count:], strict=True))
        loss, parts = (self.phase.traceable or self.phase.loss)(
            self.state, *tensors[:count], **named
        )
        found = torch.autograd.grad(loss, self.candidates, allow_unused=True)
        self.reached = [k for k, g in enumerate(found) if g is not None]
        gradients = [g for g in found if g is not None]
        norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt() * self.per_datum
        self.names = tuple(parts)
        if guards:  # a norm that is none makes the step a bad one, which is taken eagerly
            norm = torch.where(torch.stack(guards).all(), norm, torch.nan)
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
        self.roots, self.watch = roots, _or_cannot(Watch, *roots)
        if not self.watch.complete:
            raise CannotCompile("model and guide reach more Python values than can be watched")
        if self.watch.iterators:
            shown = ", ".join(self.watch.iterators[:3])
            raise CannotCompile(f"an iterator may give something else at every step ({shown})")
        self.taken, self.said = 0, False
        self.refuted = 0  # steps that are bad as a graph and good as they are
        self.store = dict(state.params)
        self.names = {id(p): name for name, p in state.tensors().items()}
        self.first = self._losses(state, batch)
        for loss in dict.fromkeys(self.first):
            _or_cannot(loss.compile)
        self.losses = {_shapes(batch): self.first}
        # What a step may change before it turns out bad: all, where one phase follows another.
        alone = len(state.phases) == 1
        kept = state.program.buffers() if alone else state.tensors().values()
        held = state.objective_state
        critics = [b for n, b in held.named_buffers() if n != "epoch"]
        critics += [] if alone else held.parameters()
        self.kept = [t.detach() for t in (*kept, *critics)]
        updates = {
            loss.phase.name: _or_cannot(state.updaters[loss.phase.name].by_gradients, loss.leaves)
            for loss in self.first
        }
        self.updates = [updates[phase.name] for phase in state.phases]

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, StepInfo]:
        """Take a step; a bad one is undone and taken again eagerly, which says what is wrong.

        Raises:
            CannotCompile: If the graph is not the program any more; nothing is applied.
        """
        shapes = _shapes(batch)
        if shapes not in self.losses:
            if len(self.losses) > SHAPES:
                self._say_that_shapes_are_many()
                return train_step(state, batch)
            self.losses[shapes] = self._of_another_shape(state, batch)
        losses = self.losses[shapes]
        turn = losses[0].taken + 1
        if turn in CHECKS or turn % OFTEN == 0:
            self._compare(losses, batch)
        rewind = noise_kept(batch.device)
        before = [(t, t.clone()) for t in self.kept]

        def undo() -> None:
            rewind()
            with torch.no_grad():
                for tensor, kept in before:
                    tensor.copy_(kept)

        found = state.objective_state.found
        rows, scale = found.seen(batch.rows), found.scale(batch.rows)
        parts: dict[str, float] = {}
        total, norms = 0.0, []
        for loss, update in zip(losses, self.updates, strict=True):
            try:
                numbers, gradients = loss(batch)
            except Exception as error:  # torch raises what it likes
                undo()
                raise CannotCompile(reason(error)) from error
            value, norm, *rest = numbers
            bad = not math.isfinite(value + norm)
            if not bad:
                careful = update.may_overflow(norm / loss.per_datum)
                old = [p.detach().clone() for p in loss.leaves] if careful else []
                update(gradients, norm, state.clip_norm)
                if careful and left_the_finite(old, loss.leaves):
                    bad = True
                    before += zip(loss.leaves, old, strict=True)
            if bad:
                undo()
                taken = train_step(state, batch)  # which raises, where it really is bad
                self.refuted += 1
                return taken
            parts.update(zip(loss.names, rest, strict=True))
            if loss.phase.counts:
                total += value / scale
            norms.append(norm)
        self.taken += 1
        state.steps += 1
        state.compiled += 1
        return state, StepInfo(total, parts, norms[0], rows)

    def _say_that_shapes_are_many(self) -> None:
        if not self.said:
            warn(f"Batches have more than {SHAPES} shapes: steps of others are not compiled.")
        self.said = True

    def tidy(self) -> None:
        """Keep denormal numbers out of the optimisers' state."""
        for update in self.updates:
            update.flush()

    def changed(self) -> list[str]:
        """Name what is no longer what it was when the step was traced: values, tensors."""
        found = self.watch.changes()
        if _PYRO_STACK:
            found.append("a handler of Pyro's is around the step")
        if self.watch.stale and not found:
            self.watch = Watch(*self.roots)
            for loss in (loss for losses in self.losses.values() for loss in losses):
                loss.watch = self.watch
        held = pyro.get_param_store()._params
        if not all(map(is_, map(held.get, self.store), self.store.values())):
            found.append("Pyro's store holds other parameters")
        if any(loss.graph.moved for loss in self.first):
            found.append("tensors of the program were moved, exchanged, frozen or unfrozen")
        return found

    def _compare(self, losses: Sequence[CompiledLoss], batch: Batch) -> None:
        for loss in losses:
            difference = _or_cannot(loss.compare, batch, self.names)
            if difference is not None:
                raise CannotCompile(
                    f"the compiled step is not the program: {difference}. Steps since the last "
                    f"comparison may be wrong, at most {min(loss.taken, OFTEN)}"
                )

    def _of_another_shape(self, state: TrainState, batch: Batch) -> list[CompiledLoss]:
        losses = self._losses(state, batch)
        for one, other in zip(losses, self.first, strict=True):  # whose leaves the updates know
            if [id(p) for p in one.leaves] != [id(p) for p in other.leaves]:
                raise CannotCompile("batches of another shape move other parameters")
        return losses

    def _losses(self, state: TrainState, batch: Batch) -> list[CompiledLoss]:
        def build(phase: Phase) -> CompiledLoss:
            present = {id(p) for p in state.params.values()}
            moved = [p for p in state.updaters[phase.name].leaves if id(p) in present]
            leaves, held = list(phase.leaves or moved), state.objective_state
            return CompiledLoss(state.program, phase, held, leaves, batch, self.watch)

        built = {phase.name: _or_cannot(build, phase) for phase in state.phases}
        return [built[phase.name] for phase in state.phases]  # one may be taken twice


def _shapes(batch: Batch) -> tuple[object, ...]:
    shapes = ((*t.shape, t.dtype) for t in batch.tensors)
    return (len(batch.args), *batch.kwargs, *shapes)


def _resampled(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Rows drawn with replacement, the same of all tensors of a length."""
    rows: dict[int, Tensor] = {}
    found = []
    for t in tensors:
        if t.dim() == 0 or not len(t):
            found.append(t)
            continue
        generator = torch.Generator().manual_seed(len(t))
        index = rows.setdefault(len(t), torch.randint(len(t), (len(t),), generator=generator))
        found.append(t.index_select(0, index.to(t.device)))
    return found


def _or_cannot(function: Callable[..., T], *arguments: object) -> T:
    try:
        return function(*arguments)
    except CannotCompile:
        raise
    except Exception as error:  # torch raises what it likes
        raise CannotCompile(reason(error)) from error


def _difference(truth: Evaluation, found: Evaluation, leaves: Sequence[str]) -> str | None:
    """What differs by more than rounding, in words."""
    tolerance = max(TOLERANCE.get(g.dtype, 1e-2) for g in truth.gradients)
    size = max(abs(v) for v in (*truth.numbers[:1], *truth.numbers[2:]))
    pairs = list(zip(truth.numbers, found.numbers, strict=True))
    for k, (expected, got) in enumerate(pairs):
        if k != 1 and not abs(expected - got) <= tolerance * size:  # 1 is the gradients' norm
            name = "the loss" if k == 0 else "a part of the loss"
            return f"{name} is {got:.9g} where the program gives {expected:.9g}"
    sizes = [float(g.abs().max()) if g.numel() else 0.0 for g in truth.gradients]
    # Where terms cancel (a bias before BatchNorm) nothing but their rounding is left, and numbers
    # of less precision may have been on the way to numbers of more.
    eps = max(torch.finfo(g.dtype).eps for g in truth.gradients)
    floor = 100 * eps * max(sizes)
    for name, own, a, b in zip(leaves, sizes, truth.gradients, found.gradients, strict=True):
        off = float((a - b).abs().max()) if a.numel() else 0.0
        if not off <= max(100 * tolerance * own, floor):
            return f"the gradient of {name} is off by {off:.3g}, of {own:.3g}"
    return None
