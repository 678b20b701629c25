"""Static MNIST with Pythae's settings: wall time of 250,000 compiled steps, and the test NLL.

One hidden layer of 400 each way, ReLU, z = 40, batches of 100, 500 epochs of 50,000 images, Adam
from 1e-3 down to 0 along a cosine, the KL in closed form; of all epochs the best on the validation
images counts, as in Pythae's trainer. Held-out log p(x) is by 200 importance samples. Pythae
(Chadebec, Vincent and Allassonnière 2022) prints 89.78 for these nets, batches and epochs, and
other rates, which are not all on record.

Logits of pixels that are always black fall until their gradients are denormal numbers, over which
a matrix product takes its time: torch.set_flush_denormal comes before anything else.

Data: mnist_static.npz, Larochelle's fixed binarisation, bit-packed rows of 784 under train_x,
valid_x and test_x, in --data-dir or $PPL_VAE_DATA. A run that is interrupted resumes from its
checkpoint.

Usage: python benchmarks/mnist_static.py [--quick] [--data-dir DIR] [--checkpoint FILE]
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
from record import record
from torch import Tensor

from ppl_vae import (
    ELBO,
    MLP,
    VAE,
    Bernoulli,
    Conditional,
    Normal,
    StandardNormal,
    fit,
    log_evidence,
)
from ppl_vae.data import digits

SEED = 0
DRAWS = 200
RATE = 1e-3
PYTHAE = 89.78


def main() -> None:
    """Train, judge, write down."""
    torch.set_flush_denormal(True)  # threads that are started later inherit it
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a few epochs on scikit-learn's digits"
    )
    parser.add_argument("--data-dir", default=os.environ.get("PPL_VAE_DATA", "."))
    parser.add_argument("--checkpoint", default="mnist_static.safetensors")
    parser.add_argument("--epochs", type=int, default=500)
    options = parser.parse_args()
    started = time.perf_counter()
    train, valid, test = small() if options.quick else static(Path(options.data_dir))
    epochs = 3 if options.quick else options.epochs
    cells = train.shape[1]
    torch.manual_seed(SEED)
    vae = VAE(
        StandardNormal(40),
        Conditional(MLP(400), Bernoulli(cells), given=40),
        Conditional(MLP(400), Normal(40), given=cells),
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR
    history, state = fit(
        vae,
        train,
        objective=ELBO(analytic_kl=True),
        validation=valid,
        patience=epochs,
        epochs=epochs,
        batch_size=100,
        optimizer=(torch.optim.Adam, {"lr": RATE}),
        schedule=(schedule, {"T_max": epochs}),
        seed=SEED,
        checkpoint=None if options.quick else options.checkpoint,
        compile="auto",
    )
    seconds = float(np.sum(history["seconds"]))
    evidence = log_evidence(vae, test, DRAWS, seed=SEED)
    mean = evidence.log_evidence.mean()
    figures = {
        "test_nll": round(-float(mean), 3),
        "se_over_data": round(float(evidence.log_evidence.std(ddof=1) / len(test) ** 0.5), 3),
        "draws": DRAWS,
        "khat_above_limit": round(float(1 - evidence.quantified.mean()), 3),
        "pythae_nll": PYTHAE,
        "training_elbo": round(float(history["elbo"][-1]), 3),
        "validation_elbo": round(float(history["validation_elbo"].max()), 3),
        "best_epoch": int(history["validation_elbo"].argmax()) + 1,
        "learning_rate": RATE,
        "training_minutes": round(seconds / 60, 2),
        "ms_per_step": round(1e3 * seconds / state.steps, 3),
        "steps": state.steps,
        "epochs": epochs,
        "threads": torch.get_num_threads(),
    }
    record(__file__, figures, seed=SEED, started=started, quick=options.quick)


def static(folder: Path) -> list[Tensor]:
    """Training, validation and test images, ``(N, 784)``, 0 and 1."""
    with np.load(folder / "mnist_static.npz", allow_pickle=False) as file:
        packed = [file[k] for k in ("train_x", "valid_x", "test_x")]
    return [torch.from_numpy(np.unpackbits(v, axis=1)[:, :784]).float() for v in packed]


def small() -> list[Tensor]:
    """A stand-in that everybody has."""
    x = torch.from_numpy(digits()[0] > 8).reshape(-1, 64).float()
    return [x[:1300], x[1300:1500], x[1500:]]


if __name__ == "__main__":
    main()
