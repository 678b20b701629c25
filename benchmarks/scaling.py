"""Time and peak memory of compiled training against rows, batch, latent size and particles.

One measure at a time varies, the others stay at 20,000 rows of 64 cells, batches of 128, a latent
of 8, one particle (of `ImportanceWeighted`) and hidden layers of 64. Every cell is a `fit` of its
own process, whose peak resident memory is read at the end; the time is the median over its epochs,
without the first two, in which the step is compiled. Beside each table stands the log-log slope of
its last two cells: 1 is linear, less is a fixed cost that is not used up yet. Memory is given
without the data.

Usage: python benchmarks/scaling.py [--quick] [--threads N]
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import torch
from record import record

from ppl_vae import (
    MLP,
    VAE,
    Bernoulli,
    Conditional,
    ImportanceWeighted,
    Normal,
    StandardNormal,
    fit,
)

SEED = 0
CELLS, HIDDEN = 64, 64
USUAL = {"rows": 20_000, "batch": 128, "latent": 8, "particles": 1}
SWEEPS = {
    "rows": [1_000, 10_000, 100_000, 1_000_000],
    "batch": [32, 128, 512, 2048, 8192],
    "latent": [2, 8, 32, 128, 512, 2048],
    "particles": [1, 4, 16, 64, 256],
}
QUICK = {"rows": [1_000, 2_000]}
EPOCHS = 6


def main() -> None:
    """Sweep each measure, and write the tables down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two small cells")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cell", help=argparse.SUPPRESS)  # what a process of its own is given
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.cell:
        print(json.dumps(cell(**json.loads(options.cell))))
        return
    started = time.perf_counter()
    figures: dict[str, Any] = {"threads": options.threads}
    for name, values in (QUICK if options.quick else SWEEPS).items():
        found = [apart({**USUAL, name: v}, options.threads) for v in values]
        # Rows change the length of an epoch, the others that of a step.
        measure = "epoch_s" if name == "rows" else "step_ms"
        for value, one in zip(values, found, strict=True):
            shown = f"{one[measure]:.4g} {measure[-2:].strip('_')}, {one['memory_MB']:.0f} MB"
            print(f"{name:10s} {value:9,d}  {shown}", flush=True)
        figures[f"by_{name}"] = [{name: v, **o} for v, o in zip(values, found, strict=True)]
        figures[f"slope_of_time_in_{name}"] = slope(values, [o[measure] for o in found])
        spread = found[-1]["memory_MB"] - found[0]["memory_MB"]
        figures[f"growth_of_memory_in_{name}_MB"] = round(spread)
    record(__file__, figures, seed=SEED, started=started, quick=options.quick)


def apart(case: dict[str, int], threads: int) -> dict[str, float]:
    """Measure a cell in a process of its own: peak memory is never given back."""
    command = [sys.executable, __file__, "--cell", json.dumps(case), "--threads", str(threads)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(run.stderr)
    found: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return found


def cell(rows: int, batch: int, latent: int, particles: int) -> dict[str, float]:
    """Train on data of one size."""
    torch.manual_seed(SEED)
    x = torch.empty(rows, CELLS)
    for part in x.split(10_000):  # no noise of the whole size: its memory would count
        part.bernoulli_(0.3)
    program = VAE(
        StandardNormal(latent),
        Conditional(MLP(HIDDEN), Bernoulli(CELLS), given=latent),
        Conditional(MLP(HIDDEN), Normal(latent), given=CELLS),
    )
    history, _ = fit(
        program,
        x,
        objective=ImportanceWeighted(particles),
        epochs=EPOCHS,
        batch_size=batch,
        seed=SEED,
        compile=True,
        progress=False,
    )
    seconds = statistics.median(history["seconds"][2:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "epoch_s": round(seconds, 5),
        "step_ms": round(1e3 * seconds / -(-rows // batch), 4),
        "memory_MB": round((peak - x.nbytes) / 1e6, 1),
        "data_MB": round(x.nbytes / 1e6, 1),
    }


def slope(sizes: list[int], times: list[float]) -> float:
    """The exponent between the last two cells."""
    return round(math.log(times[-1] / times[-2]) / math.log(sizes[-1] / sizes[-2]), 3)


if __name__ == "__main__":
    main()
