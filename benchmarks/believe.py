"""The tutorial "Should I believe this posterior?": its code, its numbers and its pictures.

A VAE of handwritten digits that looks fine, what `diagnose` finds, which guide repairs it and which
does not. About five minutes on one core.

Usage: python benchmarks/believe.py [--quick] [--figures DIR]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import record

# --8<-- [start:model]
from ppl_vae import MLP, VAE, Binomial, Conditional, Normal, StandardNormal, fit
from ppl_vae.data import digits


def build(guide: Any) -> VAE:
    torch.manual_seed(0)
    return VAE(
        StandardNormal(4),
        Conditional(MLP(128, 128), Binomial((8, 8), total=16), given=4),  # p(x|z)
        Conditional(MLP(128, 128), guide, given=(8, 8)),  # q(z|x)
    )


x, labels = digits()
order = np.random.default_rng(0).permutation(len(x))
train, held_out, labels = x[order[:1297]], x[order[1297:]], labels[order[1297:]]
# --8<-- [end:model]


def trained(guide: Any, epochs: int) -> tuple[VAE, Any]:
    """Fit the program under one guide or another: nothing else differs."""
    # --8<-- [start:fit]
    vae = build(guide)
    adam = torch.optim.Adam, {"lr": 2e-3}
    history, _ = fit(
        vae, train, epochs=epochs, optimizer=adam, validation=held_out, seed=0, progress=False
    )
    # --8<-- [end:fit]
    return vae, history


def looked_at(vae: VAE, history: Any, budget: float) -> Any:
    """Everything that can be said of it."""
    # --8<-- [start:diagnose]
    from ppl_vae import diagnose

    found = diagnose(vae, held_out, labels=labels, history=history, name="digits", budget=budget)
    print(found)
    # --8<-- [end:diagnose]
    return found


def repaired(vae: VAE, few: Any, steps: int, draws: int) -> tuple[Any, Any, Any]:
    """The guide moved datum by datum; both beside draws of p(z|x)."""
    # --8<-- [start:refine]
    from ppl_vae import guide_agreement, reference_posterior, refine

    better = refine(vae, few, steps=steps, progress=False)
    reference = reference_posterior(vae, few, num_samples=draws, warmup=draws, progress=False)
    before = guide_agreement(vae, few, reference)
    after = guide_agreement(better, few, reference)
    # --8<-- [end:refine]
    print(before, after, reference, sep="\n")
    return before, after, reference


def summary(program: Any, data: Any, draws: int) -> dict[str, float]:
    """ELBO, evidence and k-hat, nats per datum."""
    from ppl_vae import log_weights
    from ppl_vae.diagnostics import evidence

    log_w = log_weights(program, data, draws, seed=1).double().numpy()
    found = evidence(log_w)
    gap = found.log_evidence - log_w.mean(0)
    return {
        "elbo": round(float(log_w.mean()), 2),
        "evidence": round(float(found.log_evidence.mean()), 2),
        "gap": round(float(gap.mean()), 2),
        "khat_high": round(float(found.high.mean()), 3),
    }


def main() -> None:
    """Fit, diagnose, repair; write numbers and pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the same path, too short to quote")
    parser.add_argument("--figures", type=Path, help="a folder for the pictures")
    options = parser.parse_args()
    quick, started = options.quick, time.perf_counter()
    torch.set_num_threads(1)
    epochs, budget, steps, draws = (2, 0.0, 10, 30) if quick else (100, 1e6, 500, 1000)
    samples = 50 if quick else 500

    from ppl_vae import MultivariateNormal, refine

    vae, history = trained(Normal(4), epochs)
    found = looked_at(vae, history, budget)
    full, _ = trained(MultivariateNormal(4), epochs)
    few = held_out[found.chosen[: 4 if quick else 10]]
    before, after, reference = repaired(vae, few, steps, draws)
    some = held_out[found.chosen[: 20 if quick else 200]]
    better = refine(vae, some, steps=steps, progress=False)

    figures: dict[str, Any] = {
        "validation_elbo": round(float(history["validation_elbo"][-1]), 2),
        "variance_explained": round(
            1 - float(((found.data - found.reconstructions) ** 2).sum())
            / float(((found.data - found.data.mean(0)) ** 2).sum()), 3
        ),
        "active": int(found.active.count),
        "mean_field": summary(vae, held_out, samples),
        "full_covariance": summary(full, held_out, samples),
        "same_200": summary(vae, some, samples),
        "refined_200": summary(better, some, samples),
        "told_apart_before": round(float(np.nanmedian(before.c2st)), 3),
        "told_apart_after": round(float(np.nanmedian(after.c2st)), 3),
        "mean_error_before": round(float(np.median(before.rms_mean_error)), 2),
        "mean_error_after": round(float(np.median(after.rms_mean_error)), 2),
        "largest_rhat": round(float(reference.rhat.max()), 3),
        "smallest_ess": round(float(reference.ess.min())),
        "divergences": int(reference.divergences),
        "findings": [list(f[:6]) for f in found.findings],
    }  # fmt: skip
    if found.gaps is not None:
        parts = ("amortisation", "correlation", "remainder")
        figures["gaps"] = {p: round(float(getattr(found.gaps, p).mean()), 2) for p in parts}
    if found.calibration is not None:
        figures["deviations"] = {
            n: round(t.deviation, 2) for n, t in found.calibration.tests.items()
        }
    if options.figures is not None:
        draw(options.figures, found, before, after)
    record(__file__, figures, seed=0, started=started, quick=quick)


def draw(folder: Path, found: Any, before: Any, after: Any) -> None:
    """Write the pictures of the tutorial."""
    from ppl_vae import plots
    from ppl_vae.plots.style import as_svg

    folder.mkdir(exist_ok=True)
    pictures = {
        "looks_fine": plots.reconstructions(found),
        "training": plots.history(found.history),
        "before": plots.agreement(before, range(6) if len(before.c2st) > 5 else range(3)),
        "after": plots.agreement(after, range(6) if len(after.c2st) > 5 else range(3)),
    }
    if found.calibration is not None:
        pictures["calibration"] = plots.calibration(found.calibration)
    if found.gaps is not None:
        pictures["gaps"] = plots.gaps(found.gaps)
    for name, figure in pictures.items():
        (folder / f"believe_{name}.svg").write_bytes(as_svg(figure))


if __name__ == "__main__":
    main()
