"""The training loop: the only one."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pyro.infer
import torch
from torch import nn

from ppl_vae.data.batches import Batch, columns_of, refuse_other_columns
from ppl_vae.objectives import ELBO, MMD, Adversarial, Objective, PyroELBO
from ppl_vae.programs.inputs import COLUMNS, program_batch
from ppl_vae.programs.memory import remember, trained_anew
from ppl_vae.programs.modes import device_of, evaluating, forked_rng
from ppl_vae.programs.registration import name_apart
from ppl_vae.training.checkpoint import Checkpoint, saved_order_seed
from ppl_vae.training.engine import Compile, Engine
from ppl_vae.training.floors import warn_of_data, warn_of_floor
from ppl_vae.training.frozen import put_back
from ppl_vae.training.guards import (
    refuse_bad_arguments,
    refuse_optimizer,
    refuse_short_batch,
    refuse_unfit_program,
    warn_of_columns,
)
from ppl_vae.training.history import History
from ppl_vae.training.loop import FORWARD, Loop
from ppl_vae.training.step import TrainState
from ppl_vae.training.updater import OptimizerSpec, ScheduleSpec, Updater


class FitResult(NamedTuple):
    """What `fit` gives back; the program itself is trained in place.

    Attributes:
        history: One row per epoch.
        state: The training state: critic, optimisers.
    """

    history: History
    state: TrainState

    def __repr__(self) -> str:
        return f"FitResult of {self.state.counted}\n{self.history.summary()}"


def fit(
    program: nn.Module,
    data: Any,  # noqa: ANN401
    *,
    objective: Objective | pyro.infer.ELBO = ELBO(),  # noqa: B008
    optimizer: OptimizerSpec = (torch.optim.Adam, {"lr": 1e-3}),
    schedule: ScheduleSpec | None = None,
    epochs: int,
    batch_size: int = 128,
    validation: Any = None,  # noqa: ANN401
    patience: int | None = None,
    clip_norm: float | None = None,
    seed: int | None = None,
    device: torch.device | str | None = None,
    compile: Compile = "auto",  # noqa: A002
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> FitResult:
    """Train a program in place.

    Args:
        program: A `VAE` or a `Program`.
        data: An array, tensor or DataFrame ``(N, *event)``; a tuple of them for a model of
            several arguments, a dict for keyword arguments.
        objective: `ELBO`, `ImportanceWeighted`, `Adversarial`, `MMD`, any `pyro.infer.ELBO`, or an
            objective of your own.
        optimizer: A torch optimizer class and its arguments, or a `pyro.optim.PyroOptim`.
        schedule: A torch scheduler class and its arguments, or a function of the optimizer;
            stepped once an epoch.
        epochs: Passes over the data.
        batch_size: Rows per step; the last batch of an epoch may be shorter.
        validation: A fraction of the data to set apart, or data in the form of `data`.
        patience: Stop after so many epochs without a better validation score, and restore the
            best state. Epochs of warm-up may be the best, but are not waited for.
        clip_norm: Largest global norm of the gradient of the per-datum mean; larger ones are
            scaled down to it.
        seed: Seeds the noise of training and the order of batches, and leaves torch's random
            state as found. None draws from the global stream. (The start values of the networks
            are drawn where you build them: call `torch.manual_seed` before.)
        device: Where to train; None leaves the program where it is.
        compile: Trace the whole step once and compile it: many times as fast on small nets, the
            same numbers up to rounding. "auto" does so in runs of 10,000 steps or more, and where
            it cannot be done goes on without, in one warning; True refuses such a program at its
            second step. The result says how many steps were compiled.
        checkpoint: A file to write after each epoch. If it is there, training resumes from it and
            ends bit-equal to a run that was never interrupted.
        progress: Show a progress bar.

    Returns:
        The history, in nats per datum, and the training state.

    Raises:
        ValueError: If data, program and arguments do not fit together.
        NonFiniteError: If a loss, a gradient or an updated parameter is not finite; the program
            keeps its last good state.

    Example:
        >>> from ppl_vae import MLP, Conditional, Normal, Shared, StandardNormal, VAE
        >>> x = torch.randn(64, 3)
        >>> vae = VAE(
        ...     StandardNormal(1),
        ...     Conditional(MLP(), Normal(3, scale=Shared()), given=1),
        ...     Conditional(MLP(), Normal(1), given=3),
        ... )
        >>> history, _ = fit(vae, x, epochs=2, seed=0, progress=False)
        >>> history.columns[:5]
        ('epoch', 'loss', 'elbo', 'reconstruction', 'kl')
    """
    arguments = dict(locals())
    objective = as_objective(objective)
    if device is not None:
        _move(program, device)
    batch = program_batch(program, data)
    refuse_bad_arguments(batch, arguments)
    columns = columns_of(data)
    refuse_other_columns(columns, columns_of(validation), "validation")
    Updater(optimizer, schedule)  # which refuses what is none
    generator = torch.Generator()
    with ExitStack() as stack:
        if seed is not None:
            stack.enter_context(forked_rng(device_of(program), seed))
            generator.manual_seed(seed)
        else:
            drawn = int(torch.empty((), dtype=torch.int64).random_().item())
            # A run that resumes must split the rows as it did before.
            saved = saved_order_seed(Path(checkpoint)) if checkpoint is not None else None
            generator.manual_seed(drawn if saved is None else saved)
        train, held = _split(program, batch, validation, generator)
        stack.enter_context(evaluating(program))  # gives every part back in the mode it was in
        program.train()
        # Pyro warns of every NaN it meets; ours is an error that says where.
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message="Encountered (NaN|[+-]?inf)")
        head = train.take(torch.arange(min(train.rows, max(2, batch_size))))
        stack.enter_context(trained_anew(program))
        name_apart(program)  # which is to stay
        with put_back(program, objective):  # a look at it is no step
            objective_state = objective.init(program, head)
            refuse_unfit_program(program, objective_state, head, train.rows, batch_size)
        refuse_short_batch(objective_state.found, train.rows, batch_size, "data")
        if held is not None:
            refuse_short_batch(objective_state.found, held.rows, FORWARD * batch_size, "validation")
        if isinstance(objective, ELBO):
            warn_of_columns(objective_state.found)
        warn_of_data(program, train)
        # Gradients of an earlier fit are no part of this one; a zero would decay, None does not.
        for parameter in (*program.parameters(), *objective_state.found.params.values()):
            parameter.grad = None
        if patience is not None and isinstance(objective, Adversarial):
            raise ValueError(
                "Got patience under Adversarial; expected none: an adversary has no validation "
                "score, and the last state is kept. Try fewer epochs, and diagnose the result."
            )
        if isinstance(objective, MMD) and objective_state.found.seen(batch_size) < 2:
            raise ValueError(
                f"Got batches of a single row ({batch_size=}) under MMD; expected several: a "
                "kernel compares pairs, and there would be no penalty. Try batch_size=128."
            )
        phases = objective.phases(program, objective_state)
        for phase in phases:
            refuse_optimizer(f"{phase.name}_optimizer", phase.optimizer, phase.schedule)
        # The first phase is the program's; one that follows must not move by its momentum.
        updaters = {
            phase.name: Updater(optimizer, schedule)
            if phase.optimizer is None
            else Updater(phase.optimizer, phase.schedule)
            for phase in phases
        }
        state = TrainState(program, objective_state, phases, updaters, clip_norm)
        stack.callback(remember, program, state.params, type(objective).__name__)
        steps = epochs * -(-train.rows // batch_size)
        engine = Engine(objective, compile, steps)
        loop = Loop(state, objective, engine, train, held, batch_size, patience, generator)
        if patience is not None:
            loop.refuse_no_score()
        save = None
        if checkpoint is not None:
            file = Checkpoint(Path(checkpoint), loop, seed)
            file.resume()
            save = file.save
        program.__dict__[COLUMNS] = columns or program.__dict__.get(COLUMNS, {})
        loop.run(epochs, progress, save)
        warn_of_floor(program, train)
    return FitResult(loop.history, state)


def _move(program: nn.Module, device: torch.device | str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(
            f"Got device={device!r}, which is not to be had ({str(error).splitlines()[0]}); "
            'expected a device of this machine. Try device="cpu", or None.'
        ) from error
    program.to(device)


def as_objective(objective: Objective | pyro.infer.ELBO) -> Objective:
    """Wrap an ELBO of Pyro's; give an objective back.

    Raises:
        ValueError: If it is neither.
    """
    if isinstance(objective, pyro.infer.ELBO):
        return PyroELBO(objective)
    if isinstance(objective, type) or not hasattr(objective, "phases"):
        raise ValueError(
            f"Got objective={objective!r}; expected an instance such as ELBO(), Adversarial() or "
            "pyro.infer.TraceEnum_ELBO(). Try objective=ELBO(): mind the brackets."
        )
    return objective


def _split(
    program: nn.Module,
    batch: Batch,
    validation: Any,
    generator: torch.Generator,  # noqa: ANN401
) -> tuple[Batch, Batch | None]:
    if validation is None:
        return batch, None
    if not isinstance(validation, int | float) or isinstance(validation, bool):
        return batch, program_batch(program, validation, name="validation")
    count = round(validation * batch.rows)
    if not 0 < validation < 1 or not 0 < count < batch.rows - 1:
        enough = next((f for f in (0.1, 0.2, 0.5) if 0 < round(f * batch.rows) < batch.rows - 1), 0)
        raise ValueError(
            f"Got validation={validation} of {batch.rows} rows; expected a fraction leaving a row "
            "or more to validate and two or more to train on. Try "
            f"{enough or 'more data'}, or pass validation data."
        )
    order = torch.randperm(batch.rows, generator=generator)
    return batch.take(order[count:]), batch.take(order[:count])
