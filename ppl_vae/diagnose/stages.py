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
from ppl_vae.posterior.unconstrained import Unconstrained
from ppl_vae.programs.log_weights import WeightedDraws
from ppl_vae.programs.modes import drawing
from ppl_vae.programs.runs import run
from ppl_vae.programs.traces import NoDensityError, Structure
from ppl_vae.training.progress import Bar
from ppl_vae.training.warned import warn

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
PATH = 6  # gradients of a transition, about; the energy is compiled

GRADIENT, STEP = 1.5, 9.0  # a run with gradients, and a step of training, in runs without


class Subject(NamedTuple):
    """What is looked at, and how quick it is.

    Attributes:
        program: The program.
        batch: The data.
        found: Its sites.
        drawn: Draws of q(z|x) with their weights, or None.
        chosen: Rows in a random order, for what is too slow for all of them.
        seed: Of all draws.
        per_row: Seconds that a row of guide and model takes among many.
        per_run: Seconds that a run on few rows takes.
    """

    program: nn.Module
    batch: Batch
    found: Structure
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
        why_not: Says why it has no meaning for a program, however much time there is; None where it
            may have.
    """

    name: str
    seconds: Callable[[Subject], float]
    run: Callable[[Subject], Mapping[str, Any]]
    why_not: Callable[[Subject], str | None]


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
        if (reason := stage.why_not(subject)) is not None:
            left_out[stage.name] = reason
        elif expected > left:
            left_out[stage.name] = f"about {expected:.0f} s, with {max(left, 0):.0f} s left"
        else:
            bar.say(f"{stage.name}, about {expected:.0f} s")
            begun = time.perf_counter()
            try:
                found |= stage.run(subject)
            except ValueError as error:  # it has no meaning for this program, and says why
                left_out[stage.name] = str(error)
            except Exception as error:  # noqa: BLE001 what the other parts found is not lost
                what = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                left_out[stage.name] = f"it failed: {what}"
                warn(f"diagnose: {stage.name} failed ({what}).")
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
        return {
            "posterior_check": posterior_check(
                s.program, s.batch, num_draws=DRAWS, seed=s.seed + 40
            )
        }
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


def _runs(s: Subject, runs: int, rows: int) -> float:
    """Seconds of runs on some rows."""
    return runs * (s.per_run + rows * s.per_row)


def _annealing(s: Subject, ways: int) -> float:
    moves = ways * TEMPERATURES + TEMPERATURES // 5  # the pilot's among them
    return GRADIENT * _runs(s, moves * (LEAPFROG + 1), CHAINS * ANNEALED)


def _own_latents(s: Subject) -> str | None:
    shared = s.found.shared
    return f"all data have {', '.join(shared)} in common" if shared else None


def _drawn(s: Subject) -> str | None:
    if s.found.enumerated:
        return f"{', '.join(s.found.enumerated)} is summed out"
    return s.found.undefined


def _smooth(s: Subject) -> str | None:
    try:
        Unconstrained(s.program, s.some(2))
    except NoDensityError as error:
        return str(error)
    return None


def _anything(s: Subject) -> str | None:
    return None


STAGES = (
    Stage(
        "calibration and typicality",
        lambda s: 2 * SIMULATED * DRAWS * s.per_row,
        _simulated,
        _own_latents,
    ),
    Stage(
        "prior predictive check",
        lambda s: DRAWS * s.batch.rows * s.per_row,
        _prior_check,
        _own_latents,
    ),
    Stage(
        "mutual information",
        lambda s: min(s.batch.rows, PAIRS) ** 2 * s.per_row,
        _information,
        _drawn,
    ),
    Stage(
        "posterior predictive check",
        lambda s: DRAWS * s.batch.rows * s.per_row,
        _posterior_check,
        _anything,
    ),
    Stage("gaps", lambda s: STEP * _runs(s, 1000, REFINED), _gaps, _drawn),
    Stage("annealed importance sampling", lambda s: _annealing(s, 1), _ais, _smooth),
    Stage("AIS from both sides", lambda s: _annealing(s, 2), _sandwich, _smooth),
    Stage(
        "reference posterior",
        lambda s: GRADIENT * _runs(s, NUTS * TRANSITIONS * PATH, SAMPLED),
        _reference,
        _smooth,
    ),
)
