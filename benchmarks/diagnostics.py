"""What each diagnostic catches: rejection rates on exact guides, and on guides broken on purpose.

A linear-Gaussian world whose posterior has the correlation −0.9 in every pair of units, and one
whose posterior has two modes in its first unit; N = 1000 data, S = 100 draws; level 0.05, with
Holm's correction for several units or cells. 500 runs of the exact guide give the level, 100 of
each defect the power; every run has data, draws and truth of its own. What should catch a defect is
named in CATCHES, before any run; what is blind to it by its nature is in BLIND.

- calibration: ranks of the units, of log p(x|z), of log q(z|x) (coverage), distances (TARP);
- predictive: ranks of the cells of x under the prior predictive, and the typicality of log p(x);
- match: q(z) against p(z) by a kernel, a classifier, and unit by unit.

A quarter of an hour on two cores: --work keeps what each piece gave; a run that is cut off goes on.

Usage: python benchmarks/diagnostics.py [--quick] [--work DIR] [--cells NAME,...]
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from record import record, resumed
from scipy.stats import binom, ks_2samp
from torch import Tensor

from ppl_vae.data import LinearGaussian
from ppl_vae.diagnostics import calibration, match, ranks, tarp_ranks

DATA, DRAWS, LEVEL, RUNS, BROKEN_RUNS = 1000, 100, 0.05, 500, 100
SIZES = (2, 8, 20)
SPREAD = 0.5  # of the modes, at ±1.5

Guide = Callable[[LinearGaussian, Tensor], Any]


def world_of(latent: int) -> LinearGaussian:
    """Pairs of units are seen through their sum: their correlation given x is −0.9."""
    weight = torch.zeros(latent // 2, latent, dtype=torch.float64)
    for pair in range(latent // 2):
        weight[pair, 2 * pair : 2 * pair + 2] = 3.0
    return LinearGaussian(weight, torch.zeros(latent // 2, dtype=torch.float64), 1.0)


def _scaled(scale: float) -> Guide:
    return lambda world, x: world.broken_posterior(x, scale, 0.0)


def _shifted(world: LinearGaussian, x: Tensor) -> Any:  # noqa: ANN401
    q = world.posterior(x)
    sd = q.covariance_matrix.diagonal(dim1=-2, dim2=-1).sqrt()
    return dist.MultivariateNormal(q.loc + 0.5 * sd, scale_tril=q.scale_tril)


def _uncorrelated(world: LinearGaussian, x: Tensor) -> Any:  # noqa: ANN401
    q = world.posterior(x)
    sd = q.covariance_matrix.diagonal(dim1=-2, dim2=-1).sqrt()
    return dist.Normal(q.loc, sd).to_event(1)


def _prior(world: LinearGaussian, x: Tensor) -> Any:  # noqa: ANN401
    return dist.Normal(torch.zeros(len(x), world.weight.shape[1], dtype=x.dtype), 1.0).to_event(1)


GUIDES: dict[str, Guide] = {
    "exact": _scaled(1.0),
    "scale × 0.5": _scaled(0.5),
    "scale × 2": _scaled(2.0),
    "mean + 0.5 sd": _shifted,
    "correlation ignored": _uncorrelated,
    "equal to the prior": _prior,
}
MODES = ("exact with two modes", "one mode of two")
MODELS = ("exact", "noise × 1.5", "bias + 0.5 sd")

CATCHES = {
    ("calibration", "scale × 0.5"): "log q(z|x)",
    ("calibration", "scale × 2"): "log q(z|x)",
    ("calibration", "mean + 0.5 sd"): "units",
    ("calibration", "correlation ignored"): "log p(x|z)",
    ("calibration", "equal to the prior"): "log p(x|z)",
    ("calibration", "one mode of two"): "units",
    ("predictive", "noise × 1.5"): "typicality",
    ("predictive", "bias + 0.5 sd"): "cells",
}
BLIND = {
    ("calibration", "correlation ignored"): ("units",),
    ("calibration", "equal to the prior"): ("units", "log q(z|x)", "distance"),
    ("match", "equal to the prior"): ("kernel", "classifier", "units"),
}
TESTS = {
    "calibration": ("units", "log p(x|z)", "log q(z|x)", "distance", "all"),
    "predictive": ("cells", "typicality"),
    "match": ("kernel", "classifier", "units", "all"),
}
DEFECTS = {"calibration": (*GUIDES, *MODES), "predictive": MODELS, "match": (*GUIDES,)}
PIECES = [f"{group}|{size}|{d}" for group, ds in DEFECTS.items() for size in SIZES for d in ds]


def calibrated(defect: str, latent: int, seed: int) -> dict[str, float]:
    """p-values of one run, by test."""
    torch.manual_seed(seed)
    if defect in MODES:
        z, x, draws, scores = two_modes(latent, defect == MODES[1])
    else:
        world = world_of(latent)
        z = world.prior().sample((DATA,))
        x = world.decoder(z).sample()
        q = GUIDES[defect](world, x)
        draws = q.sample((DRAWS,))
        scores = {
            "log p(x|z)": (world.decoder(z).log_prob(x), world.decoder(draws).log_prob(x)),
            "log q(z|x)": (q.log_prob(z), q.log_prob(draws)),
        }
    ranked = {f"z[{d}]": r for d, r in enumerate(ranks(z, draws, seed=seed).T)}
    for name, (one, many) in scores.items():
        ranked[name] = ranks(one[:, None], many[..., None], seed=seed)[:, 0]
    ranked["distance"] = tarp_ranks(z, draws, torch.randn(z.shape))
    found = calibration(ranked, num_draws=DRAWS)
    units = calibration({n: r for n, r in ranked.items() if n[0] == "z"}, num_draws=DRAWS)
    return {
        "units": units.p_value,
        **{n: found.tests[n].p_value for n in ("log p(x|z)", "log q(z|x)", "distance")},
        "all": found.p_value,
    }


def two_modes(latent: int, one: bool) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
    """z_1 has modes at ±1.5, of which x says little; `one`: the guide knows the likelier alone."""
    side = (torch.rand(DATA) < 0.5).double() * 2 - 1
    z = torch.randn(DATA, latent).double()
    z[:, 0] = 1.5 * side + SPREAD * z[:, 0]
    x = z[:, :1] * 0.5 + torch.randn(DATA, 1)
    # Of each mode: the posterior of a Normal seen with noise 1 and slope 0.5.
    variance = 1 / (1 / SPREAD**2 + 0.25)
    centres = torch.tensor([-1.5, 1.5]).double()
    loc = variance * (centres / SPREAD**2 + 0.5 * x)  # (N, 2)
    logits = dist.Normal(0.5 * centres, math.sqrt(1 + 0.25 * SPREAD**2)).log_prob(x)
    if one:
        logits = torch.where(logits == logits.amax(1, keepdim=True), 0.0, -1e3)
    first = dist.MixtureSameFamily(
        dist.Categorical(logits=logits), dist.Normal(loc, math.sqrt(variance))
    )
    draws = torch.randn(DRAWS, DATA, latent).double()
    draws[..., 0] = first.sample((DRAWS,))

    def scores(at: Tensor) -> tuple[Tensor, Tensor]:
        likelihood = dist.Normal(0.5 * at[..., 0], 1.0).log_prob(x[:, 0])
        rest = dist.Normal(0.0, 1.0).log_prob(at[..., 1:]).sum(-1)
        return likelihood, first.log_prob(at[..., 0]) + rest

    names = ("log p(x|z)", "log q(z|x)")
    return z, x, draws, dict(zip(names, zip(scores(z), scores(draws), strict=True), strict=True))


def predicted(defect: str, latent: int, seed: int) -> dict[str, float]:
    """p-values of one run: data of the world, checked against a model that may be wrong."""
    torch.manual_seed(seed)
    world = LinearGaussian.random(latent, 2 * latent + 2, seed=0)  # its noise can be told
    x = world.decoder(world.prior().sample((DATA,))).sample()
    spread = (world.weight.square().sum(1) + world.scale**2).sqrt()
    model = {
        "exact": world,
        "noise × 1.5": LinearGaussian(world.weight, world.bias, 1.5 * world.scale),
        "bias + 0.5 sd": LinearGaussian(world.weight, world.bias + 0.5 * spread, world.scale),
    }[defect]
    draws = model.decoder(model.prior().sample((DRAWS, DATA))).sample()
    cells = {f"x[{d}]": r for d, r in enumerate(ranks(x, draws, seed=seed).T)}
    own = model.decoder(model.prior().sample((DATA,))).sample()
    typical = ks_2samp(model.log_evidence(x), model.log_evidence(own))
    return {
        "cells": calibration(cells, num_draws=DRAWS).p_value,
        "typicality": float(typical.pvalue),
    }


def matched(defect: str, latent: int, seed: int) -> dict[str, float]:
    """p-values of one run: one code for each of N data, against the prior."""
    torch.manual_seed(seed)
    world = world_of(latent)
    x = world.decoder(world.prior().sample((DATA,))).sample()
    codes = GUIDES[defect](world, x).sample()
    found = match(codes, world.prior().sample((DATA,)), permutations=99, seed=seed)
    return {
        "kernel": found.mmd.p_value,
        "classifier": found.classifier.p_value,
        "units": min(found.unit_p_values.values()),
        "all": found.p_value,
    }


RUN = {"calibration": calibrated, "predictive": predicted, "match": matched}


def rates(piece: str, runs: int) -> dict[str, Any]:
    """Rejection rates of one piece, by test."""
    group, size, defect = piece.split("|")
    started = time.perf_counter()
    p_values = [RUN[group](defect, int(size), 1000 * k + int(size)) for k in range(runs)]
    found: dict[str, Any] = {"group": group, "D": int(size), "defect": defect, "runs": runs}
    for test in TESTS[group]:
        rate = float(np.mean([p[test] <= LEVEL for p in p_values]))
        found[test] = round(rate, 4)
    found["seconds"] = round(time.perf_counter() - started)
    return found


def table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Levels inside their binomial interval, defects that are caught, and the rows.

    The kernel's p-values are multiples of 1/100, the others' attain 0.05 or a little less. All of
    them are at most 0.05: a rate above the 99.9 % limit of Binomial(runs, 0.05) is a fault.
    """
    levels = [r for r in rows if r["defect"].startswith("exact")]
    broken = [r for r in rows if not r["defect"].startswith("exact")]
    too_high = [
        f"{r['group']}, D = {r['D']}, {test}: {r[test]}"
        for r in levels
        for test in TESTS[r["group"]]
        if r[test] > binom.ppf(0.9995, r["runs"], LEVEL) / r["runs"]
    ]
    named = {
        (r["group"], r["D"], r["defect"]): CATCHES.get((r["group"], r["defect"])) for r in broken
    }
    missed = [
        f"{r['group']}, D = {r['D']}, {r['defect']}: {test} {r[test]}"
        for r in broken
        if (test := named[r["group"], r["D"], r["defect"]]) is not None and r[test] < 0.99
    ]
    return {
        "levels_above_their_limit": ", ".join(too_high) or "none",
        "defects_not_caught_as_named": ", ".join(missed) or "none",
        "largest_level": max(r[t] for r in levels for t in TESTS[r["group"]]),
        "smallest_power_of_a_named_test": min(
            r[test] for r in broken if (test := named[r["group"], r["D"], r["defect"]]) is not None
        ),
        "monte_carlo_error_of_a_level": round((LEVEL * (1 - LEVEL) / RUNS) ** 0.5, 4),
        "seconds_of_all_pieces": sum(r["seconds"] for r in rows),
        "rows": rows,
        "caught_by": [[*key, test] for key, test in CATCHES.items()],
        "blind": [[*key, list(tests)] for key, tests in BLIND.items()],
    }


def main() -> None:
    """Run the pieces that are not done, and write the table down if all are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="D = 2, a few runs of each")
    parser.add_argument("--work", default="diagnostics", help="folder of what each piece gave")
    parser.add_argument("--cells", default=",".join(PIECES), help="such as 'match|2|exact'")
    options = parser.parse_args()
    started = time.perf_counter()
    if options.quick:
        rows = [rates(p, 3) for p in PIECES if "|2|" in p]
        record(__file__, table(rows), seed=0, started=started, quick=True)
        return

    def run(piece: str) -> dict[str, Any]:
        found = rates(piece, RUNS if "|exact" in piece else BROKEN_RUNS)
        print(found, flush=True)
        return found

    if (rows := resumed(Path(options.work), PIECES, options.cells.split(","), run)) is not None:
        record(__file__, table(rows), seed=0, started=started)


if __name__ == "__main__":
    main()
