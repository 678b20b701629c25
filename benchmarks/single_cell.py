"""Counts of genes in single cells: Poisson, negative binomial, zero-inflated, by held-out evidence.

700 cells × 765 genes (scanpy's pbmc68k_reduced, raw counts), five folds. Each family is the
likelihood of the same VAE, with the cell's own total count as exposure, which is given and not
predicted; of the cells left out, log p(x)
is by importance samples from a guide fitted to them afresh with p(z) and p(x|z) frozen. Differences
are paired by cell, their standard errors over cells.

Data: pbmc68k_reduced_counts.npz, keys x and y, in --data-dir or $PPL_VAE_DATA.

Usage: python benchmarks/single_cell.py [--quick] [--data-dir DIR]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from record import record

from ppl_vae import (
    ELBO,
    MLP,
    VAE,
    Conditional,
    Family,
    Features,
    NegativeBinomial,
    Normal,
    Poisson,
    StandardNormal,
    ZeroInflatedNegativeBinomial,
    fit,
    log_evidence,
    refit_guide,
)

SEED, LATENT, HIDDEN, FOLDS, EPOCHS, DRAWS = 0, 10, 128, 5, 400, 2000

FAMILIES: dict[str, Callable[[int], Family]] = {
    "Poisson": lambda genes: Poisson(genes, exposure=True),
    "NB": lambda genes: NegativeBinomial(genes, exposure=True),
    "ZINB": lambda genes: ZeroInflatedNegativeBinomial(genes, exposure=True),
}


def main() -> None:
    """Five folds of every family."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="made-up counts, one fold")
    parser.add_argument("--data-dir", default=os.environ.get("PPL_VAE_DATA", "."))
    options = parser.parse_args()
    started = time.perf_counter()
    if options.quick:
        x, folds, epochs, draws = made_up(), 1, 3, 50
    else:
        with np.load(Path(options.data_dir) / "pbmc68k_reduced_counts.npz") as file:
            x = file["x"].astype(np.float32)
        folds, epochs, draws = FOLDS, EPOCHS, DRAWS
    fold = np.random.default_rng(SEED).permutation(len(x)) % FOLDS
    kept = fold < folds
    evidence = {name: np.full(len(x), np.nan) for name in FAMILIES}
    khat = {name: np.full(len(x), np.nan) for name in FAMILIES}
    rows: list[dict[str, Any]] = []
    for k in range(folds):
        for name, family in FAMILIES.items():
            begun = time.perf_counter()
            found, history = held_out(x, fold == k, family(x.shape[1]), epochs, draws, k)
            evidence[name][fold == k] = found.log_evidence
            khat[name][fold == k] = found.khat
            rows.append(
                {
                    "fold": k,
                    "family": name,
                    "held_out_nats": round(float(found.log_evidence.mean()), 3),
                    "epochs": len(history),
                    "seconds": round(time.perf_counter() - begun, 1),
                }
            )
            print(rows[-1], flush=True)
    figures: dict[str, Any] = {"cells": int(kept.sum()), "genes": x.shape[1], "draws": draws}
    for name in FAMILIES:
        values = evidence[name][kept]
        figures[f"{name}_held_out_nats"] = _with_se(values)
        figures[f"{name}_share_khat_above_0.7"] = round(float((khat[name][kept] > 0.7).mean()), 3)
    for one, other in (("NB", "Poisson"), ("ZINB", "NB")):
        figures[f"{one}_less_{other}"] = _with_se((evidence[one] - evidence[other])[kept])
    figures["rows"] = rows
    record(__file__, figures, seed=SEED, started=started, quick=options.quick)


def held_out(
    x: NDArray[np.float32],
    out: NDArray[np.bool_],
    family: Family,
    epochs: int,
    draws: int,
    fold: int,
) -> tuple[Any, Any]:
    """Train on all other cells, and judge those left out."""
    genes = x.shape[1]
    size = x.sum(1, keepdims=True) / genes
    torch.manual_seed(SEED + fold)
    vae = VAE(
        StandardNormal(LATENT),
        Conditional(MLP(HIDDEN), family, given=LATENT),
        Conditional(Features(MLP(HIDDEN), family), Normal(LATENT), given=genes),
    )
    train, test = ({"x": x[rows], "exposure": size[rows]} for rows in (~out, out))
    history, _ = fit(
        vae, train, objective=ELBO(warmup=min(20, epochs)), epochs=epochs, batch_size=64,
        validation=0.1, patience=40, clip_norm=100.0, seed=SEED, progress=False,
    )  # fmt: skip
    fresh = refit_guide(vae, test, epochs=epochs, seed=SEED, progress=False)
    return log_evidence(fresh, test, draws, seed=SEED), history


def _with_se(values: NDArray[np.float64]) -> str:
    return f"{values.mean():.2f} ± {values.std(ddof=1) / len(values) ** 0.5:.2f}"


def made_up() -> NDArray[np.float32]:
    """Counts that vary more than Poisson's."""
    rng = np.random.default_rng(SEED)
    return rng.negative_binomial(1.0, 0.4, size=(120, 20)).astype(np.float32)


if __name__ == "__main__":
    main()
