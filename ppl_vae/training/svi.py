"""Pyro's SVI with its whole step compiled, for scripts that own their loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pyro.infer
import torch
from pyro.optim import PyroOptim
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.objectives import Objective
from ppl_vae.programs.program import Program, reachable
from ppl_vae.programs.registration import name_apart
from ppl_vae.training.engine import Engine
from ppl_vae.training.fit import as_objective
from ppl_vae.training.frozen import put_back
from ppl_vae.training.step import TrainState, counted
from ppl_vae.training.updater import Updater
from ppl_vae.training.warned import warn

FLAGS = 8  # combinations of flags, each with a compiled step of its own


class CompiledSVI:
    """`pyro.infer.SVI` many times as fast: change one line of a script.

    The first step is Pyro's own; then the step (model, guide, loss, gradients, update) is traced
    once and compiled. Parameters, optimiser states and the store are those of SVI, and so are the
    numbers up to rounding. Before every step the Python values that model and guide can reach
    (flags, floats, ``net.training``), the program's tensors and Pyro's store are looked at: where
    one has changed, the step is compiled again if the last one has lived long enough to pay for
    it, and otherwise goes on eagerly, in one warning that names the change. Schedulers of
    `pyro.optim` work as they do with SVI.

    Not as in SVI: model and guide are called a few times before the first step, whose Python state
    is put back where it can be watched (a guide that sets itself up, an autoguide, then shifts its
    noise); a loss that is not finite raises; Pyro's checks
    of data and parameters run inside the graph, those of shapes in the first steps alone.

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
        >>> svi
        CompiledSVI(Trace_ELBO, 1 steps, none compiled)
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
        owner = getattr(loss, "__self__", None)  # of Trace_ELBO().differentiable_loss
        estimator = owner if isinstance(owner, pyro.infer.ELBO) else loss
        known = isinstance(estimator, pyro.infer.ELBO | type) or hasattr(estimator, "phases")
        if callable(estimator) and not known:
            raise ValueError(
                f"Got the function {getattr(loss, '__name__', loss)!r} as loss; expected an "
                "estimator. Try pyro.infer.Trace_ELBO(), or an objective with init, phases, score."
            )
        found = {id(m): m for f in (model, guide) for _, m in reachable(f)}
        found |= {id(f): f for f in (model, guide) if isinstance(f, nn.Module)}
        found |= {id(m): m for m in modules}
        self.modules = list(found.values())
        self.runs: dict[object, _Run] = {}
        self.plain: pyro.infer.SVI | None = None
        self.plain_steps = 0
        self.model, self.guide, self.optim, self.loss = model, guide, optim, loss
        self.objective = as_objective(estimator)

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401
        if name in ("model", "guide", "optim", "loss") and hasattr(self, name):
            raise AttributeError(
                f"Got another {name}; expected a CompiledSVI to keep what it was made of: it is "
                "compiled in. Try a new one: optimisers and Pyro's store go on as they are."
            )
        super().__setattr__(name, value)

    @property
    def compiled(self) -> int:
        """How many steps were taken by the compiled step."""
        return sum(run.state.compiled for run in self.runs.values())

    def __repr__(self) -> str:
        done = self.plain_steps + sum(run.state.steps for run in self.runs.values())
        name = type(getattr(self.objective, "estimator", self.objective)).__name__
        return f"CompiledSVI({name}, {counted(done, self.compiled)})"

    def step(self, *args: Any, **kwargs: Any) -> float:  # noqa: ANN401
        """Take a step and give the loss, summed over the batch, as `SVI.step` does.

        Args:
            args: Tensors, which enter the graph as data, as floats do (an annealed β: model and
                guide get a tensor); flags, integers, strings and None, each combination of which
                is compiled by itself, eight at most. With anything else (none at all, a list, an
                array) the step is SVI's own, in one warning.
            kwargs: As `args`.

        Raises:
            ValueError: If the program does not suit the loss.
            NonFiniteError: If the loss, a gradient or an updated parameter is not finite.
        """
        try:
            run, batch = self._run(args, kwargs)
        except _NotData as error:
            loss = float(self._pyros(str(error)).step(*args, **kwargs))
            self.plain_steps += 1
            return loss
        run.engine.look(run.state)
        _, info = run.engine.step(run.state, batch)
        return info.loss * run.state.objective_state.found.scale(batch.rows)

    @torch.no_grad()
    def evaluate_loss(self, *args: Any, **kwargs: Any) -> float:  # noqa: ANN401
        """Give the loss without taking a step, as `SVI.evaluate_loss` does: eagerly."""
        try:
            run, batch = self._run(args, kwargs)
        except _NotData as error:
            return float(self._pyros(str(error)).evaluate_loss(*args, **kwargs))
        held = run.state.objective_state
        return float(run.state.phases[0].loss(held, *batch.args, **batch.kwargs)[0])

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[_Run, Batch]:
        values: dict[int | str, Any] = {**dict(enumerate(args)), **dict(sorted(kwargs.items()))}
        flags = {k: v for k, v in values.items() if isinstance(v, bool | int | str | None)}
        data = [v for v in values.values() if isinstance(v, Tensor) and v.is_floating_point()]
        dtype = data[0].dtype if data else torch.get_default_dtype()
        dtype = torch.promote_types(dtype, torch.float32)  # half of the digits are no β
        tensors = {k: _tensor(k, v, dtype) for k, v in values.items() if k not in flags}
        for k, t in tensors.items():  # one that stands twice is two arguments
            if any(t is other for j, other in tensors.items() if j != k):
                tensors[k] = t.view_as(t)
        given = {k: t for k, t in tensors.items() if isinstance(k, str)}
        batch = Batch(tuple(t for k, t in tensors.items() if not isinstance(k, str)), given)
        if not batch.tensors or not batch.tensors[0].dim() or not batch.rows:
            which = "no tensor" if not batch.tensors else "a tensor without rows"
            raise _NotData(f"{which} comes first among the arguments")
        key: object = tuple(flags.items())
        many = key not in self.runs and len(self.runs) >= FLAGS
        if many and "many" not in self.runs:
            warn(f"Flags come in more than {FLAGS} combinations: steps of others are not compiled.")
        key = "many" if many else key
        if key not in self.runs:
            self.runs[key] = self._begin(batch, flags, "auto" if not many else False)
        run = self.runs[key]
        run.flags.clear()
        run.flags.update(flags)
        return run, batch

    def _pyros(self, reason: str) -> pyro.infer.SVI:
        """SVI itself, for what cannot be a graph's data; optimisers and the store are the same."""
        if self.plain is None:
            self.plain = pyro.infer.SVI(self.model, self.guide, self.optim, self.loss)
            warn(
                f"Training goes on without the compiler: {reason}. Steps are SVI's own. Try "
                "tensors as arguments, functools.partial(model, ...) for what never varies."
            )
        return self.plain

    def _begin(self, batch: Batch, flags: dict[int | str, Any], compile: Any) -> _Run:  # noqa: ANN401, A002
        held_flags = dict(flags)
        parts = [_WithFlags(f, held_flags) if flags else f for f in (self.model, self.guide)]
        program = Program(*parts, modules=self.modules)
        own = Batch(
            tuple(t.clone() for t in batch.args), {k: t.clone() for k, t in batch.kwargs.items()}
        )
        name_apart(program)  # which is to stay
        with put_back(self.model, self.guide, self.objective):  # a look at it is no step
            held = self.objective.init(program, own)
        phases = self.objective.phases(program, held)
        if len(phases) > 1:
            raise ValueError(
                f"Got {type(self.objective).__name__}, which has the phases "
                f"{[p.name for p in phases]}; expected a loss of one. Try fit(program, data, "
                "objective=...), which takes them in turn."
            )
        updaters = {phases[0].name: Updater(self.optim)}
        state = TrainState(program, held, phases, updaters, clip_norm=None)
        return _Run(state, Engine(self.objective, compile, steps=None), held_flags)


class _NotData(ValueError):
    """Arguments that SVI takes, and a graph does not."""


class _Run(NamedTuple):
    """What belongs to one combination of flags."""

    state: TrainState
    engine: Engine
    flags: dict[int | str, Any]


class _WithFlags:
    """Puts flags back where they stood among the arguments of a function."""

    def __init__(self, function: Callable[..., Any], flags: dict[int | str, Any]) -> None:
        self.function, self.flags = function, flags

    def __call__(self, *args: Tensor, **kwargs: Tensor) -> Any:  # noqa: ANN401
        places = {k: v for k, v in self.flags.items() if isinstance(k, int)}
        rest = iter(args)
        count = len(args) + len(places)
        every = [places[k] if k in places else next(rest) for k in range(count)]
        named = {k: v for k, v in self.flags.items() if isinstance(k, str)}
        return self.function(*every, **kwargs, **named)


def _tensor(name: int | str, value: Any, dtype: torch.dtype) -> Tensor:  # noqa: ANN401
    if isinstance(value, float):
        return torch.tensor(value, dtype=dtype)
    if not isinstance(value, Tensor):
        raise _NotData(f"argument {name!r} is a {type(value).__name__}, no tensor and no number")
    return value.contiguous()  # a graph is made for one layout in memory
