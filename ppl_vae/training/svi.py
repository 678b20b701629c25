"""Pyro's SVI with its whole step compiled, for scripts that own their loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pyro.infer
from pyro.optim import PyroOptim
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.objectives import Objective
from ppl_vae.programs.program import Program, reachable
from ppl_vae.training.engine import Engine
from ppl_vae.training.fit import as_objective
from ppl_vae.training.step import TrainState
from ppl_vae.training.updater import Updater

LOOK = 100  # steps between two looks at Python's state


class CompiledSVI:
    """`pyro.infer.SVI` many times as fast: change one line of a script.

    The first step is Pyro's own; then the step (model, guide, loss, gradients, update) is traced
    once and compiled. Parameters, optimiser states and the store are those of SVI, and so are the
    numbers up to rounding. What cannot be compiled goes on eagerly, in one warning that says why;
    a Python value that a trace would freeze (a counter, a float that is annealed) is found and
    falls back too. Train and eval mode are left as they are.

    Args:
        model: A Pyro function of tensors.
        guide: A Pyro function of the same tensors.
        optim: A `PyroOptim`, such as ``pyro.optim.Adam({"lr": 1e-3})``.
        loss: A `pyro.infer.ELBO`, `ELBO`, `ImportanceWeighted`, or an objective of one phase.
        modules: Nets that model or guide hold where a look at their closures does not find them:
            their buffers (BatchNorm) are kept while the step is traced.

    Raises:
        ValueError: If an argument is not what SVI takes.

    Example:
        >>> import pyro, torch
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(1, 3, seed=0)
        >>> x, _ = world.sample(20, seed=1)
        >>> svi = CompiledSVI(
        ...     world.model,
        ...     lambda x: world.guide(x + 0 * pyro.param("a", torch.zeros(()))),
        ...     pyro.optim.Adam({"lr": 0.01}),
        ...     pyro.infer.Trace_ELBO(),
        ... )
        >>> isinstance(svi.step(x), float)
        True
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        optim: PyroOptim,
        loss: Objective | pyro.infer.ELBO,
        *,
        modules: Iterable[nn.Module] = (),
    ) -> None:
        if not isinstance(optim, PyroOptim):
            raise ValueError(
                f"Got a {type(optim).__name__} as optim; expected a PyroOptim, as SVI takes it. "
                'Try pyro.optim.Adam({"lr": 1e-3}).'
            )
        found = {id(m): m for f in (model, guide) for _, m in reachable(f)}
        found |= {id(f): f for f in (model, guide) if isinstance(f, nn.Module)}
        found |= {id(m): m for m in modules}
        self.program = Program(model, guide, modules=found.values())
        self.objective = as_objective(loss)
        self.optim = optim
        self.state: TrainState | None = None
        self.engine: Engine | None = None

    def step(self, *args: Tensor, **kwargs: Tensor) -> float:
        """Take a step and give the loss, summed over the batch, as `SVI.step` does.

        Raises:
            ValueError: If an argument is no tensor, or the program does not suit the loss.
            NonFiniteError: If the loss, a gradient or an updated parameter is not finite.
        """
        batch = Batch(args, kwargs)
        for value in batch.tensors:
            if not isinstance(value, Tensor):
                raise ValueError(
                    f"Got a {type(value).__name__} among the arguments; expected tensors, which "
                    "vary from step to step. Try functools.partial(model, flag=...) for what "
                    "does not."
                )
        if self.state is None or self.engine is None:
            self.state, self.engine = self._begin(batch)
        if self.state.steps % LOOK == 0:
            self.engine.look(self.state)
        _, info = self.engine.step(self.state, batch)
        return info.loss * self.state.objective_state.found.scale(batch.rows)

    def _begin(self, batch: Batch) -> tuple[TrainState, Engine]:
        held = self.objective.init(self.program, batch)
        phases = self.objective.phases(self.program, held)
        if len(phases) > 1:
            raise ValueError(
                f"Got {type(self.objective).__name__}, which has the phases "
                f"{[p.name for p in phases]}; expected a loss of one. Try fit(program, data, "
                "objective=...), which takes them in turn."
            )
        state = TrainState(
            self.program, held, phases, {phases[0].name: Updater(self.optim)}, clip_norm=None
        )
        return state, Engine(self.objective, "auto", steps=None)
