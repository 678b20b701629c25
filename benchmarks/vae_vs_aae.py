"""What a critic buys and costs: VAE, AAE, MMD-AE and VAE + VampPrior, the same nets, static MNIST.

Two layers of 400 each way, ReLU, z = 8, Bernoulli pixels, Adam at 1e-3 falling to 0 on a cosine,
100 epochs of batches of 100; the critic has two layers of 400 too. Nothing was chosen by a look at
the test images: weights of critic and kernel stand in CELLS, several of each, so that one sees what
they do.

- log p(x): held-out, by 1000 importance samples from the *same* kind of guide, fitted afresh to
  those images with the decoder frozen (an AAE's own encoder was never trained towards p(z|x)); and
  by annealed importance sampling on 100 of them, which no guide can mislead. Its own encoder's
  evidence stands beside it.
- q(z) against p(z): kernel, classifier, units, on 2000 test images; how much of the prior lies
  among codes.
- log p(x|z) at z ~ q(z|x), and how wide q(z|x) is in each unit; samples (drawn with --figures);
  milliseconds per step, of all in one go.

Data: mnist_static.npz in --data-dir or $PPL_VAE_DATA. --work keeps a checkpoint and the result of
every cell.

Usage: python benchmarks/vae_vs_aae.py [--quick] [--data-dir DIR] [--work DIR] [--cells NAME,...]
       [--figures DIR]
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
from mnist_static import static
from priors import small
from record import machine, record, resumed
from torch import Tensor

from ppl_vae import (
    ELBO,
    MLP,
    MMD,
    VAE,
    Adversarial,
    Bernoulli,
    Conditional,
    Normal,
    StandardNormal,
    VampPrior,
    aggregate_match,
    ais,
    fit,
    log_evidence,
    prior_coverage,
    refit_guide,
)
from ppl_vae.objectives import Objective
from ppl_vae.posterior import PriorCoverage

LATENT, HIDDEN, EPOCHS, BATCH, SEED = 8, 400, 100, 100, 0
DRAWS, HELD, ANNEALED, SHOWN = 1000, 2000, 100, 64
FALLING = torch.optim.lr_scheduler.CosineAnnealingLR


def adversarial(weight: float, epochs: int) -> Adversarial:
    """The AAE: its critic's rate falls like the rest."""
    critic = MLP(HIDDEN, HIDDEN)
    return Adversarial(critic, weight=weight, critic_schedule=(FALLING, {"T_max": epochs}))


CELLS: dict[str, Callable[[int], Objective]] = {
    "VAE": lambda epochs: ELBO(),
    "VAE + VampPrior": lambda epochs: ELBO(),
    "AAE 10": lambda epochs: adversarial(10.0, epochs),
    "AAE 100": lambda epochs: adversarial(100.0, epochs),
    "MMD 100": lambda epochs: MMD(weight=100.0),
    "MMD 1000": lambda epochs: MMD(weight=1000.0),
    "no prior": lambda epochs: MMD(weight=0.0),
}


QUICK = ("VAE", "AAE 100", "MMD 1000")


def main() -> None:
    """Train and judge the cells that are not done, and write the table down if all are."""
    torch.set_flush_denormal(True)  # threads that are started later inherit it
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="scikit-learn's digits, few epochs")
    parser.add_argument("--data-dir", default=os.environ.get("PPL_VAE_DATA", "."))
    parser.add_argument("--work", default="vae_vs_aae", help="folder of checkpoints and results")
    parser.add_argument("--cells", default=",".join(CELLS))
    parser.add_argument("--figures", help="a folder for the pictures")
    options = parser.parse_args()
    started = time.perf_counter()
    if options.quick:
        rows = [cell(name, small(), epochs=3, refits=3, draws=50) for name in QUICK]
        record(__file__, table(rows), seed=SEED, started=started, quick=True)
        return
    work = Path(options.work)
    sets = static(Path(options.data_dir))

    def run(name: str) -> dict[str, Any]:
        return cell(name, sets, work=work)

    if (rows := resumed(work, list(CELLS), options.cells.split(","), run)) is None:
        return
    if options.figures:
        draw(rows, Path(options.figures))
    figures = table(rows) | {"ms_per_step": paces(sets[0][: 50 * BATCH])}
    record(__file__, figures, seed=SEED, started=started)


def cell(
    name: str,
    sets: list[Tensor],
    *,
    work: Path | None = None,
    epochs: int = EPOCHS,
    refits: int = 100,
    draws: int = DRAWS,
) -> dict[str, Any]:
    """Train one program and say all that is compared."""
    train, test = sets[0], sets[-1]
    vae = program(name, train.shape[1])
    history, _ = fit(
        vae,
        train,
        objective=CELLS[name](epochs),
        epochs=epochs,
        batch_size=BATCH,
        schedule=(FALLING, {"T_max": epochs}),
        seed=SEED,
        checkpoint=None if work is None else work / f"{name}.safetensors",
        progress=False,
    )
    own = log_evidence(vae, test, draws, seed=SEED)
    fresh = refit_guide(vae, test, epochs=refits, seed=SEED, progress=False)
    found = log_evidence(fresh, test, draws, seed=SEED)
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(SEED))
    few = order[: ANNEALED if work else 10]
    annealed = ais(vae, test[few], temperatures=500 if work else 20, seed=SEED, progress=False)
    held = test[order[:HELD]]
    match = aggregate_match(vae, held, seed=SEED)
    covered = prior_coverage(vae, held, seed=SEED)
    return {
        "name": name,
        **_mean("log_p_fresh_guide", found.log_evidence),
        "khat_high": round(float(np.mean(found.khat > 0.7)), 3),
        **_mean("log_p_own_encoder", own.log_evidence),
        "khat_high_own": round(float(np.mean(own.khat > 0.7)), 3),
        **_mean("log_p_annealed", annealed.log_evidence),
        **_mean("log_p_fresh_guide_there", found.log_evidence[few.numpy()]),
        **autoencoded(vae, train, test),
        "told_apart": round(match.classifier.accuracy, 3),
        "told_apart_se": round(match.classifier.se, 3),
        "mmd2_interval": [round(float(v), 5) for v in match.mmd.interval()],
        "largest_unit_distance": round(max(match.units.values()), 3),
        "covered": round(covered.share, 3),
        "covered_by_itself": round(covered.reference, 3),
        **{k: round(v, 3) for k, v in history.rows[-1].items() if k.startswith("critic_")},
        "epochs": len(history),
        "threads": torch.get_num_threads(),
        "machine": machine(),
        "log_evidence": [round(float(v), 3) for v in found.log_evidence],
        "pictures": pictures(covered),
    }


def autoencoded(vae: VAE, train: Tensor, test: Tensor) -> dict[str, Any]:
    """log p(x|z) at z ~ q(z|x), of test and of training images; sd of q(z|x), unit by unit."""
    torch.manual_seed(SEED)
    with torch.no_grad():
        q = vae.posterior(test)
        seen = vae.likelihood(q.sample()).log_prob(test)
        some = train[: len(test)]
        trained = vae.likelihood(vae.posterior(some).sample()).log_prob(some)
    return {
        **_mean("log_p_x_given_z", seen.numpy()),
        **_mean("log_p_x_given_z_train", trained.numpy()),
        "encoder_sd": sorted(round(v, 4) for v in q.base_dist.scale.mean(0).tolist()),
    }


def program(name: str, pixels: int) -> VAE:
    """The same nets from the same start; the prior is what a cell's name says."""
    torch.manual_seed(SEED)
    encoder = Conditional(MLP(HIDDEN, HIDDEN), Normal(LATENT), given=pixels)
    decoder = Conditional(MLP(HIDDEN, HIDDEN), Bernoulli(pixels), given=LATENT)
    start = 0.05 + 0.01 * torch.randn(500 if pixels > 100 else 20, pixels)
    return VAE(VampPrior(start) if "Vamp" in name else StandardNormal(LATENT), decoder, encoder)


def paces(train: Tensor) -> dict[str, float]:
    """Milliseconds per step of each cell, all in one go: three times three epochs, the quickest."""
    found: dict[str, float] = dict.fromkeys(CELLS, float("inf"))
    for _ in range(3):
        for name in CELLS:
            history, state = fit(
                program(name, train.shape[1]), train, objective=CELLS[name](EPOCHS), epochs=4,
                batch_size=BATCH, seed=SEED, progress=False, compile=True,
            )  # fmt: skip
            steps = state.steps / len(history)
            best = float(min(history["seconds"][1:])) / steps * 1e3
            found[name] = min(found[name], best)
    return {name: round(v, 3) for name, v in found.items()}


def pictures(covered: PriorCoverage) -> dict[str, list[Any]]:
    """Means of p(x|z) at draws of the prior: the first of them, and those farthest from codes."""
    (means,) = covered.draws.means.values()
    shown = {"samples": means[:SHOWN], "holes": means[torch.from_numpy(covered.holes[:SHOWN])]}
    return {k: (255 * v).round().to(torch.uint8).tolist() for k, v in shown.items()}


def table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures, with what each has beyond the VAE, image by image, in place of all images."""
    plain = []
    for row in rows:
        beyond = np.array(row["log_evidence"]) - np.array(rows[0]["log_evidence"])
        held = {k: v for k, v in row.items() if k not in ("log_evidence", "pictures")}
        plain.append(held | _mean("log_p_beyond_vae", beyond))
    keys = ("log_p_fresh_guide", "log_p_beyond_vae", "log_p_own_encoder", "told_apart", "covered")
    return {
        "draws": DRAWS,
        **{f"{r['name']}: {k}": r[k] for r in plain for k in keys},
        "rows": plain,
    }


def draw(rows: list[dict[str, Any]], folder: Path) -> None:
    """Draw samples of every cell side by side, and what comes out of holes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shown = [r for r in rows if r["name"] in ("VAE", "VAE + VampPrior", "AAE 10", "MMD 100")]
    fig, axes = plt.subplots(2, len(shown), figsize=(2.6 * len(shown), 4.0), layout="constrained")
    for column, row in zip(axes.T, shown, strict=True):
        kinds = {"samples": row["name"], "holes": f"{1 - row['covered']:.1%} in holes"}
        for ax, (kind, title) in zip(column, kinds.items(), strict=True):
            images = np.array(row["pictures"][kind][:24], dtype=float).reshape(-1, 28, 28)
            sheet = np.zeros((4 * 28, 6 * 28))
            for k, image in enumerate(images):
                i, j = divmod(k, 6)
                sheet[i * 28 : i * 28 + 28, j * 28 : j * 28 + 28] = image
            ax.imshow(sheet, cmap="gray_r", vmin=0, vmax=255)
            ax.set_title(title, fontsize=9)
            ax.set_xticks([])
            ax.set_yticks([])
    folder.mkdir(parents=True, exist_ok=True)
    fig.savefig(folder / "vae_vs_aae.png", dpi=110)
    plt.close(fig)


def _mean(name: str, values: Any) -> dict[str, float]:  # noqa: ANN401
    """A mean over data, with its standard error over data."""
    v = np.asarray(values, dtype=np.float64)
    se = float(v.std(ddof=1) / len(v) ** 0.5)
    return {name: round(float(v.mean()), 2), f"{name}_se": round(se, 2)}


if __name__ == "__main__":
    main()
