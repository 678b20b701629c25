"""The training loop: the only one."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyro.infer
import torch
from pyro import poutine
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.objectives import ELBO, Objective, PyroELBO
from ppl_vae.objectives.adversarial import Adversarial
from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.modes import device_of, evaluating, forked_rng
from ppl_vae.programs.traces import run
from ppl_vae.training import checkpoint as disk
from ppl_vae.training.guards import (
    refuse_bad_arguments,
    refuse_unfit_program,
    warn_of_data,
    warn_of_floor,
)
from ppl_vae.training.history import History
from ppl_vae.training.progress import progress_bar
from ppl_vae.training.step import TrainState, train_step
from ppl_vae.training.updater import OptimizerSpec, ScheduleSpec, Updater


class FitResult(NamedTuple):
    """What `fit` gives back; the program itself is trained in place.

    Attributes:
        history: One row per epoch.
        state: The training state: critic, optimisers.
    """

    history: History
    state: TrainState


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
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> FitResult:
    """Train a program in place.

    Args:
        program: A `VAE` or a `Program`.
        data: An array, tensor or DataFrame ``(N, *event)``; a tuple of them for a model of
            several arguments, a dict for keyword arguments.
        objective: `ELBO`, `Adversarial`, any `pyro.infer.ELBO`, or an objective of your own.
        optimizer: A torch optimizer class and its arguments, or a `pyro.optim.PyroOptim`.
        schedule: A torch scheduler class and its arguments, or a function of the optimizer;
            stepped once an epoch.
        epochs: Passes over the data.
        batch_size: Rows per step; the last batch of an epoch may be shorter.
        validation: A fraction of the data to set apart, or data in the form of `data`.
        patience: Stop after so many epochs without a better validation score, and restore the
            best state. Epochs of warm-up do not count.
        clip_norm: Largest global norm of the gradient of the per-datum mean; larger ones are
            scaled down to it.
        seed: Seeds the noise of training and the order of batches, and leaves torch's random
            state as found. None draws from the global stream. (The start values of the networks
            are drawn where you build them: call `torch.manual_seed` before.)
        device: Where to train; None leaves the program where it is.
        checkpoint: A file to write after each epoch. If it is there, training resumes from it and
            ends bit-equal to a run that was never interrupted.
        progress: Show a progress bar.

    Returns:
        The history, in nats per datum, and the training state.

    Raises:
        ValueError: If data, program and arguments do not fit together.
        NonFiniteError: If a loss or gradient is not finite; the program keeps its last good state.

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
    if device is not None:
        program.to(device)
    objective = _as_objective(objective)
    batch = program_batch(program, data)
    refuse_bad_arguments(batch, arguments)
    main = Updater(optimizer, schedule)
    generator = torch.Generator()
    with ExitStack() as stack:
        if seed is not None:
            stack.enter_context(forked_rng(device_of(program), seed))
            generator.manual_seed(seed)
        else:
            generator.manual_seed(int(torch.empty((), dtype=torch.int64).random_().item()))
        train, held = _split(program, batch, validation, generator)
        stack.enter_context(_training(program))
        # Pyro warns of every NaN it meets; ours is an error that says where.
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message="Encountered (NaN|[+-]?inf)")
        head = train.take(torch.arange(min(train.rows, max(2, batch_size))))
        objective_state = objective.init(program, head)
        refuse_unfit_program(program, objective_state.found, train.rows, batch_size)
        warn_of_data(program, train)
        if patience is not None and isinstance(objective, Adversarial):
            raise ValueError(
                "Got patience under Adversarial; expected none: an adversary has no validation "
                "score, and the last state is kept. Try fewer epochs, and diagnose the result."
            )
        phases = objective.phases(program, objective_state)
        critic = getattr(objective, "critic_optimizer", None)
        updaters = {
            phase.name: main if phase.leaves is None else Updater(critic or optimizer)
            for phase in phases
        }
        state = TrainState(program, objective_state, phases, updaters, clip_norm)
        loop = _Loop(state, objective, train, held, batch_size, patience, generator)
        if checkpoint is not None:
            loop.resume(Path(checkpoint), seed)
        loop.run(epochs, progress)
        warn_of_floor(program, train)
    return FitResult(loop.history, state)


class _Loop:
    """Epochs: batches in, rows of the history out."""

    def __init__(
        self,
        state: TrainState,
        objective: Objective,
        train: Batch,
        held: Batch | None,
        batch_size: int,
        patience: int | None,
        generator: torch.Generator,
    ) -> None:
        self.state, self.objective = state, objective
        self.train, self.held, self.batch_size = train, held, batch_size
        self.patience, self.generator = patience, generator
        self.history = History()
        self.waited, self.best_score = 0, -float("inf")
        self.best: dict[str, Tensor] = {}
        self.stopped = False
        self.path: Path | None = None
        self.identity: dict[str, Any] = {}

    def run(self, epochs: int, show: bool) -> None:
        """Run until `epochs` are done or patience is at its end, then restore the best state."""
        per_epoch = -(-self.train.rows // self.batch_size)
        label = type(self.objective).__name__
        done = len(self.history)
        with progress_bar(show, epochs * per_epoch, done * per_epoch, label) as bar:
            if done:
                bar.epoch(self.history.rows[-1])
            for epoch in range(done, epochs):
                if self.stopped:
                    break
                row = self._epoch(epoch, per_epoch, bar.step)
                self.history.rows.append(row)
                bar.epoch(row)
                self._judge(row)
                if self.path is not None:
                    self._save()
        if self.best:
            disk.copy_into(disk.program_tensors(self.state), self.best)

    def _epoch(self, epoch: int, per_epoch: int, tick: Any) -> dict[str, float]:  # noqa: ANN401
        start = time.perf_counter()
        order = torch.randperm(self.train.rows, generator=self.generator)
        device = self.state.objective_state.epoch.device
        sums: dict[str, Tensor] = {}
        norms = 0.0
        for k, index in enumerate(order.split(self.batch_size)):
            self.state.objective_state.epoch.fill_(epoch + k / per_epoch)
            self.state, info = train_step(self.state, self.train.take(index.to(device)))
            _accumulate(sums, {"loss": info.loss, **info.parts})
            norms += info.grad_norm
            tick()
        means = self._per_datum(sums, self.train)
        rate = next(iter(self.state.updaters.values())).learning_rate
        for updater in self.state.updaters.values():
            updater.end_epoch()
        row = {"epoch": float(epoch + 1), **means}
        row |= {f"validation_{k}": v for k, v in self._validate().items()}
        row |= {"grad_norm": norms / per_epoch}
        row |= {} if rate is None else {"learning_rate": rate}
        return row | {"seconds": time.perf_counter() - start}

    def _validate(self) -> dict[str, float]:
        if self.held is None:
            return {}
        sums: dict[str, Tensor] = {}
        program = self.state.program
        device = self.state.objective_state.epoch.device
        # The same draws at every epoch, in eval mode: epochs differ by the program alone.
        with (
            torch.no_grad(),
            poutine.block(),
            evaluating(program),
            forked_rng(device_of(program), 0),
        ):
            for index in torch.arange(self.held.rows).split(self.batch_size):
                held = self.held.take(index.to(device))
                loss, parts = self.state.phases[0].loss(
                    self.state.objective_state, *held.args, **held.kwargs
                )
                _accumulate(sums, {"loss": loss, **parts})
        return self._per_datum(sums, self.held)

    def _per_datum(self, sums: dict[str, Tensor], batch: Batch) -> dict[str, float]:
        scale = self.state.objective_state.found.scale
        return {k: float(v) / batch.rows / (scale if k == "loss" else 1.0) for k, v in sums.items()}

    def _judge(self, row: dict[str, float]) -> None:
        if self.patience is None:
            return
        prefix = "validation_"
        means = {k[len(prefix) :]: v for k, v in row.items() if k.startswith(prefix)}
        score = self.objective.score(means)
        if score is None or row["epoch"] <= getattr(self.objective, "warmup", 0):
            return
        if score > self.best_score:
            self.best_score, self.waited = score, 0
            tensors = disk.program_tensors(self.state)
            self.best = {k: v.detach().clone() for k, v in tensors.items()}
        else:
            self.waited += 1
            self.stopped = self.waited >= (self.patience or 0)

    def resume(self, path: Path, seed: int | None) -> None:
        """Continue from `path` if it is there; write to it after each epoch."""
        self.path = path
        total = sum(
            float(v.double().sum()) for v in (*self.train.args, *self.train.kwargs.values())
        )
        self.identity = {
            "objective": repr(self.objective),
            "phases": [p.name for p in self.state.phases],
            "batch_size": self.batch_size,
            "rows": self.train.rows,
            "sum of the data": repr(total),
            "seed": seed,
            "clip_norm": self.state.clip_norm,
            "optimizers": {k: repr(u.spec) for k, u in self.state.updaters.items()},
        }
        if not path.parent.is_dir():
            raise ValueError(
                f"Got checkpoint={str(path)!r} in a folder that is not there; make it."
            )
        if not path.exists():
            return
        tensors, manifest = disk.load(path)
        differ = {
            k: (manifest["identity"].get(k), v)
            for k, v in self.identity.items()
            if manifest["identity"].get(k) != v
        }
        if differ:
            raise ValueError(
                f"The checkpoint {path} is of another run: "
                + "; ".join(f"{k} was {a!r}, now {b!r}" for k, (a, b) in differ.items())
                + ". Try the same arguments, another path, or delete the file to start anew."
            )
        self._create_store_parameters()
        self._load(tensors, manifest)

    def _create_store_parameters(self) -> None:
        # A model that makes its pyro.params as it runs must have run once before they are filled.
        with (
            evaluating(self.state.program),
            torch.no_grad(),
            poutine.trace(param_only=True) as seen,
        ):
            run(self.state.program, self.train.take(torch.arange(min(self.train.rows, 2))))
        self.state.params = {n: s["value"].unconstrained() for n, s in seen.trace.nodes.items()}

    def _save(self) -> None:
        state = self.state
        named = disk.program_tensors(state)
        tensors = {f"program.{k}": v for k, v in named.items()}
        tensors |= {f"best.{k}": v for k, v in self.best.items()}
        tensors |= {f"objective.{k}": v for k, v in state.objective_state.state_dict().items()}
        tensors |= {"rng.torch": torch.get_rng_state(), "rng.order": self.generator.get_state()}
        if (device := device_of(state.program)).type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(device)
        names = {id(v): k for k, v in named.items()}
        names |= {id(p): f"objective.{n}" for n, p in state.objective_state.named_parameters()}
        updaters = {}
        for phase, updater in state.updaters.items():
            saved, plain = updater.state()
            tensors |= {f"optimizer.{phase}.{k}": v for k, v in saved.items()}
            updaters[phase] = {"leaves": [names[id(p)] for p in updater.leaves], "plain": plain}
        disk.save(
            self.path or Path(),
            tensors,
            {
                "identity": self.identity,
                "history": self.history.rows,
                "steps": state.steps,
                "waited": self.waited,
                "best_score": self.best_score,
                "stopped": self.stopped,
                "updaters": updaters,
            },
        )

    def _load(self, tensors: dict[str, Tensor], manifest: dict[str, Any]) -> None:
        state = self.state
        named = disk.program_tensors(state)
        values = disk.take(tensors, "program.")
        shapes = {k: tuple(v.shape) for k, v in named.items()}
        if shapes != {k: tuple(v.shape) for k, v in values.items()}:
            raise ValueError(
                f"The checkpoint {self.path} holds another program: its tensors differ in name or "
                "shape. Try building the program as it was, or delete the file to start anew."
            )
        disk.copy_into(named, values)
        self.best = disk.take(tensors, "best.")
        state.objective_state.load_state_dict(disk.take(tensors, "objective."))
        owners = {
            **named,
            **{f"objective.{n}": p for n, p in state.objective_state.named_parameters()},
        }
        for phase, saved in manifest["updaters"].items():
            updater = state.updaters[phase]
            updater.take([owners[n] for n in saved["leaves"]])
            updater.restore(disk.take(tensors, f"optimizer.{phase}."), saved["plain"])
        self.history.rows[:] = manifest["history"]
        state.steps, self.waited = manifest["steps"], manifest["waited"]
        self.best_score, self.stopped = manifest["best_score"], manifest["stopped"]
        self.generator.set_state(tensors["rng.order"])
        torch.set_rng_state(tensors["rng.torch"])
        if "rng.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng.cuda"], device_of(state.program))


def _as_objective(objective: Objective | pyro.infer.ELBO) -> Objective:
    if isinstance(objective, pyro.infer.ELBO):
        return PyroELBO(objective)
    if isinstance(objective, type) or not hasattr(objective, "phases"):
        raise ValueError(
            f"Got objective={objective!r}; expected an instance such as ELBO(), Adversarial() or "
            "pyro.infer.TraceEnum_ELBO(). Objectives are values: mind the brackets."
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
        raise ValueError(
            f"Got validation={validation} of {batch.rows} rows; expected a fraction that leaves a row "
            "or more to validate and two or more to train on. Try 0.1, or pass validation data."
        )
    order = torch.randperm(batch.rows, generator=generator)
    return batch.take(order[count:]), batch.take(order[:count])


@contextmanager
def _training(program: nn.Module) -> Iterator[None]:
    with evaluating(program):  # gives every part back in the mode it was found in
        program.train()
        yield


def _accumulate(sums: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for k, v in values.items():
        v = v.detach()
        sums[k] = sums[k] + v if k in sums else v.double()
