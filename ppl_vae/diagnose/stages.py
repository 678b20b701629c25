"""What takes time, in order of value, each with what it will take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ppl_vae.data.batches import Batch
from ppl_vae.diagnostics.typicality import typicality
from ppl_vae.posterior.ais import ais, ais_sandwich
from ppl_vae.posterior.checks import posterior_check, posterior_check_at, prior_check
from ppl_vae.posterior.draws import as_array
from ppl_vae.posterior.gaps import gaps
from ppl_vae.posterior.guide_agreement import guide_agreement
from ppl_vae.posterior.mutual import mutual_information
from ppl_vae.posterior.nuts import reference_posterior
from ppl_vae.posterior.simulated import log_mean_weight, simulate
from ppl_vae.programs.log_weights import WeightedDraws
from ppl_vae.programs.modes import drawing
from ppl_vae.programs.runs import run
from ppl_vae.training.progress import Bar

SIMULATED = 1000
DRAWS = 100
PAIRS = 1000  # data whose codes are scored under all guides
REFINED = 50
ANNEALED = 20
TEMPERATURES = 200
CHAINS = 16
LEAPFROG = 10
SAMPLED = 5
NUTS = 4  # chains
TRANSITIONS = 1000  # of each, warm-up and draws
PATH = 15  # gradients of a transition, about

BACKWARDS = 3.0  # what a run with gradients takes, in runs without


class Subject(NamedTuple):
    """What is looked at, and how quick it is.

    Attributes:
        program: The program.
        batch: The data.
        drawn: Draws of q(z|x) with their weights, or None.
        chosen: Rows in a random order, for what is too slow for all of them.
        seed: Of all draws.
        per_row: Seconds that a row of guide and model takes among many.
        per_run: Seconds that a run on few rows takes.
    """

    program: nn.Module
    batch: Batch
    drawn: WeightedDraws | None
    chosen: NDArray[np.int64]
    seed: int
    per_row: float
    per_run: float

    def some(self, count: int) -> Batch:
        """Give the first of `chosen`."""
        return self.batch.take(torch.as_tensor(self.chosen[:count], device=self.batch.device))


class Stage(NamedTuple):
    """A part of the diagnosis.

    Attributes:
        name: What it is called.
        seconds: Says what it will take.
        run: Gives fields of the `Diagnosis`.
    """

    name: str
    seconds: Callable[[Subject], float]
    run: Callable[[Subject], Mapping[str, Any]]


def pace(program: nn.Module, batch: Batch) -> float:
    """Measure the seconds of a run of guide and model on few rows."""
    few = batch.take(torch.arange(min(batch.rows, 20), device=batch.device))
    times = []
    with drawing(program, 0):
        for _ in range(3):  # the first may load what the others find loaded
            start = time.perf_counter()
            run(program, few)
            times.append(time.perf_counter() - start)
    return min(times)


def run_stages(
    subject: Subject, budget: float, bar: Bar
) -> tuple[dict[str, Any], dict[str, str], dict[str, float]]:
    """Run what fits: fields of the diagnosis, why parts were left out, seconds of each part."""
    found: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    for stage in STAGES:
        left = budget - (time.perf_counter() - start)
        expected = stage.seconds(subject)
        if expected > left:
            left_out[stage.name] = f"about {expected:.0f} s, with {max(left, 0):.0f} s left"
        else:
            bar.say(f"{stage.name}, about {expected:.0f} s")
            begun = time.perf_counter()
            try:
                found |= stage.run(subject)
            except ValueError as error:  # it has no meaning for this program, and says why
                left_out[stage.name] = str(error)
            seconds[stage.name] = time.perf_counter() - begun
        bar.step()
    return found, left_out, seconds


def _simulated(s: Subject) -> Mapping[str, Any]:
    own = simulate(s.program, s.batch, SIMULATED, DRAWS, seed=s.seed + 10)
    found: dict[str, Any] = {"calibration": own.calibration()}
    if s.drawn is not None and own.log_evidence is not None:
        few = as_array(s.drawn.log_weights[:DRAWS])
        if len(few) == DRAWS:  # both sides from as many draws
            found["typicality"] = typicality(log_mean_weight(few), own.log_evidence)
    return found


def _prior_check(s: Subject) -> Mapping[str, Any]:
    return {"prior_check": prior_check(s.program, s.batch, num_draws=DRAWS, seed=s.seed + 20)}


def _information(s: Subject) -> Mapping[str, Any]:
    return {"information": mutual_information(s.program, s.some(PAIRS), seed=s.seed + 30)}


def _posterior_check(s: Subject) -> Mapping[str, Any]:
    if s.drawn is None or not s.drawn.latents:
        return {"posterior_check": posterior_check(s.program, s.batch, seed=s.seed + 40)}
    few = {n: v[:DRAWS] for n, v in s.drawn.latents.items()}
    return {"posterior_check": posterior_check_at(s.program, s.batch, few, seed=s.seed + 40)}


def _gaps(s: Subject) -> Mapping[str, Any]:
    return {"gaps": gaps(s.program, s.some(REFINED), seed=s.seed + 50, progress=False)}


def _ais(s: Subject) -> Mapping[str, Any]:
    return {
        "ais": ais(
            s.program, s.some(ANNEALED), temperatures=TEMPERATURES, num_chains=CHAINS,
            leapfrog=LEAPFROG, seed=s.seed + 60, progress=False,
        )
    }  # fmt: skip


def _sandwich(s: Subject) -> Mapping[str, Any]:
    return {
        "sandwich": ais_sandwich(
            s.program, s.batch, num_data=ANNEALED, temperatures=TEMPERATURES, num_chains=CHAINS,
            leapfrog=LEAPFROG, seed=s.seed + 70, progress=False,
        )
    }  # fmt: skip


def _reference(s: Subject) -> Mapping[str, Any]:
    few = s.some(SAMPLED)
    reference = reference_posterior(
        s.program, few, num_samples=TRANSITIONS // 2, warmup=TRANSITIONS // 2, num_chains=NUTS,
        seed=s.seed + 80, progress=False,
    )  # fmt: skip
    return {
        "reference": reference,
        "agreement": guide_agreement(s.program, few, reference, seed=s.seed + 81),
    }


def _gradients(s: Subject, runs: int, rows: int) -> float:
    """Seconds of runs with gradients on some rows."""
    return BACKWARDS * runs * (s.per_run + rows * s.per_row)


def _annealing(s: Subject, ways: int) -> float:
    moves = ways * TEMPERATURES + TEMPERATURES // 5  # the pilot's among them
    return _gradients(s, moves * (LEAPFROG + 1), CHAINS * ANNEALED)


STAGES = (
    Stage("calibration and typicality", lambda s: 1.2 * SIMULATED * DRAWS * s.per_row, _simulated),
    Stage("prior predictive check", lambda s: DRAWS * s.batch.rows * s.per_row, _prior_check),
    Stage("mutual information", lambda s: min(s.batch.rows, PAIRS) ** 2 * s.per_row, _information),
    Stage(
        "posterior predictive check", lambda s: DRAWS * s.batch.rows * s.per_row, _posterior_check
    ),
    Stage("gaps", lambda s: _gradients(s, 1000, REFINED), _gaps),
    Stage("annealed importance sampling", lambda s: _annealing(s, 1), _ais),
    Stage("AIS from both sides", lambda s: _annealing(s, 2), _sandwich),
    Stage(
        "reference posterior",
        lambda s: _gradients(s, NUTS * TRANSITIONS * PATH, SAMPLED),
        _reference,
    ),
)
