"""k-hat beside what it stands for: how far q(z|x) is from p(z|x), drawn by NUTS, for 50 digits.

A VAE of digits (8 latents, Binomial(16), a guide of independent Normals), and 50 of the digits held
out, chosen at random and none left out; the same under a guide refined for each of them, with a
full covariance. For each digit: k-hat of 1000 weights; the error of q's mean in sds of the
posterior and the logarithm of the ratio of sds, root mean squares over the units; the accuracy of a
classifier that tells draws of q from draws of the posterior. Spearman's rank correlations with 95 %
intervals by Fisher's z with the variance (1 + r²/2)/(n − 3) (Bonett & Wright 2000, Sample size
requirements for estimating Pearson, Kendall and Spearman correlations; recalled, not checked).

The same measures of draws resampled from either guide: a classifier then sees a proposal that comes
again as what it is, also where it is of the right law.

NUTS itself is held against exact posteriors first: means and covariances of linear-Gaussian worlds,
in units of their Monte-Carlo errors.

Usage: python benchmarks/khat_digits.py [--quick]
       python benchmarks/khat_digits.py --figure   (draws what the last full run recorded)
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arviz_stats.base import array_stats
from matplotlib.figure import Figure
from numpy.typing import NDArray
from record import record
from scipy.stats import norm, spearmanr

from ppl_vae import (
    ELBO,
    MLP,
    VAE,
    Binomial,
    Conditional,
    Normal,
    Program,
    StandardNormal,
    fit,
    guide_agreement,
    reference_posterior,
    refine,
    resampled_posterior,
)
from ppl_vae.data import LinearGaussian, digits
from ppl_vae.diagnostics import agreement, good_khat
from ppl_vae.plots.style import DATA, FRESH, GUIDE, as_svg, figure, legend_above, styled
from ppl_vae.posterior import Reference
from ppl_vae.posterior.draws import as_array

SEED, HELD_OUT, CHOSEN, LATENT, DRAWS = 0, 500, 50, 8, 1000
RESULT = Path(__file__).parent / "results" / "khat_digits.json"
IMAGE = Path(__file__).parents[1] / "docs" / "images" / "khat_digits.svg"
MEASURES = {
    "rms_mean_error": "error of means (sd)",
    "rms_log_sd_ratio": "|log ratio of sds|",
    "c2st": "told apart",
}

Floats = NDArray[np.float64]


def main() -> None:
    """Train, draw, compare, correlate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few digits, short chains")
    parser.add_argument("--figure", action="store_true", help=f"write {IMAGE.name}, no run")
    options = parser.parse_args()
    if options.figure:
        found = json.loads(RESULT.read_text(encoding="utf-8"))["figures"]
        IMAGE.write_bytes(as_svg(draw(found)))
        print(IMAGE)
        return
    started = time.perf_counter()
    chains, warmup, samples, epochs = (2, 40, 80, 3) if options.quick else (4, 500, 750, 100)
    exact: dict[str, Any] = {}
    for latent in (2,) if options.quick else (2, 8, 20):
        exact |= against_exact(latent, chains, warmup, samples)
    print(exact, flush=True)

    program, held, labels = trained(epochs)
    chosen = np.random.default_rng(SEED + 1).choice(HELD_OUT, CHOSEN, replace=False)
    chosen = np.sort(chosen)[: 4 if options.quick else CHOSEN]
    x = held[chosen]
    begun = time.perf_counter()
    reference = reference_posterior(
        program, x, num_samples=samples, warmup=warmup, num_chains=chains, seed=SEED, progress=False
    )
    seconds = round(time.perf_counter() - begun, 1)
    print(reference, f"{seconds} s", flush=True)
    steps = 50 if options.quick else 500
    refined = refine(program, x, steps=steps, seed=SEED, progress=False)
    guides = {"own": program, "refined": refined}
    columns = {"rhat": reference.rhat, "ess": reference.ess}
    for name, guide in guides.items():
        columns |= compared(name, guide, x, reference)
    rows = [
        {
            "digit": int(labels[chosen[n]]),
            "held_out_row": int(chosen[n]),
            **{c: _number(values[n]) for c, values in columns.items()},
        }
        for n in range(len(x))
    ]
    figures: dict[str, Any] = {**exact, "digits": len(x), "khat_draws": DRAWS}
    figures["rhat_largest"] = round(float(reference.rhat.max()), 4)
    figures["rhat_above_1.01"] = int((reference.rhat > 1.01).sum())
    figures["ess_smallest"] = round(float(reference.ess.min()))
    figures["ess_below_400"] = int((reference.ess < 400).sum())
    figures["divergences"] = reference.divergences
    figures["chains"], figures["warmup"], figures["samples"] = chains, warmup, samples
    figures["nuts_seconds"] = seconds
    for name in guides:
        tails = columns[f"{name}_khat"]
        figures[f"{name}_khat_above_{good_khat(DRAWS):.2f}"] = int((tails > good_khat(DRAWS)).sum())
        for measure in MEASURES:
            values = columns[f"{name}_{measure}"]
            figures[f"{name}_khat_and_{measure}"] = rank_correlation(tails, values)
        for measure in (f"{n}{m}" for n in ("", "resampled_") for m in MEASURES):
            median = np.nanmedian(columns[f"{name}_{measure}"])
            figures[f"{name}_{measure}_median"] = round(float(median), 3)
    record(__file__, {**figures, "rows": rows}, seed=SEED, started=started, quick=options.quick)


def trained(epochs: int) -> tuple[VAE, NDArray[np.float32], NDArray[np.int64]]:
    """The program, and the digits that it has not seen, with labels."""
    x, labels = digits()
    order = np.random.default_rng(SEED).permutation(len(x))  # the demo's split
    held, kept = order[:HELD_OUT], order[HELD_OUT:]
    torch.manual_seed(SEED)
    program = VAE(
        StandardNormal(LATENT),
        Conditional(MLP(128, 128), Binomial((8, 8), total=16), given=LATENT),
        Conditional(MLP(128, 128), Normal(LATENT), given=(8, 8)),
    )
    fit(program, x[kept], objective=ELBO(), epochs=epochs, seed=SEED, progress=False)
    return program, x[held], labels[held]


def compared(name: str, program: Program | VAE, x: Any, reference: Reference) -> dict[str, Floats]:  # noqa: ANN401
    """A guide, and draws resampled from it, beside the reference: by column."""
    found = guide_agreement(program, x, reference, num_samples=DRAWS, seed=SEED)
    print(name, found, flush=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of k-hat, which is recorded
        again = resampled_posterior(program, x, DRAWS, seed=SEED)
    resampled = agreement(
        as_array(again.latents["z"]), found.reference, ess=reference.ess, seed=SEED
    )
    print(name, "resampled", resampled, flush=True)
    columns = {
        "khat": found.khat,
        **{m: getattr(found, m) for m in MEASURES},
        "c2st_se": found.c2st_se,
        "correlation_error": found.correlation_error,
        "resampled_khat": again.khat,
        **{f"resampled_{m}": getattr(resampled, m) for m in MEASURES},
    }
    return {"noise": found.noise, **{f"{name}_{c}": v for c, v in columns.items()}}


def against_exact(latent: int, chains: int, warmup: int, samples: int) -> dict[str, Any]:
    """Errors of NUTS's means and covariances in a world where they are known, in MC errors.

    Each is the mean over draws of something with a known expectation: z_i, and (z_i − m_i)(z_j −
    m_j) with the exact means m; its error is ArviZ's mcse of that.
    """
    world = LinearGaussian.random(latent, latent + 3, seed=SEED)
    x, _ = world.sample(10, seed=SEED)
    posterior = world.posterior(x)
    found = reference_posterior(
        Program(world.model, world.guide), x, num_samples=samples, warmup=warmup,
        num_chains=chains, seed=SEED, progress=False,
    )  # fmt: skip
    z, mean = as_array(found.latents["z"]), as_array(posterior.loc)
    i, j = np.tril_indices(latent)
    centred = z - mean
    covariance = as_array(posterior.covariance_matrix)[:, i, j]

    def off(values: Floats, truth: Floats) -> Floats:
        error = array_stats.mcse(values, chain_axis=0, draw_axis=1, method="mean")
        scaled: Floats = (values.mean((0, 1)) - truth) / error
        return scaled.ravel()

    errors = {
        "means": off(z, mean),
        "covariances": off(centred[..., i] * centred[..., j], covariance),
    }
    shown: dict[str, Any] = {}
    for name, z_scores in errors.items():
        at = f"exact_D{latent}_{name}"
        shown[f"{at}_largest_error"] = round(float(abs(z_scores).max()), 2)
        # what the largest of so many standard normal errors exceeds once in a hundred times
        limit = norm.isf((1 - 0.99 ** (1 / z_scores.size)) / 2)
        shown[f"{at}_limit"] = round(float(limit), 2)
        shown[f"{at}_rms_error"] = round(float(np.sqrt((z_scores**2).mean())), 2)
    shown[f"exact_D{latent}_rhat"] = round(float(found.rhat.max()), 4)
    return shown


def _number(value: float) -> float | None:
    """Four decimals; JSON has no NaN and no infinity."""
    return round(float(value), 4) if np.isfinite(value) else None


def rank_correlation(x: Floats, y: Floats) -> str:
    """Spearman's, with its 95 % interval, of the data that have both."""
    known = ~(np.isnan(x) | np.isnan(y))
    x, y = x[known], y[known]
    r, n = float(spearmanr(x, y).statistic), len(x)
    half = norm.ppf(0.975) * ((1 + r**2 / 2) / max(n - 3, 1)) ** 0.5
    centre = np.arctanh(np.clip(r, -0.9999, 0.9999))
    low, high = np.tanh([centre - half, centre + half])
    return f"{r:.2f} ({low:.2f} to {high:.2f})"


@styled
def draw(found: dict[str, Any]) -> Figure:
    """Draw every digit: k-hat against each measure."""
    rows = found["rows"]
    columns = {c: np.array([r[c] for r in rows], dtype=np.float64) for c in rows[0]}
    noise = np.median(columns["noise"])
    floors = {"rms_mean_error": noise, "rms_log_sd_ratio": noise / 2**0.5, "c2st": 0.5}
    limit = good_khat(found["khat_draws"])
    fig = figure(7.4, 3.1)
    axes = fig.subplots(1, 3)
    for ax, (measure, label) in zip(axes, MEASURES.items(), strict=True):
        said = f"{label}; rank correlation"
        for name, colour in (("own", GUIDE), ("refined", FRESH)):
            ax.scatter(columns[f"{name}_khat"], columns[f"{name}_{measure}"], s=16, color=colour,
                       alpha=0.7, linewidths=0, label=f"{name} guide")  # fmt: skip
            said += f"\n{name}: {found[f'{name}_khat_and_{measure}'].replace('-', '−')}"
        ax.axvline(limit, color=DATA, linewidth=0.9, linestyle="--", label=f"k-hat {limit:.2f}")
        ax.axhline(floors[measure], color=DATA, linewidth=0.9, linestyle=":", label="an exact one")
        ax.set_title(said, fontsize=8)
        ax.set_xlabel(f"k-hat of {found['khat_draws']} weights")
    legend_above(fig, axes[0])
    return fig


if __name__ == "__main__":
    main()
