"""Epochs: batches in, rows of the history out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from pyro import poutine
from torch import Tensor

from ppl_vae.data.batches import Batch
from ppl_vae.objectives import Objective
from ppl_vae.objectives.phases import PER
from ppl_vae.programs.modes import device_of, evaluating, forked_rng, probing
from ppl_vae.training.adversary import adversary
from ppl_vae.training.collapse import collapse
from ppl_vae.training.engine import Engine
from ppl_vae.training.history import History
from ppl_vae.training.progress import Bar, progress_bar
from ppl_vae.training.step import TrainState
from ppl_vae.training.warned import warn

FORWARD = 4  # batches that take about as much memory forwards as one does forwards and back


@dataclass
class Loop:
    """A run in progress: what it works on, and what it has come to.

    Attributes:
        state: What the steps change.
        objective: Judges validation means.
        engine: Takes the steps.
        train: The data to train on.
        held: The data to validate on, or None.
        batch_size: Rows per step.
        patience: Epochs to wait for a better score, or None.
        order: Draws the order of batches.
        history: The rows so far.
        best: The program's tensors at the best score so far; empty without patience.
        best_score: That score.
        waited: Epochs since.
    """

    state: TrainState
    objective: Objective
    engine: Engine
    train: Batch
    held: Batch | None
    batch_size: int
    patience: int | None
    order: torch.Generator
    history: History = field(default_factory=History)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_score: float = -float("inf")
    waited: int = 0

    def run(self, epochs: int, show: bool, after_epoch: Callable[[], None] | None = None) -> None:
        """Run until `epochs` are done or patience is at its end, then restore the best state."""
        steps = -(-self.train.rows // self.batch_size)
        done = len(self.history)
        if done > epochs:
            raise ValueError(
                f"The checkpoint has {done} epochs done; expected at most epochs={epochs}. Try "
                f"epochs={done}, or another path."
            )
        with progress_bar(show, epochs * steps, done * steps, type(self.objective).__name__) as bar:
            for epoch in range(done, epochs):
                if self.patience is not None and self.waited >= self.patience:
                    break
                row = self._epoch(epoch, steps, bar)
                self.history.rows.append(row)
                self._judge(row)
                bar.epoch(row)
                warmup = getattr(self.objective, "warmup", 0)
                trained = not hasattr(self.state.program, "admit")  # not a guide for certain data
                if trained:
                    rows = self.history.rows
                    weight = getattr(self.objective, "weight", 1.0)
                    for said in (collapse(rows, warmup), *adversary(rows, weight)):
                        if said is not None:
                            warn(said)
                if after_epoch is not None:
                    after_epoch()
        self.engine.look(self.state)
        if self.best:  # a parameter that came later stays as it is
            self.state.load({**self.state.tensors(), **self.best})

    def refuse_no_score(self) -> None:
        """Refuse patience where the objective has no validation score, before training.

        Raises:
            ValueError: If so.
        """
        with probing(self.state.program):
            means = self._validate()
        if self.patience is not None and self.objective.score(means) is None:
            raise ValueError(
                f"Got patience={self.patience} under {type(self.objective).__name__}, whose "
                "validation score is None; expected a score to judge epochs by. Try "
                "patience=None, or give the objective a score(means)."
            )

    def _epoch(self, epoch: int, steps: int, bar: Bar) -> dict[str, float]:
        start = time.perf_counter()
        clock = self.state.objective_state.epoch
        self.engine.look(self.state)
        order = torch.randperm(self.train.rows, generator=self.order)
        sums: dict[str, float] = {}
        norms, rows = 0.0, 0
        for k, index in enumerate(order.split(self.batch_size)):
            clock.fill_(epoch + k / steps)
            if self.engine.about_to_compile(self.state):
                bar.say("compiling the step")
            self.state, info = self.engine.step(self.state, self.train.take(index.to(clock.device)))
            _add(sums, {"loss": info.loss, **info.parts})
            rows += info.rows
            norms += info.grad_norm
            bar.step()
        row = {"epoch": float(epoch + 1), **_means(sums, rows)}
        row |= {f"validation_{k}": v for k, v in self._validate().items()}
        row["grad_norm"] = norms / steps
        rate = next(iter(self.state.updaters.values())).learning_rate
        if rate is not None:
            row["learning_rate"] = rate
        for updater in self.state.updaters.values():
            updater.end_epoch()
        row["seconds"] = time.perf_counter() - start
        return row

    def _validate(self) -> dict[str, float]:
        if self.held is None:
            return {}
        program, clock = self.state.program, self.state.objective_state.epoch
        found, rows = self.state.objective_state.found, 0
        sums: dict[str, float] = {}
        # The same draws at every epoch, in eval mode: epochs differ by the program alone.
        with (
            torch.no_grad(),
            poutine.block(),
            evaluating(program),
            evaluating(self.state.objective_state),  # a critic too
            forked_rng(device_of(program), seed=0),
        ):
            for index in torch.arange(self.held.rows).split(FORWARD * self.batch_size):
                held = self.held.take(index.to(clock.device))
                for phase in (p for p in self.state.phases if p.counts):
                    loss, parts = phase.loss(self.state.objective_state, *held.args, **held.kwargs)
                    _add(sums, {"loss": loss / found.scale(held.rows), **parts})
                rows += found.seen(held.rows)
        return _means(sums, rows)

    def _judge(self, row: dict[str, float]) -> None:
        prefix = "validation_"
        means = {k.removeprefix(prefix): v for k, v in row.items() if k.startswith(prefix)}
        warming = row["epoch"] <= getattr(self.objective, "warmup", 0)
        if self.patience is None or not means:
            return
        score = self.objective.score(means)
        if score is None:  # nothing to judge by is no reason to stop
            return
        if score > self.best_score:
            self.best_score, self.waited = score, 0
            self.best = {k: v.detach().clone() for k, v in self.state.tensors().items()}
        elif not warming:  # the bound may well fall while the KL gains weight
            self.waited += 1


def _add(sums: dict[str, float], values: dict[str, float | Tensor]) -> None:
    for k, v in values.items():
        sums[k] = sums.get(k, 0.0) + float(v)


def _means(sums: dict[str, float], rows: int) -> dict[str, float]:
    """Divide sums by rows, or by what counts; NaN where nothing counts."""
    per = {k: sums.get(k + PER, rows) for k in sums if not k.endswith(PER)}
    return {k: sums[k] / n if n else math.nan for k, n in per.items()}
