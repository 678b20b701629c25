"""Log weights by a compiled graph of one run: the same draws, many times as fast on large nets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor, fx

from ppl_vae.data.batches import Batch
from ppl_vae.programs.modes import noise_kept
from ppl_vae.programs.weighing import Weighing
from ppl_vae.training.compiled import (
    OPERATIONS,
    TOLERANCE,
    CannotCompile,
    must_repeat,
    undone,
)
from ppl_vae.training.frozen import Watch
from ppl_vae.training.inductor import Graph, compiled, reason, trace, why_not

CHECKS = {1, 10, 100}  # runs at which graph and program are compared,
OFTEN = 1000  # and every so many


class CompiledWeights:
    """`Weighing` for parts of one shape, as a graph: log weights ``(S, n)``.

    Args:
        weighing: Of a program in the mode that it draws in. It has run before, so that every
            parameter is there.
        examples: Two different parts.
        draws: S.

    Attributes:
        taken: Runs so far.
        doubted: Runs that were not finite as a graph, and were taken again by the program.

    Raises:
        CannotCompile: If the graph would not be the program.
    """

    def __init__(self, weighing: Weighing, examples: tuple[Batch, Batch], draws: int) -> None:
        if (missing := why_not()) is not None:
            raise CannotCompile(missing)
        if _PYRO_STACK:
            raise CannotCompile("a handler of Pyro's is around the call")
        self.weighing, self.draws, self.example = weighing, draws, examples[0]
        self.taken = self.doubted = 0
        try:
            self.watch = Watch(weighing.program)
            self._refuse_hidden_state()
            self.function = self._compile(*examples)
        except CannotCompile:
            raise
        except Exception as error:  # torch raises what it likes
            raise CannotCompile(reason(error)) from error

    def __call__(self, part: Batch) -> Tensor:
        """Draw and weigh; what is not finite is left to the program, which says what is wrong.

        Raises:
            CannotCompile: If the graph turns out not to be the program.
        """
        self.taken += 1
        if self.taken in CHECKS or self.taken % OFTEN == 0:
            self._compare(part)
        rewind = noise_kept(part.device)
        found = self._run(part)
        if bool((found < torch.inf).all()):
            return found
        self.doubted += 1
        rewind()
        return self.weighing(part, self.draws).log_weights

    def _refuse_hidden_state(self) -> None:
        if not self.watch.complete:
            raise CannotCompile("model and guide reach more Python values than can be watched")
        if self.watch.iterators:
            shown = ", ".join(self.watch.iterators[:3])
            raise CannotCompile(f"an iterator may give something else at every run ({shown})")

    def _compile(self, one: Batch, two: Batch) -> Callable[..., Sequence[Tensor]]:
        graph = self._trace(one)
        if (size := len(graph.module.graph.nodes)) > OPERATIONS:
            raise CannotCompile(f"it has {size} operations, over which a compiler sits for minutes")
        must_repeat(graph, self._trace(two))
        _row_by_row(graph.module.graph)
        graph.module.recompile()
        return compiled(graph, one.tensors)

    def _trace(self, part: Batch) -> Graph:
        def run(guards: list[Tensor], *tensors: Tensor) -> list[Tensor]:
            count = len(part.args)
            named = dict(zip(part.kwargs, tensors[count:], strict=True))
            found = self.weighing(Batch(tensors[:count], named), self.draws).log_weights
            if guards:  # weights that are none are asked of the program
                found = torch.where(torch.stack(guards).all(), found, torch.nan)
            return [found]

        with self._undone():
            return trace(run, part.tensors)

    def _run(self, part: Batch) -> Tensor:
        try:
            (found,) = self.function(*part.tensors)
        except Exception as error:  # what the compiler took for constant is not
            raise CannotCompile(reason(error)) from error
        return found

    def _compare(self, part: Batch) -> None:
        with self._undone():
            found = self._run(part)
            noise = torch.get_rng_state()
        if not bool((found < torch.inf).all()):
            return
        with self._undone():
            truth = self.weighing(part, self.draws).log_weights
            same_noise = torch.equal(noise, torch.get_rng_state())
        size = float(truth.abs().nan_to_num(posinf=0.0).max())
        allowed = TOLERANCE.get(truth.dtype, 1e-2) * max(1.0, size)
        if not same_noise or not torch.allclose(found, truth, rtol=0.0, atol=allowed):
            what = (
                "its weights are other ones" if same_noise else "it draws another amount of noise"
            )
            raise CannotCompile(f"the compiled run is not the program: {what}")

    def _undone(self) -> AbstractContextManager[None]:
        return undone(self.watch, self.example.device, self.weighing.program)


def _row_by_row(graph: fx.Graph) -> None:
    """Ask of each row first whether all of it is valid: the compiler does so as it scores the row.

    Asked of all rows at once, it is a pass of its own over what a kernel would not have written.
    """
    aten = torch.ops.aten
    for node in list(graph.nodes):
        if node.target is aten._is_all_true.default:
            with graph.inserting_before(node):
                # As numbers: of truths the compiler makes integers of eight bytes.
                numbers = graph.call_function(
                    aten._to_copy.default, (node.args[0],), {"dtype": torch.float32}
                )
                rows = graph.call_function(aten.amin.default, (numbers, [-1]))
                whole = graph.call_function(aten.all.default, (rows,))
            node.replace_all_uses_with(whole)
            graph.erase_node(node)
