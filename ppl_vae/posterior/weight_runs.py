"""Which way log weights are taken, run by run, within how much memory."""

from __future__ import annotations

from torch import Tensor

from ppl_vae.data.batches import Batch
from ppl_vae.posterior.compiled_weights import CompiledWeights
from ppl_vae.posterior.footprint import Footprint
from ppl_vae.programs.tiles import Tiles
from ppl_vae.programs.weighing import Weighing
from ppl_vae.training.compiled import CannotCompile
from ppl_vae.training.engine import Compile
from ppl_vae.training.warned import warn

WORTH = 5_000_000  # draws in all, S · N, from which on compiling pays: it takes about ten seconds
DOUBTED = 3  # runs of a graph that only the program could finish

MIB = 2**20
BYTES = 64  # a weight, and what its evidence is made of: 46 at most
FREELY = 256 * MIB  # for weights, where no budget is stated
LIBRARIES = 100 * MIB  # what is imported when k-hat is first asked for: 80
COMPILER = 200 * MIB  # what it leaves in memory: 180


class WeightRuns:
    """Runs of a program on parts of its data: the first one eager, others compiled where it pays.

    Args:
        weighing: Of a program in the mode that it draws in.
        batch: All data.
        cut: How they are cut into runs.
        budget: Bytes that all of it may take; None for what it takes.
        compile: Whether to compile; "auto" where it pays and the budget has room for the compiler.

    Attributes:
        columns: Data whose weights may be held together, known after the first run.
        compiled: The graph, once there is one.
    """

    def __init__(
        self,
        weighing: Weighing,
        batch: Batch,
        cut: Tiles,
        *,
        budget: int | None,
        compile: Compile,  # noqa: A002
    ) -> None:
        self.weighing, self.batch, self.cut, self.budget = weighing, batch, cut, budget
        self.strict = compile is True
        self.wanted = self.strict or (compile == "auto" and cut.rows * cut.num_samples >= WORTH)
        self.columns = 0
        self.compiled: CompiledWeights | None = None

    def __call__(self, part: Batch) -> Tensor:
        """Give log weights ``(draws, data)`` of a run.

        Raises:
            ValueError: If the budget is too small, or the program cannot be compiled and must be.
            CannotCompile: If a graph turns out not to be the program: all that it gave is in doubt.
        """
        if not self.columns:
            with Footprint() as footprint:  # parameters may be born here, so it is an eager run
                found = self.weighing(part, self.cut.draws).log_weights
            room = self._left_by(2 * footprint.peak)  # functions take some themselves
            self.columns = room // (BYTES * self.cut.num_samples)
            return found
        if self.wanted and self.compiled is None:
            self._compile(part)
        if self.compiled is None:
            return self.weighing(part, self.cut.draws).log_weights
        found = self.compiled(part)
        if self.compiled.doubted > DOUBTED:
            self._give_up("runs are not finite as a graph that are so as they are")
        return found

    def _left_by(self, run: int) -> int:
        least = BYTES * self.cut.data * self.cut.num_samples
        if self.budget is None:
            return max(least, FREELY)
        fixed = LIBRARIES + run
        if self.budget - fixed - COMPILER < least and not self.strict:
            self.wanted = False
        fixed += COMPILER if self.wanted else 0
        if self.budget - fixed < least:
            raise ValueError(
                f"Got budget={self.budget} bytes; expected {fixed + least} or more: {run} for a run"
                f" of the program, {least} for the {self.cut.num_samples} weights each of "
                f"{self.cut.data} data, and {fixed - run} for libraries. Try "
                f"budget={2 * (fixed + least)}, or fewer draws."
            )
        return self.budget - fixed

    def _compile(self, part: Batch) -> None:
        last, _ = self.cut.chunk(self.cut.chunks - 1, part.device)
        try:
            other = self.batch.take(last.flip(0))
            self.compiled = CompiledWeights(self.weighing, (part, other), self.cut.draws)
        except CannotCompile as error:
            self._give_up(str(error), error)

    def _give_up(self, reason: str, error: Exception | None = None) -> None:
        self.wanted, self.compiled = False, None
        cannot_compile(reason, self.strict, error)


def cannot_compile(reason: str, strict: bool, error: Exception | None) -> None:
    """Say that the evidence is taken without the compiler.

    Raises:
        ValueError: If it was to be taken with it.
    """
    if strict:
        raise ValueError(
            f"Got compile=True, but a run cannot be compiled: {reason}. Expected a program of "
            "tensor operations alone. Try compile=False."
        ) from error
    warn(f"The evidence is taken without the compiler: {reason}. It takes longer.")
