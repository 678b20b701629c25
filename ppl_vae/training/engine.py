"""Which way steps are taken: by Pyro's handlers, or compiled from the second step on."""

from __future__ import annotations

from typing import Literal

from ppl_vae.data.batches import Batch
from ppl_vae.objectives import Objective
from ppl_vae.training.compiled import CannotCompile, CompiledStep
from ppl_vae.training.inductor import why_not
from ppl_vae.training.step import StepInfo, TrainState, train_step
from ppl_vae.training.warned import warn

Compile = bool | Literal["auto"]

TIDY = 200  # steps after which the moments of dead units may turn denormal
WORTH = 10_000  # steps from which on compiling is sure to pay: it takes about ten seconds
AGAIN = 1_000  # steps that a compiled step must have lived for another to be worth it
REFUTED = 3  # steps that a graph may call bad wrongly
TIMES = 4  # that one run compiles, at most


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
        self.times = 0  # that a step was compiled
        self.looked = 0  # at which step
        self.anew = False  # compile again, after an eager step
        if self.wanted and (reason := why_not()) is not None:
            self._give_up(reason)

    def about_to_compile(self, state: TrainState) -> bool:
        """Whether the next step takes some seconds longer."""
        return self.wanted and self.compiled is None and bool(state.params)

    def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, StepInfo]:
        """Take one step; the first one eagerly, for parameters may be born in it."""
        if self.anew:
            state.params.clear()  # an eager step fills them with those of now
            self.anew = False
        try:
            if self.about_to_compile(state):
                self.compiled = CompiledStep(state, batch, (state.program, self.objective))
                self.times, self.looked = self.times + 1, state.steps
            if self.compiled is not None:
                found = self.compiled(state, batch)
                self.strict = False  # what happens later must not cost the steps so far
                if self.compiled.refuted > REFUTED:
                    self._give_up("steps are bad as a graph that are good as they are")
                return found
        except CannotCompile as error:
            self._give_up(str(error), error)
        return train_step(state, batch)

    def look(self, state: TrainState) -> None:
        """Look for what has changed since the step was compiled, before the next one is taken."""
        if self.compiled is None:
            return
        if state.steps // TIDY > self.looked // TIDY:  # at the same steps in a run that resumes
            self.compiled.tidy()
        self.looked = state.steps
        if changed := self.compiled.changed():
            if self.compiled.taken >= AGAIN and self.times < TIMES:
                self.compiled, self.anew = None, True
                return
            self._give_up(
                f"Python state has changed ({'; '.join(changed[:3])}), which the graph has as it "
                "was; a tensor (a buffer, an argument of the step) is data"
            )

    def _give_up(self, reason: str, error: Exception | None = None) -> None:
        self.wanted, self.compiled = False, None
        if self.strict:
            raise ValueError(
                f"Got compile=True, but the step cannot be compiled: {reason}. Expected a program "
                "of tensor operations alone. Try compile=False."
            ) from error
        warn(f"Training goes on without the compiler: {reason}. Steps take longer.")
