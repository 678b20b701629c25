"""The Parzen figure of the adversarial autoencoder's paper, beside what real images score by it.

Makhzani et al. 2015 (arXiv:1511.05644, section 2.4): 340 ± 2 on MNIST, from 10,000 samples, nets
1000-1000 ReLU each way and for the critic, z = 8, prior N(0, 5²). A Gaussian kernel is put on each
sample; its width is the one that suits validation images best; the mean log density of the test
images, in nats, higher is better. It is a historical measure, not a likelihood: centroids of the
training images beat the images themselves by it (Theis et al. 2016, arXiv:1511.01844, section 3.2),
so both stand beside it here, by the same estimate.

Images are grey, 0 to 1; samples are the decoder's means. Training: the first 50,000 training
images, Adam at 1e-3 falling to 0 on a cosine, batches of 100. The last 10,000 training images
choose the kernel's width. Cells differ from "plain" in what their names say: from them one reads
what moves the figure.

Data: mnist.npz (train_x, test_x, uint8) in --data-dir or $PPL_VAE_DATA. Half a minute to a
minute an epoch on one core: --work keeps checkpoints and results of cells.

Usage: python benchmarks/aae_mnist.py [--quick] [--data-dir DIR] [--work DIR] [--cells NAME,...]
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
from record import machine, record, resumed
from torch import Tensor, nn

from ppl_vae import (
    MLP,
    VAE,
    Adversarial,
    Conditional,
    Normal,
    Predicted,
    StandardNormal,
    aggregate_match,
    fit,
    prior_coverage,
    prior_predictive,
)
from ppl_vae.data import digits

LATENT, SPREAD, HIDDEN, SAMPLES, SEED = 8, 5.0, 1000, 10_000, 0
PIXEL_SD = 0.2  # of the decoder: to Adam, only its square times the weight matters
SIGMAS = [float(s) for s in np.geomspace(0.08, 0.4, 33)]
PLAIN: dict[str, Any] = {
    "epochs": 20,
    "weight": 10.0,  # of the critic
    "code_sd": Predicted(),  # of q(z|x)
}
CELLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "critic x 10": {"weight": 100.0},
    "critic x 100": {"weight": 1000.0},
    "code sd 0.5": {"code_sd": 0.5},
    "10 epochs": {"epochs": 10},
}


def main() -> None:
    """Train the cells that are not done, and write the table down if all are."""
    torch.set_flush_denormal(True)  # threads that are started later inherit it
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="scikit-learn's digits, small nets")
    parser.add_argument("--data-dir", default=os.environ.get("PPL_VAE_DATA", "."))
    parser.add_argument("--work", default="aae_mnist", help="folder of checkpoints and results")
    parser.add_argument("--cells", default=",".join([*CELLS, "references"]))
    options = parser.parse_args()
    started = time.perf_counter()
    if options.quick:
        sets = small()
        rows = [
            cell("plain", sets, hidden=64, samples=500, epochs=3),
            references(sets, samples=500),
        ]
        record(__file__, table(rows), seed=SEED, started=started, quick=True)
        return
    work = Path(options.work)
    sets = images(Path(options.data_dir) / "mnist.npz")

    def run(name: str) -> dict[str, Any]:
        if name == "references":
            return references(sets)
        return cell(name, sets, checkpoint=work / f"{name}.safetensors")

    if (rows := resumed(work, [*CELLS, "references"], options.cells.split(","), run)) is None:
        return
    record(__file__, table(rows), seed=SEED, started=started)


def bounded(hidden: int) -> Callable[[int, int], nn.Module]:
    """A net that gives pixels from 0 to 1."""

    def build(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(MLP(hidden, hidden)(inputs, outputs), nn.Sigmoid())

    return build


def cell(
    name: str,
    sets: list[Tensor],
    *,
    checkpoint: Path | None = None,
    hidden: int = HIDDEN,
    samples: int = SAMPLES,
    epochs: int | None = None,
) -> dict[str, Any]:
    """Train one autoencoder and judge its samples."""
    train, valid, test = sets
    stated = {**PLAIN, **CELLS[name]}
    epochs = epochs or int(stated["epochs"])
    pixels = train.shape[1]
    torch.manual_seed(SEED)
    vae = VAE(
        StandardNormal(LATENT, scale=SPREAD),
        Conditional(bounded(hidden), Normal(pixels, scale=PIXEL_SD), given=LATENT),
        Conditional(MLP(hidden, hidden), Normal(LATENT, scale=stated["code_sd"]), given=pixels),
    )
    history, _ = fit(
        vae,
        train,
        objective=Adversarial(
            critic=MLP(hidden, hidden),
            weight=stated["weight"],
            critic_schedule=(torch.optim.lr_scheduler.CosineAnnealingLR, {"T_max": epochs}),
        ),
        schedule=(torch.optim.lr_scheduler.CosineAnnealingLR, {"T_max": epochs}),
        epochs=epochs,
        batch_size=100,
        seed=SEED,
        checkpoint=checkpoint,
        progress=False,
    )
    draws = prior_predictive(vae, samples, like=train[:2], seed=SEED)
    with torch.no_grad():
        back = vae.likelihood(vae.posterior(test).mean).mean
    held_out = test[torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:2000]]
    match = aggregate_match(vae, held_out, seed=SEED)
    covered = prior_coverage(vae, held_out, seed=SEED)
    last = {k: round(v, 3) for k, v in history.rows[-1].items() if k.startswith("critic_")}
    return {
        "name": name,
        **parzen(draws.means["x"], valid, test),
        "squared_error_of_a_test_image": round(float((back - test).square().sum(1).mean()), 2),
        "told_from_the_prior": round(match.classifier.accuracy, 3),
        "mmd2_interval": [round(float(v), 5) for v in match.mmd.interval()],
        "prior_covered": round(covered.share, 3),
        "prior_covered_by_itself": round(covered.reference, 3),
        **last,
        "epochs": len(history),
        "training_minutes": round(float(np.sum(history["seconds"])) / 60, 1),
        "threads": torch.get_num_threads(),
        "machine": machine(),
    }


def references(sets: list[Tensor], *, samples: int = SAMPLES) -> dict[str, Any]:
    """What real training images score, and as many centroids of them."""
    from sklearn.cluster import MiniBatchKMeans

    train, valid, test = sets
    chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(SEED))[:samples]
    clusters = MiniBatchKMeans(
        samples, init="random", batch_size=max(4096, samples), max_iter=10, n_init=1,
        random_state=SEED,
    ).fit(train.numpy())  # fmt: skip
    centroids = torch.from_numpy(clusters.cluster_centers_).to(train)
    return {
        "name": "references",
        "training images": parzen(train[chosen], valid, test),
        "centroids": parzen(centroids, valid, test),
    }


def parzen(samples: Tensor, valid: Tensor, test: Tensor) -> dict[str, float]:
    """Mean log density of the test images under Gaussians on the samples, width by validation."""
    validation = log_density(samples, valid, SIGMAS).mean(1)
    best = int(validation.argmax())
    (found,) = log_density(samples, test, [SIGMAS[best]])
    return {
        "parzen_validation": round(float(validation[best]), 2),
        "parzen": round(float(found.mean()), 2),
        "se_over_data": round(float(found.std() / len(found) ** 0.5), 2),
        "sigma": round(SIGMAS[best], 4),
    }


def log_density(samples: Tensor, x: Tensor, sigmas: list[float]) -> Tensor:
    """log 1/M Σ_m N(x; s_m, σ² I) for each width: ``(len(sigmas), N)``."""
    found = []
    for rows in x.double().split(500):
        squared = torch.cdist(rows, samples.double()).square().float()
        found.append(torch.stack([(-squared / (2 * s**2)).logsumexp(1) for s in sigmas]))
    widths = torch.tensor(sigmas, dtype=torch.float64)[:, None]
    normaliser = np.log(len(samples)) + x.shape[1] / 2 * torch.log(2 * np.pi * widths**2)
    return torch.cat(found, 1).double() - normaliser


def table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures: the paper's is recalled."""
    cells = [r for r in rows if r["name"] != "references"]
    reference = next(r for r in rows if r["name"] == "references")
    best = max(cells, key=lambda r: float(r["parzen_validation"]))
    return {
        "paper_recalled": 340,
        **{f"parzen_{r['name']}": r["parzen"] for r in cells},
        "parzen_training_images": reference["training images"]["parzen"],
        "parzen_centroids": reference["centroids"]["parzen"],
        "best_by_validation": best["name"],
        "training_minutes": round(sum(r["training_minutes"] for r in cells), 1),
        "rows": rows,
    }


def images(file: Path) -> list[Tensor]:
    """Training, validation and test images, ``(N, 784)``, 0 to 1."""
    with np.load(file, allow_pickle=False) as held:
        train, test = (torch.from_numpy(held[f"{k}_x"]).reshape(-1, 784) for k in ("train", "test"))
    train, test = train.float() / 255, test.float() / 255
    return [train[:50_000], train[50_000:], test]


def small() -> list[Tensor]:
    """A stand-in that everybody has."""
    x = torch.from_numpy(digits()[0]).reshape(-1, 64).float() / 16
    return [x[:1300], x[1300:1500], x[1500:]]


if __name__ == "__main__":
    main()
