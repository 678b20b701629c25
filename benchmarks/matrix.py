"""Swap anything: a pairwise-covering set of prior × family × guide × objective, run end to end.

Every pair of choices (this prior with that family, that family with this guide, …) stands in some
row. Each row is built, trained for three steps, and asked for log weights, posterior predictive
draws and a DataTree: it gives them, finite, or refuses with the sentence that belongs to it. What
must be refused is decided by `refusal` below, from what the pieces are, before anything is run.

Then the evidence: under each prior with a density and a latent of one dimension, and each family,
log p(x) by importance sampling against quadrature, whose error is 1e-8 (1e-6 under splines). The
guide has tails no lighter than those of any prior, so that weights are bounded and errors Normal.

Usage: python benchmarks/matrix.py [--quick]
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from record import record
from torch import Tensor, nn

import ppl_vae as pv
from ppl_vae.data import quadrature, swiss_roll
from ppl_vae.distributions import Marginal

SEED = 0
LATENT, CELLS, ROWS, STEPS = 2, 4, 48, 3

COVARIATE = torch.linspace(-1, 1, ROWS)[:, None]

FAMILIES: dict[str, Callable[[], pv.Family]] = {
    "Bernoulli": lambda: pv.Bernoulli(CELLS),
    "Binomial": lambda: pv.Binomial(CELLS, total=5),
    "ContinuousBernoulli": lambda: pv.ContinuousBernoulli(CELLS),
    "Normal": lambda: pv.Normal(CELLS),
    "Normal shared": lambda: pv.Normal(CELLS, scale=pv.Shared()),
    "MultivariateNormal": lambda: pv.MultivariateNormal(CELLS),
    "LowRankMultivariateNormal": lambda: pv.LowRankMultivariateNormal(CELLS, rank=2),
    "StudentT": lambda: pv.StudentT(CELLS),
    "LogNormal": lambda: pv.LogNormal(CELLS),
    "Poisson": lambda: pv.Poisson(CELLS),
    "NegativeBinomial exposure": lambda: pv.NegativeBinomial(CELLS, exposure=True),
    "ZeroInflatedNegativeBinomial": lambda: pv.ZeroInflatedNegativeBinomial(CELLS),
    "Categorical": lambda: pv.Categorical(CELLS, classes=3),
    "Ordinal": lambda: pv.Ordinal(CELLS, classes=4),
    "DiscretisedLogistic": lambda: pv.DiscretisedLogistic(CELLS, levels=16),
    "Columns": lambda: pv.Columns(
        {
            "age": pv.Standardised(pv.Normal(()), loc=40.0, scale=10.0),
            "visits": pv.Poisson(()),
            "smoker": pv.Bernoulli(()),
            "grade": pv.Ordinal((), classes=5),
        }
    ),
    "Normal with gaps": lambda: pv.Normal(CELLS, scale=pv.PerFeature()),
}

PRIORS: dict[str, Callable[[], nn.Module]] = {
    "StandardNormal": lambda: pv.StandardNormal(LATENT),
    "GaussianMixture fixed": lambda: pv.GaussianMixture(torch.randn(3, LATENT)),
    "GaussianMixture learned": lambda: pv.GaussianMixture(torch.randn(3, LATENT), learned=True),
    "VampPrior": lambda: pv.VampPrior(torch.rand(5, CELLS)),
    "FlowPrior": lambda: pv.FlowPrior(LATENT),
    "StudentTPrior": lambda: pv.StudentTPrior(LATENT),
    "UniformBox": lambda: pv.UniformBox(LATENT),
    "Conditional": lambda: pv.Conditional(pv.MLP(8), pv.Normal(LATENT), given={"c": 1}),
    "SampledPrior": lambda: pv.SampledPrior(swiss_roll, LATENT),
}

Given = dict[str, int]
GUIDES: dict[str, Callable[[Given], nn.Module]] = {
    "mean-field": lambda given: pv.Conditional(pv.MLP(8), pv.Normal(LATENT), given=given),
    "low rank": lambda given: pv.Conditional(
        pv.MLP(8), pv.LowRankMultivariateNormal(LATENT, rank=1), given=given
    ),
    "full": lambda given: pv.Conditional(pv.MLP(8), pv.MultivariateNormal(LATENT), given=given),
    "flow": lambda given: pv.ConditionalFlow(pv.MLP(8), LATENT, given=given, context=8),
    "Delta": lambda given: pv.Conditional(pv.MLP(8), pv.Delta(LATENT), given=given),
    "implicit": lambda given: pv.Implicit(pv.MLP(8), LATENT, given=given, noise=2),
}

OBJECTIVES: dict[str, Callable[[], Any]] = {
    "ELBO": pv.ELBO,
    "ELBO analytic": lambda: pv.ELBO(analytic_kl=True, kl_weight=0.5, warmup=1),
    "ImportanceWeighted": lambda: pv.ImportanceWeighted(3),
    "Adversarial": lambda: pv.Adversarial(critic=pv.MLP(8)),
    "Wasserstein": lambda: pv.Adversarial(
        critic=pv.MLP(8), loss=pv.Wasserstein(), critic_steps=2, instance_noise=0.1
    ),
    "MMD": pv.MMD,
    "Trace_ELBO": pyro.infer.Trace_ELBO,
}

AXES = (PRIORS, FAMILIES, GUIDES, OBJECTIVES)


class Row(NamedTuple):
    """One combination, by name."""

    prior: str
    family: str
    guide: str
    objective: str


def covering(seed: int = SEED) -> list[Row]:
    """Rows in which every pair of values of two axes occurs, greedily: few more than needed.

    A pair that runs with something is in a row that runs: one that is refused tells nothing of it.
    """
    shuffled = random.Random(seed)
    axes = [list(a) for a in AXES]
    everything = [Row(*values) for values in itertools.product(*axes)]
    running = {pair for row in everything if refusal(row) is None for pair in _pairs(row)}
    pairs = {pair for row in everything for pair in _pairs(row)}
    rows = []
    while pairs:
        i, a, j, b = pair = min(pairs)  # one that is left, and what else fits to it
        best, gain = None, -1
        for _ in range(60):
            values = [shuffled.choice(axis) for axis in axes]
            values[i], values[j] = a, b
            row = Row(*values)
            new = len(pairs & _pairs(row))
            if (refusal(row) is None) == (pair in running) and new > gain:
                best, gain = row, new
        if best is None:
            continue  # none of these 60
        rows.append(best)
        pairs -= _pairs(best) - (set() if refusal(best) is None else running)
    return rows


def _pairs(row: Row) -> set[tuple[int, str, int, str]]:
    places = itertools.combinations(range(len(row)), 2)
    return {(i, row[i], j, row[j]) for i, j in places}


def refusal(row: Row) -> str | None:
    """What a combination must be refused with, or None; from what the pieces are."""
    if row.prior == "VampPrior" and row.guide == "Delta":
        return "VampPrior"  # a mixture of points
    if row.objective in ("Adversarial", "Wasserstein", "MMD"):
        return None
    if row.guide == "Delta" and row.objective == "ImportanceWeighted":
        return "is a point (Delta)"
    if row.prior == "SampledPrior" or row.guide == "implicit":
        return "can only be sampled, not scored"
    return None


def weightless(row: Row) -> bool:
    """Whether there are no log weights: something has no density."""
    return row.prior == "SampledPrior" or row.guide in ("Delta", "implicit")


def program(row: Row) -> pv.VAE:
    """Build it: each piece is one argument."""
    torch.manual_seed(SEED)
    family = FAMILIES[row.family]()
    given = {"x": CELLS, "mask": CELLS} if row.family.endswith("gaps") else {"x": CELLS}
    decoder = pv.Conditional(pv.MLP(8), family, given=LATENT)
    return pv.VAE(PRIORS[row.prior](), decoder, GUIDES[row.guide](given))


def data(row: Row) -> dict[str, Tensor]:
    """Data that the family could have made."""
    torch.manual_seed(SEED + 1)
    family = FAMILIES[row.family]()
    raw = {n: torch.randn(ROWS, *s) for n, s in family.shapes.items()}
    needs = {n: torch.rand(ROWS, 1) + 0.5 for n in family.needs}
    x = family(**raw, **family.shared, **needs).sample()
    if row.family.endswith("gaps"):
        x[torch.rand(x.shape) < 0.3] = torch.nan
    return {"x": x, **needs} | ({"c": COVARIATE} if row.prior == "Conditional" else {})


def check(row: Row) -> str:
    """Run one combination end to end: "runs", "no density", or "refused".

    Raises:
        AssertionError: If anything is not finite, or not refused as it should be.
    """
    expected = refusal(row)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what each says is tested where it belongs
        try:
            vae, x = program(row), data(row)
            history, _ = pv.fit(
                vae, x, objective=OBJECTIVES[row.objective](), epochs=1, batch_size=ROWS // STEPS,
                seed=SEED, progress=False, compile=False,
            )  # fmt: skip
        except ValueError as error:
            if expected is None or expected not in str(error):
                raise AssertionError(f"{row} was refused: {error}") from error
            return "refused"
        if expected is not None:
            raise AssertionError(f"{row} was not refused, as {expected!r}")
        _assert(np.isfinite(history["loss"]).all(), row, "the loss is not finite")
        drawn = pv.posterior_predictive(vae, x, 3, seed=SEED)
        _assert(drawn.data["x"].isfinite().all(), row, "draws are not finite")
        support = vae.decoder.family.support
        _assert(support.check(drawn.data["x"]).all(), row, "draws lie outside the support")
        tree = pv.to_datatree(vae, x, num_samples=4, seed=SEED)
        _assert({"posterior", "prior", "observed_data"} <= set(tree), row, "a group is missing")
        try:
            weights = pv.log_weights(vae, x, 5, seed=SEED)
        except pv.NoDensityError:
            _assert(weightless(row), row, "log weights were refused")
            return "no density"
        _assert(not weightless(row), row, "log weights were given")
        _assert(weights.isfinite().all(), row, "log weights are not finite")
    return "runs"


def _assert(holds: Any, row: tuple[str, ...], what: str) -> None:  # noqa: ANN401
    if not bool(holds):
        raise AssertionError(f"{row}: {what}")


DRAWS, DATA = 20_000, 3
BOUND = 6  # standard errors that no error passes: a false alarm in 10^6 runs of all pairs
ONE_DIMENSION: dict[str, Callable[[], nn.Module]] = {
    "StandardNormal": lambda: pv.StandardNormal(1),
    "GaussianMixture fixed": lambda: pv.GaussianMixture(torch.tensor([[-1.0], [1.5]]), scale=0.6),
    "GaussianMixture learned": lambda: pv.GaussianMixture(torch.randn(3, 1), learned=True),
    "VampPrior": lambda: pv.VampPrior(torch.rand(5, CELLS), learned=False),
    "FlowPrior": lambda: _tame(pv.FlowPrior(1)),
    "StudentTPrior": lambda: pv.StudentTPrior(1),
    "UniformBox": lambda: pv.UniformBox(1),
    "Conditional": lambda: pv.Conditional(pv.MLP(8), pv.Normal(1), given={"c": 1}),
}


def _tame(prior: nn.Module) -> nn.Module:
    """A spline less wild than it starts: quadrature asks that it integrate to 1 within 1e-9."""
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.mul_(0.3)
    return prior


def errors_of_evidence(prior: str, family: str) -> np.ndarray:
    """Errors of log p(x) in standard errors, ``(DATA,)``; of every pair independent ones."""
    was = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    seed = SEED + [*itertools.product(ONE_DIMENSION, FAMILIES)].index((prior, family))
    try:
        torch.manual_seed(seed)
        built, gaps = FAMILIES[family](), family.endswith("gaps")
        given = {"x": CELLS, "mask": CELLS} if gaps else {"x": CELLS}
        vae = pv.VAE(
            ONE_DIMENSION[prior](),
            pv.Conditional(pv.MLP(8, activation=nn.Tanh), built, given=1),
            pv.Conditional(pv.Features(pv.MLP(8), built, mask=gaps), pv.StudentT(1, df=5.0), given),
        ).double()
        c = torch.full((1, 1), 0.4)  # the same for all data
        covariates = {"c": c} if prior == "Conditional" else {}
        needs = {n: torch.full((1, 1), 0.8) for n in built.needs}
        p = vae.prior(*(c[0] for c in covariates.values()))
        with torch.no_grad():
            z = p.sample(torch.Size([DATA])).clamp(-2, 2)
            x = vae.decoder(z, **{n: v.expand(DATA, 1) for n, v in needs.items()}).sample().double()
        seen = torch.tensor([[True, False, True, True]]) if gaps else None

        def decoder(z: Tensor) -> Any:  # noqa: ANN401
            fn = vae.decoder(z, **needs)
            return fn if seen is None else Marginal(fn, seen)

        tolerance = 1e-6 if prior == "FlowPrior" else 1e-8
        exact = quadrature(p, decoder, x, tolerance=tolerance).log_evidence
        data = {"x": x if seen is None else x.where(seen, torch.nan)}
        data |= {n: v.expand(DATA, 1) for n, v in (covariates | needs).items()}
        found = pv.log_evidence(vae, data, DRAWS, seed=seed)
        return (found.log_evidence - exact.detach().numpy()) / (found.se + 1e-6)
    finally:
        torch.set_default_dtype(was)


def main() -> None:
    """Run all, and write down what came of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="every twelfth row")
    options = parser.parse_args()
    started = time.perf_counter()
    rows = covering()[:: 12 if options.quick else 1]
    outcomes = []
    for row in rows:
        outcomes.append([*row, check(row)])
        print(" · ".join(outcomes[-1]), flush=True)
    evidence, squares = [], []
    pairs = list(itertools.product(ONE_DIMENSION, FAMILIES))[:: 12 if options.quick else 1]
    for prior, family in pairs:
        errors = errors_of_evidence(prior, family)
        worst = float(np.abs(errors).max())
        squares.extend(errors**2)
        _assert(worst < BOUND, (prior, family), f"the evidence is wrong by {worst:.1f} SE")
        evidence.append([prior, family, round(worst, 2)])
        print(" · ".join(map(str, evidence[-1])), flush=True)
    counts = {k: sum(o[-1] == k for o in outcomes) for k in ("runs", "no density", "refused")}
    figures = {
        "combinations": len(rows),
        "of_all": int(np.prod([len(a) for a in AXES])),
        **{k.replace(" ", "_"): v for k, v in counts.items()},
        "pairs_of_evidence": len(evidence),
        "worst_error_of_evidence_in_se": max(e[-1] for e in evidence),
        "mean_square_error_in_se": round(float(np.mean(squares)), 3),
        "expected_of_independent_normal_errors": f"1 ± {(2 / len(squares)) ** 0.5:.3f}",
        "rows": outcomes,
        "evidence": evidence,
    }
    record(__file__, figures, seed=SEED, started=started, quick=options.quick)


if __name__ == "__main__":
    main()
