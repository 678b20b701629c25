"""Which way steps are taken: by Pyro's handlers, or compiled from the second step on."""

from __future__ import annotations

import warnings
from typing import Literal

from ppl_vae.data.batches import Batch
from ppl_vae.objectives import Objective
from ppl_vae.training.compiled import CannotCompile, CompiledStep
from ppl_vae.training.inductor import why_not
from ppl_vae.training.step import StepInfo, TrainState, train_step

Compile = bool | Literal["auto"]

TIDY = 200  # steps after which the moments of dead units may turn denormal
WORTH = 10_000  # steps from which on compiling is sure to pay: it takes about ten seconds


class Engine:
    """Takes the steps of one run.

    Args:
        objective: What `state` is trained under.
        compile: Whether to; "auto" where the run is long enough.
        steps: How many steps the run has; None where nobody knows.

    Raises:
        ValueError: If `compile` is none of these, or is True and nothing can be compiled here.
    """

    def __init__(self, objective: Objective, compile: Compile, steps: int | None) -> None:  # noqa: A002
        if not isinstance(compile, bool) and compile != "auto":
            raise ValueError(
                f'Got compile={compile!r}; expected True, False or "auto". Try compile="auto".'
            )
        self.objective, self.strict = objective, compile is True
        long = steps is None or steps >= WORTH
        self.wanted = compile is True or (compile == "auto" and long)
        self.compiled: CompiledStep | None = None
        self.looked = 0
        if self.wanted and (reason := why_not()) is not None:
            self._give_up(reason)

    def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, StepInfo]:
        """Take one step; the first one eagerly, for parameters may be born in it."""
        if self.wanted and self.compiled is None and state.params:
            try:
                self.compiled = CompiledStep(state, batch, (state.program, self.objective))
            except CannotCompile as error:
                self._give_up(str(error), error)
        if self.compiled is not None:
            try:
                state.compiled = True
                return self.compiled(state, batch)
            except CannotCompile as error:
                self._give_up(str(error), error)
        state.compiled = False
        return train_step(state, batch)

    def look(self, state: TrainState) -> None:
        """Look for Python state that has changed since the last look, and tidy up at times."""
        if self.compiled is None:
            return
        since, steps = self.looked, state.steps
        if steps // TIDY > since // TIDY:
            self.compiled.tidy()
        self.looked = steps
        if changed := self.compiled.changed():
            self._give_up(
                f"Python state has changed ({'; '.join(changed[:3])}), and steps after step "
                f"{since} may not have seen it"
            )

    def _give_up(self, reason: str, error: Exception | None = None) -> None:
        self.wanted, self.compiled = False, None
        if self.strict:
            raise ValueError(
                f"Got compile=True, but the step cannot be compiled: {reason}. Expected a program "
                "of tensor operations alone. Try compile=False."
            ) from error
        warnings.warn(
            f"Training goes on without the compiler: {reason}. The numbers are the same, steps "
            "take longer.",
            stacklevel=4,
        )
