"""Coverage of intervals for log p(x) from importance weights, where the truth is known.

The posterior is N(0, I_D), the guide N(shift, scale² I_D), and log p(x) = 0:
z = shift + scale ε, log w = log N(z; 0, I) - log N(z; shift, scale² I). Every run draws S weights
and asks whether a nominal 95 % interval holds 0. No run is left out; coverage among the runs that
pass k-hat is reported beside it, to show what selecting on k-hat does.

Usage: python benchmarks/evidence_coverage.py [--quick]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from record import record
from scipy import stats

from ppl_vae.diagnostics import evidence, log_mean_interval

SEED = 20240
LEVEL = 0.95
GUIDES = {  # name: (shift, scale), in units of the posterior's sd
    "wide 1.2": (0.0, 1.2),
    "wide 1.5": (0.0, 1.5),
    "shift 0.5": (0.5, 1.0),
    "shift 1.0": (1.0, 1.0),
    "narrow 0.8": (0.0, 0.8),
    "narrow 0.6": (0.0, 0.6),
}
CALIBRATED = ("wide 1.2", "wide 1.5", "shift 0.5")  # the headline is over these
DIMENSIONS = (2, 4, 8)
DRAWS = (400, 1000, 2000)
CHOSEN = f"chosen {LEVEL}"
CHUNK = 100  # runs at a time

Floats = NDArray[np.float64]
Interval = tuple[Floats, Floats]


def log_weights(
    rng: np.random.Generator, shape: tuple[int, int], dims: int, shift: float, scale: float
) -> Floats:
    """Draw log weights of the given shape (S, runs)."""
    log_w = np.full(shape, dims * np.log(scale))
    for _ in range(dims):
        noise = rng.standard_normal(shape)
        log_w += 0.5 * noise**2 - 0.5 * (shift + scale * noise) ** 2
    return log_w


def alternatives(log_w: Floats) -> dict[str, Interval]:
    """Compute the intervals that were tried and not chosen."""
    draws, top = len(log_w), log_w.max(axis=0)
    weights = np.exp(log_w - top)
    mean, sd = weights.mean(axis=0), weights.std(axis=0, ddof=1)
    value, se = top + np.log(mean), sd / mean / np.sqrt(draws)
    centred = (weights - mean) / sd
    skewness = np.mean(centred * centred * centred, axis=0) / np.sqrt(draws)
    z, t = stats.norm.ppf(0.5 + LEVEL / 2), stats.t.ppf(0.5 + LEVEL / 2, draws - 1)

    def of_mean(high: Floats | float, low: Floats | float) -> Interval:
        """Give limits for log E w from those of T = (mean w - E w) / se."""
        return (
            value + np.log(np.maximum(1 - high * se, 1e-300)),
            value + np.log(np.maximum(1 - low * se, 1e-300)),
        )

    def untransform(quantile: float) -> Floats:
        return 3 / skewness * (np.cbrt(1 + skewness * (quantile - skewness / 6)) - 1)

    johnson = skewness / 6 * (1 + 2 * t**2)
    return {
        "delta": (value - z * se, value + z * se),
        "t on the mean": of_mean(t, -t),
        "Johnson": of_mean(t - johnson, -t - johnson),
        "Hall, normal": of_mean(untransform(z), untransform(-z)),
    }


def misses(interval: Interval) -> list[int]:
    """Count the runs whose truth, 0, lies below and above the interval."""
    lower, upper = interval
    return [int(np.sum(lower > 0)), int(np.sum(upper < 0))]


def cell(guide: str, dims: int, draws: int, runs: int, seed: list[int]) -> dict[str, Any]:
    """Run one cell of the grid."""
    rng = np.random.default_rng(seed)
    shift, scale = GUIDES[guide]
    counts: dict[str, list[int]] = {}
    passed, passed_and_held = 0, 0
    errors, biases, ess = [], [], []
    for _ in range(runs // CHUNK):
        log_w = log_weights(rng, (draws, CHUNK), dims, shift, scale)
        intervals = alternatives(log_w)
        for level in (0.8, 0.95, 0.99):
            intervals[f"chosen {level}"] = log_mean_interval(log_w, level)
        for method, interval in intervals.items():
            counts[method] = np.add(counts.get(method, [0, 0]), misses(interval)).tolist()
        e = evidence(log_w, level=LEVEL)
        passed += int(e.quantified.sum())
        passed_and_held += int(np.sum((e.lower <= 0) & (e.upper >= 0)))  # NaN compares false
        errors.append(e.log_evidence)
        biases.append(e.bias)
        ess.append(e.ess)
    return {
        "guide": guide,
        "dims": dims,
        "draws": draws,
        "runs": runs,
        "coverage": {k: round(1 - sum(v) / runs, 4) for k, v in counts.items()},
        "truth_below": round(counts[CHOSEN][0] / runs, 4),
        "truth_above": round(counts[CHOSEN][1] / runs, 4),
        "passed_khat": round(passed / runs, 4),
        "coverage_of_passed": round(passed_and_held / passed, 4) if passed else None,
        "mean_error_nats": round(float(np.mean(errors)), 5),
        "mean_bias_estimate_nats": round(float(np.mean(biases)), 5),
        "median_ess_share": round(float(np.median(ess) / draws), 3),
    }


def ranges(cells: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Give the smallest and the largest coverage of each method over some cells."""
    return {
        method: [round(f(c["coverage"][method] for c in cells), 4) for f in (min, max)]
        for method in cells[0]["coverage"]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100 runs a cell, not 10 000")
    quick = parser.parse_args().quick
    runs = 100 if quick else 10_000

    started = time.perf_counter()
    cells = []
    for g, guide in enumerate(GUIDES):
        for dims in DIMENSIONS:
            for draws in DRAWS:
                c = cell(guide, dims, draws, runs, [SEED, g, dims, draws])
                cells.append(c)
                shown = "  ".join(f"{k} {100 * v:.1f}" for k, v in c["coverage"].items())
                print(f"{guide:10s}  D {dims}  S {draws:4d}  {shown}", flush=True)

    figures = {
        "level": LEVEL,
        "runs_per_cell": runs,
        "coverage_of_wide_and_half_sd_shifted": ranges(
            [c for c in cells if c["guide"] in CALIBRATED]
        ),
        "coverage_by_guide": {g: ranges([c for c in cells if c["guide"] == g]) for g in GUIDES},
        "cells": cells,
    }
    record(__file__, figures, seed=SEED, started=started, quick=quick)


if __name__ == "__main__":
    main()
