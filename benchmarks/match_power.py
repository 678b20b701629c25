"""What `aggregate_match` finds: its level, and its power against three faults, N = 2000.

q(z) is the law of the prior (500 runs: the level, with the 99.9 % limit of the binomial around the
level that a test can attain), or differs from it (100 runs each) by a shift of 0.2 sd in every
coordinate, by a scale of 0.8, or, of a prior of ten far Gaussians, by one that is missing. D = 2,
8, 40. Kernel, classifier, single units (Holm), and all three together (Holm), at level 0.05; the
last is the one that `aggregate_match` reports. Every run has draws of its own.

About an hour on one core: --work keeps what each piece gave, and two processes may share it.

Usage: python benchmarks/match_power.py [--quick] [--work DIR] [--cells NAME,...]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from record import record, resumed
from scipy.stats import binom

from ppl_vae.diagnostics import match

DATA, LEVEL, RUNS, BROKEN_RUNS, COMPONENTS, RADIUS = 2000, 0.05, 500, 100, 10, 6.0
SIZES = (2, 8, 40)
TESTS = ("kernel", "classifier", "units", "together")

Floats = NDArray[np.float64]


def centres(size: int) -> Floats:
    """Ten places at one distance from 0: on a circle, or at random on a sphere, the same always."""
    if size == 2:
        angle = 2 * np.pi * np.arange(COMPONENTS) / COMPONENTS
        return RADIUS * np.stack([np.cos(angle), np.sin(angle)], 1)
    found = np.random.default_rng(7).standard_normal((COMPONENTS, size))
    return RADIUS * found / np.linalg.norm(found, axis=1, keepdims=True)


def mixture(rng: np.random.Generator, size: int, used: int) -> Floats:
    """Draw from the first of the ten."""
    which = rng.integers(used, size=DATA)
    return centres(size)[which] + rng.standard_normal((DATA, size))


def normal(rng: np.random.Generator, size: int) -> Floats:
    """Draw from N(0, I)."""
    return rng.standard_normal((DATA, size))


LAWS: dict[str, tuple[Callable[..., Floats], Callable[..., Floats]]] = {
    "exact": (normal, normal),
    "exact of ten components": (
        lambda rng, size: mixture(rng, size, COMPONENTS),
        lambda rng, size: mixture(rng, size, COMPONENTS),
    ),
    "shift 0.2 sd": (lambda rng, size: normal(rng, size) + 0.2, normal),
    "scale × 0.8": (lambda rng, size: 0.8 * normal(rng, size), normal),
    "one of ten missing": (
        lambda rng, size: mixture(rng, size, COMPONENTS - 1),
        lambda rng, size: mixture(rng, size, COMPONENTS),
    ),
}
PIECES = [f"{size}|{law}" for size in SIZES for law in LAWS]


def piece(name: str, runs: int | None = None) -> dict[str, Any]:
    """Rejection rates of one cell of the table, with the mean effects."""
    size, law = name.split("|")
    dims = int(size)
    codes, prior = LAWS[law]
    started, found, effects = time.perf_counter(), [], []
    for run in range(runs or (RUNS if law.startswith("exact") else BROKEN_RUNS)):
        rng = np.random.default_rng([SIZES.index(dims), list(LAWS).index(law), run])
        test = match(codes(rng, dims), prior(rng, dims), seed=run)
        found.append(
            [test.mmd.p_value, test.classifier.p_value, min(test.unit_p_values.values()),
             test.p_value]
        )  # fmt: skip
        effects.append([test.classifier.accuracy, test.mmd.mmd2 - test.mmd.null_mean])
    rates = (np.array(found) <= LEVEL).mean(0)
    accuracy, mmd2 = np.mean(effects, axis=0)
    return {
        "D": dims,
        "law": law,
        "runs": len(found),
        **{t: round(float(r), 4) for t, r in zip(TESTS, rates, strict=True)},
        "accuracy": round(float(accuracy), 4),
        "mmd2_beyond_chance": round(float(mmd2), 5),
        "seconds": round(time.perf_counter() - started),
    }


def table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Levels against their limit, powers of what was named, and the rows."""
    exact = [r for r in rows if r["law"].startswith("exact")]
    # Tests of several units, and all together, are conservative: their limit is one-sided.
    limit = max(float(binom.ppf(0.9995, r["runs"], LEVEL)) / r["runs"] for r in exact)
    high = [f"{r['law']}, D = {r['D']}: {t}" for r in exact for t in TESTS if r[t] > limit]
    power = {f"{r['law']}, D = {r['D']}": r["together"] for r in rows if r not in exact}
    return {
        "data": DATA,
        "level": LEVEL,
        "limit": round(limit, 4),
        "largest_level": max(r[t] for r in exact for t in TESTS),
        "levels_above_the_limit": high or "none",
        "power": power,
        "rows": rows,
    }


def main() -> None:
    """Run the pieces that are not done, and write the table down if all are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two runs of each")
    parser.add_argument("--work", default="match_power", help="folder of results")
    parser.add_argument("--cells", default=",".join(PIECES), help="such as '2|exact'")
    options = parser.parse_args()
    started = time.perf_counter()
    if options.quick:
        rows = [piece(name, 2) for name in PIECES if name.startswith("2|")]
        record(__file__, table(rows), seed=0, started=started, quick=True)
        return
    rows = resumed(Path(options.work), PIECES, options.cells.split(","), piece)
    if rows is not None:
        record(__file__, table(rows), seed=0, started=started)


if __name__ == "__main__":
    main()
