"""A dozen pairs of program and objective through the compiler, 50 steps each against eager.

The programs and objectives are those of tests/test_compiled.py, where all pairs run as graphs;
here a choice that covers each of them once goes through inductor too. Bound: 1e-4 of the loss at
every epoch.

Usage: python benchmarks/compiled_pairs.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from record import record

from ppl_vae.training.inductor import why_not

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from test_compiled import OBJECTIVES, PROGRAMS, history  # noqa: E402

PAIRS = [
    ("vae", "ELBO"),
    ("vae", "adversarial"),
    ("batch norm", "3 particles, warm-up"),
    ("dropout", "Trace_ELBO"),
    ("full covariance", "analytic KL"),
    ("mixture", "importance weighted"),
    ("vamp", "ELBO"),
    ("functions", "TraceMeanField_ELBO"),
    ("masked rows", "ELBO"),
    ("covariate", "importance weighted"),
    ("PyroModule", "3 particles, warm-up"),
    ("nested", "Trace_ELBO"),
    ("bias before batch norm", "ELBO"),
]


def main() -> None:
    """Compare, and fail beyond the bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the first pair alone")
    options = parser.parse_args()
    if (reason := why_not()) is not None:
        print(json.dumps({"script": "compiled_pairs", "skipped": reason}))
        return
    started = time.perf_counter()
    rows = []
    for name, objective in PAIRS[: 1 if options.quick else None]:
        how, start = OBJECTIVES[objective], time.perf_counter()
        eager, _ = history(name, how, False, dtype=torch.float32)
        found, _ = history(name, how, True, dtype=torch.float32)
        worst = float(np.abs(found["loss"] / eager["loss"] - 1).max())
        seconds = round(time.perf_counter() - start, 1)
        rows.append({"program": name, "objective": objective, "worst": worst, "seconds": seconds})
        print(f"{name:16s} {objective:22s} {worst:.1e}  {seconds} s", flush=True)
    worst = max(r["worst"] for r in rows)
    figures = {"pairs": rows, "worst_relative_difference": worst, "programs": len(PROGRAMS)}
    record(__file__, figures, seed=0, started=started, quick=options.quick)
    if worst > 1e-4:
        raise SystemExit(f"The worst pair differs by {worst:.1e}; expected 1e-4 or less.")


if __name__ == "__main__":
    main()
